"""What a piece of code does beyond its arguments: connections, programs, files that it writes, words that it prints."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
_lists: list[Attempts] = []
_installed = False


class Attempts:
    """What was tried while it was on."""

    def __init__(self) -> None:
        self.outside: list[str] = []
        """Connections, names that were asked for, programs that were started."""
        self.written: list[str] = []
        """Files that were opened to be written, databases among them."""


@contextmanager
def attempts() -> Iterator[Attempts]:
    """Notes what this process tries meanwhile, whichever thread it is that does."""
    global _installed  # noqa: PLW0603 - an audit hook cannot be taken out again
    if not _installed:
        sys.addaudithook(_heard)
        _installed = True
    noted = Attempts()
    _lists.append(noted)
    try:
        yield noted
    finally:
        _lists.remove(noted)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _lists:
        return
    if event in _NETWORK or event in _PROGRAMS:
        for each in _lists:
            each.outside.append(f"{event} {arguments[-1]!r}")
    elif event == "sqlite3.connect" or (event == "open" and _writes(arguments)):
        for each in _lists:
            each.written.append(str(arguments[0]))


setattr(_heard, "__cantrace__", True)  # noqa: B010 - debuggers and coverage see it, too; no type has such a name


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(sign in mode for sign in "wax+")
    return bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@contextmanager
def printed() -> Iterator[io.StringIO]:
    """What is printed meanwhile, to either stream."""
    words = io.StringIO()
    with redirect_stdout(words), redirect_stderr(words):
        yield words


@contextmanager
def logged() -> Iterator[list[str]]:
    """What is logged meanwhile, by anybody."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    root, handler = logging.getLogger(), Lines(logging.DEBUG)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
