"""Calls hooks of somebody else, which may never come back: each on a thread that can be left to itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any

from .errors import PluginError

HOOK_SECONDS = 5.0
"""How long one call may take before nobody waits for it any more."""


class Isolation:
    """Calls the hooks of plugins, one call of each at a time."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], Future[Any]] = {}
        """(plugin, hook) → its latest call."""

    def ask(self, plugin: str, hook: str, function: Callable[[], Any]) -> Any:
        """What a hook gives. Raises PluginError, from what it raised, or where it does not come back."""
        before = self._calls.get((plugin, hook))
        if before is not None and not before.done():
            raise PluginError("did not come back before and is given up")
        answer: Future[Any] = Future()
        self._calls[plugin, hook] = answer
        work = (function, answer)
        threading.Thread(target=_serve, args=work, name=f"{hook}-{plugin}", daemon=True).start()
        try:
            fault = answer.exception(HOOK_SECONDS)
        except TookTooLong:
            raise PluginError(f"took more than {HOOK_SECONDS:g} s and is given up") from None
        if fault is not None:
            raise PluginError(f"raised {type(fault).__name__}: {fault}") from fault
        return answer.result()


def _serve(function: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(function())
    except BaseException as fault:
        answer.set_exception(fault)
