"""When a program that records begins to deliver, what it stops for, whose events an injected reporter gets."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cmdorc_telemetry import TelemetryLevel, clock, hookimpl
from cmdorc_telemetry import recorder as recorders
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.consent import Grant, renew, save_decision
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import another_identity, ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.lifecycle import CompletedRun, Session, Trigger
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.recorder import Recorder
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.segment import read_live, segments
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics, TelemetrySpec
from cmdorc_telemetry.spool import Spool

from .agreement import agree
from .waiting import LONG, until

LEVEL = TelemetryLevel
SPEC = load_spec(CORE)
"""Seconds after which a condition that has not come true never will."""
RUN = CompletedRun(run_id="r", command_name="secret", state="success", duration=0.25, session_id="s")
SESSION = Session(id="s", started_at=0.0, uptime=1.5, command_count=3, trigger_patterns=("a*",), trigger_count=1)

DONE = {"duration_ms": 1, "state": "success", "final": True, "manual": True}


def delivering(recorder: Recorder) -> bool:
    """Whether its telemetry thread runs; one that is being started is waited for."""
    delivery = recorder._delivering(LONG)
    return delivery is not None and delivery.running


def ended(recorder: Recorder) -> bool:
    """Whether its telemetry thread has come to its end."""
    delivery = recorder._delivering(LONG)
    return delivery is None or delivery.stop(LONG)


class Keeper(TelemetryReporter):
    """Keeps what it gets; hangs instead where it is told to."""

    def __init__(self, *, hang: bool = False) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []
        self.hang = hang
        self.asked = threading.Event()
        self.let_go = threading.Event()

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.asked.set()
        if self.hang:
            self.let_go.wait(LONG)  # not even awaiting: the worst kind
        self.kept.append(payload)

    def durations(self) -> list[int]:
        return sorted(each["duration_ms"] for each in self.kept if each["event"] == "command_completed")


class Machine:
    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.environ = {"CMDORC_HOME": str(root)}
        self.made: list[Recorder] = []

    def agree(self, level: LEVEL = LEVEL.STANDARD, spec: TelemetrySpec = SPEC) -> None:
        agree(self.home, level, spec=spec)

    def recorder(self, reporter: TelemetryReporter | None = None, *plugins: object, version: str = "") -> Recorder:
        situation = Situation.read(self.environ, application=CMDORC._replace(version=version))
        host = PluginHost(objects=plugins)
        self.made.append(Recorder(situation, host, [] if reporter is None else [reporter]))
        return self.made[-1]

    def history(self) -> list[dict[str, Any]]:
        if not self.home.history.exists():
            return []
        with closing(sqlite3.connect(self.home.history)) as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM event ORDER BY id")]

    def names(self) -> list[str]:
        return sorted(each["command_name"] for each in self.history())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "home")
    made.agree()
    yield made
    for recorder in made.made:
        recorder.close()
        assert ended(recorder)


@pytest.fixture
def age(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the age of the process, as far as a recorder made from now on can tell."""
    born = time.monotonic()
    moment = [born]
    monkeypatch.setattr(clock, "monotonic", lambda: moment[0])

    def set_to(seconds: float) -> None:
        moment[0] = born + seconds

    return set_to


def run(recorder: Recorder, duration: float = 0.25, name: str = "secret") -> None:
    recorder.collector.cmdorc_completed(
        CompletedRun(run_id="r", command_name=name, state="success", duration=duration, session_id="s")
    )


def old(path: Path, seconds: float) -> None:
    os.utime(path, (clock.wall() - seconds,) * 2)


# -- when delivery begins ----------------------------------------------------------------------------------------------


def test_nothing_starts_in_the_first_half_second(machine: Machine, age: Callable[[float], None]) -> None:
    recorder = machine.recorder()
    age(0.49)
    run(recorder)
    assert not delivering(recorder)
    assert not machine.home.spool.exists()
    assert recorder.journal.path is not None
    age(0.5)
    assert not delivering(recorder)
    run(recorder)
    assert delivering(recorder)


