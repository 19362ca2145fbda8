"""After reset-id, no event has the old id under the new decision, whatever program recorded it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmdorc_telemetry import files

if TYPE_CHECKING:
    from .conftest import Machine


def until(*condition: object) -> None:
    from .conftest import until as really

    really(*condition)  # type: ignore[arg-type]


def test_running_programs_take_the_new_identity_with_the_new_generation(machine: Machine) -> None:
    machine.server.fail("refused")
    machine.decide("debug")
    files.private_dir(machine.home.locks)
    sender = files.FileLock(machine.home.locks / "history.lock")
    assert sender.acquire(wait=False)  # nobody else fills the history: everything stays in the spool
    programs = [machine.program(), machine.program()]
    for program in programs:
        program("forever()")
    pairs = {}
    for turn in range(3):
        pairs[machine.generation()] = machine.home.install_id.read_text().strip()
        until(lambda: machine.generation() in machine.identities(), "the import")
        if turn < 2:
            machine.command("reset-id", codes=(0, 1))
            for program in programs:
                machine.noticed(program)
    for program in programs:
        program.kill()
    machine.program().run(1)
    until(lambda: len(list(machine.home.journal.glob("*.seg"))) == 1, "the import of what they left")
    found = machine.identities()
    assert len(set(pairs.values())) == 3
    assert {generation: ids for generation, (ids, _) in found.items()} == {key: {pairs[key]} for key in pairs}
    hashes = [made for _, made in found.values()]
    assert all(len(made) == 1 for made in hashes), "a salt of one generation was used under another"
    assert len(set().union(*hashes)) == 3
    assert machine.got == {}
    sender.release()
