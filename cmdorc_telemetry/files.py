"""Locks, private files and atomic replacement. The only file that knows how POSIX and Windows differ.

A lock is held by an open file (``flock``), not by a process: it is freed when the process dies, whatever
killed it, and it is right across containers, where process ids are not.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import StorageError

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger("cmdorc_telemetry")

if sys.platform == "win32":  # pragma: no cover - Windows only
    import msvcrt

    _FAR = 1 << 60  # a byte beyond every file: a lock there never stands in a reader's way

    def lock_fd(fd: int, *, wait: bool = True) -> bool:
        """Lock the open file exclusively; False where somebody else holds it and ``wait`` is False."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        while True:
            try:
                msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError as fault:
                if not wait:
                    return False
                if fault.errno != errno.EDEADLK:  # what LK_LOCK says after ten seconds: go on waiting
                    raise
            else:
                return True

    def unlock_fd(fd: int) -> None:
        """Unlock the open file."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def high_fd(fd: int) -> int:
        """The descriptor itself: Windows has no way to choose its number."""
        return fd

else:
    import fcntl

    def lock_fd(fd: int, *, wait: bool = True) -> bool:
        """Lock the open file exclusively; False where somebody else holds it and ``wait`` is False.

        Raises OSError where the file system has no locks.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as fault:
            if not wait and fault.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def unlock_fd(fd: int) -> None:
        """Unlock the open file, also where a forked child has it too: to be called by the process that locked it."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def high_fd(fd: int) -> int:
        """Move a descriptor to 200 or above, where a host that closes its own descriptors seldom hits it."""
        try:
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 200)
        except OSError:  # so many may not be open here
            return fd
        os.close(fd)
        return high


def open_private(path: str | Path, flags: int) -> int:
    """Open ``path`` with ``flags``; what is created has mode 600, whatever the umask."""
    fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
    if flags & os.O_CREAT and hasattr(os, "fchmod"):
        os.fchmod(fd, 0o600)
    return fd


def read(path: Path, most: int = -1) -> bytes:
    """What is in a file, its first ``most`` bytes. Never waits for anybody, as whoever opens a pipe would.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):  # some lead a file that they do not want to null
            raise OSError(errno.EINVAL, "it is no file", str(path))
        with open(fd, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(fd)


def exposure(path: Path, *, writers: int = 0o022, roots: bool = False) -> str:
    """Why somebody else may have written a file or directory, in words; empty where nobody else could.

    ``writers``: the bits of the mode that must not be set; ``roots``: it may also be the administrator's. Says nothing
    on Windows, where a home directory is its user's. Raises OSError.
    """
    if not hasattr(os, "geteuid"):
        return ""
    status = os.stat(path)
    if status.st_uid != os.geteuid() and not (roots and status.st_uid == 0):
        return "it belongs to somebody else"
    if status.st_mode & writers:
        return f"others may write to it: its mode is {stat.S_IMODE(status.st_mode):o}"
    return ""


def is_foreign(path: str | Path) -> bool:
    """Whether something that can be no file of ours has the name: a directory, a pipe, a link that leads nowhere."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return os.path.islink(path) and not os.path.isdir(os.path.dirname(os.path.realpath(path)))
    except OSError as fault:
        return fault.errno == errno.ELOOP
    return not stat.S_ISREG(mode)


def set_aside(path: Path) -> Path:
    """Keep what cannot be used under a name that nobody reads; of the files kept so before, none. The name.

    Only for whoever holds the lock that belongs to ``path``. Raises OSError.
    """
    import glob

    kept = path.with_name(f"{path.name}.corrupt-{os.urandom(4).hex()}")
    for old in path.parent.glob(f"{glob.escape(path.name)}.corrupt-*"):
        with contextlib.suppress(OSError):  # a directory is nothing that we made
            old.unlink()
    os.replace(path, kept)
    return kept


def make_way(path: Path) -> Path | None:
    """Move aside what is no file and stands where a SQLite database, or a file that belongs to it, would be. Where to.

    Only for whoever holds the lock of the database. Raises OSError.
    """
    kept = None
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if is_foreign(each):
            kept = set_aside(each)
    return kept


def set_database_aside(path: Path) -> Path:
    """Move aside a SQLite database that is damaged, and what belongs to it; for the same alone. Raises OSError."""
    kept = set_aside(path)
    with contextlib.suppress(FileNotFoundError):
        os.replace(f"{path}-wal", f"{kept}-wal")
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return kept


def private_dir(path: Path) -> Path:
    """Make ``path`` with mode 700, whatever the umask, where it is missing, and what leads to it.

    Raises StorageError.
    """
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it, or what leads to it, is no directory") from None
        else:
            path.chmod(0o700)
    except OSError as fault:
        raise StorageError(f"{path} cannot be created: {fault.strerror}") from fault
    return path


def own_dir(path: Path) -> Path:
    """Like ``private_dir``, for a directory that nobody else has to do with: others are shut out of one that was
    there, and what is none is moved aside.

    Raises StorageError.
    """
    try:
        made = private_dir(path)
        with contextlib.suppress(OSError):  # somebody else's: what is above it is for the user alone
            if path.stat().st_mode & 0o077:
                path.chmod(0o700)
        return made
    except StorageError:
        if not os.path.lexists(path) or path.is_dir():
            raise
    kept = path.with_name(f"{path.name}.corrupt-{os.urandom(4).hex()}")
    try:
        os.close(open_private(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.rename(path, kept)  # into a file's place: the directory that somebody else made just now would not go there
        log.warning("%s was no directory and was moved to %s", path, kept)
    except OSError:
        kept.unlink(missing_ok=True)
    return private_dir(path)


def replace(path: Path, data: bytes) -> None:
    """Write ``data`` as the whole of ``path``, mode 600, or leave it as it was. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        fd = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise StorageError(f"{path} cannot be written: {fault.strerror}") from fault


def publish(path: Path, data: bytes, *, force: bool) -> None:
    """Write ``data`` as the whole of a file for others to read, or leave everything as it was.

    Raises FileExistsError where it is there, unless ``force``; StorageError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if force:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as fault:
        raise StorageError(f"{path} cannot be written: {fault.strerror}") from fault


def reading(path: Path) -> sqlite3.Connection:
    """A SQLite database for reading alone: nothing is created, mended or waited for. Raises sqlite3.Error."""
    import sqlite3

    if is_foreign(path):  # SQLite would wait for whoever writes to a pipe
        raise sqlite3.OperationalError("it is no file")
    # Without a WAL nobody is writing; to open it as one would make the files of one.
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=10, isolation_level=None)


class FileLock:
    """An exclusive lock on a file of its own, between threads as between processes.

    ``with FileLock(path):`` waits; ``FileLock(path).acquire(wait=False)`` does not. Raises OSError where the
    file cannot be created.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._pid = 0

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False where somebody else holds it and ``wait`` is False."""
        fd = self._opened()
        try:
            held = lock_fd(fd, wait=wait)
        except BaseException:
            os.close(fd)
            raise
        if held:
            self._fd, self._pid = fd, os.getpid()
        else:
            os.close(fd)
        return held

    def _opened(self) -> int:
        try:
            return open_private(self._path, os.O_RDWR | os.O_CREAT)
        except OSError:
            if not is_foreign(self._path):
                raise
        # It cannot be moved away: two who did so at once would move each other's new file. All find this name instead.
        return open_private(f"{self._path}.lock", os.O_RDWR | os.O_CREAT)

    def is_current(self) -> bool:
        """Whether the lock that is held is the one that all others find: its file may have been taken away."""
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self, *, unlink: bool = False) -> None:
        """Give the lock back; harmless where it is not held. ``unlink``: the file too, whose name comes only once.

        A forked child keeps a lock that is merely closed; one that unlocked it would take it from its parent.
        """
        fd, self._fd = self._fd, None
        if fd is not None:
            mine = self._pid == os.getpid()
            if mine and unlink:
                with contextlib.suppress(OSError):  # somebody else was tidy
                    os.unlink(self._path)
            with contextlib.suppress(OSError):  # a host that closes descriptors it does not know
                if mine:
                    unlock_fd(fd)
                os.close(fd)

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
