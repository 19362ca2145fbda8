"""What delivery promises for each event, with a real spool: every answer of a reporter, every failure, every end."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Delivery, Destination, Worker, pause
from cmdorc_telemetry.errors import PluginError, Rejected, RetryLater, StorageError, TooLarge
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Gated, Lease, Leased, Ledger, Row, View

from .waiting import LONG, until

NAME = "far"
"""Seconds after which a condition that has not come true never will."""


class Reporter(TelemetryReporter):
    """Answers each batch as it is told to: by a value, an exception, or a function of the batch."""

    def __init__(self, *answers: object) -> None:
        super().__init__()
        self.answers = list(answers)
        self.batches: list[list[str]] = []
        self.seen: list[Batch] = []
        self.closed = 0

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.seen.append(batch)
        self.batches.append([event.event_id for event in batch.events])
        answer: Any = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0] if self.answers else None
        if callable(answer):
            answer = answer(batch)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    async def close(self) -> None:
        self.closed += 1


def results(**statuses: str) -> BatchResult:
    """``a="accepted"`` and so on: a reason may follow a colon."""
    each = (EventResult(key, *status.split(":")) for key, status in statuses.items())  # type: ignore[arg-type]
    return BatchResult(results=tuple(each))


def row(key: str, *, generation: str = "g", at: float | None = None) -> Row:
    body = json.dumps({"event_id": key}).encode()
    return Row(spec="s@1", event="e", version=1, at=int(at or time.time()), generation=generation, source="here",
               private=body, shared=body)  # fmt: skip


def put(spool: Spool, *keys: str) -> None:
    before = spool.offset("segment") or 0
    assert spool.take_in("segment", Gated(rows=tuple(map(row, keys))), before=before, after=before + 1, drops={})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = opened(tmp_path, NAME)
    yield made
    made.close()


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    folder = tmp_path / "locks"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are as long as they can be: a test that does not want to wait for them sets the clock."""
    monkeypatch.setattr(random, "random", lambda: 1.0)


