"""Real cmdorc runs → hooks → journal → gate → spool → this plugin → a real Prometheus, which judges the alert rules."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry_prometheus import alert_rules

pytestmark = pytest.mark.timeout(180)  # several programs, one after the other
Make = Callable[..., Any]
ROUND = {"Quick": 5, "Slow": 1, "Broken": 2}
"""How often each command runs in one round."""

PROGRAM = """
import asyncio, sys
import cmdorc
from cmdorc_telemetry import instrument

COMMANDS = {"Quick": "true", "Slow": "sleep 0.5", "Broken": "exit 3"}

async def main():
    commands = [cmdorc.CommandConfig(name=name, command=command, triggers=[f"go {name}"], max_concurrent=0)
                for name, command in COMMANDS.items()]
    orchestrator = cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=commands))
    session = instrument(orchestrator)
    async with orchestrator:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            for name in line.split():
                await orchestrator.trigger(f"go {name}")
            while orchestrator.get_all_active_handles():
                await asyncio.sleep(0.005)
            if "stay" not in sys.argv:
                await asyncio.to_thread(session.flush, 20.0)
            print("done", flush=True)
asyncio.run(main())
"""


@pytest.fixture
def agree(home: Path) -> Callable[[str], Home]:
    """Write the user's configuration of the destination, and say yes to it."""

    def say(settings: str) -> Home:
        place = Home(home)
        bounds = "[telemetry.bounds]\nbatch_seconds = 1\n"
        destination = f'[telemetry.to.mine]\nplugin = "prometheus"\n{settings}\n'
        place.config.write_text(f'[telemetry]\nplugins = ["prometheus"]\n{bounds}{destination}')
        grant = new_grant(load_spec(CORE), TelemetryLevel.STANDARD, datetime.now(timezone.utc))
        save_decision(place, {"cmdorc.core": grant}, identities(load_layer(place.config).destinations))
        return place

    return say


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Let the program run these commands, and wait until they have ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def work(rounds: int = 1) -> str:
    return " ".join(name for name, times in ROUND.items() for _ in range(times * rounds))


def telemetry(*args: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", *args], stdout=subprocess.PIPE, check=True,
                          text=True, timeout=60)  # fmt: skip
    return done.stdout


def balance(said: str) -> int:
    """What a destination acknowledged; everything, or it fails."""
    found = re.search(r"mine: recorded (\d+) = acknowledged \1 \+ pending 0 \+ dropped 0", said)
    assert found, said
    return int(found[1])


def test_a_real_prometheus_sees_real_runs_of_several_processes(
    agree: Make, port: int, processes: Make, prometheus: Any, until: Make
) -> None:
    agree(f'audience = "private"\nport = {port}')
    runs = "sum by (command_name) (cmdorc_command_completed_total)"
    prometheus.start(port)
    first = processes(PROGRAM)
    tell(first, work())
    until(lambda: prometheus.values(runs, "command_name") == ROUND)
    second = processes(PROGRAM)  # which finds a first one at work
    tell(second, work())
    until(lambda: prometheus.values(runs, "command_name") == {name: 2 * times for name, times in ROUND.items()})
    first.kill()
    first.wait()
    tell(second, work())
    until(lambda: prometheus.values(runs, "command_name") == {name: 3 * times for name, times in ROUND.items()})
    assert prometheus.values('up{job="cmdorc"}', "job") == {"cmdorc": 1}
    failed = 'cmdorc_command_completed_total{state="failed"} > 0'
    assert prometheus.values(failed, "command_name") == {"Broken": 6}
    mean = "sum by (command_name) ({0}_sum) / sum by (command_name) ({0}_count)"
    means = prometheus.values(mean.format("cmdorc_command_completed_duration_seconds"), "command_name")
    assert means["Slow"] > 0.35 > means["Quick"]
    # Prometheus takes a counter that falls for one that begins anew: through three processes, none ever fell.
    assert set(prometheus.values("resets(cmdorc_command_completed_total[5m])", "state").values()) == {0}
    assert prometheus.get("targets")["activeTargets"][0]["health"] == "up"
    second.kill()
    second.wait()
    until(lambda: prometheus.values('up{job="cmdorc"}', "job") == {"cmdorc": 0})
    third = processes(PROGRAM)
    tell(third, work())
    until(lambda: prometheus.values(runs, "command_name") == {name: 4 * times for name, times in ROUND.items()})