def test_asyncio_that_another_thread_is_importing_is_none_yet(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = machine.recorder()
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    assert recorder.track("command_completed", DONE)


async def test_in_a_running_loop_it_starts_by_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "START_SECONDS", 0.1)
    recorder = machine.recorder()
    calls: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda *given: (calls.append(given[0]), call_later(*given)))
    run(recorder)
    run(recorder)
    monkeypatch.undo()
    assert len(calls) == 1
    assert 0 < calls[0] <= 0.1
    assert not delivering(recorder)
    deadline = time.monotonic() + LONG
    while not delivering(recorder) and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    assert delivering(recorder)


async def test_closed_before_that_it_starts_never(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "START_SECONDS", 0.05)
    recorder = machine.recorder()
    run(recorder)
    recorder.close()
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)  # after the recorder's own, which is due before it
    await done.wait()
    assert not delivering(recorder)
    assert not recorder.append(b"x")


@pytest.mark.parametrize(
    ("what", "seconds", "at_once"),
    [("segment", 3590, False), ("segment", 3610, True), ("mark", -10, False), ("mark", 10, True)],
)
def test_what_has_waited_for_too_long_is_sent_at_once(
    machine: Machine, age: Callable[[float], None], what: str, seconds: float, at_once: bool
) -> None:
    path = machine.home.waiting if what == "mark" else machine.home.journal / "x.seg"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    old(path, seconds)
    assert delivering(machine.recorder()) is at_once


@pytest.mark.parametrize(("count", "at_once"), [(50, False), (51, True)])
def test_where_many_segments_wait_somebody_begins(
    machine: Machine, age: Callable[[float], None], count: int, at_once: bool
) -> None:
    machine.home.journal.mkdir()
    for number in range(count):
        (machine.home.journal / f"{number}.seg").touch()
    assert delivering(machine.recorder()) is at_once


def test_flush_does_not_wait_for_any_age(machine: Machine, age: Callable[[float], None]) -> None:
    recorder = machine.recorder()
    run(recorder)
    assert not delivering(recorder)
    assert recorder.flush(LONG)
    assert len(machine.history()) == 1


def test_once_started_nothing_is_scheduled_any_more(machine: Machine) -> None:
    recorder = machine.recorder(Keeper())
    assert delivering(recorder)
    run(recorder)
    assert recorder.flush(LONG)
    assert len(machine.history()) == 1


# -- what is recorded --------------------------------------------------------------------------------------------------


def test_the_lifecycle_becomes_events(machine: Machine) -> None:
    keeper = Keeper()
    recorder = machine.recorder(keeper, version="0.12.0")
    collector = recorder.collector
    collector.cmdorc_startup(SESSION)
    collector.cmdorc_completed(RUN)
    collector.cmdorc_trigger(Trigger(name="go", outcome="ran", runs_started=1, session_id="s"))
    collector.cmdorc_trigger(Trigger(name="go", outcome="nothing", session_id="s"))
    collector.cmdorc_shutdown(SESSION)
    collector.cmdorc_shutdown(SESSION)  # nothing is left of the first
    assert recorder.flush(LONG)
    found: dict[str, list[dict[str, Any]]] = {}
    for payload in keeper.kept:
        found.setdefault(payload["event"], []).append(payload)
    (started,) = found["orchestrator_started"]
    (completed,) = found["command_completed"]
    triggers = found["trigger_fired"]
    first, second = sorted(found["orchestrator_stopped"], key=lambda each: -each["run_count"])
    assert started["command_count"] == 3
    assert completed["duration_ms"] == 250
    assert sum(each["trigger_count"] for each in triggers) == 2
    assert (first["run_count"], first["trigger_count"], second["run_count"], second["trigger_count"]) == (1, 2, 0, 0)
    assert {each["cmdorc_version"] for each in keeper.kept} == {"0.12.0"}
    install_id = machine.home.install_id.read_text().strip()
    assert {each["anonymous_install_id"] for each in keeper.kept} == {install_id}
    assert not any("command_name" in each for each in keeper.kept)


