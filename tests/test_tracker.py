"""A tracker records what its spec allows, says what became of an event, and never lets its caller down."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import (
    Result,
    TelemetryAnomalyMonitor,
    TelemetryLevel,
    TelemetryRegistry,
    TelemetryTracker,
    TelemetryViolation,
    Violation,
    clock,
)
from cmdorc_telemetry.application import Application
from cmdorc_telemetry.errors import ConfigError, OperationError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import MASK, Outcome, parse_toml
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.tracker import MOST_COUNTED

from .acme import SPEC, Acme, Frame, Keeper
from .agreement import agree


@pytest.fixture
def acme(tmp_path: Path) -> Acme:
    return Acme(tmp_path)


@pytest.fixture
def tracker(acme: Acme) -> Iterator[TelemetryTracker]:
    made = acme.tracker()
    yield made
    made.close()


def only(acme: Acme) -> Frame:
    (frame,) = acme.frames()
    return frame


# -- what is recorded --------------------------------------------------------------------------------------------------


async def test_track_and_its_synchronous_twin_do_the_same(acme: Acme, tracker: TelemetryTracker) -> None:
    properties = {"plan": "pro", "seconds": 7, "email": "jane@acme.example"}
    assert await tracker.track("acme.signup", 1, properties, {"tenant": "north"}) is Result.CAPTURED
    assert tracker.track_now("acme.signup", 1, properties, {"tenant": "north"}) is Result.CAPTURED
    one, other = acme.frames()
    assert (one.spec, one.event, one.version) == ("acme.app@1", "acme.signup", 1)
    assert one.own == other.own == {"plan": "pro", "seconds": 7, "email": MASK, "context.tenant": "north"}
    assert one.body["event_id"] != other.body["event_id"]
    assert (one.body["app_name"], one.body["app_version"]) == ("acme", "2.4.1")
    assert tracker.violations == {}


def test_a_result_is_true_only_where_the_event_was_captured() -> None:
    assert [result for result in Result if result] == [Result.CAPTURED]


def test_what_is_personal_is_masked_in_properties_and_context(acme: Acme, tracker: TelemetryTracker) -> None:
    assert tracker.track_now(
        "acme.signup", None, {"plan": "free", "email": "j@x"}, {"user_id": "user-1", "tenant": "a"}
    )
    assert only(acme).own == {"plan": "free", "email": MASK, "context.user_id": MASK, "context.tenant": "a"}
    assert not [line for line in all_bytes(acme) if b"user-1" in line or b"j@x" in line]


def all_bytes(acme: Acme) -> list[bytes]:
    return [path.read_bytes() for path in acme.home.root.rglob("*") if path.is_file()]


def test_of_a_sensitive_event_everything_is_masked_but_what_is_the_users_own(
    acme: Acme, tracker: TelemetryTracker
) -> None:
    assert tracker.track_now("acme.secret", 1, {"count": 5, "note": "mine"}, {"tenant": "north", "user_id": "u"})
    assert only(acme).own == {"count": MASK, "note": "mine", "context.tenant": "north", "context.user_id": MASK}


def test_a_mask_is_of_no_other_type_and_none_is_no_value(acme: Acme, tracker: TelemetryTracker) -> None:
    """A mask says that there was a value. It can be told from data: it is no number, no truth and of no length."""
    for value in (0, False, 5, "x", ["a", "b"], {"nested": {"deep": "secret"}}):
        assert tracker.track_now("acme.secret", 1, {"count": value})
    assert {frame.own["count"] for frame in acme.frames()} == {MASK}
    assert tracker.track_now("acme.secret", 1, {"count": None})
    assert "count" not in acme.frames()[-1].own
    assert tracker.violations == {("acme.secret", "count", "invalid"): 1}


def test_parts_of_a_value_are_taken_by_their_paths(acme: Acme, tracker: TelemetryTracker) -> None:
    since = "2026-01-01T00:00:00Z"
    nested = {"plan": "free", "balance": {"amount": 5, "held": {"since": since, "by": "jane"}, "iban": "x"}}
    flat = {"plan": "free", "balance.amount": 5, "balance.held.since": since}
    assert tracker.track_now("acme.signup", 1, nested)
    assert tracker.track_now("acme.signup", 1, flat)
    assert [frame.own for frame in acme.frames()] == [flat, flat]
    assert tracker.violations == {
        ("acme.signup", "balance.held.by", "undeclared"): 1, ("acme.signup", "balance.iban", "undeclared"): 1,
    }  # fmt: skip


def test_a_value_of_no_known_shape_is_left_out_as_it_is_declared_to_be(acme: Acme, tracker: TelemetryTracker) -> None:
    for anything in ({"any": ["thing"]}, object(), None):
        assert tracker.track_now("acme.signup", 1, {"plan": "free", "anything": anything, "anything.else": 1})
    assert {tuple(frame.own.items()) for frame in acme.frames()} == {(("plan", "free"),)}
    assert tracker.violations == {}


def test_a_value_of_no_known_shape_is_not_even_masked(acme: Acme, tracker: TelemetryTracker) -> None:
    assert tracker.track_now("acme.signup", 1, {"plan": "free", "hidden": {"a": 1}})
    assert only(acme).own == {"plan": "free"}
    assert tracker.violations == {}


def test_of_a_value_that_is_masked_its_declared_parts_are_none(acme: Acme, tracker: TelemetryTracker) -> None:
    for who in ({"team": "north", "name": "Jane"}, "Jane"):
        assert tracker.track_now("acme.signup", 1, {"plan": "free", "who": who})
    assert [frame.own for frame in acme.frames()] == [
        {"plan": "free", "who.team": "north"},
        {"plan": "free", "who": MASK},
    ]
    assert tracker.violations == {("acme.signup", "who.name", "undeclared"): 1}


def test_moments_and_ids_may_be_passed_as_what_they_are(acme: Acme, tracker: TelemetryTracker) -> None:
    at = datetime(2026, 5, 1, 14, 30, 59, 999, tzinfo=timezone(timedelta(hours=2)))
    assert tracker.track_now("acme.signup", 1, {"plan": "free", "at": at, "order": uuid.UUID(int=7)})
    assert only(acme).own == {"plan": "free", "at": "2026-05-01T12:30:59Z", "order": str(uuid.UUID(int=7))}
    assert tracker.track_now("acme.signup", 1, {"plan": "free", "at": at.replace(tzinfo=None)})
    assert tracker.violations == {("acme.signup", "at", "invalid"): 1}, "nobody knows which moment that is"


# -- versions ----------------------------------------------------------------------------------------------------------

VERSIONS = """
[meta]
name = "acme.app"
version = "2.1.0"
[[events]]
name = "paid"
version = 1
semantics = { what = "A payment" }
properties.cents = { type = "count", required = true }
[[events]]
name = "paid"
version = "2.0.0"
semantics = { what = "A payment" }
properties.amount = { type = "number", min = 0, max = 1000, required = true }
[[events]]
name = "paid"
version = "10.1.0-beta"
semantics = { what = "A payment" }
properties.total = { type = "count", required = true }
"""


def test_versions_of_an_event_stand_side_by_side(tmp_path: Path) -> None:
    acme = Acme(tmp_path, VERSIONS)
    tracker = acme.tracker()
    for version, properties in (
        (1, {"cents": 5}), ("1.0.0", {"cents": 6}), (2, {"amount": 0.5}), ("2.0.0", {"amount": 0.6}),
        ("10.1.0-beta", {"total": 3}), (None, {"total": 4}),
    ):  # fmt: skip
        assert tracker.track_now("paid", version, properties) is Result.CAPTURED, version
    tracker.close()
    assert [(frame.spec, frame.version, frame.own) for frame in acme.frames()] == [
        ("acme.app@2", 1, {"cents": 5}), ("acme.app@2", 1, {"cents": 6}), ("acme.app@2", 2, {"amount": 0.5}),
        ("acme.app@2", 2, {"amount": 0.6}), ("acme.app@2", 10, {"total": 3}), ("acme.app@2", 10, {"total": 4}),
    ]  # fmt: skip


def test_another_version_is_unknown_whatever_it_is(tmp_path: Path) -> None:
    tracker = Acme(tmp_path, VERSIONS.replace("version = 1\n", "version = 4\n")).tracker()
    others: list[Any] = [3, "2.1.0", "10.1.0", 0, -1, 10**5000, "latest", "", 1.5, True, [1], b"1", object()]
    for version in others:
        assert tracker.track_now("paid", version, {"cents": 5}) is Result.UNKNOWN
    assert tracker.violations == {("paid", "", "unknown"): len(others)}
    tracker.close()


def test_of_two_versions_of_a_spec_the_latest_declares_an_event_whatever_their_order(tmp_path: Path) -> None:
    """Versions 1.0.0 and 1.1.0 have the same name on the wire; which one came last by chance must not matter."""
    old, new = (
        parse_toml(VERSIONS.replace('"2.1.0"', f'"{version}"').replace("cents", name), "x")
        for version, name in (("2.0.0", "cents"), ("2.3.0", "euros"))
    )
    for number, specs in enumerate(((old, new), (new, old))):
        acme = Acme(tmp_path / str(number), level=None)
        acme.application = Application("acme", "1", specs, home=acme.home.root)
        agree(acme.home, spec=new)
        tracker = acme.tracker()
        assert tracker.track_now("paid", 1, {"euros": 5})
        assert not tracker.track_now("paid", 1, {"cents": 5})
        tracker.close()


# -- what is not -------------------------------------------------------------------------------------------------------


def test_what_is_undeclared_or_invalid_is_withheld_alone_and_counted(acme: Acme, tracker: TelemetryTracker) -> None:
    for _ in range(2):
        assert tracker.track_now(
            "acme.signup", 1, {"plan": "free", "seconds": "7", "steps": ["a", 5], "password": "hunter2"},
            {"session": "s-1", "tenant": 7, "user_id": "u"},
        ) is Result.CAPTURED  # fmt: skip
    assert [frame.own for frame in acme.frames()] == [{"plan": "free", "context.user_id": MASK}] * 2
    assert tracker.violations == {
        ("acme.signup", "seconds", "invalid"): 2, ("acme.signup", "steps", "invalid"): 2,
        ("acme.signup", "password", "undeclared"): 2, ("acme.signup", "context.session", "undeclared"): 2,
        ("acme.signup", "context.tenant", "invalid"): 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "reason"), [({}, "missing"), ({"plan": 5}, "invalid"), ({"plan": None}, "invalid")]
)
def test_without_what_it_requires_an_event_is_withheld(
    acme: Acme, tracker: TelemetryTracker, properties: dict[str, Any], reason: str
) -> None:
    assert tracker.track_now("acme.signup", 1, {**properties, "seconds": 5}) is Result.WITHHELD
    assert acme.frames() == []
    assert tracker.violations == {("acme.signup", "plan", reason): 1}


@pytest.mark.parametrize("name", ["acme.sigup", "", "x" * 5000, 5, None, ["a"], b"acme.signup", "a\nb\x1b[31m"])
def test_an_event_that_nobody_declares_is_unknown(acme: Acme, tracker: TelemetryTracker, name: Any) -> None:
    assert tracker.track_now(name, 1, {"plan": "free"}) is Result.UNKNOWN
    ((event, prop, reason),) = tracker.violations
    assert (prop, reason) == ("", "unknown")
    assert len(event) < 120
    assert event.isprintable()
    assert acme.frames() == []


def test_what_nobody_agreed_to_is_withheld_and_is_not_unknown(tmp_path: Path) -> None:
    acme = Acme(tmp_path)
    other = parse_toml('[meta]\nname = "acme.other"\n[[events]]\nname = "other"\nsemantics = { what = "x" }\n'
                       'properties.n = { type = "count" }', "x")  # fmt: skip
    acme.application = Application("acme", "1", (acme.spec, other), home=acme.home.root)
    tracker = acme.tracker()
    assert tracker.track_now("other", 1, {"n": 1}) is Result.WITHHELD
    assert tracker.track_now("another", 1, {"n": 1}) is Result.UNKNOWN
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.CAPTURED
    tracker.close()


class Weird(IntEnum):
    FIVE = 5


class Text(str):
    __slots__ = ()


class Fraction(float):
    pass


class Names(dict[Any, Any]):
    pass


def test_subclasses_stand_for_their_values(acme: Acme, tracker: TelemetryTracker) -> None:
    given = Names({"plan": Text("pro"), "seconds": Weird.FIVE, Text("steps"): (Text("a"), "b"), "share": Fraction(0.5)})
    assert tracker.track_now(Text("acme.signup"), 1, given) is Result.CAPTURED
    assert only(acme).own == {"plan": "pro", "seconds": 5, "steps": ["a", "b"], "share": 0.5}
    assert tracker.violations == {}


class Raises:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("a secret")

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __float__ = __int__ = __getattribute__  # type: ignore[assignment]


class RaisingMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("a secret")


class OfRaisingClass(metaclass=RaisingMeta):
    pass


class Ends(Raises):
    """Whatever is asked of it, it ends the program."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit("a secret")

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __float__ = __int__ = __getattribute__


