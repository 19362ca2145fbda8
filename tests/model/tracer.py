"""Kills a forked child at its Nth system call that has an effect: before it, so that it never happens. Linux alone.

By ptrace through ctypes: nothing has to be installed, and all threads of the child are followed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

_TRACEME, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_OPTIONS = 0x100000 | 0x8 | 0x1  # dies with us; its threads too; system calls can be told from signals
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80 if sys.platform == "linux" else 0
_ENTRY = 1
_CREATE = 0o100

_CALLS = {
    "x86_64": {"write": 1, "pwrite64": 18, "writev": 20, "dup2": 33, "flock": 73, "fsync": 74, "fdatasync": 75,
               "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "chmod": 90, "fchmod": 91,
               "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "fchmodat": 268, "utimensat": 280,
               "fallocate": 285, "dup3": 292, "renameat2": 316},
    "aarch64": {"dup3": 24, "flock": 32, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "ftruncate": 46,
                "fallocate": 47, "fchmod": 52, "fchmodat": 53, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68,
                "fsync": 82, "fdatasync": 83, "utimensat": 88, "renameat2": 276},
}  # fmt: skip
SUPPORTED = sys.platform == "linux" and platform.machine() in _CALLS


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64), ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64), ("arguments", ctypes.c_uint64 * 6),
    )  # fmt: skip


def _ptrace(request: int, pid: int, address: int = 0, data: object = None) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes, call.restype = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p), ctypes.c_long
    if call(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


def _effect(pid: int) -> bool:
    """Whether a stopped thread is about to do something that others could see."""
    info = _Info()
    _ptrace(_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
    calls = _CALLS[platform.machine()]
    if info.op != _ENTRY or info.number not in calls.values():
        return False
    return info.number != calls["openat"] or bool(info.arguments[2] & _CREATE)


def _child(work: Callable[[], object]) -> NoReturn:
    try:
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # it is done; no other thread may get that
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def run_until(work: Callable[[], object], last: int) -> tuple[bool, int]:
    """Do ``work`` in a child that is killed at its call number ``last``. Whether it got through, and how many it made.

    It is killed then, too: nothing of it ever ends in an orderly way.
    """
    child = os.fork()
    if not child:
        _child(work)
    os.waitpid(child, 0)
    _ptrace(_SETOPTIONS, child, 0, _OPTIONS)
    _ptrace(_SYSCALL, child)
    calls, done = 0, False
    while True:
        pid, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if pid == child:
                break
            continue
        stopped = os.WSTOPSIG(status)
        passed_on = 0
        try:
            if stopped == _SYSCALL_STOP:
                calls += _effect(pid)
                if calls == last:
                    os.kill(child, signal.SIGKILL)
                    calls += 1
                    continue
            elif stopped == signal.SIGSTOP:
                if pid == child:
                    done = True
                    os.kill(child, signal.SIGKILL)
                    continue
            elif stopped != signal.SIGTRAP:  # which tells of a new thread
                passed_on = stopped
            _ptrace(_SYSCALL, pid, 0, passed_on)
        except ProcessLookupError:  # killed this moment
            continue
    assert os.WIFSIGNALED(status), f"the child ended by itself: {os.waitstatus_to_exitcode(status)}"
    assert os.WTERMSIG(status) == signal.SIGKILL
    return done, calls