class Clock:
    """The wall clock and the monotonic one, that a test can move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(clock, "wall", lambda: time.time() + self.ahead)
        monkeypatch.setattr(clock, "monotonic", lambda: time.monotonic() + self.ahead)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def opened(folder: Path, *names: str) -> Spool:
    spool = Spool(folder / "spool.db")
    spool.register([View(name=name, identity="i") for name in names])
    return spool


def to(reporter: TelemetryReporter, name: str = NAME, **options: Any) -> Destination:
    return Destination(name, lambda: reporter, options.pop("body", lambda item: item.row.shared), **options)


AT_ONCE = Bounds(batch_seconds=0)
MADE: list[Worker] = []


def at_work(destination: Destination, spool: Spool, locks: Path, bounds: Bounds = AT_ONCE, **options: Any) -> Worker:
    MADE.append(Worker(destination, spool, locks, bounds, **options))
    return MADE[-1]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    while MADE:
        asyncio.run(MADE.pop().close())
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("telemetry")], "threads end")


def ledger(spool: Spool, name: str = NAME) -> Ledger:
    found = spool.ledger()[name]
    assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
    return found


def counts(spool: Spool, name: str = NAME) -> tuple[int, int, dict[str, int]]:
    found = ledger(spool, name)
    return found.acknowledged, found.pending, dict(found.dropped)


async def all_steps(worker: Worker) -> float | None:
    """Steps until one of them did nothing; what that one said."""
    for _ in range(50):
        wait = await worker.step()
        if wait != 0:
            return wait
    pytest.fail("the worker does not come to rest")


# -- one event ---------------------------------------------------------------------------------------------------------


async def test_nothing_said_means_that_all_were_accepted(spool: Spool, locks: Path) -> None:
    reporter = Reporter(None)
    put(spool, "a", "b")
    assert await all_steps(at_work(to(reporter), spool, locks)) is None
    assert reporter.batches == [["a", "b"]]
    assert counts(spool) == (2, 0, {})
    assert ledger(spool).last_report > 0


async def test_a_batch_tells_whose_it_is_and_what_was_lost(spool: Spool, locks: Path) -> None:
    reporter = Reporter(None)
    spool.open_account("an id")
    spool.take_in("other", Gated(rows=(row("a"),)), before=0, after=1, drops={"storage-failed": 3})
    await all_steps(at_work(to(reporter), spool, locks))
    (batch,) = reporter.seen
    assert (batch.destination, batch.epoch, dict(batch.drops)) == (NAME, spool.account(NAME)[0], {"storage-failed": 3})
    assert batch.epoch


async def test_each_event_gets_what_was_said_of_it(spool: Spool, locks: Path, later: Clock) -> None:
    said = results(a="accepted", b="duplicate", c="rejected:nonsense", d="retry", stranger="accepted")
    reporter = Reporter(said, None)
    worker = at_work(to(reporter), spool, locks)
    put(spool, "a", "b", "c", "d", "unnamed")
    wait = await all_steps(worker)
    assert counts(spool) == (2, 2, {"rejected-by-server": 1})
    assert wait is not None
    assert 1.5 < wait <= 2.0  # one event's first pause; the others are not held up by it
    put(spool, "e")
    await all_steps(worker)
    later.ahead = 3
    assert await all_steps(worker) is None
    assert reporter.batches == [["a", "b", "c", "d", "unnamed"], ["e"], ["d", "unnamed"]]
    assert counts(spool) == (5, 0, {"rejected-by-server": 1})


async def test_an_events_pause_grows_with_its_tries(spool: Spool, locks: Path, later: Clock) -> None:
    worker = at_work(to(Reporter(results(a="retry"))), spool, locks)
    put(spool, "a")
    waits = []
    for _ in range(3):
        waits.append(await all_steps(worker) or 0.0)
        later.ahead += waits[-1] + 0.01
    assert [round(wait) for wait in waits] == [2, 4, 8]


async def test_an_answer_is_kept(spool: Spool, locks: Path) -> None:
    answer = {"stats": MappingProxyType({"p": 87})}
    for key, results in (("a", None), ("b", (EventResult("b", "accepted"),))):
        put(spool, key)
        await all_steps(at_work(to(Reporter(BatchResult(results=results, answer=answer))), spool, locks))
        assert ledger(spool).answer == {"stats": {"p": 87}}
        spool.settle(Lease(NAME, (), 0), {}, 0.0, answer={"nothing": 0})
    assert counts(spool) == (2, 0, {})


async def test_an_event_without_an_id_is_told_apart_by_a_number(spool: Spool, locks: Path) -> None:
    reporter = Reporter(lambda batch: BatchResult(results=(EventResult(batch.events[1].event_id, "accepted"),)))
    put(spool, "a", "b")
    await at_work(to(reporter, body=lambda item: b'{"n":1}'), spool, locks).step()
    (sent,) = reporter.batches
    assert len(set(sent)) == 2
    assert counts(spool)[:2] == (1, 1)


async def test_withdrawn_consent_drops_and_sends_nothing(spool: Spool, locks: Path) -> None:
    reporter = Reporter(None)
    asked: list[str] = []

    def body(item: Leased) -> bytes | None:
        return item.row.shared if asked and b"b" in (item.row.shared or b"") else None

    worker = at_work(to(reporter, body=body, refresh=lambda: asked.append("now")), spool, locks)
    put(spool, "a", "b")
    await all_steps(worker)
    assert reporter.batches == [["b"]]
    assert counts(spool) == (1, 0, {"withdrawn-consent": 1})
    put(spool, "c")
    await all_steps(worker)
    assert reporter.batches == [["b"]]  # a batch of nothing is not sent at all
    assert counts(spool) == (1, 0, {"withdrawn-consent": 2})
    assert len(asked) == 2


# -- a batch that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "expected"), [(7.0, 7.0), (1e9, 3600.0), (None, 1.0)])
async def test_retry_later_is_obeyed_within_bounds(
    spool: Spool, locks: Path, later: Clock, after: float | None, expected: float
) -> None:
    reporter = Reporter(RetryLater("busy", after), None)
    worker = at_work(to(reporter), spool, locks)
    put(spool, "a")
    wait = await all_steps(worker)
    assert wait == pytest.approx(expected, abs=0.5)
    assert ledger(spool).last_error == "busy"
    later.ahead = expected - 0.6
    assert await all_steps(worker) == pytest.approx(0.6, abs=0.5)
    assert len(reporter.batches) == 1
    later.ahead = expected + 0.1
    assert await all_steps(worker) is None
    assert counts(spool) == (1, 0, {})
    assert ledger(spool).last_error == ""


async def test_pauses_grow_with_failures_in_a_row_and_begin_anew(spool: Spool, locks: Path, later: Clock) -> None:
    worker = at_work(to(Reporter(*[OSError("no connection")] * 4, None, OSError(), None)), spool, locks)
    put(spool, "a")
    waits = []
    for _ in range(4):
        waits.append(await all_steps(worker) or 0.0)
        later.ahead += waits[-1] + 0.01
    assert [round(wait) for wait in waits] == [1, 2, 4, 8]
    assert ledger(spool).last_error == "no connection"
    await all_steps(worker)
    put(spool, "b")
    assert await all_steps(worker) == pytest.approx(1, abs=0.2)
    assert ledger(spool).last_error == "OSError"


def test_a_pause_is_a_share_of_a_bound_that_doubles() -> None:
    assert [pause(failures, 1.0) for failures in (0, 1, 5, 12, 5000)] == [1, 2, 32, 3600, 3600]
    assert pause(5, 0.25) == 8


async def test_a_pause_from_before_the_clock_was_set_is_none(spool: Spool, locks: Path) -> None:
    put(spool, "a")
    spool.postpone(NAME, time.time() + 86_400, "long ago, in the future")
    await all_steps(at_work(to(Reporter(None)), spool, locks))
    assert counts(spool) == (1, 0, {})


def too_large_with(key: str, most: int = 100) -> Callable[[Batch], BatchResult | None]:
    def answer(batch: Batch) -> BatchResult | None:
        if len(batch.events) > most or key in [event.event_id for event in batch.events]:
            raise TooLarge("413")
        return None

    return answer


async def test_too_large_is_split_down_to_the_event_to_blame(spool: Spool, locks: Path) -> None:
    reporter = Reporter(too_large_with("e3"))
    put(spool, *(f"e{number}" for number in range(8)))
    assert await all_steps(at_work(to(reporter), spool, locks)) is None
    assert counts(spool) == (7, 0, {"over-size": 1})
    sizes = [len(batch) for batch in reporter.batches]
    assert sizes[:3] == [8, 4, 2]
    assert ["e3"] in reporter.batches


async def test_a_receiver_of_small_batches_gets_small_ones(spool: Spool, locks: Path) -> None:
    reporter = Reporter(too_large_with("nobody", most=2))
    put(spool, *(f"e{number}" for number in range(8)))
    await all_steps(at_work(to(reporter), spool, locks))
    assert counts(spool) == (8, 0, {})


async def test_rejected_is_isolated_and_set_aside(spool: Spool, locks: Path) -> None:
    def answer(batch: Batch) -> None:
        if "bad" in [event.event_id for event in batch.events]:
            raise Rejected("no such field \ud800")  # what cannot be stored as it is

    reporter = Reporter(answer)
    put(spool, "a", "b", "bad", "c")
    worker = at_work(to(reporter), spool, locks)
    assert await all_steps(worker) is None
    found = ledger(spool)
    assert (found.acknowledged, found.pending, found.set_aside, dict(found.dropped)) == (3, 1, 1, {})
    sent = len(reporter.batches)
    put(spool, "d")
    await all_steps(worker)
    assert reporter.batches[sent:] == [["d"]]  # what was set aside is not sent again


class Mapping:
    """An answer that is no mapping at all."""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (17, "report_batch returned int instead of a BatchResult"),
        (BatchResult(results=("a",)), "Expected"),  # type: ignore[arg-type]
        (BatchResult(results=(EventResult("a", "perhaps"),)), "Invalid enum value 'perhaps'"),  # type: ignore[arg-type]
        (BatchResult(results=(EventResult("a", "retry", "\ud800"),)), "surrogates not allowed"),
        (BatchResult(answer=Mapping()), "not iterable"),  # type: ignore[arg-type]
        (BatchResult(results=(EventResult("a", "accepted"),), answer=Mapping()), "not iterable"),  # type: ignore[arg-type]
        (SystemExit("3"), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "it cancelled itself"),
    ],
    ids=[
        "number",
        "no-results",
        "unknown-status",
        "no-text",
        "no-answer",
        "results-and-no-answer",
        "exit",
        "ctrl-c",
        "cancelled",
    ],
)
async def test_nonsense_is_a_failure_and_loses_nothing(
    spool: Spool, locks: Path, later: Clock, answer: object, error: str
) -> None:
    worker = at_work(to(Reporter(answer, None)), spool, locks)
    put(spool, "a")
    await all_steps(worker)
    assert error in ledger(spool).last_error
    assert counts(spool) == (0, 1, {})
    later.ahead = 2
    await all_steps(worker)
    assert counts(spool) == (1, 0, {})


async def test_a_reporter_that_cannot_be_made_is_made_later(spool: Spool, locks: Path, later: Clock) -> None:
    reporter, made = Reporter(None), []

    def make() -> TelemetryReporter:
        made.append(True)
        if len(made) == 1:
            raise PluginError("needs a newer h11")
        return reporter

    worker = at_work(Destination(NAME, make, lambda item: item.row.shared), spool, locks)
    assert await worker.step() is None
    assert made == []  # not before there is something to send
    put(spool, "a")
    await all_steps(worker)
    assert ledger(spool).last_error == "needs a newer h11"
    later.ahead = 2
    await all_steps(worker)
    put(spool, "b")
    await all_steps(worker)
    assert counts(spool) == (2, 0, {})
    assert len(made) == 2  # and then kept


async def test_a_reporter_that_hangs_is_left_behind_in_time(spool: Spool, locks: Path) -> None:
    async def deaf() -> None:
        deadline = time.monotonic() + LONG
        while not let_go.is_set() and time.monotonic() < deadline:
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                ignored.append(True)

    let_go, ignored = asyncio.Event(), list[bool]()
    worker = at_work(to(Reporter(lambda batch: deaf()), timeout=0.05), spool, locks)
    put(spool, "a")
    try:
        await all_steps(worker)
        assert ledger(spool).last_error == "no answer in time"
        assert counts(spool) == (0, 1, {})
        await asyncio.sleep(0)
        assert ignored == [True]  # it was asked to stop, and did not
    finally:
        let_go.set()


async def test_a_spool_that_cannot_be_written_sends_nothing_and_waits(
    spool: Spool, locks: Path, tmp_path: Path
) -> None:
    reporter = Reporter(None)
    worker = at_work(to(reporter), spool, locks)
    put(spool, "a")
    (tmp_path / "spool.db").rename(tmp_path / "elsewhere")
    assert await worker.step() == 60
    assert reporter.batches == []
    (tmp_path / "elsewhere").rename(tmp_path / "spool.db")
    await all_steps(worker)
    assert counts(spool) == (1, 0, {})


# -- one sender at a time ----------------------------------------------------------------------------------------------


async def test_only_one_process_sends_at_a_time(spool: Spool, locks: Path, later: Clock) -> None:
    reporter = Reporter(None)
    worker = at_work(to(reporter, timeout=10), spool, locks)
    put(spool, "a")
    other = FileLock(locks / f"{NAME}.lock")
    assert other.acquire(wait=False)
    assert await worker.step() == 0.1
    later.ahead = 69  # 10 for an answer, and 60
    assert await worker.step() == 0.2
    assert reporter.batches == []
    other.release()
    await all_steps(worker)
    assert reporter.batches == [["a"]]


async def test_a_stopped_sender_is_taken_over_from_when_it_gave_no_sign(
    spool: Spool, locks: Path, later: Clock
) -> None:
    reporter = Reporter(None)
    worker = at_work(to(reporter, timeout=10), spool, locks)
    put(spool, "a")
    with FileLock(locks / f"{NAME}.lock"):
        assert await worker.step() == 0.1
        later.ahead = 69
        spool.lease(NAME, clock.wall())  # the other one's sign
        assert await worker.step() == 0.2
        later.ahead = 71 + 67
        assert await worker.step() == 0.4
        later.ahead = 69 + 71
        await all_steps(worker)
    assert reporter.batches == [["a"]]


# -- draining and closing ----------------------------------------------------------------------------------------------


async def test_draining_gives_up_after_three_failures_in_a_row(
    spool: Spool, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    reporter = Reporter(OSError("no connection"))
    put(spool, "a")
    await at_work(to(reporter), spool, locks).drain()
    assert len(reporter.batches) == 3
    assert counts(spool) == (0, 1, {})


async def test_draining_waits_for_a_short_pause_and_not_for_a_long_one(spool: Spool, locks: Path) -> None:
    reporter = Reporter(RetryLater("soon", 0.05), RetryLater("tomorrow", 600.0))
    put(spool, "a")
    await at_work(to(reporter), spool, locks).drain()
    assert len(reporter.batches) == 2


async def test_closing_closes_the_reporter_once_whatever_it_does(spool: Spool, locks: Path) -> None:
    class Sore(Reporter):
        async def close(self) -> None:
            await super().close()
            raise RuntimeError("not now")

    reporter = Sore(None)
    worker = at_work(to(reporter), spool, locks)
    await worker.close()
    assert reporter.closed == 0  # there was none
    put(spool, "a")
    await all_steps(worker)
    await worker.close()
    await worker.close()
    assert reporter.closed == 1


# -- the thread --------------------------------------------------------------------------------------------------------


class Thread:
    """A telemetry thread with a spool of its own, and what it did."""

    def __init__(self, folder: Path, *destinations: Destination, pump: Callable[[Spool], bool] | None = None) -> None:
        self.folder = folder
        self.names = [each.name for each in destinations]
        self.pumps: list[int] = []
        self.spools: list[Spool] = []
        self._pump = pump or (lambda spool: True)
        self.delivery = Delivery(self.open, destinations, self.pump, folder / "locks", AT_ONCE)

    def open(self) -> Spool:
        self.spools.append(opened(self.folder, *self.names))
        return self.spools[-1]

    def pump(self, spool: Spool) -> bool:
        self.pumps.append(threading.get_ident())
        return self._pump(spool)

    def counts(self, name: str = NAME) -> tuple[int, int, dict[str, int]]:
        spool = Spool(self.folder / "spool.db")
        try:
            return counts(spool, name)
        finally:
            spool.close()


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[Callable[..., Thread]]:
    made: list[Thread] = []

    def make(*destinations: Destination, pump: Callable[[Spool], bool] | None = None) -> Thread:
        made.append(Thread(tmp_path, *destinations, pump=pump))
        return made[-1]

    yield make
    for each in made:
        assert each.delivery.stop(LONG)


Threads = Callable[..., Thread]


def putting(keys: Sequence[str]) -> Callable[[Spool], bool]:
    """A pump that finds these events, once."""
    left = [list(keys)]

    def pump(spool: Spool) -> bool:
        if left:
            put(spool, *left.pop())
        return True

    return pump


def test_flush_starts_the_thread_imports_and_sends(thread: Threads) -> None:
    reporter = Reporter(None)
    made = thread(to(reporter), pump=putting(["a", "b"]))
    assert not made.delivery.running
    assert made.delivery.flush(LONG)
    assert made.delivery.running
    assert sorted(key for batch in reporter.batches for key in batch) == ["a", "b"]
    assert set(made.pumps) != {threading.get_ident()}
    assert made.delivery.stop(LONG)
    assert (made.delivery.running, reporter.closed, len(made.spools)) == (False, 1, 1)


def test_starting_twice_makes_one_thread(thread: Threads) -> None:
    made = thread(to(Reporter(None)))
    made.delivery.start()
    made.delivery.start()
    assert made.delivery.flush(LONG)
    assert len(made.spools) == 1


def test_flush_says_that_something_still_waits(thread: Threads) -> None:
    made = thread(to(Reporter(RetryLater("tomorrow", 600.0))), pump=putting(["a"]))
    assert not made.delivery.flush(LONG)
    assert made.counts() == (0, 1, {})


def test_flush_hurries_what_was_put_off(tmp_path: Path, thread: Threads) -> None:
    spool = opened(tmp_path, NAME)
    put(spool, "a")
    spool.postpone(NAME, time.time() + 600, "busy")
    spool.close()
    made = thread(to(Reporter(None)))
    assert made.delivery.flush(LONG)
    assert made.counts() == (1, 0, {})


def test_flush_gives_up_after_three_failures_in_a_row(thread: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    made = thread(to(Reporter(OSError("no connection"))), pump=putting(["a"]))
    assert not made.delivery.flush(LONG)
    assert made.counts() == (0, 1, {})


def test_flush_ends_in_time_and_what_hangs_does_not_hold_up_the_history(thread: Threads) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    history = Reporter(None)
    made = thread(to(Reporter(lambda batch: hang()), timeout=LONG), to(history, "history"), pump=putting(["a"]))
    assert not made.delivery.flush(0.2)
    until(lambda: history.batches == [["a"]], "the history gets its event")
    until(lambda: made.counts("history") == (1, 0, {}), "it is entered")
    assert made.counts() == (0, 1, {})


def test_a_reporter_that_times_out_is_tried_again_in_the_background(
    thread: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(random, "random", lambda: 0.0)
    reporter = Reporter(lambda batch: hang(), None)
    made = thread(to(reporter, timeout=0.02), pump=putting(["a"]))
    made.delivery.start()
    until(lambda: made.spools and made.counts() == (1, 0, {}), "the second attempt is entered")
    assert reporter.batches == [["a"], ["a"]]


def test_a_queue_that_cannot_be_opened_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Spool:
        raise StorageError("spool.db cannot be opened")

    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    delivery = Delivery(broken, [to(Reporter())], lambda spool: True, tmp_path / "locks")
    assert not delivery.flush(LONG)
    assert not delivery.flush(LONG)  # which tries again
    assert caplog.messages == ["telemetry cannot deliver: spool.db cannot be opened. Events are kept."]
    assert delivery.stop(LONG)


def test_a_fault_of_its_own_ends_the_thread_and_is_told(thread: Threads, caplog: pytest.LogCaptureFixture) -> None:
    def pump(spool: Spool) -> bool:
        raise TypeError("a mistake")

    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    made = thread(to(Reporter()), pump=pump)
    assert not made.delivery.flush(LONG)
    until(lambda: not made.delivery.running, "the thread ends")
    assert not made.delivery.flush(LONG)
    assert made.delivery.stop()
    (said,) = caplog.messages  # not what the exception says, which may be anything
    assert re.fullmatch(r"telemetry cannot deliver: TypeError at test_delivery_promises\.py:\d+\. Events are .*", said)


def test_flush_of_a_queue_that_takes_long_to_open_ends_in_time(tmp_path: Path) -> None:
    go = threading.Event()

    def slow() -> Spool:
        assert go.wait(LONG)
        return opened(tmp_path, NAME)

    delivery = Delivery(slow, [to(Reporter())], lambda spool: True, tmp_path / "locks")
    try:
        assert not delivery.flush(0.05)
        assert not delivery.stop(0.0)
    finally:
        go.set()
    assert delivery.stop(LONG)


def test_without_a_thread_events_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = Thread(tmp_path, to(Reporter()))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not made.delivery.flush(1.0)
    assert not made.delivery.running
    assert made.delivery.stop()
    assert made.delivery.flush(LONG)  # there may be one later
    assert made.delivery.stop(LONG)


def test_a_pump_that_fails_is_called_again(thread: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.LOOK_SECONDS", 0.02)
    faults: list[Exception] = [StorageError("full"), OSError("full")]
    find = putting(["a"])

    def pump(spool: Spool) -> bool:
        if faults:
            raise faults.pop()
        return find(spool)

    made = thread(to(Reporter(None)), pump=pump)
    assert made.delivery.flush(LONG)
    until(lambda: not faults and made.counts() == (1, 0, {}), "the third call of pump")


def test_when_recording_is_switched_off_the_thread_ends_and_touches_nothing(
    thread: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what an injected reporter should still have got is left alone: somebody said no."""
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.LOOK_SECONDS", 0.02)
    injected = Reporter(RetryLater("busy", 600.0), None)
    on = threading.Event()
    on.set()
    find = putting(["a"])
    made = thread(to(injected, injected=True), pump=lambda spool: find(spool) and on.is_set())
    made.delivery.start()
    until(lambda: injected.batches, "the first attempt")
    on.clear()
    assert not made.delivery.flush(LONG)
    until(lambda: not made.delivery.running, "the thread ends by itself")
    assert not made.delivery.flush(LONG)
    assert (injected.batches, injected.closed) == ([["a"]], 1)
    assert made.counts() == (0, 1, {})


