"""What the history says about commands."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.history import HistoryReporter
from cmdorc_telemetry.insights import command_runs
from cmdorc_telemetry.insights.runs import percentile

NOW = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "wall", lambda: NOW)
    path = tmp_path / "history.db"
    reporter = HistoryReporter(HistoryReporter.Settings(path=str(path)))

    def add(ago: float, event: str = "command_completed", **more: object) -> None:
        payload = {"event_id": f"{add.count}", "timestamp": clock.iso(NOW - ago), **more}
        add.count += 1
        asyncio.run(reporter.report(event, payload))

    add.count = 0  # type: ignore[attr-defined]
    add.path = path  # type: ignore[attr-defined]
    yield add
    asyncio.run(reporter.close())


def test_counts_percentiles_and_medians(history) -> None:
    for ago, duration in ((30, 100), (20, 300), (2, 200), (1, 400)):
        history(ago * HOUR, command_name="A", state="success", duration_ms=duration)
    history(1.5 * HOUR, command_name="A", state="failed", duration_ms=900)
    history(1.5 * HOUR, command_name="A", state="cancelled", duration_ms=9999)
    history(1 * HOUR, command_name="B", state="other", duration_ms=1)
    history(1 * HOUR, event="orchestrator_stopped")
    history(1 * HOUR, state="success", duration_ms=1)  # nameless
    a, b = command_runs(history.path, now=NOW, days=2, parts=4)
    assert (a.name, a.runs, a.succeeded, a.failed, a.cancelled, a.ended) == ("A", 6, 4, 1, 1, 5)
    assert (a.p50_ms, a.p95_ms) == (300, 900)
    assert a.medians_ms == (None, 100, 300, 400)
    assert (b.name, b.runs, b.cancelled, b.p50_ms, b.medians_ms) == ("B", 1, 1, None, (None,) * 4)


def test_only_the_days_that_were_asked_for(history) -> None:
    history(25 * HOUR, command_name="A", state="success", duration_ms=1)
    assert command_runs(history.path, now=NOW, days=1, parts=1) == []
    assert len(command_runs(history.path, now=NOW, days=2, parts=1)) == 1


def test_a_run_of_the_future_counts_as_now(history) -> None:
    history(-5 * HOUR, command_name="A", state="success", duration_ms=7)
    (a,) = command_runs(history.path, now=NOW, days=2, parts=2)
    assert a.medians_ms == (None, 7)


def test_a_run_without_a_duration_counts(history) -> None:
    history(HOUR, command_name="A", state="success")
    (a,) = command_runs(history.path, now=NOW, days=1, parts=1)
    assert (a.succeeded, a.p50_ms) == (1, None)


def test_the_most_frequent_comes_first_then_by_name(history) -> None:
    for name in ("B", "C", "A", "C"):
        history(HOUR, command_name=name, state="success", duration_ms=1)
    assert [each.name for each in command_runs(history.path, now=NOW, days=1, parts=1)] == ["C", "A", "B"]


def test_without_a_history_there_is_nothing_and_no_file(tmp_path: Path) -> None:
    assert command_runs(tmp_path / "none.db", now=NOW, days=1, parts=1) == []
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"x" * 4096)
    with pytest.raises(StorageError, match=r"history\.db cannot be read: "):
        command_runs(tmp_path / "history.db", now=NOW, days=1, parts=1)


def test_one_of_an_earlier_version_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE event(id TEXT, at INTEGER, name TEXT, command TEXT, state TEXT, duration_ms INTEGER)")
        for ago in (1, 30):
            db.execute("INSERT INTO event VALUES('x', ?, 'command_completed', 'A', 'success', 7)", (NOW - ago * HOUR,))
    (a,) = command_runs(path, now=NOW, days=1, parts=2)
    assert (a.name, a.runs, a.medians_ms) == ("A", 1, (None, 7))


def test_one_of_a_later_version_is_refused(history) -> None:
    history(HOUR, command_name="A", state="success")
    with closing(sqlite3.connect(history.path)) as db:
        db.execute("PRAGMA user_version=9")
    with pytest.raises(StorageError, match=r"\(schema 9; known here: 2\)"):
        command_runs(history.path, now=NOW, days=1, parts=1)


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    [([], 50, None), ([7], 50, 7), ([7], 95, 7), ([3, 1, 2], 50, 2), ([4, 3, 2, 1], 50, 2),
     (range(1, 101), 95, 95), (range(1, 11), 95, 10)],
)  # fmt: skip
def test_percentiles_are_values_that_occurred(values, rank: int, expected: int | None) -> None:
    assert percentile(list(values), rank) == expected
