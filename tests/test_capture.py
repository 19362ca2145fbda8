"""What becomes of a lifecycle record, or of somebody's properties: checked fields, and nothing else."""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import os
import platform
import re
import sys
import uuid
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import cmdorc
import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.capture import (
    Capture,
    EventIds,
    Hasher,
    SessionStatistics,
    completed_properties,
    cwd_prefix,
    machine_fields,
    startup_properties,
    trigger_properties,
)
from cmdorc_telemetry.capture.payloads import TelemetryPayloadBuilder
from cmdorc_telemetry.config import TelemetryLevel
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.lifecycle import CompletedRun, Session, Trigger
from cmdorc_telemetry.results import Violation
from cmdorc_telemetry.spec import CORE, Event, TelemetrySpec, load_spec

SPEC = load_spec(CORE)
INSTALL = str(uuid.UUID(int=7))
BASE = {"cmdorc_version": "0.12.0", "python_version": "3.11", "os": "linux", "arch": "x86_64",
        "anonymous_install_id": INSTALL}  # fmt: skip
SALT = b"a salt of this machine"
NOW = 1_795_316_400.9  # 2026-11-22T03:00:00.9Z
STAMP = "2026-11-22T03:00:00Z"

SESSION = Session(
    id="s", started_at=1.0, uptime=61.5, command_count=3, has_triggers=True, trigger_count=2,
    trigger_patterns=("file_saved", "command_success:*"), executor_type="local_subprocess",
    retrigger_policies=("ignore", "cancel_and_restart", "ignore"), cmdorc_version="0.12.0", config_name="my.toml",
)  # fmt: skip
RUN = CompletedRun(
    run_id="r-1", command_name="Tests", state="failed", duration=1.2346, manual=False, trigger_event="file_saved",
    trigger_chain=("a", "file_saved"), concurrent_runs=4, timed_out=True, arg_count=2, cwd="/srv/project/deep/er",
    session_id="s",
)  # fmt: skip
FIRED = Trigger(name="file_saved", outcome="cycle", chain_depth=5, runs_started=0, session_id="s")


def digest(text: str) -> str:
    """The hash as design and documentation promise it, made without the code under test."""
    return hmac.new(SALT, text.encode(), hashlib.sha256).hexdigest()[:12]


STARTED = {
    "minimal": {"executor_type": "local_subprocess", "command_count": 3, "has_triggers": True},
    "standard": {"trigger_count": 2, "has_wildcard_triggers": True, "most_common_on_retrigger_policy": "ignore"},
    "debug": {"hashed_trigger_patterns": [digest("file_saved"), digest("command_success:*")]},
    "private": {"config_name": "my.toml"},
}  # fmt: skip
COMPLETED = {
    "minimal": {"duration_ms": 1235, "state": "failed", "final": True, "manual": False},
    "standard": {"chain_depth": 2, "concurrent_runs": 4, "timed_out": True},
    "debug": {"hashed_command_name": digest("Tests"), "command_arg_count": 2,
              "hashed_cwd_prefix": digest("srv/project")},
    "private": {"command_name": "Tests", "trigger_event": "file_saved", "run_id": "r-1"},
}  # fmt: skip
TRIGGERED = {
    "minimal": {},
    "standard": {"trigger_count": 1, "distinct_triggers": 1, "runs_started": 0, "cycles": 1, "max_chain_depth": 5},
    "debug": {"hashed_trigger_patterns": [digest("file_saved")]},
    "private": {"trigger_names": ["file_saved"]},
}  # fmt: skip
STOPPED = {
    "minimal": {"uptime_s": "60-600", "run_count": 3, "failed_count": 1, "cancelled_count": 1},
    "standard": {"avg_concurrent_runs": 2.33, "max_concurrent_runs": 4, "trigger_count": 2},
    "debug": {},
    "private": {},
}  # fmt: skip
LEVELS = ("minimal", "standard", "debug", "private")


