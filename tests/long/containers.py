"""Two containers on one home directory: process ids say nothing there, locks decide.

Each is a pid namespace of its own, in which the capturing process is number 1; both deliver. One is killed, again and
again, and the other sends what it left; then it is the other's turn. Needs `unshare`, and user namespaces or root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time

from programs import SERIALS
from rig import Rig, rig, say, until, verdict

ROUNDS = 10
PATIENCE = 30.0
"""Seconds in which the other has to send what the killed one left."""
ALONE = ("--pid", "--fork", "--kill-child", "--mount-proc")


def container() -> tuple[str, ...] | None:
    """The command that starts another one in a pid namespace; None where this machine does not let us."""
    unshare = shutil.which("unshare")
    for more in ((), ("--user", "--map-root-user")):
        command = (str(unshare), *more, *ALONE)
        asked = [*command, "sh", "-c", "echo $$"]
        if unshare and subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "1\n":
            return command
    return None


def run(rounds: int, seed: int) -> list[str]:
    """Kill one of two containers, so many times. What is wrong."""
    before = container()
    if before is None:
        say("no pid namespaces here: neither as root nor in a user namespace does `unshare --pid` work")
        return ["skipped, which is a failure in CI"] if os.environ.get("CI") else []
    chance, began = random.Random(seed), time.monotonic()
    faults: list[str] = []
    waits: list[float] = []
    with rig(2 * rounds + 10) as machine:
        tally = machine.tally

        def begin() -> tuple[int, subprocess.Popen[str]]:
            slot = machine.slot()
            process = machine.run(slot, "contain", 0.001, before=before)
            if not until(lambda: tally[slot, "returned"] > 0, 30):
                raise SystemExit(f"a container did not begin: {machine.leave(process)}")
            return slot, process

        watcher = machine.run(machine.slot(), "look_on")
        pair = [begin(), begin()]
        for number in range(rounds):
            time.sleep(chance.uniform(0.8, 2))  # both are old enough to deliver
            machine.kill(pair.pop(0)[1])
            killed, (other, _) = time.monotonic(), pair[0]
            tally[other, "allowed"] = 0  # it only delivers now, so that what the killed one left can be told
            if until(lambda: _acknowledged(machine) >= tally.total("returned"), PATIENCE, 0.05):
                waits.append(time.monotonic() - killed)
            else:
                faults.append(f"round {number}: {tally.total('returned') - _acknowledged(machine)} were not taken over")
            tally[other, "allowed"] = SERIALS - 1
            pair.append(begin())
        for _, process in pair:
            machine.kill(process)
        found, wrong, readings = machine.conclude(watcher, 60)
        faults += wrong
        known = tally.total("duplicates")
    say(f"killed      {rounds} containers, each with process 1, the other of two went on")
    say(f"taken over  after {min(waits, default=0):.1f} to {max(waits, default=0):.1f} s")
    say(f"captured    {found.returned:,}, arrived {found.arrived:,}, {known:,} duplicates on the wire")
    say(f"ledger      {readings}")
    say(f"lost        {len(found.missing):,}")
    say(f"doubled     {len(found.doubled):,}")
    say(f"seconds     {time.monotonic() - began:.0f}")
    return faults


def _acknowledged(machine: Rig) -> int:
    http = machine.ledger().get("http")
    return http.acknowledged if http else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    say(f"seed        {given.seed}")
    return verdict(lambda: run(given.rounds, given.seed))


if __name__ == "__main__":
    sys.exit(main())
