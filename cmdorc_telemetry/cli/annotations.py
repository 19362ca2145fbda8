"""What GitHub Actions shows beside a line of a file: its workflow commands, and the line that a path stands on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Level = Literal["notice", "warning", "error"]


def annotation(level: Level, path: Path, line: int, title: str, message: str) -> str:
    """One workflow command."""
    name, called = (_escaped(text, ":,") for text in (str(path), title))
    return f"::{level} file={name},line={line},title={called}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """As those commands want it: ``more`` than in a message must be escaped in a property."""
    return "".join(f"%{ord(char):02X}" if char in f"%\r\n{more}" else char for char in text)


def line_in(path: Path, at: str) -> int:
    """The line of a spec's file that a path such as ``events.paid`` stands on; 1 where that cannot be said."""
    from .. import files
    from ..spec.documents import MOST_BYTES
    from ..spec.places import line_of

    try:
        text = files.read(path, MOST_BYTES).decode("utf-8-sig")
        return line_of(text, at, form="json" if path.suffix == ".json" else "toml")
    except (OSError, ValueError, RecursionError):
        return 1
