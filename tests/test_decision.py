"""The decision as a running program follows it: what it covers, what is hidden, when it is no longer the one known."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cmdorc_telemetry import TelemetryLevel, clock
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.decision import Decision
from cmdorc_telemetry.declarations import declarations, new_grant
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, Shapes, TelemetryRegistry, load_spec
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics, TelemetrySpec

LEVEL = TelemetryLevel
SPEC = load_spec(CORE)
BODY = {
    "event": "command_completed", "os": "linux", "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
    "timestamp": "2026-11-22T03:00:00Z", "event_id": "01234567-89ab-7def-8123-456789abcdef", "spec": SPEC.ref,
    "level": "debug", "duration_ms": 5, "state": "success", "final": True, "manual": True, "chain_depth": 0,
    "hashed_command_name": "0123456789ab",
}  # fmt: skip
STORED = json.dumps(BODY, separators=(",", ":")).encode()


def dotted() -> TelemetrySpec:
    """A spec with dots in the names of its events and fields."""
    prop = Property(type="bool", level="minimal")
    event = Event(name="billing.paid", semantics=Semantics(what="w"), properties={"a.b": prop, "open": prop})
    other = Event(name="billing.sent", semantics=Semantics(what="w"), properties={"a.b": prop})
    return TelemetrySpec(meta=Meta(name="shop"), events=(event, other))


class Machine:
    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.environ = {"CMDORC_HOME": str(root)}
        root.mkdir()

    def agree(self, level: LEVEL, spec: TelemetrySpec = SPEC, *without: str) -> str:
        grant = new_grant(spec, level, datetime.fromtimestamp(clock.wall(), timezone.utc))
        fields = {name: text for name, text in declarations(spec).items() if name not in without}
        return save_decision(self.home, {spec.meta.name: grant._replace(fields=fields)}).generation

    def decision(self, *specs: TelemetrySpec) -> Decision:
        registry = TelemetryRegistry.with_core()
        for spec in specs:
            registry.register(spec, "test")
        made = Decision(Situation.read(self.environ), registry, Shapes(list(registry)))
        made.refresh()
        return made


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves the clock on, or back."""
    ahead, wall = [timedelta()], clock.wall
    monkeypatch.setattr(clock, "wall", lambda: wall() + ahead[0].total_seconds())

    def pass_time(time: timedelta) -> None:
        ahead[0] += time

    return pass_time


def left(decision: Decision, stamp: str) -> dict[str, object] | None:
    """What is left of a stored body."""
    cover = decision.cover_of(SPEC.ref, "command_completed", stamp)
    body = None if cover is None else cover(STORED)
    return None if body is None else json.loads(body)


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_that_nobody_agreed_to_are_hidden_in_their_event_alone(machine: Machine) -> None:
    spec = dotted()
    machine.agree(LEVEL.STANDARD)
    generation = machine.agree(LEVEL.STANDARD, spec, "billing.paid/a.b", "*/os")
    decision, stamp = machine.decision(spec), f"{generation}/standard"
    assert decision.hidden("shop@1", "billing.paid", stamp) == {"a.b", "os"}
    assert decision.hidden("shop@1", "billing.paid", stamp) == {"a.b", "os"}  # as remembered
    assert decision.hidden("shop@1", "billing.sent", stamp) == {"os"}
    assert decision.hidden(SPEC.ref, "command_completed", stamp) == frozenset()
    assert decision.hidden("unknown@1", "e", stamp) == frozenset()


def test_a_field_that_was_agreed_to_later_is_hidden_in_what_was_recorded_before(machine: Machine) -> None:
    before = machine.agree(LEVEL.STANDARD, SPEC, "command_completed/chain_depth")
    decision = machine.decision()
    after = machine.agree(LEVEL.STANDARD)
    decision.refresh()
    hidden = [decision.hidden(SPEC.ref, "command_completed", f"{each}/standard") for each in (before, after)]
    assert hidden == [{"chain_depth"}, frozenset()]
    found = [left(decision, f"{each}/standard") or {} for each in (before, after)]
    assert ["chain_depth" in each for each in found] == [False, True]


def test_a_hidden_field_goes_from_what_is_stored_also_at_its_own_level(machine: Machine) -> None:
    generation = machine.agree(LEVEL.DEBUG, SPEC, "command_completed/chain_depth", "*/os")
    found = left(machine.decision(), f"{generation}/debug")
    assert found == {name: value for name, value in BODY.items() if name not in ("chain_depth", "os")}


@pytest.mark.parametrize("name", ["event_id", "timestamp", "anonymous_install_id", "level", "spec", "event"])
def test_without_what_every_event_needs_nothing_is_left(machine: Machine, name: str) -> None:
    generation = machine.agree(LEVEL.DEBUG, SPEC, f"*/{name}")
    assert left(machine.decision(), f"{generation}/debug") is None


def test_an_operator_asks_nobody_and_where_nobody_decided_nothing_is_known(machine: Machine) -> None:
    assert not machine.decision().known
    machine.environ["CMDORC_TELEMETRY"] = "standard"
    decision = machine.decision()
    assert decision.known
    assert decision.hidden(SPEC.ref, "command_completed", "operator-standard/standard") == frozenset()
    found = left(decision, "operator-standard/standard")
    assert found is not None
    assert found["level"] == "standard"


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_what_is_covered_is_the_least_of_then_and_now(machine: Machine) -> None:
    first = machine.agree(LEVEL.DEBUG)
    decision = machine.decision()
    assert left(decision, f"{first}/debug") == BODY
    assert left(decision, "stranger/debug") is None
    machine.agree(LEVEL.MINIMAL)
    decision.refresh()
    found = left(decision, f"{first}/debug")
    assert found is not None
    assert found["level"] == "minimal"
    assert not {"chain_depth", "hashed_command_name"} & found.keys()
    save_decision(machine.home, {"cmdorc.core": Grant()})
    decision.refresh()
    assert decision.cover_of(SPEC.ref, "command_completed", f"{first}/debug") is None


