"""Waiting for what threads and processes do: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 30.0
"""Seconds that nothing takes, however busy the machine is."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for ``condition``, and fail where it does not come true."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {LONG:g} s"
        time.sleep(0.005)
