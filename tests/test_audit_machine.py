"""The audit beside a real spool, with everything that can happen to batches, drawn by chance: it always adds up.

Whatever is then removed from it, changed in it or put elsewhere is found. ``AUDIT_ROUNDS=500`` for a long run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.audit import AuditLog, Entered, entries, log, verify
from cmdorc_telemetry.audit.check import check
from cmdorc_telemetry.audit.lines import Left, pages
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.errors import Rejected, RetryLater, StorageError, TooLarge
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult, EventResult, Gated, Ledger, Row, View

NAME = "far"
ROUNDS = int(os.environ.get("AUDIT_ROUNDS", "12"))
STEPS = 80
BOUNDS = Bounds(batch_seconds=0, batch_events=4, pause_seconds=1)


class Far(TelemetryReporter):
    """Answers by chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.arrived: list[tuple[str, ...]] = []
        self.meanwhile: Callable[[], object] = list

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise AssertionError("batches are handed over")

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.arrived.append(tuple(sorted(event.event_id for event in batch.events)))
        if self.chance.random() < 0.2:
            self.meanwhile()
        match self.chance.randrange(10):
            case 0:
                raise RetryLater("busy", 0.0)
            case 1:
                raise ConnectionError("reset")
            case 2:
                raise TooLarge("too large")
            case 3:
                raise Rejected("no such thing")
            case 4 | 5 | 6:
                return None
        statuses = ("accepted", "accepted", "duplicate", "rejected", "retry")
        named = batch.events[self.chance.random() < 0.1 :]
        return BatchResult(results=tuple(EventResult(event.event_id, self.chance.choice(statuses)) for event in named))


class Dying(Spool):
    """A spool that what was answered may not reach, as where a process is killed before."""

    dies = False

    def settle(self, *args: Any, **more: Any) -> None:
        if self.dies:
            raise StorageError("killed")
        super().settle(*args, **more)

    def postpone(self, *args: Any, **more: Any) -> None:
        if self.dies:
            raise StorageError("killed")
        super().postpone(*args, **more)


class Mute(AuditLog):
    """An audit that answers may not reach."""

    dies = False

    def answered(self, *args: Any, **more: Any) -> None:
        if self.dies:
            raise StorageError("killed")
        super().answered(*args, **more)


class Life:
    """One home, one destination, and what happens."""

    def __init__(self, home: Home, chance: random.Random) -> None:
        self.home, self.chance = home, chance
        self.reporter, self.numbers = Far(chance), 0
        self.reporter.meanwhile = self.expire
        self.home.locks.mkdir(parents=True)
        self.loop = asyncio.new_event_loop()
        self.open()

    def open(self) -> None:
        self.spool = Dying(self.home.spool, BOUNDS)
        self.spool.register([View(name=NAME, identity="i")])
        self.audit = Mute(self.home.audit, NAME)
        to = Destination(NAME, lambda: self.reporter, lambda item: item.row.shared, trusted=True, audit=self.audit)
        self.worker = Worker(to, self.spool, self.home.locks, BOUNDS)

    def close(self) -> None:
        self.spool.close()
        self.loop.close()

    def record(self) -> None:
        rows = []
        for _ in range(self.chance.randint(1, 9)):
            self.numbers += 1
            body = json.dumps({"event_id": f"e{self.numbers}", "a": 1}).encode()
            rows.append(Row(spec="s@1", event=self.chance.choice("xy"), version=1, at=int(clock.wall()) - self.numbers,
                            generation="g", source="", private=body, shared=body))  # fmt: skip
        assert self.spool.take_in(f"s{self.numbers}", Gated(rows=tuple(rows)), before=0, after=1,
                                  drops={"corrupt": 1} if self.chance.random() < 0.1 else {})  # fmt: skip

    def send(self) -> None:
        """One batch; perhaps its process is killed before it is entered, or before its answer is written."""
        self.spool.dies = self.chance.random() < 0.2
        self.audit.dies = self.chance.random() < 0.15
        self.spool.hurry()
        self.loop.run_until_complete(self.worker.step(hurry=True))
        self.spool.dies = self.audit.dies = False

    def expire(self) -> None:
        self.spool.expire(clock.wall() + self.chance.choice((0, BOUNDS.keep_days * 86400 - self.numbers / 2)))

    def letters(self) -> None:
        self.chance.choice((self.spool.discard, lambda: self.spool.resend(clock.wall())))()

    def another_process(self) -> None:
        self.spool.close()
        self.open()

    def another_spool(self) -> None:
        self.spool.close()
        shutil.move(self.home.spool, self.home.root / f"aside-{self.numbers}")
        self.home.spool.with_name("spool.db-wal").unlink(missing_ok=True)
        self.home.spool.with_name("spool.db-shm").unlink(missing_ok=True)
        self.open()

    def another_identity(self) -> None:
        self.spool.register([View(name=NAME, identity=str(self.numbers))])

    def removed_for_a_while(self) -> None:
        self.spool.register([])
        self.spool.register([View(name=NAME, identity="i")])

    def look(self) -> tuple[str, Mapping[str, Ledger]]:
        return self.spool.epoch, self.spool.ledger()

    def go(self) -> None:
        what = [self.record] * 6 + [self.send] * 14 + [self.expire, self.letters, self.another_process]
        seldom = [self.another_spool, self.another_identity, self.removed_for_a_while]
        self.chance.choice(what * 2 + seldom)()


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FILE_BYTES", 4000)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_happens_the_audit_adds_up_and_what_left_is_in_it(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    life = Life(Home(tmp_path), chance)
    for _ in range(STEPS):
        life.go()
        assert verify(life.home, life.look) == []
        told = [tuple(sorted(entry.event_ids)) for entry in entries(life.home)]
        arrived = life.reporter.arrived
        assert told == arrived[-len(told) :] if told else not arrived, "what left is not what is told"
    _find_what_is_done_to_it(life, chance)
    life.close()


