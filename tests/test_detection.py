"""Detectors in the pipeline: each event once, alerts once, whatever is killed, broken, newer or somebody else's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from msgspec import Struct

from cmdorc_telemetry import TelemetryLevel, clock, files, hookimpl
from cmdorc_telemetry.application import Application
from cmdorc_telemetry.capture import Capture, Hasher, completed_properties
from cmdorc_telemetry.config import ConfigError, is_built_in, load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.detection import Detection, DetectorReporter, Kept, properties_of
from cmdorc_telemetry.detector import STATE_BYTES, Detector
from cmdorc_telemetry.errors import RetryLater, StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.segment import parse, segments
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, TelemetryRegistry, TelemetrySpec, load_spec
from cmdorc_telemetry.types import Anomaly, Batch, BatchEvent

GRANTED = datetime(2026, 1, 1, tzinfo=timezone.utc)
SPEC = load_spec(CORE)


def anomaly(value: float = 2, **fields: Any) -> Anomaly:
    usual: dict[str, Any] = {
        "detector": "d",
        "event": "e",
        "metric": "count",
        "kind": "above",
        "threshold": 1.0,
        "sample_count": 5,
    }
    return Anomaly(value=value, **{**usual, **fields})


class Counting(Detector):
    """Counts; every third event is an anomaly."""

    name = "counting"
    made = 0
    seen: ClassVar[list[str]] = []
    specs: ClassVar[Sequence[TelemetrySpec]] = ()

    class Settings(Struct, forbid_unknown_fields=True):
        step: int = 3
        actions: tuple[str, ...] = ("alert",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        type(self).made += 1
        self.count = 0

    def watch(self, specs: Sequence[TelemetrySpec]) -> None:
        type(self).specs = specs

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        if (self.count + 1) % self.settings.step == 0:
            yield anomaly(self.count + 1, group=payload.get("command_name"), group_by="command_name",
                          actions=self.settings.actions, message=f"that is {self.count + 1}")  # fmt: skip

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        self.count += 1
        type(self).seen.append(payload.get("command_name", event))

    def check(self, now: float) -> Iterable[Anomaly]:
        return [] if self.count < 100 else [anomaly(now, actions=())]

    def save(self) -> bytes:
        return str(self.count).encode()

    def restore(self, state: bytes) -> None:
        self.count = int(state)


# -- the reporter alone ------------------------------------------------------------------------------------------------


class Feed:
    """A detector's reporter, as often as somebody makes one, and what came of it."""

    def __init__(self, path: Path, class_: type[Detector] = Counting, **settings: Any) -> None:
        self.path, self.class_, self.settings = path, class_, settings
        self.raised: list[float] = []
        self.faults: list[str] = []
        self.alert: Callable[[Anomaly, Mapping[str, Any]], None] = lambda found, payload: self.raised.append(
            found.value
        )

    def reporter(self) -> DetectorReporter:
        return DetectorReporter(
            lambda: self.class_(self.class_.Settings(**self.settings)), self.path,
            self.alert, lambda fault: self.faults.append(repr(fault)),
        )  # fmt: skip

    def kept(self) -> Kept:
        return msgspec.msgpack.decode(self.path.read_bytes(), type=Kept)


def batch(first: int, last: int, *, epoch: str = "one", event: str = "e") -> Batch:
    def one(seq: int) -> BatchEvent:
        payload = {"timestamp": "2026-11-22T03:14:15Z", "command_name": f"c{seq}"}
        return BatchEvent(str(seq), event, json.dumps(payload).encode(), seq)

    return Batch(destination="detector-counting", events=tuple(map(one, range(first, last + 1))), epoch=epoch)


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr(Counting, "seen", [])
    return Feed(tmp_path / "plugins" / "counting" / "learnt")


