"""The file that the node exporter reads: replaced as a whole, so that nobody ever sees half of it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cmdorc_telemetry import files
from cmdorc_telemetry.errors import StorageError

FIRST = b"# Written by cmdorc-telemetry-prometheus, and replaced as a whole.\n"
"""The line by which such a file is known for ours."""
_MODE = 0o644


class Textfile:
    """``path``, which is ours or not there. Whoever writes to it holds the lock of what is counted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, metrics: bytes) -> None:
        """Replace the file, or leave it as it was. Raises StorageError, also where it holds something else.

        The node exporter is mostly somebody else: a new file can be read by all. A mode that the user gave it is kept.
        """
        path, temporary = self._places()
        try:
            mode = self._mode(path)
            temporary.unlink(missing_ok=True)  # of somebody who was killed
            try:
                fd = files.open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                with os.fdopen(fd, "wb") as file:
                    file.write(FIRST + metrics)
                    file.flush()
                    os.fsync(fd)
                temporary.chmod(mode)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as fault:
            raise StorageError(f"{self._path}: {fault.strerror or fault}") from None

    def remove(self) -> None:
        """Delete the file, where it is ours. Raises OSError."""
        self._places()[1].unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            if _is_ours(self._path):
                self._path.unlink()

    def _places(self) -> tuple[Path, Path]:
        """The file, and the one that takes its place. A link of the user's stays one."""
        path = Path(os.path.realpath(self._path))
        return path, path.with_name(f".{path.name}.new")

    def _mode(self, path: Path) -> int:
        """The mode of the file that is there. Raises StorageError where it is not ours."""
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            return _MODE
        if not stat.S_ISREG(mode) or not _is_ours(path):
            raise StorageError(f"{self._path}: holds something else than these metrics; expected a file of their own")
        return stat.S_IMODE(mode)


def _is_ours(path: Path) -> bool:
    begin = files.read(path, len(FIRST))
    return begin in (FIRST, b"")
