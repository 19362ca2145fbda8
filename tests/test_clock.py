"""Moments as they are written and compared."""

from __future__ import annotations

from datetime import timedelta

from cmdorc_telemetry import clock


def test_a_moment_is_written_in_utc_with_whole_seconds() -> None:
    assert clock.iso(0) == "1970-01-01T00:00:00Z"
    assert clock.iso(1_795_316_400.987) == "2026-11-22T03:00:00Z"


def test_now_is_aware_and_whole() -> None:
    before = clock.wall()
    now = clock.utcnow()
    assert now.utcoffset() == timedelta(0)
    assert now.microsecond == 0
    assert before - 1 <= now.timestamp() <= clock.wall()


def test_durations_never_go_backwards() -> None:
    assert clock.monotonic() <= clock.monotonic()
    assert clock.perf() <= clock.perf()
