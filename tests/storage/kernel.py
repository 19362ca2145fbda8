"""Lets locks fail as the kernel would say it: `kernel.py ERRNO CALL[,CALL] SCRIPT ARGUMENT…`. Calls: flock, lockf.

A seccomp filter, which needs no privileges; where there are none, Python's own function fails.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import runpy
import struct
import sys

_MACHINES = {"x86_64": (0xC000003E, 73, 72), "aarch64": (0xC00000B7, 32, 25)}
"""Machine → its number, and those of flock and fcntl."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter(number: int, calls: list[str]) -> bytes:
    machine, flock, control = _MACHINES[platform.machine()]
    instructions = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    if "flock" in calls:
        instructions += [(_EQUAL, 0, 1, flock), (_RETURN, 0, 0, _FAIL | number)]
    if "lockf" in calls:  # fcntl does much else: look at what it is asked for
        instructions += [(_EQUAL, 0, 4, control), (_LOAD, 0, 0, 24), (_EQUAL, 0, 1, fcntl.F_SETLK),
                         (_RETURN, 0, 0, _FAIL | number), (_LOAD, 0, 0, 0)]  # fmt: skip
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *each) for each in instructions)


def fail(number: int, calls: list[str]) -> None:
    """From now on, and in all children, ``calls`` fail with ``number``."""
    code = _filter(number, calls)
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "this kernel lets no filter in")


def pretend(number: int) -> None:
    """Let Python's flock fail."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


if __name__ == "__main__":
    name, which, script, *arguments = sys.argv[1:]
    try:
        fail(getattr(errno, name), which.split(","))
    except (AttributeError, KeyError, OSError):
        pretend(getattr(errno, name))
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")
