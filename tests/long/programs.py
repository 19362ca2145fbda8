"""The programs that the long tests run as processes of their own, and the tally in which they say how far they came.

The tally is a mapped file: what a process wrote there outlives its SIGKILL, and costs it no system call. A capture is
known by a serial number that travels as the duration, the one field that a shared body keeps exactly.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

SERIALS = 1 << 20
"""Serial numbers of one slot."""
_FIELDS = ("allowed", "returned", "sent", "duplicates")
_WORD = 8


class Tally:
    """A slot for each capturing thread: how many it may capture, and how many of its captures returned.

    What a process sent, and how much of that the server knew already, is in the slot of its first thread.
    """

    def __init__(self, path: Path, slots: int = 0) -> None:
        """``slots``: of a new file."""
        if slots:
            path.write_bytes(bytes(slots * len(_FIELDS) * _WORD))
        with path.open("r+b") as file:
            # One store a number: `struct.pack_into` clears its bytes before it writes them, and a process that is
            # killed, or looked at, between the two has counted nothing at all.
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def __getitem__(self, key: tuple[int, str]) -> int:
        slot, field = key
        return self._numbers[slot * len(_FIELDS) + _FIELDS.index(field)]

    def __setitem__(self, key: tuple[int, str], value: int) -> None:
        slot, field = key
        self._numbers[slot * len(_FIELDS) + _FIELDS.index(field)] = value

    def total(self, field: str) -> int:
        """The sum over all slots."""
        return sum(self._numbers[_FIELDS.index(field) :: len(_FIELDS)])

    def __len__(self) -> int:
        return len(self._numbers) // len(_FIELDS)


def serial(slot: int, number: int) -> int:
    """What the ``number``-th capture of a slot is known by; the first is 1."""
    return slot * SERIALS + number


def die() -> None:
    """SIGKILL, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


# -- capturing ------------------------------------------------------------------------------------------------------


def hooked(telemetry: Any, number: int) -> bool:
    """A lifecycle hook, as cmdorc's orchestrator fires it."""
    from cmdorc_telemetry.lifecycle import CompletedRun

    run = CompletedRun(run_id="r", command_name="c", state="failed", duration=number / 1000)
    telemetry.fire("cmdorc_completed", run)
    return True


def tracked(telemetry: Any, number: int) -> bool:
    """An event of the program's own."""
    properties = {"duration_ms": number, "state": "failed", "final": True, "manual": False}
    return bool(telemetry.track("command_completed", properties))


WAYS = {"hooked": hooked, "tracked": tracked}


def start() -> Any:
    """Telemetry that records; exit code 4 where it does not."""
    from cmdorc_telemetry import Telemetry
    from cmdorc_telemetry.application import CMDORC

    telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
    if not telemetry.recording:
        os._exit(4)
    return telemetry


def capture(tally: Tally, slot: int, threads: int = 1, pace: float = 0.0003) -> None:
    """Capture in several threads, in both ways in turn, until killed; exit code 3 where a capture is refused."""
    telemetry, parent = start(), os.getppid()

    def run(slot: int) -> None:
        number = 0
        while os.getppid() == parent:  # nobody is left behind
            if number >= tally[slot, "allowed"]:
                time.sleep(0.005)
                continue
            number += 1
            if not (hooked if number % 2 else tracked)(telemetry, serial(slot, number)):
                os._exit(3)
            tally[slot, "returned"] = number
            time.sleep(pace)

    for each in range(1, threads):
        threading.Thread(target=run, args=(slot + each,), daemon=True).start()
    run(slot)


def once(tally: Tally, slot: int, count: int, way: str) -> None:
    """Many processes one after another, each of which captures one event and dies when that has returned.

    They are forked with everything imported, and start telemetry themselves.
    """
    import cmdorc_telemetry.recorder  # noqa: F401

    for each in range(slot, slot + count):
        child = os.fork()
        if not child:
            if WAYS[way](start(), serial(each, 1)):
                die()
            os._exit(3)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -signal.SIGKILL:
            os._exit(code)
        tally[each, "returned"] = 1


def change_rule(rule: list[str]) -> None:
    """Replace constants of the start rule, wherever they are used: ``NAME=VALUE``."""
    if rule:
        from cmdorc_telemetry import pipeline, recorder

        for name, value in (each.split("=") for each in rule):
            users = [module for module in (recorder, pipeline) if hasattr(module, name)]
            assert users, name
            for module in users:
                setattr(module, name, float(value))


def live(tally: Tally, slot: int, seconds: float, count: int, *, loop: bool) -> None:
    """Live for so long, capture the first event at once, the last at the end, and say when; then end as programs do."""

    def record(number: int) -> None:
        if not tracked(telemetry, serial(slot, number)):
            os._exit(3)
        tally[slot, "returned"] = number
        print(serial(slot, number), time.time())

    async def main() -> None:
        for number in range(1, count + 1):
            if number > 1 or count == 1:
                await asyncio.sleep(seconds / max(count - 1, 1))
            record(number)

    telemetry = start()
    if loop:
        asyncio.run(main())
    else:  # the same, without a loop that delivery could be started from
        for number in range(1, count + 1):
            if number > 1 or count == 1:
                time.sleep(seconds / max(count - 1, 1))
            record(number)
    print(0, time.time(), flush=True)


