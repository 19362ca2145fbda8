"""Ten processes that send for the same destination, and are killed wherever they are: what left is in the audit.

`AUDIT_EVENTS=20000` for a long run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.audit import entries, verify
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Gated, Row, View

NAME = "far"
EVENTS = int(os.environ.get("AUDIT_EVENTS", "400"))
WORKERS = 10

SENDERS = """
import asyncio, os, random, sys
from pathlib import Path
from cmdorc_telemetry.audit import AuditLog, log
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool

home, workers = Home(Path(sys.argv[1])), int(sys.argv[2])
log.FILE_BYTES = int(sys.argv[4])
random.seed(sys.argv[3])

def perhaps():
    if chance.random() < 0.01:
        os.kill(os.getpid(), 9)

def deadly(name, module):
    call = getattr(module, name)
    def maybe(*args, **options):
        perhaps()
        result = call(*args, **options)
        perhaps()
        return result
    setattr(module, name, maybe)

class Far(TelemetryReporter):
    async def report(self, event, payload): ...
    async def report_batch(self, batch):
        fd = os.open(home.root / "arrived", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, "".join(f"{event.event_id}\\n" for event in batch.events).encode())
        os.close(fd)
        perhaps()

def send():
    for name in ("write", "open", "close", "replace", "ftruncate"):
        deadly(name, log.os)
    for name in ("lease", "settle"):
        deadly(name, Spool)
    async def main():
        spool = Spool(home.spool)
        to = Destination("far", Far, lambda item: item.row.shared, audit=AuditLog(home.audit, "far"), trusted=True)
        worker = Worker(to, spool, home.locks, Bounds(batch_seconds=0, batch_events=7))
        while spool.ledger()["far"].pending:
            await worker.step(hurry=True)
            await asyncio.sleep(0.001)
        spool.close()
    asyncio.run(main())

killed, born, left = 0, 0, set()
while True:
    while len(left) < workers:
        born += 1
        if not (pid := os.fork()):
            chance = random.Random(f"{sys.argv[3]}-{born}")
            try:
                send()
            finally:
                os._exit(0)
        left.add(pid)
    pid, status = os.wait()
    left.discard(pid)
    if status == 0:
        break
    killed += 1
while left:
    pid, status = os.wait()
    left.discard(pid)
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file_bytes", [4 << 20, 6_000], ids=["one file", "many files"])
def test_whoever_is_killed_wherever_the_audit_has_what_left_and_adds_up(tmp_path: Path, file_bytes: int) -> None:
    home = Home(tmp_path)
    home.locks.mkdir(parents=True)
    with closing(Spool(home.spool)) as spool:
        spool.register([View(name=NAME, identity="i")])
        rows = tuple(
            Row(spec="s@1", event="e", version=1, at=int(time.time()), generation="g", source="", private=b"{}",
                shared=b'{"event_id":"%036d"}' % number)
            for number in range(EVENTS)
        )  # fmt: skip
        assert spool.take_in("segment", Gated(rows=rows), before=0, after=1, drops={})
    seed = str(time.time_ns())
    print(f"seed {seed}")
    command = [sys.executable, "-c", SENDERS, str(tmp_path), str(WORKERS), seed, str(file_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) > EVENTS // 100
    with closing(Spool(home.spool)) as spool:
        ledger = spool.ledger()[NAME]
        assert (ledger.acknowledged, ledger.pending) == (EVENTS, 0)
        assert verify(home, lambda: (spool.epoch, spool.ledger())) == []
    arrived = Counter((tmp_path / "arrived").read_text().split())
    assert len(arrived) == EVENTS
    found = list(entries(home))
    assert [entry.batch for entry in found] == list(range(found[0].batch, found[-1].batch + 1))
    if found[0].batch == 1:  # nothing had to make room
        assert arrived <= Counter(each for entry in found for each in entry.event_ids)
    assert (found[0].batch == 1) is (file_bytes > 1 << 20)
