"""Several processes at one spool: one sends, a stopped one is taken over from, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Delivery, Destination, Worker
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, Gated, Row, View

NAME = "far"
LONG = 30.0
TAKE_OVER = 0.3
EVENTS = 6

SENDER = """
import asyncio, sys
from pathlib import Path
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool

class Slow(TelemetryReporter):
    async def report(self, event, payload): ...
    async def report_batch(self, batch):
        print("sending", len(batch.events), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

async def main(folder):
    spool = Spool(folder / "spool.db")
    to = Destination("far", Slow, lambda item: item.row.shared, timeout=60)
    worker = Worker(to, spool, folder / "locks", Bounds(batch_seconds=0, batch_events=2))
    await worker.drain()
    await worker.close()
    print("done", flush=True)
    spool.close()

asyncio.run(main(Path(sys.argv[1])))
"""


class Keeper(TelemetryReporter):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.inside = self.most = 0

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)  # the others get a chance to come in
        self.kept += [each.event_id for each in batch.events]
        self.inside -= 1
        return None


def opened(folder: Path) -> Spool:
    spool = Spool(folder / "spool.db")
    spool.register([View(name=NAME, identity="i")])
    return spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    (tmp_path / "locks").mkdir()
    rows = tuple(
        Row(spec="s@1", event="e", version=1, at=int(time.time()), generation="g", source="s",
            private=b"{}", shared=b'{"event_id":"%d"}' % number)
        for number in range(EVENTS)
    )  # fmt: skip
    with closing(opened(tmp_path)) as made:
        assert made.take_in("segment", Gated(rows=rows), before=0, after=9, drops={})
        yield made


def worker(spool: Spool, reporter: TelemetryReporter) -> Worker:
    to = Destination(NAME, lambda: reporter, lambda item: item.row.shared, timeout=0.1, trusted=True)
    return Worker(to, spool, spool.path.parent / "locks", Bounds(batch_seconds=0, batch_events=2), take_over=TAKE_OVER)


def counts(spool: Spool) -> tuple[int, int]:
    ledger = spool.ledger()[NAME]
    assert ledger.recorded == EVENTS == ledger.acknowledged + ledger.pending
    return ledger.acknowledged, ledger.pending


async def steps(worker: Worker, over: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not over():
        assert time.monotonic() < deadline, what
        wait = await worker.step()
        await asyncio.sleep(min(wait or 0, 0.02))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stopping a process is POSIX")
def test_a_stopped_sender_is_taken_over_from_and_may_go_on(spool: Spool, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SENDER, str(tmp_path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "sending 2\n"
        os.kill(process.pid, signal.SIGSTOP)
        keeper = Keeper()
        heir = worker(spool, keeper)
        start = time.monotonic()
        asyncio.run(steps(heir, lambda: keeper.kept, "the heir sends"))
        assert time.monotonic() - start > 0.1 + TAKE_OVER
        asyncio.run(steps(heir, lambda: not counts(spool)[1], "the heir sends all of it"))
        assert keeper.kept == [str(number) for number in range(EVENTS)]
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")  # its call returns: two events were accepted, twice
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"  # nothing is left for it
        assert counts(spool) == (EVENTS, 0)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


async def test_a_sender_that_gives_signs_is_left_to_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clock is set back and forth meanwhile: a sign is a change, whatever time it says."""
    keeper = Keeper()
    waiting = worker(spool, keeper)
    moments = [0.0, -86_400.0, 3_600.0, 0.5, 86_400.0]
    with FileLock(spool.path.parent / "locks" / f"{NAME}.lock"):
        start = time.monotonic()
        while time.monotonic() - start < 3 * (0.1 + TAKE_OVER):
            moments.append(moments.pop(0))
            monkeypatch.setattr(clock, "wall", lambda: time.time() + moments[0])
            assert spool.lease(NAME, clock.wall(), count=2) is not None
            assert await waiting.step() != 0
            await asyncio.sleep(0.01)
    assert keeper.kept == []
    monkeypatch.undo()
    await steps(waiting, lambda: not counts(spool)[1], "what waits is sent once the lock is free")
    assert keeper.kept == [str(number) for number in range(EVENTS)]


async def test_of_all_that_wait_one_takes_over(spool: Spool, tmp_path: Path) -> None:
    keeper = Keeper()
    spools = [opened(tmp_path) for _ in range(4)]
    waiting = [worker(each, keeper) for each in spools]
    try:
        with FileLock(tmp_path / "locks" / f"{NAME}.lock"):
            await asyncio.gather(*(steps(each, lambda: not counts(spool)[1], "all is sent") for each in waiting))
    finally:
        for each in spools:
            each.close()
    assert sorted(keeper.kept) == [str(number) for number in range(EVENTS)]
    assert keeper.most == 1


async def test_who_takes_over_is_not_joined_by_another(spool: Spool, tmp_path: Path) -> None:
    keeper = Keeper()
    waiting = worker(spool, keeper)
    heir = FileLock(tmp_path / "locks" / f"{NAME}.heir.lock")
    with FileLock(tmp_path / "locks" / f"{NAME}.lock"):
        with heir:
            start = time.monotonic()
            while time.monotonic() - start < 2 * (0.1 + TAKE_OVER):
                assert await waiting.step() != 0
                await asyncio.sleep(0.01)
            assert keeper.kept == []
        await steps(waiting, lambda: keeper.kept, "the next heir sends")


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", [True, False])
def test_a_batch_under_way_gets_a_moment_and_no_more(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    """One that is answered when the end has begun, within a moment that is long or short here."""
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread._LAST_BATCH_SECONDS", LONG if patient else 0.01)
    asked: list[bool] = []
    ending = threading.Event()

    class Slow(TelemetryReporter):
        async def report(self, event: str, payload: dict[str, Any]) -> None:
            asked.append(True)
            while not (patient and ending.is_set()):
                await asyncio.sleep(0.001)

    to = Destination(NAME, Slow, lambda item: item.row.shared, timeout=LONG)
    delivery = Delivery(lambda: opened(tmp_path), [to], lambda spool: True, tmp_path / "locks",
                        Bounds(batch_seconds=0, batch_events=1))  # fmt: skip
    delivery.start()
    deadline = time.monotonic() + LONG
    while not asked:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    delivery.stop(0)
    ending.set()
    assert delivery.stop(LONG)
    assert asked == [True]
    assert counts(spool) == ((1, EVENTS - 1) if patient else (0, EVENTS))
