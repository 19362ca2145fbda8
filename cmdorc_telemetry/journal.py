"""This process's own append-only file.

One write a record: when ``append`` returns, the record survives a SIGKILL. What the file looks like, and how others
read it, is in ``segment.py``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import clock, files
from .bounds import DEFAULT, Bounds
from .errors import StorageError
from .forks import on_fork
from .segment import COUNTS, HEADER, counts, frame, header, segments

SLOW_SECONDS = 0.01
PAUSE_SECONDS = 1.0
"""How long to leave a directory alone that could not be written."""


class _Full(OSError):
    """As much waits to be imported as may."""


class Journal:
    """Appends records for one process. Makes its first file at the first record; never raises for the disk."""

    def __init__(
        self, directory: Path, generation: str, *,
        bounds: Bounds = DEFAULT, sync: bool = False, on_trouble: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        """``sync``: wait for the disk when a segment ends. ``on_trouble`` is told why records are dropped."""
        self.directory = directory
        self.source = os.urandom(8).hex()
        self.lost: dict[str, int] = {}
        """What could be neither written nor counted on disk, by reason. Goes into the next segment's header."""
        self.slow = 0
        """Appends that took over 10 ms: a slow disk, or a host that holds the interpreter."""
        self._slow_before = self._slow_told = 0
        """Those of earlier segments, and those of which a header tells."""
        self._generation, self._bounds, self._sync = generation, bounds, sync
        self._most = bounds.segment_kib << 10
        self._on_trouble = on_trouble
        self._fd = -1
        self._path: Path | None = None
        self._size = 0
        self._drops: dict[str, int] = {}
        self._fault, self._pause_until = OSError(), 0.0
        self._held: dict[None, tuple[int, Path]] = {}
        """The descriptor that is held and the file it was opened for; threads settle by it who is first."""
        on_fork(self)

    @property
    def path(self) -> Path | None:
        """The segment that is being written; None before the first record."""
        return self._path

    def append(self, record: bytes) -> bool:
        """Write one record. True: it is durable against a kill. False: it was dropped and counted."""
        data = frame(record)
        fd = self._fd
        start = clock.perf()
        try:
            if fd < 0 or self._size > self._most:
                fd = self._begin()
            written = os.write(fd, data)
            if written < len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as fault:
            if fault.errno == errno.EBADF and fd >= 0:
                # A host that closes descriptors it does not know: go on in another segment.
                self._held.clear()
                self._fd, self._path = -1, None
                return self.append(record)
            self._count("journal-full" if isinstance(fault, _Full) else "storage-failed")
            self._trouble(fault)
            return False
        self._size += written
        if clock.perf() - start > SLOW_SECONDS:
            self.slow += 1
            if not self.slow & (self.slow - 1):  # now and then: to tell of it is slow, too
                self._tell()
        return True

    def rotate(self, generation: str | None = None) -> None:
        """Begin a segment, if one is open; what was written can then be imported.

        Segments carry ``generation`` from now on, where it is given.
        """
        self._generation = self._generation if generation is None else generation
        if self._fd >= 0:
            try:
                self._begin()
            except OSError as fault:
                self._trouble(fault)

    def close(self) -> None:
        """Close the segment, so that any process may import it. No append may be under way in another thread."""
        if self.lost or self.slow != self._slow_told:
            self._tell()
        fd = self._held.pop(None, (-1, None))[0]
        self._fd, self._path = -1, None
        if fd >= 0:
            with suppress(OSError):  # a host closed it already
                self._synced(fd)
                os.close(fd)

    def discard(self) -> None:
        """Unlink the open segment: what another thread is about to write to it goes with it.

        It is known by its descriptor: its name is another thread's to set.
        """
        for path in segments(self.directory):
            with suppress(OSError):
                if os.path.samestat(os.fstat(self._fd), path.stat()):
                    path.unlink()

    def _synced(self, fd: int) -> None:
        """Where it is wanted, wait until a segment, and its name, are on the disk."""
        if self._sync:
            os.fsync(fd)
            folder = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def forked(self) -> None:
        """In a child, nothing of the parent's is written, counted, or kept locked. Some flags and one close(2).

        What is touched here is copied by the kernel, page by page, and that is all it costs: so, little is.
        """
        held = self._held.pop(None, None)
        self.source, self.lost, self._fd, self._path = "", {}, -1, None
        self._slow_told = self.slow
        if held is not None:
            try:
                os.close(held[0])
            except OSError:  # a host closed it already
                return

    def _trouble(self, fault: OSError) -> None:
        if self._on_trouble is not None:
            self._on_trouble(f"{self.directory} cannot be written: {fault.strerror}")

    def _count(self, reason: str) -> None:
        """Count a loss: on disk, in the space that the header keeps for it, or at least in memory."""
        self.lost[reason] = self.lost.get(reason, 0) + 1
        self._tell()

    def _tell(self) -> None:
        """Enter in the header what is counted in memory alone, if that can be done now."""
        if self._path is None:
            return
        told = {
            reason: self._drops.get(reason, 0) + self.lost.get(reason, 0) for reason in {**self._drops, **self.lost}
        }
        with suppress(OSError):
            second = os.open(self._path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
            try:
                os.lseek(second, COUNTS, os.SEEK_SET)
                os.write(second, counts(told, self.slow - self._slow_before))
            finally:
                os.close(second)
            self._drops, self.lost, self._slow_told = told, {}, self.slow

    def _begin(self) -> int:
        """Go on in a new segment.

        A thread may be about to write to the old one, so the new file takes over its descriptor's number;
        where there is none yet, threads that begin at once settle on the first.
        """
        fd = self._fd
        new, path = self._create()
        if fd < 0:
            fd, winner = self._held.setdefault(None, (new, path))
            if fd != new:
                path.unlink(missing_ok=True)
                os.close(new)
                self._fd, self._path = fd, winner
                return fd
        elif fd != new:  # they are the same where a host had closed it
            if self.slow != self._slow_told:
                self._tell()
            self._synced(fd)
            os.dup2(new, fd, inheritable=False)
            os.close(new)
        self._drops, self.lost = self.lost, {}
        self._slow_before = self._slow_told = self.slow
        self._fd, self._path, self._size = fd, path, HEADER
        return fd

    def _create(self) -> tuple[int, Path]:
        """Make a segment; where that fails, leave the directory alone for a moment."""
        if clock.monotonic() < self._pause_until:
            raise self._fault.with_traceback(None)
        try:
            return self._made()
        except OSError as fault:
            self._fault, self._pause_until = fault, clock.monotonic() + PAUSE_SECONDS
            raise

    def _made(self) -> tuple[int, Path]:
        """A segment: created as ``.new``, locked, then renamed, so that no sweeper can take it between."""
        try:
            files.own_dir(self.directory)
        except StorageError as fault:
            raise OSError(errno.EIO, str(fault)) from fault
        if _full(self.directory, self._bounds):
            raise _Full(errno.ENOSPC, "too many segments wait to be imported")
        self.source = self.source or os.urandom(8).hex()
        name = os.urandom(12).hex()
        new, final = self.directory / f"{name}.new", self.directory / f"{name}.seg"
        fd = -1
        try:
            fd = files.open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            if not files.lock_fd(fd, wait=False):
                raise OSError(errno.ENOLCK, "a new file cannot be locked")
            if os.write(fd, header(self._generation, self.source, self.lost)) < HEADER:
                raise OSError(errno.ENOSPC, "no room for a segment")
            os.rename(new, final)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            new.unlink(missing_ok=True)
            raise
        return files.high_fd(fd), final


def _full(directory: Path, bounds: Bounds) -> bool:
    """Whether as much lies there as may."""
    count = size = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".seg"):
                with suppress(OSError):  # imported this moment, or a link that leads nowhere
                    size += entry.stat().st_size
                    count += 1
    return count >= bounds.journal_segments or size >= bounds.journal_mib << 20
