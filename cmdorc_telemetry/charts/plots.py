"""Plots with axes: a line with a band above it, stacked bars, a heatmap. Each is one image with text around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

from ..markup import Child, Markup, html
from .scale import UNITS, amount, greatest, share, ticks
from .shapes import area_paths, bar_path, dot_path, heights, line_path

_TOP, _PLOT, _FOOT = 10, 150, 22
"""Pixels: above the plot, of the plot, below it."""
_CELL = 18
_LABELS = 4
SHADES = 5
"""Of a heatmap, beside that of nothing."""

Tick = Callable[[float], str]


def band(
    key: str, title: str, description: str, *, slots: Sequence[str], line: Sequence[float | None],
    above: Sequence[float | None], notes: Sequence[str], tick: Tick, steps: Sequence[float] = (),
) -> Markup:  # fmt: skip
    """A line, and a band from it up to ``above``. One value a slot; ``notes`` appear under the pointer."""
    marks = ticks(greatest([*line, *above]), steps)
    lower, upper = heights(line, marks[-1]), heights(above, marks[-1])
    shapes: list[Child] = [
        html.path(class_="area", d="".join(area_paths(lower, upper))),
        html.path(class_="ln thin s1", d=line_path(upper)),
        html.path(class_="ln s1", d=line_path(lower)),
        html.path(class_="ln dot s1", d=dot_path(lower)),
        _under_the_pointer(slots, notes),
    ]
    return _plot(key, title, description, marks, tick, slots, shapes)


def stacked(
    key: str, title: str, description: str, *, slots: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]], notes: Sequence[str], tick: Tick,
) -> Markup:  # fmt: skip
    """Bars, one a slot: each series, named by its class, on those before it."""
    ends = [[0.0] * len(slots)]  # of the series before, slot by slot
    for _, values in series:
        ends.append([end + (amount(value) or 0.0) for end, value in zip(ends[-1], values, strict=True)])
    marks = ticks(greatest(ends[-1]), whole=True)
    shapes: list[Child] = []
    for (class_, _), low, high in zip(series, ends, ends[1:], strict=False):
        bars = [
            bar_path(slot, len(slots), share(low[slot], marks[-1]), share(high[slot], marks[-1]))
            for slot in range(len(slots))
        ]
        shapes.append(html.path(class_=f"fill {class_}", d="".join(bars)))
    return _plot(key, title, description, marks, tick, slots, [*shapes, _under_the_pointer(slots, notes)])


def heatmap(
    key: str, title: str, description: str, *, rows: Sequence[str], slots: Sequence[str],
    cells: Sequence[Sequence[float | None]], note: Callable[[int, int], str],
) -> Markup:  # fmt: skip
    """One shaded cell for each of ``slots`` in each of ``rows``: the greatest is the strongest, nothing has its own."""
    most = greatest([value for row in cells for value in row])
    width = UNITS / max(len(slots), 1)
    shapes = [
        html.rect(
            html.title(note(row, slot)), class_=f"q{_shade(value, most)}",
            x=round(slot * width, 1), y=row * _CELL, width=round(width, 1), height=_CELL,
        )
        for row, values in enumerate(cells) for slot, value in enumerate(values)
    ]  # fmt: skip
    names = [html.text(name, x="100%", y=row * _CELL + 13, text_anchor="end") for row, name in enumerate(rows)]
    height = _CELL * len(rows)
    inner = _stretched([html.g(shapes, class_="cells")], y=0, height=height, units=height)
    return _framed(key, title, description, names, [inner, *_feet(slots, height + 15, centred=False)], height + _FOOT)


def _shade(value: float | None, most: float) -> int:
    number = amount(value)
    return min(max(ceil(number / most * SHADES), 1), SHADES) if number else 0


# -- what is around them --------------------------------------------------------------------------------------------


def _plot(
    key: str, title: str, description: str, marks: Sequence[float], tick: Tick, slots: Sequence[str],
    shapes: Sequence[Child],
) -> Markup:  # fmt: skip
    heights = [(value, _TOP + round((1 - value / marks[-1]) * _PLOT)) for value in marks]
    axis = [html.text(tick(value), x="100%", y=y + 4, text_anchor="end") for value, y in heights]
    grid = [html.line(class_="grid" if value else "grid base", x1=0, x2="100%", y1=y, y2=y) for value, y in heights]
    inner = _stretched(shapes, y=_TOP, height=_PLOT, units=UNITS)
    feet = _feet(slots, _TOP + _PLOT + 17, centred=True)
    return _framed(key, title, description, axis, [*grid, inner, *feet], _TOP + _PLOT + _FOOT)


def _stretched(shapes: Sequence[Child], *, y: int, height: int, units: int) -> Markup:
    return html.svg(
        shapes, x=0, y=y, width="100%", height=height, viewBox=f"0 0 {UNITS} {units}", preserveAspectRatio="none"
    )


def _framed(
    key: str, title: str, description: str, axis: Sequence[Child], inside: Sequence[Child], height: int
) -> Markup:  # fmt: skip
    names = html.svg(axis, class_="axis", height=height, aria_hidden="true")
    image = html.svg(
        html.title(title, id=f"{key}-title"), html.desc(description, id=f"{key}-desc"), inside,
        class_="image", height=height, role="img", aria_labelledby=f"{key}-title {key}-desc",
    )  # fmt: skip
    return html.div(names, image, class_="plot")


def _feet(slots: Sequence[str], y: int, *, centred: bool) -> Iterator[Markup]:
    """The names of some slots, as far from each other as they can be, none of them over the edge."""
    count = min(len(slots), _LABELS)
    for number in range(count):
        slot = round(number * (len(slots) - 1) / (count - 1)) if centred and count > 1 else number * len(slots) // count
        first, last = number == 0, centred and number == count - 1 and count > 1
        at = 0.0 if first else 100.0 if last else (slot + (0.5 if centred else 0)) / len(slots) * 100
        anchor = "start" if first or not centred else "end" if last else "middle"
        yield html.text(slots[slot], x=f"{at:g}%", y=y, text_anchor=anchor)


def _under_the_pointer(slots: Sequence[str], notes: Sequence[str]) -> Markup:
    width = UNITS / max(len(slots), 1)
    areas = [
        html.rect(html.title(f"{slot}: {note}"), x=round(number * width, 1), width=round(width, 1), height=UNITS)
        for number, (slot, note) in enumerate(zip(slots, notes, strict=True)) if note
    ]  # fmt: skip
    return html.g(areas, class_="hits")
