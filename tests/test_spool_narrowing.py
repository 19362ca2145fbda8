"""Stored bodies shrink with the decision, in one transaction, and every count goes with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult, Gated, Row, View

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

NOW = 10_000_000.0
Cover = Callable[[bytes], bytes | None]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool.db")
    made.register([View(name="far", identity="i"), View(name="runs", identity="i", kinds=frozenset({("s@1", "run")})),
                   View(name="own", identity="i", audience="private")])  # fmt: skip
    yield made
    made.close()


def put(spool: Spool, *events: str, generation: str = "g", shared: bool = True, segment: str = "s") -> None:
    before = spool.offset(segment) or 0
    rows = [Row(spec="s@1", event=event, version=1, at=int(NOW), generation=generation, source="j", private=b'{"p":1}',
                shared=b"wide" if shared else None, withheld={"os": "mask"}) for event in events]  # fmt: skip
    assert spool.take_in(segment, Gated(rows=tuple(rows)), before=before, after=before + 1, drops={})


def all_of(answer: bytes | None) -> Callable[[str, str, str, int], Cover | None]:
    return lambda *kind: None if answer is None else lambda body: answer


def bodies(spool: Spool) -> list[bytes | None]:
    found = [spool.row(seq) for seq in range(1, 100)]
    return [row.shared for row in found if row is not None]


def conserved(spool: Spool) -> None:
    for ledger in spool.ledger().values():
        assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values()), str(ledger)


def settle(spool: Spool, name: str, status: str, reason: str = "", count: int = 99) -> None:
    lease = spool.lease(name, NOW, count=count)
    assert lease is not None
    outcome = EventResult("", status, reason)  # type: ignore[arg-type]
    spool.settle(lease, {item.seq: outcome for item in lease.items}, NOW, pause=lambda tries: 5.0)


def test_bodies_are_rewritten_and_nothing_is_dropped(spool: Spool) -> None:
    put(spool, "run", "other")
    spool.narrow("k", "d", all_of(b"narrow"))
    assert bodies(spool) == [b"narrow", b"narrow"]
    assert [ledger.dropped for ledger in spool.ledger().values()] == [{}] * 3
    lease = spool.lease("far", NOW)
    assert lease is not None
    assert [item.row.shared for item in lease.items] == [b"narrow", b"narrow"]
    assert lease.items[0].row.withheld == {"os": "mask"}


@pytest.mark.parametrize("cover", [all_of(None), lambda *kind: lambda body: None], ids=["kind", "body"])
def test_bodies_of_which_nothing_is_left_go_for_those_who_wait_for_them(
    spool: Spool, cover: Callable[[str, str, str], Cover | None]
) -> None:
    put(spool, "run", "other", "other")
    put(spool, "run", shared=False)
    settle(spool, "far", "accepted", count=1)
    settle(spool, "far", "retry", count=1)
    spool.narrow("k", "d", cover)
    conserved(spool)
    ledgers = spool.ledger()
    assert bodies(spool) == [None] * 4
    assert {name: dict(each.dropped) for name, each in ledgers.items()} == {
        "far": {"withdrawn-consent": 2}, "runs": {"withdrawn-consent": 1}, "own": {}
    }  # fmt: skip
    assert {name: each.pending for name, each in ledgers.items()} == {"far": 0, "runs": 0, "own": 4}
    assert spool.lease("far", NOW + 10) is None
    assert spool.retry_at("far") is None
    row = spool.row(2)
    assert row is not None
    assert (row.private, row.withheld) == (b'{"p":1}', {})
    assert spool.lease("runs", NOW) is None
    settle(spool, "own", "accepted")
    assert spool.size()[0] == 0


def test_each_kind_is_judged_by_itself(spool: Spool) -> None:
    put(spool, "run", "other")
    put(spool, "run", generation="old")
    asked = []

    def cover_of(spec: str, event: str, generation: str, version: int) -> Cover | None:
        asked.append((spec, event, generation, version))
        return None if generation == "old" else lambda body: b"narrow" if event == "run" else body

    spool.narrow("k", "d", cover_of)
    assert sorted(asked) == [("s@1", "other", "g", 1), ("s@1", "run", "g", 1), ("s@1", "run", "old", 1)]
    assert bodies(spool) == [b"narrow", b"wide", None]
    assert dict(spool.ledger()["far"].dropped) == dict(spool.ledger()["runs"].dropped) == {"withdrawn-consent": 1}


def test_many_are_narrowed_piece_by_piece(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.spool.narrowing._AT_ONCE", 3)
    put(spool, *["run"] * 10)
    spool.narrow("k", "d", lambda *kind: iter_cover(10))
    assert bodies(spool) == [None, b"narrow"] * 5
    assert dict(spool.ledger()["far"].dropped) == {"withdrawn-consent": 5}
    conserved(spool)


def iter_cover(count: int) -> Cover:
    answers = iter([None, b"narrow"] * count)
    return lambda body: next(answers)


def test_it_is_done_once_a_decision_for_each_who_judges(spool: Spool) -> None:
    put(spool, "run")
    asked = []

    def cover_of(*kind: str | int) -> Cover:
        asked.append(kind)
        return lambda body: body

    for key, decision in (("k", "d"), ("k", "d"), ("other", "d"), ("other", "d"), ("k", "e"), ("k", "d")):
        spool.narrow(key, decision, cover_of)
    assert len(asked) == 4


def test_what_is_done_keeps_nobody_from_writing(spool: Spool) -> None:
    spool.narrow("k", "d", all_of(None))
    other = Spool(spool.path)
    with other._write():
        spool.narrow("k", "d", all_of(None))
    other.close()


def test_a_dead_letter_that_is_still_covered_stays(spool: Spool) -> None:
    put(spool, "run")
    settle(spool, "far", "rejected", "set-aside: no")
    spool.narrow("k", "d", all_of(b"narrow"))
    assert [letter.reason for letter in spool.dead_letters()] == ["set-aside: no"]
    spool.narrow("k", "e", all_of(None))
    assert spool.dead_letters() == []
    assert dict(spool.ledger()["far"].dropped) == {"withdrawn-consent": 1}


def test_what_is_on_its_way_as_it_is_taken_back_is_counted_once(spool: Spool) -> None:
    put(spool, "run", "run")
    lease = spool.lease("far", NOW)
    assert lease is not None
    spool.narrow("k", "d", all_of(None))
    spool.settle(lease, {item.seq: EventResult("", "accepted") for item in lease.items}, NOW)
    ledger = spool.ledger()["far"]
    assert (ledger.acknowledged, ledger.pending, dict(ledger.dropped)) == (0, 0, {"withdrawn-consent": 2})
    conserved(spool)


@pytest.mark.parametrize("step", ["_rewrite", "_give_up", "_purge", "_trim", "_remember"])
@pytest.mark.parametrize("after", [False, True])
def test_whoever_is_killed_meanwhile_has_done_nothing_and_the_next_one_does_it(
    spool: Spool, step: str, after: bool
) -> None:
    put(spool, "run", "run", "other")
    before = spool.ledger()
    child = os.fork()
    if not child:
        try:
            other = Spool(spool.path)
            original = getattr(other, step)

            def deadly(*args: object) -> None:
                if after:
                    original(*args)
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(other, step, deadly)
            other.narrow("k", "d", lambda spec, event, *of: None if event == "run" else lambda body: b"narrow")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (bodies(spool), spool.ledger()) == ([b"wide"] * 3, before)
    spool.narrow("k", "d", lambda spec, event, *of: None if event == "run" else lambda body: b"narrow")
    assert bodies(spool) == [None, None, b"narrow"]
    conserved(spool)
