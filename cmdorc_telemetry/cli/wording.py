"""What the words of commands have beside those of any output: the command lines that hints are, places, bars."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from ..application import CMDORC, Application
from ..wording import clean, duration, moment, moment_of, percent, plural

__all__ = [
    "BARS", "address", "application", "clean", "command_line", "duration", "moment", "moment_of", "percent", "place",
    "plural", "sentence", "sparkline",
]  # fmt: skip

BARS = "▁▂▃▄▅▆▇█"
_SECRETS = re.compile(r"(?<=://)[^/?#\s]*(?=@)|(?<=\?)[^#\s]+")
"""Of addresses: who one is there, and what is asked for, which may hold a key."""


def application() -> Application:
    """Whose commands these are: the group that was typed knows."""
    context = click.get_current_context(silent=True)
    return (context and context.find_object(Application)) or CMDORC


def command_line(*words: str) -> str:
    """A command of this group as it is to be typed: ``cmdorc telemetry …`` or ``acme telemetry …``."""
    context = click.get_current_context()
    while context.parent is not None and context.command.name != "telemetry":
        context = context.parent
    group = context.command_path if context.command.name == "telemetry" else application().command
    return " ".join([group, *words])


def sparkline(values: Sequence[float | None]) -> str:
    """One bar a value, from 0 to the greatest; a blank for None."""
    most = max((value for value in values if value is not None), default=0) or 1
    return "".join(
        " " if value is None else BARS[min(int(value / most * len(BARS)), len(BARS) - 1)] for value in values
    )


def address(text: str) -> str:
    """Where a destination leads, fit to be shown to others: without a user's name, a password or a query."""
    return _SECRETS.sub("…", text) if "://" in text else text


def place(path: Path | str) -> str:
    """A path, or what names some, with the home directory as ``~``."""
    home = os.path.expanduser("~").rstrip("/\\") + os.sep
    return re.sub(rf"(?<![\w./\\~-]){re.escape(home)}", lambda found: f"~{os.sep}", str(path))


def sentence(text: str) -> str:
    """``text`` with its end, if it has none yet."""
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."
