"""Writes the audit of one destination: each line whole or not at all, and none that was written is ever changed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .. import clock, files
from ..errors import StorageError
from ..types import Batch
from .lines import Answer, Begin, Entered, Left, Record, decoded, digest, encoded, older, page

FILE_BYTES = 4 << 20
"""Size at which another file is begun. One before it is kept, so that a destination has twice as much."""
MOST_OF_CODE = 100
"""Reporters that code injected: of how many of them, no longer there, the audit is kept."""
_TAIL = 1 << 16


class _End(NamedTuple):
    """How a file ends."""

    inode: int
    size: int
    digest: str
    """Of the last line."""
    latest: int
    """The number of the last batch."""


class AuditLog:
    """The audit of one destination. Whoever has its sender's lock writes, and seldom a process that had it before."""

    def __init__(self, folder: Path, name: str, *, sync: bool = False) -> None:
        """``sync``: what was written is on the disk before it is sent."""
        self.path = folder / f"{name}.jsonl"
        self._name, self._sync = name, sync
        self._end: _End | None = None

    def left(
        self, batch: Batch, fields: Mapping[str, Sequence[str]], *, digest: str, size: int, entered: Entered
    ) -> int:  # fmt: skip
        """Write that ``batch`` is about to leave, as ``size`` bytes with a ``digest``. Its number.

        ``fields``: event name → the names of fields in bodies. ``entered``: in the ledger, so far. Raises
        StorageError: then it must not leave.
        """
        events: dict[str, list[str]] = {}
        for event in batch.events:
            events.setdefault(event.event, []).append(event.event_id)
        now = clock.wall()

        def make(end: _End) -> Left:
            return Left(
                batch=end.latest + 1, at=now, **{**entered._asdict(), "dropped": dict(entered.dropped)},
                events=events, fields={event: list(names) for event, names in fields.items()}, bytes=size,
                digest=digest, prev=end.digest,
            )  # fmt: skip

        return self._append(make, turning=True)

    def answered(self, batch: int, outcomes: Mapping[str, Sequence[str]], error: str = "") -> None:
        """Write what became of a batch: status → event ids. Raises StorageError."""
        most = max(outcomes, key=lambda status: len(outcomes[status]), default="")
        ids = {status: list(each) for status, each in outcomes.items() if status != most}
        counts = {status: len(each) for status, each in outcomes.items()}
        now = clock.wall()
        self._append(lambda end: Answer(batch=batch, latest=end.latest, at=now, answer=counts, ids=ids, error=error,
                                        prev=end.digest))  # fmt: skip

    # -- the file -----------------------------------------------------------------------------------------------------

    def _append(self, make: Callable[[_End], Record], *, turning: bool = False) -> int:
        """Append what ``make`` makes for the end of the file. ``turning``: to a new one where that is long enough."""
        try:
            with self._opened(turning) as fd:
                end = self._ending(fd)
                if end.size == 0:
                    end = self._write(fd, end, self._first())
                self._end = self._write(fd, end, make(end))
                return self._end.latest
        except OSError as fault:
            raise StorageError(f"the audit {self.path} cannot be written: {fault.strerror or fault}") from fault

    @contextmanager
    def _opened(self, turning: bool) -> Iterator[int]:
        """The file, locked: a process that was stopped while it sent may come back at any moment."""
        while True:
            full = False
            fd = self._open()
            try:
                if not files.lock_fd(fd, wait=False):
                    raise OSError(errno.EAGAIN, "another process writes to it")
                try:
                    status = os.fstat(fd)
                    full = turning and status.st_size >= FILE_BYTES
                    if not full and self._is_at_its_place(status):
                        yield fd
                        return
                finally:
                    files.unlock_fd(fd)
            finally:
                os.close(fd)
            if full:
                os.replace(self.path, older(self.path))

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            fd = files.open_private(self.path, flags)
        except (FileNotFoundError, NotADirectoryError):
            files.own_dir(self.path.parent)
            fd = files.open_private(self.path, flags)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is no file")
        return fd

    def _is_at_its_place(self, status: os.stat_result) -> bool:
        with suppress(FileNotFoundError):  # another process began a new one this moment
            return os.path.samestat(status, os.stat(self.path))
        return False

    def _ending(self, fd: int) -> _End:
        status = os.fstat(fd)
        if self._end is not None and (status.st_ino, status.st_size) == self._end[:2]:
            return self._end
        lines, rest, latest = _tail(fd, max(0, status.st_size - _TAIL))
        if not latest:  # a line that is longer, or one that says nothing
            lines, rest, latest = _tail(fd, 0)
        if rest:  # whoever began to write it was killed, and has not sent what it tells of
            os.ftruncate(fd, status.st_size - len(rest))
        last = lines[-1] if lines else b""
        return _End(status.st_ino, status.st_size - len(rest), digest(last) if lines else "", latest)

    def _first(self) -> Begin:
        """The first line of a new file: what the one before it comes to."""
        before = page(older(self.path))
        records = before.records if before is not None else []
        begin = next((each for each in records if isinstance(each, Begin)), None)
        left = [each for each in records if isinstance(each, Left)]
        return Begin(
            destination=self._name,
            since=clock.wall() if begin is None else begin.since,
            batches=max((_latest(each) for each in records), default=0),
            events=(begin.events if begin else 0) + sum(len(ids) for each in left for ids in each.events.values()),
            bytes=(begin.bytes if begin else 0) + sum(each.bytes for each in left),
            prev=digest(before.lines[-1]) if before is not None and before.lines else "",
        )

    def _write(self, fd: int, end: _End, record: Record) -> _End:
        """Append a line, all of it or nothing."""
        line = encoded(record)
        data = memoryview(line + b"\n")
        try:
            while data:
                data = data[os.write(fd, data) :]
            if self._sync:
                os.fsync(fd)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(fd, end.size)
            raise
        return _End(end.inode, end.size + len(line) + 1, digest(line), max(end.latest, _latest(record)))


def _tail(fd: int, start: int) -> tuple[list[bytes], bytes, int]:
    """The lines of a file from ``start`` on, what of the last one was written where it has no end, the last batch."""
    os.lseek(fd, start, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        *lines, rest = file.read().split(b"\n")
    return lines, rest, next((number for line in reversed(lines) if (number := _latest(decoded(line)))), 0)


def _latest(record: Record | None) -> int:
    """The number of the last batch up to a line."""
    match record:
        case Begin():
            return record.batches
        case Left():
            return record.batch
        case Answer():
            return record.latest
    return 0


def tidy(folder: Path, lives: Callable[[str], bool]) -> None:
    """Keep what reporters of processes that are gone left behind within bounds: each had an audit of its own."""
    found = [(path.stat().st_mtime, path) for path in folder.glob("code-*.jsonl")]
    for _, path in sorted(found, reverse=True)[MOST_OF_CODE:]:
        if not lives(path.name.partition(".")[0]):
            path.unlink(missing_ok=True)