def orchestrate(tally: Tally, slot: int) -> None:
    """An orchestrator of cmdorc's that runs commands, each a fork, until killed."""
    import cmdorc
    from msgspec import structs

    from cmdorc_telemetry import Telemetry, TelemetryOrchestrator

    fire, number = Telemetry.fire, 0

    def numbered(self: Telemetry, hook: str, record: Any) -> None:
        nonlocal number
        if hook != "cmdorc_completed":
            fire(self, hook, record)
            return
        number += 1
        fire(self, hook, structs.replace(record, duration=serial(slot, number) / 1000))
        tally[slot, "returned"] = number

    Telemetry.fire = numbered  # type: ignore[method-assign]

    async def main() -> None:
        command = cmdorc.CommandConfig(name="Secret name", command="true", triggers=["go"], max_concurrent=0)
        parent = os.getppid()
        async with TelemetryOrchestrator(cmdorc.RunnerConfig(commands=[command])) as orchestrator:
            while os.getppid() == parent:
                await orchestrator.trigger("go")
                await asyncio.sleep(0.005)

    asyncio.run(main())


# -- where a process dies by itself -----------------------------------------------------------------------------------


def die_sending(chance: random.Random) -> None:
    """Die with a batch in flight, or with its answer there and not entered yet."""
    from cmdorc_telemetry_http import HttpReporter

    report_batch = HttpReporter.report_batch

    @wraps(report_batch)
    async def fatal(self: HttpReporter, batch: Any) -> Any:
        if chance.random() < 0.5:
            threading.Timer(chance.uniform(0, 0.02), die).start()
        result = await report_batch(self, batch)
        die()
        return result

    HttpReporter.report_batch = fatal  # type: ignore[method-assign]


def die_importing(chance: random.Random) -> None:
    """Die before, in or after one of the steps of an import."""
    from cmdorc_telemetry.segment import Orphan
    from cmdorc_telemetry.spool import Spool

    steps = [(Orphan, "read"), (Orphan, "linked"), (Spool, "take_in"), (Orphan, "discard"), (Spool, "finish")]
    owner, name = chance.choice(steps)
    step, when = getattr(owner, name), chance.choice(("before", "in", "after"))

    @wraps(step)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        if when == "in":
            threading.Timer(chance.uniform(0, 0.003), die).start()
        result = step(*args, **kwargs)
        die()
        return result

    setattr(owner, name, fatal)


DEATHS: dict[str, Callable[[random.Random], None]] = {"sending": die_sending, "importing": die_importing}


# -- delivering and looking on ---------------------------------------------------------------------------------------


def count_answers(tally: Tally, slot: int) -> None:
    """Count what the server says of the events that this process sends."""
    from cmdorc_telemetry_http import HttpReporter

    report_batch = HttpReporter.report_batch

    @wraps(report_batch)
    async def counting(self: HttpReporter, batch: Any) -> Any:
        result = await report_batch(self, batch)
        known = [each.status for each in result.results or ()]
        tally[slot, "sent"] += len(known)
        tally[slot, "duplicates"] += known.count("duplicate")
        return result

    HttpReporter.report_batch = counting  # type: ignore[method-assign]


def deliver(tally: Tally, slot: int, seconds: float) -> None:
    """Be the next process, which sends everything; exit code 1 where something still waits."""
    telemetry = start()
    done = telemetry.flush(seconds)
    telemetry.close()
    sys.exit(not done)


def look_on(tally: Tally, slot: int) -> None:
    """Read the ledger from disk at random moments until standard input ends: is every count right at each of them?"""
    from cmdorc_telemetry.errors import StorageError
    from cmdorc_telemetry.home import Home
    from cmdorc_telemetry.spool import Spool

    home, chance = Home(Path(os.environ["CMDORC_HOME"])), random.Random()
    readings, before, spent = 0, {}, 0.0
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.wait(chance.uniform(0, 0.04) + 4 * spent):  # a backlog makes a reading dear
        began = time.monotonic()
        try:
            spool = Spool(home.spool, reading=True)
        except StorageError:  # not there yet
            continue
        try:
            ledgers = spool.ledger()
        except StorageError as fault:
            print(f"the ledger could not be read: {fault}", flush=True)
            continue
        finally:
            spool.close()
        readings, spent = readings + 1, time.monotonic() - began
        for name, each in ledgers.items():
            known = before.get(name, (0, 0))
            right = each.recorded == each.acknowledged + each.pending + sum(each.dropped.values())
            if not right or each.dropped or each.recorded < known[0] or each.acknowledged < known[1]:
                print(f"{name}: {each}, before {known}", flush=True)
            before[name] = each.recorded, each.acknowledged
    print(f"readings {readings}", flush=True)


def main() -> None:
    """``programs.py TALLY SLOT [--death NAME SEED] PROGRAM ARGUMENT…``"""
    tally, slot, rest = Tally(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3:]
    if rest[0] not in ("look_on", "once"):
        count_answers(tally, slot)
    if rest[0] == "--death":
        DEATHS[rest[1]](random.Random(int(rest[2])))
        rest = rest[3:]
    match rest:
        case ["capture", threads, pace]:
            capture(tally, slot, int(threads), float(pace))
        case ["live", seconds, count, loop, *rule]:
            change_rule(rule)
            live(tally, slot, float(seconds), int(count), loop=loop == "loop")
        case ["contain", pace]:
            if os.getpid() != 1:
                sys.exit("this is no container")
            capture(tally, slot, 1, float(pace))
        case ["once", count, way]:
            once(tally, slot, int(count), way)
        case ["orchestrate"]:
            orchestrate(tally, slot)
        case ["deliver", seconds]:
            deliver(tally, slot, float(seconds))
        case ["look_on"]:
            look_on(tally, slot)
        case _:
            sys.exit(f"no such program: {rest}")


if __name__ == "__main__":
    main()
