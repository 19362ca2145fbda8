"""After reset-id, no event has the old id under the new decision, whatever program recorded it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from cmdorc_telemetry import files
from cmdorc_telemetry.testing.messages import Answer, Request

from ..waiting import until

if TYPE_CHECKING:
    from .conftest import Machine


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


def test_nothing_on_the_wire_links_the_old_id_to_the_new_one(machine: Machine) -> None:
    asked = []

    def answer(request: Request) -> Answer:
        if request.path.endswith("/policy") and not asked:  # what nobody else is asked for
            asked.append(request.headers.get("If-None-Match"))
            policy = Answer.json({"sampling": 0.99999912345})
            return replace(policy, headers={**policy.headers, "ETag": '"only-you"'})
        return Answer(204) if request.method == "DELETE" else machine.server.receiver(request)

    machine.server.answer = answer
    machine.decide("standard")
    program = machine.program().run(1)
    assert program.flush()
    assert program.run(2).flush()
    old = machine.home.install_id.read_text().strip()
    assert b"0.99999912345" in machine.server.seen[-1].plain, "the share is told with each event"
    machine.command("reset-id")
    until(lambda: program.flush() and machine.noticed(program) is None, "the new decision")
    assert program.run(3).flush()
    posts = {number: [each for each in machine.server.seen if b'"duration_ms":%d,' % number in each.plain]
             for number in (2, 3)}  # fmt: skip
    (before,), (after,) = posts[2], posts[3]
    assert old.encode() in before.plain
    assert old.encode() not in after.plain
    assert before.peer != after.peer, "a connection is known again"
    assert b"0.99999912345" not in after.plain
    assert not [each for each in machine.server.seen if "only-you" in each.headers.get("If-None-Match", "")]


def test_what_a_session_is_summed_up_from_does_not_reach_back(machine: Machine) -> None:
    machine.decide("minimal")
    program = machine.program().run(1, 2, 3)
    assert program.flush()
    machine.decide("standard")
    until(lambda: program.flush() and machine.noticed(program, "debug") is None, "the new decision")
    program.run(4)
    program("!from cmdorc_telemetry.lifecycle import Session")
    program("!telemetry.fire('cmdorc_shutdown', Session(id='s', started_at=0.0))")
    assert program.flush()
    bodies = [json.loads(line) for each in machine.server.seen for line in each.plain.splitlines()]
    (stopped,) = [body for body in bodies if body["event"] == "orchestrator_stopped"]
    assert stopped["run_count"] == 1
