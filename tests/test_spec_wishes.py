"""What a receiver's policy can say, and that it can only lower, whatever it says."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import (
    BASE,
    CORE,
    EVERYTHING,
    FIXED,
    LEVELS,
    Rule,
    Shapes,
    Wishes,
    keep_policy,
    kept_policy,
    load_spec,
    lower,
    project,
    read_wishes,
    sampled,
)

many = settings(max_examples=400, deadline=None, derandomize=True, database=None)

SPEC = load_spec(CORE)
NAME = "command_completed"
EVENT = SPEC.event(NAME)
assert EVENT is not None
BODY: dict[str, Any] = {
    "event": NAME,
    "os": "linux",
    "python_version": "3.12",
    "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
    "timestamp": "2026-11-22T03:00:00Z",
    "event_id": "01234567-89ab-7def-8123-456789abcdef",
    "spec": "cmdorc.core@1",
    "level": "debug",
    "duration_ms": 1200,
    "state": "success",
    "final": True,
    "manual": False,
    "timed_out": False,
    "concurrent_runs": 3,
    "hashed_command_name": "0123456789ab",
}
PRIVATE = {name: value for name, value in BODY.items() if name != "level"} | {"command_name": "Tests"}


def narrowed(document: object, body: dict[str, Any] = BODY) -> dict[str, Any] | None:
    left = read_wishes(document).of(NAME).narrow(EVENT, json.dumps(body).encode())
    return None if left is None else json.loads(left)


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {**{name: value for name, value in BODY.items() if name not in names}, **changes}


STANDARD = without("hashed_command_name", level="standard")
MINIMAL = without("hashed_command_name", "concurrent_runs", "timed_out", level="minimal")


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ({}, BODY),
        ({"level": "debug", "sampling": 1}, BODY),
        ({"level": "minimal"}, MINIMAL),
        ({"level": "standard"}, STANDARD),
        ({"level": "off"}, None),
        ({"events": {NAME: {"level": "off"}}}, None),
        ({"events": {NAME: {"level": "minimal"}}}, MINIMAL),
        ({"events": {"trigger_fired": {"level": "off"}}}, BODY),
        ({"level": "minimal", "events": {NAME: {"level": "debug"}}}, MINIMAL),
        ({"level": "standard", "events": {NAME: {"level": "minimal"}}}, MINIMAL),
        ({"fields": {"python_version": False, "os": True}}, without("python_version")),
        ({"events": {NAME: {"fields": {"concurrent_runs": False}}}}, without("concurrent_runs")),
        ({"fields": {"os": False}, "events": {NAME: {"fields": {"state": False}}}}, without("os", "state")),
        ({"fields": {"os": False}, "events": {NAME: {"fields": {"os": True}}}}, without("os")),
        ({"fields": dict.fromkeys(EVENT.properties, False)}, None),
        ({"sampling": 0}, None),
        ({"sampling": 1.0, "events": {NAME: {"sampling": 0}}}, None),
        ({"sampling": 0, "events": {NAME: {"sampling": 1}}}, None),
        ({"nobody": "knows", "events": {NAME: {"this": {}}}}, BODY),
    ],
)
def test_what_a_policy_leaves_of_an_event(document: dict[str, Any], left: dict[str, Any] | None) -> None:
    assert narrowed(document) == left
    assert read_wishes(document).unclear() == ""


def test_what_is_for_the_users_own_server_alone_is_left_out_with_its_level() -> None:
    assert narrowed({"level": "minimal"}, PRIVATE) == {key: MINIMAL[key] for key in MINIMAL if key != "level"}
    assert narrowed({"level": "standard"}, PRIVATE) is not None
    assert narrowed({"level": "off"}, PRIVATE) is None
    left = Rule("standard").narrow(None, json.dumps(PRIVATE).encode())  # nobody declares it any more
    assert left is None, "a field of which nobody knows the level has the highest"


def test_an_event_without_a_field_of_its_own_is_not_taken_for_one_that_lost_them() -> None:
    bare = {name: value for name, value in BODY.items() if name in BASE}
    assert narrowed({"fields": {"os": False}}, bare) == {key: bare[key] for key in bare if key != "os"}


def test_nothing_asked_for_leaves_the_very_bytes() -> None:
    body = json.dumps(BODY, indent=3).encode()
    assert EVERYTHING.narrow(EVENT, body) is body
    assert read_wishes({"level": "debug"}).of(NAME).narrow(EVENT, body) is body


def test_a_share_is_the_same_for_whoever_takes_it_and_tells_its_rate() -> None:
    events = [{**BODY, "event_id": f"01234567-89ab-7def-8123-{number:012x}"} for number in range(4000)]
    shares = {}
    for rate in (0.1, 0.5):
        taken = [left for each in events if (left := narrowed({"sampling": rate}, each)) is not None]
        assert {each["sampling_rate"] for each in taken} == {rate}
        shares[rate] = {each["event_id"] for each in taken}
        assert shares[rate] == {each["event_id"] for each in events if sampled(each["event_id"], rate)}
        assert abs(len(shares[rate]) / len(events) - rate) < 0.03
    assert shares[0.1] < shares[0.5]


def test_a_share_that_was_taken_already_is_lowered_to_the_rate_and_never_raised() -> None:
    events = [{**BODY, "event_id": f"01234567-89ab-7def-8123-{number:012x}"} for number in range(2000)]
    once = [left for each in events if (left := narrowed({"sampling": 0.5}, each)) is not None]
    assert [narrowed({"sampling": 0.5}, each) for each in once] == once, "the door finds nothing to take away"
    assert [narrowed({"sampling": 0.9}, each) for each in once] == once
    left = []
    for rate in (0.1, 0.2):
        twice = [each for every in once if (each := narrowed({"sampling": rate}, every)) is not None]
        assert {each["sampling_rate"] for each in twice} == {rate}
        assert abs(len(twice) / len(events) - rate) < 0.03, "of all there were, not of those that were left"
        left.append({each["event_id"] for each in twice})
    assert left[0] < left[1], "of what was left, a lower share is a part of a higher one"


def test_a_share_is_right_however_the_one_before_it_was_taken() -> None:
    """By another value than the event, or of an event whose id was replaced since."""
    rng = random.Random(7)
    events = [{**BODY, "event_id": f"01234567-89ab-7def-8123-{number:012x}"} for number in range(4000)]
    before = [{**each, "sampling_rate": 0.5} for each in events if rng.random() < 0.5]
    after = [left for each in before if (left := narrowed({"sampling": 0.1}, each)) is not None]
    assert abs(len(after) / len(events) - 0.1) < 0.02


def test_a_share_is_taken_by_a_subject_all_or_none() -> None:
    body, rule = json.dumps({**BODY, "sampling_rate": 0.8}).encode(), read_wishes({"sampling": 0.4}).of(NAME)
    kept = {}
    for number in range(1000):
        answers = {rule.narrow(EVENT, body.replace(b"89ab-7def", b"89ab-7d%02x" % event), str(number)) is None
                   for event in range(5)}  # fmt: skip
        assert len(answers) == 1
        kept[number] = not answers.pop()
    assert abs(sum(kept.values()) / len(kept) - 0.5) < 0.06


# -- what it may hold -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "unclear"),
    [
        (None, "all of it"),
        ([], "all of it"),
        ({"level": "banana"}, "level"),
        ({"level": None}, "level"),
        ({"level": ["off"]}, "level"),
        ({"sampling": "0.5"}, "sampling"),
        ({"sampling": True}, "sampling"),
        ({"sampling": -0.1}, "sampling"),
        ({"sampling": 10**400}, "sampling"),
        ({"sampling": float("nan")}, "sampling"),
        ({"fields": ["os"]}, "fields"),
        ({"fields": {"os": 0, "arch": None}}, "fields.os, fields.arch"),
        ({"fields": {"event_id": False, "spec": True}}, "fields.event_id"),
        ({"events": []}, "events"),
        ({"events": {NAME: "off"}}, f"events.{NAME}"),
        ({"events": {NAME: {"level": 1}}}, f"events.{NAME}.level"),
        ({"events": {"no name": {"level": "off"}}}, "events.no name"),
        ({"events": {"\x1b[2J\n": {}}}, "events.[2J"),
        ({"fields": {"é" * 200: False}}, f"fields.{'é' * 60}"),
        ({"fields": dict.fromkeys("ABCDEFGHIJ", 1)}, ", ".join(f"fields.{each}" for each in "ABCDEF") + " and 4 more"),
    ],
)
def test_what_is_malformed_means_nothing_and_is_named(document: Any, unclear: str) -> None:
    assert read_wishes(document).unclear() == unclear
    assert narrowed(document) == BODY


def test_what_is_malformed_takes_nothing_else_with_it() -> None:
    assert narrowed({"level": "minimal", "sampling": "x", "events": {NAME: {"fields": []}}}) == MINIMAL


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*LEVELS, "off", "", "x"]) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from([NAME, "trigger_fired", *sorted(BASE), *sorted(EVENT.properties)]) | st.text(max_size=20)
rules = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from([*LEVELS, "off"]) | values,
        "sampling": st.floats(0, 1) | values,
        "fields": st.dictionaries(names, st.booleans() | values, max_size=5) | values,
        "more": values,
    },
)
documents = st.builds(
    lambda rule, events: {**rule, **events},
    rules,
    st.fixed_dictionaries({}, optional={"events": st.dictionaries(names, rules | values, max_size=4) | values}),
)


@many
@given(documents | values, st.sampled_from([BODY, PRIVATE, without("level", sampling_rate=0.5)]))
def test_whatever_it_is_it_only_lowers_and_never_fails(document: Any, body: dict[str, Any]) -> None:
    wishes = read_wishes(document)
    left = wishes.of(NAME).narrow(EVENT, json.dumps(body).encode())
    for text in (wishes.words(), wishes.unclear()):
        assert text.isprintable()
        assert len(text) < 2500
    if left is None:
        return
    payload = json.loads(left)
    assert payload.keys() - {"sampling_rate"} <= body.keys()
    assert payload.get("sampling_rate", 1) <= body.get("sampling_rate", 1)
    assert lower(payload.get("level", "debug"), body.get("level", "debug")) == payload.get("level", "debug")
    assert {name: payload[name] for name in payload if name not in ("level", "sampling_rate")}.items() <= body.items()
    assert FIXED & body.keys() <= payload.keys()


@many
@given(documents)
def test_a_policy_that_was_kept_is_the_same_one(document: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(document, allow_nan=False, default=str)) if _plain(document) else {}
    kept = kept_policy(keep_policy({**plain, "etag": '"v1"'}))
    assert kept.etag == '"v1"'
    assert kept.document == {name: value for name, value in plain.items() if name != "etag"}


def _plain(document: object) -> bool:
    try:
        json.dumps(document, allow_nan=False).encode()
        json.dumps(document, ensure_ascii=False).encode()
    except ValueError:  # nor can it come as JSON
        return False
    return "e+" not in json.dumps(document)


@pytest.mark.parametrize("text", ["{}", "", "[]", "null", '{"etag": 5}', "[" * 100_000, "\x00"])
def test_a_kept_policy_that_cannot_be_read_asks_for_nothing(text: str) -> None:
    kept = kept_policy(text)
    assert (kept.etag, read_wishes(kept.document)) == (None, Wishes())


def test_a_document_that_is_too_large_is_not_kept_but_its_mark_is() -> None:
    huge = {"level": "off", "fields": {f"f{number}": False for number in range(10_000)}, "etag": '"v2"'}
    kept = kept_policy(keep_policy(huge))
    assert (kept.etag, read_wishes(kept.document).unclear()) == ('"v2"', "all of it")
    assert read_wishes(kept.document).of(NAME) == EVERYTHING


@pytest.mark.parametrize("etag", [None, 7, "x" * 1000, ["a"]])
def test_a_mark_that_is_none_is_not_sent_back(etag: Any) -> None:
    assert kept_policy(keep_policy({"level": "off", "etag": etag})).etag is None


# -- in words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ""),
        ({"level": "minimal", "events": {"trigger_fired": {"level": "off"}}}, "level minimal, no trigger_fired"),
        ({"level": "off", "events": {"trigger_fired": {"level": "off"}}}, "no events at all"),
        ({"sampling": 0.25, "events": {NAME: {"sampling": 0.001}}}, "25 % of all events, 0.1 % of command_completed"),
        (
            {"fields": {"os": False}, "events": {NAME: {"fields": {"state": False, "final": False}}}},
            "no os, no final in command_completed, no state in command_completed",
        ),
        ({"events": {NAME: {"level": "minimal"}}}, "command_completed at level minimal"),
        ({"level": "minimal", "events": {NAME: {"level": "standard"}}}, "level minimal"),
        ({"fields": dict.fromkeys("abcdefgh", False)}, "no a, no b, no c, no d, no e, no f and 2 more"),
    ],
)
def test_a_policy_in_words(document: dict[str, Any], words: str) -> None:
    assert read_wishes(document).words() == words


def test_what_is_lower_already_is_not_told() -> None:
    wishes = read_wishes({"level": "standard", "events": {NAME: {"level": "minimal"}, "x": {"level": "off"}}})
    assert wishes.words("standard") == "command_completed at level minimal, no x"
    assert wishes.words("minimal") == "no x"
    assert wishes.words(None) == ""


# -- in a projection --------------------------------------------------------------------------------------------------


def test_a_projection_narrows_first_and_renames_then() -> None:
    body = json.dumps(BODY).encode()
    wanted = read_wishes({"level": "minimal", "fields": {"os": False}}).of(NAME)
    left = project(Shapes([SPEC]), SPEC.ref, NAME, body, level="standard", rename={"state": "os"}, wanted=wanted)
    assert json.loads(left or b"") == {
        ("os" if name == "state" else name): value for name, value in MINIMAL.items() if name != "os"
    }
    assert project(Shapes([SPEC]), SPEC.ref, NAME, body, wanted=Rule(None)) is None
