"""DEBUG ends by itself: in what is captured, in what is shared, and in what is stored to be shared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..waiting import until

if TYPE_CHECKING:
    from .conftest import Machine, Program

MONTH = 31 * 86_400


def hashed(body: dict[str, Any] | None) -> bool:
    return any(name.startswith("hashed_") for name in body or ())


def narrowed(machine: Machine) -> bool:
    return all(shared is None or (shared["level"] == "standard" and not hashed(shared))
               for _, _, shared in machine.stored().values())  # fmt: skip


def test_it_ends_in_a_program_that_is_running(machine: Machine) -> None:
    machine.decide("debug")
    machine.server.fail("refused")
    program = machine.program().run(1)
    machine.waiting(1)
    for seconds in (2.0, 8.0, 25.0):  # the first is enough, where the machine has time
        expires = time.time() + seconds
        machine.decide("debug", seconds=seconds)
        machine.noticed(program)
        program.run(2)
        until(lambda: 2 in machine.stored(), "the import")
        if hashed(machine.stored()[2][1]):
            break
    assert machine.stored()[2][0].startswith(f"{machine.generation()}/debug")
    until(lambda: time.time() > expires, "the expiry")
    until(lambda: narrowed(machine), "narrowing")
    program.run(3)
    until(lambda: 3 in machine.stored(), "the import")
    assert [hashed(machine.stored()[number][1]) for number in (1, 2, 3)] == [True, True, False]
    machine.server.fail(None)
    until(program.flush, "delivery")
    assert machine.levels() == {1: "standard", 2: "standard", 3: "standard"}
    assert not any(hashed(body) for body in machine.got.values())


def test_it_ends_when_the_clock_jumps_and_does_not_come_back_with_it(machine: Machine) -> None:
    machine.decide("debug", seconds=30 * 86_400)
    program = machine.program()
    machine.server.fail("refused")
    program.run(1)
    machine.waiting(1)
    assert hashed(machine.stored()[1][2])
    program(f"!ahead[0] = {MONTH}")
    until(lambda: narrowed(machine), "narrowing")
    program.run(2)
    until(lambda: machine.stored().keys() == {1, 2} or machine.history().keys() == {1, 2}, "the import")
    program("!ahead[0] = 0")
    program.run(3)
    machine.server.fail(None)
    until(program.flush, "delivery")
    assert {number: hashed(body) for number, body in machine.history().items()} == {1: True, 2: False, 3: False}
    assert not any(hashed(body) for body in machine.got.values())


def test_a_second_yes_does_not_bring_back_what_the_first_one_had_shared(machine: Machine) -> None:
    machine.decide("debug", seconds=1.0)
    left: Program = machine.program(waits=1e9).run(1)
    left.kill()
    began = time.time()
    until(lambda: time.time() > began + 1.0, "the expiry")
    machine.decide("debug")
    program = machine.program().run(2)
    until(program.flush, "delivery")
    assert machine.levels() == {1: "standard", 2: "debug"}
    assert {number: hashed(body) for number, body in machine.got.items()} == {1: False, 2: True}