def _find_what_is_done_to_it(life: Life, chance: random.Random) -> None:
    """Every line but the last: removed, changed, doubled, or in the place of the next."""
    epoch, ledgers = life.look()

    def found() -> list[Any]:
        return check(NAME, pages(life.home.audit, NAME), epoch, ledgers[NAME])

    for page in pages(life.home.audit, NAME):
        lines, last = list(page.lines), len(page.lines) - (not page.is_older)
        for number in chance.sample(range(last), min(last, 6)):
            for changed in (
                lines[:number] + lines[number + 1 :],
                [*lines[:number], lines[number], *lines[number:]],
                [*lines[:number], lines[number].replace(b"1", b"2", 1), *lines[number + 1 :]],
                [*lines[:number], *reversed(lines[number : number + 2]), *lines[number + 2 :]],
            ):
                if changed != lines and changed != lines[:-1]:
                    page.path.write_bytes(b"".join(line + b"\n" for line in changed))
                    assert found(), (page.path.name, number)
        page.path.write_bytes(b"".join(line + b"\n" for line in lines))
    assert not found()


def test_a_batch_that_is_cut_off_is_missed_if_the_ledger_entered_it(tmp_path: Path) -> None:
    life = Life(Home(tmp_path), random.Random(1))
    life.reporter.report_batch = lambda batch: asyncio.sleep(0)  # type: ignore[method-assign] # accepts everything
    life.record()
    while life.spool.ledger()[NAME].pending:
        life.send()
    (page,) = pages(life.home.audit, NAME)
    lefts = [number for number, record in enumerate(page.records) if isinstance(record, Left)]
    page.path.write_bytes(b"".join(line + b"\n" for line in page.lines[: lefts[-1]]))
    (wrong,) = verify(life.home, life.look)
    assert re.fullmatch(r"\d+ events more were acknowledged than were answered so", wrong.what)
    page.path.write_bytes(b"")
    assert str(verify(life.home, life.look)[0]).startswith(f"{NAME}, before its first batch: ")
    page.path.unlink()
    assert verify(life.home, life.look)
    life.close()


def of(*events: str) -> Batch:
    return Batch(destination=NAME, events=tuple(BatchEvent(each, "x", b"{}") for each in events))


def test_an_answer_that_the_ledger_does_not_bear_out_is_found(tmp_path: Path) -> None:
    """Also where somebody wrote the rest anew to match."""
    home = Home(tmp_path)
    audit = AuditLog(home.audit, NAME)
    assert audit.left(of("a", "b"), {}, digest="", size=0, entered=Entered("e", 0, {})) == 1
    audit.answered(1, {"accepted": ["a", "b"]})

    def told(**ledger: Any) -> list[str]:
        now = Ledger(name=NAME, recorded=2, **ledger)
        return [each.what for each in check(NAME, pages(home.audit, NAME), "e", now)]

    assert told(acknowledged=2) == told(pending=2) == told(dropped={"expired": 2}) == []
    assert told(acknowledged=1, dropped={"expired": 1}) == []
    assert told(acknowledged=1, pending=1) == ["1 event less was acknowledged than was answered so"]
    assert told(dropped={"corrupt": 2}) == ["the ledger knows nothing of 2 events that were accepted"]
    assert told(acknowledged=3) == ["1 event more was acknowledged than was answered so"]
    assert told(acknowledged=2, dropped={"over-size": 2}) == ["2 events more were rejected than were answered so"]
    assert audit.left(of("c"), {}, digest="", size=0, entered=Entered("e", 2, {})) == 2
    assert told(acknowledged=1) == ["the ledger has 1 acknowledged event less than when it left"]


def test_an_answer_that_comes_late_asks_for_nothing_more(tmp_path: Path) -> None:
    """Of a process that was stopped, while another one sent the same events."""
    home = Home(tmp_path)
    audit = AuditLog(home.audit, NAME)
    audit.left(of("a", "b"), {}, digest="", size=0, entered=Entered("e", 0, {}))
    audit.left(of("a", "b"), {}, digest="", size=0, entered=Entered("e", 0, {}))
    audit.answered(2, {"accepted": ["a", "b"]})
    audit.left(of("c"), {}, digest="", size=0, entered=Entered("e", 2, {}))
    audit.answered(1, {"accepted": ["a", "b"]})
    audit.answered(3, {"accepted": ["c"]})
    assert check(NAME, pages(home.audit, NAME), "e", Ledger(name=NAME, recorded=3, acknowledged=3)) == []


def test_what_was_accepted_and_not_entered_must_wait_still(tmp_path: Path) -> None:
    home = Home(tmp_path)
    audit = AuditLog(home.audit, NAME)
    audit.left(of("a", "b", "c"), {}, digest="", size=0, entered=Entered("e", 0, {}))
    audit.answered(1, {"accepted": ["a", "b", "c"]})  # its process was killed
    audit.left(of("a"), {}, digest="", size=0, entered=Entered("e", 0, {}))
    audit.answered(2, {"accepted": ["a"]})

    def told(**ledger: Any) -> list[str]:
        now = Ledger(name=NAME, recorded=3, acknowledged=1, **ledger)
        return [each.what for each in check(NAME, pages(home.audit, NAME), "e", now)]

    assert told(pending=2) == told(pending=1, dropped={"expired": 1}) == []
    assert told(pending=1) == ["the ledger knows nothing of 1 event that was accepted"]
