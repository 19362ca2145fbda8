"""Whatever rule is accepted for whatever declaration: what it gives is valid, and holds nothing of what it was."""

from __future__ import annotations

import hmac
import re
import uuid
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import Property, bucket_labels
from cmdorc_telemetry.spec.shapes import value_type
from cmdorc_telemetry_anonymizer.operations import Refused, moved_id, operation, rounded
from cmdorc_telemetry_anonymizer.settings import Rule

NUMBER = st.floats(-1e9, 1e9, allow_nan=False)
WHOLE = st.integers(0, 10**9)
WORD = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def secret(text: bytes) -> bytes:
    return hmac.digest(b"key", text, "sha256")


def other_secret(text: bytes) -> bytes:
    return hmac.digest(b"other key", text, "sha256")


def rising(values: st.SearchStrategy[Any], most: int = 6) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=most, unique=True).map(lambda found: tuple(sorted(found)))


@st.composite
def properties(draw: st.DrawFn) -> Property:
    kind = draw(st.sampled_from(["bool", "count", "duration_ms", "number", "enum", "bucket", "hash", "version", "uuid",
                                 "timestamp", "string"]))  # fmt: skip
    bounds: dict[str, Any] = {}
    if kind == "number":
        low, high = sorted((draw(NUMBER), draw(NUMBER)))
        bounds = {"min": low, "max": high}
    elif kind in ("count", "duration_ms") and draw(st.booleans()):
        low, high = sorted((draw(WHOLE), draw(WHOLE)))
        bounds = {"min": low, "max": high}
    elif kind == "enum":
        bounds = {"members": draw(rising(WORD))}
    elif kind == "bucket":
        bounds = {"edges": draw(rising(st.integers(-1000, 1000)))}
    elif kind == "string":
        pattern = draw(st.sampled_from(["(?s:.*)", "[a-z]+", "[0-9a-f]+", "[0-9a-f]{12}", "[0-9]*", r"v\w+"]))
        bounds = {"pattern": pattern, "max_length": draw(st.integers(1, 40))}
    return Property(type=kind, **bounds)  # type: ignore[arg-type]


def values_of(prop: Property) -> st.SearchStrategy[Any]:
    match prop.type:
        case "bool":
            return st.booleans()
        case "count" | "duration_ms":
            return st.integers(int(prop.min or 0), int(prop.max if prop.max is not None else 2**53))
        case "number":
            assert prop.min is not None
            return st.floats(prop.min, prop.max)
        case "enum":
            return st.sampled_from([*prop.members, "other"])
        case "bucket":
            return st.sampled_from(bucket_labels(prop.edges))
        case "hash":
            return st.binary(min_size=6, max_size=6).map(bytes.hex)
        case "version":
            return st.from_regex(r"[0-9][0-9A-Za-z.+!\-]{0,39}", fullmatch=True)
        case "uuid":
            return st.uuids().map(str)
        case "timestamp":
            return st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))
        case _:
            assert prop.pattern is not None
            return st.from_regex(re.compile(rf"\A(?:{prop.pattern})\Z"), fullmatch=True).filter(
                lambda text: len(text) <= (prop.max_length or 0)
            )


@st.composite
def rules(draw: st.DrawFn, prop: Property) -> Rule:
    rare = draw(st.none() | st.integers(2, 5))
    change = draw(st.sampled_from(["", "remove", "hash", "keep", "buckets", "generalise"]))
    match change:
        case "keep":
            members = list(prop.members) if prop.members else ["a", "cafe", "12"]
            return Rule(keep=draw(rising(st.sampled_from(members))), rare=rare)
        case "buckets":
            inside = WHOLE if prop.type != "number" else st.floats(prop.min, prop.max)
            return Rule(buckets=draw(rising(inside)), rare=rare)
        case "generalise":
            units = ["major", "minor", "minute", "hour", "day", "month", "year"]
            return Rule(generalise=draw(st.sampled_from(units)), rare=rare)  # type: ignore[arg-type]
        case "remove":
            return Rule(remove=True)
    return Rule(hash=change == "hash", rare=rare)


