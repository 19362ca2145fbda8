"""Opens the history for questions: it is read as it is, and whoever writes to it is not held up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .. import files
from ..errors import StorageError, newer
from ..history import SCHEMA_VERSION


@contextmanager
def opened(history: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """The history, and whether it is of this version: an earlier one is brought up to date when somebody writes to it.

    Raises StorageError where it cannot be read, or is of a later version.
    """
    try:
        with closing(files.reading(history)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise newer(history, version, SCHEMA_VERSION)
            yield db, version == SCHEMA_VERSION
    except sqlite3.Error as fault:
        raise StorageError(f"{history} cannot be read: {fault}") from fault
