"""What was recorded under a decision is never sent as more than that decision allowed, or any since then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ..waiting import until

if TYPE_CHECKING:
    from .conftest import Machine, Program

STANDARD = {"chain_depth", "concurrent_runs", "timed_out"}


def with_waiting(machine: Machine, *numbers: int) -> Program:
    """A program whose events of those numbers wait in the spool for the server."""
    machine.decide("standard")
    program = machine.program()
    machine.server.fail("refused")
    program.run(*numbers)
    machine.waiting(*numbers)
    return program


def test_after_an_opt_out_a_running_program_sends_nothing_and_after_the_next_opt_in_nothing_from_before(
    machine: Machine,
) -> None:
    machine.command("opt-in", "--yes", "--level", "standard")
    program = machine.program().run(1, 2)
    assert program.flush()
    assert machine.levels() == {1: "standard", 2: "standard"}
    machine.server.fail("refused")
    program.run(3, 4)
    machine.waiting(3, 4)
    program.run(5)
    machine.command("opt-out", "--local-only")
    program.run(6)
    machine.server.fail(None)
    until(lambda: program("telemetry._recorder.pipeline.policy.record") == "False", "the no")
    assert not program.run(7).flush()
    machine.command("opt-in", "--yes", "--level", "standard")
    program.run(8).flush()
    after = machine.program().run(9)
    assert after.flush()
    for each in (program, after):
        each.end()
    last = machine.program().run(10)
    assert last.flush()
    assert set(machine.levels()) - {8} == {1, 2, 9, 10}


def test_a_lower_level_narrows_what_waits_in_a_running_program_and_a_higher_one_widens_nothing(
    machine: Machine,
) -> None:
    program = with_waiting(machine, 1, 2)
    assert {body["level"] for _, _, body in machine.stored().values() if body} == {"standard"}
    machine.decide("minimal")
    until(lambda: all(body and body["level"] == "minimal" for _, _, body in machine.stored().values()), "narrowing")
    assert not any(STANDARD & body.keys() for _, _, body in machine.stored().values() if body)
    machine.noticed(program)
    program.run(3)
    machine.decide("standard")
    machine.noticed(program)
    program.run(4)
    machine.server.fail(None)
    assert program.flush()
    assert machine.levels() == {1: "minimal", 2: "minimal", 3: "minimal", 4: "standard"}
    assert [body.keys() >= STANDARD for _, body in sorted(machine.got.items())] == [False, False, False, True]


def test_from_local_to_shared_nothing_from_before_is_sent(machine: Machine) -> None:
    machine.command("opt-in", "--yes", "--local")
    program = machine.program().run(1, 2)
    assert program.flush()
    program.run(3)
    machine.command("opt-in", "--yes", "--level", "standard")
    machine.noticed(program)
    program.run(4)
    program.flush()  # it was put together when nobody was sent to
    program.end()
    after = machine.program()
    after.run(5)
    assert after.flush()
    assert machine.got.keys() <= {4, 5}
    assert 5 in machine.got
    assert machine.history().keys() == {1, 2, 3, 4, 5}


def test_from_shared_to_local_what_waits_is_taken_back(machine: Machine) -> None:
    program = with_waiting(machine, 1, 2, 3)
    machine.decide("off")
    until(lambda: all(body is None for _, _, body in machine.stored().values()), "narrowing")
    machine.conserved()
    assert machine.ledger().dropped == {"withdrawn-consent": 3}
    machine.decide("standard")
    machine.noticed(program)
    machine.server.fail(None)
    program.run(4)
    program.flush()
    program.end()
    last = machine.program().run(5)
    assert last.flush()
    assert machine.got.keys() == {4, 5}


@pytest.mark.parametrize(
    ("first", "since", "level"),
    [
        ("standard", [], "standard"),
        ("standard", ["minimal"], "minimal"),
        ("standard", ["minimal", "standard"], "minimal"),
        ("minimal", ["standard"], "minimal"),
        ("off", ["standard"], None),
        ("standard", ["no", "standard"], None),
        ("standard", ["off", "standard"], None),
        ("standard", ["debug"], "standard"),
        ("debug", ["standard", "debug"], "standard"),
    ],
)
def test_what_a_killed_program_left_is_of_the_least_decision_since(
    machine: Machine, first: str, since: list[str], level: str | None
) -> None:
    machine.decide(first)
    machine.program(waits=1e9).run(1, 2).kill()
    assert machine.stored() == {}
    for decision in since:
        machine.decide(decision)
    program = machine.program().run(3)
    assert program.flush()
    levels = machine.levels()
    assert levels.pop(3) == (since or [first])[-1]
    assert levels == ({1: level, 2: level} if level else {})
    assert {number for number, body in machine.history().items() if body["command_name"] == "secret"} == {1, 2, 3}


def test_a_program_whose_own_configuration_lowers_is_not_widened_by_another_one(machine: Machine) -> None:
    machine.decide("standard")
    lowered = machine.program("config=TelemetryConfig(enabled=True, level=TelemetryLevel.MINIMAL)", waits=1e9).run(1)
    lowered.kill()
    silent = machine.program("config=TelemetryConfig(enabled=True, level=TelemetryLevel.OFF)").run(2)
    silent.end()
    program = machine.program().run(3)
    assert program.flush()
    assert machine.levels() == {1: "minimal", 3: "standard"}


def test_the_users_own_file_lowers_in_a_running_program(machine: Machine) -> None:
    program = with_waiting(machine, 1)
    machine.configure(more='level = "minimal"\n')
    until(lambda: (machine.stored()[1][2] or {}).get("level") == "minimal", "narrowing")
    machine.noticed(program, "minimal")
    machine.configure()
    machine.noticed(program, "debug")
    program.run(2)
    machine.server.fail(None)
    assert program.flush()
    assert machine.levels() == {1: "minimal", 2: "standard"}


def test_a_decision_that_cannot_be_read_just_now_ends_nothing(machine: Machine) -> None:
    program = with_waiting(machine, 1)
    consent = machine.home.consent.read_bytes()
    machine.home.consent.write_bytes(b"half a deci")
    until(lambda: program("telemetry._recorder.pipeline.policy.record") == "False", "closed")
    machine.server.fail(None)
    assert not program.run(2).flush()
    assert machine.got == {}
    machine.home.consent.write_bytes(consent)
    until(lambda: program("telemetry._recorder.pipeline.policy.record") == "True", "open again")
    program.run(3)
    until(program.flush, "delivery")
    assert machine.levels() == {1: "standard", 3: "standard"}
    assert machine.ledger().dropped == {}


SHOP = """
from cmdorc_telemetry import hookimpl
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics, TelemetrySpec

