"""A reporter that blocks, ends, or meddles affects itself alone: not the others, not the import, not the exit."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Delivery, Destination, cell
from cmdorc_telemetry.delivery.cell import ERRANDS, BlockedError, Cell
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, Gated, Ledger, Row, View

from .agreement import agree
from .waiting import LONG, until


def living(name: str = "telemetry") -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(name)]


@pytest.fixture(autouse=True)
def quickly_taken_for_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cell, "GRACE_SECONDS", 0.05)
    yield
    until(lambda: not living(), "all threads end")


class Keeper(TelemetryReporter):
    """Keeps the ids of what it got, and where it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.threads: list[str] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.threads.append(threading.current_thread().name)
        self.kept += [each.event_id for each in batch.events]
        return None


class Blocker(Keeper):
    """Blocks its thread in one of its methods, until it is let go."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.let_go, self.inside = where, threading.Event(), threading.Event()

    def block(self, where: str) -> None:
        if where == self.where and not self.let_go.is_set():
            self.inside.set()
            self.let_go.wait(LONG)

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.block("report")
        self.encode(batch)
        return await super().report_batch(batch)

    def encode(self, batch: Batch) -> bytes:
        self.block("encode")
        return b""

    async def close(self) -> None:
        self.block("close")


class World:
    """A telemetry thread on a spool of its own, and what tests put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deliveries: list[Delivery] = []
        self.pumped_on: set[str] = set()
        self._lock, self._news, self._offset = threading.Lock(), list[str](), 0
        self.names: list[str] = []

    def opened(self) -> Spool:
        spool = Spool(self.folder / "spool.db")
        spool.register([View(name=name, identity="i") for name in self.names])
        return spool

    def put(self, *keys: str) -> None:
        with self._lock:
            self._news += keys
        for delivery in self.deliveries:
            if delivery.asleep:
                delivery.wake()

    def pump(self, spool: Spool) -> bool:
        self.pumped_on.add(threading.current_thread().name)
        with self._lock:
            keys, self._news = self._news, []
        if keys:
            rows = tuple(
                Row(spec="s@1", event="e", version=1, at=int(time.time()), generation="g", source="here",
                    private=b"{}", shared=json.dumps({"event_id": key}).encode())
                for key in keys
            )  # fmt: skip
            assert spool.take_in("segment", Gated(rows=rows), before=self._offset, after=self._offset + 1, drops={})
            self._offset += 1
        return True

    def delivery(self, **reporters: TelemetryReporter | Callable[[], TelemetryReporter]) -> Delivery:
        return self.delivering([self.to(name, each) for name, each in reporters.items()])

    def to(self, name: str, reporter: TelemetryReporter | Callable[[], TelemetryReporter], **more: Any) -> Destination:
        make = (lambda: reporter) if isinstance(reporter, TelemetryReporter) else reporter
        more.setdefault("timeout", 0.1)
        return Destination(name, make, lambda item: item.row.shared, **more)

    def delivering(self, destinations: list[Destination], **bounds: int) -> Delivery:
        self.names = [each.name for each in destinations]
        made = Delivery(self.opened, destinations, self.pump, self.folder / "locks", Bounds(batch_seconds=0, **bounds))
        self.deliveries.append(made)
        return made

    def ledger(self, name: str) -> Ledger:
        with closing(Spool(self.folder / "spool.db")) as spool:
            found = spool.ledger()[name]
        assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for each in made.deliveries:
        assert each.stop(LONG)


@pytest.fixture
def blocker(request: pytest.FixtureRequest, world: World) -> Iterator[Blocker]:  # let go before the world ends
    made = Blocker(getattr(request, "param", "report"))
    yield made
    made.let_go.set()


def making(blocker: Blocker) -> TelemetryReporter:
    blocker.block("make")
    return blocker


