"""What an application does with telemetry while a sandbox is on, whoever made its trackers: what was withheld, and why.

Reads and changes classes of the core for that time alone: no program that runs can be told by it that it is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

from ..recorder import Recorder
from ..results import Reason, Result, Violation
from ..telemetry import Telemetry
from ..tracker import TelemetryTracker


class Withheld(NamedTuple):
    """What was withheld of events that were tracked, and how often."""

    event: str
    property: str
    """Empty where it is the event itself."""
    reason: Reason
    """``undeclared``, ``invalid``, ``missing`` (then the whole event was withheld) or ``unknown``."""
    times: int


class Observed:
    """Counts what trackers withhold while it is on; with ``strict``, all of them raise it.

    Nothing is delivered meanwhile: not even a reporter that code injects gets anything.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._patches = ExitStack()
        self._recorders: list[Recorder] = []
        self._all: list[Violation] = []
        self.silent: list[Violation] = []
        """What was wrong since somebody asked for counts, and was raised to nobody."""

    def counts(self) -> list[Withheld]:
        """What was withheld so far, in the order in which each came first."""
        self.silent.clear()
        counted = Counter((each.event, each.property, each.reason) for each in self._all)
        return [Withheld(*key, count) for key, count in counted.items()]

    def violated(self, violations: tuple[Violation, ...]) -> None:
        """What is wrong with an event that was recorded without a tracker."""
        self._all += violations
        self.silent += violations

    def accepted(self, event: object, own: bytes) -> None:
        """What is left of it: no news."""

    def start(self) -> None:
        """Begin."""
        for owner, name, made in (
            (TelemetryTracker, "__init__", self._init), (TelemetryTracker, "violated", self._violated),
            (TelemetryTracker, "emit", self._emit), (Telemetry, "track", self._track),
            (Recorder, "__init__", self._recorder),
        ):  # fmt: skip
            self._patches.enter_context(mock.patch.object(owner, name, made(getattr(owner, name))))
        self._patches.enter_context(mock.patch.multiple(Recorder, _start=_nothing, flush=_done))

    def follow(self) -> None:
        """Let what records hear of another decision, as what delivers would."""
        for recorder in self._recorders:
            recorder._hand_over()

    def stop(self) -> None:
        """End, and end whatever was begun to record meanwhile."""
        for recorder in self._recorders:
            recorder.close()
        self._patches.close()

    # -- instead of methods of the core --------------------------------------------------------------------------------

    def _init(self, real: Callable[..., None]) -> Callable[..., None]:
        def init(tracker: TelemetryTracker, telemetry: Telemetry, **options: Any) -> None:
            real(tracker, telemetry, **{**options, "strict": self._strict or options.get("strict", False)})

        return init

    def _violated(self, real: Callable[..., None]) -> Callable[..., None]:
        def violated(tracker: TelemetryTracker, violations: tuple[Violation, ...]) -> None:
            self._all += violations
            real(tracker, violations)

        return violated

    def _emit(self, real: Callable[..., Result]) -> Callable[..., Result]:
        def emit(tracker: TelemetryTracker, *arguments: Any) -> Result:
            before = len(self._all)
            result = real(tracker, *arguments)
            self.silent += self._all[before:]
            return result

        return emit

    def _track(self, real: Callable[..., Result]) -> Callable[..., Result]:
        def track(telemetry: Telemetry, event: str, *arguments: Any, **options: Any) -> Result:
            witness = options.get("witness") or self
            result = real(telemetry, event, *arguments, **{**options, "witness": witness})
            if result is Result.UNKNOWN and witness is self:
                self.violated((Violation(event, "", "unknown", "", "no such event", "a declared event"),))
            return result

        return track

    def _recorder(self, real: Callable[..., None]) -> Callable[..., None]:
        def init(recorder: Recorder, *arguments: Any, **options: Any) -> None:
            real(recorder, *arguments, **options)
            self._recorders.append(recorder)

        return init


def _nothing(recorder: Recorder) -> None:
    pass


def _done(recorder: Recorder, timeout: float) -> bool:
    return True