async def test_what_was_learnt_goes_on_in_another_process(feed: Feed) -> None:
    await feed.reporter().report_batch(batch(1, 4))
    await feed.reporter().report_batch(batch(5, 7))
    assert feed.raised == [3, 6]
    assert feed.kept() == Kept(epoch="one", seq=7, state=b"7")
    assert feed.path.stat().st_mode & 0o777 == 0o600
    assert feed.path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_batch_that_comes_again_is_learnt_once(feed: Feed) -> None:
    reporter = feed.reporter()
    await reporter.report_batch(batch(1, 4))
    await reporter.report_batch(batch(1, 4))
    await feed.reporter().report_batch(batch(3, 6))
    assert feed.raised == [3, 6]
    assert feed.kept().state == b"6"


async def test_numbers_of_another_spool_are_others(feed: Feed) -> None:
    await feed.reporter().report_batch(batch(1, 4))
    await feed.reporter().report_batch(batch(1, 2, epoch="two"))
    assert feed.kept() == Kept(epoch="two", seq=2, state=b"6")


async def test_two_who_take_turns_know_of_each_other(feed: Feed) -> None:
    one, other = feed.reporter(), feed.reporter()
    for number in range(1, 9):
        await (one if number % 2 else other).report_batch(batch(number, number))
    assert feed.kept().state == b"8"
    assert feed.raised == [3, 6]


async def test_an_alert_that_was_found_and_not_raised_is_raised_by_the_next(feed: Feed) -> None:
    """The process is killed while it raises the alert: what a plugin then does is unknown, and it is told again."""

    def die(found: Anomaly, payload: Mapping[str, Any]) -> None:
        raise Killed

    usual, feed.alert = feed.alert, die
    with pytest.raises(Killed):
        await feed.reporter().report_batch(batch(1, 4))
    assert [each.value for each in feed.kept().alerts] == [3]
    feed.alert = usual
    await feed.reporter().report_batch(batch(1, 4))
    assert feed.raised == [3]
    assert feed.kept() == Kept(epoch="one", seq=4, state=b"4")


async def test_what_cannot_be_kept_is_not_learnt(feed: Feed) -> None:
    reporter = feed.reporter()
    await reporter.report_batch(batch(1, 2))
    folder = feed.path.parent
    folder.rename(folder.with_name("away"))
    folder.write_bytes(b"in the way")
    with pytest.raises((RetryLater, NotADirectoryError)):
        await reporter.report_batch(batch(3, 4))
    folder.unlink()
    folder.with_name("away").rename(folder)
    await reporter.report_batch(batch(3, 4))
    assert feed.kept().state == b"4"
    assert feed.raised == [3]


async def test_a_disk_that_is_full_for_a_moment(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = feed.reporter()
    await reporter.report_batch(batch(1, 2))

    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"{path} cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", full)
        with pytest.raises(RetryLater, match="No space left"):
            await reporter.report_batch(batch(3, 4))
    await reporter.report_batch(batch(3, 4))
    assert feed.kept().state == b"4"