def up_to(table: Mapping[str, Mapping[str, Any]], level: str) -> dict[str, Any]:
    names = LEVELS[: LEVELS.index(level) + 1]
    return {key: value for name in names for key, value in table[name].items()}


ENOUGH = {"duration_ms": 1235, "state": "failed", "final": True, "manual": False}
"""Without these a run is none."""


class Violations(list[tuple[str, str, str]]):
    """A witness that remembers what was wrong."""

    def violated(self, violations: tuple[Violation, ...]) -> None:
        self.extend((each.event, each.property, each.reason) for each in violations)

    def accepted(self, event: Event, own: bytes) -> None:
        pass


@pytest.fixture
def violations() -> Violations:
    return Violations()


@pytest.fixture
def capture() -> Capture:
    return Capture([SPEC], BASE)


@pytest.fixture
def at_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall", lambda: NOW)


def own(record: bytes | None) -> dict[str, Any]:
    """The fields of a record that its event declares, after a look at all others."""
    assert record is not None
    kind, spec, event, version, at, body = json.loads(record)
    assert (kind, spec, version, at) == ("event", SPEC.ref, 1, int(NOW))
    assert uuid.UUID(body.pop("event_id")).version == 7
    expected = {"event": event, **BASE, "spec": SPEC.ref, "timestamp": STAMP}
    assert {name: body.pop(name) for name in expected} == expected
    return body


# Records of the journal


def stopped() -> dict[str, Any]:
    statistics = SessionStatistics()
    for run in (RUN, CompletedRun(run_id="2", command_name="x", state="success", concurrent_runs=2),
                CompletedRun(run_id="3", command_name="x", state="running", final=False)):  # fmt: skip
        statistics.add_run(run)
    statistics.triggers = 2
    return statistics.properties(SESSION)


