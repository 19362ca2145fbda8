"""The plugin as it is installed: named in the configuration and done; through kills, processes and restarts."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.detection import Kept
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry_anomaly.detector import _State

SPEC = """
[meta]
name = "shop.web"
[[events]]
name = "paid"
semantics = { what = "Somebody paid" }
[events.properties]
duration_ms = { type = "duration_ms" }
state = { type = "enum", members = ["success", "failed"] }
command_name = { type = "string", pattern = "(?s:.*)", max_length = 200, audience = "private" }
[events.anomaly_detection]
minimum_sample = 10
actions = ["log", "alert"]
thresholds = [{ metric = "p95(duration_ms)", max = 1000 }, { metric = "failure_share", max = 0.5 }]
"""
RECORD = """
import sys
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.telemetry import Telemetry

telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
count, duration, state = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number in range(count):
    assert telemetry.track("paid", {"duration_ms": duration, "state": state, "command_name": "Checkout"})
telemetry.close()
"""
SLOW = "paid Checkout: p95 of duration_ms is "


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.environ = {**os.environ, "CMDORC_HOME": str(self.home.root), "CI": ""}
        self.environ.pop("DO_NOT_TRACK", None)
        self.home.root.mkdir()
        (root / "shop.toml").write_text(SPEC)
        self.configure()

    def configure(self, settings: str = "", plugins: str = '"anomaly"') -> None:
        text = f"[telemetry]\nplugins = [{plugins}]\nspecs = [{json.dumps(str(self.root / 'shop.toml'))}]\n{settings}"
        self.home.config.write_text(text)
        grants = {spec.meta.name: new_grant(spec, TelemetryLevel.STANDARD, datetime(2026, 1, 1, tzinfo=timezone.utc))
                  for spec in (load_spec(CORE), load_spec(self.root / "shop.toml"))}  # fmt: skip
        save_decision(self.home, grants, identities(load_layer(self.home.config).destinations))

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def record(self, count: int, duration: int = 10, state: str = "success") -> None:
        process = self.start("-c", RECORD, count, duration, state)
        _, err = process.communicate(timeout=50)
        assert (process.returncode, err) == (0, "")

    def flush(self) -> list[str]:
        """The alerts that a flush logs."""
        process = self.start("-m", "cmdorc_telemetry", "flush")
        _, err = process.communicate(timeout=50)
        return [line for line in err.splitlines() if "paid Checkout" in line]

    def learnt(self) -> int:
        """How many events are in the detector's window."""
        path = self.home.plugins / "anomaly" / "learnt"
        state = msgspec.msgpack.decode(msgspec.msgpack.decode(path.read_bytes(), type=Kept).state, type=_State)
        return state.groups["shop.web@1"]["paid"].named["Checkout"].window.count()

    def ledger(self, name: str = "detector-anomaly") -> Any:
        spool = self.pipeline().open_spool()
        try:
            return spool.ledger()[name]
        finally:
            spool.close()

    def pipeline(self) -> Pipeline:
        situation = Situation.read({"CMDORC_HOME": str(self.home.root)})
        return Pipeline(situation, PluginHost(situation.user.plugins))

    def anomalies(self) -> list[dict[str, Any]]:
        """The events that tell of alerts, as far as they are imported."""
        from contextlib import closing

        from cmdorc_telemetry.files import reading

        with closing(reading(self.home.history)) as db:
            rows = db.execute("SELECT body FROM event WHERE name='anomaly_detected' ORDER BY id").fetchall()
        return [json.loads(body) for (body,) in rows]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_named_in_the_configuration_and_done(machine: Machine) -> None:
    machine.record(20)
    assert machine.flush() == []
    machine.record(5, 3000)
    (alert,) = machine.flush()
    assert SLOW + "3" in alert or SLOW + "2.9" in alert
    machine.record(5, 3000)
    assert machine.flush() == [], "it is the same episode, in another process"
    assert machine.learnt() == 30
    (anomaly,) = machine.anomalies()
    assert anomaly.items() >= {
        "event": "anomaly_detected", "spec": "cmdorc.core@1", "metric": "p95", "kind": "above", "ratio": "2-4",
        "sample_count": 25, "command_name": "Checkout", "cmdorc_version": "0.12.0",
    }.items()  # fmt: skip


