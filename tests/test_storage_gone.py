"""Storage that fails at an awkward moment: nothing is raised where nothing may be, and nothing stays open."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry import Telemetry, files
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.reporter import NoopReporter
from cmdorc_telemetry.spool import Spool


async def test_a_drain_of_a_spool_that_cannot_be_asked_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "telemetry" / "spool.db")
    worker = Worker(Destination("to", NoopReporter, lambda item: item.row.private), spool, tmp_path)
    spool.close()
    await worker.drain()


@pytest.mark.parametrize("change", ["DELETE FROM meta", "DROP TABLE meta", "PRAGMA user_version=0"])
def test_a_database_that_is_no_spool_is_moved_aside(change: str, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with closing(Spool(path)) as spool:
        epoch = spool.epoch
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(change)
    with pytest.raises(StorageError, match="cannot be opened: it is another program's"):
        Spool(path, reading=True)
    with closing(Spool(path)) as spool:
        assert spool.moved_aside is not None
        assert spool.moved_aside.exists()
        assert spool.epoch != epoch


async def test_a_close_that_is_cancelled_has_let_the_journal_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry.start(environ={"CMDORC_HOME": str(tmp_path), "CMDORC_TELEMETRY": "minimal"})
    recorder = telemetry._recorder
    assert recorder is not None
    telemetry.track("orchestrator_started", {"executor_type": "mock", "command_count": 1, "has_triggers": False})
    assert recorder.journal.path is not None
    monkeypatch.setattr(recorder, "_ended", lambda: False)
    closing = asyncio.create_task(telemetry.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert recorder.journal.path is None


def test_a_segment_that_cannot_even_be_opened_is_a_counted_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    told: list[str] = []
    book = Journal(tmp_path, "g", on_trouble=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(files, "open_private", refuse)
        assert not book.append(b"1")
    assert book.lost == {"storage-failed": 1}
    assert told == [f"{tmp_path} cannot be written: {os.strerror(errno.EMFILE)}"]
    assert list(tmp_path.iterdir()) == []
