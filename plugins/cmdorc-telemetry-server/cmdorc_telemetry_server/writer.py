"""One thread that commits what many requests wait for, together: one disk flush for all that came meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from .store import StoreUnavailable

Job = TypeVar("Job")
_MOST_WAITING = 1_000
_MOST_TOGETHER = 64


class GroupWriter(Generic[Job]):
    """Hands jobs to ``commit``, several at a time, on a thread of its own; each caller gets its own result.

    ``commit`` makes all of a group durable or none of it, and returns one result a job. What it raises,
    every job of the group gets.
    """

    def __init__(self, commit: Callable[[Sequence[Job]], Sequence[Any]]) -> None:
        self._commit = commit
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="telemetry-store", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """The future result of ``job``. Raises StoreUnavailable where too many wait."""
        if self._jobs.qsize() >= _MOST_WAITING:
            raise StoreUnavailable("the store is busy", after=1)
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def stop(self) -> None:
        """Finish all jobs, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            group = []
            entry = self._jobs.get()
            while entry is not None:
                group.append(entry)
                if self._jobs.empty() or len(group) == _MOST_TOGETHER:
                    break
                entry = self._jobs.get()
            running = entry is not None
            self._finish([entry for entry in group if entry[1].set_running_or_notify_cancel()])

    def _finish(self, group: Sequence[tuple[Job, Future[Any]]]) -> None:
        if not group:
            return
        try:
            results = self._commit([job for job, _ in group])
        except Exception as fault:
            for _, future in group:
                future.set_exception(fault)
            return
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
