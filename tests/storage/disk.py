"""Runs a script on a disk with a trouble: `disk.py KIND FOLDER SCRIPT ARGUMENT…`. The script's names: `fill`, `free`.

``file-system`` is a file system of one megabyte of its own, in namespaces that need no privileges: what is full there
is full in every way. ``limit`` is for machines that do not allow that: no file may grow (EFBIG).
``full``, ``full-limit``, ``read-only`` and ``nobody`` (a user without a name and a home) begin so, with a copy of what
lies in the folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

SIZE = 1 << 20
PAGE = 4096
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
_READ_ONLY, _REMOUNT, _REC, _PRIVATE = 1, 32, 0x4000, 1 << 18
_NOBODY = 54321
_LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _become(user: int) -> None:
    """Be another user, to whom nothing else belongs than before, in a world of its own. For one thread alone."""
    before, group = os.getuid(), os.getgid()
    _checked(_LIBC.unshare(_NEW_USER | _NEW_MOUNTS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {before} 1"), ("gid_map", f"{user} {group} 1")):
        Path("/proc/self", name).write_text(text)


def mount(folder: str, *, read_only: bool = False) -> None:
    """Give this process, which must have one thread, a small file system at ``folder``: a copy of what is there."""
    _become(0)
    _checked(_LIBC.mount(None, b"/", None, _REC | _PRIVATE, None))
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        options, place = b"size=%d" % SIZE, os.fsencode(folder)
        _checked(_LIBC.mount(b"small", place, b"tmpfs", 0, options))
        shutil.copytree(copy, folder, dirs_exist_ok=True)
    if read_only:
        _checked(_LIBC.mount(b"small", place, b"tmpfs", _READ_ONLY | _REMOUNT, options))


class FileSystem:
    """A disk that is a file system of its own."""

    def __init__(self, folder: str) -> None:
        mount(folder)
        self._ballast = os.path.join(folder, "ballast")

    def fill(self, leave: int = 0) -> None:
        """Fill it, but for so many pages."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while True:
                os.write(fd, bytes(PAGE))
        except OSError as fault:
            if fault.errno != errno.ENOSPC:
                raise
            os.ftruncate(fd, max(0, os.fstat(fd).st_size - leave * PAGE))
        finally:
            os.close(fd)

    def free(self) -> None:
        """Let there be room again."""
        os.unlink(self._ballast)


class Limit:
    """A disk on which no file may grow beyond some size."""

    def __init__(self, folder: str) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, leave: int = 0) -> None:
        """Let no file be longer than so many pages."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (leave * PAGE, self._before[1]))

    def free(self) -> None:
        """Let there be room again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def _main(kind: str, place: str, script: str, *arguments: str) -> None:
    disk: FileSystem | Limit | None = None
    if kind == "read-only":
        mount(place, read_only=True)
    elif kind == "nobody":
        _become(_NOBODY)
    else:
        disk = Limit(place) if "limit" in kind else FileSystem(place)
        if kind.startswith("full"):
            disk.fill()
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    names = {"fill": disk.fill, "free": disk.free} if disk is not None else {}
    runpy.run_path(script, names, run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
