"""What contradicts itself in a spec: nobody can mean it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from ..conditions import parse
from ..metrics import NUMBERS, metric_of
from ..model import Event, TelemetrySpec
from ..outcomes import Operation, Workflow
from ..sources import ALWAYS_FILLED, CALL, PRIVATE, RUN, WORKFLOW, bounded
from .rows import Found, Lint, outcomes, properties


def _required_deprecated(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.required and (prop.deprecated or prop.expires):
            yield at, "is required, and to be given up; expected one of the two"


def _required_unknown(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.required and prop.type == "json":
            yield at, "is required, and of type json, which is always withheld; expected its parts as properties"


def _outcome_undeclared(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, outcome, event in outcomes(spec):
        for name in outcome.properties:
            if name not in event.properties:
                yield f"{at}.{name}", f"is sent with {event.name}, which declares no such property"


def _outcome_missing(spec: TelemetrySpec, today: date) -> Found:
    for at, _, which, outcome, event in outcomes(spec):
        for name, prop in event.properties.items():
            if prop.required and name not in {*outcome.properties, *ALWAYS_FILLED[which]}:
                yield at, f"leaves out {name!r}, which {event.name} requires"


def _outcome_source(spec: TelemetrySpec, today: date) -> Found:
    for at, owner, which, outcome, _ in outcomes(spec):
        call = isinstance(owner, Operation) and not owner.commands
        known = WORKFLOW[which] if isinstance(owner, Workflow) else CALL if call else RUN
        for name, path in outcome.properties.items():
            if (path.partition(".")[0] if call else path) not in known:
                begins = "a path that begins with" if call else "one of"
                yield f"{at}.{name}", f"comes from {path!r}; expected {begins} {', '.join(known)}"


def _outcome_private(spec: TelemetrySpec, today: date) -> Found:
    for at, owner, _, outcome, event in outcomes(spec):
        if isinstance(owner, Operation) and not owner.commands:
            continue
        for name, path in outcome.properties.items():
            prop = event.properties.get(name)
            if prop is not None and path in PRIVATE and not bounded(prop, masked=event.masks(name)):
                yield (
                    f"{at}.{name}",
                    f"is shared, and takes {path!r}, a name of the user's own; expected an enum, or audience 'private'",
                )


def _threshold_metric(spec: TelemetrySpec, today: date) -> Found:
    for at, event, metric, _, _ in _thresholds(spec):
        if metric_of(event, metric) is not None:
            continue
        if metric in event.properties:
            yield at, f"judges {metric!r}, which is no number; expected one of type {', '.join(NUMBERS)}"
        elif metric == "failure_share":
            yield at, "judges the share of failures; expected an enum that tells success and failed apart"
        else:
            yield at, f"judges {metric!r}; expected a property of the event, mean or p95 of one, count or failure_share"


def _threshold_bounds(spec: TelemetrySpec, today: date) -> Found:
    for at, event, metric, low, high in _thresholds(spec):
        judged = metric_of(event, metric)
        prop = event.properties.get(judged.property) if judged is not None and judged.property else None
        if prop is None:
            continue
        if (high is not None and prop.max is not None and high >= prop.max) or (
            low is not None and low <= (prop.min if prop.min is not None else 0)
        ):
            yield at, f"can never be crossed: {metric} is bounded by its declaration"


def _condition_unknown(spec: TelemetrySpec, today: date) -> Found:
    for at, event, names in _conditions(spec):
        for name in sorted(names - event.properties.keys()):
            yield at, f"asks for {name!r}, which {event.name} does not declare"


def _condition_masked(spec: TelemetrySpec, today: date) -> Found:
    for at, event, names in _conditions(spec):
        for name in sorted(names & event.properties.keys()):
            if event.masks(name) or event.properties[name].type == "json":
                yield at, f"asks for {name!r}, whose value is never recorded"


def _replaced_by(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if event.replaced_by and (event.replaced_by == event.name or spec.event(event.replaced_by) is None):
            yield (
                f"events.{event.name}",
                f"is replaced by {event.replaced_by!r}; expected another event that is declared",
            )
    for at, event, name, prop in properties(spec):
        if prop.replaced_by and (prop.replaced_by == name or prop.replaced_by not in event.properties):
            yield at, f"is replaced by {prop.replaced_by!r}; expected another property of the event"


def _thresholds(spec: TelemetrySpec) -> Iterator[tuple[str, Event, str, float | None, float | None]]:
    for event in spec.events:
        found = event.anomaly_detection.thresholds if event.anomaly_detection else ()
        for number, each in enumerate(found):
            at = f"events.{event.name}.anomaly_detection.thresholds[{number}]"
            yield at, event, each.metric, each.min, each.max


def _conditions(spec: TelemetrySpec) -> Iterator[tuple[str, Event, frozenset[str]]]:
    for event in spec.events:
        sampling = event.sampling
        if sampling is None:
            continue
        at = f"events.{event.name}.sampling"
        for text in (*sampling.conditions, *sampling.always):
            yield at, event, parse(text).names
        if sampling.by:
            yield f"{at}.by", event, frozenset({sampling.by})


def _operation_repeated(spec: TelemetrySpec, today: date) -> Found:
    called = [each.name for each in spec.operations if not each.commands]
    for name in dict.fromkeys(called):
        if called.count(name) > 1:
            yield f"operations.{name}", "is declared twice, and code that calls it gets the first; expected it once"


LINTS: Mapping[str, Lint] = {
    "required-deprecated": Lint(_required_deprecated, "contradiction", "A required property that is to be given up."),
    "required-json": Lint(_required_unknown, "contradiction", "A required property that is always withheld."),
    "undeclared-outcome": Lint(_outcome_undeclared, "contradiction", "An outcome sends what is not declared."),
    "incomplete-outcome": Lint(_outcome_missing, "contradiction", "An outcome leaves out what its event requires."),
    "unknown-source": Lint(_outcome_source, "contradiction", "A property comes from where nothing is."),
    "private-source": Lint(_outcome_private, "contradiction", "A shared property that takes a name of the user's own."),
    "repeated-operation": Lint(_operation_repeated, "contradiction", "An operation of code is declared twice."),
    "unknown-metric": Lint(_threshold_metric, "contradiction", "A threshold judges what is no number of the event."),
    "idle-threshold": Lint(_threshold_bounds, "contradiction", "A threshold that the bounds keep from being crossed."),
    "unknown-condition": Lint(_condition_unknown, "contradiction", "Sampling asks for what is not declared."),
    "masked-condition": Lint(_condition_masked, "contradiction", "Sampling asks for a value that is never recorded."),
    "unknown-replacement": Lint(_replaced_by, "contradiction", "Replaced by itself, or by what is not declared."),
}  # fmt: skip