class RaisingTable(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise RuntimeError("a secret")

    __iter__ = __len__ = items = __getitem__  # type: ignore[assignment]


HOSTILE: list[Any] = [
    None, math.nan, math.inf, -math.inf, "\ud800", 10**400, -(10**400), 2**63, b"x", object(), Raises(),
    OfRaisingClass(), RaisingTable(), {1: 2}, {"A"}, [Raises()], ["\ud800"], ["a", None], lambda: 1, type,
    Fraction("nan"), Ends(),
]  # fmt: skip


TABLELESS: list[Any] = [None, Raises(), Ends(), RaisingTable(), 5, "plan", [("plan", "free")]]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize(
    "name", ["seconds", "share", "steps", "at", "balance", "balance.amount", "email", "undeclared"]
)
def test_whatever_a_value_is_the_caller_hears_nothing_and_the_rest_is_recorded(
    tmp_path: Path, name: str, number: int
) -> None:
    acme, told, value = Acme(tmp_path), list[Violation](), HOSTILE[number]
    tracker = acme.tracker(on_violation=told.append)
    assert tracker.track_now("acme.signup", 1, {"plan": "free", name: value}, {"tenant": "a"}) is Result.CAPTURED
    tracker.close()
    masked = name == "email" and value is not None
    empty = name == "balance" and value == {1: 2} if type(value) is dict else False
    assert only(acme).own == {"plan": "free", "context.tenant": "a", **({"email": MASK} if masked else {})}
    if masked:
        assert not told
        return
    (violation,) = told
    assert violation.reason == ("undeclared" if name == "undeclared" or empty else "invalid")
    assert (violation.path if empty else violation.path.partition("[")[0]) == ("balance.<int>" if empty else name)
    assert "secret" not in str(violation)
    assert str(violation).isprintable()


@pytest.mark.parametrize("number", range(len(TABLELESS)))
def test_properties_and_a_context_that_are_none_are_wrong_by_themselves(tmp_path: Path, number: int) -> None:
    acme, value = Acme(tmp_path), TABLELESS[number]
    tracker = acme.tracker()
    assert tracker.track_now("acme.secret", 1, value, {"tenant": "a"}) is Result.CAPTURED
    wrong = {("acme.secret", "", "invalid"): 1}
    assert tracker.violations == wrong
    assert tracker.track_now("acme.secret", 1, {"count": 1}, value) is Result.CAPTURED
    assert tracker.violations == (wrong if value is None else {("acme.secret", "", "invalid"): 2})
    assert [frame.own for frame in acme.frames()] == [{"context.tenant": "a"}, {"count": MASK}]
    tracker.close()


class Key:
    """Nobody may ask what class it is of."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("a secret")


def test_a_context_is_no_place_for_properties(acme: Acme, tracker: TelemetryTracker) -> None:
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}, {"plan": "pro", "seconds": 5})
    assert only(acme).own == {"plan": "free"}
    assert set(tracker.violations) == {
        ("acme.signup", "context.plan", "undeclared"), ("acme.signup", "context.seconds", "undeclared"),
    }  # fmt: skip


def test_names_that_are_none_are_told_by_their_kind(acme: Acme, tracker: TelemetryTracker) -> None:
    given: dict[Any, Any] = {"plan": "free", 5: "a", None: "b", ("x",): "c", Key(): "d"}
    assert tracker.track_now("acme.signup", 1, given, {7: 1}) is Result.CAPTURED  # type: ignore[dict-item]
    assert {name for _, name, _ in tracker.violations} == {"<int>", "<NoneType>", "<tuple>", "<Key>", "context.<int>"}
    assert only(acme).own == {"plan": "free"}


def test_what_is_counted_is_bounded(acme: Acme, tracker: TelemetryTracker) -> None:
    for number in range(MOST_COUNTED + 50):
        tracker.track_now("acme.signup", 1, {"plan": "free", f"user-{number}": 1, "y" * 5000: 1})
    counted = tracker.violations
    assert len(counted) == MOST_COUNTED + 1
    assert sum(counted.values()) == 2 * (MOST_COUNTED + 50)
    assert counted["", "", "undeclared"] > 0
    assert max(len(name) for _, name, _ in counted) < 120


# -- on_violation ------------------------------------------------------------------------------------------------------


def test_on_violation_gets_each_violation_and_never_a_value(acme: Acme) -> None:
    told: list[Violation] = []
    tracker = acme.tracker(on_violation=told.append)
    tracker.track_now(
        "acme.signup", 1, {"plan": "hunter2", "steps": ["a", 99], "hunter3": "hunter4"}, {"org": "hunter5"}
    )
    tracker.track_now("acme.signup", 1, {"seconds": "hunter6"})
    tracker.track_now("acme.sign_up", 3, {"a": "hunter7"})
    tracker.close()
    event = "acme.signup"
    assert told == [
        Violation(event, "steps", "invalid", "steps[1]", "int", "text, at most 10 characters that matches [a-z]+"),
        Violation(event, "hunter3", "undeclared", "hunter3", "str", "a declared property"),
        Violation(
            event, "context.org", "undeclared", "context.org", "str", "a declared property, such as 'context.user_id'"
        ),
        Violation(event, "seconds", "invalid", "seconds", "str", "whole number, 0 to 1000"),
        Violation(event, "plan", "missing", "plan", "", "free, pro, other"),
        Violation(
            "acme.sign_up", "", "unknown", "version 3", "no such event", "a declared event, such as 'acme.signup'"
        ),
    ]
    words = " ".join(map(str, told))
    assert not [number for number in "24567" if f"hunter{number}" in words]
    assert str(told[0]) == "acme.signup: steps[1]: found int; expected text, at most 10 characters that matches [a-z]+"


@pytest.mark.parametrize("fault", [RuntimeError("hunter2"), SystemExit(3), ValueError("hunter2")])
def test_what_on_violation_raises_is_logged_and_kept_from_the_caller(
    acme: Acme, caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    heard = []

    def broken(violation: Violation) -> None:
        heard.append(violation.property)
        raise fault

    tracker = acme.tracker(on_violation=broken)
    with caplog.at_level(logging.WARNING, "cmdorc_telemetry"):
        assert tracker.track_now("acme.signup", 1, {"plan": "free", "a": 1, "b": 2}) is Result.CAPTURED
    tracker.close()
    assert heard == ["a", "b"]
    assert len(caplog.messages) == 2
    assert "hunter2" not in caplog.text
    assert only(acme).own == {"plan": "free"}


def test_an_interrupt_is_the_callers(acme: Acme) -> None:
    def interrupted(violation: Violation) -> None:
        raise KeyboardInterrupt

    tracker = acme.tracker(on_violation=interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracker.track_now("acme.signup", 1, {"plan": "free", "a": 1})
    tracker.close()


# -- strict ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [None, "standard"])
@pytest.mark.parametrize(
    ("name", "version", "properties", "context", "message"),
    [
        ("acme.signup", 1, {"plan": "free", "sconds": 1}, {},
         "acme.signup: sconds: found int; expected a declared property, such as 'seconds'"),
        ("acme.signup", 1, {"plan": "free", "seconds": 1001}, {},
         "acme.signup: seconds: found int; expected whole number, 0 to 1000"),
        ("acme.signup", 1, {"plan": "free", "steps": ["a", "b", "C"]}, {},
         "acme.signup: steps[2]: found str; expected text, at most 10 characters that matches [a-z]+"),
        ("acme.signup", 1, {"plan": "free", "steps": "a"}, {},
         "acme.signup: steps: found str; expected up to 3 of: text, at most 10 characters that matches [a-z]+"),
        ("acme.signup", 1, {"plan": "free", "balance": {"held": {"since": 5}}}, {},
         "acme.signup: balance.held.since: found int; expected UTC, to the second"),
        ("acme.signup", 1, {"plan": "free", "balance": 5}, {},
         "acme.signup: balance: found int; expected a mapping of names to values"),
        ("acme.signup", 1, {"plan": "free"}, {"tenant": "North"},
         "acme.signup: context.tenant: found str; expected text, at most 40 characters that matches [a-z]+"),
        ("acme.signup", 1, {"plan": "free"}, {"tenat": "x"},
         "acme.signup: context.tenat: found str; expected a declared property, such as 'context.tenant'"),
        ("acme.signup", 1, {}, {}, "acme.signup: plan: found nothing; expected free, pro, other"),
        ("acme.sinup", None, {}, {},
         "acme.sinup: found no such event; expected a declared event, such as 'acme.signup'"),
        ("acme.signup", "2.0.0", {}, {}, "acme.signup: version 2.0.0: found no such event; expected version 1"),
    ],
)  # fmt: skip
async def test_strict_raises_with_the_path_also_where_telemetry_is_off(
    tmp_path: Path, level: str | None, name: str, version: Any, properties: Any, context: Any, message: str
) -> None:
    acme = Acme(tmp_path, level=None if level is None else TelemetryLevel(level))
    told: list[Violation] = []
    tracker = acme.tracker(strict=True, on_violation=told.append)
    assert tracker.telemetry.recording is (level is not None)
    with pytest.raises(TelemetryViolation) as raised:
        tracker.track_now(name, version, properties, context)
    assert str(raised.value) == message
    assert list(raised.value.violations) == told
    with pytest.raises(TelemetryViolation):
        await tracker.track(name, version, properties, context)
    assert set(tracker.violations.values()) == {2}
    tracker.close()
    assert acme.frames() == []


class EndsWhenLookedUp:
    def __hash__(self) -> int:
        raise SystemExit("a secret")


VERSIONLESS: list[Any] = [Raises(), Ends(), EndsWhenLookedUp(), OfRaisingClass(), True, 10**400, "x" * 10**6]


@pytest.mark.parametrize("number", range(len(VERSIONLESS)))
def test_a_version_that_is_none_makes_an_event_unknown(acme: Acme, number: int) -> None:
    tracker, strict, version = acme.tracker(), acme.tracker(strict=True), VERSIONLESS[number]
    assert tracker.track_now("acme.gone", version, {}) is Result.UNKNOWN
    assert tracker.track_now("acme.gone", version, {}) is Result.UNKNOWN
    with pytest.raises(TelemetryViolation, match=r"^acme\.gone: version .*: found no such event"):
        strict.track_now("acme.gone", version, {})
    tracker.close()
    strict.close()


def test_strict_tells_all_that_is_wrong_at_once(acme: Acme) -> None:
    tracker = acme.tracker(strict=True)
    with pytest.raises(TelemetryViolation, match=r"(?s)a: found.*\n.*context.b: found.*\n.*plan: found nothing"):
        tracker.track_now("acme.signup", 1, {"a": 1}, {"b": 2})
    tracker.close()


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_strict_names_the_path_of_whatever_value(tmp_path: Path, number: int) -> None:
    acme, value = Acme(tmp_path, level=None), HOSTILE[number]
    tracker = acme.tracker(strict=True)
    with pytest.raises(TelemetryViolation) as raised:
        tracker.track_now("acme.signup", 1, {"plan": "free", "steps": value})
    (violation,) = raised.value.violations
    assert violation.path in ("steps", "steps[0]", "steps[1]")
    assert "secret" not in str(raised.value)


def test_strict_records_what_is_right(acme: Acme) -> None:
    tracker = acme.tracker(strict=True)
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.CAPTURED
    tracker.close()
    assert only(acme).own == {"plan": "free"}


def test_strict_on_violation_may_raise_what_it_likes(acme: Acme) -> None:
    def broken(violation: Violation) -> None:
        raise LookupError(violation.path)

    tracker = acme.tracker(strict=True, on_violation=broken)
    with pytest.raises(LookupError, match="plan"):
        tracker.track_now("acme.signup", 1, {})
    tracker.close()


def test_strict_where_a_person_said_nothing_writes_nothing(tmp_path: Path) -> None:
    acme = Acme(tmp_path, level=None)
    tracker = acme.tracker(strict=True)
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.WITHHELD
    tracker.close()
    assert list(tmp_path.rglob("*")) == []


def test_lenient_and_off_it_loads_nothing_and_writes_nothing(tmp_path: Path) -> None:
    """The spec is not even read; the modules that it takes are not imported."""
    spec = tmp_path / "acme.telemetry.toml"
    spec.write_text(SPEC)
    program = textwrap.dedent(f"""
        import asyncio, sys
        from cmdorc_telemetry import TelemetryTracker
        from cmdorc_telemetry.application import Application
        tracker = TelemetryTracker.start(Application("acme", "1", ({str(spec)!r},), home={str(tmp_path / "home")!r}))
        found = [tracker.track_now("acme.sigup", 1, {{"a": object()}}), tracker.emit("x", None, {{}}),
                 asyncio.run(tracker.track("y", 2, {{}}))]
        with tracker.operation("z"):
            pass
        tracker.flush(); tracker.close()
        print([each.name for each in found], dict(tracker.violations),
              [name for name in sys.modules if name.split(".")[:2] in (["cmdorc_telemetry", each] for each in
               ("capture", "journal", "recorder", "gate", "pipeline", "spool", "monitor"))])
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "['WITHHELD', 'WITHHELD', 'WITHHELD'] {} []\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["acme.telemetry.toml"]


# -- threads and children ----------------------------------------------------------------------------------------------


def test_a_signal_may_come_while_a_violation_is_counted(acme: Acme) -> None:
    """Its handler runs in the thread that is counting, and may track."""
    tracker, monitor = acme.tracker(), TelemetryAnomalyMonitor()

    def interrupted() -> None:
        with tracker._lock, monitor._lock:
            tracker.track_now("acme.signup", 1, {"plan": "free", "a": 1})
            monitor.observe(acme.spec.events[0], {"seconds": 1})

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert tracker.violations == {("acme.signup", "a", "undeclared"): 1}
    tracker.close()


def test_threads_may_share_a_tracker(acme: Acme) -> None:
    seen: list[object] = []
    monitor = TelemetryAnomalyMonitor(seen.append)
    tracker = acme.tracker(anomaly_monitor=monitor)
    begin = threading.Barrier(8)

    def work(number: int) -> list[Result]:
        begin.wait()
        return [tracker.track_now("acme.signup", 1, {"plan": "free", "seconds": each, "no": 1}) for each in range(200)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = [result for each in pool.map(work, range(8)) for result in each]
    finally:
        sys.setswitchinterval(before)
    assert set(results) == {Result.CAPTURED}
    assert tracker.violations == {("acme.signup", "no", "undeclared"): 1600}
    assert tracker.flush(20)
    tracker.close()
    with closing(Spool(acme.home.spool, reading=True)) as spool:
        assert spool.ledger()["history"].recorded == 1600


def test_whatever_is_asked_while_the_interpreter_ends_nobody_waits(tmp_path: Path) -> None:
    acme = Acme(tmp_path)
    program = textwrap.dedent(f"""
        import pathlib, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.acme import Acme, Keeper
        tracker = Acme(pathlib.Path({str(tmp_path)!r}), level=None).tracker(Keeper())
        tracker.track_now("acme.signup", 1, {{"plan": "free"}})
        class Last:
            def __del__(self, write=sys.stdout.write, flush=sys.stdout.flush):
                tracker.track_now("acme.signup", 1, {{"plan": "pro"}})
                tracker.close()
                write(str(tracker.flush(0.1)))
                flush()
        sys.modules["last"] = Last()  # it goes when Python empties the modules
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "False", "no thread begins any more: whoever waited for it would wait for ever"
    assert done.stderr == ""
    assert sorted(frame.own["plan"] for frame in acme.frames()) == ["free", "pro"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tracks_though_a_thread_of_the_parent_was_in_the_middle_of_it(tmp_path: Path) -> None:
    acme = Acme(tmp_path)
    program = textwrap.dedent(f"""
        import os, signal, sys, threading, pathlib
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.acme import Acme
        from cmdorc_telemetry import Result, TelemetryAnomalyMonitor
        acme = Acme(pathlib.Path({str(tmp_path)!r}), level=None)
        monitor = TelemetryAnomalyMonitor()
        tracker = acme.tracker(anomaly_monitor=monitor)
        tracker.track_now("acme.signup", 1, {{"plan": "free", "x": 1}})
        held = threading.Event()
        def hold():
            with tracker._lock, monitor._lock:
                held.set()
                threading.Event().wait()
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # one that hangs is not left behind
            result = tracker.track_now("acme.signup", 1, {{"plan": "pro", "x": 1}})
            counts = tracker.violations
            os._exit(0 if result is Result.CAPTURED and list(counts.values()) == [2] else 1)
        sys.stdout.write(str(os.waitpid(child, 0)[1])); sys.stdout.flush()
        os._exit(0)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout == "0"
    assert sorted(frame.own["plan"] for frame in acme.frames()) == ["free", "pro"]


# -- operations --------------------------------------------------------------------------------------------------------

OPERATIONS = """
[meta]
name = "acme.app"
[[events]]
name = "synced"
semantics = { what = "A sync that worked" }
properties.count = { type = "count", required = true }
properties.duration_ms = { type = "duration_ms" }
[[events]]
name = "failed"
semantics = { what = "A sync that failed" }
properties.error_class = { type = "string", pattern = "[A-Za-z]+", max_length = 50 }
[[operations]]
name = "acme.sync"
success = { event = "synced", properties = { count = "output.count" } }
failure = { event = "failed" }
"""


def test_an_operation_that_a_spec_declares_is_tracked(tmp_path: Path) -> None:
    acme = Acme(tmp_path, OPERATIONS)
    tracker = acme.tracker()

    @tracker.operation("acme.sync")
    def sync(count: int) -> dict[str, int]:
        if count < 0:
            raise LookupError
        return {"count": count}

    assert sync(5) == {"count": 5}
    with pytest.raises(LookupError):
        sync(-1)
    tracker.close()
    one, other = acme.frames()
    assert (one.event, one.own) == ("synced", {"count": 5, "duration_ms": one.own["duration_ms"]})
    assert (other.event, other.own) == ("failed", {"error_class": "LookupError"})
    assert tracker.violations == {}, "what fills itself is left out where it is not declared"


async def test_an_operation_may_be_declared_in_code(tmp_path: Path) -> None:
    acme = Acme(tmp_path, OPERATIONS)
    tracker = acme.tracker()
    told = Outcome(event="synced", properties={"count": "output"})
    async with tracker.operation("another", success=told, failure="failed") as running:
        running.output = 7
    tracker.close()
    assert only(acme).own["count"] == 7


def test_an_operation_that_nobody_declares(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    acme = Acme(tmp_path, OPERATIONS)
    lenient, strict = acme.tracker(), acme.tracker(strict=True)
    with caplog.at_level(logging.WARNING, "cmdorc_telemetry"), lenient.operation("acme.snyc"):
        pass
    assert "operation 'acme.snyc' is declared by no spec; expected success=, failure= or both" in caplog.text
    with pytest.raises(OperationError, match=r"'acme\.snyc' is declared by no spec"):
        strict.operation("acme.snyc")
    lenient.close()
    strict.close()
    assert acme.frames() == []


def test_an_operation_keeps_its_outcome_also_where_the_tracker_is_strict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acme = Acme(tmp_path, OPERATIONS)
    tracker = acme.tracker(strict=True)

    @tracker.operation("acme.sync")
    def sync() -> int:
        return 5

    with caplog.at_level(logging.WARNING, "cmdorc_telemetry"):
        assert sync() == 5
    assert "synced: count: found nothing; expected whole number, 0 or more" in caplog.text
    assert tracker.violations == {("synced", "count", "missing"): 1}
    assert tracker.emit("snced", None, {}) is Result.WITHHELD
    tracker.close()


def test_what_is_emitted_under_a_name_that_nobody_knows_is_counted(acme: Acme, tracker: TelemetryTracker) -> None:
    assert tracker.emit("acme.sync", None, {"a": 1}) is Result.UNKNOWN
    assert tracker.violations == {("acme.sync", "", "unknown"): 1}


# -- in one line, and the end ------------------------------------------------------------------------------------------


class Sender:
    """A provider in another project's form."""

    async def send(self, dispatch: object) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("source", "providers", "said"),
    [
        ("acme.telemetry.toml", (),
         "TelemetryTracker.start: found 'acme.telemetry.toml'; expected an Application, or a TelemetryRegistry"),
        (None, (Keeper(), Sender()),
         "TelemetryTracker.start: providers[1]: found Sender; expected a TelemetryReporter"),
    ],
)  # fmt: skip
def test_what_it_is_started_with_is_checked_at_once(tmp_path: Path, source: Any, providers: Any, said: str) -> None:
    acme = Acme(tmp_path)
    with pytest.raises(ConfigError) as raised:
        TelemetryTracker.start(source or acme.application, providers=providers, environ=acme.environ)
    assert str(raised.value) == said


def test_a_tracker_is_made_of_telemetry(tmp_path: Path) -> None:
    application: Any = Acme(tmp_path).application
    with pytest.raises(ConfigError, match=r"^TelemetryTracker: telemetry: found Application; expected a Telemetry: "):
        TelemetryTracker(application)


def test_of_a_bucket_it_says_that_numbers_are_right(tmp_path: Path) -> None:
    bucket = 'size = { type = "bucket", edges = [10, 100] }\nseconds ='
    tracker = Acme(tmp_path, SPEC.replace("seconds =", bucket, 1)).tracker(strict=True)
    assert tracker.track_now("acme.signup", 1, {"plan": "pro", "size": 12})
    with pytest.raises(TelemetryViolation, match="size: found str; expected a number, or its range: <10, 10-100, "):
        tracker.track_now("acme.signup", 1, {"plan": "pro", "size": "12"})
    tracker.close()


def test_a_registry_stands_for_an_application(tmp_path: Path) -> None:
    registry = TelemetryRegistry()
    spec = parse_toml(SPEC.replace('"acme.app"', '"acme.telemetry"'), "x")
    registry.register(spec, "here")
    environ = {"HOME": str(tmp_path), "ACME_TELEMETRY_HOME": str(tmp_path / "home")}
    tracker = TelemetryTracker.start(registry, environ=environ)
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.WITHHELD, "nobody said yes"
    home = Home.of(Application("acme", specs=(spec,)), environ)
    agree(home, spec=spec)
    tracker = TelemetryTracker.start(registry, environ=environ)
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.CAPTURED
    tracker.close()
    assert (home.root, home.application.name) == (tmp_path / "home", "acme")
    with pytest.raises(ConfigError):
        TelemetryTracker.start(TelemetryRegistry(), environ=environ)


def test_a_fault_of_telemetrys_own_is_logged(
    acme: Acme, tracker: TelemetryTracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **options: Any) -> Result:
        raise OSError("hunter2")

    monkeypatch.setattr(tracker.telemetry._recorder, "track", broken)
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.WITHHELD
    assert "an event could not be tracked: OSError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_the_end_is_telemetrys(acme: Acme) -> None:
    tracker = acme.tracker()
    assert tracker.track_now("acme.signup", 1, {"plan": "free"})
    assert tracker.flush(20)
    await tracker.aclose()
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.WITHHELD


# -- what expires ------------------------------------------------------------------------------------------------------

EXPIRING = """
[meta]
name = "acme.app"
[[events]]
name = "asked"
semantics = { what = "A question" }
properties.kept = { type = "count" }
properties.lost = { type = "count", expires = 2026-06-02 }
[[events]]
name = "gone"
expires = 2026-06-02
semantics = { what = "A farewell" }
properties.n = { type = "count" }
"""


def test_what_expires_is_not_recorded_from_that_day_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a program that runs at midnight."""
    midnight = datetime(2026, 6, 2, tzinfo=timezone.utc).timestamp()
    monkeypatch.setattr(clock, "wall", lambda: midnight - 1)
    acme = Acme(tmp_path, EXPIRING)
    tracker = acme.tracker()
    for now in (midnight - 1, midnight, midnight + 86_400):
        monkeypatch.setattr(clock, "wall", lambda now=now: now)
        assert tracker.track_now("asked", 1, {"kept": 1, "lost": 2}) is Result.CAPTURED
        assert tracker.track_now("gone", 1, {"n": 1}) is (Result.CAPTURED if now < midnight else Result.WITHHELD)
    tracker.close()
    assert [frame.own for frame in acme.frames()] == [{"kept": 1, "lost": 2}, {"n": 1}, {"kept": 1}, {"kept": 1}]
    assert tracker.violations == {("asked", "lost", "undeclared"): 2}


def test_the_loop_is_not_needed(acme: Acme, tracker: TelemetryTracker) -> None:
    assert asyncio.run(tracker.track("acme.signup", 1, {"plan": "free"})) is Result.CAPTURED
