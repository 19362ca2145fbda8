"""Particular moments of the spool's bookkeeping, which random steps seldom meet: each destination's sum stays right."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import DeadLetter, EventResult, Gated, Lease, Ledger, Row, View

DAY = 86_400.0
NOW = 10_000_000.0
ACCEPTED, RETRY = EventResult("", "accepted"), EventResult("", "retry")
A, B = ("s@1", "a"), ("s@1", "b")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db")) as made:
        yield made


def row(event: str = "a", *, at: float = NOW, shared: bytes | None = b"{}", source: str = "here") -> Row:
    return Row(spec="s@1", event=event, version=1, at=int(at), generation="g", source=source,
               private=b'{"private":1}', shared=shared)  # fmt: skip


def put(spool: Spool, *rows: Row, segment: str = "s", drops: int = 0, damaged: int = 0, source: str = "here") -> None:
    before = spool.offset(segment)
    assert before is not None
    assert spool.take_in(segment, Gated(rows=rows), before=before, after=before + 100,
                         drops={"storage-failed": drops} if drops else {}, damaged=damaged, source=source)  # fmt: skip


def leased(spool: Spool, name: str = "far", *, now: float = NOW, count: int = 500, size: int = 1 << 20) -> Lease:
    lease = spool.lease(name, now, count=count, size=size)
    assert lease is not None
    return lease


def settle(spool: Spool, lease: Lease, *outcomes: EventResult, now: float = NOW) -> None:
    spool.settle(lease, {item.seq: each for item, each in zip(lease.items, outcomes, strict=True)}, now)


def ledger(spool: Spool, name: str = "far") -> Ledger:
    found = spool.ledger()[name]
    assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
    return found


def far(**options: object) -> View:
    return View(name="far", identity="i", **options)  # type: ignore[arg-type]


# -- losses of a segment -----------------------------------------------------------------------------------------------


def test_a_torn_record_that_its_owner_counted_is_one_loss_whenever_it_is_read(spool: Spool) -> None:
    spool.register([far()])
    put(spool, drops=1)  # the owner told of it; it lies at the end, where a reader waits for more
    put(spool, row(), drops=1, damaged=1)  # only now is it seen to be torn
    assert ledger(spool).dropped == {"storage-failed": 1}
    put(spool, row(), drops=1, damaged=2)  # these it did not count
    assert ledger(spool).dropped == {"storage-failed": 1, "corrupt": 2}
    put(spool, drops=3)  # what it tells late was counted as damage before
    assert ledger(spool).dropped == {"storage-failed": 3, "corrupt": 2}


def test_counts_that_fall_are_taken_for_none(spool: Spool) -> None:
    spool.register([far()])
    put(spool, drops=5)
    put(spool, drops=2)
    assert ledger(spool).dropped == {"storage-failed": 5}


def test_losses_of_one_segment_say_nothing_of_another(spool: Spool) -> None:
    spool.register([far()])
    put(spool, drops=2, segment="one")
    put(spool, damaged=1, segment="two")
    assert ledger(spool).dropped == {"storage-failed": 2, "corrupt": 1}


def test_a_reporter_of_one_process_bears_the_losses_of_that_process_alone(spool: Spool) -> None:
    spool.register([far()])
    spool.adopt(View(name="code", identity="i", source="here"), "owner")
    put(spool, row(source="there"), drops=1, segment="one", source="there")
    put(spool, row(), drops=2, segment="two", source="here")
    assert ledger(spool, "code").dropped == {"storage-failed": 2}
    assert ledger(spool, "code").pending == 1
    assert ledger(spool).dropped == {"storage-failed": 3}


def test_what_came_while_there_was_nobody_goes_when_there_is_somebody(spool: Spool) -> None:
    put(spool, row(), row())
    assert spool.size()[0] == 2
    spool.adopt(View(name="code", identity="i", source="here"), "owner")
    assert spool.size()[0] == 0


def test_what_the_gate_held_back_is_counted_beside_the_identity(spool: Spool) -> None:
    spool.register([far()])
    for number in range(2):
        assert spool.take_in(str(number), Gated(rows=(row(shared=None),), withheld={"consent": 1, "level": number}),
                             before=0, after=9, drops={})  # fmt: skip
    assert spool.withheld() == {"consent": 2, "level": 1}
    assert ledger(spool).recorded == 0


# -- segments ----------------------------------------------------------------------------------------------------------


def test_a_finished_segment_is_remembered_for_a_day(spool: Spool) -> None:
    put(spool, row(), segment="old")
    put(spool, row(), segment="other")
    spool.finish("old", NOW)
    assert not spool.take_in("old", Gated(rows=(row(),)), before=100, after=200, drops={})
    spool.finish("other", NOW + DAY - 1)
    assert spool.offset("old") is None
    spool.finish("other", NOW + DAY + 1)
    assert spool.offset("old") == 0
    assert spool.offset("other") is None


def test_numbers_go_on_when_the_spool_was_empty(spool: Spool, tmp_path: Path) -> None:
    spool.register([far()])
    for turn in range(3):
        put(spool, row())
        lease = leased(spool)
        assert [item.seq for item in lease.items] == [turn + 1]
        settle(spool, lease, ACCEPTED)
        assert spool.newest() is None
    with closing(Spool(tmp_path / "spool.db")) as again:
        put(again, row())
        assert [item.seq for item in leased(again).items] == [4]


# -- leases ------------------------------------------------------------------------------------------------------------


def test_a_lease_is_bounded_in_size_but_never_empty(spool: Spool) -> None:
    spool.register([far(), View(name="mine", audience="private", identity="i")])
    put(spool, *(row(shared=b"x" * 100) for _ in range(5)), row(shared=b"x" * 5000), row())
    assert len(leased(spool, size=250).items) == 2
    assert len(leased(spool, size=10).items) == 1
    assert len(leased(spool, "mine", size=3 * len(b'{"private":1}')).items) == 3  # it is its own body that counts


def test_what_is_due_again_comes_first_and_takes_its_room(spool: Spool) -> None:
    spool.register([far()])
    put(spool, *(row(shared=b"x" * 100) for _ in range(4)))
    settle(spool, leased(spool, count=2), RETRY, RETRY)
    assert [(item.seq, item.tries) for item in leased(spool, size=250).items] == [(1, 1), (2, 1)]
    assert [item.seq for item in leased(spool, size=350).items] == [1, 2, 3]
    assert [item.seq for item in leased(spool, count=3).items] == [1, 2, 3]


def test_somebody_about_to_send_says_so_first(spool: Spool, tmp_path: Path) -> None:
    spool.register([far()])
    assert spool.lease("far", NOW) is None
    assert spool.mark("far") == 0.0
    put(spool, row())
    leased(spool)
    with closing(Spool(tmp_path / "spool.db")) as other:
        assert other.mark("far") == NOW
        assert other.mark("nobody") == 0.0
    assert spool.state("nobody") == (0, 0.0)


def test_nobody_may_send_to_what_was_removed(spool: Spool) -> None:
    spool.register([far(), View(name="other", identity="i")])
    lease = None
    put(spool, row())
    lease = leased(spool)
    spool.register([View(name="other", identity="i")])
    put(spool, row(), segment="later")
    assert spool.lease("far", NOW) is None
    settle(spool, lease, ACCEPTED)
    assert ledger(spool).dropped == {"destination-removed": 1}
    assert (ledger(spool).acknowledged, ledger(spool).removed) == (0, True)


def test_what_a_destination_takes_since_its_lease_comes_next_and_at_once(spool: Spool) -> None:
    spool.register([far(kinds=frozenset({A}))])
    put(spool, row("a"), row("b"), row("a"))
    lease = leased(spool)
    assert [item.seq for item in lease.items] == [1, 3]
    spool.register([far(kinds=frozenset({A, B}))])
    spool.settle(lease, {item.seq: ACCEPTED for item in lease.items}, NOW, pause=lambda tries: 99.0)
    assert ledger(spool).recorded == 3
    (item,) = leased(spool).items
    assert (item.seq, item.tries) == (2, 1)


def test_what_a_destination_no_longer_takes_is_not_counted_twice(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row("a"), row("b"), row("b"))
    settle(spool, leased(spool, count=2), ACCEPTED, RETRY)
    lease = leased(spool)
    assert [item.seq for item in lease.items] == [2, 3]
    spool.register([far(kinds=frozenset({A}))])
    settle(spool, lease, ACCEPTED, ACCEPTED)
    assert ledger(spool).dropped == {"destination-changed": 2}
    assert ledger(spool).acknowledged == 1
    assert spool.oldest() is None


def test_an_event_that_expires_while_it_is_sent_is_counted_once(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row(at=NOW - 31 * DAY), row(), row(at=NOW - 31 * DAY))
    settle(spool, leased(spool, count=1), RETRY)
    lease = leased(spool)
    assert len(lease.items) == 3
    spool.expire(NOW)
    assert ledger(spool).dropped == {"expired": 2}
    settle(spool, lease, ACCEPTED, ACCEPTED, ACCEPTED)
    assert (ledger(spool).acknowledged, ledger(spool).pending) == (1, 0)


def test_a_change_of_audience_is_accounted_for(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row(shared=None), row())
    assert ledger(spool).recorded == 1
    spool.register([far(audience="private")])
    assert (ledger(spool).recorded, ledger(spool).pending) == (2, 2)
    spool.register([far()])
    assert ledger(spool).dropped == {"destination-changed": 1}


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_an_old_event_takes_none_of_the_newer_ones_with_it(spool: Spool) -> None:
    """A segment may be imported weeks late, and a clock may have been wrong: order and age are two things."""
    spool.register([far()])
    put(spool, row(), row(), row(at=0), row())
    spool.expire(NOW)
    assert ledger(spool).dropped == {"expired": 1}
    assert [item.seq for item in leased(spool).items] == [1, 2, 4]


def test_only_rows_that_are_there_make_it_full(spool: Spool) -> None:
    spool.register([far()])
    put(spool, *(row() for _ in range(20)))
    lease = leased(spool)
    aside = EventResult("", "rejected", "set-aside: no good")
    settle(spool, lease, aside, *[ACCEPTED] * 19)
    spool.bounds = Bounds(spool_events=5)
    spool.expire(NOW)  # numbers have gone far, yet there is one row
    assert (ledger(spool).set_aside, ledger(spool).pending) == (1, 1)
    put(spool, *(row() for _ in range(6)))
    assert ledger(spool).dropped == {"spool-full": 2}
    assert ledger(spool).set_aside == 0


def test_a_dead_reporters_line_stays_for_a_day(spool: Spool) -> None:
    spool.register([far()])
    spool.adopt(View(name="code", identity="i", source="here"), "owner")
    put(spool, row())
    spool.abandon("code", "reporter-gone")
    spool.abandon("code", "reporter-gone")
    spool.abandon("never", "reporter-gone")
    spool.expire(NOW)
    assert ledger(spool, "code").dropped == {"reporter-gone": 1}
    spool.expire(NOW + DAY - 1)
    assert "code" in spool.ledger()
    spool.expire(NOW + DAY + 1)
    assert "code" not in spool.ledger()
    assert spool.drops("code") == {}
    assert ledger(spool).recorded == 1


def test_a_removed_destination_that_a_person_wrote_is_remembered(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row())
    spool.register([])
    spool.expire(NOW + 99 * DAY)
    assert ledger(spool).dropped == {"destination-removed": 1}
    spool.register([far()])  # and starts at the end when it is back
    assert (ledger(spool).pending, ledger(spool).removed) == (0, False)


# -- dead letters ------------------------------------------------------------------------------------------------------


def dead(spool: Spool) -> list[tuple[str, int]]:
    return [(letter.destination, letter.seq) for letter in spool.dead_letters()]


def aside(spool: Spool) -> None:
    """Two destinations; three events of which the first two are set aside for the one, and the second for the other."""
    spool.register([far(), View(name="other", identity="i")])
    put(spool, *(structs.replace(row(), private=b'{"event_id":"id %d"}' % number) for number in (1, 2)), row())
    no = EventResult("", "rejected", "set-aside: no good")
    settle(spool, leased(spool), no, no, ACCEPTED)
    settle(spool, leased(spool, "other"), ACCEPTED, no, ACCEPTED)


def test_a_dead_letter_says_what_was_refused_and_why(spool: Spool) -> None:
    aside(spool)
    assert dead(spool) == [("far", 1), ("far", 2), ("other", 2)]
    assert [letter.destination for letter in spool.dead_letters("other")] == ["other"]
    assert spool.dead_letters("far")[0] == DeadLetter(
        destination="far", seq=1, at=int(NOW), spec="s@1", event="a", event_id="id 1", tries=1,
        reason="set-aside: no good",
    )  # fmt: skip
    assert spool.retry_at("far") is None


def test_a_letter_of_which_the_body_cannot_be_read_has_no_id(spool: Spool) -> None:
    spool.register([far()])
    put(spool, structs.replace(row(), private=b"no JSON"))
    settle(spool, leased(spool), EventResult("", "rejected", "set-aside: what?"))
    assert [letter.event_id for letter in spool.dead_letters()] == [""]


def test_letters_go_again_at_once_and_keep_their_tries(spool: Spool) -> None:
    aside(spool)
    assert spool.resend(NOW, "far", [2, 3, 99]) == 1
    assert dead(spool) == [("far", 1), ("other", 2)]
    (item,) = leased(spool).items
    assert (item.seq, item.tries) == (2, 1)
    assert (ledger(spool).pending, ledger(spool).set_aside) == (2, 1)
    assert spool.resend(NOW) == 2
    assert [item.seq for item in leased(spool).items] == [1, 2]
    settle(spool, leased(spool), ACCEPTED, ACCEPTED)
    settle(spool, leased(spool, "other"), ACCEPTED)
    assert (spool.size()[0], spool.resend(NOW)) == (0, 0)


def test_a_letter_that_is_discarded_is_dropped_and_its_event_goes_with_the_last_of_them(spool: Spool) -> None:
    aside(spool)
    assert spool.discard("far", [2]) == 1
    assert (spool.size()[0], dead(spool)) == (2, [("far", 1), ("other", 2)])
    assert spool.discard() == 2
    assert (spool.size()[0], spool.discard()) == (0, 0)
    assert ledger(spool).dropped == {"discarded": 2}
    assert ledger(spool, "other").dropped == {"discarded": 1}


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_to_hurry_forgets_the_pause_but_not_what_failed(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row(), row())
    spool.settle(leased(spool, count=1), {1: RETRY}, NOW, pause=lambda tries: 99.0)
    spool.postpone("far", NOW + 60, "down")
    spool.postpone("far", NOW + 60, "down")
    spool.hurry()
    assert spool.state("far") == (2, 0.0)
    assert ledger(spool).failures == 2
    assert [item.seq for item in leased(spool).items] == [1, 2]


def test_a_pause_from_before_the_clock_was_set_back_is_over(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row())
    spool.settle(leased(spool), {1: RETRY}, NOW, pause=lambda tries: 3600.0)
    assert spool.lease("far", NOW + 1) is None
    assert spool.lease("far", NOW) is None
    assert [item.seq for item in leased(spool, now=NOW - 1).items] == [1]
    assert [item.seq for item in leased(spool, now=NOW + 3600).items] == [1]


# -- what the operator is told -----------------------------------------------------------------------------------------


def test_what_journals_lost_before_a_destination_was_there_is_told_to_it_too(spool: Spool) -> None:
    put(spool, drops=3, segment="early")
    spool.register([far()])
    spool.adopt(View(name="code", identity="i", source="here"), "owner")
    assert ledger(spool).dropped == {}  # it was never recorded for it
    assert (spool.drops("far"), spool.drops("code")) == ({"storage-failed": 3}, {})
    put(spool, drops=2, damaged=3, segment="late")
    assert ledger(spool).dropped == {"storage-failed": 2, "corrupt": 1}
    assert spool.drops("far") == {"storage-failed": 5, "corrupt": 1}
    assert spool.drops("code") == {"storage-failed": 2, "corrupt": 1}
    spool.register([])
    assert spool.drops("far") == {"storage-failed": 5, "corrupt": 1}


def test_a_loss_of_which_a_header_has_another_name_is_a_loss(spool: Spool) -> None:
    spool.register([far()])
    assert spool.take_in("s", Gated(), before=0, after=9, drops={"eaten-by-a-dog": 2, "storage-failed": 1})
    assert ledger(spool).dropped == {"storage-failed": 3}


# -- what others may know ----------------------------------------------------------------------------------------------


def test_the_oldest_is_what_somebody_can_still_get(spool: Spool) -> None:
    spool.register([far(), View(name="slow", identity="i")])
    assert spool.oldest() is None
    put(spool, row(at=100), row(at=200))
    assert spool.oldest() == 100
    settle(spool, leased(spool), ACCEPTED, RETRY)
    assert (spool.oldest(), spool.oldest(["far"]), spool.oldest(["nobody"])) == (100, 200, None)
    settle(spool, leased(spool), EventResult("", "rejected", "set-aside: no good"))
    assert (spool.oldest(["far"]), ledger(spool).set_aside) == (None, 1)


def test_what_waits_for_a_batch(spool: Spool) -> None:
    spool.register([far()])
    assert spool.backlog("far", 9) == (0, 0, 0.0)
    put(spool, row(at=300), row(at=200), row(at=100))
    assert spool.backlog("far", 2) == (2, 2 * len(b'{"private":1}'), 200.0)
    settle(spool, leased(spool, count=2), ACCEPTED, ACCEPTED)
    assert spool.backlog("far", 9) == (1, len(b'{"private":1}'), 100.0)


def test_an_event_by_its_number(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row("a"), row("b", shared=None))
    found = spool.row(2)
    assert found is not None
    assert (found.event, found.shared, found.private) == ("b", None, b'{"private":1}')
    assert spool.row(3) is None


def test_the_newest_of_a_name(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row("a", at=1), row("b", at=2), row("a", at=3), row("b", at=4))
    assert [found.at for found in (spool.newest(), spool.newest("a")) if found] == [4, 3]
    assert spool.newest("c") is None


def test_a_pause_and_an_answer_outlive_the_process(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.db")) as spool:
        spool.register([far()])
        put(spool, row(), row())
        spool.settle(leased(spool, count=1), {1: ACCEPTED}, NOW, answer={"stats": {"percentile_duration": 87}})
        spool.postpone("far", NOW + 60, "down " * 500)
    with closing(Spool(tmp_path / "spool.db")) as spool:
        found = ledger(spool)
        assert spool.state("far") == (1, NOW + 60)
        assert (found.next_try, found.last_report, len(found.last_error)) == (NOW + 60, NOW, 500)
        assert found.answer == {"stats": {"percentile_duration": 87}}
        spool.settle(leased(spool), {2: RETRY}, NOW + 70)
        assert spool.state("far") == (0, 0.0)
        assert (ledger(spool).last_report, ledger(spool).last_error) == (NOW, "")
        assert ledger(spool).answer == {"stats": {"percentile_duration": 87}}


def test_a_ledger_is_of_one_moment_while_another_process_writes(spool: Spool, tmp_path: Path) -> None:
    spool.register([far()])
    with closing(Spool(tmp_path / "spool.db")) as other:
        asked = Spool._waiting

        def meanwhile(self: Spool, *about: object) -> int:
            put(other, row(), drops=1)
            return asked(self, *about)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "_waiting", meanwhile)
            ledger(spool)
        assert ledger(spool).recorded == 2


def test_an_import_that_fails_leaves_no_trace(spool: Spool, tmp_path: Path) -> None:
    spool.register([far()])
    with pytest.raises(OverflowError):
        spool.take_in("s", Gated(rows=(row(), row(at=2**70))), before=0, after=9, drops={"storage-failed": 1})
    assert (spool.offset("s"), ledger(spool).recorded) == (0, 0)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (0,)
    put(spool, row())
    assert ledger(spool).pending == 1


def test_a_destination_that_goes_elsewhere_now_begins_anew(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row(), row())
    lease = leased(spool, count=1)
    spool.register([View(name="far", identity="another server")])
    settle(spool, lease, ACCEPTED)
    assert ledger(spool).dropped == {"destination-changed": 2}
    assert (ledger(spool).acknowledged, spool.lease("far", NOW)) == (0, None)
    put(spool, row())
    assert ledger(spool).pending == 1


def test_what_is_the_users_own_before_and_after_takes_along_what_waits(spool: Spool) -> None:
    spool.register([View(name="own", audience="private", identity="here")])
    put(spool, row(), row(), row())
    settle(spool, leased(spool, "own", count=1), ACCEPTED)
    lease = leased(spool, "own", count=1)
    settle(spool, lease, RETRY)
    spool.postpone("own", NOW + 900, "it is full")
    spool.register([View(name="own", audience="private", identity="there")])
    found = ledger(spool, "own")
    assert (found.acknowledged, found.pending, dict(found.dropped)) == (1, 2, {})
    assert (found.failures, found.next_try, found.last_error, found.last_report) == (0, 0, "", 0), "it begins anew"
    settle(spool, leased(spool, "own", now=NOW + 10), ACCEPTED, ACCEPTED)
    assert (ledger(spool, "own").acknowledged, ledger(spool, "own").pending) == (3, 0)


def test_where_a_destination_led_before_is_known_if_anything_went_there(spool: Spool) -> None:
    for place in ("a b", "never", "c", "a b"):
        spool.register([View(name="far", identity=place)])
        if place != "never":
            put(spool, row())
            settle(spool, leased(spool, count=1), ACCEPTED)
    spool.register([])  # a place of somebody else's waits for its yes, and takes over the name with it
    spool.register([View(name="far", identity="last")])
    assert sorted(spool.former(0.0)) == [("far", "a b"), ("far", "c")]
    assert spool.former(NOW + 1) == []


def test_what_is_sent_next_is_in_order_and_without_what_was_set_aside(spool: Spool) -> None:
    spool.register([far(kinds=frozenset({A}))])
    put(spool, row(), row("b"), row(at=NOW + 1), row(at=NOW + 2))
    assert [each.at for each in spool.next("far", 2)] == [NOW, NOW + 1]
    settle(spool, leased(spool, count=3), EventResult("", "rejected", "set-aside: no"), RETRY, ACCEPTED)
    put(spool, row(at=NOW + 3), segment="t")
    assert [each.at for each in spool.next("far", 9)] == [NOW + 1, NOW + 3]
    assert spool.next("nobody", 9) == []


def test_what_anonymizers_withheld_is_counted_among_what_is_stored(spool: Spool) -> None:
    spool.register([far()])
    put(spool, row(), *[structs.replace(row(), withheld={"os": "masker", "arch": "other"})] * 2,
        structs.replace(row("b"), withheld={"os": "masker"}))  # fmt: skip
    assert spool.anonymized() == {("a", "os", "masker"): 2, ("a", "arch", "other"): 2, ("b", "os", "masker"): 1}
    settle(spool, leased(spool, count=3), ACCEPTED, ACCEPTED, ACCEPTED)
    assert spool.anonymized() == {("b", "os", "masker"): 1}
