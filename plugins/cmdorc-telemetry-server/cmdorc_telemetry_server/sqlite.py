"""The embedded store: one SQLite file, one writer thread, group commit, ``synchronous=FULL``.

Events lie in the order of their ids and have no other index. The percentile needs no scan of them: beside
the events, in the same transaction, a multiset of successful durations is kept per install and day, and
from its days of the window the install's median, exact (but see ``ranks.compact``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cmdorc_telemetry.errors import StorageError

from .drops import Drops
from .ranks import Rank, Ranks
from .store import Record, Store, Stored, StoreUnavailable
from .transaction import LAST, SCHEMA, Transaction, blob, text
from .writer import GroupWriter

T = TypeVar("T")
_Job = Callable[[Transaction], Any]

_APPLICATION, _VERSION = 0x43545331, 1
_DAY = 86_400


class SQLiteStore(Store):
    """A store in the file ``path``, which :meth:`open` creates with mode 600. One server a file."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        """``timeout``: seconds to wait for another process that writes to the file."""
        self.path = path
        self._timeout = timeout
        self._ranks = Ranks()
        self._data_version: int | None = None
        self._con: sqlite3.Connection | None = None
        self._writer: GroupWriter[_Job] | None = None
        self._erasing: set[str] = set()
        self._erasure = asyncio.Lock()

    async def open(self) -> None:
        """Create or check the file and start the writer. Raises StorageError."""
        self._con = await asyncio.to_thread(self._connect_writer)
        self._writer = GroupWriter(self._commit)
        await self.append([])  # loads the medians

    async def close(self) -> None:
        """Commit what waits and close the file."""
        if self._writer is not None and self._con is not None:
            await asyncio.to_thread(self._writer.stop)
            self._con.close()
            self._writer = self._con = None

    async def append(self, records: Sequence[Record], drops: Drops | None = None) -> list[bool]:
        """See :meth:`Store.append`. Returns after the commit that holds the records."""
        if self._erasing and any(record.install in self._erasing for record in records):
            raise StoreUnavailable("this install is being erased", after=1)
        return await self._write(lambda transaction: transaction.append(records, drops))

    async def rank(self, install: str) -> Rank | None:
        """See :meth:`Store.rank`. Answered from memory.

        An install's median is computed when it reports; what of it left the window since goes with ``purge``.
        """
        return self._ranks.rank(blob(install))

    async def delete_installs(self, installs: Collection[str]) -> int:
        """See :meth:`Store.delete_installs`. Looks at every event, in chunks; unknown installs cost nothing."""
        async with self._erasure:
            self._erasing = set(installs)
            try:
                known = await self._write(partial(_known, installs=[blob(install) for install in installs]))
                if not known:
                    return 0
                marks = ",".join("?" * len(known))
                deleted = await self._delete_events(f"install IN ({marks})", known)
                await self._write(lambda transaction: transaction.forget(known))
                return deleted
            finally:
                self._erasing = set()

    async def purge(self, now: float, retention: Mapping[tuple[str, str], int], otherwise: int) -> int:
        """See :meth:`Store.purge`. Works in chunks, between which requests are served."""
        values: list[Any] = []
        for (spec, event), days in retention.items():
            values += [spec, event, int(now) - days * _DAY]
        values.append(int(now) - otherwise * _DAY)
        cases = "WHEN spec=? AND event=? THEN ? " * len(retention)
        deleted = await self._delete_events(f"received < CASE {cases}WHEN 1 THEN ? END", values)
        after: bytes | None = b""
        while after is not None:
            after = await self._write(partial(Transaction.roll, after=after, now=int(now)))
        oldest = int(now) - max([otherwise, *retention.values()]) * _DAY
        await self._write(lambda transaction: transaction.forget_unseen(oldest))
        return deleted

    async def export(self, newest: int | None = None) -> AsyncIterator[Stored]:
        """See :meth:`Store.export`."""
        query = "SELECT id, install, spec, event, received, body FROM event ORDER BY id"
        if newest is not None:
            query = f"SELECT * FROM ({query} DESC LIMIT {newest:d}) ORDER BY id"
        with closing(await self._read(self._connect_reader)) as con:
            rows = await self._read(lambda: con.execute(query))
            while chunk := await self._read(lambda: rows.fetchmany(500)):
                for id_, install, spec, event, received, body in chunk:
                    yield Stored(event_id=text(id_), install=text(install), spec=spec, event=event,
                                 received=received, body=body)  # fmt: skip

    async def aggregate(self) -> dict[tuple[str, str], int]:
        """See :meth:`Store.aggregate`."""
        rows = await self._select("SELECT spec, event, count(*) FROM event GROUP BY 1, 2")
        return {(spec, event): number for spec, event, number in rows}

    async def drops(self) -> list[Drops]:
        """See :meth:`Store.drops`."""
        rows = await self._select("SELECT install, epoch, counts FROM drops")
        return [Drops(install=text(row[0]), epoch=row[1], counts=msgspec.msgpack.decode(row[2])) for row in rows]

    def backup(self, target: Path) -> None:
        """Copy the store as it is at one moment into a new file, also while it is served. Raises StorageError."""
        with closing(self._connect_reader()) as source:
            _create(target, os.O_EXCL)
            try:
                with closing(sqlite3.connect(target)) as copy:
                    source.backup(copy)
            except sqlite3.Error as fault:
                target.unlink()
                raise StorageError(f"{target}: the backup failed: {fault}") from None

    # -- the file

    def _connect_writer(self) -> sqlite3.Connection:
        _create(self.path)
        con = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        try:
            con.execute("BEGIN IMMEDIATE")
            if con.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                for statement in SCHEMA.split(";"):
                    con.execute(statement)
                con.execute(f"PRAGMA application_id={_APPLICATION}")
                con.execute(f"PRAGMA user_version={_VERSION}")
            self._check(con)
            con.execute("COMMIT")
            con.execute("PRAGMA journal_mode=WAL")
            con.execute("PRAGMA synchronous=FULL")
            con.execute("PRAGMA secure_delete=ON")
            # Ids of one second come in any order: with room for their pages and a longer log, less is written twice.
            con.execute("PRAGMA cache_size=-32000")
            con.execute("PRAGMA wal_autocheckpoint=8000")
        except (sqlite3.Error, StorageError) as fault:
            con.close()
            raise self._explained(fault) from None
        return con

    def _connect_reader(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StorageError(f"{self.path}: there is no store")
        con = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=self._timeout, check_same_thread=False
        )
        try:
            self._check(con)
        except (sqlite3.Error, StorageError) as fault:
            con.close()
            raise self._explained(fault) from None
        return con

    def _check(self, con: sqlite3.Connection) -> None:
        (application,) = con.execute("PRAGMA application_id").fetchone()
        (version,) = con.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            raise StorageError(f"{self.path}: is a database, but no telemetry store")
        if version != _VERSION:
            raise StorageError(f"{self.path}: has format {version}; this server reads format {_VERSION}")

    def _explained(self, fault: Exception) -> StorageError:
        return fault if isinstance(fault, StorageError) else StorageError(f"{self.path}: cannot be used: {fault}")

    async def _select(self, query: str) -> list[Any]:
        def select() -> list[Any]:
            with closing(self._connect_reader()) as con:
                return con.execute(query).fetchall()

        return await self._read(select)

    async def _read(self, query: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(query)
        except sqlite3.Error as fault:
            raise StoreUnavailable(f"{self.path}: {fault}") from None

    # -- writing

    async def _write(self, job: Callable[[Transaction], T]) -> T:
        if self._writer is None:
            raise StoreUnavailable("the store is closed")
        future: Future[T] = self._writer.submit(job)
        return await asyncio.wrap_future(future)

    async def _delete_events(self, condition: str, values: Sequence[Any]) -> int:
        deleted, after = 0, b""
        while after < LAST:
            chunk = partial(Transaction.delete_events, after=after, condition=condition, values=values)
            number, after = await self._write(chunk)
            deleted += number
        return deleted

    def _commit(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        con = self._con
        assert con is not None
        try:
            con.execute("BEGIN IMMEDIATE")
            self._notice_others(con)
            transaction = Transaction(con)
            results = [job(transaction) for job in jobs]
            medians = transaction.flush()
            con.execute("COMMIT")
        except BaseException as fault:
            with contextlib.suppress(sqlite3.Error):
                con.execute("ROLLBACK")
            if isinstance(fault, sqlite3.Error):
                raise StoreUnavailable(f"{self.path}: {fault}") from None
            raise
        self._ranks.update(medians)
        if transaction.erased:  # the log would keep a copy for a while
            with contextlib.suppress(sqlite3.Error):
                con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return results

    def _notice_others(self, con: sqlite3.Connection) -> None:
        """Load the medians at first, and again after another process (a purge) has written to the file."""
        (version,) = con.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._ranks = Ranks(con.execute("SELECT install, median FROM install WHERE median IS NOT NULL"))
            self._data_version = version


def _known(transaction: Transaction, installs: Collection[bytes]) -> list[bytes]:
    return [install for install in installs
            if transaction.con.execute("SELECT 1 FROM install WHERE install=?", (install,)).fetchone()]  # fmt: skip


def _create(path: Path, flags: int = 0) -> None:
    """Make sure that ``path`` exists and that only its owner may read it. Raises StorageError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | flags, 0o600))
        path.chmod(0o600)
    except OSError as fault:
        raise StorageError(f"{path}: cannot be created or opened: {fault.strerror}") from None
