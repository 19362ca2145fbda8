"""Numbers on their way into a chart: what can be drawn, where it lies, which marks an axis has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite, log10

UNITS = 1000
"""How many units each side of a plot has."""
_LEAST, _MOST = 1e-9, 1e300
"""Between these, steps can be computed with."""
_INTERVALS = 4

_SECOND, _MINUTE, _HOUR, _DAY = 1e3, 6e4, 3.6e6, 8.64e7
DURATION_STEPS = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
    *(number * _SECOND for number in (1, 2, 5, 10, 15, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 5, 10, 20, 50)),
)
"""Milliseconds between two marks of an axis that a person can read."""


def amount(value: float | None) -> float | None:
    """``value`` where it can be drawn: a number from 0 up. None for anything else."""
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:
        return _MOST if value > 0 else None
    return min(number, _MOST) if isfinite(number) and number >= 0 else None


def share(value: float | None, most: float) -> int | None:
    """Where ``value`` lies between 0 and ``most``, in units; None where it cannot be drawn."""
    number, whole = amount(value), amount(most)
    if number is None:
        return None
    return round(min(number / whole, 1.0) * UNITS) if whole else 0


def greatest(values: Sequence[float | None]) -> float:
    """The greatest of those that can be drawn; 0 of none."""
    return max((number for value in values if (number := amount(value)) is not None), default=0.0)


def ticks(most: float, steps: Sequence[float] = (), *, whole: bool = False) -> tuple[float, ...]:
    """The marks of an axis from 0 to ``most`` or a little above: two to five of them.

    ``steps``: which distances they may have, where one of these fits; else 1, 2 or 5 times a power of ten. ``whole``:
    at least 1.
    """
    most = max(amount(most) or 1.0, _LEAST)
    step = next((step for step in steps if step * _INTERVALS >= most), None) or _decimal(most / _INTERVALS)
    if whole:
        step = max(step, 1.0)
    return tuple(number * step for number in range(max(ceil(most / step - 1e-9), 1) + 1))


def _decimal(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not less than ``least``."""
    power = 10.0 ** floor(log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least), 10 * power)
