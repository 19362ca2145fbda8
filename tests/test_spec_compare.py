"""What became of a field between two declarations: nothing that could hold more than before counts as less."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import LEVELS, Property, TelemetrySpec, coerce, value_type
from cmdorc_telemetry.spec.compare import ASKS, Change, compare_declarations, differences

many = settings(max_examples=400, deadline=None, derandomize=True, database=None)


def text(*, why: str = "because", days: int = 30, **declared: Any) -> str:
    """The declaration of a property."""
    event = {"name": "e", "semantics": {"what": "x", "why": why}, "retention": {"days": days},
             "properties": {"p": {"type": "count", **declared}}}  # fmt: skip
    spec = msgspec.convert({"meta": {"name": "s"}, "events": [event]}, TelemetrySpec)
    return spec.declaration(spec.events[0], "p")


ENUM = {"type": "enum", "members": ["a", "b"]}
BUCKET = {"type": "bucket", "edges": [1, 10, 60]}
STRING = {"type": "string", "pattern": "[a-z]*", "max_length": 8}

LESS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (ENUM, {**ENUM, "members": ["b"]}),
    (BUCKET, {**BUCKET, "edges": [1, 60]}),
    ({"max": 10}, {"max": 9}),
    ({}, {"max": 9}),
    ({}, {"min": 1}),
    ({"min": -1}, {}),
    ({"min": 1}, {"min": 2}),
    (STRING, {**STRING, "max_length": 7}),
    ({"max_items": 5}, {"max_items": 4}),
    ({"level": "minimal"}, {}),
    ({}, {"level": "debug"}),
    ({}, {"pii": True}),
    ({}, {"redact": True}),
    ({}, {"required": True}),
    ({}, {"audience": "private"}),
    ({"days": 31}, {"days": 30}),
    ({"max": 10, "level": "minimal"}, {"max": 9, "level": "debug"}),
]
NEITHER: list[tuple[dict[str, Any], dict[str, Any], Change]] = [
    ({}, {"type": "duration_ms"}, "widened"),
    (ENUM, {**ENUM, "members": ["a", "c"]}, "widened"),
    (ENUM, BUCKET, "widened"),
    (BUCKET, {**BUCKET, "edges": [1, 20, 60]}, "widened"),
    (STRING, {**STRING, "pattern": "[a-y]*"}, "widened"),
    ({}, {"max_items": 5}, "widened"),
    ({"max": 10}, {"max": 9, "min": -1}, "widened"),
    ({"max": 10}, {"max": 9, "level": "minimal"}, "widened"),
    ({}, {"why": "other"}, "re-meant"),
    ({}, {"why": "other", "level": "debug"}, "re-meant"),
    ({}, {"why": "other", "level": "minimal"}, "widened"),
]
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (ENUM, {**ENUM, "members": ["b", "a"]}),
    (ENUM, {**ENUM, "members": ["a", "b", "other"]}),
    ({}, {"min": 0}),
    ({}, {"description": "in other words"}),
    (BUCKET, BUCKET),
]


@pytest.mark.parametrize(("old", "new"), LESS, ids=str)
def test_less_is_narrowed_and_the_way_back_is_widened(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert compare_declarations(text(**old), text(**new)) == "narrowed"
    assert compare_declarations(text(**new), text(**old)) == "widened"


@pytest.mark.parametrize(("old", "new", "change"), NEITHER, ids=str)
def test_the_worst_of_several_changes_counts(old: dict[str, Any], new: dict[str, Any], change: Change) -> None:
    assert compare_declarations(text(**old), text(**new)) == change


@pytest.mark.parametrize(("old", "new"), SAME, ids=str)
def test_what_allows_and_means_the_same_is_no_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert compare_declarations(text(**old), text(**new)) is None
    assert compare_declarations(text(**new), text(**old)) is None


def test_a_field_that_comes_or_goes() -> None:
    assert compare_declarations(None, text()) == "added"
    assert compare_declarations(text(), None) == "removed"
    assert compare_declarations(None, None) is None
    assert {"added", "widened", "re-meant"} == ASKS


@pytest.mark.parametrize(
    "odd",
    ["", "no JSON", "[]", "1", '{"type":"count"', '{"type":"colour"}', '{"type":"count","min":"3"}', "[" * 100_000,
     '{"type":"count","purpose":"new"}', '{"type":"enum"}', '{"level":"minimal"}', '{"type":"count","max":NaN}'],
    ids=lambda odd: odd[:30],
)  # fmt: skip
def test_what_cannot_be_read_or_is_not_known_counts_as_more(odd: str) -> None:
    assert compare_declarations(odd, text()) == compare_declarations(text(), odd) == "widened"
    assert [each.name for each in differences(odd, text())] == ["declaration"]
    assert compare_declarations(odd, odd) is None  # the very words that were agreed to


def test_every_difference_is_named_with_what_was_and_what_is() -> None:
    told = differences(text(max=10, days=30), text(max=11, days=20, description="x"))
    assert [(each.name, each.old, each.new, each.change) for each in told] == [
        ("max", 10.0, 11.0, "widened"),
        ("retention_days", 30, 20, "narrowed"),
    ]


# -- any two declarations ----------------------------------------------------------------------------------------------

numbers = st.integers(-3, 6)
lists = st.none() | st.integers(1, 3)
scalars = st.one_of(
    st.builds(lambda low, high, type_: {"type": type_, "min": low, "max": high},
              st.none() | numbers, st.none() | st.integers(6, 9), st.sampled_from(["count", "duration_ms"])),
    st.builds(lambda low, high: {"type": "number", "min": low, "max": high}, numbers, st.integers(6, 9)),
    st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(lambda names: {"type": "enum", "members": names}),
    st.sets(numbers, min_size=1).map(lambda edges: {"type": "bucket", "edges": sorted(edges)}),
    st.builds(lambda pattern, most: {"type": "string", "pattern": pattern, "max_length": most},
              st.sampled_from(["[ab]*", "[abc]*", "(?s:.*)"]), st.integers(1, 3)),
    st.sampled_from(["bool", "hash", "version", "uuid", "timestamp"]).map(lambda type_: {"type": type_}),
)  # fmt: skip
declared = st.builds(
    lambda scalar, items, level, required: {
        key: value for key, value in {**scalar, "max_items": items, "level": level, "required": required}.items()
        if value is not None
    },
    scalars, lists, st.sampled_from(LEVELS), st.booleans(),
)  # fmt: skip
raw = st.one_of(
    st.integers(-5, 12), st.floats(-5, 12), st.booleans(), st.text("abcd", max_size=4),
    st.sampled_from(["other", "0" * 12, "1.0", "2026-01-01T00:00:00Z", "00000000-0000-0000-0000-000000000000"]),
)  # fmt: skip
values = raw | st.lists(raw, max_size=4)
pairs = st.one_of(
    st.tuples(declared, declared),
    declared.flatmap(lambda old: st.tuples(st.just(old), declared.map(lambda new: _near(old, new)))),
)


def _near(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``new`` as a declaration of the type of ``old``, where there is one."""
    return {**old, **new} if new["type"] == old["type"] else {**old, "level": new["level"]}


