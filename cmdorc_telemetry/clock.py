"""The only file that asks the time. Everything else is given a moment as a value."""

from __future__ import annotations

import time
from datetime import date, datetime, timezone

wall = time.time
"""Seconds since the epoch, UTC. May jump."""

monotonic = time.monotonic
"""Seconds since some moment, never backwards."""

perf = time.perf_counter
"""Seconds since some moment, for short durations."""


def utcnow() -> datetime:
    """The moment as an aware datetime in UTC, whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def iso(seconds: float) -> str:
    """``seconds`` since the epoch as RFC 3339 in UTC, whole seconds: ``2026-11-22T03:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def day(seconds: float) -> date:
    """The day of ``seconds`` since the epoch, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).date()


def local(seconds: float) -> datetime:
    """``seconds`` since the epoch in the zone that this machine is in."""
    return datetime.fromtimestamp(seconds, timezone.utc).astimezone()
