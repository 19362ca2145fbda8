"""One process: what is counted, what is known again, what is written, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

import cmdorc_telemetry.tally.counts as counts_module
import cmdorc_telemetry_prometheus
import cmdorc_telemetry_prometheus.endpoint as endpoint_module
import cmdorc_telemetry_prometheus.reporter as reporter_module
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, RetryLater
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.spec import CORE, load_spec, parse_toml
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult, Setup
from cmdorc_telemetry_prometheus import PrometheusReporter
from cmdorc_telemetry_prometheus.exposition import StateCollector, text
from cmdorc_telemetry_prometheus.plugin import Prometheus
from cmdorc_telemetry_prometheus.textfile import Textfile

Make = Callable[..., Any]
COMMANDS = "cmdorc_command_completed_total"


@pytest.fixture
def textfile(home: Path) -> Path:
    return home / "cmdorc.prom"


@pytest.fixture
def reporter(textfile: Path) -> PrometheusReporter:
    return another(textfile)


def another(path: Path, **settings: Any) -> PrometheusReporter:
    return PrometheusReporter(PrometheusReporter.Settings(path=str(path), **settings))


def send(to: PrometheusReporter, what: Batch) -> list[str]:
    result: BatchResult = asyncio.run(to.report_batch(what))
    return [each.status for each in result.results or ()]


def run(made: Make, name: str | None = "Build", state: str = "success", ms: int = 200, **more: Any) -> BatchEvent:
    named = {} if name is None else {"command_name": name}
    event: BatchEvent = made(state=state, duration_ms=ms, **named, **more)
    return event


def test_what_is_counted(
    reporter: PrometheusReporter, made: Make, batch: Make, series_of: Make, textfile: Path
) -> None:
    more = {"manual": True, "timed_out": False, "chain_depth": 3, "hashed_command_name": "0123456789ab", "run_id": "r"}
    stopped = made("orchestrator_stopped", uptime_s="10-60", run_count=4, avg_concurrent_runs=1.5)
    events = [run(made, **more), run(made, "Test", "failed", 4000, **more), run(made, ms=300, **more), stopped]
    assert send(reporter, batch(*events, drops={"expired": 2})) == ["accepted"] * 4
    found = series_of(textfile.read_bytes())
    build, test = 'command_name="Build"', 'command_name="Test"'
    expected = {
        f'{COMMANDS}{{{build},state="success"}}': 2,
        f'{COMMANDS}{{{build},state="failed"}}': 0,  # so that the first one is seen as growth
        f'{COMMANDS}{{{test},state="failed"}}': 1,
        f'cmdorc_command_completed_manual_total{{{build},state="success"}}': 2,
        f'cmdorc_command_completed_timed_out_total{{{build},state="success"}}': 0,
        f'cmdorc_command_completed_chain_depth_sum{{{build},state="success"}}': 6,
        f'cmdorc_command_completed_duration_seconds_bucket{{{build},le="0.1",state="success"}}': 0,
        f'cmdorc_command_completed_duration_seconds_bucket{{{build},le="0.25",state="success"}}': 1,
        f'cmdorc_command_completed_duration_seconds_bucket{{{build},le="0.5",state="success"}}': 2,
        f'cmdorc_command_completed_duration_seconds_bucket{{{build},le="+Inf",state="success"}}': 2,
        f'cmdorc_command_completed_duration_seconds_count{{{build},state="success"}}': 2,
        f'cmdorc_command_completed_duration_seconds_sum{{{build},state="success"}}': 0.5,
        f'cmdorc_command_completed_last_timestamp_seconds{{{build},state="success"}}': 1767323045,
        "cmdorc_orchestrator_stopped_total": 1,
        'cmdorc_orchestrator_stopped_uptime_seconds_bucket{le="10.0"}': 0,
        'cmdorc_orchestrator_stopped_uptime_seconds_bucket{le="60.0"}': 1,
        'cmdorc_orchestrator_stopped_uptime_seconds_bucket{le="+Inf"}': 1,
        "cmdorc_orchestrator_stopped_avg_concurrent_runs": 1.5,
        'cmdorc_telemetry_dropped_total{reason="expired"}': 2,
        'cmdorc_telemetry_events_total{event="command_completed",spec="cmdorc.core@1"}': 3,
        'cmdorc_telemetry_info{arch="x86_64",cmdorc_version="0.12.0",os="linux",python_version="3.12"}': 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not found.keys() & {f"cmdorc_orchestrator_stopped_uptime_seconds_{part}" for part in ("sum", "count")}
    assert not any("0123456789ab" in name or "run_id" in name for name in found)


def test_what_recorded_the_latest_event_is_one_series(
    reporter: PrometheusReporter, made: Make, batch: Make, series_of: Make, textfile: Path
) -> None:
    for version in ("0.12.0", "0.13.0"):
        send(reporter, batch(made("unheard_of", cmdorc_version="0.1.0"), run(made, cmdorc_version=version)))
        found = [name for name in series_of(textfile.read_bytes()) if name.startswith("cmdorc_telemetry_info")]
        assert found == [
            f'cmdorc_telemetry_info{{arch="x86_64",cmdorc_version="{version}",os="linux",python_version="3.12"}}'
        ]


def test_what_was_lost_is_told_also_with_what_comes_again(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    event = run(made)
    send(reporter, batch(event, drops={"expired": 2}))
    assert send(reporter, batch(event, drops={"expired": 3, "disk-full": 1})) == ["duplicate"]
    assert 'cmdorc_telemetry_dropped_total{reason="expired"} 3.0' in textfile.read_text()
    assert 'cmdorc_telemetry_dropped_total{reason="disk-full"} 1.0' in textfile.read_text()


def test_what_was_lost_adds_up_over_epochs(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    """Each spool counts its losses anew: what is told never falls, and misses none."""
    told = []
    for epoch, expired in (("a", 5), ("a", 6), ("b", 2), ("b", 7)):
        send(reporter, batch(run(made), epoch=epoch, drops={"expired": expired}))
        (line,) = [
            line for line in textfile.read_text().splitlines() if line.startswith("cmdorc_telemetry_dropped_total")
        ]
        told.append(float(line.rsplit(" ", 1)[1]))
    assert told == [5, 6, 8, 13]


@pytest.mark.parametrize(("enums", "series"), [(3, 27), (4, 1)])
def test_so_many_series_are_begun_at_zero_and_no_more(
    textfile: Path, made: Make, batch: Make, series_of: Make, enums: int, series: int
) -> None:
    declared = "".join(f'e{number} = {{ type = "enum", members = ["a", "b", "c"] }}\n' for number in range(enums))
    head = '[meta]\nname = "shop"\n[[events]]\nname = "sold"\nsemantics = { what = "Sold" }\n[events.properties]\n'
    reporter = PrometheusReporter(PrometheusReporter.Settings(path=str(textfile)),
                                  specs=[parse_toml(head + declared, "shop.toml")])  # fmt: skip
    send(reporter, batch(made("sold", spec="shop@1", **{f"e{number}": "a" for number in range(enums)})))
    found = {
        name: value for name, value in series_of(textfile.read_bytes()).items() if name.startswith("shop_sold_total")
    }
    assert len(found) == series
    assert sum(found.values()) == 1


def test_what_comes_again_is_known_also_by_another_process(textfile: Path, made: Make, batch: Make) -> None:
    events = [run(made) for _ in range(3)]
    assert send(another(textfile), batch(*events[:2])) == ["accepted", "accepted"]
    before = textfile.read_bytes()
    assert send(another(textfile), batch(*events[:2])) == ["duplicate", "duplicate"]
    assert textfile.read_bytes() == before
    assert send(another(textfile), batch(*events, events[2])) == ["duplicate", "duplicate", "accepted", "duplicate"]
    assert f'{COMMANDS}{{command_name="Build",state="success"}} 3.0' in textfile.read_text()


def test_an_event_without_an_id_counts_each_time(reporter: PrometheusReporter, textfile: Path) -> None:
    body = {"spec": "cmdorc.core@1", "state": "success", "timestamp": "2026-01-02T03:04:05Z"}
    for _ in range(2):
        asyncio.run(reporter.report("command_completed", body))
    assert f'{COMMANDS}{{state="success"}} 2.0' in textfile.read_text()


def test_ids_are_remembered_for_long_and_not_for_ever(
    reporter: PrometheusReporter, made: Make, batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "KEPT_IDS", 40)
    monkeypatch.setattr(counts_module, "_TIDY_EVERY", 10)
    events = [run(made) for _ in range(100)]
    for start in range(0, 100, 7):
        send(reporter, batch(*events[start : start + 7]))
        recent = events[max(0, start - 33) : start + 7]
        assert set(send(reporter, batch(*recent))) == {"duplicate"}
    with sqlite3.connect(reporter.state.path) as db:
        assert 40 <= db.execute("SELECT count(*) FROM counted").fetchone()[0] <= 60
    db.close()


def test_a_batch_counts_whole_or_not_at_all(reporter: PrometheusReporter, made: Make, batch: Make) -> None:
    events = [run(made) for _ in range(3)]
    send(reporter, batch(events[0]))
    with closing(sqlite3.connect(reporter.state.path)) as db:
        db.execute("CREATE TRIGGER broken BEFORE INSERT ON counted BEGIN SELECT RAISE(FAIL, 'it is broken'); END")
    with pytest.raises(RetryLater, match="it is broken"):
        send(reporter, batch(*events))
    with closing(sqlite3.connect(reporter.state.path)) as db:
        db.execute("DROP TRIGGER broken")
    assert send(reporter, batch(*events)) == ["duplicate", "accepted", "accepted"]


def test_more_names_than_there_is_room_for(
    textfile: Path, made: Make, batch: Make, series_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts() -> dict[str, float]:
        found = series_of(textfile.read_bytes())
        names = ("A", "B", "C", "D", "E", "other")
        every = {name: found.get(f'{COMMANDS}{{command_name="{name}",state="success"}}') for name in names}
        return {name: value for name, value in every.items() if value is not None}

    def count(*names: str) -> dict[str, float]:
        send(another(textfile, most_values=2), batch(*(run(made, name) for name in names)))
        return counts()

    days = 86400.0
    now = [1000 * days]
    monkeypatch.setattr(reporter_module.clock, "wall", lambda: now[0])
    assert count("A", "B", "C", "C") == {"A": 1, "B": 1, "other": 2}
    assert count("C", "A", "D") == {"A": 2, "B": 1, "other": 4}
    now[0] += 29 * days
    assert count("A", "D") == {"A": 3, "B": 1, "other": 5}
    now[0] += 2 * days  # B has not been seen for 31
    assert count("A") == {"A": 4, "B": 1, "other": 5}
    assert count("D", "E") == {"A": 4, "D": 1, "other": 6}
    assert count("other") == {"A": 4, "D": 1, "other": 7}


def test_names_that_have_to_be_escaped(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path, promtool: Make
) -> None:
    names = [
        'a "b"',
        "back\\slash",
        "back\\",
        "two\nlines",
        "a\\nb",
        "c\rd",
        "ü€\u2028",
        '["command_name","x"]',
        "{},=#",
    ]
    send(reporter, batch(*(run(made, name) for name in names)))
    promtool("check", "metrics", input=textfile.read_bytes())
    found = {
        sample.labels["command_name"]: sample.value
        for family in text_string_to_metric_families(textfile.read_bytes().decode())
        for sample in family.samples
        if sample.name == COMMANDS and sample.labels["state"] == "success"
    }
    assert found == dict.fromkeys(names, 1)


@pytest.mark.parametrize("several", [("release", "command_name"), ("command_name",)])
def test_both_formats_as_the_official_parsers_read_them(
    textfile: Path, made: Make, batch: Make, several: tuple[str, ...]
) -> None:
    """They check what the formats demand: bounds that rise to the infinite one, no series twice, no metric apart."""
    events = [run(made, name, state, ms, timed_out=ms > 300, chain_depth=2, release="1.2.3") for name, state, ms in (
        ("A", "success", 20), ("A", "failed", 90_000), ('B "b"', "success", 7_200_000))]  # fmt: skip
    reporter = another(textfile, labels=several)
    send(reporter, batch(*events, made("orchestrator_stopped", uptime_s="10-60", run_count=4), drops={"expired": 2}))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(reporter.state))
    formats = (
        openmetrics_parser.text_string_to_metric_families(openmetrics.generate_latest(registry).decode()),
        text_string_to_metric_families(textfile.read_bytes().decode()),
    )
    parsed = [{(each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples}
              for families in formats]  # fmt: skip
    assert parsed[0] == parsed[1]
    assert parsed[0]["cmdorc_telemetry_dropped_total", ("reason", "expired")] == 2
    assert len(parsed[0]) > 100


def test_a_shared_body_has_no_names_and_no_label_for_them(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    send(reporter, batch(run(made, None, level="minimal", final=True)))
    assert f'{COMMANDS}{{state="success"}} 1.0' in textfile.read_text()
    assert "command_name" not in textfile.read_text()


def test_values_that_do_not_fit_their_spec_are_left_out(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    odd = made(timestamp=["now"], state="exploded", duration_ms="long", manual=1, chain_depth=2**60, command_name=7)
    nothing = BatchEvent("x", "command_completed", b"[]")
    broken = BatchEvent("y", "command_completed", b"{")
    send(reporter, batch(odd, nothing, broken, made("unheard_of"), made(spec="other@1")))
    found = textfile.read_text()
    assert f'{COMMANDS}{{state="other"}} 1.0' in found
    assert "duration_seconds" not in found
    assert "manual" not in found
    assert "chain_depth" not in found
    assert "last_timestamp" not in found
    assert 'cmdorc_telemetry_events_total{event="unheard_of",spec="cmdorc.core@1"} 1.0' in found
    assert 'cmdorc_telemetry_events_total{event="command_completed",spec="other@1"} 1.0' in found
    assert 'cmdorc_telemetry_events_total{event="command_completed"} 2.0' in found


def test_a_gauge_keeps_what_is_newest(reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path) -> None:
    def stopped(second: int, value: float) -> BatchEvent:
        event: BatchEvent = made(
            "orchestrator_stopped", timestamp=f"2026-01-02T03:04:{second:02}Z", avg_concurrent_runs=value
        )
        return event

    send(reporter, batch(stopped(5, 1.0), stopped(7, 2.0), stopped(6, 3.0)))
    assert "cmdorc_orchestrator_stopped_avg_concurrent_runs 2.0" in textfile.read_text()
    send(reporter, batch(stopped(6, 4.0)))
    assert "cmdorc_orchestrator_stopped_avg_concurrent_runs 2.0" in textfile.read_text()
    send(reporter, batch(stopped(8, 5.0)))
    assert "cmdorc_orchestrator_stopped_avg_concurrent_runs 5.0" in textfile.read_text()


def test_other_bounds_begin_a_histogram_anew(textfile: Path, made: Make, batch: Make, series_of: Make) -> None:
    send(another(textfile), batch(run(made)))
    send(another(textfile, buckets=(1.0, 2.0)), batch(run(made)))
    found = series_of(textfile.read_bytes())
    buckets = {name: value for name, value in found.items() if "duration_seconds_bucket" in name}
    assert len(buckets) == 4  # the threshold of the spec among them
    assert set(buckets.values()) == {1}
    assert found['cmdorc_command_completed_duration_seconds_sum{command_name="Build",state="success"}'] == 0.2
    assert found[f'{COMMANDS}{{command_name="Build",state="success"}}'] == 2


def test_specs_that_are_in_force(textfile: Path, made: Make, batch: Make) -> None:
    """As the core gives them to the plugin, and as a program gives them to a reporter of its own."""
    shop = parse_toml(
        '[meta]\nname = "shop"\n[[events]]\nname = "sold"\nsemantics = { what = "Sold" }\n'
        '[events.properties]\nplan = { type = "enum", members = ["free"] }\n', "shop.toml"
    )  # fmt: skip
    sold = [made("sold", spec="shop@1", plan="free") for _ in range(2)]
    settings = PrometheusReporter.Settings(path=str(textfile))
    plugin = Prometheus()
    (class_,) = plugin.telemetry_reporters()
    folder = textfile.parent / "kept"
    plugin.telemetry_configure(Setup(name="prometheus", folder=folder, specs=(load_spec(CORE), shop)))
    assert plugin.telemetry_reporters() == [class_]
    assert PrometheusReporter.setup is None
    send(class_(settings), batch(sold[0], run(made)))
    found = textfile.read_text()
    assert 'shop_sold_total{plan="free"} 1.0' in found
    assert f'{COMMANDS}{{command_name="Build",state="success"}} 1.0' in found
    assert len(list(folder.glob("*.db"))) == 1
    textfile.unlink()
    send(PrometheusReporter(settings, specs=[shop]), batch(sold[1], run(made)))
    assert textfile.read_text() == found


def test_the_order_in_which_a_plugin_is_asked_does_not_matter(home: Path) -> None:
    plugin, setup = Prometheus(), Setup(name="prometheus", folder=home / "kept")
    plugin.telemetry_configure(setup)
    (class_,) = plugin.telemetry_reporters()
    assert class_(PrometheusReporter.Settings()).state.path.parent == home / "kept"


def test_settings_in_the_table_of_plugins_that_are_no_destinations(home: Path) -> None:
    setup = Setup(name="prometheus", settings={"port": 9000}, where="config.toml", folder=home)
    with pytest.raises(ConfigError, match=r"^config.toml: telemetry.settings.prometheus.port: unknown key"):
        Prometheus().telemetry_configure(setup)


def test_encode_is_what_a_batch_adds(reporter: PrometheusReporter, made: Make, batch: Make) -> None:
    fields = {"timed_out": True, "manual": False, "run_id": "r"}
    both = batch(run(made, **fields), run(made, 'a "b"\\\n', "failed", 4000))
    assert reporter.encode(both).decode().splitlines() == sorted([
        'cmdorc_command_completed_total{command_name="Build",state="cancelled"} 0',
        'cmdorc_command_completed_total{command_name="Build",state="failed"} 0',
        'cmdorc_command_completed_total{command_name="Build",state="success"} 1',
        r'cmdorc_command_completed_total{command_name="a \"b\"\\\n",state="cancelled"} 0',
        r'cmdorc_command_completed_total{command_name="a \"b\"\\\n",state="failed"} 1',
        r'cmdorc_command_completed_total{command_name="a \"b\"\\\n",state="success"} 0',
        'cmdorc_command_completed_duration_seconds_bucket{command_name="Build",state="success",le="0.25"} 1',
        r'cmdorc_command_completed_duration_seconds_bucket{command_name="a \"b\"\\\n",state="failed",le="5.0"} 1',
        'cmdorc_command_completed_duration_seconds_sum{command_name="Build",state="success"} 0.2',
        r'cmdorc_command_completed_duration_seconds_sum{command_name="a \"b\"\\\n",state="failed"} 4',
        'cmdorc_command_completed_last_timestamp_seconds{command_name="Build",state="success"} 1767323045',
        r'cmdorc_command_completed_last_timestamp_seconds{command_name="a \"b\"\\\n",state="failed"} 1767323045',
        'cmdorc_command_completed_manual_total{command_name="Build",state="success"} 0',
        'cmdorc_command_completed_timed_out_total{command_name="Build",state="success"} 1',
        'cmdorc_telemetry_events_total{event="command_completed",spec="cmdorc.core@1"} 2',
        'cmdorc_telemetry_info{arch="x86_64",cmdorc_version="0.12.0",os="linux",python_version="3.12"} 1',
    ])  # fmt: skip
    assert reporter.encode(batch()) == b""
    assert not reporter.state.path.exists()


def test_closing_wakes_who_serves(
    port: int, home: Path, made: Make, batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module._Server, "timeout", 60.0)
    reporter = PrometheusReporter(PrometheusReporter.Settings(path=str(home / "a.prom")))
    send(reporter, batch(run(made)))
    serving = endpoint_module.Endpoint("127.0.0.1", port, reporter.state)
    serving.start()
    assert serving.serving.wait(20)
    serving.close(20)
    assert not serving._thread.is_alive()


def test_who_asks_nothing_is_let_go(
    port: int, reporter: PrometheusReporter, made: Make, batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint_module._Handler.timeout == 10
    monkeypatch.setattr(endpoint_module._Handler, "timeout", 0.1)
    send(reporter, batch(run(made)))
    serving = endpoint_module.Endpoint("127.0.0.1", port, reporter.state)
    serving.start()
    assert serving.serving.wait(20)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        assert idle.recv(1) == b""
    serving.close(20)


# -- the textfile ------------------------------------------------------------------------------------------------------


def test_the_file_can_be_read_by_others_and_keeps_the_mode_it_is_given(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    before = os.umask(0)
    try:
        send(reporter, batch(run(made)))
        assert stat.S_IMODE(textfile.stat().st_mode) == 0o644
        assert stat.S_IMODE(reporter.state.path.stat().st_mode) == 0o600
        os.umask(0o077)
        textfile.unlink()
        send(reporter, batch(run(made)))
        assert stat.S_IMODE(textfile.stat().st_mode) == 0o644
        textfile.chmod(0o640)
        send(reporter, batch(run(made)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(textfile.stat().st_mode) == 0o640
    assert {each.name for each in textfile.parent.iterdir()} == {"cmdorc.prom", "telemetry"}


def test_a_reader_never_sees_half_a_file(textfile: Path, processes: Make) -> None:
    """A reader that opens the file again and again, while it is replaced again and again."""
    to = Textfile(textfile)
    to.write(b"")
    reading = processes(
        "import sys\n"
        "sizes = set()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    data = open(sys.argv[1], 'rb').read()\n"
        "    first, _, metrics = data.partition(b'\\n')\n"
        "    assert first.startswith(b'# Written by') and metrics in (b'end\\n', b'x\\n' * (len(metrics) // 2)), data\n"
        "    sizes.add(len(metrics))\n"
        "    if metrics == b'end\\n': break\n"
        "print(len(sizes))\n",
        textfile,
    )
    assert reading.stdout.readline() == "ready\n"
    for number in range(100):
        to.write(b"x\n" * (number * 1000))
    to.write(b"end\n")
    assert int(reading.communicate(timeout=20)[0]) > 2
    assert reading.returncode == 0


def test_what_cannot_be_written_is_not_acknowledged_and_not_lost(
    home: Path, made: Make, batch: Make, series_of: Make
) -> None:
    textfile = home / "missing" / "cmdorc.prom"
    event = run(made)
    with pytest.raises(RetryLater, match=rf"^{textfile}: No such file or directory$"):
        send(another(textfile), batch(event))
    textfile.parent.mkdir()
    assert send(another(textfile), batch(event)) == ["duplicate"]
    assert series_of(textfile.read_bytes())[f'{COMMANDS}{{command_name="Build",state="success"}}'] == 1


@pytest.mark.parametrize("content", ["node_up 1\n", "# mine\n"])
def test_a_file_of_somebody_else_is_left_alone(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path, content: str
) -> None:
    textfile.write_text(content)
    with pytest.raises(RetryLater, match="holds something else than these metrics"):
        send(reporter, batch(run(made)))
    assert asyncio.run(reporter.erase(["install"]))
    assert textfile.read_text() == content


def test_a_link_is_followed(home: Path, made: Make, batch: Make) -> None:
    real, link = home / "real.prom", home / "link.prom"
    link.symlink_to(real)
    for _ in range(2):
        send(another(link), batch(run(made)))
    assert link.is_symlink()
    assert "2.0" in real.read_text()


# -- the state ---------------------------------------------------------------------------------------------------------


def test_a_damaged_state_is_moved_aside(reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path) -> None:
    send(reporter, batch(run(made)))
    reporter.state.path.write_bytes(b"no database" * 1000)
    assert send(reporter, batch(run(made))) == ["accepted"]
    assert f'{COMMANDS}{{command_name="Build",state="success"}} 1.0' in textfile.read_text()
    assert len(list(reporter.state.path.parent.glob("*.corrupt-*"))) == 1


def test_a_state_that_is_damaged_further_in(reporter: PrometheusReporter, made: Make, batch: Make) -> None:
    send(reporter, batch(*(run(made) for _ in range(500))))
    data = bytearray(reporter.state.path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    reporter.state.path.write_bytes(data)
    assert send(reporter, batch(run(made))) == ["accepted"]


def test_a_state_of_a_later_version_stays_as_it_is(reporter: PrometheusReporter, made: Make, batch: Make) -> None:
    send(reporter, batch(run(made)))
    db = sqlite3.connect(reporter.state.path)
    db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(RetryLater, match="newer version"):
        send(reporter, batch(run(made)))


def test_a_lock_that_is_never_given_back(
    reporter: PrometheusReporter, made: Make, batch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "LOCK_SECONDS", 0.05)
    event = run(made)
    send(reporter, batch())
    lock = FileLock(f"{reporter.state.path}.lock")
    lock.acquire()
    with pytest.raises(RetryLater, match="another process holds its lock"):
        send(reporter, batch(event))
    lock.release()
    assert send(reporter, batch(event)) == ["accepted"]


def test_what_leads_elsewhere_counts_for_itself(home: Path, made: Make, batch: Make) -> None:
    one, two = another(home / "one.prom"), another(home / "two.prom")
    event = run(made)
    assert send(one, batch(event)) == send(two, batch(event)) == ["accepted"]
    assert text(one.state.read()) == text(two.state.read())


def test_erase(reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path, home: Path) -> None:
    assert asyncio.run(reporter.erase(["install"]))  # nothing is there
    send(reporter, batch(run(made)))
    assert asyncio.run(reporter.erase(["install"]))
    assert not textfile.exists()
    assert list((home / "telemetry" / "plugins").iterdir()) == []
    assert send(reporter, batch(run(made))) == ["accepted"]
    assert "1.0" in textfile.read_text()
    shutil.rmtree(home / "telemetry")  # opting out deletes what is here before anybody is asked
    assert asyncio.run(reporter.erase(["install"]))
    assert not textfile.exists()


def test_erase_that_fails(reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path) -> None:
    send(reporter, batch(run(made)))
    textfile.unlink()
    textfile.mkdir()
    assert not asyncio.run(reporter.erase(["install"]))
    assert not reporter.state.path.exists()


def test_what_a_writer_left_who_was_killed(
    reporter: PrometheusReporter, made: Make, batch: Make, textfile: Path
) -> None:
    half = textfile.with_name(".cmdorc.prom.new")
    half.write_text("# half")
    send(reporter, batch(run(made)))
    assert not half.exists()
    half.write_text("# half")
    assert asyncio.run(reporter.erase(["install"]))
    assert not half.exists()


# -- settings and packaging --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": ""}, "host: found ''; expected an address"),
        ({"port": 0}, "port: found 0; expected 1 to 65535"),
        ({"port": "80"}, "port: found '80'; expected int"),
        ({"path": "cmdorc.prom"}, "path: found 'cmdorc.prom'; expected an absolute path"),
        ({"path": "/tmp/cmdorc.txt"}, "expected a name that ends with .prom"),
        ({"most_values": 0}, "most_values: found 0; expected 1 to 10000"),
        ({"buckets": []}, r"buckets: found \[\]; expected numbers above 0 that rise"),
        ({"buckets": [2, 1]}, "expected numbers above 0 that rise"),
        ({"buckets": [0, 1]}, "expected numbers above 0 that rise"),
        ({"buckets": [1, float("inf")]}, "expected numbers above 0 that rise"),
        ({"buckets": [1, float("nan")]}, "expected numbers above 0 that rise"),
        ({"host": "a\0b"}, "expected an address of this machine"),
        ({"path": "/tmp/\0.prom"}, "expected an absolute path"),
        ({"port": 65536}, "expected 1 to 65535"),
        ({"most_values": 10_001}, "expected 1 to 10000"),
        ({"prot": 1}, "Did you mean 'port'"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as failure:
        decode(settings, PrometheusReporter.Settings, "config.toml", key="telemetry.to.prometheus")
    assert str(failure.value).startswith("config.toml: telemetry.to.prometheus")


def test_where_nothing_is_said_it_is_an_address_of_this_machine() -> None:
    settings = PrometheusReporter.Settings
    assert (settings().host, settings().port) == ("127.0.0.1", 19464)
    assert settings(path="/a.prom").port is None
    assert settings(path="/a.prom", port=9000).port == 9000


def test_the_package_offers_its_reporter() -> None:
    (point,) = (each for each in metadata.entry_points(group="cmdorc_telemetry") if each.name == "prometheus")
    (class_,) = point.load()().telemetry_reporters()
    assert issubclass(class_, PrometheusReporter)
    assert metadata.version("cmdorc-telemetry-prometheus") == cmdorc_telemetry_prometheus.__version__
    assert callable(cmdorc_telemetry_prometheus.alert_rules)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_prometheus.nothing


def test_the_library_is_imported_with_the_first_batch_alone(home: Path) -> None:
    script = (
        "import json, sys\n"
        "import cmdorc_telemetry_prometheus.plugin as plugin\n"
        "(class_,) = plugin.Prometheus().telemetry_reporters()\n"
        "class_(class_.Settings())\n"
        "print(json.dumps([name for name in sys.modules if 'prometheus_client' in name or 'wsgiref' in name]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, timeout=30)
    assert json.loads(done.stdout) == []
    assert list(home.iterdir()) == []