@pytest.mark.usefixtures("at_three")
def test_a_record_has_every_declared_field_private_ones_included(capture: Capture, violations: Violations) -> None:
    hasher = Hasher(SALT)

    def kept(event: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return own(capture.record(event, properties, witness=violations))

    assert kept("orchestrator_started", startup_properties(SESSION, hasher)) == up_to(STARTED, "private")
    assert kept("command_completed", completed_properties(RUN, hasher)) == up_to(COMPLETED, "private")
    assert kept("trigger_fired", trigger_properties(FIRED, hasher)) == up_to(TRIGGERED, "private")
    assert kept("orchestrator_stopped", stopped()) == up_to(STOPPED, "private")
    anomaly = {"metric": "p95", "kind": "above", "ratio": 2.5, "sample_count": 20, "command_name": "Tests",
               "hashed_command_name": digest("Tests"), "message": "slow"}  # fmt: skip
    assert kept("anomaly_detected", anomaly) == {**anomaly, "ratio": "2-4"}
    assert violations == []


@pytest.mark.usefixtures("at_three")
def test_without_a_hasher_nothing_is_hashed(capture: Capture) -> None:
    hashed = {"hashed_trigger_patterns", "hashed_command_name", "hashed_cwd_prefix", "command_arg_count"}
    for event, properties, table in (
        ("orchestrator_started", startup_properties(SESSION, None), STARTED),
        ("command_completed", completed_properties(RUN, None), COMPLETED),
        ("trigger_fired", trigger_properties(FIRED, None), TRIGGERED),
    ):
        expected = {key: value for key, value in up_to(table, "private").items() if key not in hashed}
        assert own(capture.record(event, properties)) == expected


@pytest.mark.usefixtures("at_three")
def test_what_a_session_or_run_does_not_have_is_left_out(capture: Capture) -> None:
    session = Session(id="s", started_at=1.0)
    assert own(capture.record("orchestrator_started", startup_properties(session, Hasher(SALT)))) == {
        "executor_type": "custom", "command_count": 0, "has_triggers": False, "trigger_count": 0,
        "has_wildcard_triggers": False, "hashed_trigger_patterns": [],
    }  # fmt: skip
    run = CompletedRun(run_id="r", command_name="x", state="success")
    found = own(capture.record("command_completed", completed_properties(run, Hasher(SALT))))
    assert not {"trigger_event", "hashed_cwd_prefix"} & found.keys()
    assert own(capture.record("orchestrator_stopped", SessionStatistics().properties(session))) == {
        "uptime_s": "<1", "run_count": 0, "failed_count": 0, "cancelled_count": 0, "avg_concurrent_runs": 0.0,
        "max_concurrent_runs": 0, "trigger_count": 0,
    }  # fmt: skip


def test_an_abandoned_run_counts_as_cancelled() -> None:
    run = CompletedRun(run_id="r", command_name="x", state="running", final=False)
    properties = completed_properties(run, None)
    assert (properties["state"], properties["final"]) == ("cancelled", False)


@pytest.mark.usefixtures("at_three")
def test_a_trigger_is_written_apart_to_be_folded(capture: Capture) -> None:
    for hasher, hashed in ((None, {}), (Hasher(SALT), {"hash": digest("file_saved")})):
        kind, spec, event, version, at, body = json.loads(capture.trigger_record(FIRED, hasher))
        assert (kind, spec, event, version, at) == ("trigger", SPEC.ref, "trigger_fired", 1, int(NOW))
        assert body["trigger"] == {
            "session_id": "s", "name": "file_saved", "outcome": "cycle", "chain_depth": 5, "runs_started": 0, **hashed,
        }  # fmt: skip
        assert {name: body[name] for name in BASE} == BASE


def test_time_is_written_in_whole_seconds_and_moves_on(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for now in (NOW, NOW + 0.05, NOW + 0.2, NOW - 5):
        monkeypatch.setattr(clock, "wall", lambda now=now: now)
        _, _, _, _, at, body = json.loads(capture.record("command_completed", ENOUGH) or b"")
        seen.append((at - int(NOW), body["timestamp"][-9:]))
        assert int(body["event_id"].replace("-", "")[:12], 16) == at * 1000
    assert seen == [(0, "03:00:00Z"), (0, "03:00:00Z"), (1, "03:00:01Z"), (-5, "02:59:55Z")]


def test_an_event_that_no_spec_declares_is_a_key_error(capture: Capture) -> None:
    assert "command_completed" in capture
    assert "invented" not in capture
    with pytest.raises(KeyError):
        capture.record("invented", {})


# What is wrong


@pytest.mark.usefixtures("at_three")
def test_what_is_invalid_or_undeclared_is_left_out_and_reported(capture: Capture, violations: Violations) -> None:
    properties = {**ENOUGH, "state": "exploded", "timed_out": "yes", "chain_depth": -1, "invented": 5}
    assert own(capture.record("command_completed", properties, witness=violations)) == {**ENOUGH, "state": "other"}
    assert sorted(violations) == [
        ("command_completed", "chain_depth", "invalid"),
        ("command_completed", "invented", "undeclared"),
        ("command_completed", "timed_out", "invalid"),
    ]


@pytest.mark.usefixtures("at_three")
def test_an_undeclared_field_alone_is_reported(capture: Capture, violations: Violations) -> None:
    assert own(capture.record("command_completed", {**ENOUGH, "event_id": "x"}, witness=violations)) == ENOUGH
    assert violations == [("command_completed", "event_id", "undeclared")]


@pytest.mark.usefixtures("at_three")
def test_nobody_needs_to_listen_to_violations() -> None:
    record = Capture([SPEC], BASE).record("command_completed", {**ENOUGH, "chain_depth": "long", "invented": 5})
    assert own(record) == ENOUGH


class Hostile(Mapping[str, Any]):
    """A value that breaks whoever reads it."""

    def __getitem__(self, name: str) -> Any:
        raise RuntimeError("hostile")

    __iter__ = __len__ = __getitem__  # type: ignore[assignment]


@pytest.mark.usefixtures("at_three")
@pytest.mark.parametrize("value", [Hostile(), object(), "\ud800", b"x", float("nan"), 10**400, [[]], {1: 2}, {"a"}])
@pytest.mark.parametrize("name", ["command_name", "duration_ms", "state", "chain_depth"])
def test_whatever_a_value_is_the_rest_is_recorded_if_it_is_enough(
    capture: Capture, violations: Violations, name: str, value: Any
) -> None:
    record = capture.record("command_completed", {**ENOUGH, name: value}, witness=violations)
    if name == "state" and value == "\ud800":  # an unknown member
        assert own(record) == {**ENOUGH, "state": "other"}
        return
    assert violations == [("command_completed", name, "invalid")]
    if name in ENOUGH:
        assert record is None
    else:
        assert own(record) == ENOUGH


@pytest.mark.usefixtures("at_three")
def test_half_a_surrogate_pair_becomes_a_question_mark(capture: Capture, violations: Violations) -> None:
    run = CompletedRun(run_id="r\udc80", command_name="n\ud800", state="success", trigger_event="t\udfff")
    found = own(capture.record("command_completed", completed_properties(run, Hasher(SALT)), witness=violations))
    assert (found["command_name"], found["run_id"], found["trigger_event"]) == ("n?", "r?", "t?")
    assert re.fullmatch("[0-9a-f]{12}", found["hashed_command_name"])
    fired = Trigger(name="t\ud800", outcome="ran")
    assert json.loads(capture.trigger_record(fired, None))[5]["trigger"]["name"] == "t?"
    assert trigger_properties(fired, None)["trigger_names"] == ["t?"]
    assert violations == []


@pytest.mark.usefixtures("at_three")
def test_long_names_are_cut_and_hashed_whole(capture: Capture, violations: Violations) -> None:
    name = "n" * 300
    run = CompletedRun(run_id=name, command_name=name, state="success", trigger_event=name)
    found = own(capture.record("command_completed", completed_properties(run, Hasher(SALT)), witness=violations))
    assert [len(found[key]) for key in ("command_name", "trigger_event", "run_id")] == [200, 200, 64]
    assert found["hashed_command_name"] == digest(name)
    session = Session(id="s", started_at=1.0, config_name=name, trigger_patterns=("p",) * 60)
    started = own(capture.record("orchestrator_started", startup_properties(session, Hasher(SALT))))
    assert len(started["config_name"]) == 200
    assert len(started["hashed_trigger_patterns"]) == 50
    trigger = json.loads(capture.trigger_record(Trigger(name=name, outcome="ran"), None))[5]["trigger"]
    assert len(trigger["name"]) == 200
    assert violations == []


@pytest.mark.usefixtures("at_three")
def test_a_base_field_that_is_uncommon_or_wrong_names_nobody() -> None:
    capture = Capture([SPEC], {**BASE, "os": "templeos", "cmdorc_version": "my branch", "python_version": ""})
    body = json.loads(capture.record("command_completed", ENOUGH) or b"")[5]
    assert body["os"] == "other"
    assert not {"cmdorc_version", "python_version"} & body.keys()
    assert body["arch"] == "x86_64"


@pytest.mark.usefixtures("at_three")
def test_events_of_several_specs_say_which_and_their_version() -> None:
    table = {"meta": {"name": "app", "version": 2}, "events": [
        {"name": "clicked", "version": 3, "semantics": {"what": "A click"}, "properties": {"count": {"type": "count"}}},
    ]}  # fmt: skip
    capture = Capture([SPEC, decode(table, TelemetrySpec, "app.toml")], {"app_name": "app"})
    kind, spec, event, version, _, body = json.loads(capture.record("clicked", {"count": 5}) or b"")
    assert (kind, spec, event, version, body["spec"]) == ("event", "app@2", "clicked", 3, "app@2")
    assert (body["app_name"], body["count"]) == ("app", 5)
    assert "command_completed" in capture


# Ids, hashes, machines


def ids_of(capture: Capture, count: int) -> list[str]:
    return [json.loads(capture.record("command_completed", ENOUGH) or b"")[5]["event_id"] for _ in range(count)]


def test_event_ids_are_uuid7_of_the_second_unique_and_fresh(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(clock, "wall", lambda: 1_795_316_400.9)
    ids = ids_of(capture, 2000)
    assert len(set(ids)) == 2000
    for each in ids:
        parsed = uuid.UUID(each)
        assert str(parsed) == each
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == 1_795_316_400_000
    for place in set(range(36)) - {*range(15), 18, 19, 23}:  # after the time, and but for version and dashes
        assert len({each[place] for each in ids}) == 16, "every digit is drawn anew"
    assert {each[19] for each in ids} == set("89ab")


def test_threads_never_get_the_same_event_id() -> None:
    ids = EventIds()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: [ids.tail() for _ in range(3000)], range(8)))
    finally:
        sys.setswitchinterval(before)
    assert len({tail for each in found for tail in each}) == 8 * 3000


def test_a_forked_child_never_gets_an_event_id_of_its_parent() -> None:
    ids = EventIds()
    ids.tail()  # from now on there is a block
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, b"\n".join(ids.tail() for _ in range(50)))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        theirs = set(file.read().split(b"\n"))
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert not theirs & {ids.tail() for _ in range(200)}


