"""SIGKILL at random moments: every event whose capture returned arrives at a real server once.

Several processes at a time capture on one home directory and deliver; each is killed, from outside or by itself in the
middle of an import or of a batch. Another process reads the ledger from disk all the while. The next process delivers
the rest. Prints what was captured, what arrived, what the server saw twice, and what is lost: nothing, or exit code 1.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from programs import WAYS
from rig import Rig, rig, say, until, verdict

AT_ONCE = 4
MOST_THREADS = 3
PATIENCE = 4.0
"""Seconds until a process that waits for a death of its own (others may hold the lock) is killed from outside."""
FAST, SLOW, BACKLOG = 0.001, 0.05, 20_000
"""Seconds between captures, and where more wait than the last: the bounds of the spool are no matter here."""
Victim = Callable[[Rig, random.Random], str]


def _capturing(machine: Rig, threads: int = 1) -> tuple[str, int, float]:
    return "capture", threads, FAST if machine.waiting() < BACKLOG else SLOW


def _outside(chance: random.Random, seconds: float, machine: Rig, *program: object, threads: int = 1) -> str:
    """Kill a process so many seconds after its first capture."""
    slot = machine.slot(threads)
    process = machine.run(slot, *program)
    begun = until(lambda: bool(machine.tally[slot, "returned"]) or process.poll() is not None, 30, 0.002)
    time.sleep(chance.uniform(0, seconds))
    code = machine.kill(process)
    return "" if begun and code == -signal.SIGKILL else f"{program} ended with {code}"


def young(machine: Rig, chance: random.Random) -> str:
    """Killed before it would start to deliver."""
    threads = chance.randint(1, MOST_THREADS)
    return _outside(chance, 0.1, machine, *_capturing(machine, threads), threads=threads)


def delivering(machine: Rig, chance: random.Random) -> str:
    """Killed when it may deliver."""
    threads = chance.randint(1, MOST_THREADS)
    return _outside(chance, 3, machine, *_capturing(machine, threads), threads=threads)


def orchestrating(machine: Rig, chance: random.Random) -> str:
    """A real orchestrator, killed among its forks."""
    return _outside(chance, 0.8, machine, "orchestrate")


def _inside(machine: Rig, chance: random.Random, death: str) -> str:
    process = machine.run(machine.slot(), "--death", death, chance.randrange(1 << 32), *_capturing(machine))
    until(lambda: process.poll() is not None, PATIENCE)
    code = machine.kill(process)
    return "" if code == -signal.SIGKILL else f"{death} ended with {code}"


def importing(machine: Rig, chance: random.Random) -> str:
    """Dies by itself in the middle of an import."""
    return _inside(machine, chance, "importing")


def sending(machine: Rig, chance: random.Random) -> str:
    """Dies by itself with a batch in flight, or its answer not entered yet."""
    return _inside(machine, chance, "sending")


def at_once(machine: Rig, count: int, way: str) -> str:
    """Many that die as soon as their one capture has returned."""
    process = machine.run(machine.slot(count), "once", count, way)
    machine.leave(process)
    return "" if process.returncode == 0 else f"a process that captures once, {way}, ended with {process.returncode}"


SHARES: dict[Victim, int] = {young: 69, delivering: 10, orchestrating: 4, importing: 9, sending: 8}
"""Of a hundred."""


def run(kills: int, once: int, seconds: float, seed: int) -> list[str]:
    """Kill ``kills`` processes, and ``once`` more right after each of the two ways to capture. What is wrong.

    No more is killed after so many ``seconds``: that is a failure.
    """
    chance = random.Random(seed)
    victims = chance.choices([*SHARES], [*SHARES.values()], k=kills)
    began, done = time.monotonic(), Counter[str]()
    with rig(MOST_THREADS * kills + 2 * once + 10) as machine:
        watcher = machine.run(machine.slot(), "look_on")

        def kill(victim: Victim, seed: int) -> str:
            if time.monotonic() - began > seconds:
                return "late"
            fault = victim(machine, random.Random(seed))
            done[victim.__name__] += 1
            return fault

        over = threading.Event()
        threading.Thread(target=_progress, args=(machine, done, kills, over), daemon=True).start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                ends = [pool.submit(kill, victim, chance.randrange(1 << 32)) for victim in victims]
                ends += [pool.submit(at_once, machine, once, way) for way in WAYS]
                faults = [fault for each in ends if (fault := each.result())]
            finally:  # also where somebody ends this
                pool.shutdown(cancel_futures=True)
        over.set()
        if late := faults.count("late"):
            faults = [fault for fault in faults if fault != "late"]
            faults.append(f"only {kills - late:,} of {kills:,} kills in {seconds:.0f} s")
        killed = time.monotonic() - began
        found, wrong, readings = machine.conclude(watcher, 120)
        faults += wrong
        sent, known = machine.tally.total("sent"), machine.tally.total("duplicates")
    lost = len(found.missing)
    fates = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    say(f"killed      {fates}, {AT_ONCE} at once; {once} right after each of {', '.join(WAYS)}")
    say(f"captured    {found.returned:,} whose capture returned, {found.unfinished:,} more cut off just after")
    say(f"arrived     {found.arrived:,}, and {found.others:,} of orchestrators")
    say(f"on the wire {sent:,} answered, {known:,} of them duplicates")
    say(f"ledger      {readings}")
    say(f"lost        {lost:,}")
    say(f"doubled     {len(found.doubled):,}")
    say(f"seconds     {killed:.0f} to kill, {time.monotonic() - began:.0f} in all")
    return faults


def _progress(machine: Rig, done: Counter[str], count: int, over: threading.Event) -> None:
    while not over.wait(10):
        captured = machine.tally.total("returned")
        say(f"… {done.total():,} of {count:,} killed, {captured:,} captured, {machine.waiting():,} waiting")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--once", type=int, default=200, help="more, right after a track(), and after a hook")
    parser.add_argument("--seconds", type=float, default=300, help="until it is given up")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    say(f"seed        {given.seed}")
    return verdict(lambda: run(given.kills, given.once, given.seconds, given.seed))


if __name__ == "__main__":
    sys.exit(main())
