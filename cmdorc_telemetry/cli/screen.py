"""Lines and tables on a terminal or in a pipe: aligned, without boxes, readable without colour.

In a pipe nothing is coloured or wrapped. On a terminal that is too narrow for a table, its rows are stacked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from .wording import BARS, clean, place

if TYPE_CHECKING:
    from rich.text import Text

Part = str | tuple[str, str]
"""Text, or text and its style."""
Cell = Part | list[Part]

OK, WAITS, LABEL, HEAD = "cyan", "yellow", "dim", "bold"
NARROW = 60
_LEAST = 30
"""Columns that text needs to be read in the last column of a table."""
_JSON_VALUES = ("json.number", "json.bool_true", "json.bool_false", "json.null")
_ASCII = str.maketrans({**dict(zip(BARS, "_.-~=+*#", strict=True)), "·": "-", "–": "-", "…": "~", "→": ">", "�": "?"})


class Screen:
    """Standard output, or with ``err`` standard error."""

    def __init__(self, *, err: bool = False) -> None:
        from rich.console import Console
        from rich.theme import Theme

        theme = Theme({"json.key": "bold", "json.str": "", **dict.fromkeys(_JSON_VALUES, OK)})
        self.console = Console(stderr=err, highlight=False, markup=False, emoji=False, theme=theme)
        self.terminal = self.console.file.isatty()
        self.narrow = self.terminal and self.console.width <= NARROW
        self._plain = "utf" not in self.console.encoding

    def line(self, *parts: Part) -> None:
        """One line; without parts an empty one."""
        self.show(self._text(parts))

    def show(self, text: Text) -> None:
        """Some lines as they are."""
        self.console.print(text, soft_wrap=True)

    def below(self, indent: int, *parts: Part, label: str = "") -> None:
        """Text that begins at a column, behind a label; on a terminal, what of it has no room goes on below."""
        self._hang(self._text([(label.ljust(indent), LABEL)]), self._text(parts))

    def warn(self, what: str, *hints: str) -> None:
        """Something that is wrong, the lines that help, and an empty line."""
        self._hang(self._text([("! ", WAITS)]), self._text([place(what)]))
        for hint in filter(None, hints):
            self.below(2, hint)
        self.line()

    def labelled(self, rows: Sequence[tuple[str, Cell]]) -> None:
        """Text behind labels, aligned; no label goes on with the one before."""
        width = max((len(label) for label, _ in rows), default=0)
        for label, value in rows:
            self.below(width + 2, *_parts(value), label=label)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: Collection[int] = ()) -> None:
        """Aligned columns, those of ``right`` to the right; the last one goes on below, or all are stacked, where there
        is too little room."""
        from rich.cells import cell_len

        table = [[self._text(_parts(cell)) for cell in row] for row in rows]
        head = [self._text([(name, LABEL)]) for name in header]
        widths = [max(cell_len(row[column].plain) for row in [head, *table]) for column in range(len(header))]
        room = self.console.width - sum(widths[:-1]) - 2 * len(widths[:-1])
        least = widths[-1] if len(header) - 1 in right else min(widths[-1], _LEAST)
        if self.narrow or (self.terminal and room < least):
            self._stacked(header, table)
            return
        for row in [head, *table]:
            for column, cell in enumerate(row):
                missing = widths[column] - cell_len(cell.plain)
                (cell.pad_left if column in right else cell.pad_right)(missing)
            self._hang(self._text([]).join(cell + "  " for cell in row[:-1]), row[-1])

    def _stacked(self, header: Sequence[str], table: Sequence[Sequence[Text]]) -> None:
        width = max(map(len, header[1:]), default=0)
        for row in table:
            self.show(row[0])
            for name, cell in zip(header[1:], row[1:], strict=True):
                if cell.plain.strip():
                    self._hang(self._text([("  " + name.ljust(width + 2), LABEL)]), cell)

    def _hang(self, begin: Text, text: Text) -> None:
        """Text behind its beginning; on a terminal, what of it has no room goes on below, at the same column."""
        width = max(self.console.width - begin.cell_len, 20)
        for line in text.divide(_breaks(text.plain, width) if self.terminal else []):
            joined = begin + line
            joined.rstrip()
            self.show(joined)
            begin = self._text([" " * begin.cell_len])

    def _text(self, parts: Sequence[Part]) -> Text:
        from rich.text import Text

        text = Text()
        for part in parts:
            words, style = (part, "") if isinstance(part, str) else part
            text.append(self._plainly(_cleaned(words)), style)
        return text

    def _plainly(self, words: str) -> str:
        if not self._plain:
            return words
        encoding = self.console.encoding
        return words.translate(_ASCII).encode(encoding, "replace").decode(encoding)


def _breaks(words: str, width: int) -> list[int]:
    """Where lines end. No word is broken: it may be a path that somebody copies."""
    from rich.cells import cell_len

    found, begin = [], 0
    for word in re.finditer(r"\S+\s*", words):
        if begin < word.start() and cell_len(words[begin : word.end()].rstrip()) > width:
            begin = word.start()
            found.append(begin)
    return found


def _parts(cell: Cell) -> list[Part]:
    return cell if isinstance(cell, list) else [cell]


def _cleaned(words: str) -> str:
    """Like ``clean``, with the blanks that align things kept."""
    return words if words.isprintable() else " ".join(clean(word) for word in words.split(" "))
