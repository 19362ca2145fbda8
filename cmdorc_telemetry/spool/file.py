"""The file of the spool: opened, replaced where it is broken, read and written in transactions.

What is in it is the matter of ``schema``; what the rows mean, of the other modules.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import files
from ..bounds import DEFAULT, Bounds
from ..errors import StorageError
from .schema import SCHEMA_VERSION, bring_up_to_date, version_of

RESERVE_BYTES = 256 << 10
_PAGE_BYTES = 8 << 10
"""An event costs less CPU than with SQLite's own 4 KiB. Larger ones would cost a single event more, and the reserve."""
_WAL_BYTES = 4 << 20
"""What SQLite keeps of its log for the next transactions."""


class SpoolFile:
    """An open file, of one thread. Beside it lie others of which the names begin alike.

    Raises StorageError where it cannot be opened.
    """

    def __init__(self, path: Path, bounds: Bounds = DEFAULT, sync: bool = False, *, reading: bool = False) -> None:
        """``sync``: each transaction reaches the disk before it is over. ``reading``: only questions may be asked."""
        self.path, self.bounds, self._sync = path, bounds, sync
        self.moved_aside: Path | None = None
        """Where an unreadable file was put, if there was one."""
        self._reading = reading
        if not reading:
            files.private_dir(path.parent)
        try:
            if reading:
                self._db = self._read()
            else:
                self._make_ready()
        except (sqlite3.Error, OSError) as fault:
            raise StorageError(f"{path} cannot be opened: {fault}") from fault

    def _make_ready(self) -> None:
        # One at a time: SQLite does not wait its turn while a new file becomes a WAL one, and two that find
        # a broken file must not both move it.
        with files.FileLock(self._beside("lock")):
            self._db = self._opened()
            self._inode = os.stat(self.path).st_ino
            self._refill()

    def _read(self) -> sqlite3.Connection:
        db = files.reading(self.path)
        try:
            version = version_of(db, self.path)
            if version < SCHEMA_VERSION:  # a reader changes nothing but its own copy
                copy = sqlite3.connect(":memory:", isolation_level=None)
                db.backup(copy)
                db.close()
                db = copy
            self.epoch = bring_up_to_date(db, version)
        except BaseException:
            db.close()
            raise
        return db

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")

    def _opened(self) -> sqlite3.Connection:
        self.moved_aside = files.make_way(self.path)
        if files.is_foreign(suspect := self._beside("suspect")):
            files.set_aside(suspect)
        try:
            return self._open()
        except sqlite3.DatabaseError as fault:
            if isinstance(fault, sqlite3.OperationalError):
                raise
        self.moved_aside = files.set_database_aside(self.path)
        suspect.unlink(missing_ok=True)
        return self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            # By path: to open the file and close it again would take its locks away from this process's other spools.
            os.chmod(self.path, 0o600)
            version = version_of(db, self.path)
            db.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of a new file
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={'FULL' if self._sync else 'NORMAL'}")
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
            if self._beside("suspect").exists():
                if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("the file is damaged")
                self._beside("suspect").unlink()
            self.epoch = bring_up_to_date(db, version)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the connection; everything committed stays."""
        self._db.close()

    @property
    def gone(self) -> bool:
        """Whether it was moved or deleted: by an opt-out, or by somebody who found it damaged."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return True

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises StorageError where the disk refuses it; then nothing of it happened."""
        if self.gone:  # what is written now would be lost
            raise StorageError(f"{self.path} was moved or deleted")
        with self._transaction("IMMEDIATE"):
            yield self._db

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        try:
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as fault:
            raise self._failure(fault) from fault

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise self._failure(fault) from fault

    def _pages(self, db: sqlite3.Connection) -> tuple[int, int, int]:
        """Pages of the file that are in use, those that are free, and the size of one."""
        pages, free, size = (
            int(db.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("page_count", "freelist_count", "page_size")
        )
        return pages - free, free, size

    def _failure(self, fault: sqlite3.Error) -> StorageError:
        if type(fault) is sqlite3.DatabaseError and not self._reading:  # damaged: whoever opens it next looks closely
            with suppress(OSError):
                self._beside("suspect").touch(mode=0o600)
        return StorageError(f"{self.path} cannot be used: {fault}")

    def _refill(self) -> None:
        """Keep some room on the disk, for the acknowledgement of what was sent before it was full."""
        reserve = self._beside("reserve")
        try:
            if not reserve.is_file():
                files.replace(reserve, bytes(RESERVE_BYTES))
        except StorageError:
            return  # it is full already

    def _give_up_reserve(self) -> bool:
        try:
            self._beside("reserve").unlink()
        except OSError:
            return False
        return True
