"""Alert rules for Prometheus, made of the anomaly thresholds of a spec. Pure: who writes them where is not known here.

A threshold is judged on what happened within a window, for each group of label values apart:

    mean and p95, of a duration_ms or count    of its histogram; p95 lies between two of its bounds
    mean and p95, of a number                  of the values that were scraped
    failure_share                              failed / (succeeded + failed)
    count                                      how many events there were

Only where there were ``minimum_sample`` events at least; but for too few of them. What a metric means is for
``cmdorc_telemetry.spec.metrics`` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cmdorc_telemetry.errors import ConfigError, SpecError
from cmdorc_telemetry.spec import TelemetrySpec
from cmdorc_telemetry.spec.instruments import EventMetrics
from cmdorc_telemetry.spec.metrics import metric_of, outcomes_of
from cmdorc_telemetry.spec.model import AnomalyDetection, Event, Threshold

from .metrics import Catalogue

_DURATION = re.compile(r"(?=.)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")


class _Judged(NamedTuple):
    """A number that a threshold is about, as an expression."""

    value: str
    sample: str
    """How many events it is made of."""
    about: str
    """What it is, in words."""
    shown: str = "humanize"
    """The template function that shows it."""
    per: int = 1
    """How many of the threshold's unit make one of the expression's."""


def alert_rules(
    spec: TelemetrySpec, *, window: str = "1h", pending: str = "5m", labels: Sequence[str] = ("command_name",)
) -> str:  # fmt: skip
    """A rule file (YAML). An alert fires where a threshold is crossed for as long as ``pending``.

    ``labels`` are those of the destination. Raises ConfigError, SpecError for a threshold of what is no number.
    """
    for name, given in (("window", window), ("pending", pending)):
        if not _DURATION.fullmatch(given):
            raise ConfigError(name, "", f"found {given!r}", "a duration such as 30m or 1h")
    rules = [rule for event in _watched(spec) for rule in _rules(spec, event, window, pending, labels)]
    head = f"# Made of the thresholds of {spec.ref} by `python -m cmdorc_telemetry_prometheus rules`.\n"
    if not rules:
        return f"{head}groups: []\n"
    every = spec.config.check_interval_ms
    interval = f"{every // 1000}s" if every % 1000 == 0 else f"{every}ms"
    group = f"groups:\n  - name: {json.dumps(spec.ref)}\n    interval: {interval}\n    rules:\n"
    return head + group + "".join(rules)


def _watched(spec: TelemetrySpec) -> Iterator[Event]:
    """The latest version of each event that has thresholds which are in force."""
    for name in dict.fromkeys(event.name for event in spec.events):
        event = spec.event(name)
        assert event is not None
        if spec.config.anomaly_detection and event.anomaly_detection is not None and event.anomaly_detection.enabled:
            yield event


def _rules(spec: TelemetrySpec, event: Event, window: str, pending: str, labels: Sequence[str]) -> Iterator[str]:
    metrics, watch = Catalogue([spec], labels).find(spec.ref, event.name), event.anomaly_detection
    assert metrics is not None
    assert watch is not None
    for number, threshold in enumerate(watch.thresholds):
        judged = _judged(event, metrics, threshold, window)
        if judged is None:
            at = f"events.{event.name}.anomaly_detection.thresholds[{number}].metric"
            expected = "a number of the event, mean or p95 of one, count or failure_share"
            raise SpecError(spec.ref, at, f"found {threshold.metric!r}", expected)
        for sign, limit, word in ((">", threshold.max, "High"), ("<", threshold.min, "Low")):
            if limit is not None:
                yield _rule(spec, event, metrics, watch, threshold, judged, sign, limit, word, pending)


def _rule(
    spec: TelemetrySpec, event: Event, metrics: EventMetrics, watch: AnomalyDetection, threshold: Threshold,
    judged: _Judged, sign: str, limit: float, word: str, pending: str,
) -> str:  # fmt: skip
    bound = f"{limit / judged.per:.15g}"
    expression = f"{judged.value} {sign} {bound}"
    if sign == ">" or judged.value != judged.sample:  # too few events would never be enough to say so
        expression = f"({expression})\nand\n({judged.sample} >= {watch.minimum_sample})"
    group = "".join(f"{{{{ with $labels.{label} }}}}{{{{ . }}}}: {{{{ end }}}}" for label in metrics.free.values())
    value = f"{{{{ $value | {judged.shown} }}}}"
    side = "above" if sign == ">" else "below"
    summary = f"{group}{judged.about} of {event.name} is {value}, {side} {bound}"
    said = {"severity": "warning" if "alert" in watch.actions else "info", "spec": spec.ref, "event": event.name,
            "metric": threshold.metric}  # fmt: skip
    fields = {
        "labels": {name: text for name, text in said.items() if name not in metrics.free.values()},  # groups stay apart
        "annotations": {"summary": summary, "description": event.semantics.what.replace("{{", '{{ "{{" }}')},
    }  # fmt: skip
    lines = [f"- alert: {_camel(metrics.total.name)}{_camel(threshold.metric)}{word}", "  expr: |-"]
    lines += [f"    {line}" for line in expression.splitlines()]
    lines.append(f"  for: {pending}")
    for name, table in fields.items():
        lines += [f"  {name}:", *(f"    {key}: {json.dumps(text, ensure_ascii=False)}" for key, text in table.items())]
    return "".join(f"      {line}\n" for line in lines)


def _judged(event: Event, metrics: EventMetrics, threshold: Threshold, window: str) -> _Judged | None:
    """What the threshold is about; None where that is no number of the event."""
    metric = metric_of(event, threshold.metric)
    by = f"by ({', '.join(['job', 'instance', *metrics.free.values()])})"
    events = f"sum {by} (increase({metrics.total.name}_total[{window}]))"
    if metric is None:
        return None
    if metric.statistic == "count":
        return _Judged(events, events, "number")
    if metric.statistic == "failure_share":
        return _failure_share(event, metrics, window, by)
    reading = next(each for each in metrics.readings if each.prop == metric.property)
    name, per = reading.family.name, reading.per
    about, shown = f"{metric.statistic} of {reading.prop}", "humanize"
    if name.endswith("_seconds"):
        shown = "humanizeDuration"
    if reading.family.kind == "gauge":
        over = "avg_over_time(" if metric.statistic == "mean" else "quantile_over_time(0.95, "
        return _Judged(f"avg {by} ({over}{name}[{window}]))", events, about, shown, per)
    sample = f"sum {by} (increase({name}_count[{window}]))"
    value = f"sum {by} (increase({name}_sum[{window}])) / {sample}"
    if metric.statistic == "p95":
        value = f"histogram_quantile(0.95, sum {by[:-1]}, le) (increase({name}_bucket[{window}])))"
    return _Judged(value, sample, about, shown, per)


def _failure_share(event: Event, metrics: EventMetrics, window: str, by: str) -> _Judged:
    outcomes = outcomes_of(event)
    assert outcomes is not None
    label, _ = metrics.enums[outcomes.property]
    failed, ended = sorted(outcomes.failed), sorted(outcomes.failed | outcomes.succeeded)
    counts = [f'sum {by} (increase({metrics.total.name}_total{{{label}=~"{"|".join(chosen)}"}}[{window}]))'
              for chosen in (failed, ended)]  # fmt: skip
    return _Judged(f"{counts[0]} / {counts[1]}", counts[1], "share of failures", "humanizePercentage")


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in re.split(r"[^a-zA-Z0-9]+", name))