def is_valid(prop: Property, value: object) -> bool:
    try:
        msgspec.convert(value, value_type(prop))
    except msgspec.ValidationError:
        return False
    return True


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_a_rule_that_was_accepted_gives_is_valid(data: st.DataObject) -> None:
    prop = data.draw(properties())
    rule = data.draw(rules(prop))
    try:
        change = operation(prop, "p", rule)
    except Refused:
        assume(False)
    for value in data.draw(st.lists(values_of(prop), min_size=1, max_size=5)):
        assert is_valid(prop, value)
        new = change(value, secret)
        assert new is None or is_valid(prop, new)
        assert change(value, secret) == new, "the same value gives the same"
        if rule.change == "hash":
            assert new != value
            assert new != change(value, other_secret)
        if rule.change in ("generalise", "buckets", "keep") and new is not None:
            assert change(new, secret) == new, "what is coarse stays as it is"
        if not rule.change:
            assert new == value


@settings(max_examples=300, deadline=None)
@given(edges=rising(WHOLE), values=st.lists(WHOLE, min_size=2, max_size=30))
def test_a_number_tells_no_more_than_its_range(edges: tuple[int, ...], values: list[int]) -> None:
    change = operation(Property(type="count"), "p", Rule(buckets=edges))
    for value in values:
        new = change(value, secret)
        assert new <= value
        assert type(new) is int
        assert new == max(edge for edge in (0, *edges) if edge <= value)


def test_a_number_below_every_range_is_not_shared() -> None:
    """As an older version of the event may have allowed it."""
    change = operation(Property(type="count", min=10), "p", Rule(buckets=(20, 30)))
    assert [change(value, secret) for value in (9, 10, 20, 31)] == [None, 10, 20, 30]


@settings(max_examples=300, deadline=None)
@given(moment=st.datetimes(), unit=st.sampled_from(["minute", "hour", "day", "month", "year"]))
def test_times_are_rounded_down(moment: datetime, unit: str) -> None:
    begin = {"minute": moment.replace(second=0), "hour": moment.replace(minute=0, second=0)}
    begin["day"] = begin["hour"].replace(hour=0)
    begin["month"] = begin["day"].replace(day=1)
    begin["year"] = begin["month"].replace(month=1)
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
    assert rounded(stamp, unit) == begin[unit].strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


@pytest.mark.parametrize(
    ("version", "minor", "major"),
    [("3.12.4", "3.12", "3"), ("3.12", "3.12", "3"), ("3", "3", "3"), ("0.12.0.dev1+g1234", "0.12", "0"),
     ("1!2.3.4", "2.3", "2"), ("2024.10.1rc1", "2024.10", "2024"), ("12abc", "12", "12"), ("3.13rc2", "3.13", "3")],
)  # fmt: skip
def test_versions_keep_their_first_numbers(version: str, minor: str, major: str) -> None:
    prop = Property(type="version")
    assert operation(prop, "p", Rule(generalise="minor"))(version, secret) == minor
    assert operation(prop, "p", Rule(generalise="major"))(version, secret) == major


def test_hashes_of_one_property_are_not_those_of_another() -> None:
    prop = Property(type="hash")
    one, other = operation(prop, "one", Rule(hash=True)), operation(prop, "other", Rule(hash=True))
    assert one("0123456789ab", secret) != other("0123456789ab", secret)


@settings(max_examples=200, deadline=None)
@given(event_id=st.uuids(version=4), milliseconds=st.integers(0, 2**48 - 1), other=st.integers(0, 2**48 - 1))
def test_an_event_id_takes_its_time_from_the_timestamp(event_id: uuid.UUID, milliseconds: int, other: int) -> None:
    version7 = str(uuid.UUID(int=other << 80 | 7 << 76 | event_id.int & ~(~0 << 76)))
    moved = uuid.UUID(moved_id(version7, milliseconds, secret))
    assert moved.int >> 80 == milliseconds
    assert moved.version == 7
    assert moved.int & ~(~0 << 76) == event_id.int & ~(~0 << 76), "what tells events apart is still there"
    assert moved_id(str(moved), milliseconds, secret) == str(moved)
    assert moved_id(str(event_id), milliseconds, secret) == str(event_id), "this one holds no time"


def test_an_id_of_another_kind_that_holds_a_time_is_hashed() -> None:
    first = str(uuid.uuid1())
    moved = moved_id(first, 0, secret)
    assert uuid.UUID(moved).version == 4
    assert moved == moved_id(first, 0, secret)
    assert not set(first.split("-")[:3]) & set(moved.split("-"))


def test_an_hour_is_an_hour_in_utc() -> None:
    moment = datetime(2026, 11, 22, 23, 59, 59, tzinfo=timezone.utc)
    assert rounded(moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "hour") == "2026-11-22T23:00:00Z"
