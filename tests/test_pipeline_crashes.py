"""An import that is killed between any two of its steps: opened again, nothing is lost and nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.capture import Capture, completed_properties, machine_fields
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.segment import Orphan, frame
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spool import Spool

from .agreement import agree

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

STEPS: list[tuple[type[Any], str]] = [
    (Orphan, "read"),
    (Spool, "take_in"),
    (Orphan, "linked"),  # asked inside the transaction, before anything is written
    (Spool, "_drop"),  # inside it, after the rows
    (Orphan, "discard"),
    (Spool, "finish"),
]
MOMENTS = [(owner, step, after) for owner, step in STEPS for after in (False, True)]


class Machine:
    """A home directory with segments in it, each event of which has a number of its own."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        agree(self.home)
        constants = {**machine_fields(), "anonymous_install_id": ensure_identity(self.home).install_id}
        self.capture = Capture([load_spec(CORE)], constants)
        self.serial = self.losses = 0

    def pipeline(self) -> Pipeline:
        return Pipeline(Situation.read({"CMDORC_HOME": str(self.home.root)}), PluginHost())

    def record(self) -> bytes:
        self.serial += 1
        run = CompletedRun(run_id="r", command_name="c", state="success", duration=self.serial / 1000)
        return self.capture.record("command_completed", completed_properties(run, None))

    def segment(self, count: int) -> None:
        """One of a process that is gone, with a loss that it told of and one that it could not tell of."""
        journal = Journal(self.home.journal, self.pipeline().policy.stamp)
        assert journal.append(self.record())
        assert journal.path is not None
        with journal.path.open("ab") as file:
            file.write(frame(b"x" * 50)[:20] + frame(b"y" * 50)[:20])
        journal._count("storage-failed")
        self.losses += 2
        for _ in range(count - 1):
            assert journal.append(self.record())
        journal.close()

    def import_all(self) -> None:
        pipeline = self.pipeline()
        with closing(pipeline.open_spool()) as spool:
            assert pipeline.pump(spool)

    def check(self) -> None:
        """Everything is there once, and the ledger says so."""
        assert list(self.home.journal.iterdir()) == []
        with closing(sqlite3.connect(self.home.spool)) as db:
            numbers = Counter(json.loads(body)["duration_ms"] for (body,) in db.execute("SELECT private FROM event"))
            assert db.execute("SELECT count(*) FROM segment WHERE done IS NULL").fetchone()[0] <= self.interrupted
        assert numbers == Counter(range(1, self.serial + 1))
        with closing(self.pipeline().open_spool()) as spool:
            ledger = spool.ledger()["history"]
        assert ledger.recorded == self.serial + self.losses
        assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values())
        assert sum(ledger.dropped.values()) == self.losses

    interrupted = 0
    """Imports that were killed after the file was gone: their segment stays unfinished, which harms nobody."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "home")
    with closing(made.pipeline().open_spool()):  # the destination is there before anything is imported
        return made


def killed(work: Callable[[], object]) -> bool:
    """Do ``work`` in a child. Whether that was killed rather than done."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def dies(owner: type[Any], step: str, *, after: bool) -> None:
    """From now on, the first call of a step is the last thing that this process does."""
    original = getattr(owner, step)

    @wraps(original)
    def deadly(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, deadly)


def name(moment: tuple[type[Any], str, bool]) -> str:
    return f"{'after' if moment[2] else 'before'}-{moment[1].strip('_')}"


@pytest.mark.parametrize("further", [0, 1, 5])
@pytest.mark.parametrize("first", range(len(MOMENTS)), ids=[name(moment) for moment in MOMENTS])
def test_an_import_that_is_killed_twice_at_any_steps_is_made_up_for(first: int, further: int, machine: Machine) -> None:
    machine.segment(3)
    machine.segment(2)
    for owner, step, after in (MOMENTS[first], MOMENTS[(first + further) % len(MOMENTS)]):

        def work(owner: type[Any] = owner, step: str = step, after: bool = after) -> None:
            dies(owner, step, after=after)
            machine.import_all()

        assert killed(work)
        machine.interrupted += (step, after) in {("discard", True), ("finish", False)}
    machine.import_all()
    machine.check()


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_is_killed_as_it_imports_its_own_segment_leaves_the_rest_to_the_next(
    after: bool, machine: Machine
) -> None:
    def live() -> None:
        pipeline = machine.pipeline()
        journal = Journal(machine.home.journal, pipeline.policy.stamp)
        spool = pipeline.open_spool()
        for turn in range(3):
            assert journal.append(machine.record())
            if turn == 2:
                dies(Spool, "take_in", after=after)
            pipeline.pump(spool, journal)

    assert killed(live)
    machine.serial = 3
    machine.import_all()
    machine.check()


def test_importers_that_are_killed_at_random_lose_and_double_nothing(machine: Machine) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(60):
        machine.segment(4)
    kills = 0
    for _ in range(40):  # two at a time
        children = []
        for _ in range(2):
            child = os.fork()
            if not child:
                machine.import_all()
                os._exit(0)
            children.append(child)
        time.sleep(chance.uniform(0.005, 0.04))
        for child in children:
            os.kill(child, signal.SIGKILL)
            kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    machine.interrupted = kills
    machine.import_all()
    machine.check()
    assert kills > 3
