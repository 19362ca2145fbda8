"""Sends what waits for one destination, batch by batch, and enters what became of each event.

What a destination gets of an event is decided by a function that it is given; sent are only bodies of the gate's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .. import clock, files
from ..bounds import DEFAULT, EXIT_SECONDS, Bounds
from ..errors import Rejected, RetryLater, TooLarge
from ..reporter import TelemetryReporter
from ..types import Batch, BatchEvent, BatchResult, EventResult, Lease, Leased, Ledger
from .cell import BlockedError, Cell, Here, Place
from .pace import Filling, Patience, most_events, pause, pause_asked
from .results import checked

log = logging.getLogger("cmdorc_telemetry")

TAKE_OVER_SECONDS = 60.0
"""How long beyond its timeout a sender may hold its lock without a sign before it is taken for a stopped process."""
_STORAGE_SECONDS = 60.0
_BLOCKED_SECONDS = 5.0
_BUSY_SECONDS = (0.1, 5.0)
"""How soon to look again where somebody else sends: first, and at most."""
_FLUSH_FAILURES = 3
_FLUSH_PAUSE = 15.0
_FLUSH_LOOKS = 0.2


class Queue(Protocol):
    """What delivery needs of the spool."""

    epoch: str

    def state(self, name: str) -> tuple[int, float]: ...
    def mark(self, name: str) -> float: ...
    def backlog(self, name: str, most: int) -> tuple[int, int, float]: ...
    def retry_at(self, name: str) -> float | None: ...
    def lease(self, name: str, now: float, *, count: int = ..., size: int = ...) -> Lease | None: ...
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
    """Makes the reporter: called where it will live, when there is something to send."""
    body: Body
    """What this destination gets of an event; None where consent was withdrawn meanwhile."""
    timeout: float = 10.0
    refresh: Callable[[], object] = lambda: None
    """Called before each batch: consent may have changed."""
    injected: bool = False
    """Whether the reporter is an object of this process, and gone with it."""
    trusted: bool = False
    """Whether the reporter is known not to block, so that it may run on the telemetry thread."""


class Worker:
    """Sends the events of one destination, batch by batch; never raises."""

    def __init__(
        self, destination: Destination, queue: Queue, locks: Path, bounds: Bounds = DEFAULT, *,
        take_over: float = TAKE_OVER_SECONDS,
    ) -> None:  # fmt: skip
        self.destination = destination
        self._queue, self._bounds, self._take_over = queue, bounds, take_over
        self._lock = files.FileLock(locks / f"{destination.name}.lock")
        self._heir = files.FileLock(locks / f"{destination.name}.heir.lock")
        self._place: Place = Here() if destination.trusted else Cell(f"telemetry-{destination.name}")
        self._reporter: TelemetryReporter | None = None  # touched only where it lives
        self._most = bounds.batch_events
        self._failed = 0
        self._patience, self._filling = Patience(bounds.pause_seconds), Filling(bounds)
        self._turn, self._nudged = asyncio.Lock(), asyncio.Event()
        self._ending = self._told = False
        self._busy: tuple[float, float] | None = None
        """The last sign of another sender that holds the lock, and since when it is the last."""
        self._look = _BUSY_SECONDS[0]
        if destination.injected:  # what it is to get may come in the last moment, when no thread is started any more
            with suppress(RuntimeError):  # then there is one more chance, at the first call
                self._place.open()

    # -- when ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what comes, until ``end``."""
        while not self._ending:
            self._nudged.clear()
            wait = await self.step()
            if wait == 0:
                await asyncio.sleep(0)
                continue
            timer = None if wait is None else asyncio.get_running_loop().call_later(wait, self._nudged.set)
            try:
                await self._nudged.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def nudge(self) -> None:
        """Something may wait."""
        self._nudged.set()

    def end(self) -> None:
        """Let ``run`` end behind the batch that is under way."""
        self._ending = True
        self._nudged.set()

    async def step(self, *, hurry: bool = False) -> float | None:
        """Send one batch. The seconds until there may be more: 0 for at once, None for nothing waiting.

        ``hurry``: also one that is not full, now.
        """
        async with self._turn:
            try:
                return await self._step(hurry)
            except Exception as fault:  # of the disk
                log.debug("delivery to %s waits: %r", self.destination.name, fault)
                return _STORAGE_SECONDS

    async def _step(self, hurry: bool) -> float | None:
        if self._place.blocked:
            return _BLOCKED_SECONDS
        wait = self._paused()[1] or (0.0 if hurry else self._unfilled())
        if wait != 0:
            return wait
        if not self._may_send():
            self._look = min(self._look * 2, _BUSY_SECONDS[1])
            return self._look / 2
        try:
            failures, wait = self._paused()  # again: who held the lock may have failed
            if wait:
                return wait
            count = most_events(failures, self._most)
            lease = self._queue.lease(
                self.destination.name, clock.wall(), count=count, size=self._bounds.batch_kib << 10
            )
            if lease is None:
                self._filling.over()
                due = self._due()  # never at once: whatever keeps the queue from giving it would be asked without end
                return None if due is None else max(due, _BUSY_SECONDS[0])
            await self._send(lease)
            return 0.0
        finally:
            self._lock.release()
            self._heir.release()

    def _paused(self) -> tuple[int, float]:
        """Failures in a row, and the seconds for which the destination is still left alone."""
        failures, until = self._queue.state(self.destination.name)
        return failures, self._patience.left(until, clock.wall(), clock.monotonic())

    def _due(self) -> float | None:
        """Seconds until an event that was put off is due; None for none."""
        due = self._queue.retry_at(self.destination.name)
        away = 0.0 if due is None else max(due - clock.wall(), 0.0)
        if away > self._bounds.pause_seconds:  # from before the clock was set back
            away = 0.0
        return None if due is None else away

    def _unfilled(self) -> float | None:
        """Seconds for which the next batch may wait for more events; None where none waits."""
        count, size, oldest = self._queue.backlog(self.destination.name, self._bounds.batch_events)
        left = self._filling.left(count, size, oldest, clock.wall(), clock.monotonic()) if count else None
        return min((each for each in (left, self._due()) if each is not None), default=None)

    def _may_send(self) -> bool:
        """One sender at a time; a stopped process does not hold up the others for ever."""
        if self._lock.acquire(wait=False):
            self._busy, self._look = None, _BUSY_SECONDS[0]
            return True
        mark, now = self._queue.mark(self.destination.name), clock.monotonic()
        if self._busy is None or self._busy[0] != mark:
            self._busy = (mark, now)
        # Of all that wait for it, one takes over.
        return now - self._busy[1] > self.destination.timeout + self._take_over and self._heir.acquire(wait=False)

    # -- what ----------------------------------------------------------------------------------------------------------

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
                result = await self._place.call(lambda: self._report(batch), self.destination.timeout)
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
            _enter(outcomes, sent, batch, result)
            if len(sent) > 1 and all(outcomes[item.seq].status == "retry" for item, _ in sent):
                self._postpone(RetryLater("every event of the batch is asked for again"))
                return
        self._most = min(self._most * 2, self._bounds.batch_events)
        self._filling.over()
        self._queue.settle(lease, outcomes, clock.wall(), answer=result.answer,
                           pause=lambda tries: self._pause(tries + 1))  # fmt: skip

    def _batch(self, lease: Lease, sent: Sequence[tuple[Leased, bytes]]) -> Batch:
        events = tuple(
            # Where a renaming took the id away, a number of this machine's own tells the events apart.
            BatchEvent(_ID.decode(body).event_id or str(item.seq), item.row.event, body, item.seq)
            for item, body in sent
        )
        dropped = self._queue.drops(lease.destination)
        return Batch(destination=lease.destination, events=events, epoch=self._queue.epoch, drops=dropped)

    async def _report(self, batch: Batch) -> BatchResult:
        """Where the reporter lives."""
        if self._reporter is None:
            self._reporter = self.destination.make()
        return checked(await self._reporter.report_batch(batch))

    def _pause(self, failures: int) -> float:
        return pause(failures, random.random(), self._bounds.pause_seconds)

    def _postpone(self, fault: Exception) -> None:
        name = self.destination.name
        wait = self._pause(self._queue.state(name)[0])
        if isinstance(fault, RetryLater):
            wait = pause_asked(fault.after, wait, self._bounds.pause_seconds)
        if isinstance(fault, BlockedError) and not self._told:
            self._told = True
            log.warning("the reporter of %r blocks its thread, and is left alone until that comes back", name)
        text = "no answer in time" if isinstance(fault, asyncio.TimeoutError) else type(fault).__name__
        self._failed += 1
        self._queue.postpone(name, clock.wall() + wait, _text(fault) or text)

    # -- now, and no more ----------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Send until nothing is left that could go now, or sending failed three times."""
        before = self._failed
        while self._failed - before < _FLUSH_FAILURES:
            wait = await self.step(hurry=True)
            if wait is None or wait > _FLUSH_PAUSE or self._place.blocked:
                return
            await asyncio.sleep(min(wait, _FLUSH_LOOKS))

    async def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Close the reporter, if there is one; give it so long."""
        if self._place.used:
            with suppress(Exception):
                await self._place.call(self._dismiss, seconds)
        self._place.close()

    async def _dismiss(self) -> None:
        """Where the reporter lives."""
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            await reporter.close()


def _enter(
    outcomes: dict[int, EventResult], sent: Sequence[tuple[Leased, bytes]], batch: Batch, result: BatchResult
) -> None:
    """What the receiver said of each event: nothing at all means accepted, nothing of this one means again."""
    if result.results is None:
        outcomes.update((item.seq, EventResult("", "accepted")) for item, _ in sent)
        return
    by_id = {each.event_id: each for each in result.results}
    again = EventResult("", "retry")
    for (item, _), event in zip(sent, batch.events, strict=True):
        outcomes[item.seq] = by_id.get(event.event_id, again)


def _text(fault: Exception) -> str:
    """What ``fault`` says, as far as it can be stored."""
    return str(fault).encode("utf-8", "replace").decode()


class _Id(msgspec.Struct):
    event_id: str = ""


_ID = msgspec.json.Decoder(_Id)
