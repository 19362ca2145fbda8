"""The file that adds each event once: over processes, damage, and values without end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import cmdorc_telemetry.tally.counts as counts_module
from cmdorc_telemetry.errors import RetryLater, StorageError
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.spec.instruments import Family
from cmdorc_telemetry.tally import OTHER, SUM, Label, Sample, Tally, body_of, read, written
from cmdorc_telemetry.tally.counts import Contents, Counts
from cmdorc_telemetry.types import BatchEvent

from .counting import LOAD, TOOK, Runs, event

DAY = 86400.0
NOW = 1_767_323_060.0
"""2026-01-02T03:04:20Z."""


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    return Counts(tmp_path / "kept" / "counts.db", most_values=2)


def count(
    to: Counts, *events: BatchEvent, now: float = 0.0, tally: Callable[[Label], Tally[BatchEvent]] = Runs
) -> tuple[bool, ...]:
    draft = to.draft(events, tally, now)
    to.commit(draft)
    return draft.fresh


def values(of: Counts, metric: str = "runs") -> dict[str, float]:
    """The series of a metric: value of the label ``name`` → how many."""
    samples = of.read().samples.items()
    return {read(sample.labels).get("name", ""): value for sample, value in samples if sample.metric == metric}


# -- each event once ---------------------------------------------------------------------------------------------------


def test_an_event_counts_once_whoever_comes_with_it(counts: Counts) -> None:
    events = [event(name="A"), event("no uuid", name="A"), event(name="A")]
    assert count(counts, events[0], events[1], events[0]) == (True, True, False)
    assert count(Counts(counts.path), *events) == (False, False, True)
    assert count(counts, *events) == (False, False, False)
    assert values(counts) == {"A": 3}


def test_an_event_that_cannot_be_known_again_counts_each_time(counts: Counts) -> None:
    assert count(counts, event("", name="A"), event("", name="A")) == (True, True)
    assert count(counts, event("", name="A")) == (True,)
    assert values(counts) == {"A": 3}


def test_more_events_than_one_statement_asks_for(counts: Counts) -> None:
    events = [event(name="A") for _ in range(1201)]
    assert all(count(counts, *events))
    assert not any(count(counts, *events))


def test_ids_are_remembered_for_long_and_not_for_ever(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "KEPT_IDS", 40)
    monkeypatch.setattr(counts_module, "_TIDY_EVERY", 10)
    events = [event() for _ in range(100)]
    for start in range(0, 100, 7):
        count(counts, *events[start : start + 7])
        assert not any(count(counts, *events[max(0, start - 33) : start + 7]))
    with closing(sqlite3.connect(counts.path)) as db:
        assert 40 <= db.execute("SELECT count(*) FROM counted").fetchone()[0] <= 60


def test_a_draft_writes_nothing(counts: Counts) -> None:
    counts.draft([event()], Runs, 0)
    assert not counts.path.parent.exists()
    assert counts.read() == Contents()
    count(counts, event(name="A"))
    before = counts.path.read_bytes()
    draft = counts.draft([event(name="B"), event(name="B")], Runs, 0)
    assert counts.path.read_bytes() == before
    assert (draft.base, draft.number, draft.fresh) == (1, 3, (True, True))


def test_a_draft_that_is_too_old_is_not_counted(counts: Counts) -> None:
    late = counts.draft([event(name="A")], Runs, 0)
    count(counts, event(name="B"))
    with pytest.raises(RetryLater, match="another process has counted meanwhile"):
        counts.commit(late)
    assert values(counts) == {"B": 1}


def test_a_batch_counts_whole_or_not_at_all(counts: Counts) -> None:
    count(counts, event(name="A"))
    before = counts.read()
    with closing(sqlite3.connect(counts.path)) as db:
        db.execute("CREATE TRIGGER broken BEFORE INSERT ON counted BEGIN SELECT RAISE(FAIL, 'it is broken'); END")
    with pytest.raises(sqlite3.IntegrityError, match="it is broken"):
        count(counts, event(name="A", ms=5), event(name="B"))
    assert counts.read() == before


def test_marks_and_notes(counts: Counts) -> None:
    one, two, three = event("1"), event("2"), event("3")
    draft = counts.draft([one, two], Runs, 0)
    assert (draft.marks, draft.notes) == ({}, {})
    counts.commit(draft, {"begun": 5})
    counts.mark(["1"], 1)
    counts.mark(["1", "2", "3"], 2)
    draft = counts.draft([one, two, three], Runs, 0)
    assert draft.marks == {"1": 3, "2": 2}
    counts.commit(draft, {"begun": 3, "told": 8})
    assert counts.draft([], Runs, 0).notes == {"begun": 3, "told": 8, "counted": 3}


def test_what_nobody_was_told_of_and_does_not_come_again_is_in_no_number(counts: Counts) -> None:
    one, two, three = event("1", name="A"), event("2", name="A"), event("3", name="A")
    told = 4

    def counted(*events: BatchEvent) -> tuple[bool, float]:
        draft = counts.reading(lambda db: counts.drafted(db, events, Runs, NOW, told))
        counts.commit(draft)
        return bool(draft.anew), values(counts)["A"]

    assert counted(one) == (False, 1)
    counts.mark(["1"], told)
    assert counted(two) == (False, 2)
    counts.mark(["2"], 1)
    assert counted(two, three) == (False, 3)
    assert counted(two) == (True, 1)  # the third was withdrawn
    assert counts.draft([one, two, three], Runs, NOW).marks == {"1": told, "2": 1}
    counts.mark(["2"], told)
    assert counted(three) == (False, 2)  # it comes after all


# -- what is kept of labels and instruments ----------------------------------------------------------------------------


def test_more_values_than_there_is_room_for(counts: Counts) -> None:
    def adding(*names: str, days: float) -> dict[str, float]:
        count(counts, *(event(name=name) for name in names), now=days * DAY)
        return values(counts)

    assert adding(OTHER, "A", "B", "C", "C", days=1000) == {"A": 1, "B": 1, OTHER: 3}
    assert adding("C", "A", "D", days=1000) == {"A": 2, "B": 1, OTHER: 5}
    assert adding("A", "D", days=1029) == {"A": 3, "B": 1, OTHER: 6}
    assert adding("A", OTHER, days=1031) == {"A": 4, "B": 1, OTHER: 7}
    assert adding("D", "E", "B", days=1031) == {"A": 4, "D": 1, OTHER: 9}  # B was not seen for 31 days
    assert adding("B", "D", days=1031) == {"A": 4, "D": 2, OTHER: 10}


@pytest.mark.parametrize("name", ['x"]', '["name","B"]', "\\", "two\nlines", "ü€"])
def test_what_makes_room_takes_nothing_else_along(counts: Counts, name: str) -> None:
    count(counts, event(name=name), now=0)
    count(counts, event(name="B", source="B"), event(state="ok", name="B"), now=1 * DAY)
    assert len([each for each in counts.read().samples if read(each.labels)["name"] == name]) == 1
    count(counts, event(name="C"), now=30.5 * DAY)
    assert {read(each.labels)["name"] for each in counts.read().samples} == {"B", "C"}
    assert len(counts.read().samples) == 3


def test_an_empty_value_is_none(counts: Counts) -> None:
    count(counts, event(name=""), event(name="A"), event(name="B"))
    assert values(counts) == {"": 1, "A": 1, "B": 1}
    count(counts, event(name="C"), now=31 * DAY)
    assert values(counts) == {"": 1, "B": 1, "C": 1}


def test_each_source_counts_for_itself(counts: Counts) -> None:
    for _ in range(2):
        count(counts, event(name="A", source="one"), event(name="A", source="two"), event(name="A", source="two"))
    assert {sample.source: value for sample, value in counts.read().samples.items()} == {"one": 2, "two": 4}


def test_a_gauge_never_goes_back_in_time(counts: Counts) -> None:
    def load(value: float, second: int) -> float:
        count(counts, event(load=value, timestamp=f"2026-01-02T03:04:0{second}Z"), now=NOW)
        return counts.read().samples[Sample("", "load", "[]")]

    assert [load(1, 5), load(2, 4), load(3, 5), load(4, 6)] == [1, 1, 3, 4]


def test_a_clock_that_was_wrong_leaves_no_gauge_in_the_future(counts: Counts) -> None:
    def load(value: float, timestamp: str, now: float) -> float:
        count(counts, event(load=value, timestamp=timestamp), now=now)
        return counts.read().samples[Sample("", "load", "[]")]

    assert load(1, "2099-01-02T03:04:05Z", NOW) == 1  # recorded while it was
    assert load(2, "2026-01-03T03:04:05Z", NOW + DAY) == 2
    assert load(3, "2099-01-02T03:04:05Z", NOW + 73 * 366 * DAY) == 3  # and counted, too
    assert load(4, "2026-01-04T03:04:05Z", NOW + 2 * DAY) == 4


def test_a_clock_that_was_wrong_leaves_no_value_for_ever(counts: Counts) -> None:
    count(counts, event(name="A"), event(name="B"), now=NOW + 73 * 366 * DAY)
    count(counts, event(name="A"), now=NOW)
    count(counts, event(name="A"), now=NOW + 20 * DAY)
    count(counts, event(name="C"), now=NOW + 31 * DAY)
    assert values(counts) == {"A": 3, "C": 1}


@pytest.mark.parametrize(
    "other", [TOOK._replace(edges=(2.0,)), TOOK._replace(unit="ms"), TOOK._replace(kind="gauge")]
)  # fmt: skip
def test_what_is_measured_otherwise_begins_anew(counts: Counts, other: Family) -> None:
    class Otherwise(Runs):
        took = other

    count(counts, event(name="A", ms=4000), event(name="A", ms=4000))
    count(counts, event(name="A", ms=4000), tally=Otherwise)
    contents = counts.read()
    assert contents.families["took"] == other
    assert sum(value for sample, value in contents.samples.items() if sample.metric == "took") in (1 + 4, 4)
    assert values(counts) == {"A": 3}


def test_what_is_said_of_an_instrument_may_change(counts: Counts) -> None:
    class Otherwise(Runs):
        took = TOOK._replace(help="Seconds")

    count(counts, event(name="A", ms=4000))
    count(counts, event(name="A", ms=4000), tally=Otherwise)
    contents = counts.read()
    assert contents.families["took"].help == "Seconds"
    assert contents.samples[Sample("", "took", written({"name": "A"}), SUM)] == 8


def test_an_instrument_that_has_but_what_is_told_last(counts: Counts) -> None:
    class Alone(Runs):
        def count(self, event: BatchEvent) -> None:
            self.alone.add("load")
            self.set(LOAD, written({"name": str(body_of(event)["name"])}), 1, 0)

    for name in ("A", "B"):
        count(counts, event(name=name), event(name=f"{name}2"), tally=Alone)
    assert values(counts, "load") == {"B": 1, "B2": 1}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_on_the_disk(counts: Counts) -> None:
    """No test can cut the power: it is for SQLite to keep what it says of this."""
    count(counts, event())
    assert stat.S_IMODE(counts.path.stat().st_mode) == 0o600
    with closing(counts_module._connect(counts.path, "rw")) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)


def test_a_file_that_is_none_is_moved_aside(counts: Counts, caplog: pytest.LogCaptureFixture) -> None:
    known = event(name="A")
    count(counts, known)
    counts.path.write_bytes(b"no database" * 1000)
    assert count(counts, known) == (True,)
    assert values(counts) == {"A": 1}
    assert len(list(counts.path.parent.glob("*.corrupt-*"))) == 1
    assert "counters begin anew" in caplog.text


def damage(path: Path, table: str) -> None:
    """Spoil the first page of a table, or of an index."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)


