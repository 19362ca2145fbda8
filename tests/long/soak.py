"""A million events over eight processes, with random kills and a flapping server: nothing is lost, nothing grows.

Half of the processes live as long as the test does, half are killed again and again. The server is killed, stays away
for a while, or hangs. The load follows the backlog, so that no bound is ever reached and nothing may be dropped. At the
end the ledger, what the server stored and the tally of the processes agree; meanwhile the memory, open files and
threads of the long-lived, and the files of the home directory, stay flat. Ends by itself, as a failure, where it does
not come that far in time.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from rig import Rig, rig, say, verdict

STEADY = MORTAL = 4
PACES = (0.0002, 0.0002, 0.0002, 0.02)
"""Seconds between the captures of a process: most of them fill segments, some are read from the same one many times."""
AHEAD_SECONDS = 0.3
"""For how long a process may capture before it is allowed more."""
BACKLOG = 40_000
"""Events that may wait to be delivered before the load is held back."""
TICK = 0.25
ENOUGH = 120
"""Samples from which on it can be said what is flat."""


@dataclass
class Samples:
    """What was measured, sample by sample, by what it is of."""

    values: dict[str, list[float]] = field(default_factory=dict)
    creeping: dict[str, tuple[float, float]] = field(default_factory=dict)
    """What is of a process: by which factor, and how much beyond that, its median may move."""

    def add(self, what: str, value: float) -> None:
        """One more value."""
        self.values.setdefault(what, []).append(value)

    def of_process(self, name: str, pid: int) -> None:
        """Memory that is its own, open files and threads of a process."""
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        for what, value, margin in (
            ("MiB", int(status["VmRSS"].split()[0]) / 1024, (1.05, 3)),
            ("threads", int(status["Threads"]), (1, 1)),
            ("open files", len(os.listdir(f"/proc/{pid}/fd")), (1, 3)),
        ):
            self.add(f"{name} {what}", value)
            self.creeping[f"{name} {what}"] = margin

    def of_home(self, machine: Rig) -> None:
        """Number and size of what telemetry keeps. The history grows by design: it is not among it."""
        home, found = machine.home, Counter[str]()
        there = [folder for folder in (home.telemetry, home.journal, home.locks) if folder.exists()]
        for entry in [entry for folder in there for entry in os.scandir(folder)]:
            if not entry.name.startswith(home.history.name) and entry.is_file():
                found["files"] += 1
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:  # imported this moment
                    continue
                found["MiB"] += size
                found["spool MiB"] += size * (entry.name == home.spool.name)
                found["wal MiB"] += size * (entry.name == f"{home.spool.name}-wal")
                found["segments"] += entry.name.endswith(".seg")
        for what in ("files", "segments"):
            self.add(f"home {what}", found[what])
        for what in ("MiB", "spool MiB", "wal MiB"):
            self.add(f"home {what}", found[what] / (1 << 20))

    def growing(self) -> list[str]:
        """What was larger in the last third than in the middle one, the first being for warming up."""
        faults = []
        for what, values in self.values.items():
            third = len(values) // 3
            middle, last = sorted(values[third : 2 * third]), sorted(values[2 * third :])
            # What a process has creeps; the files swing with the backlog, so that there peaks count.
            was, now = (statistics.median(each) if what in self.creeping else each[-1] for each in (middle, last))
            factor, more = self.creeping.get(what, (1.1, 8))
            if now > was * factor + more:
                faults.append(f"{what} grew: {was:.1f} in the middle third, {now:.1f} in the last")
        return faults

    def table(self) -> None:
        """Print the middle of each third."""
        say(f"\n{'':24}{'first':>9}{'middle':>9}{'last':>9}{'most':>9}   median of each third")
        for what, values in self.values.items():
            third = max(len(values) // 3, 1)
            thirds = values[:third], values[third : 2 * third] or values, values[2 * third :] or values
            say(f"{what:24}{''.join(f'{statistics.median(each):>9.1f}' for each in thirds)}{max(values):>9.1f}")


class Soak:
    """The processes, what they may do, and what befalls them and the server."""

    def __init__(self, machine: Rig, events: int, chance: random.Random) -> None:
        self.machine, self.events, self.chance = machine, events, chance
        self.slots: list[int] = []
        self.running: list[subprocess.Popen[str]] = []
        self.killed, self.faults = Counter[str](), list[str]()
        self.samples = Samples()
        self._granted = 0
        self._next_kill = self._next_turn = 0.0
        self._server = self._server_runs

    def begin(self) -> None:
        """Start all processes. The first of them are not killed."""
        for _ in range(STEADY + MORTAL):
            self.slots.append(-1)
            self.running.append(self._capturing(len(self.slots) - 1))
        now = time.monotonic()
        self._next_kill, self._next_turn = now + 2, now + self.chance.uniform(3, 6)

    def _capturing(self, place: int) -> subprocess.Popen[str]:
        self.slots[place] = self.machine.slot(allowed=0)
        return self.machine.run(self.slots[place], "capture", 1, PACES[place % len(PACES)])

    def grant(self, waiting: int) -> None:
        """Allow more events where not too many wait."""
        tally = self.machine.tally
        for place, slot in enumerate(self.slots) if waiting < BACKLOG else ():
            ahead = int(AHEAD_SECONDS / PACES[place % len(PACES)])
            more = min(tally[slot, "returned"] + ahead - tally[slot, "allowed"], self.events - self._granted)
            if more > 0:
                tally[slot, "allowed"] += more
                self._granted += more

    def befall(self, now: float) -> None:
        """Kill a process, or do something to the server, where it is time."""
        if now >= self._next_kill:
            self._next_kill = now + self.chance.uniform(0.5, 2.0)
            place = self.chance.randrange(STEADY, STEADY + MORTAL)
            code, slot = self.machine.kill(self.running[place]), self.slots[place]
            if code != -signal.SIGKILL:
                self.faults.append(f"a process ended by itself with {code}")
            self.killed["processes"] += 1
            # What it was allowed and did not do is for others.
            tally = self.machine.tally
            self._granted -= tally[slot, "allowed"] - tally[slot, "returned"]
            self.running[place] = self._capturing(place)
        if now >= self._next_turn:
            self._next_turn = now + self._server(now)

    def _server_runs(self, now: float) -> float:
        server = self.machine.server
        what = self.chance.choices(("killed", "away", "hanging"), (5, 3, 2))[0]
        self.killed[f"server {what}"] += 1
        if what == "hanging":
            server.tell(signal.SIGSTOP)
            self._server = self._server_hangs
            return self.chance.uniform(0.5, 3)
        server.end(signal.SIGKILL)
        self._server = self._server_is_away
        return 0 if what == "killed" else self.chance.uniform(1, 5)

    def _server_hangs(self, now: float) -> float:
        self.machine.server.tell(signal.SIGCONT)
        self._server = self._server_runs
        return self.chance.uniform(4, 12)

    def _server_is_away(self, now: float) -> float:
        self.machine.server.start()
        self._server = self._server_runs
        return self.chance.uniform(4, 12)

    def calm(self) -> None:
        """Let the server run, and the processes go."""
        if self._server != self._server_runs:
            self._server(0)
        for place, process in enumerate(self.running):
            code = self.machine.kill(process)
            if code != -signal.SIGKILL:
                self.faults.append(f"process {place} ended by itself with {code}")

    def sample(self) -> None:
        """Measure what is to stay flat."""
        for place in range(STEADY):
            if self.running[place].poll() is not None:
                raise SystemExit(f"a long-lived process ended by itself with {self.running[place].returncode}")
            self.samples.of_process(f"process {place}", self.running[place].pid)
        self.samples.of_home(self.machine)

    def line(self, seconds: float, waiting: int) -> str:
        """How far it is."""
        captured, memory = self.machine.tally.total("returned"), self.samples.values.get("process 0 MiB", [0])
        fate = ", ".join(f"{count} {what}" for what, count in sorted(self.killed.items()))
        return f"… {seconds:4.0f} s  captured {captured:>9,}  waiting {waiting:>6,}  {memory[-1]:.0f} MiB  {fate}"


def run(events: int, seconds: float, seed: int) -> list[str]:
    """Let ``events`` happen, in so many seconds at most. What is wrong."""
    began = time.monotonic()
    with rig(1 + STEADY + MORTAL + 4 * int(seconds) + 10) as machine:
        watcher = machine.run(machine.slot(), "look_on")
        soak = Soak(machine, events, random.Random(seed))
        soak.begin()
        told = looked = began
        while machine.tally.total("returned") < events and time.monotonic() - began < seconds:
            time.sleep(TICK)
            now = time.monotonic()
            if now - looked >= 1:
                looked = now
                soak.sample()
            waiting = machine.waiting()
            soak.grant(waiting)
            soak.befall(now)
            if now - told >= 10:
                told = now
                say(soak.line(now - began, waiting))
        faults = soak.faults
        soak.calm()
        captured = machine.tally.total("returned")
        if captured < events:
            faults.append(f"only {captured:,} of {events:,} events in {seconds:.0f} s")
        found, wrong, readings = machine.conclude(watcher, 120)
        faults += wrong
        sent, known = machine.tally.total("sent"), machine.tally.total("duplicates")
        spent = time.monotonic() - began
    soak.samples.table()
    if len(next(iter(soak.samples.values.values()), [])) >= ENOUGH:
        faults += soak.samples.growing()
    else:
        say("too short to say what is flat")
    say(f"\ncaptured    {found.returned:,} whose capture returned, {found.unfinished:,} more cut off just after")
    say(f"arrived     {found.arrived:,}")
    say(f"befell      {', '.join(f'{count} {what}' for what, count in sorted(soak.killed.items()))}")
    say(f"on the wire {sent:,} answered, {known:,} of them duplicates")
    say(f"ledger      {readings}")
    say(f"lost        {len(found.missing):,}")
    say(f"doubled     {len(found.doubled):,}")
    say(f"seconds     {spent:.0f}, {found.arrived / spent:,.0f} events a second")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=420, help="until it is given up")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    say(f"seed        {given.seed}")
    return verdict(lambda: run(given.events, given.seconds, given.seed))


if __name__ == "__main__":
    sys.exit(main())