def test_what_is_of_a_spec_that_is_not_known_here_stays_for_those_who_know_it(machine: Machine) -> None:
    machine.agree(LEVEL.STANDARD)
    generation = machine.agree(LEVEL.STANDARD, dotted())
    decision, stamp = machine.decision(), f"{generation}/standard"
    cover = decision.cover_of("shop@1", "billing.paid", stamp)
    assert cover is not None
    assert cover(b"whatever") == b"whatever"
    save_decision(machine.home, {"shop": Grant()})
    decision.refresh()
    assert decision.cover_of("shop@1", "billing.paid", stamp) is None
    assert decision.judge != machine.decision(dotted()).judge


def test_a_variable_lowers_what_is_sent_and_leaves_alone_what_is_stored(machine: Machine) -> None:
    generation = machine.agree(LEVEL.STANDARD)
    plain = machine.decision().digest
    machine.environ["CMDORC_TELEMETRY"] = "minimal"
    decision = machine.decision()
    assert decision.level_of(f"{generation}/standard", "cmdorc.core") == "minimal"
    found = left(decision, f"{generation}/standard")
    assert found is not None
    assert found["level"] == "standard"
    assert decision.digest == plain
    machine.environ["DO_NOT_TRACK"] = "1"
    assert machine.decision().digest == plain


@pytest.mark.parametrize("text", ['[telemetry]\nlevel = "minimal"\n', "[telemetry]\nenabled = false\n"])
def test_the_users_file_is_followed_like_a_decision(machine: Machine, text: str) -> None:
    generation = machine.agree(LEVEL.STANDARD)
    decision = machine.decision()
    before = decision.digest
    machine.home.config.write_text(text)
    assert not decision.settled
    assert decision.refresh()
    assert decision.settled
    assert decision.digest != before
    assert decision.level_of(f"{generation}/standard", "cmdorc.core") == ("minimal" if "level" in text else None)
    machine.home.config.unlink()
    decision.refresh()
    assert decision.digest == before


def test_an_operators_file_is_followed_too(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "operator.toml"
    file.write_text("[telemetry]\n")
    machine.environ["CMDORC_TELEMETRY_CONFIG"] = str(file)
    machine.agree(LEVEL.STANDARD)
    decision = machine.decision()
    assert not decision.refresh()
    file.write_text('[telemetry]\nlevel = "minimal"\n')
    assert decision.refresh()
    assert decision.policy.share is LEVEL.MINIMAL


# -- time --------------------------------------------------------------------------------------------------------------


def test_debug_ends_by_itself_for_what_is_stored_too(
    machine: Machine, pass_time: Callable[[timedelta], None]
) -> None:  # fmt: skip
    generation = machine.agree(LEVEL.DEBUG)
    decision = machine.decision()
    before = decision.digest
    pass_time(timedelta(days=29))
    assert decision.settled
    pass_time(timedelta(days=2))
    assert not decision.settled
    assert not decision.refresh()
    assert decision.settled
    assert decision.digest != before
    found = left(decision, f"{generation}/debug")
    assert found is not None
    assert (found["level"], "hashed_command_name" in found) == ("standard", False)


def test_a_second_yes_to_debug_is_none_to_what_the_first_that_expired_had_covered(
    machine: Machine, pass_time: Callable[[timedelta], None]
) -> None:  # fmt: skip
    first = machine.agree(LEVEL.DEBUG)
    pass_time(timedelta(days=31))
    second = machine.agree(LEVEL.DEBUG)
    decision = machine.decision()
    levels = [decision.level_of(f"{each}/debug", "cmdorc.core") for each in (first, second)]
    assert levels == ["standard", "debug"]


def test_a_decision_of_tomorrow_is_no_no(machine: Machine, pass_time: Callable[[timedelta], None]) -> None:
    machine.agree(LEVEL.STANDARD)
    decision = machine.decision()
    assert decision.known
    pass_time(timedelta(days=-2))
    decision.refresh()
    assert (decision.known, decision.policy.record) == (False, False)
    assert "nothing is recorded or sent until the clock is right" in decision.trouble


def test_a_consent_that_cannot_be_read_is_no_no_either(machine: Machine) -> None:
    machine.agree(LEVEL.STANDARD)
    decision = machine.decision()
    machine.home.consent.write_text("half a deci")
    assert decision.refresh()
    assert not decision.known
    assert "cannot be used" in decision.trouble


def test_a_decision_that_was_edited_is_read_again_although_its_time_was_set_back(machine: Machine) -> None:
    machine.agree(LEVEL.STANDARD)
    decision = machine.decision()
    consent, before = machine.home.consent, machine.home.consent.stat()
    said = consent.read_text()
    edited = said.replace("record = true\n", "record =false\n")
    assert len(edited) == len(said)
    assert edited != said
    consent.write_text(edited)
    os.utime(consent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert consent.stat().st_ino == before.st_ino
    assert decision.refresh()
    assert not decision.policy.record
