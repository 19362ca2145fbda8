"""The questions that a spec is made of, in their order: a function of the answers that were given so far.

An answer is kept under the path that it has in a spec, such as ``events.0.properties.1.type``; beside these are those
that end in ``.more``, whether a list goes on. Knows nothing of terminals or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..spec.lint.privacy import HARMLESS, looks_personal
from . import checks
from .question import Question

Answers = Mapping[str, Any]

STABILITY = {
    "experimental": "may change at any time", "beta": "may change with notice", "stable": "changes with a new version",
    "deprecated": "to be given up", "idea": "written down, not built", "in_creation": "being built",
}  # fmt: skip
PROVIDERS = {
    "posthog": "PostHog", "segment": "Segment", "opentelemetry": "an OpenTelemetry collector",
    "internal": "a server of your own",
}  # fmt: skip
PRIVACY = {
    "internal": "nothing personal; the usual choice", "public": "could be printed anywhere",
    "pii": "has something personal in it, which is masked", "sensitive": "every value is masked",
}  # fmt: skip
TYPES = {
    "enum": "one word of a list; whatever else is sent as 'other'", "count": "a whole number, 0 or more",
    "duration_ms": "how long something took, in milliseconds", "bool": "yes or no",
    "bucket": "a number, sent as the range it is in", "number": "a number between two bounds",
    "hash": "12 hex digits of a keyed hash", "version": "such as 3.12.4", "uuid": "a random id",
    "timestamp": "a moment, UTC, to the second", "string": "a text that fits a pattern: the last resort",
}  # fmt: skip
LEVELS = {
    "minimal": "shared by all who share anything", "standard": "shared by those who say yes to it; the usual choice",
    "debug": "shared by those who say yes to debugging, for 30 days",
}  # fmt: skip
POLICIES = {"delete": "gone", "archive": "moved to an archive"}
ACTIONS = {"log": "written to the log", "alert": "a hook is called, which may tell a person",
           "trigger_regen": "a change of the spec is proposed"}  # fmt: skip
NUMERIC = ("count", "duration_ms", "number")


def script(given: Answers) -> Iterator[Question]:
    """Every question, as far as the answers in ``given`` lead: it may grow while this goes on."""
    yield from _meta(given)
    yield from _config(given)
    taken: list[Any] = []
    while True:
        at = f"events.{len(taken)}"
        if taken:
            yield Question(f"{at}.more", "Another event?", kind="yes", default=False)
            if not given.get(f"{at}.more"):
                return
        yield from _event(given, at, taken)
        taken = [*taken, given.get(f"{at}.name")]


def _meta(given: Answers) -> Iterator[Question]:
    yield Question("meta.name", "Name of the spec", "Who collects: an application or a part of it, such as acme.shop.",
                   check=checks.is_word)  # fmt: skip
    name = given.get("meta.name", "")
    yield Question("meta.version", "Version", "A whole number, or three such as 1.0.0.", "version", 1,
                   check=checks.is_version)  # fmt: skip
    yield Question("meta.title", "Title", "What people read above the list of what is collected.", default=name,
                   check=checks.is_there)  # fmt: skip
    yield Question("meta.description", "Description", "In one sentence: what is collected here, and of whom.")
    yield Question("meta.domain", "Domain", "The part of your product that it belongs to.",
                   default=name.partition(".")[0], check=checks.is_there)  # fmt: skip
    owner = re.sub(r"[^A-Za-z0-9_\-]+", ".", name).strip(".")
    yield Question("meta.owners", "Owners, with commas between", "Whom to ask. At least one, such as @acme.analytics.",
                   "names", [f"@{owner}"], check=checks.are_owners)  # fmt: skip
    yield Question("meta.tags", "Tags, with commas between", "What a catalogue of specs finds it by.", "names", [])
    yield Question("meta.stability", "Stability", "What those who build on its events may count on.", "choice",
                   "experimental", STABILITY)  # fmt: skip


def _config(given: Answers) -> Iterator[Question]:
    yield Question("config.default_retention_days", "For how many days may a server keep events?",
                   "Where an event does not say otherwise. Short is easier to agree to.", "number", 30,
                   check=checks.is_whole)  # fmt: skip
    yield Question("config.default_sampling_rate", "Which share of the events is sent, 0 to 1?",
                   "1 sends all. Below 0.05 figures become guesses.", "number", 1, check=checks.is_share)  # fmt: skip
    yield Question("config.anomaly_detection", "Watch for anomalies?",
                   "Only events that have rules are watched; these come later.", "yes", False)  # fmt: skip
    if given.get("config.anomaly_detection"):
        yield Question("config.check_interval_ms", "How often, in milliseconds?", "60000 is once a minute.", "number",
                       60_000, check=checks.is_whole)  # fmt: skip
    number = 0
    while True:
        path = f"config.providers.{number}"
        yield Question(f"{path}.more", "Another provider?" if number else "Note a provider?",
                       "Documentation alone: a spec sends nothing anywhere by itself.", "yes", False)  # fmt: skip
        if not given.get(f"{path}.more"):
            return
        yield Question(f"{path}.type", "Which?", "Where the events are meant to go.", "choice", "internal", PROVIDERS)
        yield Question(f"{path}.config", "Its settings, as a JSON object", "No keys or tokens: a spec is public.",
                       "table", {}, check=checks.is_public)  # fmt: skip
        number += 1


def _event(given: Answers, at: str, taken: list[Any]) -> Iterator[Question]:
    yield Question(f"{at}.name", "Name of the event", "What happened, in the past tense, such as shop.cart_paid.",
                   check=partial(checks.is_name, taken=taken))  # fmt: skip
    yield Question(f"{at}.version", "Version of the event", "A new one is for when its meaning changes.", "version", 1,
                   check=checks.is_version)  # fmt: skip
    yield Question(f"{at}.semantics.what", "What happened, when this is recorded?",
                   "One sentence; a person reads it before they say yes.", check=checks.is_there)  # fmt: skip
    yield Question(f"{at}.semantics.who", "Who causes it?", "Such as: a customer, the program itself.",
                   default="Whoever uses the program", check=checks.is_there)  # fmt: skip
    yield Question(f"{at}.semantics.why", "Why is it collected?", "A person reads this before they say yes.",
                   check=checks.is_there)  # fmt: skip
    yield Question(f"{at}.privacy", "Privacy", "How much care its values need.", "choice", "internal", PRIVACY)
    yield Question(f"{at}.retention.days", "Kept for how many days? (nothing: as by default)",
                   "Shorter where it says more than others.", "number", None,
                   check=partial(checks.is_whole, optional=True))  # fmt: skip
    if given.get(f"{at}.retention.days") is not None:
        yield Question(f"{at}.retention.policy", "And then?", "What a server does with it after that.", "choice",
                       "delete", POLICIES)  # fmt: skip
    count = 0
    while not count or given.get(f"{at}.properties.{count}.more"):
        yield from _property(given, f"{at}.properties.{count}", _names(given, at, count))
        count += 1
        yield Question(f"{at}.properties.{count}.more", "Another property?",
                       "Nothing is recorded that is not declared.", "yes", count < 2)  # fmt: skip
    told = _told(given, at, count)
    yield from _sampling(given, f"{at}.sampling", [*told])
    metrics = {name: metric for name, metric in told.items() if metric.type in NUMERIC}
    if given.get("config.anomaly_detection") and metrics:
        yield from _anomalies(given, f"{at}.anomaly_detection", metrics)
    yield Question(f"{at}.tags", "Tags of the event, with commas between", "high-volume, where there are very many.",
                   "names", [])  # fmt: skip


class _Metric(NamedTuple):
    type: str
    least: float
    most: float | None


def _names(given: Answers, at: str, count: int) -> list[Any]:
    return [given.get(f"{at}.properties.{number}.name") for number in range(count)]


def _told(given: Answers, at: str, count: int) -> dict[str, _Metric]:
    """The properties of an event whose values are recorded, and within which bounds."""
    if given.get(f"{at}.privacy") == "sensitive":
        return {}
    told = {}
    for number, name in enumerate(_names(given, at, count)):
        path = f"{at}.properties.{number}"
        if name is not None and not given.get(f"{path}.pii"):
            bounds = [given.get(f"{path}.{bound}") for bound in ("min", "max")]
            told[name] = _Metric(str(given.get(f"{path}.type")), bounds[0] or 0, bounds[1])
    return told


def _sampling(given: Answers, at: str, known: list[str]) -> Iterator[Question]:
    yield Question(f"{at}.rate", "Which share of these events is sent, 0 to 1? (nothing: as by default)",
                   "Where there are very many of them.", "number", None,
                   check=partial(checks.is_share, optional=True))  # fmt: skip
    if given.get(f"{at}.rate") is not None:
        check = partial(checks.are_conditions, known=known)
        yield Question(f"{at}.conditions", "Only those for which this holds (nothing: all)",
                       "A comparison of its properties, such as: amount > 5 and plan == 'team'.", "conditions", [],
                       check=check)  # fmt: skip
        yield Question(f"{at}.always", "Always those for which this holds (nothing: none)",
                       "Whatever the share is, such as: state == 'failed'.", "conditions", [],
                       check=check)  # fmt: skip


def _anomalies(given: Answers, at: str, metrics: Mapping[str, _Metric]) -> Iterator[Question]:
    yield Question(f"{at}.enabled", "Watch this event?", "Best for durations, errors, and what earns money.", "yes",
                   False)  # fmt: skip
    if not given.get(f"{at}.enabled"):
        return
    yield Question(f"{at}.minimum_sample", "From how many events on?", "Fewer say nothing.", "number", 10,
                   check=checks.is_whole)  # fmt: skip
    number = 0
    while not number or given.get(f"{at}.thresholds.{number}.more"):
        path = f"{at}.thresholds.{number}"
        yield Question(f"{path}.metric", "Which property?", "One of its numbers.", "choice", next(iter(metrics)),
                       {name: metric.type for name, metric in metrics.items()})  # fmt: skip
        metric = metrics.get(given.get(f"{path}.metric", ""), _Metric("", 0, None))
        yield Question(f"{path}.min", "Unusual below? (nothing: never)", kind="number", default=None,
                       check=partial(checks.is_low, least=metric.least))  # fmt: skip
        yield Question(f"{path}.max", "Unusual above? (nothing: never)", kind="number", default=None,
                       check=partial(checks.is_high, low=given.get(f"{path}.min"), most=metric.most))  # fmt: skip
        number += 1
        yield Question(f"{at}.thresholds.{number}.more", "Another rule?", kind="yes", default=False)
    about = "; ".join(f"{name}: {what}" for name, what in ACTIONS.items())
    yield Question(f"{at}.actions", "And then? One or more, with commas between", f"{about}.", "names", ["alert"],
                   check=partial(checks.are_of, known=tuple(ACTIONS)))  # fmt: skip


def _property(given: Answers, at: str, taken: list[Any]) -> Iterator[Question]:
    yield Question(f"{at}.name", "Name of the property", "What of the event is recorded, such as plan.",
                   check=lambda answer: checks.is_name(answer, taken) or checks.is_own(answer))  # fmt: skip
    personal = looks_personal(str(given.get(f"{at}.name", "")))
    yield Question(f"{at}.type", "Type", "The narrower, the less can leak.", "choice", "enum", TYPES)
    yield from _bounds(given, at)
    yield Question(f"{at}.level", "From which level on is it shared?",
                   "Who uses the program chooses one of the three.", "choice",
                   "debug" if given.get(f"{at}.type") == "hash" else "standard", LEVELS)  # fmt: skip
    yield Question(f"{at}.pii", "Is it personal?",
                   "It is called so." if personal else "What is personal is never shared: only that it was there.",
                   "yes", personal)  # fmt: skip
    if given.get(f"{at}.pii"):
        yield Question(f"{at}.redact", "Mask it everywhere?",
                       "Also in what stays on the machine of whoever uses the program.", "yes", True)  # fmt: skip
    elif personal and given.get(f"{at}.type") not in HARMLESS:
        yield Question(f"{at}.harmless", "Why is it not personal, though it is called so?",
                       "The reason is noted in the spec, as a waiver.", check=checks.is_there)  # fmt: skip
    yield Question(f"{at}.required", "Does every event have it?", "Then one without it is a mistake, and counted.",
                   "yes", False)  # fmt: skip
    yield Question(f"{at}.description", "What is it?", "A person reads this before they say yes.",
                   check=checks.is_there)  # fmt: skip


def _bounds(given: Answers, at: str) -> Iterator[Question]:
    match given.get(f"{at}.type"):
        case "enum":
            yield Question(f"{at}.members", "Its words, with commas between", "Such as: free, team.", "names", [],
                           check=checks.are_members)  # fmt: skip
        case "bucket":
            yield Question(f"{at}.edges", "Where its ranges end, with commas between",
                           "1, 10, 100 makes: below 1, 1-10, 10-100, 100 or more.", "numbers", [1, 10, 100],
                           check=checks.are_edges)  # fmt: skip
        case "number":
            yield Question(f"{at}.min", "At least", "What is outside is not sent.", "number", 0,
                           check=checks.is_given)  # fmt: skip
            low = given.get(f"{at}.min") or 0
            yield Question(f"{at}.max", "At most", "", "number", max(100, low),
                           check=partial(checks.is_at_least, low=low))  # fmt: skip
        case "string":
            yield Question(f"{at}.pattern", "Pattern", "A regular expression that all of it fits.",
                           default="[a-z0-9_-]*", check=checks.is_pattern)  # fmt: skip
            yield Question(f"{at}.max_length", "At most how many characters?", "What is longer is not sent.", "number",
                           40, check=checks.is_whole)  # fmt: skip
