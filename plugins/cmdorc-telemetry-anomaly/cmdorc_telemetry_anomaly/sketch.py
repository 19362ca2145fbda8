"""A quantile sketch: how many values lie in each of many narrow ranges. Bounded, mergeable, pure.

After DDSketch (Masson, Rim, Lee 2019): ranges grow by a constant factor, so that what is read from them is wrong by
``ERROR`` of the value at most, whatever the values are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, exp, log

ERROR = 0.02
"""Relative, of what ``quantile`` gives."""
MOST_RANGES = 128
"""Of one sketch. Where values would need more, the lowest are counted as somewhat higher ones."""

_GROWTH = log((1 + ERROR) / (1 - ERROR))
_TINY = 1e-6
"""What is smaller counts as 0."""

Ranges = dict[int, int]
"""Number of a range → how many values are in it. Numbers rise with the values; that of 0 is 0."""


def add(ranges: Ranges, value: float) -> None:
    """Count a value."""
    number = _range_of(value)
    ranges[number] = ranges.get(number, 0) + 1
    if len(ranges) > MOST_RANGES:
        lowest, next_one = sorted(ranges)[:2]
        ranges[next_one] += ranges.pop(lowest)


def merged(sketches: Iterable[Mapping[int, int]]) -> Ranges:
    """All values of several sketches."""
    whole: Ranges = {}
    for ranges in sketches:
        for number, count in ranges.items():
            whole[number] = whole.get(number, 0) + count
    return whole


def quantile(ranges: Mapping[int, int], share: float) -> float | None:
    """What is ``share`` (0 to 1) of the way from the least value to the greatest, counted in values; None of no values.

    Between two values it is as far between them: of few, it would otherwise be the greatest alone.
    """
    before, between = divmod(share * (sum(ranges.values()) - 1), 1)
    seen, low = 0, None
    for number in sorted(ranges):
        seen += ranges[number]
        if low is None and seen > before:
            low = _value_of(number)
        if low is not None and (not between or seen > before + 1):
            return low + between * (_value_of(number) - low)
    return None


def _range_of(value: float) -> int:
    size = abs(value)
    if size < _TINY:
        return 0
    number = ceil(log(size / _TINY) / _GROWTH) + 1
    return number if value > 0 else -number


def _value_of(number: int) -> float:
    """What is at most ``ERROR`` away from every value in a range."""
    if number == 0:
        return 0.0
    size = _TINY * exp((abs(number) - 1) * _GROWTH) * (1 - ERROR)
    return size if number > 0 else -size
