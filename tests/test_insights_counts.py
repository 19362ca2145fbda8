"""How often each event was recorded: by name, and by day."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.history import SCHEMA_VERSION, SECOND
from cmdorc_telemetry.insights import EventCounts, event_counts

NOW, DAY = 1_800_000_000, 86_400


def history(folder: Path, *rows: tuple[str, int], version: int = SCHEMA_VERSION) -> Path:
    """A history of events, each a name and its second."""
    path = folder / "history.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE event(id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.executemany("INSERT INTO event VALUES(?, ?)",
                       [(second * SECOND + number, name) for number, (name, second) in enumerate(rows)])  # fmt: skip
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    return path


def test_each_is_counted_in_the_part_of_the_time_that_it_is_of(tmp_path: Path) -> None:
    path = history(
        tmp_path, ("sold", NOW), ("sold", NOW - 1), ("sold", NOW - 2 * DAY - 5), ("seen", NOW - DAY - 5),
        ("seen", NOW - 3 * DAY), ("old", NOW - 3 * DAY - 1),
    )  # fmt: skip
    assert event_counts(path, now=NOW, days=3, parts=3) == [
        EventCounts("sold", NOW, (1, 0, 2)), EventCounts("seen", NOW - DAY - 5, (1, 1, 0)),
    ]  # fmt: skip
    assert [each.counts for each in event_counts(path, now=NOW, days=4, parts=2)] == [(1, 2), (1, 1), (1, 0)]
    assert [(each.name, each.count) for each in event_counts(path, now=NOW, days=1, parts=1)] == [("sold", 2)]


def test_without_a_history_there_is_nothing(tmp_path: Path) -> None:
    assert event_counts(tmp_path / "none.db", now=NOW, days=3, parts=3) == []
    assert event_counts(history(tmp_path, ("sold", NOW), version=1), now=NOW, days=3, parts=3) == []


def test_one_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = history(tmp_path, version=SCHEMA_VERSION + 1)
    with pytest.raises(StorageError, match="newer version"):
        event_counts(path, now=NOW, days=3, parts=3)
    path.write_bytes(b"no database, but long enough to be taken for one " * 100)
    with pytest.raises(StorageError, match="cannot be read"):
        event_counts(path, now=NOW, days=3, parts=3)
