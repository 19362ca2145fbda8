"""Sends what waits for one destination, batch by batch, and enters what became of each event.

What a destination gets of an event is decided by a function that it is given; sent are only bodies of the gate's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from .. import clock, files
from ..errors import Rejected, RetryLater, StorageError, TooLarge
from ..reporter import TelemetryReporter
from ..types import Batch, BatchEvent, BatchResult, EventResult, Lease, Leased, Ledger

log = logging.getLogger("cmdorc_telemetry")

BATCH_EVENTS = 500
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 3600.0
EXIT_SECONDS = 0.05
TAKE_OVER_SECONDS = 60.0
"""How long beyond its timeout a sender may hold its lock without a sign before it is taken for a stopped process."""
_FLUSH_FAILURES = 3
_FLUSH_PAUSE = 15.0


class Queue(Protocol):
    """What delivery needs of the spool."""

    epoch: str

    def state(self, name: str) -> tuple[int, float]: ...
    def mark(self, name: str) -> float: ...
    def retry_at(self, name: str) -> float | None: ...
    def lease(self, name: str, now: float, *, count: int = ...) -> Lease | None: ...
    def settle(
        self, lease: Lease, outcomes: Mapping[int, EventResult], now: float, *,
        pause: Callable[[int], float] = ..., answer: Mapping[str, Any] | None = ...,
    ) -> None: ...  # fmt: skip
    def postpone(self, name: str, until: float, error: str) -> None: ...
    def hurry(self) -> None: ...
    def drops(self, name: str) -> dict[str, int]: ...
    def ledger(self) -> dict[str, Ledger]: ...
    def abandon(self, name: str, reason: str) -> None: ...
    def close(self) -> None: ...


Body = Callable[[Leased], bytes | None]


@dataclass(frozen=True)
class Destination:
    """Where a worker sends to."""

    name: str
    make: Callable[[], TelemetryReporter]
    """Makes the reporter: called on the telemetry thread, when there is something to send."""
    body: Body
    """What this destination gets of an event; None where consent was withdrawn meanwhile."""
    timeout: float = 10.0
    refresh: Callable[[], object] = lambda: None
    """Called before each batch: consent may have changed."""
    injected: bool = False
    """Whether the reporter is an object of this process, and gone with it."""


def pause(failures: int, chance: float) -> float:
    """Seconds to wait after so many failures in a row: full jitter, ``chance`` from 0 to 1."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 30)) * chance


T = TypeVar("T")


async def _bounded(call: Awaitable[T], seconds: float) -> T:
    """What a reporter's ``call`` returns, or an Exception, and that in time: one that will not end is left behind."""

    async def tamed() -> T:
        try:
            return await call
        except (SystemExit, KeyboardInterrupt) as fault:  # either would end the loop
            raise RuntimeError(f"{type(fault).__name__}: {fault}") from fault

    task = asyncio.ensure_future(tamed())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # if left behind, nobody else asks
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        in_time = task.done()
        task.cancel()
    if not in_time:
        raise asyncio.TimeoutError
    if task.cancelled():
        raise RuntimeError("it cancelled itself")
    return task.result()


