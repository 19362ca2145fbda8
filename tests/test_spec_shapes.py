"""Shapes let through what is declared and valid, for an audience and a level, and nothing else."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.spec import (
    BASE,
    CORE,
    LEVELS,
    MASK,
    Event,
    Level,
    Property,
    Shapes,
    TelemetrySpec,
    coerce,
    load_spec,
    lower,
    own_shape,
    shared_names,
    value_type,
    wire_shape,
)
from cmdorc_telemetry.spec.shapes import CapturedReader, shared_shape

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)

EVENT = decode(
    {
        "name": "mixed",
        "semantics": {"what": "One property of each kind"},
        "properties": {
            "a_bool": {"type": "bool", "level": "minimal"},
            "a_count": {"type": "count", "level": "minimal", "max": 100},
            "a_duration": {"type": "duration_ms"},
            "a_number": {"type": "number", "min": -1, "max": 1},
            "an_enum": {"type": "enum", "members": ["red", "green"]},
            "a_bucket": {"type": "bucket", "edges": [1, 10]},
            "a_hash": {"type": "hash", "level": "debug"},
            "hashes": {"type": "hash", "max_items": 2, "level": "debug"},
            "a_version": {"type": "version"},
            "a_uuid": {"type": "uuid"},
            "a_timestamp": {"type": "timestamp"},
            "$ai_model": {"type": "string", "pattern": "[a-z]+|x", "max_length": 5},
            "a.dotted-name": {"type": "enum", "members": ["a", "b"], "max_items": 3},
            "class": {"type": "bool"},
            "__class__": {"type": "count"},
            "_5": {"type": "bool"},
            "personal": {"type": "count", "pii": True, "level": "minimal"},
            "redacted": {"type": "count", "redact": True, "level": "minimal"},
            "secret": {"type": "string", "pattern": ".*", "max_length": 5, "audience": "private", "level": "minimal"},
        },
    },
    Event,
    "test",
)
HEAD = {
    "event": "mixed",
    "cmdorc_version": "0.12.0",
    "python_version": "3.11",
    "os": "linux",
    "arch": "arm64",
    "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
    "timestamp": "2026-11-22T03:00:00Z",
    "event_id": "01234567-89ab-7def-8123-456789abcdef",
    "spec": "acme.app@1",
    "level": "debug",
    "sampling_rate": 0.5,
}
OWN: dict[str, Any] = {
    "a_bool": True, "a_count": 3, "a_duration": 1200, "a_number": 0.5, "an_enum": "green", "a_bucket": "1-10",
    "a_hash": "0123456789ab", "hashes": ["0123456789ab", "ffffffffffff"], "a_version": "1.2.3rc1+local",
    "a_uuid": "01234567-89ab-4def-8123-456789abcdef", "a_timestamp": "2026-11-22T03:00:00Z", "$ai_model": "gpt",
    "a.dotted-name": ["a", "other"], "class": False, "__class__": 7, "_5": True,
    "personal": MASK, "redacted": MASK, "secret": "xyz",
}  # fmt: skip
AT: dict[Level, set[str]] = {"minimal": {"a_bool", "a_count", "personal", "redacted"}}
AT["standard"] = set(OWN) - {"a_hash", "hashes", "secret"}
AT["debug"] = AT["standard"] | {"a_hash", "hashes"}


def through(shape: type[Any], body: object) -> Any:
    """What is left of ``body`` after it went through ``shape``, as it goes over the wire."""
    return json.loads(msgspec.json.encode(msgspec.json.decode(json.dumps(body), type=shape)))


@pytest.mark.parametrize("level", LEVELS)
def test_a_shared_shape_drops_what_is_private_undeclared_or_above_the_level(level: Level) -> None:
    body = {**HEAD, **OWN, "undeclared": 1, "A_bool": True, "p0": 1}
    left = through(shared_shape(EVENT, level), body)
    assert left == {**HEAD, **{name: OWN[name] for name in AT[level]}}
    assert set(shared_names(EVENT, level)) == AT[level]


def test_what_is_withheld_is_dropped_base_fields_too() -> None:
    left = through(shared_shape(EVENT, "debug", withheld={"$ai_model", "os", "a_bool", "no such"}), {**HEAD, **OWN})
    assert set(left) == {*HEAD, *AT["debug"]} - {"$ai_model", "os", "a_bool"}
    assert shared_names(EVENT, "minimal", withheld=["a_bool"]) == ["a_count", "personal", "redacted"]
    assert shared_names(EVENT, None) == []


def test_what_is_absent_stays_absent() -> None:
    assert through(shared_shape(EVENT, "debug"), {}) == {}
    assert through(own_shape(EVENT), {}) == {}


def test_the_own_shape_takes_private_fields_and_refuses_undeclared_and_base_ones() -> None:
    assert through(own_shape(EVENT), OWN) == OWN
    for name in ("undeclared", "os"):
        assert refused(own_shape(EVENT), {**OWN, name: 1}) == f"Object contains unknown field `{name}`"


def refused(shape: type[Any], body: object) -> str:
    with pytest.raises(msgspec.ValidationError) as caught:
        through(shape, body)
    return str(caught.value)


def test_the_wire_shape_refuses_what_it_does_not_know() -> None:
    shape = wire_shape(EVENT, "standard")
    allowed = {**HEAD, **{name: OWN[name] for name in AT["standard"]}}
    assert through(shape, allowed) == allowed
    for name in ("undeclared", "secret", "a_hash", "Os"):
        assert refused(shape, {**allowed, name: 1}) == f"Object contains unknown field `{name}`"
    for name in ("event", "anonymous_install_id", "timestamp"):
        short = {key: value for key, value in allowed.items() if key != name}
        assert refused(shape, short) == f"Object missing required field `{name}`"
    optional = {name: HEAD[name] for name in ("event", "anonymous_install_id", "timestamp")}
    assert through(shape, optional) == optional


def test_a_server_of_ones_own_may_take_everything_declared() -> None:
    assert through(wire_shape(EVENT, None), {**HEAD, **OWN}) == {**HEAD, **OWN}
    assert "unknown field" in refused(wire_shape(EVENT, None), {**HEAD, "undeclared": 1})


INVALID: list[tuple[str, object]] = [
    ("a_bool", 1), ("a_bool", "true"), ("a_bool", None),
    ("a_count", -1), ("a_count", 101), ("a_count", True), ("a_count", 1.5), ("a_count", "1"), ("a_count", None),
    ("a_duration", -1), ("a_duration", 2**53 + 1), ("a_duration", 10**400),
    ("a_number", 1.0001), ("a_number", -2), ("a_number", True), ("a_number", "0"),
    ("an_enum", "blue"), ("an_enum", "Red"), ("an_enum", 1), ("an_enum", ["red"]),
    ("a_bucket", 5), ("a_bucket", "2-3"), ("a_bucket", "<2"),
    ("a_hash", "0123456789a"), ("a_hash", "0123456789abc"), ("a_hash", "0123456789aB"), ("a_hash", "0123456789ab\n"),
    ("hashes", "0123456789ab"), ("hashes", ["0123456789ab"] * 3), ("hashes", ["x"]), ("hashes", [None]),
    ("a_version", "v1"), ("a_version", ""), ("a_version", "1" * 41), ("a_version", "1 2"), ("a_version", 1),
    ("a_uuid", "01234567-89ab-4def-8123-456789abcdeF"), ("a_uuid", "0123456789ab4def8123456789abcdef"), ("a_uuid", ""),
    ("a_timestamp", "2026-11-22T03:00:00"), ("a_timestamp", "2026-11-22T03:00:00.1Z"), ("a_timestamp", 1),
    ("a_timestamp", "2026-11-22T03:00:00Z\n"), ("a_timestamp", "٢٠٢٦-11-22T03:00:00Z"),
    ("$ai_model", "xy z"), ("$ai_model", "toolong"), ("$ai_model", "X"), ("$ai_model", "ab\n"), ("$ai_model", "x!"),
    ("personal", 1), ("personal", 0), ("redacted", 1), ("redacted", None), ("personal", ["[redacted]"]),
    ("a.dotted-name", ["a", "c"]), ("a.dotted-name", "a"), ("a.dotted-name", ["a"] * 4),
    ("__class__", "x"), ("_5", 5),
    ("event", "no name"), ("event", ""), ("os", "OS/2"), ("level", "off"), ("level", "all"), ("sampling_rate", 1.1),
    ("spec", "acme.app"), ("spec", "a@1234567"), ("anonymous_install_id", "me"), ("app_name", "my app"),
    ("cmdorc_version", "latest"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), INVALID, ids=lambda value: repr(value)[:25])
def test_a_value_that_is_not_of_its_type_is_refused(name: str, value: object) -> None:
    shapes = [(shared_shape(EVENT, "debug"), HEAD), (wire_shape(EVENT, None), HEAD), (own_shape(EVENT), {})]
    for shape, head in shapes[:2] if name in BASE else shapes:
        with pytest.raises(msgspec.ValidationError, match=r"^(Expected|Invalid)"):
            through(shape, {**head, **OWN, name: value})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(f'{{"a_number": {text}}}', type=shared_shape(EVENT, "debug"))


# -- capture's conversions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "coerced"),
    [
        ("a_bool", True, True),
        ("a_count", 100, 100),
        ("a_number", 1, 1.0),
        ("an_enum", "red", "red"),
        ("an_enum", "mauve", "other"),
        ("an_enum", "", "other"),
        ("a_bucket", 0, "<1"),
        ("a_bucket", 0.999, "<1"),
        ("a_bucket", 1, "1-10"),
        ("a_bucket", 9.99, "1-10"),
        ("a_bucket", 10, ">=10"),
        ("a_bucket", math.inf, ">=10"),
        ("a_bucket", -math.inf, "<1"),
        ("a_bucket", "1-10", "1-10"),
        ("hashes", ["0123456789ab"], ["0123456789ab"]),
        ("hashes", ("0123456789ab",) * 5, ["0123456789ab"] * 2),
        ("hashes", {"0123456789ab"}, ["0123456789ab"]),
        ("hashes", [], []),
        ("a.dotted-name", ["a", "z", "b", "a"], ["a", "other", "b"]),
    ],
)
def test_a_value_is_made_valid_where_that_says_the_same(name: str, value: object, coerced: object) -> None:
    assert coerce(EVENT.properties[name], value) == coerced


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("an_enum", 3),
        ("an_enum", None),
        ("a_bucket", True),
        ("a_bucket", math.nan),
        ("a_bucket", "5"),
        ("a_number", math.nan),
        ("a_number", math.inf),
        ("a_count", math.nan),
        ("a_count", 2.5),
        ("hashes", "0123456789ab"),
        ("hashes", ["0123456789ab", 5]),
        ("a.dotted-name", "ab"),
        ("a.dotted-name", b"a"),
        ("a.dotted-name", {"a": 1}),
        ("a.dotted-name", 3),
        ("a.dotted-name", None),
        ("a.dotted-name", [1]),
        ("$ai_model", "Gpt"),
    ],
)
def test_what_cannot_be_made_valid_is_refused(name: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        coerce(EVENT.properties[name], value)


@pytest.mark.parametrize(
    ("bounds", "valid", "invalid"),
    [
        ({}, [0, 2**53], [-1, 2**53 + 1]),
        ({"max": 0}, [0], [1, -1]),
        ({"max": 2.5}, [0, 2], [3]),
        ({"min": 1.5}, [2], [1]),
        ({"min": -3, "max": -1}, [-3, -1], [-4, 0]),
        ({"max": 1e300}, [2**53], [2**53 + 1]),
    ],
)
def test_the_bounds_of_a_count_are_whole(bounds: Mapping[str, float], valid: list[int], invalid: list[int]) -> None:
    type_ = value_type(Property(type="count", **bounds))
    assert [msgspec.convert(value, type_) for value in valid] == valid
    for value in invalid:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, type_)


# -- whatever comes ----------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
known = st.sampled_from(sorted({**HEAD, **OWN}))
bodies = st.builds(
    lambda names, undeclared, odd: {**{name: {**HEAD, **OWN}[name] for name in names}, **undeclared, **odd},
    st.sets(known),
    st.dictionaries(st.text(), anything, max_size=3),
    st.dictionaries(known, anything, max_size=1),
)


def valid(name: str, value: Any) -> bool:
    """What the design says of a value, written out apart from msgspec."""
    prop = {**BASE, **EVENT.properties}[name]
    if name in ("personal", "redacted"):
        return bool(value == MASK)
    if prop.max_items is not None:
        bare = msgspec.structs.replace(prop, max_items=None)
        return isinstance(value, list) and len(value) <= prop.max_items and all(_one(bare, item) for item in value)
    return _one(prop, value)


def _one(prop: Property, value: Any) -> bool:
    match prop.type:
        case "bool":
            return isinstance(value, bool)
        case "count" | "duration_ms":
            most = 2**53 if prop.max is None else prop.max
            return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        case "number":
            assert prop.min is not None
            assert prop.max is not None
            return isinstance(value, int | float) and not isinstance(value, bool) and prop.min <= value <= prop.max
        case "enum":
            return value in (*prop.members, "other")
        case "bucket":
            return value in ("<1", "1-10", ">=10")
        case _:
            return isinstance(value, str) and len(value) <= (prop.max_length or 40)


@many
@given(bodies, st.sampled_from(LEVELS), st.sets(st.sampled_from(sorted(OWN))))
def test_whatever_passes_has_declared_fields_with_valid_values_only(
    body: dict[str, Any], level: Level, withheld: set[str]
) -> None:
    try:
        left = through(shared_shape(EVENT, level, withheld=withheld), body)
    except msgspec.ValidationError:
        hypothesis.event("refused")
        return
    assert set(left) <= (set(BASE) | AT[level]) - withheld
    assert {name: value for name, value in left.items() if not valid(name, value)} == {}
    assert left == {name: body[name] for name in left}


@many
@given(st.sampled_from(sorted(OWN)), anything)
def test_whatever_is_coerced_is_taken_by_a_server(name: str, value: Any) -> None:
    try:
        coerced = coerce(EVENT.properties[name], value)
    except msgspec.ValidationError:
        return
    assert through(wire_shape(EVENT, None), {**HEAD, name: coerced})[name] == coerced
    assert valid(name, coerced)


# -- the shapes of a set of specs --------------------------------------------------------------------------------------


def spec_of(*versions: int) -> TelemetrySpec:
    events = tuple(msgspec.structs.replace(EVENT, version=version, properties={
        f"v{version}": Property(type="bool", level="minimal")}) for version in versions)  # fmt: skip
    return TelemetrySpec(meta=decode({"name": "acme.app"}, type(load_spec(CORE).meta), "test"), events=events)


@pytest.mark.parametrize("versions", [(1, 2), (2, 1)])
def test_the_latest_version_of_an_event_has_the_say(versions: tuple[int, ...]) -> None:
    shapes = Shapes([spec_of(*versions)])
    ((spec, event),) = shapes
    assert (spec.ref, event.version) == ("acme.app@1", 2)
    shape = shapes.shared("acme.app@1", "mixed", "minimal")
    assert shape is not None
    assert through(shape, {"v1": True, "v2": True}) == {"v2": True}


def test_shapes_are_made_once_and_only_where_there_is_something_to_share() -> None:
    shapes = Shapes([load_spec(CORE)])
    assert len(list(shapes)) == 5
    first = shapes.shared("cmdorc.core@1", "command_completed", "minimal")
    assert first is not None
    assert shapes.shared("cmdorc.core@1", "command_completed", "minimal") is first
    assert shapes.shared("cmdorc.core@1", "command_completed", "standard") is not first
    for ref, event, level in [
        ("cmdorc.core@1", "command_completed", None),
        ("cmdorc.core@1", "trigger_fired", "minimal"),
        ("cmdorc.core@1", "command", "debug"),
        ("cmdorc.core@2", "command_completed", "debug"),
        ("cmdorc.core", "command_completed", "debug"),
    ]:
        assert shapes.shared(ref, event, level) is None  # type: ignore[arg-type]


def test_an_event_whose_own_fields_all_wait_is_not_shared() -> None:
    shapes, name = Shapes([load_spec(CORE)]), "orchestrator_started"
    own = {"executor_type", "command_count", "has_triggers"}
    assert shapes.shared("cmdorc.core@1", name, "minimal", frozenset(own)) is None
    assert shapes.shared("cmdorc.core@1", name, "minimal", frozenset(own - {"has_triggers"})) is not None


@pytest.mark.parametrize("first", [None, *LEVELS])
@pytest.mark.parametrize("second", [None, *LEVELS])
def test_the_lesser_of_two_levels(first: Level | None, second: Level | None) -> None:
    order = [None, *LEVELS]
    assert lower(first, second) == order[min(order.index(first), order.index(second))]


# -- reading what was captured -----------------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "event": "command_completed", "cmdorc_version": "0.12.0", "python_version": "3.11", "os": "linux",
    "arch": "x86_64", "spec": "cmdorc.core@1", "anonymous_install_id": "00000000-0000-0000-0000-000000000007",
    "timestamp": "2026-11-22T03:00:00Z", "event_id": "019ab5f0-1e00-7abc-8def-0123456789ab", "duration_ms": 5,
    "state": "success", "final": True, "manual": False, "chain_depth": 1, "command_name": "Tests",
}  # fmt: skip


def read(reader: CapturedReader, body: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = msgspec.to_builtins(reader(msgspec.json.encode(body)))
    except msgspec.ValidationError:
        return None
    return found


@many
@given(
    st.sampled_from(sorted({*BODY, "app_name", "app_version", "sampling_rate", "level", "other"})),
    st.sampled_from(
        [
            None,
            "",
            "x y",
            "3.12",
            "2026-11-22T03:00:01Z",
            BODY["event_id"],
            BODY["event_id"] + "0",
            BODY["spec"],
            1,
            ...,
        ]
    ),
    st.sampled_from(LEVELS),
)
def test_a_quick_look_is_as_strict_as_a_thorough_one(name: str, value: Any, level: Level) -> None:
    body = {**BODY, name: value}
    if value is ...:
        del body[name]
    withheld = frozenset({"concurrent_runs"})
    fresh, used = (CapturedReader(load_spec(CORE).event("command_completed"), level, withheld) for _ in range(2))
    assert read(used, BODY) is not None
    assert read(used, {**BODY, "event_id": str(uuid.UUID(int=9))}) is not None
    assert read(used, body) == read(fresh, body)
    assert read(used, body) == read(fresh, body), "and the second time, too"


def test_what_was_matched_before_is_forgotten_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CapturedReader, "_MOST_KNOWN", 10)
    reader = CapturedReader(load_spec(CORE).event("command_completed"), "standard", ())
    for second in range(35):
        assert read(reader, {**BODY, "timestamp": f"2026-11-22T03:00:{second:02}Z"}) is not None
        assert len(reader._known) <= 10


def test_a_reader_is_made_once_and_only_where_there_is_something_to_share() -> None:
    shapes = Shapes([load_spec(CORE)])
    first = shapes.reader("cmdorc.core@1", "command_completed", "minimal")
    assert first is not None
    assert shapes.reader("cmdorc.core@1", "command_completed", "minimal") is first
    assert shapes.reader("cmdorc.core@1", "trigger_fired", "minimal") is None
    assert shapes.reader("cmdorc.core@2", "command_completed", "minimal") is None
