"""Any way through the wizard's questions leads to a spec that is what was answered and passes the lint."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.spec import TelemetrySpec, parse_toml
from cmdorc_telemetry.spec.lint import lint
from cmdorc_telemetry.wizard.answers import completed
from cmdorc_telemetry.wizard.draft import commented, spec_of
from cmdorc_telemetry.wizard.interview import Interview
from cmdorc_telemetry.wizard.question import Question
from cmdorc_telemetry.wizard.script import script


def _table(text: str) -> dict[str, Any]:
    return tomlkit.parse(text).unwrap()


many = settings(max_examples=150, deadline=None, derandomize=True, database=None)
TODAY = date(2026, 7, 1)
MOST_ENTRIES = 3

texts = st.text(max_size=8) | st.sampled_from(
    ["shop.paid", "plan", "email", "userId", "amount", "os", "", " ", "a b", "[a-z]+", "(", "a)(?:b", "a{999999999999}",
     "\ud800", "line\nline", "'''\"\"\"\\", "\x00\x7f\x85", "x < 1"]
)  # fmt: skip
numbers = st.sampled_from([None, 0, 1, -1, 5, 5.0, 0.5, 99, 100, 101, 1e300, -1e300, 10**10]) | st.floats(-1e6, 1e6)
numbers |= st.floats(allow_nan=True)
conditions = st.sampled_from(
    [[], ["amount > 1"], ["plan == 'team'", "amount"], ["email == 'x'"], ["amount >"], ["nothing == 1"]]
)
tables = st.dictionaries(texts, st.recursive(
    texts | numbers | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5,
), max_size=3) | st.just({"api_key": "x"})  # fmt: skip
OFFERED: dict[str, st.SearchStrategy[Any]] = {
    "text": texts, "yes": st.booleans(), "number": numbers, "numbers": st.lists(numbers, max_size=3),
    "names": st.lists(texts | st.sampled_from(["@me", "@team.a", "log", "alert"]), max_size=3),
    "conditions": conditions, "table": tables, "version": st.sampled_from([1, 2, 0, "1.2.3", "x", "1", True]),
}  # fmt: skip
FALLBACK = {"text": "[a-z]*", "names": ["a"], "numbers": [1.5], "number": 50}


MATTERS_OF_TASTE = {
    "not-past", "low-sampling", "long-retention", "free-text", "privacy-class", "low-hash", "no-anomaly-detection",
    "vague-name", "unit-mismatch", "common-prefix", "near-names", "mixed-style", "enum-members", "required-withheld",
    "undone",
}  # fmt: skip
"""What a person sees in the summary before they agree, and may want so: all of it is warnings."""


def answer(data: st.DataObject, interview: Interview, question: Question) -> Any:
    """An answer that is right, found by trying; on the way wrong ones are told what is wrong."""
    if question.path.endswith(".more") and int(question.path.split(".")[-2]) >= MOST_ENTRIES:
        return False
    if question.kind == "choice":
        return data.draw(st.sampled_from(list(question.choices)))
    tried = data.draw(OFFERED[question.kind])
    fallback = FALLBACK.get(question.kind, question.default)
    if question.path.endswith(".name"):
        fallback = f"n{len(interview.given)}"
    for each in (tried, question.default, fallback, -1e307):
        fault = interview.fault(each)
        if not fault:
            return each
        assert "expected " in fault or "found" in fault or "is no" in fault, fault
        with pytest.raises(ValueError, match=f"^{re.escape(fault)}$"):
            interview.answer(each)
    raise AssertionError(f"nothing answers {question}")


@many
@given(st.data())
def test_every_way_ends_in_a_spec_that_is_what_was_answered(data: st.DataObject) -> None:
    interview = Interview()
    backs = 0
    while (question := interview.question()) is not None:
        if backs < 5 and data.draw(st.integers(0, 30)) == 30:
            backs += 1
            before = dict(interview.given)
            assert interview.back() == bool(before)
            continue
        interview.answer(answer(data, interview, question))
    told = interview.given
    assert list(told) == [question.path for question in script(told)]
    assert not any(question.fault(told[question.path]) for question in script(told))
    spec = spec_of(told)
    assert {finding.lint for finding in lint(spec, TODAY) if not finding.waived} <= MATTERS_OF_TASTE
    says(spec, told)
    text = commented(spec)
    assert parse_toml(text, "written") == spec
    assert spec_of(completed(as_answers(text), "again")) == spec


def says(spec: TelemetrySpec, told: dict[str, Any]) -> None:
    """Every answer is in the spec, in its place."""
    for path, value in told.items():
        part: Any = spec
        *way, last = path.split(".")
        if last in ("more", "harmless", "enabled"):
            continue
        for step in way:
            entries = list(part.values()) if isinstance(part, dict) else part
            part = entries[int(step)] if step.isdecimal() else getattr(part, step)
        if last == "name" and way[-2:-1] == ["properties"]:
            assert list(_at(spec, way[:-1]))[int(way[-1])] == value
        elif part is None:
            assert value is None
        else:
            found = getattr(part, last)
            assert (list(found) if isinstance(value, list) else found) == value, path
    assert len(spec.config.providers) == sum(path.endswith(".config") for path in told)


def _at(spec: Any, way: list[str]) -> Any:
    for step in way:
        spec = spec[int(step)] if step.isdecimal() else getattr(spec, step)
    return spec


def as_answers(text: str) -> dict[str, Any]:
    """A spec as a file of answers, where it takes a word to be not personal, and a waiver is beside its property."""
    table = _table(text)
    for event in table["events"]:
        for prop in event["properties"].values():
            prop.setdefault("level", "standard")  # of a hash, the wizard offers another
            if not prop.setdefault("pii", False):
                continue
            prop.setdefault("redact", False)
    for waiver in table.pop("waivers", []):
        for event in table["events"]:
            for name, prop in event["properties"].items():
                if waiver["at"] == f"events.{event['name']}.properties.{name}":
                    prop["harmless"] = waiver["reason"]
    return table


# -- going back --------------------------------------------------------------------------------------------------------

SHOP: dict[str, Any] = {
    "meta.name": "acme.shop", "events.0.name": "shop.paid", "events.0.semantics.what": "Somebody paid",
    "events.0.semantics.why": "Shows what sells",
    **{f"events.0.properties.{number}.description": "What it is" for number in range(3)},
    "events.0.properties.0.name": "plan", "events.0.properties.0.members": ["free", "team"],
    "events.0.properties.1.more": True, "events.0.properties.1.name": "amount", "events.0.properties.1.type": "number",
    "config.anomaly_detection": True, "events.0.anomaly_detection.enabled": True,
    "events.0.anomaly_detection.thresholds.0.metric": "amount", "events.0.anomaly_detection.thresholds.0.max": 50,
    "events.0.sampling.rate": 0.5, "events.0.sampling.conditions": ["plan == 'team'"],
}  # fmt: skip


def advanced(interview: Interview, until: str = "", told: dict[str, Any] | None = None) -> Interview:
    """``interview`` with all questions before ``until`` answered, as offered where nothing is ``told``."""
    told = SHOP if told is None else told
    while (question := interview.question()) is not None and question.path != until:
        interview.answer(told.get(question.path, question.default))
    return interview


def returned(interview: Interview, path: str) -> Interview:
    """``interview`` gone back to the question at ``path``."""
    while (question := interview.question()) is None or question.path != path:
        assert interview.back()
    return interview


def test_who_goes_back_and_answers_the_same_is_offered_what_they_had_answered() -> None:
    whole = dict(advanced(Interview()).given)
    interview = returned(advanced(Interview()), "meta.name")
    assert not interview.back()
    assert interview.given == {}
    assert advanced(interview, told={}).given == whole


def test_what_hung_on_an_answer_is_forgotten_with_it() -> None:
    path = "events.0.properties.0"
    interview = returned(advanced(Interview()), f"{path}.type")
    interview.answer("count")
    made = advanced(interview, told={"events.0.sampling.conditions": ["plan == 1"]})
    assert f"{path}.members" not in made.given
    event = spec_of(made.given).events[0]
    assert (event.properties["plan"].type, event.properties["plan"].members) == ("count", ())
    # and once more the other way round: the words of the enum do not come back by themselves
    interview = returned(made, f"{path}.type")
    interview.answer("enum")
    question = interview.question()
    assert question is not None
    assert (question.path, question.default) == (f"{path}.members", [])


@pytest.mark.parametrize(("path", "answer", "gone"), [
    ("meta.name", "bank", {"meta.title": "bank", "meta.domain": "bank", "meta.owners": ["@bank"]}),
    ("config.anomaly_detection", False, {"events.0.anomaly_detection.enabled": None, "config.check_interval_ms": None}),
    ("events.0.properties.1.name", "sum", {"events.0.anomaly_detection.thresholds.0.metric": "sum"}),
    ("events.0.properties.0.name", "tariff", {"events.0.sampling.conditions": []}),
    ("events.0.properties.1.max", 40, {"events.0.anomaly_detection.thresholds.0.min": None}),
    ("events.0.privacy", "sensitive", {"events.0.anomaly_detection.enabled": None}),
    ("events.0.properties.1.more", False, {"events.0.properties.1.name": None, "events.0.properties.1.type": None}),
    ("events.0.sampling.rate", None, {"events.0.sampling.conditions": None}),
])  # fmt: skip
def test_another_answer_changes_what_hangs_on_it(path: str, answer: Any, gone: dict[str, Any]) -> None:
    interview = returned(advanced(Interview()), path)
    interview.answer(answer)
    told = {"events.0.anomaly_detection.thresholds.0.max": 30}
    if path.endswith("privacy"):
        told = {"events.0.sampling.conditions": []}
    made = advanced(interview, told={**told}).given
    assert {key: made.get(key) for key in gone} == gone
    assert [finding for finding in lint(spec_of(made), TODAY) if finding.fails] == []
    assert made["events.0.semantics.what"] == "Somebody paid"


# -- wrong answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "answer", "message"), [
    ("meta.name", "a b", "'a b' is no name; expected at most 100 letters, digits and . _ + -"),
    ("meta.name", 3, "found 3; expected a text"),
    ("meta.name", "\ud800", r"found '\ud800'; expected a text"),
    ("meta.version", 0, "found version 0; expected 1 to 999999"),
    ("meta.version", True, "found True; expected a whole number, or three such as '1.0.0'"),
    ("meta.title", " ", "found nothing; expected a text"),
    ("meta.owners", [], "found nobody; expected names such as @team.analytics"),
    ("meta.owners", ["@a", "b"], "found b; expected names such as @team.analytics"),
    ("meta.owners", "@a", "found '@a'; expected a list of texts"),
    ("meta.stability", "sure", "found sure; expected one of experimental, beta, stable, deprecated, idea, in_creation"),
    ("meta.stability", [1], "found [1]; expected one of experimental, beta, stable, deprecated, idea, in_creation"),
    ("config.default_retention_days", 0, "found 0; expected a whole number, 1 to 1,000,000,000"),
    ("config.default_retention_days", None, "found nothing; expected a whole number, 1 to 1,000,000,000"),
    ("config.default_retention_days", True, "found True; expected a number"),
    ("config.default_sampling_rate", 1.5, "found 1.5; expected a number from 0 to 1"),
    ("config.default_sampling_rate", None, "found nothing; expected a number from 0 to 1"),
    ("config.default_sampling_rate", float("inf"), "found inf; expected a number"),
    ("config.anomaly_detection", "yes", "found 'yes'; expected true or false"),
    ("events.0.name", "a b", "'a b' is no name; expected letters, digits and $ _ . - only"),
    ("events.0.semantics.what", "", "found nothing; expected a text"),
    ("events.0.retention.days", 1.5, "found 1.5; expected a whole number, 1 to 1,000,000,000"),
    ("events.0.properties.0.name", "os", "'os' is a field that every event has; expected another name"),
    ("events.0.properties.0.members", [], "found no word; expected at least one"),
    ("events.0.properties.0.members", ["a", "a"], "found 'a' twice; expected each once"),
    ("events.0.properties.0.members", ["other"], "found 'other', which every enum has; expected it left out"),
    ("events.0.properties.1.name", "plan", "'plan' is there already; expected another name"),
    ("events.0.properties.1.min", None, "found nothing; expected a number"),
    ("events.0.properties.1.max", -1, "found -1; expected 0 or more"),
    ("events.0.properties.1.max", None, "found nothing; expected a number"),
    ("events.0.sampling.conditions", ["plam == 'x'"],
     "asks for plam; expected properties whose values are recorded: plan, amount"),
    ("events.0.sampling.conditions", ["plan =="], "condition 'plan ==': found its end at character 8; expected a "
     "number, true, false or a string in quotes"),
    ("events.0.anomaly_detection.thresholds.0.min", 0, "found 0; expected more than 0, which it is never below"),
    ("events.0.anomaly_detection.thresholds.0.max", None,
     "found nothing here and nothing before; expected one of the two"),
    ("events.0.anomaly_detection.thresholds.0.max", 100, "found 100; expected less than 100, which it is never above"),
    ("events.0.anomaly_detection.actions", ["shout"],
     "found shout; expected one or more of log, alert, trigger_regen, each once"),
])  # fmt: skip
def test_a_wrong_answer_is_told_what_is_wrong_and_changes_nothing(path: str, answer: Any, message: str) -> None:
    interview = advanced(Interview(), path)
    before = dict(interview.given)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        interview.answer(answer)
    assert interview.given == before


PROPERTY = "events.0.properties.0"


@pytest.mark.parametrize(("told", "path", "answer", "message"), [
    ({f"{PROPERTY}.type": "bucket"}, f"{PROPERTY}.edges", [2, 1], "found 2, 1; expected numbers that rise"),
    ({f"{PROPERTY}.type": "bucket"}, f"{PROPERTY}.edges", ["1"], "found ['1']; expected a list of numbers"),
    ({f"{PROPERTY}.type": "string"}, f"{PROPERTY}.pattern", "(",
     "pattern '(' is no regular expression: missing ), unterminated subpattern at position 0"),
    ({f"{PROPERTY}.type": "string"}, f"{PROPERTY}.pattern", " ", "found nothing; expected a text"),
    ({f"{PROPERTY}.name": "email", f"{PROPERTY}.pii": False}, f"{PROPERTY}.harmless", "",
     "found nothing; expected a text"),
    ({"config.providers.0.more": True}, "config.providers.0.config", {"apiKey": "x"},
     "'apiKey' looks like a secret; expected none: a spec is public, use the environment"),
    ({"config.providers.0.more": True}, "config.providers.0.config", {"a": [{"b": None}]},
     "found null; expected what TOML has words for"),
    ({"config.providers.0.more": True}, "config.providers.0.config", {"a": 2**64},
     "found 18446744073709551616; expected what TOML has words for"),
    ({"config.providers.0.more": True}, "config.providers.0.config", {"a": 10**400},
     f"found 1{'0' * 39}; expected what TOML has words for"),
    ({"config.providers.0.more": True}, "config.providers.0.config", {"a": "\ud800"},
     "found '\\ud800'; expected what TOML has words for"),
    ({"config.providers.0.more": True}, "config.providers.0.config", [], "found []; expected a table"),
    ({"events.0.anomaly_detection.thresholds.0.min": 9}, "events.0.anomaly_detection.thresholds.0.max", 8,
     "found 8; expected 9 or more"),
    ({f"{PROPERTY}.name": "email", f"{PROPERTY}.pii": True, "events.0.properties.1.name": "b"},
     "events.0.sampling.conditions", ["email == 'x'"],
     "asks for email; expected properties whose values are recorded: b"),
    ({"events.0.privacy": "sensitive"}, "events.0.sampling.conditions", ["plan == 'x'"],
     "asks for plan; expected properties whose values are recorded: of which it has none"),
])  # fmt: skip
def test_a_wrong_answer_further_down(told: dict[str, Any], path: str, answer: Any, message: str) -> None:
    interview = advanced(Interview(), path, {**SHOP, **told})
    assert interview.fault(answer) == message


def test_a_check_of_ones_own_is_asked_too() -> None:
    interview = Interview({"meta.name": lambda name: f"{name} is there" if name == "acme" else ""})
    assert (interview.fault("acme"), interview.fault("other")) == ("acme is there", "")


def test_a_reason_why_it_is_not_personal_becomes_a_waiver() -> None:
    told = {**SHOP, f"{PROPERTY}.name": "address", f"{PROPERTY}.pii": False, f"{PROPERTY}.harmless": "of a port",
            "events.0.sampling.conditions": []}  # fmt: skip
    spec = spec_of(advanced(Interview(), told=told).given)
    (waiver,) = spec.waivers
    assert (waiver.lint, waiver.at) == ("personal-name", "events.shop.paid.properties.address")
    assert [finding.waived for finding in lint(spec, TODAY) if finding.lint == "personal-name"] == ["of a port"]


# -- files of answers --------------------------------------------------------------------------------------------------

FILE = """
[meta]
name = "acme.shop"
version = "1.2.0"

