"""Whatever is done to a spool, in whatever order and from two connections: a simple model says the same of it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult, Gated, Lease, Row, View

NAMES = ("one", "two", "three")
SOURCES = ("here", "there")
SEGMENTS = [f"s{number}" for number in range(6)]
KINDS = (None, frozenset({("s@1", "a")}), frozenset({("s@1", "b")}), frozenset({("s@1", "a"), ("s@1", "b")}))
STATUSES = ("accepted", "accepted", "duplicate", "retry", "retry", "rejected", "set-aside", "withdrawn", "unnamed")
START = 1_000_000
MOST = 12
"""Events that the spool may hold: few, so that it is full now and then."""
BOUNDS = Bounds(spool_events=MOST)
DISTURBANCES = (
    "finish", "remove", "adopt", "abandon", "postpone", "hurry", "expire", "reopen", "resend", "discard", "narrow",
)  # fmt: skip


@dataclass
class Target:
    """A destination, as simple as can be: sets of numbers instead of a cursor where possible."""

    view: View
    cursor: int
    injected: bool = False
    removed: bool = False
    recorded: int = 0
    acked: int = 0
    held: dict[int, tuple[str, int, float]] = field(default_factory=dict)
    """seq → state, tries, next try."""
    dropped: Counter[str] = field(default_factory=Counter)
    until: float = 0.0
    failures: int = 0


@dataclass
class Model:
    rows: dict[int, Row] = field(default_factory=dict)
    last: int = 0
    offsets: dict[str, int] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    losses: dict[str, int] = field(default_factory=dict)
    damaged: Counter[str] = field(default_factory=Counter)
    corrupt: Counter[str] = field(default_factory=Counter)
    targets: dict[str, Target] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    """What all journals lost, whoever was there to bear it."""

    def drops(self, target: Target) -> dict[str, int]:
        found = target.dropped if target.view.source else target.dropped | self.lost
        return {reason: count for reason, count in found.items() if count}

    def waiting(self, target: Target) -> list[int]:
        return [seq for seq, row in self.rows.items() if seq > target.cursor and wants(target.view, row)]

    def present(self) -> list[Target]:
        return [target for target in self.targets.values() if not target.removed]

    def trim(self) -> None:
        floor = min((target.cursor for target in self.present()), default=0)
        kept = {seq for target in self.present() for seq in target.held}
        self.rows = {seq: row for seq, row in self.rows.items() if seq > floor or seq in kept}

    def give_up(self, target: Target, reason: str) -> None:
        target.dropped[reason] += len(self.waiting(target)) + len(target.held)
        target.held.clear()
        target.removed = True

    def place(self, view: View) -> None:
        target = self.targets.get(view.name)
        if target is None:
            self.targets[view.name] = Target(view, self.last)
            return
        if target.view.identity != view.identity:
            target.failures, target.until = 0, 0.0
            if not target.removed and not target.view.audience == view.audience == "private":
                self.give_up(target, "destination-changed")
        if target.removed:
            target.removed, target.cursor = False, self.last
        else:
            before = set(self.waiting(target))
            now = {seq for seq, row in self.rows.items() if seq > target.cursor and wants(view, row)}
            target.recorded += len(now - before)
            gone = [seq for seq in target.held if not wants(view, self.rows[seq])]
            target.dropped["destination-changed"] += len(before - now) + len(gone)
            for seq in gone:
                del target.held[seq]
        target.view = view

    def lease(self, target: Target, now: float, count: int) -> tuple[list[int], int]:
        due = sorted(
            (until, seq) for seq, (state, _, until) in target.held.items() if state == "retry" and until <= now
        )
        new = sorted(self.waiting(target))
        items = ([seq for _, seq in due] + new)[:count]
        if len(items) < len(due) + len(new):
            return items, max([target.cursor, *items])
        return items, max([target.cursor, *self.rows])

    def expel(self, gone: Collection[int], reason: str) -> None:
        for target in self.present():
            lost = set(gone) & {*self.waiting(target), *target.held}
            target.dropped[reason] += len(lost)
            for seq in lost:
                target.held.pop(seq, None)
        for seq in gone:
            del self.rows[seq]

    def take_back(self, gone: Collection[int]) -> None:
        """The shared bodies of these events go."""
        for target in self.present():
            if target.view.audience == "shared":
                lost = set(gone) & {*self.waiting(target), *target.held}
                target.dropped["withdrawn-consent"] += len(lost)
                for seq in lost:
                    target.held.pop(seq, None)
        for seq in gone:
            self.rows[seq] = structs.replace(self.rows[seq], shared=None)

    def make_room(self, most: int) -> None:
        lowest = sorted(self.rows, key=lambda seq: (self.rows[seq].rank, seq))
        self.expel(lowest[: max(len(lowest) - most, 0)], "spool-full")

    def enter(self, target: Target, seq: int, status: str, tries: int, until: float) -> None:
        target.held.pop(seq, None)
        if status in ("accepted", "duplicate"):
            target.acked += 1
        elif status in ("retry", "unnamed"):
            target.held[seq] = ("retry", tries + 1, until)
        elif status == "set-aside":
            target.held[seq] = ("dead", tries + 1, until)
        else:
            target.dropped["withdrawn-consent" if status == "withdrawn" else "rejected-by-server"] += 1


def pause(tries: int) -> float:
    return 10.0 * (tries + 1)


def wants(view: View, row: Row) -> bool:
    return view.wants(row.spec, row.event, row.shared is not None, row.source)


def outcome(status: str) -> EventResult | None:
    match status:
        case "set-aside":
            return EventResult("", "rejected", "set-aside: no good")
        case "withdrawn":
            return EventResult("", "rejected", "withdrawn-consent")
        case "rejected":
            return EventResult("", "rejected", "not for me")
        case "unnamed":
            return None
        case _:
            return EventResult("", status)  # type: ignore[arg-type]


rows = st.lists(
    st.tuples(st.sampled_from("ab"), st.booleans(), st.sampled_from((0, 0, 0, 1, 2)), st.integers(-50, 0)),
    min_size=1,
    max_size=5,
)


class SpoolMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spool"))
        self.spools = [Spool(self.folder / "spool.db", BOUNDS), Spool(self.folder / "spool.db", BOUNDS)]
        self.model = Model()
        self.now = START
        self.leases: list[Lease] = []
        self.injected = self.steps = 0
        self.narrowed = ""
        self.told: dict[str, Counter[str]] = {}
        self.raw = sqlite3.connect(self.folder / "spool.db")
        self.register(0, [View(name="one", identity="x"), View(name="two", identity="x", audience="private")])

    def teardown(self) -> None:
        self.raw.close()
        for spool in self.spools:
            spool.close()
        shutil.rmtree(self.folder)

    @rule(
        which=st.integers(0, 1),
        segment=st.sampled_from(SEGMENTS),
        of=rows,
        stale=st.sampled_from((0, 0, 0, 0, 0, 1, -10)),
        more=st.sampled_from((0, 0, 2)),
        damaged=st.sampled_from((0, 0, 0, 3)),
        unreadable=st.sampled_from((0, 0, 1)),
        source=st.sampled_from(SOURCES),
        linked=st.sampled_from((True, True, True, True, False)),
    )
    def take_in(
        self,
        which: int,
        segment: str,
        of: list[tuple[str, bool, int, int]],
        stale: int,
        more: int,
        damaged: int,
        unreadable: int,
        source: str,
        linked: bool,
    ) -> None:
        model = self.model
        known = model.offsets.get(segment, 0)
        before = known + stale
        new = [
            Row(spec="s@1", event=event, version=1, at=self.now + age, generation="g", source=source, rank=rank,
                private=b'{"event_id":"%d"}' % number, shared=b"{}" if shared else None)
            for number, (event, shared, rank, age) in enumerate(of)
        ]  # fmt: skip
        told = model.losses.get(segment, 0) + more
        done = self.spools[which].take_in(
            segment, Gated(rows=tuple(new), unreadable=unreadable), before=before, after=before + 10,
            drops={"storage-failed": told}, damaged=damaged, source=source, still_there=lambda: linked,
        )  # fmt: skip
        assert done == (segment not in model.finished and before == known and linked)
        if not done:
            return
        model.offsets[segment], model.losses[segment] = before + 10, told
        model.damaged[segment] += damaged
        # What the owner told of having failed to write is what lies there damaged, unless there is more of that.
        corrupt = max(model.damaged[segment] - told - model.corrupt[segment], 0)
        model.corrupt[segment] += corrupt
        model.lost["storage-failed"] += more
        model.lost["corrupt"] += corrupt + unreadable
        asked = source in {target.view.source for target in model.present()}
        for row in new:
            model.last += 1
            model.rows[model.last] = row if asked else structs.replace(row, source="")
        for target in model.present():
            if target.view.source in (None, source):
                target.recorded += sum(wants(target.view, row) for row in new) + more + corrupt + unreadable
                target.dropped["storage-failed"] += more
                target.dropped["corrupt"] += corrupt + unreadable
        model.make_room(MOST)

    def finish(self, which: int, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(sorted(self.model.offsets) or SEGMENTS))
        self.spools[which].finish(segment, self.now)
        self.model.finished |= {segment} & set(self.model.offsets)
        expected = None if segment in self.model.finished else self.model.offsets.get(segment, 0)
        assert self.spools[1 - which].offset(segment) == expected

    @rule(
        which=st.integers(0, 1),
        name=st.sampled_from(NAMES),
        audience=st.sampled_from(("shared", "private")),
        kinds=st.sampled_from(KINDS),
        identity=st.sampled_from("xxxxy"),
    )
    def add_or_change(
        self, which: int, name: str, audience: str, kinds: frozenset[tuple[str, str]] | None, identity: str
    ) -> None:
        view = View(name=name, audience=audience, kinds=kinds, identity=identity)  # type: ignore[arg-type]
        self.register(which, [*(each for each in self.views() if each.name != name), view])

    def remove(self, which: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(NAMES))
        withdrawn, lives = data.draw(st.sampled_from(((), ("one",), NAMES))), data.draw(st.booleans())
        undecided = (name,) if data.draw(st.booleans()) else ()
        self.register(which, [each for each in self.views() if each.name != name], withdrawn, lives, undecided)

    def views(self) -> list[View]:
        return [target.view for target in self.model.present() if not target.injected]

    def register(
        self, which: int, views: list[View], withdrawn: tuple[str, ...] = (), lives: bool = True,
        undecided: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        model = self.model
        self.spools[which].register(
            views, withdrawn=withdrawn, undecided=undecided, owner_lives=lambda owner: lives
        )  # fmt: skip
        for view in views:
            model.place(view)
        for name, target in model.targets.items():
            if target.removed or name in {*undecided, *(view.name for view in views)} or (target.injected and lives):
                continue
            reason = "withdrawn-consent" if name in withdrawn else "destination-removed"
            model.give_up(target, "reporter-gone" if target.injected else reason)
        model.trim()

    def adopt(self, which: int, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(SOURCES))
        self.injected += 1
        view = View(name=f"code-{self.injected}", identity="code", source=source)
        self.spools[which].adopt(view, "owner")
        self.model.targets[view.name] = Target(view, self.model.last, injected=True)
        self.model.trim()

    def abandon(self, which: int, data: st.DataObject) -> None:
        name = f"code-{data.draw(st.integers(0, self.injected))}"  # there may be none of that name
        self.spools[which].abandon(name, "reporter-gone")
        target = self.model.targets.get(name)
        if target and not target.removed:
            self.model.give_up(target, "reporter-gone")
            self.model.trim()

    @precondition(lambda self: self.model.rows)
    @rule(which=st.integers(0, 1), data=st.data(), count=st.integers(1, 4), at_once=st.booleans())
    def send(self, which: int, data: st.DataObject, count: int, at_once: bool) -> None:
        given = len(self.leases)
        self.lease(which, data.draw(st.sampled_from(sorted(self.model.targets))), count)
        if at_once and len(self.leases) > given:
            self.settle(which, data, self.leases[-1], again=data.draw(st.integers(0, 4)) == 0)

    @precondition(lambda self: self.model.rows)
    @rule(which=st.integers(0, 1), data=st.data())
    def send_to_all(self, which: int, data: st.DataObject) -> None:
        for name in sorted(self.model.targets):
            self.lease(which, name, 3)
            if self.leases and self.leases[-1].destination == name:
                self.settle(which, data, self.leases[-1], again=False)

    def lease(self, which: int, name: str, count: int) -> None:
        lease = self.spools[which].lease(name, self.now, count=count)
        target = self.model.targets[name]
        if target.removed:
            assert lease is None
            return
        items, upto = self.model.lease(target, self.now, count)
        assert [item.seq for item in lease.items] == items if lease else not items
        if lease is None:
            if upto > target.cursor:
                target.cursor = upto
                self.model.trim()
            return
        assert lease.upto == upto
        assert [item.row for item in lease.items] == [self.model.rows[seq] for seq in items]
        assert [item.tries for item in lease.items] == [target.held.get(seq, ("", 0, 0))[1] for seq in items]
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 1), data=st.data(), again=st.sampled_from((False, False, True)))
    def settle_late(self, which: int, data: st.DataObject, again: bool) -> None:
        self.settle(which, data, data.draw(st.sampled_from(self.leases)), again)

    def settle(self, which: int, data: st.DataObject, lease: Lease, again: bool) -> None:
        model = self.model
        statuses = {item.seq: data.draw(st.sampled_from(STATUSES)) for item in lease.items}
        outcomes = {seq: found for seq, status in statuses.items() if (found := outcome(status))}
        self.spools[which].settle(lease, outcomes, self.now, pause=pause, answer={"n": self.now})
        if not again:
            self.leases.remove(lease)
        target = model.targets[lease.destination]
        if target.removed:
            return
        tries = {item.seq: item.tries for item in lease.items}
        new = [seq for seq in model.waiting(target) if seq <= lease.upto]
        for seq in [seq for seq in tries if tries[seq] and seq in target.held] + new:
            status = statuses.get(seq, "unnamed")  # what it takes only since the lease comes again
            until = self.now + pause(tries[seq]) if seq in tries else self.now
            model.enter(target, seq, status, tries.get(seq, 0), until)
        target.cursor = max(target.cursor, lease.upto)
        target.failures, target.until = 0, 0.0
        model.trim()

    def postpone(self, which: int, data: st.DataObject) -> None:
        name, seconds = data.draw(st.sampled_from(sorted(self.model.targets))), data.draw(st.integers(1, 30))
        self.spools[which].postpone(name, self.now + seconds, "x" * 600)
        self.model.targets[name].failures += 1
        self.model.targets[name].until = self.now + seconds
        assert self.spools[1 - which].state(name) == (self.model.targets[name].failures, self.now + seconds)

    def hurry(self, which: int, data: st.DataObject) -> None:
        self.spools[which].hurry()
        for target in self.model.targets.values():
            target.until = 0.0
            target.held = {
                seq: (state, tries, 0.0 if state == "retry" else until)
                for seq, (state, tries, until) in target.held.items()
            }

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    def expire(self, which: int, data: st.DataObject) -> None:
        model, spool = self.model, self.spools[which]
        seconds, most = data.draw(st.integers(20, 60)), data.draw(st.sampled_from((3, 6, 99)))
        spool.bounds = Bounds(spool_events=most, keep_days=seconds / 86_400)  # type: ignore[arg-type]
        spool.expire(self.now)
        spool.bounds = BOUNDS
        limit = int(self.now - seconds / 86_400 * 86_400.0)
        model.expel({seq for seq, row in model.rows.items() if row.at < limit}, "expired")
        model.make_room(most)
        model.trim()

    def letters(self, data: st.DataObject) -> tuple[str | None, list[int] | None, list[tuple[Target, int]]]:
        """Some dead letters: how to ask for them, and whose they are."""
        name = data.draw(st.sampled_from((None, *sorted(self.model.targets))))
        seqs = data.draw(st.sampled_from((None, [], [1, 2, 3], sorted(self.model.rows))))
        return name, seqs, [
            (target, seq) for target in self.model.present() for seq, (state, _, _) in target.held.items()
            if state == "dead" and name in (None, target.view.name) and (seqs is None or seq in seqs)
        ]  # fmt: skip

    def resend(self, which: int, data: st.DataObject) -> None:
        name, seqs, found = self.letters(data)
        assert self.spools[which].resend(self.now, name, seqs) == len(found)
        for target, seq in found:
            target.held[seq] = ("retry", target.held[seq][1], float(self.now))

    def discard(self, which: int, data: st.DataObject) -> None:
        name, seqs, found = self.letters(data)
        assert self.spools[which].discard(name, seqs) == len(found)
        for target, seq in found:
            del target.held[seq]
            target.dropped["discarded"] += 1
        self.model.trim()

    def narrow(self, which: int, data: st.DataObject) -> None:
        """All events of some names lose their shared bodies, and some of the others; what is left is another one."""
        names, odd = data.draw(st.sampled_from(("", "a", "b", "ab"))), data.draw(st.booleans())
        body = b'{"n":%d}' % self.steps

        def cover_of(spec: str, event: str, generation: str, version: int) -> Callable[[bytes], bytes | None] | None:
            return None if event in names else lambda old: None if odd and old == b"{}" else body

        decision = str(data.draw(st.integers(0, 5)))
        self.spools[which].narrow("k", decision, cover_of)
        if decision != self.narrowed:
            self.narrowed = decision
            shared = {seq: row for seq, row in self.model.rows.items() if row.shared is not None}
            gone = [seq for seq, row in shared.items() if row.event in names or (odd and row.shared == b"{}")]
            self.model.take_back(gone)
            for seq in shared.keys() - set(gone):
                self.model.rows[seq] = structs.replace(self.model.rows[seq], shared=body)
            self.model.trim()

    def reopen(self, which: int, data: st.DataObject) -> None:
        epoch = self.spools[which].epoch
        self.spools[which].close()
        self.spools[which] = Spool(self.folder / "spool.db", BOUNDS)
        assert self.spools[which].epoch == epoch

    @rule(
        what=st.sampled_from(DISTURBANCES),
        which=st.integers(0, 1),
        data=st.data(),
    )
    def disturb(self, what: str, which: int, data: st.DataObject) -> None:
        getattr(self, what)(which, data)

    @invariant()
    def agree(self) -> None:
        self.steps += 1
        spool = self.spools[self.steps % 2]
        ledgers = spool.ledger()
        assert set(ledgers) == set(self.model.targets)
        for name, ledger in ledgers.items():
            target = self.model.targets[name]
            pending = 0 if target.removed else len(self.model.waiting(target)) + len(target.held)
            assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values())
            assert ledger.recorded == target.recorded
            assert ledger.acknowledged == target.acked
            assert ledger.pending == pending
            assert ledger.set_aside == sum(state == "dead" for state, _, _ in target.held.values())
            assert dict(ledger.dropped) == {reason: n for reason, n in target.dropped.items() if n}
            assert spool.drops(name) == self.model.drops(target)
            assert self.told.get(name, Counter()) <= Counter(spool.drops(name))  # never less than before
            self.told[name] = Counter(spool.drops(name))
            assert ledger.failures == target.failures
            letters = [(seq, tries) for seq, (state, tries, _) in sorted(target.held.items()) if state == "dead"]
            assert [(letter.seq, letter.tries) for letter in spool.dead_letters(name)] == letters
            assert ledger.removed == target.removed
            due = [until for state, _, until in target.held.values() if state == "retry"]
            assert spool.retry_at(name) == min(due, default=None)
        stored = [seq for (seq,) in self.raw.execute("SELECT seq FROM event ORDER BY seq")]
        assert stored == sorted(self.model.rows)
        assert self.raw.execute("SELECT events FROM stored").fetchone() == (len(stored),)
        assert len(stored) <= MOST


SpoolMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSpool = pytest.mark.timeout(600)(SpoolMachine.TestCase)  # only a failure takes long: it is made small
