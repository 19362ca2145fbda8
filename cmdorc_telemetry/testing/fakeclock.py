"""A clock that stands still until a test moves it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timezone
from types import TracebackType
from unittest import mock

from .. import clock


class FakeClock:
    """Whoever asks ``cmdorc_telemetry.clock`` gets its time, while it is on. A context manager.

    What was given a clock before, such as a default argument, keeps it.
    """

    def __init__(self, now: float | None = None) -> None:
        """``now``: seconds since the epoch; this moment where it is None."""
        self.now = clock.wall() if now is None else now
        self._past = 0.0
        self._patches = ExitStack()

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self._past += seconds

    def _wall(self) -> float:
        return self.now

    def _elapsed(self) -> float:
        return self._past

    def _utcnow(self) -> datetime:
        return datetime.fromtimestamp(int(self.now), timezone.utc)

    def __enter__(self) -> FakeClock:
        self._patches.enter_context(mock.patch.multiple(
            clock, wall=self._wall, monotonic=self._elapsed, perf=self._elapsed, utcnow=self._utcnow
        ))  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.close()
