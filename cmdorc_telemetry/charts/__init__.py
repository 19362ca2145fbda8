"""Charts as SVG that is made here, not in the browser: no script, no inline style, no request.

Shapes stretch with their box while text and lines keep their size: shapes lie in an inner ``<svg>`` that ignores its
proportions, text beside it at a percentage. Colours are classes of ``STYLE``, which has the light ones, the dark ones
and those of a person who chose their own. Each plot is an image with a title and a description; ``figure`` puts the
figures it was made of in a table below.

A value that is None, negative or not finite is missing: a gap in a line, nothing in a bar.
"""

from pathlib import Path

from .figure import Key, figure, table
from .plots import band, heatmap, stacked
from .scale import DURATION_STEPS, amount, share, ticks
from .strips import bar, mark, sparkline, split

STYLE = Path(__file__).with_name("charts.css").read_text(encoding="utf-8")
"""What a page with charts has in its style sheet. It expects the custom properties that it names at its beginning."""

__all__ = [
    "DURATION_STEPS", "STYLE", "Key", "amount", "band", "bar", "figure", "heatmap", "mark", "share", "sparkline",
    "split", "stacked", "table", "ticks",
]  # fmt: skip