async def test_an_alert_that_was_raised_is_not_raised_again_though_nobody_could_note_it(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the alert on, which is no reason to ring until there is room."""
    reporter, write = feed.reporter(), files.replace

    def full(path: Path, data: bytes) -> None:
        if feed.raised:
            raise StorageError(f"{path} cannot be written: No space left on device")
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", full)
        for _ in range(3):
            await reporter.report_batch(batch(1, 4))
        with pytest.raises(RetryLater):
            await reporter.report_batch(batch(5, 5))
    assert feed.raised == [3]
    await reporter.report_batch(batch(5, 7))
    assert feed.kept() == Kept(epoch="one", seq=7, state=b"7")
    assert feed.raised == [3, 3, 6], "who had to read again what was kept raises it again"


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", range(15))
async def test_killed_at_any_step_each_event_is_learnt_once_and_no_alert_is_lost(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A step is the moment before, or after, something that lasts: a file is written, an alert is raised."""
    feed.settings = {"step": 2}
    steps, noted, write, ring = iter(range(step)), [True], files.replace, feed.alert

    def lasting(what: Callable[[], object]) -> None:
        for moment in (lambda: None, what):
            moment()
            if next(steps, None) is None:
                raise Killed

    def written(path: Path, data: bytes) -> None:
        lasting(lambda: write(path, data))
        noted[0] = True

    def alert(found: Anomaly, payload: Mapping[str, Any]) -> None:
        noted[0] = False
        lasting(lambda: ring(found, payload))

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", written)
        feed.alert = alert
        try:
            await feed.reporter().report_batch(batch(1, 4))
            await feed.reporter().report_batch(batch(5, 6))
        except Killed:
            clean = noted[0]
        else:
            clean = True
            assert step == 14, "it ends in each of the 14 steps"
    feed.alert = ring
    await feed.reporter().report_batch(batch(1, 6))
    await feed.reporter().report_batch(batch(5, 6))
    assert feed.kept() == Kept(epoch="one", seq=6, state=b"6")
    assert sorted(set(feed.raised)) == [2, 4, 6]
    assert not clean or feed.raised == [2, 4, 6], "it was not killed while it raised: each alert once"


async def test_alerts_of_detectors_are_shown_to_none(feed: Feed) -> None:
    await feed.reporter().report_batch(batch(1, 9, event="anomaly_detected"))
    assert feed.raised == []
    assert feed.kept() == Kept(epoch="one", seq=9, state=b"0")
    assert Counting.seen == []


async def test_when_nothing_waits_everything_is_judged_at_the_time_of_the_last_event(feed: Feed) -> None:
    feed.settings = {"step": 1000}
    await feed.reporter().report_batch(batch(1, 99))
    assert feed.raised == []
    await feed.reporter().report_batch(batch(100, 100))
    assert feed.raised == [datetime(2026, 11, 22, 3, 14, 15, tzinfo=timezone.utc).timestamp()]


async def test_of_no_events_nothing_is_judged(feed: Feed) -> None:
    """An alert is recorded now, which says nothing of how far the events are that it watches."""
    feed.settings = {"step": 1000}
    await feed.reporter().report_batch(batch(1, 100))
    await feed.reporter().report_batch(batch(101, 101, event="anomaly_detected"))
    assert len(feed.raised) == 1


async def test_an_event_of_no_time_is_judged_now(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall", lambda: 1234.5)
    feed.settings = {"step": 1000}
    events = tuple(BatchEvent(str(seq), "e", b"{}", seq) for seq in range(1, 101))
    await feed.reporter().report_batch(Batch(destination="d", events=events))
    assert feed.raised == [1234.5]


@pytest.mark.parametrize("data", [b"", b"\x00", b"nonsense that is no msgpack", msgspec.msgpack.encode({"a": 1})])
async def test_what_is_no_state_is_set_aside(feed: Feed, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    feed.path.parent.mkdir(parents=True)
    feed.path.write_bytes(data)
    await feed.reporter().report_batch(batch(1, 3))
    assert feed.kept().state == b"3"
    (kept,) = feed.path.parent.glob("learnt.corrupt-*")
    assert kept.read_bytes() == data
    assert str(kept) in caplog.text


async def test_what_a_newer_version_kept_is_left(feed: Feed) -> None:
    feed.path.parent.mkdir(parents=True)
    newer = msgspec.msgpack.encode(Kept(version=2))
    feed.path.write_bytes(newer)
    with pytest.raises(RetryLater, match="made by a newer version"):
        await feed.reporter().report_batch(batch(1, 3))
    assert feed.path.read_bytes() == newer


async def test_a_state_that_a_detector_cannot_use_any_more(feed: Feed) -> None:
    class Halfway(Counting):
        def restore(self, state: bytes) -> None:
            self.count = 1000
            super().restore(state)

    feed.class_ = Halfway
    await feed.reporter().report_batch(batch(1, 2))
    kept = msgspec.structs.replace(feed.kept(), state=b"of another version")
    feed.path.write_bytes(msgspec.msgpack.encode(kept))
    await feed.reporter().report_batch(batch(3, 4))
    assert feed.kept() == Kept(epoch="one", seq=4, state=b"2")
    assert feed.faults == []


class Broken(Counting):
    """Fails in one place or another."""

    name = "broken"

    class Settings(Struct):
        where: str = ""
        step: int = 3
        actions: tuple[str, ...] = ()

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        if self.settings.where == "score":
            raise ValueError("odd")
        if self.settings.where == "exit":
            raise SystemExit(3)
        if self.settings.where == "nothing":
            return None  # type: ignore[return-value]
        if self.settings.where == "other":
            return ["anomaly"]  # type: ignore[list-item]
        return super().score_one(event, payload)

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        if self.settings.where == "learn":
            raise ValueError("odd")
        super().learn_one(event, payload)

    def save(self) -> bytes:
        if self.settings.where == "save":
            raise ValueError("odd")
        if self.settings.where == "text":
            return "text"  # type: ignore[return-value]
        return bytes(STATE_BYTES + 1) if self.settings.where == "large" else super().save()


@pytest.mark.parametrize(
    ("where", "fault", "state"),
    [
        ("score", "ValueError('odd')", b"3"), ("exit", "SystemExit(3)", b"3"), ("learn", "ValueError('odd')", b"0"),
        ("nothing", "TypeError(", b"3"), ("other", "PluginError('gave a str instead of an Anomaly')", b"3"),
        ("save", "ValueError('odd')", b""), ("text", "PluginError('save() gave", b""),
        ("large", "PluginError('save() gave", b""),
    ],
)  # fmt: skip
async def test_what_a_detector_does_wrong_is_told_and_events_go_on(
    feed: Feed, where: str, fault: str, state: bytes
) -> None:
    feed.class_, feed.settings = Broken, {"where": where}
    await feed.reporter().report_batch(batch(1, 3))
    assert feed.faults[0].startswith(fault)
    assert feed.kept().seq == 3
    assert feed.kept().state == state


@pytest.mark.parametrize(
    "fields",
    [
        {"message": None}, {"value": "much"}, {"group": 3}, {"actions": "alert"}, {"kind": "odd"}, {"group": "\udc80"},
        {"sample_count": 10**30}, {"event": object()},
    ],
)  # fmt: skip
async def test_an_alert_that_nobody_could_record_is_none(feed: Feed, fields: dict[str, Any]) -> None:
    """What a detector puts into one is for nobody to check but here: it is written down, and raised until it is."""

    class Odd(Counting):
        def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
            return [anomaly(1, **fields)] if self.count == 0 else super().score_one(event, payload)

    feed.class_ = Odd
    await feed.reporter().report_batch(batch(1, 3))
    assert feed.raised == [3]
    assert feed.kept() == Kept(epoch="one", seq=3, state=b"3")
    assert len(feed.faults) == 1


class Stateless(Detector):
    """The least that a detector is."""

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        return [anomaly()]

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None: ...


async def test_a_detector_need_not_keep_anything(feed: Feed) -> None:
    feed.class_ = Stateless
    await feed.reporter().report_batch(batch(1, 2))
    await feed.reporter().report_batch(batch(2, 3))
    assert feed.raised == [2, 2, 2]
    assert feed.faults == []
    await feed.reporter().report("e", {})


# -- the event that tells of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (anomaly(), {"metric": "count", "kind": "above", "sample_count": 5, "message": "", "ratio": 2.0}),
        (anomaly(metric="p95(duration_ms)", threshold=0.0, group="Build", message="m" * 600),
         {"metric": "p95", "kind": "above", "sample_count": 5, "message": "m" * 500}),
        (anomaly(group="Build", group_by="command_name"),
         {"metric": "count", "kind": "above", "sample_count": 5, "message": "", "ratio": 2.0, "command_name": "Build"}),
        (anomaly(group="failed", group_by="state"),
         {"metric": "count", "kind": "above", "sample_count": 5, "message": "", "ratio": 2.0}),
    ],
)  # fmt: skip
def test_what_is_recorded_of_an_anomaly(found: Anomaly, expected: dict[str, Any]) -> None:
    assert properties_of(found, None) == expected


def test_a_command_is_hashed_where_somebody_said_yes_to_that() -> None:
    hasher = Hasher(bytes(32))
    properties = properties_of(anomaly(group="Build", group_by="command_name"), hasher)
    assert properties["hashed_command_name"] == hasher("Build")
    assert "hashed_command_name" not in properties_of(anomaly(), hasher)


def test_detectors_are_built_in_destinations() -> None:
    assert [is_built_in(name) for name in ("history", "detector-anomaly", "detectors", "http")] == [
        True,
        True,
        False,
        False,
    ]


# -- in the pipeline ---------------------------------------------------------------------------------------------------


class Machine:
    """A home whose user records, with the detector of a plugin that hears of alerts itself."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.heard: list[Anomaly] = []
        self.classes: list[type[Detector]] = [Counting]
        self.host = PluginHost()

    @hookimpl
    def telemetry_detectors(self) -> list[type[Detector]]:
        return self.classes

    @hookimpl
    def telemetry_anomaly(self, anomaly: Anomaly) -> None:
        self.heard.append(anomaly)

    def configure(self, text: str = "", level: TelemetryLevel = TelemetryLevel.STANDARD) -> None:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(f"[telemetry]\n{text}")
        grant = new_grant(SPEC, level, clock.utcnow() if level is TelemetryLevel.DEBUG else GRANTED)
        save_decision(self.home, {SPEC.meta.name: grant}, identities(load_layer(self.home.config).destinations))

    def record(self, *names: str) -> None:
        capture = Capture(
            [SPEC], {"cmdorc_version": "0.12.1", "anonymous_install_id": ensure_identity(self.home).install_id}
        )
        journal = Journal(self.home.journal, self.situation().policy().stamp)
        for name in names:
            run = CompletedRun(run_id="r", command_name=name, state="success")
            assert journal.append(capture.record("command_completed", completed_properties(run, None)))
        journal.close()

    def situation(self) -> Situation:
        return Situation.read({"CMDORC_HOME": str(self.home.root)})

    def pipeline(self) -> Pipeline:
        self.host = PluginHost((), [self], known=())
        return Pipeline(self.situation(), self.host)

    def flush(self) -> bool:
        delivery = self.pipeline().delivery()
        try:
            return delivery.flush(20)
        finally:
            delivery.stop()

    def rows(self) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Private and shared bodies of what was recorded and waits for the history."""
        pipeline = self.pipeline()
        spool = pipeline.open_spool()
        try:
            pipeline.pump(spool)
            lease = spool.lease("history", clock.wall())
            items = lease.items if lease else ()
            return [(json.loads(each.row.private), json.loads(each.row.shared or b"null")) for each in items]
        finally:
            spool.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(Counting, "seen", [])
    return Machine(tmp_path / "home")


def test_each_event_reaches_a_detector_once_and_an_alert_is_heard_and_recorded(machine: Machine) -> None:
    machine.configure()
    machine.record("a", "b", "c", "d")
    assert machine.flush()
    machine.record("e", "f")
    assert machine.flush()
    assert machine.host.failures == {}
    assert Counting.seen == ["a", "b", "c", "d", "e", "f"]
    assert [spec.ref for spec in Counting.specs] == ["cmdorc.core@1"]
    assert [(each.value, each.group) for each in machine.heard] == [(3, "c"), (6, "f")]
    spool = machine.pipeline().open_spool()
    try:
        ledger = spool.ledger()["detector-counting"]
    finally:
        spool.close()
    assert ledger.recorded == ledger.acknowledged == 7, "six, and the first alert's event, which it does not learn from"
    (private, shared), *rest = machine.rows()
    assert rest == []
    assert private.items() >= {
        "event": "anomaly_detected", "cmdorc_version": "0.12.1", "metric": "count", "kind": "above", "ratio": "4-10",
        "sample_count": 5, "command_name": "f", "message": "that is 6",
    }.items()  # fmt: skip
    assert shared is not None
    assert shared.items() >= {"metric": "count", "kind": "above", "ratio": "4-10", "sample_count": 5}.items()
    assert not shared.keys() & {"command_name", "message", "hashed_command_name"}
    assert "hashed_command_name" not in private


def test_at_debug_the_command_is_there_as_a_hash(machine: Machine) -> None:
    machine.configure(level=TelemetryLevel.DEBUG)
    machine.record("a", "b", "c")
    assert machine.flush()
    ((private, shared),) = machine.rows()
    assert shared is not None
    assert (
        shared["hashed_command_name"]
        == private["hashed_command_name"]
        == Hasher(ensure_identity(machine.home).salt)("c")
    )


@pytest.mark.parametrize(("actions", "heard", "logged"), [([], 0, 0), (["log"], 0, 1), (["log", "alert"], 1, 1)])
def test_actions(
    machine: Machine, actions: list[str], heard: int, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine.configure(f"[telemetry.settings.counting]\nactions = {actions}\n")
    machine.record("a", "b", "c")
    assert machine.flush()
    assert len(machine.heard) == heard
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "that is 3"
    ] * logged
    assert len(machine.rows()) == 1, "whatever the actions are, it is recorded"


def test_settings_that_are_wrong_let_events_wait(machine: Machine) -> None:
    machine.configure("[telemetry.settings.counting]\nsteps = 3\n")
    machine.record("a", "b", "c")
    assert not machine.flush()
    spool = machine.pipeline().open_spool()
    try:
        ledger = spool.ledger()["detector-counting"]
    finally:
        spool.close()
    assert ledger.pending == 3
    assert ledger.last_error == (
        f"{machine.home.config}: telemetry.settings.counting.steps: unknown key; expected one of step, actions. Did "
        "you mean 'step'?"
    )
    machine.configure("[telemetry.settings.counting]\nstep = 3\n")
    spool = machine.pipeline().open_spool()
    spool.hurry()
    spool.close()
    assert machine.flush()
    assert Counting.seen == ["a", "b", "c"]


def test_a_detector_that_fails_is_named_once_and_holds_up_nobody(machine: Machine) -> None:
    class Failing(Counting):
        name = "failing"

        class Settings(Counting.Settings):
            pass

        def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
            raise ValueError("odd")

    machine.classes = [Failing, Counting]
    machine.configure()
    machine.record("a", "b")
    assert machine.flush()
    assert machine.host.failures == {"failing": "raised ValueError: odd (report it to its author)"}
    assert Counting.seen == ["a", "b"]


def test_a_detector_whose_plugin_is_not_there_is_waited_for(machine: Machine) -> None:
    """Such as in another environment; where nothing is missing, it was taken out of the configuration."""
    machine.configure()
    machine.record("a")
    assert machine.flush()
    for host, removed in ((PluginHost(["elsewhere"], known=()), False), (PluginHost((), known=()), True)):
        machine.record("b")
        spool = Pipeline(machine.situation(), host).open_spool()
        try:
            assert spool.ledger()["detector-counting"].removed == removed
        finally:
            spool.close()


def test_who_says_no_is_not_watched(machine: Machine) -> None:
    machine.configure()
    machine.record("a", "b", "c")
    no = new_grant(SPEC, TelemetryLevel.OFF, clock.utcnow())._replace(record=False)
    save_decision(machine.home, {SPEC.meta.name: no}, {})
    machine.flush()
    assert Counting.seen == []
    assert machine.heard == []


def test_an_alert_that_comes_after_the_no_is_recorded_nowhere(machine: Machine) -> None:
    machine.configure()
    off = Situation(machine.home, {}, load_layer(machine.home.config), None)
    host = PluginHost((), [machine], known=())
    Detection(host, machine.home, [SPEC], lambda: off)._alert(anomaly(), {})
    assert len(machine.heard) == 1
    assert not machine.home.journal.exists()


def test_an_alert_without_words_is_logged_without_names(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.configure()
    host = PluginHost((), [machine], known=())
    found = anomaly(actions=("log",), group="secret")
    Detection(host, machine.home, [SPEC], machine.situation)._alert(found, {})
    assert caplog.messages == ["e: count is above its bound"]


def test_an_alert_is_logged_in_one_line_that_no_terminal_obeys(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Counting, "score_one", lambda *_: [anomaly(actions=("log",), message="Build\x1b[2J\nis slow")])
    machine.configure()
    machine.record("a")
    assert machine.flush()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "Build�[2J is slow"
    ]


def test_where_nothing_can_be_written_an_alert_is_heard_all_the_same(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.configure()
    machine.home.salt.mkdir()
    machine.home.install_id.write_text("x")
    machine.home.telemetry.chmod(0o700)
    (machine.home.telemetry / "identity.lock").mkdir(exist_ok=True)
    (machine.home.telemetry / "identity.lock.lock").mkdir(exist_ok=True)
    host = PluginHost((), [machine], known=())
    Detection(host, machine.home, [SPEC], machine.situation)._alert(anomaly(), {})
    assert len(machine.heard) == 1
    assert caplog.messages[-1].startswith("the anomaly was not recorded: ")


def test_a_destination_may_not_take_a_detectors_name(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="another one: cmdorc-telemetry uses it itself"):
        machine.configure("[telemetry.to.detector-x]\nplugin = 'file'\n")


# -- applications other than cmdorc ----------------------------------------------------------------------------------

SHOP = """
[meta]
name = "shop.web"
[[events]]
name = "paid"
semantics = { what = "Somebody paid" }
properties = { amount = { type = "count" } }
"""
OWN = """
[[events]]
name = "anomaly_detected"
semantics = { what = "A statistic left its bounds" }
[events.properties]
metric = { type = "enum", members = ["count"] }
sample_count = { type = "count" }
"""


def shop(folder: Path, text: str) -> Home:
    """The home of an application with these specs, whose user records and shares."""
    (folder / "shop.telemetry.toml").write_text(text)
    home = Home(folder / "home", Application("shop", "1.2", specs=(folder / "shop.telemetry.toml",)))
    home.root.mkdir()
    save_decision(home, {"shop.web": new_grant(load_spec(folder / "shop.telemetry.toml"), TelemetryLevel.STANDARD,
                                               GRANTED)}, {})  # fmt: skip
    return home


def alerted(home: Home, payload: Mapping[str, Any]) -> list[bytes]:
    """The records that an alert leaves in the journals of that home."""
    application = home.application

    def now() -> Situation:
        return Situation.read({application.home_variable: str(home.root)}, application=application)

    registry = TelemetryRegistry.of(application.specs, application.name)
    Detection(PluginHost((), known=()), home, registry, now)._alert(anomaly(), payload)
    return [record for path in segments(home.journal) for record in parse(path.name, path.read_bytes()).records]


def test_an_application_that_declares_no_such_event_hears_of_an_alert_and_records_none(tmp_path: Path) -> None:
    assert alerted(shop(tmp_path, SHOP), {}) == []


def test_an_application_that_declares_the_event_has_it_under_its_own_name_and_spec(tmp_path: Path) -> None:
    (record,) = alerted(shop(tmp_path, SHOP + OWN), {"cmdorc_version": "0.12.0", "app_version": "1.1"})
    assert b"shop.web@1" in record
    body = json.loads(record)[-1]
    assert body.items() >= {"event": "anomaly_detected", "spec": "shop.web@1", "app_name": "shop",
                            "app_version": "1.1", "metric": "count", "sample_count": 5}.items()  # fmt: skip
    assert not body.keys() & {"cmdorc_version", "kind", "ratio", "message"}


def test_an_event_that_requires_more_than_is_known_is_not_recorded(tmp_path: Path) -> None:
    text = OWN.replace("[events.properties]", '[events.properties]\nwhy = { type = "count", required = true }')
    assert alerted(shop(tmp_path, SHOP + text), {}) == []


def test_who_did_not_agree_to_that_spec_has_no_such_event(tmp_path: Path) -> None:
    home = shop(tmp_path, SHOP + OWN)
    save_decision(home, {"shop.web": new_grant(load_spec(tmp_path / "shop.telemetry.toml"), TelemetryLevel.OFF,
                                               GRANTED)._replace(record=False)}, {})  # fmt: skip
    assert alerted(home, {}) == []