class Shop:
    @hookimpl
    def telemetry_specs(self):
        count = Property(type="count", required=True, level="minimal")
        event = Event(name="sold", semantics=Semantics(what="w"), properties={"duration_ms": count})
        return [TelemetrySpec(meta=Meta(name="shop"), events=(event,))]
"""


def test_a_no_to_one_spec_takes_back_what_is_of_that_spec(machine: Machine, tmp_path: object) -> None:
    (machine.home.root / "shop_plugin.py").write_text(SHOP)
    machine.environ["PYTHONPATH"] = str(machine.home.root)
    shop = 'plugins=[__import__("shop_plugin").Shop()]'
    machine.decide("standard")
    allow = "; ".join([
        "!from cmdorc_telemetry.consent import save_decision; from cmdorc_telemetry.declarations import new_grant",
        "import datetime, shop_plugin; spec = shop_plugin.Shop().telemetry_specs()[0]",
        'from cmdorc_telemetry.home import Home; from pathlib import Path',
        f'home = Home(Path({str(machine.home.root)!r}))',
        "save_decision(home, {'shop': new_grant(spec, TelemetryLevel.STANDARD, "
        "datetime.datetime.now(datetime.timezone.utc))})",
    ])  # fmt: skip
    machine.program()(allow)
    machine.server.fail("refused")
    program = machine.program(shop).run(1)
    assert program('bool(telemetry.track("sold", {"duration_ms": 1001}))') == "True"
    machine.waiting(1, 1001)
    assert all(body for _, _, body in machine.stored().values())
    machine.decide("no", spec="shop")
    until(lambda: machine.stored()[1001][2] is None, "narrowing")
    machine.server.fail(None)
    machine.noticed(program)
    assert program.run(2).flush()
    assert machine.levels() == {1: "standard", 2: "standard"}
    assert machine.ledger().dropped == {"withdrawn-consent": 1}
    assert json.dumps(machine.got).count("sold") == 0


def test_after_an_opt_out_nothing_stays_that_running_programs_record_until_they_hear_of_it(machine: Machine) -> None:
    machine.decide("standard")
    programs = [machine.program(), machine.program()]
    for program in programs:
        program("forever()")
    until(lambda: len(machine.got) > 1, "a report")
    machine.command("opt-out")
    for program in programs:
        until(lambda program=program: program("telemetry.pipeline.policy.record") == "False", "the no")
    until(lambda: not list(machine.home.journal.glob("*")), "the end of the journals")
