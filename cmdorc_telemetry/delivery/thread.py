"""The telemetry thread: a daemon with an event loop of its own, in which journals are imported and workers send.

The queue is touched on it alone. Where nothing is recorded and nothing waits, it sleeps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import clock, files
from ..bounds import DEFAULT, EXIT_SECONDS, Bounds
from ..errors import StorageError, told
from ..forks import own_thread
from .outlet import Destination
from .worker import Queue, Worker

log = logging.getLogger("cmdorc_telemetry")

IMPORT_SECONDS = 1.0
"""How often at most what this process recorded is imported. A trickle waits until it may be sent: ``batch_seconds``."""
LONG_IMPORT_SECONDS = 0.02
"""An import that took longer had much to do: the next one follows soon."""
LOOK_SECONDS = 10.0
"""How often to look for what other processes left behind, and whether the decision is still what it was."""
_PIECE_SECONDS = 0.1
_LAST_BATCH_SECONDS = EXIT_SECONDS * 0.2


@dataclass
class Delivery:
    """The telemetry thread. ``open_queue`` and ``pump`` are called on it; ``pump`` imports journals."""

    open_queue: Callable[[], Queue]
    destinations: Sequence[Destination]
    pump: Callable[[Any], bool]
    locks: Path
    bounds: Bounds = DEFAULT
    on_trouble: Callable[[str], None] = log.warning
    """Told in a sentence what keeps it from delivering."""
    asleep: bool = False
    """Whether the thread looks at this process's journal only when ``wake`` is called."""
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _news: asyncio.Event | None = None
    _tried: asyncio.Event | None = None
    """Whether it was tried to open the queue."""
    _over: threading.Event = field(default_factory=threading.Event)
    """Set when nothing is sent or written any more: what is left is to close files, which may take the disk a while."""
    _stopping: bool = False
    _workers: list[Worker] = field(default_factory=list)
    _queue: Queue | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; harmless where it runs. Where no thread can be had, events wait for another process."""
        with self._starting:  # a flush may come while somebody else starts it
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
                try:
                    thread.start()
                except RuntimeError as fault:
                    log.debug("no telemetry thread: %s", fault)
                else:
                    self._thread = thread

    def wake(self) -> None:
        """Something was recorded. To be called when ``asleep``, from any thread; in a forked child it does nothing."""
        self.asleep = False
        self._tell()

    def _tell(self) -> None:
        if self.running and self._loop is not None and self._news is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        try:
            with own_thread():
                asyncio.run(self._main())
        except Exception as fault:
            self.on_trouble(f"telemetry cannot deliver: {told(fault, ours=True)}. Events are kept.")
        finally:
            self.asleep = False
            self._ready.set()
            self._over.set()

    async def _main(self) -> None:
        self._news, self._tried = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        while await self._serve():
            self._over.clear()
            self.destinations = [each for each in self.destinations if not each.injected]  # whose reporters are closed

    async def _serve(self) -> bool:
        """Deliver what is in one queue. Whether it was taken away, by an opt-out for example: then there is another."""
        queue = await self._opened()
        if queue is None:
            return False
        try:
            files.own_dir(self.locks)
            self._workers = [Worker(each, queue, self.locks, self.bounds) for each in self.destinations]
            self._ready.set()
            tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
            recording = await self._import(queue)
            gone = recording and queue.gone and not self._stopping
            await self._end(queue, tasks, recording and not gone)
            return gone
        finally:
            self._queue = None
            queue.close()

    async def _opened(self) -> Queue | None:
        """The queue, as soon as it can be had: a full disk has room some day. None where the end comes first."""
        assert self._news is not None
        assert self._tried is not None
        told = False
        while not self._stopping:
            try:
                self._queue = self.open_queue()
            except (StorageError, OSError) as fault:
                if not told:
                    self.on_trouble(f"telemetry cannot deliver: {fault}. Events are kept.")
                told = True
            self._tried.set()
            if self._queue is not None:
                return self._queue
            self._ready.set()  # for a flush, which tries again
            await self._news_within(LOOK_SECONDS)
            self._news.clear()
        return None

    # -- import -------------------------------------------------------------------------------------------------------

    async def _import(self, queue: Queue) -> bool:
        """Import what is recorded until the thread is to stop, or the queue is gone. Whether recording is still on."""
        assert self._news is not None
        while True:
            self.asleep = True  # before the look: what is recorded meanwhile wakes again
            self._news.clear()
            start = clock.perf()
            if not self._pump(queue):
                return False
            if queue.gone:
                return True
            much = clock.perf() - start > LONG_IMPORT_SECONDS
            for worker in self._workers:
                worker.nudge()
            if await self._news_within(LOOK_SECONDS):
                self._news.clear()
                await self._news_within(IMPORT_SECONDS if much else max(IMPORT_SECONDS, self.bounds.batch_seconds))
            if self._stopping:
                # For an injected reporter there is no later; everything else is left to the next process.
                return self._pump(queue) if any(each.injected for each in self.destinations) else True

    async def _news_within(self, seconds: float) -> bool:
        """Wait for something recorded, or the end. Whether it came."""
        assert self._news is not None
        with suppress(asyncio.TimeoutError):
            return self._stopping or await asyncio.wait_for(self._news.wait(), seconds)
        return False

    def _pump(self, queue: Queue) -> bool:
        try:
            return self.pump(queue)
        except (StorageError, OSError) as fault:
            log.debug("import waits: %s", told(fault))
            return True

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _end(self, queue: Queue, tasks: Sequence[asyncio.Task[None]], recording: bool) -> None:
        """Let the batch under way arrive, close the reporters, and hold up nobody for longer than a moment."""
        injected = [worker for worker in self._workers if worker.destination.injected]
        last = [*tasks]
        if recording:  # otherwise it was switched off: send nothing any more
            for worker in self._workers:
                worker.end()
            last += [asyncio.create_task(worker.drain()) for worker in injected]
            if last:
                await asyncio.wait(last, timeout=_LAST_BATCH_SECONDS)
        for task in last:
            task.cancel()
        await asyncio.gather(*last, return_exceptions=True)
        own = [worker for worker in self._workers if worker.destination.trusted]
        others = [worker for worker in self._workers if not worker.destination.trusted]
        await asyncio.gather(*(worker.close(EXIT_SECONDS * 0.5) for worker in others))
        if recording:
            for worker in injected:
                with suppress(StorageError):
                    queue.abandon(worker.destination.name, "reporter-gone")
        self._over.set()
        await asyncio.gather(*(worker.close() for worker in own))

    def stop(self, timeout: float = EXIT_SECONDS) -> bool:
        """Let the thread end; wait for it at most ``timeout`` seconds. Whether it ended.

        Who has no more time than the end of a process does not wait until files are closed: they need not be.
        """
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._stopping = True
        self._tell()
        if timeout > EXIT_SECONDS:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return self._over.wait(timeout)

    # -- now --------------------------------------------------------------------------------------------------------

    def flush(self, timeout: float, *, hurry: bool = True) -> bool:
        """Import and send all there is, now. Whether nothing of this machine waits any more.

        ``hurry``: somebody asked for it, so that pauses after failures are forgotten.
        """
        deadline = clock.monotonic() + timeout
        self.start()
        if not self.running or not _wait(self._ready.wait, deadline) or self._loop is None:
            return False
        work = self._flush(hurry)
        try:
            request = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # it ended this moment
            work.close()
            return False
        try:
            _wait(lambda seconds: bool(wait([request], seconds).done), deadline)
            return request.result(0.001)
        except Exception as fault:
            request.cancel()
            log.debug("flush ended early: %s", told(fault))
            return False

    async def _flush(self, hurry: bool) -> bool:
        assert self._news is not None
        assert self._tried is not None
        if self._queue is None:
            self._tried.clear()
            self._news.set()
            await self._tried.wait()
        queue = self._queue
        if queue is None or not self._pump(queue):
            return False
        if queue.gone:
            self._news.set()
            return False
        if hurry:
            with suppress(StorageError):
                queue.hurry()
        await asyncio.gather(*(worker.drain() for worker in self._workers))
        names = {worker.destination.name for worker in self._workers}
        return all(not ledger.pending for name, ledger in queue.ledger().items() if name in names)


def _wait(done: Callable[[float], bool], deadline: float) -> bool:
    """Wait in small pieces: a Ctrl-C that another thread receives, or that comes just before, does not end a wait."""
    while (left := deadline - clock.monotonic()) > _PIECE_SECONDS:
        if done(_PIECE_SECONDS):
            return True
    return done(max(left, 0.0))
