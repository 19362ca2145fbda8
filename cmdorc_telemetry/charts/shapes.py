"""Paths through values: the ``d`` of what a plot draws, in units. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .scale import UNITS, share

Point = tuple[float, int]


def heights(values: Sequence[float | None], most: float) -> list[Point | None]:
    """A point in the middle of each slot; None for a value that is missing."""
    found: list[Point | None] = []
    for slot, value in enumerate(values):
        part = share(value, most)
        found.append(None if part is None else (_middle(slot, len(values)), UNITS - part))
    return found


def _middle(slot: int, of: int) -> float:
    return round((slot + 0.5) / of * UNITS, 1)


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """The points that follow each other without a gap."""
    run: list[Point] = []
    for point in (*points, None):
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def line_path(points: Sequence[Point | None]) -> str:
    """A path through all points that have a neighbour."""
    return "".join(
        f"M{run[0][0]:g} {run[0][1]}" + "".join(f"L{x:g} {y}" for x, y in run[1:])
        for run in _runs(points) if len(run) > 1
    )  # fmt: skip


def dot_path(points: Sequence[Point | None]) -> str:
    """A path to all points that are alone: lines of no length, of which a browser shows the round ends."""
    return "".join(f"M{run[0][0]:g} {run[0][1]}h0" for run in _runs(points) if len(run) == 1)


def area_paths(lower: Sequence[Point | None], upper: Sequence[Point | None]) -> Iterator[str]:
    both = [None if low is None or high is None else (low, high) for low, high in zip(lower, upper, strict=True)]
    start = 0
    for end, pair in enumerate((*both, None)):
        if pair is None:
            run = [each for each in both[start:end] if each is not None]
            if len(run) > 1:
                there = "L".join(f"{high[0]:g} {high[1]}" for _, high in run)
                back = "L".join(f"{low[0]:g} {low[1]}" for low, _ in reversed(run))
                yield f"M{there}L{back}Z"
            start = end + 1


def bar_path(slot: int, of: int, low: int | None, high: int | None) -> str:
    """A bar of a slot, with a little room beside it; nothing where it has no height."""
    if low is None or high is None or low == high:
        return ""
    width = UNITS / of
    return f"M{slot * width + width * 0.1:.1f} {UNITS - low}h{width * 0.8:.1f}V{UNITS - high}h-{width * 0.8:.1f}z"
