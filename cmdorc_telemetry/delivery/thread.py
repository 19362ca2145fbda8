"""The telemetry thread: a daemon with an event loop of its own, in which journals are imported and workers send."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import clock, files
from ..errors import StorageError
from .worker import EXIT_SECONDS, Destination, Queue, Worker

log = logging.getLogger("cmdorc_telemetry")

IMPORT_SECONDS = 1.0
"""How often journals are looked at while the process runs."""


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
    _stopping: bool = False
    _workers: list[Worker] = field(default_factory=list)
    _queue: Queue | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; harmless where it runs. Where no thread can be had, events wait for another process."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            try:
                thread.start()
            except RuntimeError as fault:
                log.debug("no telemetry thread: %s", fault)
            else:
                self._thread = thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as fault:
            log.warning("telemetry cannot deliver: %s. Events are kept.", fault)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping:  # before there was a loop to tell it to
            self._stop.set()
        queue = self._queue = self.open_queue()
        try:
            files.private_dir(self.locks)
            self._workers = [Worker(each, queue, self.locks) for each in self.destinations]
            self._ready.set()
            tasks = [asyncio.create_task(self._work(worker)) for worker in self._workers]
            recording = self._pump(queue)
            while recording and not self._stop.is_set():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), IMPORT_SECONDS)
                recording = self._pump(queue)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            injected = [worker for worker in self._workers if worker.destination.injected]
            if recording:  # otherwise it was switched off: touch nothing any more
                last = asyncio.gather(*(worker.drain() for worker in injected))
                with suppress(asyncio.TimeoutError):  # for an injected reporter there is no later
                    await asyncio.wait_for(last, EXIT_SECONDS * 0.8)
            await asyncio.gather(*(worker.close() for worker in self._workers))
            if recording:
                for worker in injected:
                    with suppress(StorageError):
                        queue.abandon(worker.destination.name, "reporter-gone")
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
        if not self.running or not self._ready.wait(timeout) or self._loop is None:
            return False
        work = self._flush()
        try:
            request = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it ended this moment
            work.close()
            return False
        try:
            return request.result(max(deadline - clock.monotonic(), 0.001))
        except Exception as fault:
            request.cancel()
            log.debug("flush ended early: %r", fault)
            return False

    async def _flush(self) -> bool:
        queue = self._queue
        assert queue is not None
        if not self._pump(queue):
            return False
        with suppress(StorageError):
            queue.hurry()
        await asyncio.gather(*(worker.drain() for worker in self._workers))
        names = {worker.destination.name for worker in self._workers}
        return all(not ledger.pending for name, ledger in queue.ledger().items() if name in names)

    def stop(self, timeout: float = EXIT_SECONDS) -> bool:
        """Let the thread end; wait for it at most ``timeout`` seconds. Whether it ended."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._stopping = True
        if self.running and self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout)
        return not self._thread.is_alive()