@pytest.mark.parametrize("table", ["label", "counted", "note"])
def test_damage_that_is_noticed_by_the_draft(counts: Counts, table: str) -> None:
    count(counts, *(event(name=f"{number}", ms=number) for number in range(800)))
    damage(counts.path, table)
    assert count(counts, event(name="A", ms=1)) == (True,)
    assert values(counts) == {"A": 1}


@pytest.mark.parametrize("table", ["family", "sample"])
def test_damage_that_is_noticed_after_the_draft(counts: Counts, table: str) -> None:
    """The draft was made of what could be read: not of what is there when that was moved aside."""
    count(counts, *(event(name=f"{number}", ms=number) for number in range(800)))
    damage(counts.path, table)
    with pytest.raises(RetryLater, match=r"cannot be read: .*malformed"):
        count(counts, event(name="A", ms=1))
    assert count(counts, event(name="A", ms=1)) == (True,)
    assert values(counts) == {"A": 1}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc/self/fd")
def test_a_broken_file_leaves_nothing_open(counts: Counts) -> None:
    count(counts, event())
    counts.path.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as failure:
        counts.read()
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(counts.path) not in held
    assert failure.tb is not None  # which would hold what was forgotten


def test_a_directory_in_its_place_makes_way(counts: Counts) -> None:
    counts.path.mkdir(parents=True)
    assert count(counts, event(name="A")) == (True,)
    assert values(counts) == {"A": 1}


