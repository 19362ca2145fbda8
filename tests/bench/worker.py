"""One measurement of one subject, in this process alone: ``worker.py PROBE SUBJECT CONFIG PORT [N]``.

Prints one line of JSON. Imports at the top only what a bare interpreter has loaded anyway, since some probes
measure how long this process takes.
"""

from __future__ import annotations

import os
import sys

from subjects import CLIENTS, EVENT, OURS, Client, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BURSTS = 5


def _say(**found: Any) -> None:
    import json

    print(json.dumps(found), flush=True)


def _ranks(spent: list[float]) -> dict[str, float]:
    spent.sort()
    return {"p50": spent[len(spent) // 2], "p99": spent[len(spent) * 99 // 100]}


def _warm(client: Client) -> None:
    import gc

    client.capture()
    client.flush()
    gc.collect()


def burst(client: Client, n: int) -> None:
    """Microseconds of each call, a thousand in a row; everything is delivered between two bursts."""
    from time import perf_counter

    _warm(client)
    capture, spent = client.capture, []
    for _ in range(BURSTS):
        for _ in range(n):
            start = perf_counter()
            capture()
            spent.append((perf_counter() - start) * 1e6)
        client.flush()
    _say(**_ranks(spent))


def _pace(client: Client, n: int) -> list[float]:
    """Record ``n`` events, a thousand a second. The microseconds that each took."""
    from time import perf_counter, sleep

    spent, due = [], perf_counter()
    for _ in range(n):
        due += 0.001
        sleep(max(due - perf_counter(), 0))
        start = perf_counter()
        client.capture()
        spent.append((perf_counter() - start) * 1e6)
    return spent


def paced(client: Client, n: int) -> None:
    """Microseconds of each call, a thousand a second, while they are delivered."""
    _warm(client)
    _say(**_ranks(_pace(client, n)))


def beside(client: Client, n: int) -> None:
    """Per cent of calls over a millisecond, beside a thread of the host that never lets go of the interpreter."""
    from threading import Thread
    from time import perf_counter, sleep

    _warm(client)
    ending: list[bool] = []

    def busy() -> None:
        while not ending:
            pass

    thread = Thread(target=busy, daemon=True)
    thread.start()
    slow = 0
    for _ in range(n):
        sleep(0.001)
        start = perf_counter()
        client.capture()
        slow += perf_counter() - start > 0.001
    ending.append(True)
    thread.join()
    _say(share=100 * slow / n)


def _each(call: Callable[[], object], n: int) -> float:
    """Microseconds of a call beyond those of an empty one: the least of five loops."""
    from time import perf_counter

    def loop(each: Callable[[], object]) -> float:
        start = perf_counter()
        for _ in range(n):
            each()
        return (perf_counter() - start) * 1e6 / n

    empty = min(loop(lambda: None) for _ in range(5))
    return max(min(loop(call) for _ in range(5)) - empty, 0.0)


def disabled(name: str, config: str, port: int, n: int) -> None:
    """Microseconds of a call while telemetry is off. Of ours: of a hook, and of ``track``."""
    if name != OURS:
        _say(hook=_each(CLIENTS[name](port, config, enabled=False).capture, n))
        return
    import cmdorc

    from cmdorc_telemetry import Telemetry, instrument

    orchestrator = _orchestrator()
    executor = orchestrator._executor
    before = [dict(vars(thing)) for thing in (orchestrator, executor, cmdorc.RunResult)]
    instrument(orchestrator)
    same = before == [dict(vars(thing)) for thing in (orchestrator, executor, cmdorc.RunResult)]
    telemetry = Telemetry.start()
    hook = 0.0 if same else _each(lambda: telemetry.fire("cmdorc_completed", None), n)
    own = fields(1)
    _say(hook=hook, track=_each(lambda: telemetry.track(EVENT, own), n))


def cpu(client: Client, n: int) -> None:
    """CPU seconds of this process, user and system, from the first of ``n`` events until all are delivered."""
    import resource

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    _warm(client)
    pause = n if client.room is None else client.room // 2
    start = used()
    for number in range(1, n + 1):
        client.capture()
        if number % pause == 0:
            client.flush()
    client.flush()
    _say(seconds=(used() - start) * 100_000 / n)


def oneshot(client: Client, n: int) -> None:
    """A whole process with one event; timed from outside."""
    client.capture()
    client.end()


def flushed(client: Client, n: int) -> None:
    """The same, and the event is delivered before the process ends."""
    client.capture()
    client.flush()
    client.end()


def _orchestrator() -> Any:
    import cmdorc

    commands = [cmdorc.CommandConfig(name="True", command="true", triggers=[])]
    return cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=commands))