# -- one that blocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocker", ["make", "report", "encode"], indirect=True)
def test_one_that_blocks_holds_up_neither_the_others_nor_the_import(
    world: World, blocker: Blocker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    keeper = Keeper()
    delivery = world.delivery(bad=lambda: making(blocker), good=keeper)
    for key in ("a", "b", "c"):
        world.put(key)
        assert not delivery.flush(LONG)
        assert keeper.kept[-1] == key
    until(lambda: world.ledger("bad").failures, "the failure is entered")
    assert (world.ledger("good").acknowledged, world.ledger("good").pending) == (3, 0)
    bad = world.ledger("bad")
    assert (bad.acknowledged, bad.pending) == (0, 3)
    assert bad.last_error == "it blocks its thread: no answer in 0.1 s"
    assert bad.failures == 1  # asked once, and not again while it blocks
    assert len(living("telemetry-bad")) == 1
    assert caplog.messages == ["the reporter of 'bad' blocks its thread, and is left alone until that comes back"]


def test_one_that_comes_back_is_used_again(world: World, blocker: Blocker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    delivery = world.delivery(bad=blocker)
    world.put("a")
    assert not delivery.flush(LONG)
    assert not delivery.flush(LONG)
    assert world.ledger("bad").failures == 1
    blocker.let_go.set()
    until(lambda: blocker.kept, "the late end of the first call")
    until(lambda: delivery.flush(LONG), "what waited is sent")
    assert set(blocker.kept) == {"a"}  # what came too late was sent again: a receiver tells by the id
    assert world.ledger("bad").acknowledged == 1
    assert set(blocker.threads) == {"telemetry-bad"}
    blocker.let_go.clear()
    world.put("b")
    assert not delivery.flush(LONG)
    assert world.ledger("bad").failures == 1
    assert len(caplog.messages) == 1  # said once
    assert len(living("telemetry-bad")) == 1


@pytest.mark.parametrize("blocker", ["close", "report"], indirect=True)
def test_one_that_blocks_at_the_end_does_not_keep_the_thread(world: World, blocker: Blocker) -> None:
    keeper = Keeper()
    delivery = world.delivery(bad=blocker, good=keeper)
    world.put("a")
    delivery.start()
    until(lambda: keeper.kept and (blocker.inside.is_set() or blocker.kept), "both were asked")
    until(lambda: not world.ledger("good").pending, "the good one's answer is entered")
    assert delivery.stop(LONG)
    assert not blocker.let_go.is_set()
    assert not delivery.running


def test_the_end_of_a_process_is_not_held_up_by_one_that_blocks(world: World, blocker: Blocker) -> None:
    delivery = world.delivering([world.to("bad", blocker, timeout=LONG)])
    world.put("a")
    delivery.start()
    assert blocker.inside.wait(LONG)
    start = time.monotonic()
    delivery.stop()
    assert time.monotonic() - start < 2  # 50 ms, and room for a slow machine
    until(lambda: not delivery.running, "the telemetry thread ends, whatever the other one does")


def test_only_the_telemetry_thread_touches_the_queue_and_only_trusted_ones_run_there(world: World) -> None:
    own, others = Keeper(), Keeper()
    delivery = world.delivering([world.to("own", own, trusted=True), world.to("others", others)])
    world.put("a")
    assert delivery.flush(LONG)
    assert world.pumped_on == {"telemetry"}
    assert (own.threads, others.threads) == (["telemetry"], ["telemetry-others"])


def test_a_thread_is_made_when_there_is_something_to_send(world: World) -> None:
    """For an injected reporter at once: what it is to get may come when no thread can be started any more."""
    delivery = world.delivering([world.to("far", Keeper()), world.to("code", Keeper(), injected=True)])
    assert delivery.flush(LONG)
    assert {each.name for each in living()} == {"telemetry", "telemetry-code"}
    world.put("a")
    assert delivery.flush(LONG)
    assert {each.name for each in living()} == {"telemetry", "telemetry-code", "telemetry-far"}


def test_where_no_thread_can_be_had_events_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    delivery = world.delivering([world.to("far", keeper, injected=True)])
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "telemetry-far":
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        world.put("a")
        assert not delivery.flush(LONG)
        assert world.ledger("far").last_error == "can't start new thread"
    assert delivery.flush(LONG)
    assert keeper.kept == ["a"]


# -- one that meddles --------------------------------------------------------------------------------------------------


async def exits_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(3)

    await asyncio.gather(asyncio.ensure_future(leave()))


async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()


async def cancels_everything() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(LONG)


async def raises_what_is_no_exception() -> None:
    class Odd(BaseException):
        pass

    raise Odd("odd")


@pytest.mark.parametrize("meddle", [exits_in_a_task, stops_the_loop, cancels_everything, raises_what_is_no_exception])
def test_one_that_meddles_with_its_loop_goes_on(world: World, meddle: Callable[[], Any]) -> None:
    class Meddler(Keeper):
        calls = 0

        async def report_batch(self, batch: Batch) -> BatchResult | None:
            self.calls += 1
            if self.calls == 1:
                await meddle()
            return await super().report_batch(batch)

    meddler, keeper = Meddler(), Keeper()
    delivery = world.delivery(bad=meddler, good=keeper)
    world.put("a")
    until(lambda: delivery.flush(LONG), "both got it")
    assert (meddler.kept, keeper.kept) == (["a"], ["a"])
    assert meddler.threads == ["telemetry-bad"]


def test_what_a_reporter_leaves_running_ends_with_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    class Leaver(Keeper):
        async def report_batch(self, batch: Batch) -> BatchResult | None:
            async def stay() -> None:
                try:
                    await asyncio.sleep(LONG)
                finally:
                    ended.set()

            async def fail() -> None:
                raise RuntimeError("nobody asked")

            self.tasks = [asyncio.ensure_future(stay()), asyncio.ensure_future(fail())]
            await asyncio.sleep(0)
            del self.tasks[1]
            return await super().report_batch(batch)

    caplog.set_level(logging.INFO)
    delivery = world.delivery(far=Leaver())
    world.put("a")
    assert delivery.flush(LONG)
    assert not ended.is_set()
    assert delivery.stop(LONG)
    assert ended.wait(LONG)
    assert caplog.messages == []


# -- the cell itself ---------------------------------------------------------------------------------------------------


@pytest.fixture
def box() -> Iterator[Cell]:
    made = Cell("telemetry-box")
    yield made
    made.close()


async def test_a_blocked_cell_takes_no_other_call(box: Cell) -> None:
    let_go = threading.Event()

    async def block() -> None:
        let_go.wait(LONG)

    async def nothing() -> int:
        return 5

    try:
        with pytest.raises(BlockedError, match=r"it blocks its thread: no answer in 0\.05 s"):
            await box.call(block, 0.05)
        with pytest.raises(BlockedError, match="it still blocks"):
            await box.call(nothing, LONG)
        assert box.blocked
    finally:
        let_go.set()
    while box.blocked:
        await asyncio.sleep(0.005)
    assert await box.call(nothing, LONG) == 5


async def test_who_gives_up_waiting_cancels_the_call(box: Cell) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.sleep(LONG)
        finally:
            ended.set()

    waiting = asyncio.ensure_future(box.call(hang, LONG))
    await asyncio.to_thread(begun.wait, LONG)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(ended.wait, LONG)


def test_an_answer_for_a_loop_that_is_gone_is_dropped(box: Cell) -> None:
    let_go = threading.Event()

    async def block() -> None:
        let_go.wait(LONG)

    async def ask() -> None:
        with pytest.raises(BlockedError):
            await box.call(block, 0.01)

    asyncio.run(ask())
    let_go.set()
    until(lambda: not box.blocked, "the call comes back")


async def test_helper_threads_are_daemons_and_few(box: Cell) -> None:
    let_go = threading.Event()

    async def helped() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        hanging = [loop.run_in_executor(None, let_go.wait, LONG) for _ in range(ERRANDS)]
        with pytest.raises(RuntimeError, match=f"{ERRANDS} threads of this reporter are at work or hang"):
            await asyncio.to_thread(int)
        daemons = [each.daemon for each in threading.enumerate() if each.name == "telemetry-errand"]
        let_go.set()
        await asyncio.gather(*hanging)
        return len(daemons), sum(daemons)

    assert await box.call(helped, LONG) == (ERRANDS, ERRANDS)


async def test_a_pool_of_the_reporters_own_is_its_own(box: Cell) -> None:
    from concurrent.futures import ThreadPoolExecutor

    async def pooled() -> int:
        with ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, lambda: 7)

    assert await box.call(pooled, LONG) == 7


# -- whole processes ---------------------------------------------------------------------------------------------------

HANGING = """
import asyncio, sys, threading, time
from cmdorc_telemetry import Telemetry, TelemetryReporter
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.lifecycle import Session

class Hanging(TelemetryReporter):
    async def report(self, event, payload):
        asked.set()
        {hang}

asked = threading.Event()
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"), reporters=[Hanging()])
telemetry.fire("cmdorc_shutdown", Session(id="s", started_at=time.time()))
threading.Thread(target=lambda: telemetry.flush(60), daemon=True).start()
assert asked.wait(30)
print(time.time(), flush=True)
"""


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(60)",
        "await asyncio.sleep(60)",
        "await asyncio.to_thread(time.sleep, 60)",
        "threading.Event().wait()",
    ],
)
def test_a_process_ends_whatever_its_reporter_does(tmp_path: Path, hang: str) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    agree(home)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
    environ["CMDORC_HOME"] = str(home.root)
    process = subprocess.run([sys.executable, "-c", HANGING.format(hang=hang)], env=environ, timeout=LONG, check=True,
                             capture_output=True, text=True)  # fmt: skip
    assert time.time() - float(process.stdout) < 5  # 50 ms, and room for a slow machine that measures coverage
    assert process.stderr == ""
