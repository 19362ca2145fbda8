"""Where a reporter runs: a thread and an event loop of its own, so that one that blocks holds up nobody.

A call that hangs in an ``await`` is cancelled at its deadline. One that blocks the thread cannot be ended: it is left
alone, and as long as it does, nothing more is asked of that reporter and no second thread is made for it. Threads are
daemons; none is started before there is something to call. What blocks while it holds the interpreter cannot be
isolated.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ..errors import DeliveryError
from ..forks import own_thread

log = logging.getLogger("cmdorc_telemetry")

GRACE_SECONDS = 1.0
"""How long beyond its deadline a call may take to be cancelled before the thread is taken for blocked."""
ERRANDS = 8
"""Threads that a reporter may have at work through ``asyncio.to_thread``."""
_WIND_DOWN_SECONDS = 1.0

T = TypeVar("T")
Work = Callable[[], Awaitable[T]]


class BlockedError(DeliveryError):
    """A reporter blocks its thread."""


class Place(Protocol):
    """Where a reporter's methods are called."""

    @property
    def used(self) -> bool:
        """Whether anything was called here."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether a call has not come back, so that no other can be made."""
        ...

    def open(self) -> None:
        """Be ready for calls. Raises RuntimeError where that cannot be."""
        ...

    async def call(self, work: Work[T], seconds: float) -> T:
        """What ``work`` returns, or an Exception, and that in time. Raises asyncio.TimeoutError, BlockedError."""
        ...

    def close(self) -> None:
        """Nothing more will be called."""
        ...


class Here:
    """The loop of whoever calls: for reporters of this project's own, which are known not to block."""

    used, blocked = True, False

    def open(self) -> None:
        """It is there."""

    async def call(self, work: Work[T], seconds: float) -> T:
        """What ``work`` returns, or an Exception, and that in time."""
        return await bounded(work, seconds)

    def close(self) -> None:
        """Nothing is held."""


class Cell:
    """A thread of its own; made at the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: _Loop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._calling = False

    @property
    def used(self) -> bool:
        """Whether there is a thread."""
        return self._loop is not None

    @property
    def blocked(self) -> bool:
        """Whether a call has not come back."""
        return self._calling

    def open(self) -> None:
        """Start the thread. Raises RuntimeError where none can be had."""
        loop = _Loop()
        try:
            threading.Thread(target=loop.live, name=self._name, daemon=True).start()
        except RuntimeError:
            loop.close()
            raise
        self._loop = loop

    async def call(self, work: Work[T], seconds: float) -> T:
        """What ``work`` returns in the cell, or an Exception. Raises BlockedError where it does not come back."""
        if self._calling:
            raise BlockedError("it still blocks")
        if self._loop is None:
            self.open()
        here, inside = asyncio.get_running_loop(), self._loop
        assert inside is not None
        answer: asyncio.Future[T] = here.create_future()

        def begin() -> None:
            self._task = inside.create_task(bounded(work, seconds))
            self._task.add_done_callback(end)

        def end(task: asyncio.Task[T]) -> None:
            self._task, self._calling = None, False
            with suppress(RuntimeError):  # the other loop is closed: nobody waits any more
                here.call_soon_threadsafe(_hand_over, task, answer)

        self._calling = True
        inside.call_soon_threadsafe(begin)
        try:
            await asyncio.wait({answer}, timeout=seconds + GRACE_SECONDS)
        finally:
            if not answer.done():
                answer.cancel()
                inside.call_soon_threadsafe(lambda: self._task and self._task.cancel())
            else:
                answer.exception()  # whoever asked may be gone: then nobody else looks at it
        if answer.cancelled():
            raise BlockedError(f"it blocks its thread: no answer in {seconds:g} s")
        return answer.result()

    def close(self) -> None:
        """Let the thread end, as soon as what it does lets it."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.end()


def _hand_over(task: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
    if answer.done():
        return
    if task.cancelled():
        answer.set_exception(RuntimeError("it cancelled itself"))
    elif fault := task.exception():
        answer.set_exception(fault)
    else:
        answer.set_result(task.result())


async def bounded(work: Work[T], seconds: float) -> T:
    """What ``work`` returns, or an Exception, and that in time: what will not end is left behind."""

    async def tamed() -> T:
        try:
            return await work()
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as fault:  # would end the loop, or whoever asks
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


class _Loop(asyncio.SelectorEventLoop):
    """A loop that whatever runs in it cannot end, whose helper threads hold up no interpreter's end.

    Not made by the host's policy, which is the host's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._over = False
        self._errands: set[threading.Thread] = set()
        self.set_exception_handler(lambda loop, context: log.debug("in a reporter: %s", context.get("message")))

    def live(self) -> None:
        """Run until ``end``, in the thread that this is called on."""
        with own_thread():
            while not self._over:
                with suppress(BaseException):  # SystemExit in a task that the reporter made
                    self.run_forever()
            with suppress(BaseException):
                self.run_until_complete(self._wind_down())
        self.close()

    async def _wind_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_WIND_DOWN_SECONDS)

    def end(self) -> None:
        """End ``live``, from any thread."""
        self._over = True
        with suppress(RuntimeError):  # it has ended
            self.call_soon_threadsafe(self.stop)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Like asyncio's. Its own threads would be waited for when the interpreter ends, however long they hang."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        self._errands = {thread for thread in self._errands if thread.is_alive()}
        if len(self._errands) >= ERRANDS:
            raise RuntimeError(f"{ERRANDS} threads of this reporter are at work or hang")
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                settle: Callable[..., object] = future.set_result
                outcome: Any = func(*args)
            except BaseException as fault:
                settle, outcome = future.set_exception, fault
            with suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(lambda: future.done() or settle(outcome))

        thread = threading.Thread(target=run, name="telemetry-errand", daemon=True)
        thread.start()
        self._errands.add(thread)
        return future