def imported(name: str, config: str, port: int, *, enabled: bool) -> None:
    """A whole process that imports cmdorc, and beyond that only makes the client; timed from outside."""
    orchestrator = _orchestrator()
    if name == OURS:
        from cmdorc_telemetry import instrument

        instrument(orchestrator)
    else:
        CLIENTS[name](port, config, enabled=enabled)


def runs(client: Client, n: int) -> None:
    """How many times as long a real cmdorc run of ``true`` takes where it is hooked: runs in turn, in one loop."""
    import asyncio
    from statistics import median
    from time import perf_counter

    async def one(orchestrator: Any) -> float:
        start = perf_counter()
        await (await orchestrator.run_command("True")).wait()
        while len(asyncio.all_tasks()) > 1:  # cmdorc's monitor of the run, and whatever hangs on it
            await asyncio.sleep(0)
        return (perf_counter() - start) * 1e3

    async def main() -> None:
        bare, hooked = _orchestrator(), _orchestrator()
        client.hook(hooked)
        ratios = []
        for number in range(-3, n):
            pair = (bare, hooked) if number % 2 else (hooked, bare)
            spent = {orchestrator: await one(orchestrator) for orchestrator in pair}
            if number >= 0:
                ratios.append(spent[hooked] / spent[bare])
        _say(ratio=median(ratios))
        for orchestrator in (bare, hooked):
            await orchestrator.shutdown()

    asyncio.run(main())


def lag(client: Client, n: int) -> None:
    """Milliseconds by which an asyncio loop is late, while it captures a thousand events a second."""
    import asyncio

    async def main() -> list[float]:
        loop, late = asyncio.get_running_loop(), []
        for _ in range(n):
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            late.append((loop.time() - due) * 1e3)
            client.capture()
        return late

    _warm(client)
    _say(**_ranks(asyncio.run(main())))


def ends(client: Client, n: int) -> None:
    """Record ``n`` events and end. Says when the program's own work was over."""
    from time import monotonic

    for _ in range(n):
        client.capture()
    _say(over=monotonic())
    client.end()


def ends_later(client: Client, n: int) -> None:
    """The same, a thousand events a second, and so with delivery at work."""
    from time import monotonic

    _pace(client, n)
    _say(over=monotonic())
    client.end()


def killed(client: Client, n: int) -> None:
    """Be killed right after the last event."""
    _pace(client, n)
    os.kill(os.getpid(), 9)


def forks(client: Client, n: int) -> None:
    """Half of the events are a forked child's, which ends as multiprocessing lets it."""
    from multiprocessing import get_context

    _pace(client, n // 2)
    child = get_context("fork").Process(target=_pace, args=(client, n - n // 2))
    child.start()
    child.join()
    client.end()


def deliver(client: Client, n: int) -> None:
    """The next process: nothing of its own, only what was left."""
    client.flush()


PROBES: dict[str, Callable[[Client, int], None]] = {
    "burst": burst, "paced": paced, "beside": beside, "cpu": cpu, "oneshot": oneshot, "flushed": flushed, "runs": runs,
    "lag": lag, "ends": ends, "ends_later": ends_later, "killed": killed, "forks": forks, "deliver": deliver,
}  # fmt: skip


def main() -> None:
    probe, name, config, port, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    if probe == "disabled":
        disabled(name, config, port, n)
    elif probe in ("import_on", "import_off"):
        imported(name, config, port, enabled=probe == "import_on")
    else:
        PROBES[probe](CLIENTS[name](port, config), n)


if __name__ == "__main__":
    main()