def test_another_spec_needs_a_yes_of_its_own(machine: Machine) -> None:
    count = Property(type="count", required=True, level="minimal")
    events = (Event(name="thing_done", semantics=Semantics(what="w"), properties={"n": count}),)
    spec = TelemetrySpec(meta=Meta(name="app.x"), events=events)

    class Brings:
        @hookimpl
        def telemetry_specs(self) -> list[TelemetrySpec]:
            return [spec]

    assert not machine.recorder(None, Brings()).track("thing_done", {"n": 1})
    machine.agree(LEVEL.MINIMAL, spec)
    keeper = Keeper()
    recorder = machine.recorder(keeper, Brings())
    assert recorder.track("thing_done", {"n": 7})
    assert not recorder.track("unknown", {"n": 1})
    assert recorder.flush(LONG)
    assert [each["n"] for each in keeper.kept] == [7]


def test_a_new_decision_begins_a_new_segment(machine: Machine) -> None:
    recorder = machine.recorder()
    run(recorder)
    assert recorder.flush(LONG)
    first = recorder.journal.path
    assert recorder.flush(LONG)
    assert recorder.journal.path == first
    machine.agree(LEVEL.MINIMAL)
    assert recorder.flush(LONG)
    run(recorder)
    assert recorder.journal.path not in (None, first)
    assert recorder.flush(LONG)
    assert len(machine.history()) == 2


OPT_OUT = """
import sys
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.consent import Grant, save_decision
from pathlib import Path
save_decision(Home(Path(sys.argv[1])), {"cmdorc.core": Grant()})
"""


