"""When is sent, and how much: batches that fill, pauses that grow, a circuit that opens, clocks that are set."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Delivery, Destination, Worker
from cmdorc_telemetry.delivery.pace import BREAKER_FAILURES, PROBE_EVENTS, Filling, Patience, most_events, pause_asked
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Gated, Ledger, Row, View

from .waiting import LONG, until

NAME = "far"
DAY = 86_400.0


class Clocks:
    """Both clocks: the monotonic one goes only on, the wall clock may be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = self.set = 0.0
        start, first = time.time(), time.monotonic()
        monkeypatch.setattr(clock, "wall", lambda: start + self.passed + self.set)
        monkeypatch.setattr(clock, "monotonic", lambda: first + self.passed)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    return Clocks(monkeypatch)


class Reporter(TelemetryReporter):
    """Fails while it is ``down``; keeps the sizes of the batches it was given."""

    def __init__(self, *, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.sizes: list[int] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.sizes.append(len(batch.events))
        if self.down:
            raise OSError("no connection")
        return None


def opened(folder: Path) -> Spool:
    spool = Spool(folder / "spool.db")
    spool.register([View(name=NAME, identity="i")])
    return spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(opened(tmp_path)) as made:
        (tmp_path / "locks").mkdir()
        yield made


class Line:
    """A spool, one worker at it, and what they say."""

    def __init__(self, spool: Spool, reporter: TelemetryReporter, **bounds: int) -> None:
        self.spool = spool
        to = Destination(NAME, lambda: reporter, lambda item: item.row.shared, trusted=True)
        self.worker = Worker(to, spool, spool.path.parent / "locks", Bounds(**bounds))

    def put(self, count: int, *, age: float = 0.0, size: int = 0) -> None:
        before = self.spool.offset("segment") or 0
        rows = tuple(
            Row(spec="s@1", event="e", version=1, at=int(clock.wall() - age), generation="g", source="here",
                private=b"x" * size, shared=json.dumps({"event_id": f"{before}-{number}", "x": "x" * size}).encode())
            for number in range(count)
        )  # fmt: skip
        assert self.spool.take_in("segment", Gated(rows=rows), before=before, after=before + 1, drops={})

    def step(self, **options: Any) -> float | None:
        return asyncio.run(self.worker.step(**options))

    def settle(self) -> float | None:
        """Steps until one does nothing; what that one said."""
        for _ in range(50):
            if wait := self.step():
                return wait
            if wait is None:
                return None
        pytest.fail("the worker does not come to rest")

    @property
    def ledger(self) -> Ledger:
        found = self.spool.ledger()[NAME]
        assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
        return found


# -- a batch fills -----------------------------------------------------------------------------------------------------


def test_a_batch_waits_until_its_oldest_event_is_old_enough(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter()
    line = Line(spool, reporter, batch_seconds=5)
    line.put(2)
    wait = line.step()
    assert wait is not None
    assert 4 <= wait <= 5  # events are stamped in whole seconds
    clocks.passed += wait - 0.5
    line.put(3)
    assert line.step() == pytest.approx(0.5, abs=0.01)
    assert reporter.sizes == []
    clocks.passed += 0.51
    assert line.settle() is None
    assert reporter.sizes == [5]
    line.put(1)
    assert 4 <= (line.step() or 0) <= 5  # the next batch waits for itself


@pytest.mark.parametrize(("count", "size"), [(10, 0), (3, 400)])
def test_a_full_batch_does_not_wait(spool: Spool, clocks: Clocks, count: int, size: int) -> None:
    reporter = Reporter()
    line = Line(spool, reporter, batch_events=10, batch_kib=1)
    line.put(count - 1, size=size)
    assert line.step() != 0
    line.put(1, size=size)
    assert line.step() == 0
    assert sum(reporter.sizes) >= count - 1


def test_batches_are_bounded_by_count_and_by_bytes(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter()
    line = Line(spool, reporter, batch_events=4, batch_kib=1, batch_seconds=0)
    line.put(10)
    line.put(4, size=500)
    assert line.settle() is None
    assert reporter.sizes[:2] == [4, 4]
    assert len(reporter.sizes) >= 5  # the large ones do not all go together
    assert line.ledger.acknowledged == 14


def test_what_is_old_goes_at_once_and_so_does_everything_in_a_hurry(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter()
    line = Line(spool, reporter)
    line.put(1, age=60)
    assert line.step() == 0
    line.put(1)
    assert line.step(hurry=True) == 0
    assert reporter.sizes == [1, 1]


def test_a_clock_that_is_set_does_not_hold_a_batch_back(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter()
    line = Line(spool, reporter, batch_seconds=5)
    line.put(1)
    clocks.set = -DAY
    assert line.step() == 5
    clocks.passed = 5
    assert line.step() == 0
    assert reporter.sizes == [1]


def test_a_batch_is_full_or_old_or_waits() -> None:
    filling = Filling(Bounds(batch_events=10, batch_kib=1, batch_seconds=5))
    assert filling.left(9, 1023, 100.0, 100.5, 7.0) == 4.5
    assert filling.left(9, 1023, 100.0, 50.0, 11.0) == 1.0  # by the other clock
    assert filling.left(10, 0, 100.0, 100.0, 7.0) == 0
    assert filling.left(1, 1024, 100.0, 100.0, 7.0) == 0
    assert filling.left(1, 1, 100.0, 105.0, 7.0) == 0
    filling.over()
    assert filling.left(1, 1, 100.0, 90.0, 11.0) == 5


# -- pauses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "expected"),
    [(7, 7.0), (1.0, 1.0), (1e9, 3600.0), (math.inf, 3600.0), (0, 0.3), (-5, 0.3), (-math.inf, 0.3), (math.nan, 0.3),
     (None, 0.3), ("7", 0.3), (0.5, 0.3)],
)  # fmt: skip
def test_a_pause_that_was_asked_for_is_obeyed_within_reason(after: Any, expected: float) -> None:
    assert pause_asked(after, 0.3, 3600) == expected


def test_the_longest_pause_is_the_users(spool: Spool, clocks: Clocks) -> None:
    class Busy(Reporter):
        async def report_batch(self, batch: Batch) -> BatchResult | None:
            raise RetryLater("busy", 9999.0)

    line = Line(spool, Busy(), pause_seconds=20)
    line.put(1, age=60)
    assert line.settle() == pytest.approx(20, abs=0.1)


def test_so_is_the_longest_pause_after_failures(spool: Spool, clocks: Clocks) -> None:
    line = Line(spool, Reporter(down=True), pause_seconds=3)
    line.put(1, age=60)
    waits = []
    for _ in range(4):
        waits.append(round(line.settle() or 0, 1))
        clocks.passed += waits[-1] + 0.1
    assert waits == [1, 2, 3, 3]


def test_patience_ends_by_either_clock() -> None:
    patience = Patience(3600)
    assert patience.left(1000, 990, 5.0) == 10
    assert patience.left(1000, 994, 9.0) == 6
    assert patience.left(1000, 500, 12.0) == 3  # the clock was set back: the pause is no longer for that
    assert patience.left(1000, 500, 15.0) == 0
    assert patience.left(1000, 1001, 5.0) == 0
    assert patience.left(1000 + DAY, 1000, 5.0) == 0  # no pause is that long
    assert patience.left(2000, 1990, 15.0) == 10  # another one


def test_a_pause_outlives_a_clock_that_is_set(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter(down=True)
    line = Line(spool, reporter, batch_seconds=1)
    line.put(1, age=60)
    assert line.settle() == pytest.approx(1, abs=0.01)
    clocks.set = -1800
    assert line.step() == pytest.approx(1, abs=0.01)
    clocks.passed += 1.01
    assert line.step() == 0
    assert reporter.sizes == [1, 1]


def test_a_queue_that_does_not_give_what_is_due_is_not_asked_without_end(spool: Spool, clocks: Clocks) -> None:
    """As when another process, with a longer pause in its configuration, put the event off."""
    line = Line(spool, Reporter(), pause_seconds=10, batch_seconds=0)
    line.put(1)
    lease = spool.lease(NAME, clock.wall())
    assert lease is not None
    spool.settle(lease, {}, clock.wall(), pause=lambda tries: 1000)
    assert line.step() == 0.1


def test_when_every_event_is_asked_for_again_the_destination_is_left_alone(spool: Spool, clocks: Clocks) -> None:
    class Moody(Reporter):
        async def report_batch(self, batch: Batch) -> BatchResult | None:
            await super().report_batch(batch)
            return BatchResult(results=tuple(EventResult(each.event_id, "retry") for each in batch.events))

    reporter = Moody()
    line = Line(spool, reporter, batch_events=10)
    line.put(30, age=60)
    assert line.settle() == pytest.approx(1, abs=0.01)
    assert reporter.sizes == [10]
    assert (line.ledger.pending, line.ledger.failures) == (30, 1)


# -- the circuit -------------------------------------------------------------------------------------------------------


def fail(line: Line, clocks: Clocks, times: int) -> None:
    for _ in range(times):
        clocks.passed += (line.settle() or 0) + 0.01
    assert line.ledger.failures == times


def test_after_some_failures_small_batches_find_out_how_things_are(spool: Spool, clocks: Clocks) -> None:
    reporter = Reporter(down=True)
    line = Line(spool, reporter, batch_events=100)
    line.put(300, age=60)
    fail(line, clocks, BREAKER_FAILURES)
    assert reporter.sizes == [100] * BREAKER_FAILURES
    next_one = Line(spool, reporter, batch_events=100)  # the next process knows
    next_one.step()
    assert reporter.sizes[BREAKER_FAILURES:] == [PROBE_EVENTS]
    assert next_one.ledger.failures == BREAKER_FAILURES + 1
    reporter.down = False
    clocks.passed += 100
    assert next_one.settle() is None
    assert reporter.sizes[BREAKER_FAILURES + 1 :] == [PROBE_EVENTS, 100, 100, 90]
    assert (next_one.ledger.acknowledged, next_one.ledger.failures, next_one.ledger.last_error) == (300, 0, "")


def test_the_circuit_is_open_or_closed() -> None:
    assert [most_events(failures, 500) for failures in (0, 4, 5, 50)] == [500, 500, 10, 10]
    assert most_events(5, 3) == 3


def test_a_person_may_ask_at_once_and_what_failed_is_not_forgotten(
    spool: Spool, clocks: Clocks, tmp_path: Path
) -> None:
    reporter = Reporter(down=True)
    line = Line(spool, reporter, batch_events=100)
    line.put(300, age=60)
    fail(line, clocks, BREAKER_FAILURES)
    line.settle()  # and one probe
    asked = len(reporter.sizes)
    to = Destination(NAME, lambda: reporter, lambda item: item.row.shared)
    delivery = Delivery(lambda: opened(tmp_path), [to], lambda spool: True, tmp_path / "locks")
    try:
        assert not delivery.flush(LONG, hurry=False)
        assert len(reporter.sizes) == asked  # nobody asked for more than what is due
        assert not delivery.flush(LONG)
        assert reporter.sizes[asked:] == [PROBE_EVENTS]
        assert line.ledger.failures == BREAKER_FAILURES + 2
        assert line.ledger.next_try > clock.wall() + 15
        reporter.down = False
        assert delivery.flush(LONG)
        assert line.ledger.acknowledged == 300
    finally:
        assert delivery.stop(LONG)


def test_who_waited_for_the_lock_hears_of_a_failure_meanwhile(
    spool: Spool, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter()
    line = Line(spool, reporter)
    line.put(1, age=60)
    acquire = line.worker._lock.acquire

    def other_one_first(*, wait: bool = True) -> bool:
        spool.postpone(NAME, clock.wall() + 100, "the other one's failure")
        return acquire(wait=wait)

    monkeypatch.setattr(line.worker._lock, "acquire", other_one_first)
    assert line.step() == pytest.approx(100, abs=0.1)
    assert reporter.sizes == []


# -- the thread sleeps -------------------------------------------------------------------------------------------------


def test_the_thread_sleeps_until_it_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.IMPORT_SECONDS", 0.01)
    looks: list[float] = []
    delivery = Delivery(lambda: opened(tmp_path), [], lambda spool: not looks.append(time.monotonic()),
                        tmp_path / "locks", Bounds(batch_seconds=0))  # fmt: skip

    delivery.wake()  # before there is anybody to wake
    delivery.start()
    try:
        until(lambda: looks and delivery.asleep, "it looked, and sleeps")
        time.sleep(0.1)  # nothing happens: ten times as long as it would take
        assert len(looks) == 1
        delivery.wake()
        until(lambda: len(looks) == 2 and delivery.asleep, "it was woken")
    finally:
        assert delivery.stop(LONG)
    assert len(looks) == 2  # and at the end it looks no more: the next process does
    delivery.wake()


@pytest.mark.parametrize(("slow", "wait"), [(False, 5), (True, 0.01)])
def test_a_trickle_is_imported_when_it_may_be_sent_and_much_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool, wait: float
) -> None:
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.IMPORT_SECONDS", 0.01)
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.LONG_IMPORT_SECONDS", 0.0 if slow else LONG)
    waits: list[float] = []
    wait_for = asyncio.wait_for

    async def noted(work: Any, seconds: float) -> Any:
        waits.append(seconds)
        return await wait_for(work, min(seconds, 0.01) if len(waits) % 2 == 0 else seconds)

    monkeypatch.setattr(asyncio, "wait_for", noted)
    delivery = Delivery(lambda: opened(tmp_path), [], lambda spool: True, tmp_path / "locks", Bounds(batch_seconds=5))
    delivery.start()
    deadline = time.monotonic() + LONG
    try:
        while len(waits) < 3:
            assert time.monotonic() < deadline
            if delivery.asleep:
                delivery.wake()
            time.sleep(0.002)
    finally:
        assert delivery.stop(LONG)
    assert waits[:3] == [10.0, wait, 10.0]