class Worker:
    """Sends the events of one destination, batch by batch; never raises."""

    def __init__(self, destination: Destination, queue: Queue, locks: Path) -> None:
        self.destination = destination
        self._queue, self._lock = queue, files.FileLock(locks / f"{destination.name}.lock")
        self._reporter: TelemetryReporter | None = None
        self._most = BATCH_EVENTS
        self._turn = asyncio.Lock()
        self._blocked: tuple[float, float] | None = None
        """The last sign of another sender that holds the lock, and since when it is the last."""

    async def step(self) -> float | None:
        """Send one batch. The seconds until there may be more: 0 for at once, None for nothing waiting."""
        async with self._turn:
            name, now = self.destination.name, clock.wall()
            try:
                _, until = self._queue.state(name)
                if now < until <= now + LONGEST_PAUSE:  # a later moment is from before the clock was set
                    return until - now
                if not self._may_send():
                    return 0.1
                try:
                    lease = self._queue.lease(name, now, count=self._most)
                    if lease is None:
                        due = self._queue.retry_at(name)
                        return None if due is None else max(due - now, 0.0)
                    await self._send(lease)
                    return 0.0
                finally:
                    self._lock.release()
            except Exception as fault:  # of the disk
                log.debug("delivery to %s waits: %r", name, fault)
                return LONGEST_PAUSE / 60

    def _may_send(self) -> bool:
        """One sender at a time; a stopped process does not hold up the others for ever."""
        if self._lock.acquire(wait=False):
            self._blocked = None
            return True
        mark, now = self._queue.mark(self.destination.name), clock.monotonic()
        if self._blocked is None or self._blocked[0] != mark:
            self._blocked = (mark, now)
        return now - self._blocked[1] > self.destination.timeout + TAKE_OVER_SECONDS

    async def _send(self, lease: Lease) -> None:
        outcomes: dict[int, EventResult] = {}
        sent: list[tuple[Leased, bytes]] = []
        result = BatchResult()
        try:
            self.destination.refresh()
            for item in lease.items:
                body = self.destination.body(item)
                if body is None:
                    outcomes[item.seq] = EventResult("", "rejected", "withdrawn-consent")
                else:
                    sent.append((item, body))
            batch = self._batch(lease, sent)
            if sent:
                result = await _bounded(self._report(batch), self.destination.timeout)
        except (TooLarge, Rejected) as fault:
            if len(sent) > 1:  # find the event that is to blame
                self._most = max(1, len(sent) // 2)
                return
            reason = "over-size" if isinstance(fault, TooLarge) else f"set-aside: {_text(fault)}"
            outcomes[sent[0][0].seq] = EventResult("", "rejected", reason)
        except Exception as fault:
            self._postpone(fault)
            return
        else:
            by_id = {each.event_id: each for each in result.results or ()}
            for (item, _), event in zip(sent, batch.events, strict=True):
                accepted = EventResult(event.event_id, "accepted") if result.results is None else None
                outcome = by_id.get(event.event_id) or accepted
                if outcome is not None:
                    outcomes[item.seq] = outcome
        self._most = min(self._most * 2, BATCH_EVENTS)
        self._queue.settle(lease, outcomes, clock.wall(), answer=result.answer,
                           pause=lambda tries: pause(tries + 1, random.random()))  # fmt: skip

    def _batch(self, lease: Lease, sent: Sequence[tuple[Leased, bytes]]) -> Batch:
        events = tuple(
            # Where a renaming took the id away, a number of this machine's own tells the events apart.
            BatchEvent(msgspec.json.decode(body, type=_Id).event_id or str(item.seq), item.row.event, body)
            for item, body in sent
        )
        dropped = self._queue.drops(lease.destination)
        return Batch(destination=lease.destination, events=events, epoch=self._queue.epoch, drops=dropped)

    async def _report(self, batch: Batch) -> BatchResult:
        if self._reporter is None:
            self._reporter = self.destination.make()
        result = await self._reporter.report_batch(batch)
        if result is None:
            return BatchResult()
        if not isinstance(result, BatchResult):
            raise TypeError(f"report_batch returned {type(result).__name__} instead of a BatchResult")
        # What is inside may be anything, too.
        return msgspec.json.decode(msgspec.json.encode(result, enc_hook=dict), type=BatchResult)

    def _postpone(self, fault: Exception) -> None:
        name = self.destination.name
        failures, _ = self._queue.state(name)
        wait = fault.after if isinstance(fault, RetryLater) and fault.after is not None else None
        wait = pause(failures, random.random()) if wait is None else min(wait, LONGEST_PAUSE)
        text = "no answer in time" if isinstance(fault, asyncio.TimeoutError) else type(fault).__name__
        self._queue.postpone(name, clock.wall() + wait, _text(fault) or text)

    async def drain(self) -> None:
        """Send until nothing is left that could go now, or sending failed three times."""
        while True:
            try:
                before, _ = self._queue.state(self.destination.name)
            except StorageError:
                return
            if before >= _FLUSH_FAILURES:
                return
            wait = await self.step()
            if wait is None or wait > _FLUSH_PAUSE:
                return
            await asyncio.sleep(min(wait, 0.5))

    async def close(self) -> None:
        """Close the reporter, if there is one; give it 50 ms."""
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            with suppress(Exception):
                await _bounded(reporter.close(), EXIT_SECONDS)


def _text(fault: Exception) -> str:
    """What ``fault`` says, as far as it can be stored."""
    return str(fault).encode("utf-8", "replace").decode()


class _Id(msgspec.Struct):
    event_id: str = ""