def test_a_no_in_another_process_ends_capture_and_delivery(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.delivery.thread.LOOK_SECONDS", 0.02)
    keeper = Keeper()
    recorder = machine.recorder(keeper)
    run(recorder)
    assert recorder.flush(LONG)
    assert len(keeper.kept) == 1
    subprocess.run([sys.executable, "-c", OPT_OUT, str(machine.home.root)], check=True)
    until(lambda: not delivering(recorder), "the thread ends by itself")
    assert not recorder.append(b"x")
    assert not recorder.track("command_completed", DONE)
    assert not recorder.flush(LONG)
    assert len(keeper.kept) == 1


def test_the_hashes_of_debug_end_with_the_consent(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.agree(LEVEL.DEBUG)
    keeper = Keeper()
    recorder = machine.recorder(keeper)
    run(recorder, 0.001)
    assert recorder.recording.hasher is not None
    after = (datetime.now(timezone.utc) + timedelta(days=31)).timestamp()
    with monkeypatch.context() as patch:
        patch.setattr(clock, "wall", lambda: after)
        assert recorder.recording.hasher is None
    assert recorder.recording.hasher is None  # also where the clock is set back
    run(recorder, 0.002)
    assert recorder.flush(LONG)
    assert {each["duration_ms"]: "hashed_command_name" in each for each in keeper.kept} == {1: True, 2: False}


# -- another generation ------------------------------------------------------------------------------------------------


def identities(machine: Machine) -> dict[str, set[str]]:
    """Generation of a segment → the install ids of its records."""
    found: dict[str, set[str]] = {}
    for path in segments(machine.home.journal):
        segment = read_live(path, 0)
        bodies = [json.loads(record)[-1] for record in segment.records]
        found.setdefault(segment.generation.partition("/")[0], set()).update(
            body["anonymous_install_id"] for body in bodies
        )
    return found


def test_a_record_is_written_under_the_generation_that_its_identity_is_of(machine: Machine) -> None:
    recorder = machine.recorder()
    run(recorder)
    before, old = recorder.recording, ensure_identity(machine.home).install_id
    late = before.capture.record("command_completed", DONE)  # made, and not yet written
    assert late is not None
    new = another_identity(machine.home).install_id
    generation = renew(machine.home).generation
    recorder._recordings.follow(Situation.read(machine.environ))
    assert recorder.append(late, before)
    run(recorder)
    after = recorder.recording
    assert recorder.track("command_completed", {**DONE, "duration_ms": 2})
    assert (after.generation, after.journal.source) == (generation, before.journal.source)
    assert identities(machine) == {before.generation: {old}, generation: {new}}
    assert old != new
    recorder.close()
    assert recorder.flush(LONG)
    assert len(machine.history()) == 4


def test_a_level_that_changes_within_a_generation_keeps_identity_and_journal(machine: Machine) -> None:
    recorder = machine.recorder()
    run(recorder)
    before = recorder.recording
    machine.home.config.write_text('[telemetry]\nlevel = "minimal"\n')
    recorder._recordings.follow(Situation.read(machine.environ))
    assert recorder.recording is before
    assert before.journal.path is not None
    assert read_live(before.journal.path, 0).generation == f"{before.generation}/minimal"


def test_without_an_identity_for_it_nothing_is_recorded_under_a_new_generation(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    recorder = machine.recorder()
    run(recorder)
    before = recorder.recording

    def full(home: Home) -> None:
        raise StorageError("no room for an identity")

    renew(machine.home)
    with monkeypatch.context() as patch:
        patch.setattr("cmdorc_telemetry.recording.ensure_identity", full)
        assert recorder.flush(LONG)  # what can be had is
        assert recorder.recording is before
        assert machine.history() == []
    assert recorder.flush(LONG)
    assert recorder.recording is not before
    assert len(machine.history()) == 1


def test_a_child_that_must_not_deliver_follows_the_decision_too(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(recorders, "tied", lambda: True)
    monkeypatch.setattr(recorders, "HAND_OVER_SECONDS", 0.0)
    recorder = machine.recorder()
    run(recorder)
    generation = renew(machine.home).generation
    run(recorder)
    assert recorder.recording.generation == generation
    save_decision(machine.home, {"cmdorc.core": Grant()})
    run(recorder)
    assert not recorder.append(b"x")
    assert recorder.recording.generation == generation


def test_without_a_yes_to_debug_there_are_no_hashes(machine: Machine) -> None:
    assert machine.recorder().recording.hasher is None


def test_an_operators_yes_makes_an_identity_and_shares(machine: Machine) -> None:
    machine.home.consent.unlink()
    machine.environ["CMDORC_TELEMETRY"] = "minimal"
    assert not machine.home.install_id.exists()
    keeper = Keeper()
    recorder = machine.recorder(keeper)
    assert machine.home.install_id.exists()
    assert machine.home.salt.exists()
    run(recorder)
    assert recorder.flush(LONG)
    assert [each["level"] for each in keeper.kept] == ["minimal"]


def test_a_journal_that_cannot_be_written_warns_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    recorder = machine.recorder()
    machine.home.telemetry.rename(machine.home.root / "elsewhere")
    machine.home.telemetry.write_text("a file where a directory should be")
    assert not recorder.track("command_completed", DONE)
    assert not recorder.track("command_completed", DONE)
    assert recorder.journal.lost == {"storage-failed": 2}
    (message,) = caplog.messages
    assert message.endswith("Events are counted as dropped.")


# -- an injected reporter ----------------------------------------------------------------------------------------------


def test_an_injected_reporter_gets_what_its_own_process_recorded(machine: Machine) -> None:
    keeper = Keeper()
    recorder = machine.recorder(keeper)
    other = machine.recorder()  # as good as another process: a journal of its own
    run(other, 0.002, "other")
    other.close()
    run(recorder, 0.001, "own")
    assert recorder.flush(LONG)
    assert keeper.durations() == [1]
    assert machine.names() == ["other", "own"]
    lock = machine.home.locks / f"code-{recorder.journal.source}.owner"
    assert lock.exists()
    recorder.close()
    assert ended(recorder)
    assert not lock.exists()


def test_where_no_lock_can_be_had_nothing_can_be_injected(machine: Machine) -> None:
    machine.home.locks.symlink_to("/proc")  # a directory in which nobody can create a file
    with pytest.raises(StorageError, match=r"locks cannot be (written|created)"):
        machine.recorder(Keeper())


FORKING = """
import os
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.lifecycle import CompletedRun

telemetry = Telemetry.start()

def run(name):
    telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name=name, state="success"))

run("before")
print(telemetry.flush(30))
pid = os.fork()
if pid == 0:
    run("child")
    os._exit(0)
print(os.waitpid(pid, 0)[1])
run("after")
print(telemetry.flush(30))
telemetry.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_forked_child_records_comes_too(machine: Machine) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **machine.environ}, check=False)  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["True", "0", "True"], "")
    assert machine.names() == ["after", "before", "child"]


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_closing_twice_is_closing_once(machine: Machine) -> None:
    recorder = machine.recorder(Keeper())
    run(recorder)
    await recorder.aclose()
    recorder.close()
    await recorder.aclose()
    recorder.close()
    assert recorder.journal.path is None
    assert not recorder.track("command_completed", DONE)


def test_what_was_started_is_closed_at_exit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    recorder = machine.recorder(Keeper())
    assert registered == [recorder._exit]
    recorder.close()
    assert registered == []
    monkeypatch.undo()


async def test_a_reporter_that_hangs_does_not_hold_up_the_end(machine: Machine) -> None:
    keepers = [Keeper(hang=True), Keeper(hang=True)]
    recorders_ = [machine.recorder(keeper) for keeper in keepers]
    try:
        for recorder, keeper in zip(recorders_, keepers, strict=True):
            run(recorder)
            assert await asyncio.to_thread(keeper.asked.wait, LONG)
        start = time.monotonic()
        ticks = 0
        closing_ = asyncio.ensure_future(recorders_[0].aclose())
        while not closing_.done():
            await asyncio.sleep(0)
            ticks += 1
        recorders_[1].close()
        assert time.monotonic() - start < 2  # 50 ms each, and room for a slow machine
        assert ticks > 3  # the loop went on meanwhile
        for recorder in recorders_:  # the threads that block are not the one that touches the disk
            until(lambda recorder=recorder: not delivering(recorder), "the telemetry thread ends")
    finally:
        for keeper in keepers:
            keeper.let_go.set()


def test_a_flush_after_the_end_sends_the_rest(machine: Machine, age: Callable[[float], None]) -> None:
    recorder = machine.recorder()
    run(recorder)
    recorder.close()
    assert machine.history() == []
    assert recorder.flush(LONG)
    assert machine.names() == ["secret"]
    assert list(machine.home.journal.iterdir()) == []


def test_when_python_ends_nothing_is_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = machine.recorder()
    run(recorder)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "is_finalizing", lambda: True)
        assert not recorder.flush(LONG)
    assert not delivering(recorder)
    recorder.close()
    assert recorder.flush(LONG)
    assert machine.names() == ["secret"]


def test_an_injected_reporter_is_gone_at_the_end(machine: Machine) -> None:
    keeper = Keeper()
    recorder = machine.recorder(keeper)
    name = f"code-{recorder.journal.source}"
    run(recorder, 0.001)
    assert recorder.flush(LONG)
    recorder.close()
    assert ended(recorder)
    spool = Spool(machine.home.spool)
    ledger = spool.ledger()[name]
    spool.close()
    assert (ledger.removed, ledger.recorded, ledger.acknowledged) == (True, 1, 1)
    stranger = Journal(machine.home.journal, "g/standard")
    stranger.append(b"{}")
    stranger.close()
    assert recorder.flush(LONG)
    assert keeper.durations() == [1]


def test_a_no_is_not_taken_back_by_a_flush(machine: Machine) -> None:
    recorder = machine.recorder()
    run(recorder)
    save_decision(machine.home, {"cmdorc.core": Grant()})
    recorder.close()
    assert not recorder.flush(LONG)
    assert machine.history() == []
