"""The questions that a spec is made of, in their order: a function of the answers that were given so far.

An answer is kept under the path of its question, such as ``events.0.properties.1.type``. To go back is to forget the
last answer and to ask the script again. Knows nothing of terminals or files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from ..spec.conditions import parse
from ..spec.lint.privacy import looks_personal
from ..spec.property import BASE, NAME, WORD
from ..spec.versions import check as check_version

Answers = Mapping[str, Any]
Kind = Literal["text", "choice", "yes", "number", "names"]


class Question(NamedTuple):
    """One question."""

    path: str
    text: str
    about: str = ""
    """What hangs on the answer, in a sentence or two."""
    kind: Kind = "text"
    default: Any = ""
    choices: Mapping[str, str] = {}
    """Answer → what it means."""
    check: Callable[[Any], str] = lambda answer: ""
    """What is wrong with an answer, and what would be right; empty for nothing."""

    def fault(self, answer: Any) -> str:
        """What is wrong with ``answer``, its type included; empty for nothing."""
        match self.kind:
            case "choice" if answer not in self.choices:
                return f"found {answer!r}; expected one of {', '.join(self.choices)}"
            case "yes" if not isinstance(answer, bool):
                return f"found {answer!r}; expected true or false"
            case "number" if isinstance(answer, bool) or not isinstance(answer, int | float | None):
                return f"found {answer!r}; expected a number"
            case "names" if not (isinstance(answer, list) and all(isinstance(each, str) for each in answer)):
                return f"found {answer!r}; expected a list of texts"
            case "text" if not isinstance(answer, str):
                return f"found {answer!r}; expected a text"
        return self.check(answer)


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
    number = 0
    while True:
        yield from _event(given, f"events.{number}", {given.get(f"events.{each}.name") for each in range(number)})
        number += 1
        yield Question(f"events.{number}.more", "Another event?", kind="yes", default=False)
        if not given.get(f"events.{number}.more"):
            return


def _meta(given: Answers) -> Iterator[Question]:
    yield Question("meta.name", "Name of the spec", "Who collects: an application or a part of it, such as acme.shop.",
                   check=_is_word)  # fmt: skip
    name = given.get("meta.name", "")
    yield Question("meta.version", "Version", "A whole number, or three such as 1.0.0.", default="1",
                   check=_is_version)  # fmt: skip
    yield Question("meta.title", "Title", "What people read above the list of what is collected.", default=name)
    yield Question("meta.description", "Description", "In one sentence: what is collected here, and of whom.")
    yield Question("meta.domain", "Domain", "The part of your product that it belongs to.",
                   default=name.partition(".")[0], check=_is_there)  # fmt: skip
    yield Question("meta.owners", "Owners, with commas between", "Whom to ask. At least one, such as @acme.analytics.",
                   kind="names", default=[f"@{name}"], check=_are_owners)  # fmt: skip
    yield Question("meta.tags", "Tags, with commas between", kind="names", default=[])
    yield Question("meta.stability", "Stability", kind="choice", default="experimental", choices=STABILITY)


def _config(given: Answers) -> Iterator[Question]:
    yield Question("config.default_retention_days", "For how many days may a server keep events?",
                   "Where an event does not say otherwise. Short is easier to agree to.", "number", 30,
                   check=_is_positive)  # fmt: skip
    yield Question("config.default_sampling_rate", "Which share of the events is sent, 0 to 1?",
                   "1 sends all. Below 0.05 figures become guesses.", "number", 1, check=_is_share)  # fmt: skip
    yield Question("config.anomaly_detection", "Watch for anomalies?",
                   "Only events that have rules are watched; these come later.", "yes", False)  # fmt: skip
    if given.get("config.anomaly_detection"):
        yield Question("config.check_interval_ms", "How often, in milliseconds?", kind="number", default=60_000,
                       check=_is_positive)  # fmt: skip
    number = 0
    while True:
        path = f"config.providers.{number}"
        yield Question(f"{path}.more", "Note a provider?" if number == 0 else "Another provider?",
                       "Documentation alone: a spec sends nothing anywhere by itself.", "yes", False)  # fmt: skip
        if not given.get(f"{path}.more"):
            return
        yield Question(f"{path}.type", "Which?", kind="choice", default="internal", choices=PROVIDERS)
        yield Question(f"{path}.config", "Its settings, as a JSON object", "No keys or tokens: a spec is public.",
                       default="{}", check=_is_object)  # fmt: skip
        number += 1


def _event(given: Answers, at: str, taken: set[Any]) -> Iterator[Question]:
    yield Question(f"{at}.name", "Name of the event", "What happened, in the past tense, such as shop.cart_paid.",
                   check=lambda answer: _is_name(answer) or _is_new(answer, taken))  # fmt: skip
    yield Question(f"{at}.version", "Version of the event", default="1", check=_is_version)
    yield Question(f"{at}.what", "What happened, when this is recorded?", check=_is_there)
    yield Question(f"{at}.who", "Who causes it?", "Such as: a customer, the program itself.")
    yield Question(f"{at}.why", "Why is it collected?", "A person reads this before they say yes.")
    yield Question(f"{at}.privacy", "Privacy", kind="choice", default="internal", choices=PRIVACY)
    yield Question(f"{at}.retention_days", "Kept for how many days? (nothing: as by default)", kind="number",
                   default=None, check=_is_positive_or_nothing)  # fmt: skip
    if given.get(f"{at}.retention_days") is not None:
        yield Question(f"{at}.retention_policy", "And then?", kind="choice", default="delete", choices=POLICIES)
    number = 0
    while True:
        names = {given.get(f"{at}.properties.{each}.name") for each in range(number)}
        yield from _property(given, f"{at}.properties.{number}", names)
        number += 1
        yield Question(f"{at}.properties.{number}.more", "Another property?", kind="yes", default=number < 2)
        if not given.get(f"{at}.properties.{number}.more"):
            break
    numeric = _numeric(given, at, number)
    yield from _sampling(given, at, {given.get(f"{at}.properties.{each}.name") for each in range(number)})
    if given.get("config.anomaly_detection") and numeric:
        yield from _anomalies(given, at, numeric)
    yield Question(f"{at}.tags", "Tags of the event, with commas between", kind="names", default=[])


def _numeric(given: Answers, at: str, count: int) -> dict[str, str]:
    properties = [f"{at}.properties.{each}" for each in range(count)]
    return {given[f"{path}.name"]: given[f"{path}.type"] for path in properties
            if given.get(f"{path}.type") in NUMERIC and not given.get(f"{path}.pii")}  # fmt: skip


def _sampling(given: Answers, at: str, known: set[Any]) -> Iterator[Question]:
    yield Question(f"{at}.sampling_rate", "Which share of these events is sent, 0 to 1? (nothing: as by default)",
                   kind="number", default=None, check=_is_share_or_nothing)  # fmt: skip
    if given.get(f"{at}.sampling_rate") is not None:
        yield Question(f"{at}.sampling_conditions", "Only those for which this holds (nothing: all)",
                       "Such as: amount > 5 and plan == 'team'.",
                       check=lambda answer: _is_condition(answer, known))  # fmt: skip
        yield Question(f"{at}.sampling_always", "Always those for which this holds (nothing: none)",
                       "Such as: state == 'failed'.", check=lambda answer: _is_condition(answer, known))  # fmt: skip


def _anomalies(given: Answers, at: str, numeric: Mapping[str, str]) -> Iterator[Question]:
    yield Question(f"{at}.anomalies", "Watch this event?", kind="yes", default=False)
    if not given.get(f"{at}.anomalies"):
        return
    yield Question(f"{at}.minimum_sample", "From how many events on?", "Fewer say nothing.", "number", 10,
                   check=_is_positive)  # fmt: skip
    number = 0
    while True:
        path = f"{at}.thresholds.{number}"
        yield Question(f"{path}.metric", "Which property?", kind="choice", default=next(iter(numeric)),
                       choices=numeric)  # fmt: skip
        yield Question(f"{path}.min", "Unusual below? (nothing: never)", kind="number", default=None)
        low = given.get(f"{path}.min")
        yield Question(f"{path}.max", "Unusual above? (nothing: never)", kind="number", default=None,
                       check=partial(_is_above, low=low))  # fmt: skip
        number += 1
        yield Question(f"{at}.thresholds.{number}.more", "Another rule?", kind="yes", default=False)
        if not given.get(f"{at}.thresholds.{number}.more"):
            break
    yield Question(f"{at}.actions", "And then?", kind="choice", default="alert", choices=ACTIONS)


def _property(given: Answers, at: str, taken: set[Any]) -> Iterator[Question]:
    yield Question(f"{at}.name", "Name of the property",
                   check=lambda answer: _is_name(answer) or _is_own(answer) or _is_new(answer, taken))  # fmt: skip
    personal = looks_personal(str(given.get(f"{at}.name", "")))
    yield Question(f"{at}.type", "Type", "The narrower, the less can leak.", "choice", "enum", TYPES)
    yield from _bounds(given, at)
    yield Question(
        f"{at}.level", "From which level on is it shared?", kind="choice", default="standard", choices=LEVELS
    )
    yield Question(f"{at}.pii", "Is it personal?", "It is called so." if personal else "", "yes", personal)
    if given.get(f"{at}.pii"):
        yield Question(f"{at}.redact", "Mask it everywhere?",
                       "Then only that there was a value is recorded.", "yes", True)  # fmt: skip
    yield Question(f"{at}.required", "Does every event have it?", kind="yes", default=False)
    yield Question(f"{at}.description", "What is it?", "A person reads this before they say yes.")


def _bounds(given: Answers, at: str) -> Iterator[Question]:
    match given.get(f"{at}.type"):
        case "enum":
            yield Question(f"{at}.members", "Its words, with commas between", kind="names", default=[],
                           check=_are_members)  # fmt: skip
        case "bucket":
            yield Question(f"{at}.edges", "Where its ranges end, with commas between", "Such as: 1, 10, 100.", "names",
                           ["1", "10", "100"], check=_are_edges)  # fmt: skip
        case "number":
            yield Question(f"{at}.min", "At least", kind="number", default=0, check=_is_number)
            low = given.get(f"{at}.min")
            yield Question(f"{at}.max", "At most", kind="number", default=100,
                           check=lambda answer: _is_number(answer) or _is_above(answer, low=low))  # fmt: skip
        case "string":
            yield Question(f"{at}.pattern", "Pattern", "A regular expression that all of it fits.",
                           default="[a-z0-9_-]*", check=_is_pattern)  # fmt: skip
            yield Question(f"{at}.max_length", "At most how many characters?", kind="number", default=40,
                           check=_is_positive)  # fmt: skip


# -- what is wrong with an answer --------------------------------------------------------------------------------------


def _is_there(answer: str) -> str:
    return "" if answer.strip() else "found nothing; expected a text"


def _is_word(answer: str) -> str:
    fits = len(answer) <= 100 and re.fullmatch(WORD, answer)
    return "" if fits else f"{answer!r} is no name; expected at most 100 letters, digits and . _ + -"


def _is_name(answer: str) -> str:
    return "" if NAME.fullmatch(answer) else f"{answer!r} is no name; expected letters, digits and $ _ . - only"


def _is_new(answer: str, taken: set[Any]) -> str:
    return f"{answer!r} is there already; expected another name" if answer in taken else ""


def _is_own(answer: str) -> str:
    return f"{answer!r} is a field that every event has; expected another name" if answer in BASE else ""


def _is_version(answer: str) -> str:
    try:
        check_version(int(answer) if answer.isdecimal() else answer)
    except ValueError as fault:
        return str(fault)
    return ""


def _are_owners(answer: list[str]) -> str:
    wrong = [each for each in answer if not each.startswith("@") or len(each) < 2]
    if not answer or wrong:
        return f"found {', '.join(wrong) or 'nobody'}; expected names that begin with @"
    return ""


def _are_members(answer: list[str]) -> str:
    if not answer:
        return "found no words; expected at least one"
    return "found a word twice; expected each once" if len(set(answer)) < len(answer) else ""


def _are_edges(answer: list[str]) -> str:
    try:
        edges = [float(each) for each in answer]
    except ValueError:
        edges = []
    good = edges and sorted(set(edges)) == edges and all(abs(edge) < float("inf") for edge in edges)
    return "" if good else f"found {', '.join(answer) or 'nothing'}; expected numbers that rise"


def _is_number(answer: float | None) -> str:
    return "found nothing; expected a number" if answer is None else ""


def _is_positive(answer: float | None) -> str:
    whole = answer is not None and answer >= 1 and answer == int(answer)
    return "" if whole else f"found {answer}; expected a whole number, 1 or more"


def _is_positive_or_nothing(answer: float | None) -> str:
    return "" if answer is None else _is_positive(answer)


def _is_share(answer: float | None) -> str:
    return "" if answer is not None and 0 <= answer <= 1 else f"found {answer}; expected 0 to 1"


def _is_share_or_nothing(answer: float | None) -> str:
    return "" if answer is None else _is_share(answer)


def _is_above(answer: float | None, *, low: float | None) -> str:
    if answer is None:
        return "found nothing here and nothing before; expected one of the two" if low is None else ""
    return f"found {answer:g}; expected {low:g} or more" if low is not None and answer < low else ""


def _is_pattern(answer: str) -> str:
    try:
        re.compile(rf"\A(?:{answer})\Z")
    except re.error as fault:
        return f"{answer!r} is no regular expression: {fault}"
    return _is_there(answer)


def _is_object(answer: str) -> str:
    try:
        return "" if isinstance(json.loads(answer), dict) else f"found {answer}; expected a JSON object"
    except ValueError as fault:
        return f"found no JSON ({fault}); expected an object such as {{}}"


def _is_condition(answer: str, known: set[Any]) -> str:
    if not answer.strip():
        return ""
    try:
        unknown = parse(answer).names - known
    except ValueError as fault:
        return str(fault)
    return f"asks for {', '.join(sorted(unknown))}; expected properties of the event" if unknown else ""
