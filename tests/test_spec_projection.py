"""Projection narrows and renames a body that the gate let out; it never widens it and never fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.spec import BASE, CORE, LEVELS, Level, Shapes, TelemetrySpec, load_spec, lower, project

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)

SPEC = load_spec(CORE)
SHAPES = Shapes([SPEC])
REF, NAME = "cmdorc.core@1", "command_completed"
BODY: dict[str, Any] = {
    "event": NAME,
    "os": "linux",
    "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
    "timestamp": "2026-11-22T03:00:00Z",
    "event_id": "01234567-89ab-7def-8123-456789abcdef",
    "spec": REF,
    "level": "debug",
    "duration_ms": 1200,
    "state": "success",
    "final": True,
    "manual": False,
    "timed_out": False,
    "hashed_command_name": "0123456789ab",
}
OWN = {name: LEVELS.index(SPEC.event(NAME).properties[name].level) for name in BODY if name not in BASE}  # type: ignore[union-attr]


def projected(body: object, *, event: str = NAME, shapes: Shapes = SHAPES, **options: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    result = project(shapes, REF, event, data, **options)
    return None if result is None else json.loads(result)


@pytest.mark.parametrize("level", LEVELS)
def test_a_destination_with_a_lower_level_gets_less(level: Level) -> None:
    left = projected(BODY, level=level)
    kept = {name for name in BODY if name in BASE or OWN[name] <= LEVELS.index(level)}
    assert left == {**{name: BODY[name] for name in kept}, "level": level}


def test_a_destination_with_a_higher_level_gets_the_same_bytes() -> None:
    body = json.dumps({**BODY, "level": "standard"}, indent=1).encode()
    for level in ("standard", "debug"):
        assert project(SHAPES, REF, NAME, body, level=level) is body
    assert project(SHAPES, REF, NAME, body) is body


def test_a_body_that_says_no_level_may_hold_anything() -> None:
    body = {name: value for name, value in BODY.items() if name != "level"}
    assert projected(body, level="debug") == body
    assert projected(body, level="standard") == projected(BODY, level="standard")


def test_where_nothing_of_its_own_remains_there_is_no_body() -> None:
    body = {**BODY, "event": "trigger_fired", "level": "standard"}
    assert projected(body, event="trigger_fired", level="minimal") is None
    assert projected(BODY, event="no such event", level="debug") is None
    assert projected(BODY, shapes=Shapes([]), level="debug") is None


@pytest.mark.parametrize("change", [{"state": "paused"}, {"level": "all"}, {"duration_ms": -1}, {"os": 5}])
def test_a_body_that_the_spec_no_longer_allows_is_held_back(change: dict[str, Any]) -> None:
    """It was written by an older version; delivery must go on with the next one."""
    assert projected({**BODY, **change}, level="minimal") is None


def test_a_private_body_is_as_it_is() -> None:
    body = {**BODY, "command_name": "Tests", "level": "whatever", "more": [1]}
    assert projected(body) == body


def test_fields_and_event_are_renamed() -> None:
    names = {NAME: "cmd_done", "duration_ms": "$duration", "os": "system", "event": "ignored", "absent": "x"}
    left = projected({**BODY, "level": "minimal"}, level="minimal", rename=names)
    expected = {names.get(name, name) if name != "event" else name: value for name, value in BODY.items()}
    assert left == {**expected, "event": "cmd_done", "level": "minimal"}
    assert "ignored" not in left
    assert projected(BODY, rename={"os": "system"})["event"] == NAME


def test_renaming_comes_after_narrowing() -> None:
    left = projected(BODY, level="minimal", rename={"hashed_command_name": "duration", "timed_out": "state"})
    assert "0123456789ab" not in left.values()
    assert left["state"] == "success"


levels = st.none() | st.sampled_from(LEVELS)


@many
@given(st.sets(st.sampled_from(sorted(OWN))), st.sampled_from(LEVELS), levels)
def test_projection_never_widens(names: set[str], had: Level, level: Level | None) -> None:
    own = {name: BODY[name] for name in names if OWN[name] <= LEVELS.index(had)}
    body = {**{name: value for name, value in BODY.items() if name in BASE}, **own, "level": had}
    left = projected(body, level=level)
    assert left.items() - {("level", lower(level or had, had))} <= body.items()
    assert all(OWN[name] <= LEVELS.index(level or had) for name in left if name in OWN)
    assert projected(left, level=level) == left


def test_what_waits_for_consent_does_not_come_back() -> None:
    withheld = {name: value for name, value in BODY.items() if name != "state"}
    assert "state" not in projected(withheld, level="minimal")


def test_names_that_are_no_identifiers_survive() -> None:
    table = {
        "meta": {"name": "acme.app"},
        "events": [
            {
                "name": "asked",
                "semantics": {"what": "x"},
                "properties": {
                    "$ai_model": {"type": "enum", "members": ["gpt"], "level": "minimal"},
                    "a.b-c": {"type": "count", "level": "standard"},
                },
            }
        ],
    }
    spec = decode(table, TelemetrySpec, "test")
    body = {"event": "asked", "spec": spec.ref, "level": "standard", "$ai_model": "gpt", "a.b-c": 3}
    left = project(Shapes([spec]), spec.ref, "asked", json.dumps(body).encode(), level="minimal")
    assert left is not None
    assert json.loads(left) == {"event": "asked", "spec": spec.ref, "level": "minimal", "$ai_model": "gpt"}


def test_the_level_that_a_body_says_as_the_gate_writes_it_changes_nothing_else() -> None:
    compact = json.dumps({**BODY, "level": "standard"}, separators=(",", ":")).encode()
    assert b'"level":"standard"' in compact
    for level in ("standard", "debug"):
        assert project(SHAPES, REF, NAME, compact, level=level) is compact
    lower_still = json.dumps({**BODY, "level": "minimal"}, separators=(",", ":")).encode()
    assert project(SHAPES, REF, "trigger_fired", lower_still, level="minimal") is None, "nothing of it is shared there"
    quoted = json.dumps({**BODY, "command_name": '"level":"minimal"'}, separators=(",", ":")).encode()
    assert projected(quoted, level="minimal")["level"] == "minimal"
    assert "hashed_command_name" not in projected(quoted, level="minimal")
