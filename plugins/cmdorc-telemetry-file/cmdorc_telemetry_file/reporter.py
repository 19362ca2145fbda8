"""The file reporter: settings, the lock, and what becomes of a batch. The file itself is in ``lines.py``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import RetryLater, StorageError
from cmdorc_telemetry.files import FileLock, private_dir
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult, EventResult

from .lines import LineFile

_LOCK_SECONDS = 5.0
"""How long another process may hold the lock before the batch is put off."""
_LOCK_PAUSE = 0.01


class LocalFileReporter(TelemetryReporter):
    """Appends each event as one line of JSON to a file that only the user can read."""

    name = "file"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of a ``file`` destination."""

        path: str
        """Absolute, or beginning with ``~``."""
        max_bytes: int = 1_000_000
        """The file is rotated before it would grow larger."""
        files: int = 5
        """How many rotated files are kept beside it."""

        def __post_init__(self) -> None:
            if "\0" in self.path or not Path(self.path).expanduser().is_absolute():
                raise ValueError(f"path: found {self.path!r}; expected an absolute path, or one that begins with '~/'")
            if self.max_bytes < 1000:
                raise ValueError(f"max_bytes: found {self.max_bytes}; expected 1000 or more")
            if not 1 <= self.files <= 1000:
                raise ValueError(f"files: found {self.files}; expected 1 to 1000")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._path = Path(settings.path).expanduser()
        self._max_bytes, self._files = settings.max_bytes, settings.files

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Append one event. Raises RetryLater where the file cannot be written."""
        body = msgspec.json.encode({"event": event, **payload})
        event_id = str(payload.get("event_id", ""))
        await self.report_batch(Batch(destination="file", events=(BatchEvent(event_id, event, body),)))

    async def report_batch(self, batch: Batch) -> BatchResult:
        """Append a batch, all of it or nothing. Raises RetryLater where the file cannot be written.

        Events that the end of the file holds already, because an acknowledgement was lost, are duplicates.
        """
        if not batch.events:
            return BatchResult()
        unique = {each.body for each in batch.events if each.event_id and each.event_id.encode() in each.body}
        async with self._locked() as file:
            present = file.append([each.body for each in batch.events], unique)
        return BatchResult(
            results=tuple(
                EventResult(each.event_id, "duplicate" if each.body in present else "accepted") for each in batch.events
            )
        )

    async def erase(self, install_ids: Sequence[str]) -> bool:
        """Delete the file, its rotated predecessors and its lock, whatever installs they hold."""
        if not self._path.parent.exists():
            return True
        try:
            async with self._locked() as file:
                file.remove()
            self._lock_path(file.path).unlink(missing_ok=True)
        except (RetryLater, OSError):
            return False
        return True

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[LineFile]:
        """The file, while no other process or task writes to it. OSErrors inside become RetryLater."""
        try:
            path = self._target()
            lock = FileLock(self._lock_path(path))
            deadline = clock.monotonic() + _LOCK_SECONDS
            while not lock.acquire(wait=False):
                if clock.monotonic() > deadline:
                    raise RetryLater(f"{path}: another process holds its lock for more than {_LOCK_SECONDS:g} s")
                await asyncio.sleep(_LOCK_PAUSE)
            try:
                yield LineFile(path, self._max_bytes, self._files)
            finally:
                lock.release()
        except StorageError as fault:
            raise RetryLater(str(fault)) from None
        except OSError as fault:
            raise RetryLater(f"{self._path}: {fault.strerror or fault}") from None

    def _target(self) -> Path:
        """The file itself, in a directory that exists. Raises RetryLater, StorageError or OSError."""
        path = Path(os.path.realpath(self._path))  # a link of the user's stays one: its target is rotated
        if path.exists() and not path.is_file():
            raise RetryLater(f"{path}: is not a regular file")
        private_dir(path.parent)
        return path

    @staticmethod
    def _lock_path(path: Path) -> Path:
        return path.with_name(f"{path.name}.lock")