def test_an_injected_reporter_gets_the_rest_at_the_end_and_then_is_gone(
    thread: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = list[str]()

    def pump(spool: Spool) -> bool:
        if late:
            put(spool, *late)
            late.clear()
        return True

    injected, other = Reporter(None), Reporter(RetryLater("busy", 600.0))
    made = thread(to(injected, injected=True), to(other, "other"), pump=pump)
    assert made.delivery.flush(LONG)
    late.append("last")
    assert made.delivery.stop(LONG)
    assert injected.batches == [["last"]]
    assert made.counts() == (1, 0, {})
    assert made.counts("other")[:2] == (0, 1)
    spool = Spool(made.folder / "spool.db")
    removed = {name: found.removed for name, found in spool.ledger().items()}
    spool.close()
    assert removed == {NAME: True, "other": False}


def test_what_an_injected_reporter_will_not_take_is_counted_as_lost(thread: Threads) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    made = thread(to(Reporter(lambda batch: hang()), injected=True), pump=putting(["a"]))
    made.delivery.start()
    assert not made.delivery.flush(0.05)
    assert made.delivery.stop(LONG)
    assert made.counts() == (0, 0, {"reporter-gone": 1})


def test_when_its_spool_is_gone_it_takes_another(
    tmp_path: Path, thread: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    made = thread(to(Reporter(None), injected=True))
    assert made.delivery.flush(LONG)
    (tmp_path / "spool.db").rename(tmp_path / "elsewhere")
    assert not made.delivery.flush(LONG)  # what was in it nobody knows
    until(lambda: made.delivery.flush(LONG), "another one")
    assert made.delivery.stop(LONG)
    assert not made.delivery.running
    assert caplog.messages == []


def test_switched_off_from_the_start_an_injected_reporter_gets_nothing(thread: Threads) -> None:
    injected = Reporter(None)
    find = putting(["a"])
    made = thread(to(injected, injected=True), pump=lambda spool: not find(spool))
    made.delivery.start()
    until(lambda: not made.delivery.running, "the thread ends by itself")
    assert injected.batches == []
    assert made.counts() == (0, 1, {})


def test_stopped_before_it_had_a_loop(tmp_path: Path) -> None:
    go = threading.Event()

    class Slow(Delivery):
        async def _main(self) -> None:
            assert go.wait(LONG)
            await super()._main()

    delivery = Slow(lambda: opened(tmp_path, NAME), [to(Reporter())], lambda spool: True, tmp_path / "locks")
    assert delivery.stop()  # before it was even started
    delivery.start()
    assert not delivery.stop(0.0)
    go.set()
    until(lambda: not delivery.running, "the thread sees that it was stopped")


def test_stop_from_its_own_thread_does_not_wait_for_itself(thread: Threads) -> None:
    said: list[bool] = []

    def pump(spool: Spool) -> bool:
        said.append(made.delivery.stop())
        return True

    made = thread(to(Reporter(None)), pump=pump)
    assert made.delivery.flush(LONG)
    assert said
    assert all(said)
    assert made.delivery.running


def test_flush_and_stop_as_the_loop_ends(thread: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is closed, and the thread not yet gone."""
    run, closed, go = asyncio.run, threading.Event(), threading.Event()

    def held(main: Any) -> None:
        run(main)
        closed.set()
        assert go.wait(LONG)

    monkeypatch.setattr(asyncio, "run", held)
    made = thread(to(Reporter(None)), pump=lambda spool: False)
    made.delivery.start()
    assert closed.wait(LONG)
    assert made.delivery.running
    try:
        assert not made.delivery.flush(LONG)
        assert made.delivery.stop(0.0)  # nothing is left to wait for
        assert not made.delivery.stop(0.06)  # for who has time the thread itself
    finally:
        go.set()
    assert made.delivery.stop(LONG)


def test_the_end_of_a_process_does_not_wait_for_a_slow_disk(thread: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    class History(Reporter):
        async def close(self) -> None:
            assert let_go.wait(LONG)

    def close(spool: Spool) -> None:
        assert let_go.wait(LONG)
        closing(spool)

    let_go, closing, other = threading.Event(), Spool.close, Reporter()
    made = thread(to(History(None), "history", trusted=True), to(other), pump=putting(["a"]))
    assert made.delivery.flush(LONG)
    monkeypatch.setattr(Spool, "close", close)
    try:
        until(lambda: made.delivery.stop(0.05), "nothing is left to wait for")
        assert made.delivery.running
        assert other.closed == 1  # a reporter is not the disk's: it got its moment
    finally:
        let_go.set()
    assert made.delivery.stop(LONG)