def test_rules_made_of_the_thresholds_fire_for_what_they_are_about(
    agree: Make, port: int, processes: Make, prometheus: Any, until: Make, promtool: Make, tmp_path: Path
) -> None:
    # The core's threshold of ten minutes is too long for a test; and so is its interval.
    text = CORE.read_text().replace("max = 600000", "max = 350").replace("minimum_sample = 20", "minimum_sample = 3")
    text = text.replace("[config]", "[config]\ncheck_interval_ms = 200")
    text = text.replace('actions = ["log"]', 'actions = ["alert"]')
    share = '\n[[events.anomaly_detection.thresholds]]\nmetric = "failure_share"\nmax = 0.5\n'
    text = text.replace("\n[events.anomaly_detection]", f"{share}\n[events.anomaly_detection]")
    spec = tmp_path / "core.toml"
    spec.write_text(text)
    made = subprocess.run(
        [sys.executable, "-m", "cmdorc_telemetry_prometheus", "rules", spec, "--window", "1m", "--for", "200ms"],
        stdout=subprocess.PIPE, check=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    assert made == alert_rules(load_spec(spec), window="1m", pending="200ms")
    agree(f'audience = "private"\nport = {port}')
    prometheus.start(port, made)
    program = processes(PROGRAM)
    tell(program, "Quick Slow Broken")
    runs = "sum by (command_name) (cmdorc_command_completed_total)"
    until(lambda: len(prometheus.values(runs, "command_name")) == 3)  # from here on growth can be seen

    def firing() -> set[tuple[str, str]]:
        alerts = prometheus.get("alerts")["alerts"]
        return {(each["labels"]["alertname"], each["labels"]["command_name"]) for each in alerts
                if each["state"] == "firing"}  # fmt: skip

    expected = {("CmdorcCommandCompletedDurationMsHigh", "Slow"), ("CmdorcCommandCompletedFailureShareHigh", "Broken")}
    for _ in range(2):
        tell(program, work(2))
    until(lambda: firing() == expected)
    (group,) = prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    alert = next(each for each in prometheus.get("alerts")["alerts"] if each["labels"]["command_name"] == "Slow")
    assert alert["labels"]["severity"] == "warning"
    assert re.fullmatch(
        r"Slow: mean of duration_ms of command_completed is \d+(\.\d+)?ms, above 0\.35",
        alert["annotations"]["summary"],
    )


def test_short_programs_fill_the_textfile(
    agree: Make, home: Path, processes: Make, series_of: Make, promtool: Make
) -> None:
    textfile = home / "cmdorc.prom"
    agree(f'audience = "private"\npath = "{textfile}"')
    for _ in range(3):
        program = processes(PROGRAM, "stay")
        tell(program, work())
        program.stdin.close()
        assert program.wait(timeout=20) == 0
    acknowledged = balance(telemetry("flush", "--timeout", "30"))
    promtool("check", "metrics", input=textfile.read_bytes())
    found = series_of(textfile.read_bytes())
    counted = {name: value for name, value in found.items() if name.startswith("cmdorc_telemetry_events_total")}
    assert sum(counted.values()) == acknowledged
    for name, state in (("Quick", "success"), ("Slow", "success"), ("Broken", "failed")):
        assert found[f'cmdorc_command_completed_total{{command_name="{name}",state="{state}"}}'] == 3 * ROUND[name]
    assert sum(value for name, value in found.items() if name.startswith("cmdorc_orchestrator_started_total{")) == 3
    assert found["cmdorc_orchestrator_stopped_run_count_sum"] == 3 * sum(ROUND.values())


def test_a_real_node_exporter_reads_the_textfile(
    agree: Make, home: Path, processes: Make, node_exporter: Make, scrape: Make, until: Make
) -> None:
    agree(f'audience = "private"\npath = "{home}/cmdorc.prom"')
    program = processes(PROGRAM)
    tell(program, work())
    exported = node_exporter(home)
    found = until(lambda: scrape(exported))
    assert found["node_textfile_scrape_error"] == 0
    for name, state in (("Quick", "success"), ("Broken", "failed")):
        assert found[f'cmdorc_command_completed_total{{command_name="{name}",state="{state}"}}'] == ROUND[name]


def test_somebody_elses_prometheus_gets_no_names(agree: Make, home: Path, processes: Make) -> None:
    textfile = home / "cmdorc.prom"
    agree(f'path = "{textfile}"')
    program = processes(PROGRAM)
    tell(program, work())
    found = textfile.read_text()
    assert f'cmdorc_command_completed_total{{state="failed"}} {ROUND["Broken"]}.0' in found
    assert not any(name in found for name in (*ROUND, "command_name", "trigger_names", "chain_id"))
    shown = telemetry("show-payload", "command_completed", "--to", "mine")
    assert shown.startswith("cmdorc_command_completed_chain_depth_bucket{")


def test_killed_programs_lose_nothing_and_double_nothing(
    agree: Make, home: Path, processes: Make, series_of: Make
) -> None:
    textfile = home / "cmdorc.prom"
    agree(f'audience = "private"\npath = "{textfile}"')
    done = 0
    for number in range(3):
        program = processes(PROGRAM, "stay")
        for _ in range(4 + number):
            tell(program, "Quick Quick Broken")
            done += 1
        program.kill()
        program.wait()
    acknowledged = balance(telemetry("flush", "--timeout", "30"))
    found = series_of(textfile.read_bytes())
    counted = {name: value for name, value in found.items() if name.startswith("cmdorc_telemetry_events_total")}
    assert sum(counted.values()) == acknowledged
    for name, state, times in (("Quick", "success", 2), ("Broken", "failed", 1)):
        assert found[f'cmdorc_command_completed_total{{command_name="{name}",state="{state}"}}'] == done * times


def test_opting_out_deletes_the_counts(
    agree: Make, home: Path, port: int, processes: Make, scrape: Make, until: Make
) -> None:
    textfile = home / "cmdorc.prom"
    agree(f'audience = "private"\npath = "{textfile}"\nport = {port}')
    program = processes(PROGRAM)
    tell(program, work())
    until(lambda: scrape(port))
    telemetry("opt-out")  # while a program serves
    assert not textfile.exists()
    assert scrape(port) == {}
    program.stdin.close()
    program.wait(timeout=20)
    assert [path for path in home.rglob("*") if path.is_file() and b"Broken" in path.read_bytes()] == []
    assert not (home / "telemetry" / "plugins").exists()


def test_serving_while_nothing_runs(agree: Make, port: int, processes: Make, scrape: Make, until: Make) -> None:
    agree(f'audience = "private"\nport = {port}')
    program = processes(PROGRAM)
    tell(program, work())
    program.stdin.close()
    program.wait(timeout=20)
    assert scrape(port) == {}
    command = [sys.executable, "-m", "cmdorc_telemetry_prometheus", "serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            name = 'cmdorc_command_completed_total{command_name="Quick",state="success"}'
            assert until(lambda: scrape(port).get(name)) == ROUND["Quick"]
            assert serving.stderr.readline() == f"http://127.0.0.1:{port}/metrics: served\n"
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as next_one:
                waits = f"http://127.0.0.1:{port}/metrics: served by another program of yours, until that ends\n"
                assert next_one.stderr.readline() == waits
                serving.send_signal(signal.SIGINT)
                assert serving.wait(timeout=20) == 0
                assert next_one.stderr.readline() == f"http://127.0.0.1:{port}/metrics: served\n"
                next_one.send_signal(signal.SIGINT)
                assert next_one.wait(timeout=20) == 0
        finally:
            serving.kill()


def test_serving_what_was_not_counted_yet(agree: Make, port: int) -> None:
    agree(f'audience = "private"\nport = {port}')
    command = [sys.executable, "-m", "cmdorc_telemetry_prometheus", "serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr.readline() == f"http://127.0.0.1:{port}/metrics: nothing was counted yet\n"
        finally:
            serving.kill()
