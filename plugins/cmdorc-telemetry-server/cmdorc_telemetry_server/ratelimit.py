"""How much one install may send: a token bucket each, in memory, bounded in number."""

from __future__ import annotations


class RateLimit:
    """``per_minute`` events a minute and install; a bucket holds one minute's worth. 0 is no limit.

    A batch is admitted whole while anything is left, and what it took too much is paid back before the
    next one: so every batch gets through in the end, however large, and the average holds.
    """

    def __init__(self, per_minute: int, most_installs: int = 100_000) -> None:
        self._capacity = float(per_minute)
        self._rate = per_minute / 60
        self._most = most_installs
        self._buckets: dict[str, tuple[float, float]] = {}  # least recently used first

    def take(self, install: str, events: int, now: float) -> float:
        """Take ``events`` tokens at ``now`` (monotonic seconds). Returns 0.0, or the seconds to wait first."""
        if not self._capacity:
            return 0.0
        tokens, since = self._buckets.pop(install, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[install] = (tokens if wait else tokens - events, now)
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return wait
