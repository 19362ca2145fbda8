"""When to send and how much: pauses after failures, the circuit breaker, how long a batch waits to be filled.

Pure: moments and chances are passed in. What happened so far is in the queue, so that the next process does not
begin at zero.
"""

from __future__ import annotations

import math

from ..bounds import DEFAULT, Bounds

FIRST_PAUSE = 1.0
BREAKER_FAILURES = 5
"""Failures in a row that open the circuit: from then on, one small batch at a time finds out how things are."""
PROBE_EVENTS = 10


def pause(failures: int, chance: float, longest: float = DEFAULT.pause_seconds) -> float:
    """Seconds to wait after so many failures in a row: full jitter, ``chance`` from 0 to 1."""
    return min(longest, FIRST_PAUSE * 2.0 ** min(failures, 30)) * chance


def pause_asked(after: object, own: float, longest: float) -> float:
    """What a receiver asked for (``Retry-After``), as far as that is sensible; else our ``own`` pause.

    Less than a second is no pause: who asks for none, again and again, would be called without end.
    """
    if not isinstance(after, int | float) or math.isnan(after) or after < FIRST_PAUSE:
        return own
    return min(float(after), longest)


def most_events(failures: int, most: int) -> int:
    """Events of the next batch: few while the circuit is open."""
    return min(most, PROBE_EVENTS) if failures >= BREAKER_FAILURES else most


class Patience:
    """Waits for a moment of the wall clock, and never longer than it was away when it was first heard of.

    Clocks are set. One set back would make a pause of a second last a day.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._until: tuple[float, float] | None = None

    def left(self, until: float, wall: float, monotonic: float) -> float:
        """Seconds that are left; 0 for a moment that is past, or further away than any pause is long."""
        away = until - wall
        if not 0 < away <= self._longest:
            return 0.0
        if self._until is None or self._until[0] != until:
            self._until = (until, monotonic + away)
        return max(min(away, self._until[1] - monotonic), 0.0)


class Filling:
    """How long a batch that is not full waits for more: until its oldest event is ``batch_seconds`` old."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._since: float | None = None

    def left(self, count: int, size: int, oldest: float, wall: float, monotonic: float) -> float:
        """Seconds that are left for a batch of ``count`` events. By either clock, since one of them may be set."""
        if self._since is None:
            self._since = monotonic
        if count >= self._bounds.batch_events or size >= self._bounds.batch_kib << 10:
            return 0.0
        return max(self._bounds.batch_seconds - max(wall - oldest, monotonic - self._since), 0.0)

    def over(self) -> None:
        """What waited has arrived: the next batch begins."""
        self._since = None
