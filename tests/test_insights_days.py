"""The history day by day: in the machine's own zone, the same counts as run by run."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import msgspec
import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.history import HistoryReporter
from cmdorc_telemetry.insights import command_days, command_runs, event_counts, newest_bodies
from cmdorc_telemetry.types import Batch, BatchEvent

NOW = 1_795_320_480.0  # Sunday 22 November 2026, 04:08 UTC
DAY = 86_400.0


def completed(ago: float, command: str, state: str, duration: int) -> dict[str, object]:
    return {"event": "command_completed", "timestamp": clock.iso(NOW - ago * DAY), "command_name": command,
            "state": state, "duration_ms": duration}  # fmt: skip


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def change(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield change
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Keeps runs as (days ago, command, state, milliseconds), or whole bodies; the path of the history."""
    monkeypatch.setattr(clock, "wall", lambda: NOW)
    path = tmp_path / "history.db"

    def write(*runs: tuple[float, str, str, int] | dict[str, object]) -> Path:
        events = []
        for number, run in enumerate(runs):
            body = {"event_id": f"e{number}", **(run if isinstance(run, dict) else completed(*run))}
            events.append(BatchEvent(body["event_id"], body["event"], msgspec.json.encode(body), seq=number + 1))
        reporter = HistoryReporter(HistoryReporter.Settings(str(path)))

        async def report() -> None:
            await reporter.report_batch(Batch(destination="history", events=tuple(events)))
            await reporter.close()

        asyncio.run(report())
        return path

    return write


def test_each_day_has_its_outcomes_and_each_hour_its_runs(keep, zone) -> None:
    zone("UTC")
    path = keep((19.5, "A", "failed", 5), (1, "A", "success", 10), (1, "B", "cancelled", 99), (0, "A", "success", 30))
    found = command_days(path, now=NOW, days=90)
    assert found.zone == "UTC"
    assert (found.dates[0], found.dates[-1], len(found.dates)) == (date(2026, 11, 2), date(2026, 11, 22), 21)
    assert (found.outcomes[0], found.outcomes[19], found.outcomes[20]) == ((0, 1, 0), (1, 0, 1), (1, 0, 0))
    assert sum(map(sum, found.outcomes)) == found.runs == 4
    assert (found.hours[0][16], found.hours[5][4], found.hours[6][4]) == (1, 2, 1)
    assert sum(map(sum, found.hours)) == 4


def test_days_are_those_of_the_machine(keep, zone) -> None:
    zone("Pacific/Auckland")  # already Sunday evening
    path = keep((0, "A", "success", 1), (0.25, "A", "success", 1))
    found = command_days(path, now=NOW, days=30)
    assert found.dates[-1] == date(2026, 11, 22)
    assert found.hours[6][17] == 1
    assert found.outcomes[-1] == (2, 0, 0), "22:08 UTC on Saturday is Sunday there"
    assert found.zone == "NZDT"


def test_a_command_has_values_for_each_day(keep, zone) -> None:
    zone("UTC")
    path = keep((2, "A", "success", 10), (2, "A", "failed", 30), (2, "A", "success", 20), (0, "A", "cancelled", 7),
                (0, "A", "failed", 40), (0, "B", "success", 1))  # fmt: skip
    a, b = command_days(path, now=NOW, days=3).commands
    assert (a.name, a.runs, a.ended, a.succeeded, a.failed, a.cancelled) == ("A", 5, 4, 2, 2, 1)
    assert (a.medians_ms, a.p95s_ms, a.counts) == ((20, None, 40), (30, None, 40), (3, 0, 1))
    assert (a.p50_ms, a.p95_ms, a.total_ms) == (20, 40, 100)
    assert a.changes == 3, "the cancelled run in between says nothing"
    assert b.changes == 0


def test_what_is_older_than_asked_for_is_no_part_of_it(keep, zone) -> None:
    zone("UTC")
    path = keep((40, "Old", "success", 1), (3.01, "Old", "success", 1), (2, "A", "success", 1))
    found = command_days(path, now=NOW, days=3)
    assert [each.name for each in found.commands] == ["A"]
    assert len(found.dates) == 3


def test_a_short_history_begins_with_two_weeks(keep, zone) -> None:
    zone("UTC")
    assert len(command_days(keep((1, "A", "success", 1)), now=NOW, days=90).dates) == 14


def test_no_history_is_no_runs(tmp_path: Path) -> None:
    found = command_days(tmp_path / "history.db", now=NOW, days=90)
    assert (found.runs, found.commands, len(found.dates)) == (0, (), 14)
    assert newest_bodies(tmp_path / "history.db") == {}


def test_it_counts_what_command_runs_counts(keep, zone) -> None:
    zone("UTC")
    states = ("success", "failed", "cancelled")
    path = keep(*((number / 12, f"C{number % 4}", states[number % 3], number) for number in range(80)))
    runs = command_runs(path, now=NOW, days=9, parts=9)
    days = command_days(path, now=NOW, days=9).commands
    assert sum(each.runs for each in runs) == 80
    for one, other in zip(runs, days, strict=True):
        for name in ("name", "runs", "ended", "succeeded", "failed", "cancelled", "p50_ms", "p95_ms"):
            assert getattr(one, name) == getattr(other, name)


def test_the_newest_event_of_each_name(keep) -> None:
    stamp = clock.iso(NOW)
    path = keep((5, "A", "success", 1), (1, "B", "failed", 2), {"event": "other", "timestamp": stamp, "x": 1})
    found = {name: msgspec.json.decode(body) for name, body in newest_bodies(path).items()}
    assert found.keys() == {"command_completed", "other"}
    assert found["command_completed"]["command_name"] == "B"
    assert found["other"]["x"] == 1


def test_a_history_of_an_earlier_version_has_no_newest_event_and_a_later_one_is_refused(keep) -> None:
    path = keep((0, "A", "success", 1))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=1")
        assert newest_bodies(path) == {}
        assert event_counts(path, now=NOW, days=3, parts=3) == []
        db.execute("PRAGMA user_version=9")
    for ask in (newest_bodies, lambda path: event_counts(path, now=NOW, days=3, parts=3)):
        with pytest.raises(StorageError, match=r"\(schema 9; known here: 2\)"):
            ask(path)


def test_a_broken_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match=r"history\.db cannot be read"):
        newest_bodies(path)
    with pytest.raises(StorageError, match=r"history\.db cannot be read"):
        command_days(path, now=NOW, days=3)
