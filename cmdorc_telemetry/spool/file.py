"""The file of the spool: opened, replaced where it is broken, read and written in transactions.

Knows the schema; what the rows mean is in ``queue``.
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

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segment(name TEXT PRIMARY KEY, off INTEGER NOT NULL, drops TEXT NOT NULL DEFAULT '{}',
    done REAL) WITHOUT ROWID;
CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, spec TEXT NOT NULL, event TEXT NOT NULL,
    version INTEGER NOT NULL, generation TEXT NOT NULL, source TEXT NOT NULL, private BLOB NOT NULL, shared BLOB);
CREATE TABLE destination(name TEXT PRIMARY KEY, audience TEXT NOT NULL, identity TEXT NOT NULL, kinds TEXT, source TEXT,
    cursor INTEGER NOT NULL, recorded INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0,
    mark REAL NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0,
    last_report REAL NOT NULL DEFAULT 0, last_error TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '{}',
    owner TEXT, removed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE held(destination TEXT, seq INTEGER, state TEXT NOT NULL, tries INTEGER NOT NULL, next_try REAL NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY(destination, seq)) WITHOUT ROWID;
CREATE TABLE dropped(destination TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY(destination, reason)) WITHOUT ROWID;
CREATE TABLE withheld(reason TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
RESERVE_BYTES = 256 << 10


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
                self._db = files.reading(path)
            else:
                self._make_ready()
        except (sqlite3.Error, OSError) as fault:
            raise StorageError(f"{path} cannot be opened: {fault}") from fault
        try:
            ((self.epoch,),) = self._ask("SELECT value FROM meta WHERE key='epoch'")
        except (StorageError, ValueError) as fault:
            self._db.close()
            raise StorageError(f"{path} cannot be used: {fault}") from fault

    def _make_ready(self) -> None:
        # One at a time: SQLite does not wait its turn while a new file becomes a WAL one, and two that find
        # a broken file must not both move it.
        with files.FileLock(self._beside("lock")):
            self._db = self._opened()
            self._inode = os.stat(self.path).st_ino
            self._refill()

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
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={'FULL' if self._sync else 'NORMAL'}")
            if self._beside("suspect").exists():
                if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("the file is damaged")
                self._beside("suspect").unlink()
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StorageError(f"{self.path} was made by a newer version (schema {version}): upgrade this one")
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            ours = "meta" in tables and db.execute("SELECT 1 FROM meta WHERE key='epoch'").fetchone() is not None
            if tables and not (ours and version):
                raise sqlite3.DatabaseError("it is another program's")
            if version == 0:
                db.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES('epoch', ?)", (os.urandom(8).hex(),))
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the connection; everything committed stays."""
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises StorageError where the disk refuses it; then nothing of it happened."""
        try:
            if os.stat(self.path).st_ino != self._inode:
                raise FileNotFoundError("another file has its name")
        except OSError as fault:  # opt-out, or somebody who found it damaged: what is written now would be lost
            raise StorageError(f"{self.path} was moved or deleted: {fault}") from fault
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