def test_event_ids_leave_nothing_behind_for_later_forks() -> None:
    ids = EventIds()
    reference = weakref.ref(ids)
    del ids
    assert reference() is None
    if (child := os.fork()) == 0:
        os._exit(0)  # what was registered for it does no harm
    assert os.waitpid(child, 0)[1] == 0


def test_a_hash_is_hmac_sha256_with_the_salt() -> None:
    hasher = Hasher(SALT)
    for text in ("", "Tests", "ünï", "x" * 5000, "Tests"):
        assert hasher(text) == digest(text)
    assert Hasher(b"another")("Tests") != digest("Tests")
    assert hasher("\ud800") != hasher("?")


def test_a_hasher_does_not_grow_for_ever() -> None:
    hasher = Hasher(SALT)
    for number in range(2500):
        assert hasher(str(number)) == digest(str(number))
    assert len(hasher._known) <= 1002
    assert hasher("0") == digest("0")


@pytest.mark.parametrize(
    ("cwd", "prefix"),
    [
        ("/home/me/work/project/src", "work/project"),
        ("/home/me/work", "work"),
        ("/home/me", ""),
        ("/home/mean/work/x", "home/mean"),
        ("/srv/project/deep", "srv/project"),
        ("/", ""),
        ("relative/path/of", "relative/path"),
    ],
)
def test_a_working_directory_is_cut_below_home_or_the_root(cwd: str, prefix: str) -> None:
    assert cwd_prefix(cwd, "/home/me") == prefix


