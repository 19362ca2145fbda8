"""Calls an anonymizer where it can hurt nobody: on a thread of its own, and no longer than a second.

What its answer may change is for the gate to say.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from .errors import PluginError, told
from .types import Event

AnonymizeFunction = Callable[[Event], Mapping[str, Any]]

ANONYMIZE_SECONDS = 1.0
"""How long one call of an anonymizer may take before the plugin is given up."""


class Anonymizer:
    """One ``telemetry_anonymize`` hookimpl, called in a thread of its own that can be abandoned."""

    def __init__(
        self, name: str, function: AnonymizeFunction, fail: Callable[..., None] = lambda *_, **__: None
    ) -> None:
        """``fail`` is told of a failure, as ``PluginHost.fail`` is."""
        self.name = name
        self._function, self._fail = function, fail
        self._requests: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._abandoned = False
        self._end = weakref.finalize(self, self._requests.put, None)  # what it puts into can take it at any moment
        self._end.atexit = False

    def __call__(self, event: Event) -> Mapping[str, Any]:
        """The replacements. Raises PluginError where the plugin fails, hangs, or hung before."""
        try:
            return self._ask(event)
        except PluginError as fault:
            cause = fault.__cause__
            self._fail(self.name, str(fault), "what it fails on is not shared: report it to its author, or disable it",
                       logged=f"raised {told(cause)}" if cause is not None else None)  # fmt: skip
            raise

    def _ask(self, event: Event) -> Mapping[str, Any]:
        if self._abandoned:
            raise PluginError("did not answer before and is given up")
        if self._thread is None:
            work = (self._function, self._requests, self._answers)
            self._thread = threading.Thread(target=_serve, args=work, name=f"anonymize-{self.name}", daemon=True)
            self._thread.start()
        self._requests.put(event)
        try:
            answer = self._answers.get(timeout=ANONYMIZE_SECONDS)
        except queue.Empty:
            self._abandoned = True
            raise PluginError(f"took more than {ANONYMIZE_SECONDS:g} s to anonymize and is given up") from None
        if isinstance(answer, BaseException):
            raise PluginError(f"raised {type(answer).__name__}: {answer}") from answer
        if not isinstance(answer, Mapping):
            raise PluginError(f"returned {type(answer).__name__} instead of a mapping")
        return answer

    def close(self) -> None:
        """Let the thread end, as it does by itself when nobody holds the anonymizer any more."""
        self._end()


def _serve(
    function: AnonymizeFunction, requests: queue.SimpleQueue[Event | None], answers: queue.SimpleQueue[object]
) -> None:
    while (event := requests.get()) is not None:
        try:
            answer: object = function(event)
            # Read here: a mapping is code of somebody else, too.
            answers.put(dict(answer) if isinstance(answer, Mapping) else answer)
        except BaseException as fault:
            answers.put(fault)