def test_a_file_that_was_begun_and_not_more(counts: Counts) -> None:
    counts.path.parent.mkdir()
    counts.path.touch()
    assert count(counts, event(name="A")) == (True,)
    assert values(counts) == {"A": 1}


def test_a_file_of_a_later_version_stays_as_it_is(counts: Counts) -> None:
    draft = counts.draft([event()], Runs, 0)
    count(counts, event(name="A"))
    with closing(sqlite3.connect(counts.path)) as db:
        db.execute("PRAGMA user_version=9")
    before = counts.path.read_bytes()
    for attempt in (lambda: counts.draft([event()], Runs, 0), lambda: counts.commit(draft)):
        with pytest.raises(StorageError, match="newer version"):
            attempt()
    assert counts.path.read_bytes() == before


def test_trouble_that_is_no_damage_leaves_the_file(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "_BUSY_SECONDS", 0.01)
    count(counts, event(name="A"))
    with closing(sqlite3.connect(counts.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            counts.draft([event()], Runs, 0)
    draft = counts.draft([event()], Runs, 0)
    with closing(sqlite3.connect(counts.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            counts.commit(draft)
    assert values(counts) == {"A": 1}


def test_delete(counts: Counts) -> None:
    counts.delete()
    count(counts, event())
    journal = counts.path.with_name(f"{counts.path.name}-journal")
    journal.touch()
    counts.delete()
    assert list(counts.path.parent.iterdir()) == []


# -- one at a time -----------------------------------------------------------------------------------------------------


def within(counts: Counts, do: Callable[[], object] = lambda: None) -> None:
    async def life() -> None:
        async with counts.locked():
            do()

    asyncio.run(life())


def test_only_one_holds_the_lock(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    within(counts, lambda: count(counts, event()))
    lock = FileLock(counts.lock_path)
    lock.acquire()
    with monkeypatch.context() as quick:
        quick.setattr(counts_module, "LOCK_SECONDS", 0.05)
        with pytest.raises(RetryLater, match=r"holds its lock for more than 0\.05 s"):
            within(counts)
    turns: list[str] = []

    async def waiting() -> None:
        async def other() -> None:
            async with counts.locked():
                turns.append("other")

        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        turns.append("first")
        lock.release()
        await task

    asyncio.run(waiting())
    assert turns == ["first", "other"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(28, "No space left on device"), "counts.db: No space left on device"),
        (sqlite3.OperationalError("disk I/O error"), "counts.db: disk I/O error"),
        (StorageError("it is newer"), "^it is newer"),
    ],
)
def test_what_goes_wrong_meanwhile_is_for_later(counts: Counts, fault: Exception, said: str) -> None:
    def fail() -> None:
        raise fault

    with pytest.raises(RetryLater, match=said):
        within(counts, fail)
    within(counts)  # it was given back


def test_a_mistake_is_not_for_later(counts: Counts) -> None:
    def fail() -> Sequence[int]:
        return [1 // 0]

    with pytest.raises(ZeroDivisionError):
        within(counts, fail)
    within(counts)
