"""Hookimpls that observe: called on the caller's thread, one by one, and caught; what is slow is switched off."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import pluggy

from . import clock
from .errors import told

SLOW_SECONDS = 0.005
SLOW_CALLS = 3


class Host(Protocol):
    """Whose plugins they are of."""

    slow: Counter[str]
    """Plugin → calls of its lifecycle hooks that took too long."""

    def fail(self, name: str, what: str, fix: str, *, logged: str | None = None) -> None:
        """Report a failure."""


def caught(fault: BaseException) -> bool:
    """What a plugin may raise without being felt: everything but the user's own Ctrl-C, which the main thread gets."""
    return not isinstance(fault, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread()


def function_of(impl: pluggy.HookImpl) -> Callable[[Any], Any]:
    """A hookimpl of a hook with one argument, which it may leave out."""
    function: Callable[..., Any] = impl.function
    return function if impl.argnames else lambda record: function()


class Listener:
    """One hookimpl that observes: called with one record, and caught."""

    def __init__(self, host: Host, name: str, impl: pluggy.HookImpl) -> None:
        self.name = name
        self._host = host
        self._call = function_of(impl)

    def __call__(self, record: object) -> None:
        try:
            self._call(record)
        except BaseException as fault:
            if not caught(fault):
                raise
            self._host.fail(self.name, f"raised {type(fault).__name__}: {fault}", "report it to its author",
                            logged=f"raised {told(fault)}")  # fmt: skip


class TimedListener(Listener):
    """One that is somebody else's: three slow calls switch off all lifecycle hooks of its plugin."""

    def __call__(self, record: object) -> None:
        slow = self._host.slow
        if slow[self.name] >= SLOW_CALLS:
            return
        start = clock.perf()
        super().__call__(record)
        if clock.perf() - start > SLOW_SECONDS:
            slow[self.name] += 1
            if slow[self.name] == SLOW_CALLS:
                self._host.fail(
                    self.name,
                    f"took more than {SLOW_SECONDS * 1000:g} ms {SLOW_CALLS} times: its lifecycle hooks are off here",
                    "let it hand slow work to a thread of its own",
                )
