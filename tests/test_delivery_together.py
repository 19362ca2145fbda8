"""Several telemetry threads on one home directory: every event goes once, and every count is right at every moment."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Delivery, Destination
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Gated, Row, View

EVENTS = 3000
SMALL = Bounds(batch_events=20, batch_seconds=0)
LONG = 30.0


class Counting(TelemetryReporter):
    """Counts what it is sent, and how many send at the same time; answers as moodily as servers do."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.lock = threading.Lock()
        self.accepted: Counter[str] = Counter()
        self.inside = self.most = self.failures = 0

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(0)  # the others get a chance to come in
            if self.chance.random() < 0.05:
                self.failures += 1
                raise RetryLater("not now", after=0)
            results = []
            for event in batch.events:
                status = "retry" if self.chance.random() < 0.1 else "accepted"
                self.accepted[event.event_id] += status == "accepted"
                results.append(EventResult(event.event_id, status))  # type: ignore[arg-type]
            return BatchResult(results=tuple(results))
        finally:
            with self.lock:
                self.inside -= 1


def opened(folder: Path) -> Spool:
    spool = Spool(folder / "spool.db")
    spool.register([View(name="far", identity="i")])
    return spool


def fill(folder: Path, count: int = EVENTS) -> None:
    body = b'{"event_id":"%d"}'
    rows = tuple(
        Row(spec="s@1", event="e", version=1, at=int(time.time()), generation="g", source="s",
            private=body % number, shared=body % number)
        for number in range(count)
    )  # fmt: skip
    with closing(opened(folder)) as spool:
        assert spool.take_in("segment", Gated(rows=rows), before=0, after=9, drops={})


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[Callable[[TelemetryReporter], Delivery]]:
    made: list[Delivery] = []

    def make(reporter: TelemetryReporter) -> Delivery:
        to = Destination("far", lambda: reporter, lambda item: item.row.shared)
        made.append(Delivery(lambda: opened(tmp_path), [to], lambda spool: True, tmp_path / "locks", SMALL))
        return made[-1]

    yield make
    for each in made:
        assert each.stop(LONG)


def test_two_of_them_send_each_event_once_and_never_at_the_same_time(
    tmp_path: Path, threads: Callable[[TelemetryReporter], Delivery]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    reporter = Counting(random.Random(seed))
    fill(tmp_path)
    deliveries = [threads(reporter) for _ in range(3)]
    for delivery in deliveries:
        delivery.start()
    deadline = time.monotonic() + LONG
    with closing(Spool(tmp_path / "spool.db")) as spool:
        while True:
            ledger = spool.ledger()["far"]
            assert ledger.recorded == EVENTS == ledger.acknowledged + ledger.pending
            if not ledger.pending:
                break
            assert time.monotonic() < deadline, str(ledger)
            spool.hurry()  # nobody wants to wait for the pauses here
            time.sleep(0.01)
    assert len(reporter.accepted) == EVENTS
    assert set(reporter.accepted.values()) == {1}
    assert reporter.most == 1


def test_what_failed_in_one_process_is_left_alone_by_the_next(
    tmp_path: Path, threads: Callable[[TelemetryReporter], Delivery]
) -> None:
    class Busy(TelemetryReporter):
        calls = 0

        async def report(self, event: str, payload: dict[str, Any]) -> None:
            Busy.calls += 1
            raise RetryLater("later", after=1000)

    fill(tmp_path, 1)
    first = threads(Busy())
    first.start()
    deadline = time.monotonic() + LONG
    while not Busy.calls:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert first.stop(LONG)
    with closing(Spool(tmp_path / "spool.db")) as spool:
        ledger = spool.ledger()["far"]
        assert 900 < ledger.next_try - time.time() <= 1000
        assert (ledger.last_error, spool.state("far")[0]) == ("later", 1)
    pumped = threading.Event()
    second = threads(Busy())
    second.pump = lambda spool: pumped.set() or True  # type: ignore[func-returns-value]
    second.start()
    assert pumped.wait(LONG)
    assert second.stop(LONG)
    assert Busy.calls == 1
