"""A machine where no process lives longer than a second: when do its events arrive, and who pays for that?

Processes run one after another, with the server up; each captures one to five events and ends by itself. Prints, for
programs with and without an event loop, and for those that all end before the telemetry thread would start, how long
events waited until the server had stored them, in seconds and in processes, and what the processes that delivered paid.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field, replace

from rig import Rig, rig, say, verdict

from cmdorc_telemetry.files import reading


@dataclass(frozen=True)
class Machine:
    """A kind of machine: for how long its processes live, and how."""

    name: str
    shortest: float
    longest: float
    loop: bool
    rule: tuple[str, ...] = ()
    """What differs from the start rule, as ``NAME=VALUE``."""


MACHINES = (
    Machine("50 to 900 ms, event loop", 0.05, 0.9, True),
    Machine("50 to 900 ms, no loop", 0.05, 0.9, False),
    Machine("50 to 450 ms, event loop", 0.05, 0.45, True),
    Machine("50 to 450 ms, no loop", 0.05, 0.45, False),
    Machine("10 to 150 ms, no loop", 0.01, 0.15, False),
)


@dataclass
class Measured:
    """What one machine showed. Times are in seconds."""

    captured: dict[int, tuple[float, int]] = field(default_factory=dict)
    """By number: when, and by the how-manieth process."""
    arrived: dict[int, float] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)
    """When each process was gone."""
    exits: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """From the last statement of a program to its end, by whether it sent something."""
    spent: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """CPU."""


def look(machine: Rig, measured: Measured, over: threading.Event) -> None:
    """Note when events are in the server's store."""
    count, last = 0, False
    while not last:
        last = over.wait(0.02)
        try:
            with closing(reading(machine.server.store)) as store:
                now, (found,) = time.time(), store.execute("SELECT count(*) FROM event").fetchone()
                if found != count:
                    count = found
                    for (body,) in store.execute("SELECT body FROM event"):
                        measured.arrived.setdefault(json.loads(body)["duration_ms"], now)
        except sqlite3.Error:  # being written this moment
            continue


def live(machine: Rig, kind: Machine, number: int, chance: random.Random, measured: Measured) -> None:
    """One process, from its start to its end."""
    slot = machine.slot()
    process = machine.run(slot, "live", chance.uniform(kind.shortest, kind.longest), chance.randint(1, 5),
                          "loop" if kind.loop else "plain", *kind.rule)  # fmt: skip
    assert process.stdout is not None
    lines = [line.split() for line in process.stdout]
    _, status, used = os.wait4(process.pid, 0)
    ended = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    machine.leave(process)
    assert process.returncode == 0, process.returncode
    *captures, (_, last) = lines
    measured.captured.update({int(serial): (float(moment), number) for serial, moment in captures})
    measured.ends.append(ended)
    sent = machine.tally[slot, "sent"] > 0
    measured.exits[sent].append(ended - float(last))
    measured.spent[sent].append(used.ru_utime + used.ru_stime)


def measure(
    kind: Machine, processes: int, chance: random.Random, *, until_sent: bool = False
) -> tuple[Measured, list[str]]:  # fmt: skip
    """Let them live one after another, or only until one of them has sent. What was measured, and what is wrong."""
    measured, over = Measured(), threading.Event()
    with rig(processes + 5) as machine:
        looking = threading.Thread(target=look, args=(machine, measured, over), daemon=True)
        looking.start()
        for number in range(processes):
            live(machine, kind, number, chance, measured)
            if until_sent and measured.exits[True]:
                break
        time.sleep(0.1)
        over.set()
        looking.join()
        ended = time.time()
        faults = [] if machine.deliver(60) else ["the next process could not deliver everything"]
        machine.server.end(signal.SIGTERM)
        faults += machine.faults(machine.reckon())
    report(kind, measured, ended)
    return measured, faults


def report(kind: Machine, measured: Measured, ended: float) -> None:
    """Print what was measured."""
    waits, processes = [], []
    for serial, moment in measured.arrived.items():
        began, number = measured.captured[serial]
        waits.append(moment - began)
        processes.append(sum(end < moment for end in measured.ends[number:]))
    left = [ended - began for serial, (began, _) in measured.captured.items() if serial not in measured.arrived]
    seconds = ended - min(measured.captured.values())[0]
    say(f"\n{', '.join((kind.name, *kind.rule))}: {len(measured.ends)} processes in {seconds:.0f} s")
    senders = len(measured.exits[True])
    say(f"  arrived meanwhile {len(waits)} of {len(measured.captured)} events, sent by {senders} processes")
    if waits:
        say(f"  waited            {_quantiles(waits, 1)} s; {_quantiles(processes, 0)} processes  (p50 p90 p99 most)")
    if left:
        say(f"  not yet arrived   {len(left)}, the oldest for {max(left):.0f} s")
    for sent, who in ((False, "others"), (True, "senders")):
        if measured.spent[sent]:
            exits, spent = ([1000 * each for each in of[sent]] for of in (measured.exits, measured.spent))
            say(f"  {who:8}          exit {_quantiles(exits, 0)} ms; CPU {_quantiles(spent, 0)} ms")


def _quantiles(values: list[float] | list[int], digits: int) -> str:
    at = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return " · ".join(f"{value:.{digits}f}" for value in (at[49], at[89], at[98], max(values)))


def run(processes: int, kinds: list[Machine], seed: int, *, until_sent: bool = False) -> list[str]:
    """Measure all kinds of machines. What is wrong."""
    faults = []
    for kind in kinds:
        _, wrong = measure(kind, processes, random.Random(seed), until_sent=until_sent)
        faults += [f"{kind.name}: {each}" for each in wrong]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--only", type=int, nargs="+", choices=range(len(MACHINES)), help="which kinds of machines")
    parser.add_argument("--rule", nargs="+", default=[], metavar="NAME=VALUE", help="another start rule, to compare")
    parser.add_argument("--until-sent", action="store_true", help="no more processes than it takes")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    say(f"seed        {given.seed}")
    kinds = [MACHINES[number] for number in given.only or range(len(MACHINES))]
    kinds = [replace(kind, rule=tuple(given.rule)) for kind in kinds]
    return verdict(lambda: run(given.processes, kinds, given.seed, until_sent=given.until_sent))


if __name__ == "__main__":
    sys.exit(main())
