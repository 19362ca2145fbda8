"""What a forked child must not do in its parent's name: one hook for all who have something to forget. And what a
thread of ours is in a process that is somebody else's.

cmdorc forks for every command: the hook takes no lock and waits for nobody, and a program that made and dropped many
journals pays for those that live.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Something that a child would have in common with its parent."""

    def forked(self) -> None:
        """Called in the child, before anything else."""


_all: WeakSet[Any] = WeakSet()
_threads: set[int] = set()
_hooked: set[None] = set()
_tied: set[None] = set()


def on_fork(each: Forked) -> None:
    """Let ``each`` know in every child, for as long as it lives."""
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked.add(None)
        os.register_at_fork(after_in_child=_forget)
    _all.add(each)


def tied() -> bool:
    """Whether this process was forked while a thread of ours was at work in its parent.

    What SQLite knows of locks is in memory, and wrong here: such a process must not open what its parent had open.
    """
    return bool(_tied)


@contextmanager
def own_thread() -> Iterator[None]:
    """To be entered by a thread of ours that may import something, or open a database, for as long as it does.

    It takes no signals, nor does any thread that it starts: a program that blocks one, to wait for it or to have its
    peace, would be hit by it all the same.
    """
    ident = threading.get_ident()
    _threads.add(ident)
    try:
        with signals(blocked=True):
            yield
    finally:
        _threads.discard(ident)


@contextmanager
def signals(*, blocked: bool) -> Iterator[None]:
    """Have signals blocked on this thread, or not: processes that it starts are born like that. But for faults."""
    import signal

    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None:  # pragma: no cover - Windows only
        yield
        return
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
    before = mask(signal.SIG_SETMASK, signal.valid_signals() - faults if blocked else ())
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)


def _forget() -> None:
    for each in list(_all):
        each.forked()
    if _threads:
        _tied.add(None)
        with suppress(Exception):
            _release_imports()
        _threads.clear()


def _release_imports() -> None:
    """Let the child import anew what a thread of ours was importing: it would wait for ever for a thread it has not."""
    locks: dict[str, Any] = importlib._bootstrap._module_locks  # type: ignore[attr-defined]
    for name, reference in list(locks.items()):
        if getattr(reference(), "owner", None) in _threads:
            del locks[name]
            sys.modules.pop(name, None)
