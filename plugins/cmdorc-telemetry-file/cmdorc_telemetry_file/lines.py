"""A file of lines that rotates and never shows half a line. Knows nothing of telemetry or of locks.

The caller holds a lock that all writers of the file share: every step here relies on that.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from cmdorc_telemetry.files import open_private

_TAIL = 1 << 20
"""Bytes at the end that are read before something is appended."""


class LineFile:
    """``path`` and its rotated predecessors ``path.1`` (the youngest) to ``path.N``."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        """Rotates before ``path`` would pass ``max_bytes``, unless it is empty; keeps ``files`` predecessors."""
        self.path = path
        self._max_bytes, self._files = max_bytes, files

    def append(self, lines: Sequence[bytes], unique: Collection[bytes]) -> set[bytes]:
        """Append all of ``lines`` or, where OSError is raised, none.

        A line of ``unique`` that is near the end of the file already is left out; those are returned. On
        return the lines are on the disk, not just in its cache.
        """
        with self._open() as file:
            present = set(_whole_lines(file)).intersection(unique)
            data = b"".join(line + b"\n" for line in lines if line not in present)
            size = file.seek(0, os.SEEK_END)
            full = size > 0 and size + len(data) > self._max_bytes
            if data and not full:
                _write(file, data)
        if data and full:
            self._rotate()
            with self._open() as file:
                _write(file, data)
        return present

    def remove(self) -> None:
        """Delete the file and its predecessors."""
        for _, path in self._predecessors():
            path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _open(self) -> io.FileIO:
        """The file, made where it is missing, with mode 600. Raises OSError."""
        fd = open_private(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0))
        return io.FileIO(fd, "a+")

    def _predecessors(self) -> Iterator[tuple[int, Path]]:
        """Rotated files with their numbers, those beyond the bound included, the oldest first."""
        start = self.path.name + "."
        found = [(path.name[len(start) :], path) for path in self.path.parent.iterdir() if path.name.startswith(start)]
        yield from sorted(((int(end), path) for end, path in found if end.isdecimal()), reverse=True)

    def _rotate(self) -> None:
        for number, path in self._predecessors():
            if number >= self._files:
                path.unlink()
            else:
                path.replace(f"{self.path}.{number + 1}")
        self.path.replace(f"{self.path}.1")


def _whole_lines(file: io.FileIO) -> list[bytes]:
    """The lines near the end, after what a crash left of the last one is mended."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _TAIL))
    *lines, rest = file.read(_TAIL).split(b"\n")
    if rest and _torn(rest) and (lines or start == 0):
        file.truncate(size - len(rest))  # its writer never said that it was written: it comes again
    elif rest:
        _write(file, b"\n")
        lines.append(rest)
    return lines


def _torn(line: bytes) -> bool:
    """Whether ``line`` is the beginning of a JSON object, or zeros where a power cut kept the data away."""
    if not line.startswith((b"{", b"\0")):
        return False
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def _write(file: io.FileIO, data: bytes) -> None:
    """Append ``data`` and bring it to the disk, or leave the file as it was."""
    end = file.seek(0, os.SEEK_END)
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except BaseException:
        file.truncate(end)
        raise