def _takes(declaration: dict[str, Any], value: Any) -> bool:
    prop = msgspec.convert(declaration, Property)
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=value_type(prop))
    except msgspec.ValidationError:
        return False
    return True


@many
@given(pairs, values)
def test_what_is_narrower_or_the_same_holds_nothing_that_the_old_one_could_not(
    pair: tuple[dict[str, Any], dict[str, Any]], value: Any
) -> None:
    old, new = pair
    change = compare_declarations(text(**old), text(**new))
    assume(change in (None, "narrowed"))
    assert LEVELS.index(new["level"]) >= LEVELS.index(old["level"])
    if new["type"] == "bucket":  # fewer ranges are other words: what counts is what they tell
        before, after = (msgspec.convert({**each, "max_items": None}, Property) for each in pair)
        told = {(coerce(before, number), coerce(after, number)) for number in range(-5, 12)}
        assert len(told) == len({first for first, _ in told})
    else:
        assert _takes(old, value) or not _takes(new, value)


@many
@given(pairs)
def test_the_way_back_from_less_is_more(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    there, back = (compare_declarations(text(**one), text(**other)) for one, other in (pair, pair[::-1]))
    assert (there is None) == (back is None)
    if there == "narrowed":
        assert back == "widened"


@many
@given(pairs)
def test_the_text_of_a_declaration_says_all_of_it(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    old, new = (json.loads(text(**each)) for each in pair)
    named = {each.name for each in differences(text(**pair[0]), text(**pair[1]))}
    assert named <= {key for key in {**old, **new} if old.get(key) != new.get(key)}