[config]
anomaly_detection = true
providers = [{ type = "posthog", config = { region = "eu" } }]

[[events]]
name = "shop.paid"
semantics = { what = "Somebody paid", why = "Shows what sells" }
retention = { days = 3 }
sampling = { rate = 0.5, conditions = ["plan == 'team'"] }
anomaly_detection = { thresholds = [{ metric = "wait", max = 50 }] }
properties.plan = { members = ["free", "team"], required = true, description = "x" }
properties."context.wait" = { type = "duration_ms", description = "x" }
properties.wait = { type = "count", description = "x" }

[[events]]
name = "shop.left"
semantics = { what = "Somebody left", why = "Shows what does not" }
properties.email = { type = "bool", description = "x", pii = true }
"""


def test_a_file_of_answers_says_what_it_says_and_the_rest_is_as_offered() -> None:
    spec = spec_of(completed(_table(FILE), "f.toml"))
    paid, left = spec.events
    assert (spec.meta.version, spec.meta.title, spec.meta.owners) == ("1.2.0", "acme.shop", ("@acme.shop",))
    assert (spec.config.default_retention_days, spec.config.providers[0].config) == (30, {"region": "eu"})
    assert {name: prop.type for name, prop in paid.properties.items()} == {
        "plan": "enum", "context.wait": "duration_ms", "wait": "count"
    }  # fmt: skip
    assert (spec.retention_days(paid), spec.retention_days(left), paid.sampling and paid.sampling.rate) == (3, 30, 0.5)
    assert paid.anomaly_detection is not None
    assert paid.anomaly_detection.actions == ("alert",)
    assert left.properties["email"].redact
    assert left.anomaly_detection is None


@pytest.mark.parametrize(("old", "new", "message"), [
    ('name = "acme.shop"\n', "", "meta.name: '' is no name; expected at most 100 letters, digits and . _ + -"),
    ("rate = 0.5", "rate = 5", "events[0].sampling.rate: found 5; expected a number from 0 to 1"),
    ("max = 50", "mx = 50", "events[0].anomaly_detection.thresholds[0].max: found nothing here and nothing before; "
     "expected one of the two"),
    ('type = "count"', 'type = "cuont"', "events[0].properties.wait.type: found cuont; expected one of enum, count, "
     "duration_ms, bool, bucket, number, hash, version, uuid, timestamp, string"),
    ('members = ["free", "team"], ', "", "events[0].properties.plan.members: found no word; expected at least one"),
    ("required = true", "requird = true", "events[0].properties.plan.requird: is no answer to any question that these "
     "answers lead to; expected a key that the wizard asks for. Did you mean 'required'?"),
    ("[config]", "[confug]", "confug.anomaly_detection: is no answer to any question that these answers lead to; "
     "expected a key that the wizard asks for"),
    ('type = "bool"', 'type = "bool", members = ["a"]', "events[1].properties.email.members: is no answer to any "
     "question that these answers lead to; expected a key that the wizard asks for"),
])  # fmt: skip
def test_a_wrong_file_is_told_where_and_what(old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(SpecError) as caught:
        completed(
            _table(FILE.replace(old, new, 1)),
            "f.toml",
        )
    assert str(caught.value).startswith(f"f.toml: {message}")


def test_each_part_of_the_file_says_what_it_is_for() -> None:
    spec = spec_of(completed(_table(FILE), "f.toml"))
    text = commented(spec, {"events.shop.paid.properties.wait": "Look at it."})
    for line in (
        "# What acme.shop may record.",
        "[meta] # Who collects, and whom to ask.",
        "[config] # What holds for every event that does not say otherwise.",
        "default_retention_days = 30",
        "[events.semantics] # What a person reads before they say yes.",
        "[events.properties] # What of it is recorded: nothing that is not here.",
        "[events.sampling] # Which of the events are sent; on the machine itself all are counted.",
        "[events.retention] # For how long a server may keep it.",
        "[events.anomaly_detection] # When its statistics are unusual, and what to do then.",
        "[events.properties.wait] # Look at it.",
    ):
        assert line in text.splitlines(), line
    assert parse_toml(text, "again") == spec


def test_what_nobody_said_is_marked() -> None:
    spec = parse_toml("[meta]\nname = 'a'\ntitle = \"two\\nlines\"\n[[events]]\nname = 'x'\nsemantics = {what = ''}\n"
                      "properties = {}\n", "a")  # fmt: skip
    text = commented(spec)
    assert 'what = "" # A person has to write this: what is observed does not say it.' in text
    assert text.startswith("# What two lines may record.\n")
    assert parse_toml(text, "again") == spec
    alone = parse_toml("[meta]\nname = 'a'\n", "a")
    assert parse_toml(commented(alone), "again") == alone
