"""Takes events out of the spool to where they go: one worker a destination, retries, acknowledgements.

Runs in one daemon thread with an event loop of its own. Sends only bodies that the gate made; what a
destination gets of them is decided by a function that it is given.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from . import clock, files
from .errors import Rejected, RetryLater, StorageError, TooLarge
from .reporter import TelemetryReporter
from .types import Batch, BatchEvent, BatchResult, EventResult, Lease, Leased, Ledger

log = logging.getLogger("cmdorc_telemetry")

BATCH_EVENTS = 500
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 3600.0
IMPORT_SECONDS = 1.0
"""How often journals are looked at while the process runs."""
EXIT_SECONDS = 0.05
_FLUSH_FAILURES = 3


class Queue(Protocol):
    """What delivery needs of the spool."""

    epoch: str

    def state(self, name: str) -> tuple[int, float]: ...
    def retry_at(self, name: str) -> float | None: ...
    def lease(self, name: str, now: float, *, count: int = ...) -> Lease | None: ...
    def settle(
        self, lease: Lease, outcomes: Mapping[int, EventResult], now: float, *,
        pause: Callable[[int], float] = ..., answer: Mapping[str, Any] | None = ...,
    ) -> None: ...  # fmt: skip
    def postpone(self, name: str, until: float, error: str) -> None: ...
    def hurry(self) -> None: ...
    def drops(self, name: str) -> dict[str, int]: ...  # noqa: D102
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


class Worker:
    """Sends the events of one destination, batch by batch; never raises."""

    def __init__(self, destination: Destination, queue: Queue, locks: Path) -> None:
        self.destination = destination
        self._queue, self._lock = queue, files.FileLock(locks / f"{destination.name}.lock")
        self._reporter: TelemetryReporter | None = None
        self._most = BATCH_EVENTS
        self._turn = asyncio.Lock()

    async def step(self) -> float | None:
        """Send one batch. The seconds until there may be more: 0 for at once, None for nothing waiting."""
        async with self._turn:
            name, now = self.destination.name, clock.wall()
            try:
                _, until = self._queue.state(name)
                if until > now:
                    return until - now
                if not self._lock.acquire(wait=False):
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
            except (StorageError, OSError) as fault:
                log.debug("delivery to %s waits: %s", name, fault)
                return LONGEST_PAUSE / 60

    async def _send(self, lease: Lease) -> None:
        self.destination.refresh()
        bodies = [(item, self.destination.body(item)) for item in lease.items]
        batch = self._batch(lease, [(item, body) for item, body in bodies if body is not None])
        outcomes = {item.seq: EventResult("", "rejected", "withdrawn-consent") for item, body in bodies if body is None}
        if not batch.events:
            self._queue.settle(lease, outcomes, clock.wall())
            return
        sent = [item for item, body in bodies if body is not None]
        try:
            result = await asyncio.wait_for(self._report(batch), self.destination.timeout)
        except (TooLarge, Rejected) as fault:
            if len(sent) > 1:  # find the event that is to blame
                self._most = max(1, len(sent) // 2)
                return
            reason = "over-size" if isinstance(fault, TooLarge) else f"set-aside: {fault}"
            result = BatchResult(results=(EventResult(batch.events[0].event_id, "rejected", reason),))
        except Exception as fault:
            self._postpone(fault)
            return
        by_id = {each.event_id: each for each in result.results or ()}
        for item, event in zip(sent, batch.events, strict=True):
            accepted = EventResult(event.event_id, "accepted") if result.results is None else None
            outcome = by_id.get(event.event_id) or accepted
            if outcome is not None:
                outcomes[item.seq] = outcome
        self._most = min(self._most * 2, BATCH_EVENTS)
        self._queue.settle(lease, outcomes, clock.wall(), answer=result.answer,
                           pause=lambda tries: pause(tries + 1, random.random()))  # fmt: skip

    def _batch(self, lease: Lease, bodies: Sequence[tuple[Leased, bytes]]) -> Batch:
        dropped = self._queue.drops(lease.destination)
        events = tuple(
            BatchEvent(msgspec.json.decode(body, type=_Id).event_id, item.row.event, body) for item, body in bodies
        )
        return Batch(destination=lease.destination, events=events, epoch=self._queue.epoch, drops=dropped)

    async def _report(self, batch: Batch) -> BatchResult:
        if self._reporter is None:
            self._reporter = self.destination.make()
        result = await self._reporter.report_batch(batch)
        if result is None:
            return BatchResult()
        if not isinstance(result, BatchResult):
            raise TypeError(f"report_batch returned {type(result).__name__} instead of a BatchResult")
        return result

    def _postpone(self, fault: Exception) -> None:
        name = self.destination.name
        failures, _ = self._queue.state(name)
        wait = fault.after if isinstance(fault, RetryLater) and fault.after is not None else None
        wait = pause(failures, random.random()) if wait is None else min(wait, LONGEST_PAUSE)
        text = str(fault) or ("no answer in time" if isinstance(fault, asyncio.TimeoutError) else type(fault).__name__)
        self._queue.postpone(name, clock.wall() + wait, text)

    async def drain(self) -> None:
        """Send until nothing is left that could go now, or sending failed three times."""
        while True:
            before, _ = self._queue.state(self.destination.name)
            if before >= _FLUSH_FAILURES:
                return
            wait = await self.step()
            if wait is None:
                return
            await asyncio.sleep(min(wait, 0.5) if wait else 0)

    async def close(self) -> None:
        """Close the reporter, if there is one; give it 50 ms."""
        if self._reporter is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._reporter.close(), EXIT_SECONDS)
            self._reporter = None


class _Id(msgspec.Struct):
    event_id: str = ""


@dataclass
class Delivery:
    """The telemetry thread. ``open_queue`` and ``pump`` are called on it; ``pump`` imports journals."""

    open_queue: Callable[[], Queue]
    destinations: Sequence[Destination]
    pump: Callable[[Any], bool]
    locks: Path
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _workers: list[Worker] = field(default_factory=list)
    _queue: Queue | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; harmless where it runs. Where no thread can be had, events wait for another process."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as fault:
                log.debug("no telemetry thread: %s", fault)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as fault:
            log.warning("telemetry cannot deliver: %s. Events are kept.", fault)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        queue = self._queue = self.open_queue()
        try:
            files.private_dir(self.locks)
            self._workers = [Worker(each, queue, self.locks) for each in self.destinations]
            self._ready.set()
            tasks = [asyncio.create_task(self._work(worker)) for worker in self._workers]
            while not self._stop.is_set():
                if not self._pump(queue):
                    return  # recording was switched off: touch nothing any more
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), IMPORT_SECONDS)
            self._pump(queue)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            last = [worker.drain() for worker in self._workers if worker.destination.injected]
            with suppress(asyncio.TimeoutError):  # for an injected reporter there is no later
                await asyncio.wait_for(asyncio.gather(*last), EXIT_SECONDS * 0.8)
            await asyncio.gather(*(worker.close() for worker in self._workers))
            for each in self.destinations:
                if each.injected:
                    queue.abandon(each.name, "reporter-gone")
        finally:
            queue.close()

    def _pump(self, queue: Queue) -> bool:
        try:
            return self.pump(queue)
        except (StorageError, OSError) as fault:
            log.debug("import waits: %s", fault)
            return True

    async def _work(self, worker: Worker) -> None:
        while True:
            wait = await worker.step()
            await asyncio.sleep(IMPORT_SECONDS if wait is None else min(wait, IMPORT_SECONDS * 5))

    def flush(self, timeout: float) -> bool:
        """Import and send all there is, now. Whether nothing of this machine waits any more."""
        deadline = clock.monotonic() + timeout
        self.start()
        if not self._ready.wait(timeout) or self._loop is None or not self.running:
            return False
        request = asyncio.run_coroutine_threadsafe(self._flush(), self._loop)
        try:
            return request.result(max(deadline - clock.monotonic(), 0.001))
        except (FutureTimeoutError, asyncio.CancelledError):
            request.cancel()
            return False

    async def _flush(self) -> bool:
        queue = self._queue
        assert queue is not None
        self._pump(queue)
        with suppress(StorageError):
            queue.hurry()
        await asyncio.gather(*(worker.drain() for worker in self._workers))
        names = {worker.destination.name for worker in self._workers}
        return all(not ledger.pending for name, ledger in queue.ledger().items() if name in names)

    def stop(self, timeout: float = EXIT_SECONDS) -> bool:
        """Let the thread end; wait for it at most ``timeout`` seconds. Whether it ended."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout)
        return not self._thread.is_alive()