def test_the_home_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/me")
    assert cwd_prefix("/people/me/a/b/c") == "a/b"
    run = CompletedRun(run_id="r", command_name="x", state="success", cwd="/people/me/a/b/c")
    assert completed_properties(run, Hasher(SALT))["hashed_cwd_prefix"] == digest("a/b")


def test_this_machine_is_described_as_the_spec_has_it() -> None:
    fields = machine_fields()
    assert fields["python_version"] == ".".join(platform.python_version_tuple()[:2])
    assert fields["os"] == platform.system().lower()
    body = json.loads(Capture([SPEC], fields).record("command_completed", ENOUGH) or b"")[5]
    assert {name: body[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("name", "os_name", "machine", "arch"),
    [
        ("win32", "windows", "AMD64", "x86_64"),
        ("linux", "linux", "aarch64", "arm64"),
        ("freebsd14", "freebsd", "i386", "i686"),
        ("darwin", "darwin", "arm64", "arm64"),
        ("linux", "linux", "riscv64", "riscv64"),
    ],
)
def test_machines_of_one_kind_have_one_name(
    monkeypatch: pytest.MonkeyPatch, name: str, os_name: str, machine: str, arch: str
) -> None:
    monkeypatch.setattr(sys, "platform", name)
    if name == "win32":
        monkeypatch.delattr(os, "uname")
        monkeypatch.setenv("PROCESSOR_ARCHITECTURE", machine)
    else:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert (machine_fields()["os"], machine_fields()["arch"]) == (os_name, arch)


# The payload builder


def builder(level: TelemetryLevel) -> TelemetryPayloadBuilder:
    return TelemetryPayloadBuilder(SPEC, level, SALT, BASE)


def payload(event: str, level: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"event": event, **BASE, "timestamp": STAMP, "spec": SPEC.ref, "level": level, **up_to(table, level)}


ENDED = (
    RUN,
    CompletedRun(run_id="2", command_name="x", state="success", concurrent_runs=2),
    CompletedRun(run_id="3", command_name="x", state="running", final=False),
)


@pytest.mark.parametrize("level", ["minimal", "standard", "debug"])
def test_payloads_hold_what_their_level_shares(level: str) -> None:
    build = builder(TelemetryLevel(level))
    assert build.build_startup_payload(SESSION, now=NOW) == payload("orchestrator_started", level, STARTED)
    assert build.build_command_completed_payload(RUN, now=NOW) == payload("command_completed", level, COMPLETED)
    ended = {**STOPPED, "standard": {**STOPPED["standard"], "trigger_count": 0}}
    assert build.build_shutdown_payload(SESSION, ENDED, now=NOW) == payload("orchestrator_stopped", level, ended)
    fired = {} if level == "minimal" else payload("trigger_fired", level, TRIGGERED)
    assert build.build_trigger_payload(FIRED, now=NOW) == fired
    assert build.build_shutdown_payload(SESSION, now=NOW)["run_count"] == 0


def test_the_fields_of_the_seeds_are_there() -> None:
    found = builder(TelemetryLevel.DEBUG).build_startup_payload(SESSION, now=NOW)
    assert found.keys() >= {"event", "cmdorc_version", "python_version", "os", "arch", "anonymous_install_id",
                            "timestamp", "executor_type", "command_count", "has_triggers", "trigger_count",
                            "has_wildcard_triggers", "most_common_on_retrigger_policy",
                            "hashed_trigger_patterns"}  # fmt: skip
    done = builder(TelemetryLevel.DEBUG).build_command_completed_payload(RUN, now=NOW)
    assert done.keys() >= {"hashed_command_name", "command_arg_count", "hashed_cwd_prefix"}
    stopped = builder(TelemetryLevel.STANDARD).build_shutdown_payload(SESSION, [RUN], now=NOW)
    assert "avg_concurrent_runs" in stopped


def test_payloads_of_the_same_input_are_the_same() -> None:
    build = builder(TelemetryLevel.DEBUG)
    first, second = (build.build_command_completed_payload(RUN, now=NOW) for _ in range(2))
    assert first == second
    assert first is not second


def test_off_shares_nothing() -> None:
    build = builder(TelemetryLevel.OFF)
    assert build.build_startup_payload(SESSION, now=NOW) == {}
    assert build.build_command_completed_payload(RUN, now=NOW) == {}
    assert build.build_shutdown_payload(SESSION, ENDED, now=NOW) == {}
    assert build.build_payload("invented", {}, now=NOW) == {}
    assert builder(TelemetryLevel.DEBUG).build_payload("invented", {}, now=NOW) == {}


def test_who_started_a_run_may_be_said() -> None:
    build = builder(TelemetryLevel.MINIMAL)
    assert build.build_command_completed_payload(RUN, True, now=NOW)["manual"] is True
    assert build.build_command_completed_payload(ENDED[1], False, now=NOW)["manual"] is False
    assert build.build_command_completed_payload(ENDED[1], now=NOW)["manual"] is True


def test_the_builder_hashes_as_promised() -> None:
    assert builder(TelemetryLevel.MINIMAL).hash_item("Tests") == digest("Tests")


# Results of cmdorc itself


def result(**changes: Any) -> cmdorc.RunResult:
    resolved = cmdorc.ResolvedCommand(
        command="pytest -q tests", cwd="/srv/project/deep/er", env={}, timeout_secs=5, vars={}
    )
    values = {"command_name": "Tests", "run_id": "r-1", "trigger_event": "file_saved",
              "trigger_chain": ["a", "file_saved"], "resolved_command": resolved}  # fmt: skip
    return cmdorc.RunResult(**{**values, **changes})


def test_a_result_of_cmdorc_makes_the_same_payload_as_its_record() -> None:
    run = result()
    run.mark_running()
    run.mark_failed("Command timed out after 5 seconds")
    run.duration = timedelta(seconds=1.2346)
    expected = payload("command_completed", "debug", {**COMPLETED, "standard": {
        "chain_depth": 2, "concurrent_runs": 1, "timed_out": True}})  # fmt: skip
    build = builder(TelemetryLevel.DEBUG)
    assert build.build_command_completed_payload(run, now=NOW) == expected
    assert build.build_command_completed_payload(run, True, now=NOW) == {**expected, "manual": True}


def test_a_result_that_never_ran_or_ended_is_understood() -> None:
    build = builder(TelemetryLevel.DEBUG)
    pending = build.build_command_completed_payload(
        result(trigger_event=None, trigger_chain=[], resolved_command=None), now=NOW
    )
    assert (pending["state"], pending["final"], pending["manual"]) == ("cancelled", False, True)
    assert (pending["duration_ms"], pending["chain_depth"], pending["command_arg_count"]) == (0, 0, 0)
    assert "hashed_cwd_prefix" not in pending
    broken = result()
    broken.mark_failed(RuntimeError("Command timed out after 5 seconds"))
    assert build.build_command_completed_payload(broken, now=NOW)["timed_out"] is False
    failed = result()
    failed.mark_failed("Exit code 1")
    assert build.build_command_completed_payload(failed, now=NOW)["timed_out"] is False
    done = result()
    done.mark_success()
    assert build.build_command_completed_payload(done, now=NOW)["final"] is True


class State(enum.Enum):
    DONE = "success"


@pytest.mark.parametrize("state", ["success", State.DONE])
@pytest.mark.parametrize(
    ("duration", "milliseconds"), [(timedelta(minutes=1), 60_000), (1.5, 1500), (2, 2000), (None, 0)]
)
def test_whatever_looks_like_a_result_is_taken_for_one(state: Any, duration: Any, milliseconds: int) -> None:
    run = SimpleNamespace(command_name="Tests", run_id="r", state=state, duration=duration, trigger_event=None,
                          trigger_chain=(), resolved_command=SimpleNamespace(command="", cwd=None), error=None,
                          is_finalized=True)  # fmt: skip
    found = builder(TelemetryLevel.DEBUG).build_command_completed_payload(run, now=NOW)
    assert (found["duration_ms"], found["state"], found["final"]) == (milliseconds, "success", True)
    assert found["command_arg_count"] == 0


def test_a_session_may_end_with_results_of_cmdorc() -> None:
    failed, cancelled, done, pending = (result() for _ in range(4))
    failed.mark_failed("no")
    cancelled.mark_cancelled()
    done.mark_success()
    build = builder(TelemetryLevel.MINIMAL)
    found = build.build_shutdown_payload(SESSION, [failed, cancelled, done, pending, RUN], now=NOW)
    assert (found["run_count"], found["failed_count"], found["cancelled_count"]) == (5, 2, 2)
