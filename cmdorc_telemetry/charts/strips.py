"""Graphics of one line: a sparkline, a bar, parts of a whole, a place on a scale. The words are beside them.

They say nothing that the text next to them does not say, and are hidden from those who have it read to them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..markup import Markup, html
from .scale import UNITS, amount, greatest, share
from .shapes import dot_path, heights, line_path

_LEAST = 6
"""Units that a part has at least, where it is more than nothing: so that it can be seen."""


def sparkline(values: Sequence[float | None]) -> Markup:
    """A line from 0 to the greatest of ``values``."""
    points = heights(values, greatest(values))
    return _strip("spark", html.path(class_="ln s1", d=line_path(points)),
                  html.path(class_="ln dot s1", d=dot_path(points)))  # fmt: skip


def bar(value: float | None, most: float, class_: str = "s1") -> Markup:
    """A bar as long as ``value`` is of ``most``."""
    part = share(value, most) or 0
    width = max(part, _LEAST) if amount(value) else 0
    return _strip("strip", html.rect(class_="track", width=UNITS, height=UNITS),
                  html.rect(class_=f"fill {class_}", width=width, height=UNITS))  # fmt: skip


def split(parts: Sequence[tuple[str, float | None]]) -> Markup:
    """The parts of a whole side by side, each named by its class; one that is more than nothing can be seen."""
    known = [(class_, number) for class_, value in parts if (number := amount(value))]
    whole = sum(number for _, number in known)
    room = max(UNITS - _LEAST * len(known), 0)
    shapes, at = [html.rect(class_="track", width=UNITS, height=UNITS)], 0.0
    for class_, number in known:
        width = _LEAST + number / whole * room
        shapes.append(html.rect(class_=f"fill {class_}", x=round(at, 1), width=round(width, 1), height=UNITS))
        at += width
    return _strip("split", *shapes)


def mark(rank: float, most: float = 100) -> Markup:
    """A place on a scale from 0 to ``most``."""
    at = share(rank, most) or 0
    return _strip("scale", html.rect(class_="track", y=300, width=UNITS, height=400),
                  html.path(class_="ln s2", d=f"M{at} 0V{UNITS}"))  # fmt: skip


def _strip(class_: str, *shapes: Markup) -> Markup:
    return html.svg(shapes, class_=class_, viewBox=f"0 0 {UNITS} {UNITS}", preserveAspectRatio="none",
                    aria_hidden="true", focusable="false")  # fmt: skip
