"""The spool keeps to its bounds: what is worth least goes first, and the file gives back what it does not need."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import DROP_REASONS, EventResult, Gated, Lease, Ledger, Row, View

DAY = 86_400.0
NOW = 10_000_000.0
ACCEPTED, RETRY = EventResult("", "accepted"), EventResult("", "retry")
ASIDE = EventResult("", "rejected", "set-aside: no")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db", Bounds(spool_events=10))) as made:
        made.register([View(name="far", identity="i"), View(name="own", audience="private", identity="i")])
        yield made


def row(rank: int = 0, *, at: float = NOW, size: int = 2, shared: bool = True) -> Row:
    body = b'"' + b"x" * (size - 2) + b'"'
    return Row(spec="s@1", event=f"e{rank}", version=1, at=int(at), generation="g", source="here", rank=rank,
               private=body, shared=body if shared else None)  # fmt: skip


def put(spool: Spool, *rows: Row, segment: str = "s") -> None:
    before = spool.offset(segment)
    assert before is not None
    assert spool.take_in(segment, Gated(rows=rows), before=before, after=before + 100, drops={})


def lease(spool: Spool, name: str = "far", count: int = 500) -> Lease:
    found = spool.lease(name, NOW, count=count)
    assert found is not None
    return found


def settle(spool: Spool, given: Lease, outcome: EventResult = ACCEPTED) -> None:
    spool.settle(given, {item.seq: outcome for item in given.items}, NOW)


def stored(spool: Spool) -> list[int]:
    """The numbers of the events that are there, each counted."""
    with closing(sqlite3.connect(spool.path)) as db:
        found = [seq for (seq,) in db.execute("SELECT seq FROM event ORDER BY seq")]
        assert db.execute("SELECT events FROM stored").fetchone() == (len(found),)
    return found


def ledger(spool: Spool, name: str = "far") -> Ledger:
    found = spool.ledger()[name]
    assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
    assert found.dropped.keys() <= DROP_REASONS.keys()
    return found


# -- number ------------------------------------------------------------------------------------------------------------


def test_the_lowest_rank_goes_first_and_of_these_the_oldest(spool: Spool) -> None:
    put(spool, row(3), row(), row(1), row(), row(2), row(), row(1), row(), row(3), row())
    assert stored(spool) == list(range(1, 11))
    put(spool, row())
    assert stored(spool) == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    put(spool, row(2), row(2), row(2), row(2), row(2), row(2))
    assert stored(spool) == [1, 5, 7, 9, 12, 13, 14, 15, 16, 17]
    put(spool, row(3), row(3))
    assert stored(spool) == [1, 9, 12, 13, 14, 15, 16, 17, 18, 19]
    put(spool, row())  # it is worth less than any that is there
    assert stored(spool) == [1, 9, 12, 13, 14, 15, 16, 17, 18, 19]
    for name in ("far", "own"):
        assert ledger(spool, name).dropped == {"spool-full": 10}


def test_an_import_that_is_larger_than_the_bound_leaves_its_newest(spool: Spool) -> None:
    put(spool, *(row(at=NOW + number) for number in range(25)))
    assert stored(spool) == list(range(16, 26))
    assert ledger(spool).dropped == {"spool-full": 15}


def test_what_was_acknowledged_or_is_for_nobody_counts_for_none(spool: Spool) -> None:
    put(spool, *(row(shared=False) for _ in range(4)), *(row() for _ in range(6)))
    settle(spool, lease(spool, count=3))
    put(spool, *(row() for _ in range(8)))
    assert ledger(spool).dropped == {"spool-full": 1}  # of the eight that went, four were not for it, three it had
    assert ledger(spool, "own").dropped == {"spool-full": 8}


def test_what_was_put_off_or_set_aside_goes_like_any_other(spool: Spool) -> None:
    put(spool, *(row() for _ in range(6)))
    settle(spool, lease(spool, count=2), RETRY)
    settle(spool, lease(spool, count=2))  # the two again
    settle(spool, lease(spool, count=1), ASIDE)
    settle(spool, lease(spool, count=1), RETRY)
    put(spool, *(row() for _ in range(7)))
    assert (ledger(spool).dropped, ledger(spool).set_aside) == ({"spool-full": 1}, 0)
    put(spool, row())
    assert (ledger(spool).dropped, spool.retry_at("far")) == ({"spool-full": 2}, None)


def test_an_event_that_goes_while_it_is_sent_is_counted_once(spool: Spool) -> None:
    put(spool, *(row() for _ in range(10)))
    given = lease(spool)
    put(spool, row(), row())
    settle(spool, given)
    assert (ledger(spool).acknowledged, ledger(spool).dropped, ledger(spool).pending) == (8, {"spool-full": 2}, 2)


def test_an_import_that_fails_after_all_drops_nothing(spool: Spool) -> None:
    put(spool, *(row() for _ in range(10)))
    with closing(sqlite3.connect(spool.path)) as db, db:
        db.execute("CREATE TRIGGER broken BEFORE UPDATE ON stored WHEN NEW.events<OLD.events "
                   "BEGIN SELECT RAISE(ABORT, 'disk'); END")  # fmt: skip
    with pytest.raises(Exception, match="disk"):
        put(spool, row(), row())
    with closing(sqlite3.connect(spool.path)) as db, db:
        db.execute("DROP TRIGGER broken")
    assert stored(spool) == list(range(1, 11))
    put(spool, row(), row(), row())
    assert stored(spool) == list(range(4, 14))  # and none of them is overlooked


def test_a_count_that_is_wrong_harms_nobody_and_is_mended(spool: Spool) -> None:
    put(spool, row(), row())
    with closing(sqlite3.connect(spool.path)) as db, db:
        db.execute("UPDATE stored SET events=99")
    put(spool, row())
    assert ledger(spool).dropped == {"spool-full": 3}  # which ends
    with closing(sqlite3.connect(spool.path)) as db, db:
        db.execute("UPDATE stored SET events=0")
    put(spool, row(), row(), row())
    spool.expire(NOW)
    assert stored(spool) == [4, 5, 6]


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_the_file_stays_within_its_bytes(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.db", Bounds(spool_mib=1))) as spool:
        spool.register([View(name="far", identity="i")])
        for _ in range(30):
            put(spool, *(row(2 * (number % 10 == 0), size=1000) for number in range(100)))
            used = spool.size()[1]
            assert used <= 1 << 20
        assert used > 0.9 * (1 << 20)
        assert stored(spool)[0] == 1
        kinds = {found.rank for seq in stored(spool) if (found := spool.row(seq))}
        assert kinds == {0, 2}
        assert len([seq for seq in stored(spool) if seq % 100 == 1]) == 30  # none that is worth more had to go
        assert ledger(spool).dropped.keys() == {"spool-full"}
    assert (tmp_path / "spool.db").stat().st_size <= (1 << 20) + 300 * 1024


def empty(spool: Spool) -> None:
    """Send 2,500 large events: what they filled is free."""
    spool.register([View(name="far", identity="i")])
    for _ in range(10):
        put(spool, *(row(size=2000) for _ in range(250)))
    while given := spool.lease("far", NOW):
        settle(spool, given)


def test_a_file_that_is_mostly_empty_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with closing(Spool(path)) as spool:
        empty(spool)
        put(spool, row())
        assert path.stat().st_size > 5 << 20
        spool.expire(NOW)
        assert [item.seq for item in lease(spool).items] == [2501]
    assert path.stat().st_size < 1 << 20
    with closing(Spool(path)) as spool:
        put(spool, row())
        assert stored(spool) == [2501, 2502]


def test_a_file_that_cannot_be_made_smaller_now_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with closing(Spool(path)) as spool:
        empty(spool)
        reading = spool._db.execute("SELECT 1 UNION ALL SELECT 2")  # SQLite refuses for as long as a question is open
        spool.expire(NOW)
        assert spool.ledger()["far"].acknowledged == 2500
        reading.close()
        assert path.stat().st_size > 5 << 20
        spool.expire(NOW)
    assert path.stat().st_size < 1 << 20


# -- age ---------------------------------------------------------------------------------------------------------------


def test_age_is_what_the_bounds_say(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.db", Bounds(keep_days=2))) as spool:
        spool.register([View(name="far", identity="i")])
        put(spool, row(at=NOW - 2 * DAY - 1), row(at=NOW - 2 * DAY), row())
        spool.expire(NOW)
        assert stored(spool) == [2, 3]
        assert ledger(spool).dropped == {"expired": 1}


def test_one_of_all_processes_tidies_up_in_an_hour(spool: Spool) -> None:
    def tidied(now: float) -> bool:
        put(spool, row(at=0))
        before = len(stored(spool))
        with closing(Spool(spool.path)) as other:
            other.expire(now, every=3600)
        return len(stored(spool)) < before

    moments = [NOW, NOW + 1, NOW + 3599, NOW + 3600, NOW + 3601, NOW, NOW + 5000]  # back, too: the clock was wrong
    assert [tidied(now) for now in moments] == [True, False, False, True, False, True, True]


def test_kinds_that_nobody_has_any_more_are_forgotten(spool: Spool) -> None:
    put(spool, row(at=0), row(1))
    spool.expire(NOW)
    with closing(sqlite3.connect(spool.path)) as db:
        assert db.execute("SELECT event FROM kind").fetchall() == [("e1",)]
    put(spool, row())
    found = spool.newest()
    assert found is not None
    assert found.event == "e0"