def test_installed_and_not_named_it_does_nothing(machine: Machine) -> None:
    machine.configure(plugins="")
    machine.record(50, 3000)
    assert machine.flush() == []
    assert not machine.home.plugins.exists()


def test_settings_are_checked_and_events_wait(machine: Machine) -> None:
    machine.configure("[telemetry.settings.anomaly]\nwindow_minute = 3\n")
    machine.record(20, 3000)
    assert machine.flush() == []
    ledger = machine.ledger()
    assert ledger.pending == 20
    assert ledger.last_error == (
        f"{machine.home.config}: telemetry.settings.anomaly.window_minute: unknown key; expected one of "
        "window_minutes, group_by, groups, margin. Did you mean 'window_minutes'?"
    )


def test_another_hook_hears_of_it(machine: Machine) -> None:
    """In this process, so that the plugin that listens can be an object."""
    from cmdorc_telemetry import hookimpl
    from cmdorc_telemetry.types import Anomaly

    heard: list[Anomaly] = []

    class Bell:
        @hookimpl
        def telemetry_anomaly(self, anomaly: Anomaly) -> None:
            heard.append(anomaly)

    machine.record(10, 3000, "failed")
    situation = Situation.read({"CMDORC_HOME": str(machine.home.root)})
    delivery = Pipeline(situation, PluginHost(situation.user.plugins, [Bell()])).delivery()
    assert delivery.flush(20)
    delivery.stop()
    assert {(each.metric, each.kind, each.group, each.sample_count) for each in heard} == {
        ("p95(duration_ms)", "above", "Checkout", 10), ("failure_share", "above", "Checkout", 10),
    }  # fmt: skip
    assert len(heard) == 2


def test_killed_again_and_again_each_event_is_learnt_once(machine: Machine) -> None:
    total, chance = 0, random.Random(5)
    for _ in range(8):
        machine.record(400, 3000)
        total += 400
        process = machine.start("-m", "cmdorc_telemetry", "flush")
        time.sleep(chance.uniform(0.2, 0.9))  # not to wait for anything: the moment of the kill is the test
        process.kill()
        process.communicate(timeout=50)
    deadline = time.monotonic() + 40
    while True:
        machine.flush()
        ledger = machine.ledger()
        if ledger.pending == 0 and ledger.recorded >= total:
            break
        assert time.monotonic() < deadline, ledger
    assert machine.learnt() == total
    machine.flush()
    assert len(machine.anomalies()) >= 1
    assert ledger.recorded == ledger.acknowledged + ledger.pending


def test_processes_at_once_feed_one_detector(machine: Machine) -> None:
    started = [machine.start("-c", RECORD + "\nassert telemetry.flush(20) or True\n", 100, 3000, "success")
               for _ in range(4)]  # fmt: skip
    for process in started:
        _, err = process.communicate(timeout=50)
        assert process.returncode == 0, err
    machine.flush()
    assert machine.learnt() == 400
    machine.flush()
    assert [each["metric"] for each in machine.anomalies()] == ["p95"]


def test_opt_out_takes_what_was_learnt(machine: Machine) -> None:
    machine.record(20)
    machine.flush()
    assert machine.learnt() == 20
    process = machine.start("-m", "cmdorc_telemetry", "opt-out", "--local-only")
    process.communicate(timeout=50)
    assert process.returncode == 0
    assert not machine.home.plugins.exists()


def test_status_shows_it_and_asks_it_for_nothing_else(machine: Machine) -> None:
    machine.record(20)
    machine.flush()
    process = machine.start("-m", "cmdorc_telemetry", "status")
    out, _ = process.communicate(timeout=50)
    assert "injected" not in out
    assert "plugin-missing" not in out
