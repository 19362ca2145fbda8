"""The benchmark itself: that a run yields records of the promised shape, and that the sink counts each event once."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Result

BENCH = Path(__file__).parent / "bench"


def test_a_run_of_our_own_yields_records_and_two_tables(tmp_path: Path) -> None:
    output = tmp_path / "build" / "bench.json"
    command = [
        sys.executable,
        str(BENCH / "run.py"),
        "--quick",
        "--subject",
        "cmdorc-telemetry",
        "--output",
        str(output),
    ]
    for figure in ("disabled", "disabled_track", "lost_on_kill"):
        command += ["--only", figure]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "not measured" not in done.stdout, done.stdout
    records = json.loads(output.read_text(encoding="utf-8"))
    assert all(list(record) == ["figure", "subject", "config", "value", "unit"] for record in records)
    ours = {record["figure"]: record for record in records if record["subject"] == "cmdorc-telemetry"}
    assert list(ours) == ["disabled", "disabled_track", "lost_on_kill"]
    assert all(math.isfinite(record["value"]) for record in records)
    assert ours["disabled"]["value"] == 0, "something is wrapped while telemetry is off"
    assert ours["lost_on_kill"] | {"config": ""} == {
        "figure": "lost_on_kill", "subject": "cmdorc-telemetry", "config": "", "value": 0, "unit": "events",
    }  # fmt: skip
    assert {record["subject"] for record in records} == {"cmdorc-telemetry", "none"}
    assert re.search(r"^lost_on_kill +0 +events +≤ 0 +reached$", done.stdout, re.MULTILINE), done.stdout


def test_track_is_measured_beside_libraries_that_only_check(tmp_path: Path) -> None:
    output, page = tmp_path / "bench.json", tmp_path / "page.md"
    page.write_text("before\n<!-- track -->\nold\n<!-- end of track -->\nafter\n")
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--only", "track_p50", "--output", str(output)]
    done = subprocess.run([*command, "--docs", str(page)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    records = json.loads(output.read_text(encoding="utf-8"))
    found = {(each["figure"], each["subject"], each["config"]): each["value"] for each in records}
    who = {"track_now, lenient", "track_now, strict", "await track", "capture alone", "track_now, off",
           "msgspec.convert", "pydantic", "jsonschema"}  # fmt: skip
    assert who <= {name for _, name, _ in found} <= {*who, "fastjsonschema"}, "one may be in the extra alone"
    assert {kind for _, _, kind in found} == {"plain", "texts", "wrong"}
    assert all(0 < value < 1e5 for value in found.values())
    assert found["track_p50", "track_now, off", "plain"] < found["track_p50", "capture alone", "plain"]
    assert found["track_cpu", "capture alone", "plain"] < found["track_cpu", "track_now, lenient", "plain"]
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    assert len([line for line in lines if line.startswith("| track_now, lenient | ")]) == 4


def test_the_start_is_measured_with_plugins_that_are_enabled_and_by_exec(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    figures = [
        *("start_0_plugins", "start_1_plugin", "start_10_plugins", "start_0_cpu", "start_1_cpu", "start_10_cpu"),
        *("start_1_ratio", "start_10_ratio", "exec_undecided", "exec_off", "exec_on"),
    ]
    command = [
        sys.executable,
        str(BENCH / "run.py"),
        "--quick",
        "--subject",
        "cmdorc-telemetry",
        "--output",
        str(output),
    ]
    command += [word for figure in figures for word in ("--only", figure)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "not measured" not in done.stdout, done.stdout
    records = json.loads(output.read_text(encoding="utf-8"))
    assert [record["figure"] for record in records] == figures
    assert all(math.isfinite(record["value"]) for record in records)
    assert [record["unit"] for record in records] == ["x" if "ratio" in figure else "ms" for figure in figures]


def load() -> Any:
    """What the measurement measures, as a module."""
    place = importlib.util.spec_from_file_location("validation", BENCH / "validation.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_everybody_agrees_which_of_the_measured_events_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    validation = load()
    checkers = ["pydantic", "jsonschema", "track_now, strict"]
    with validation.subjects() as (everybody, _):
        checkers += ["fastjsonschema"] if "fastjsonschema" in everybody else []
        for kind in ("plain", "texts"):
            for event in validation.events(kind):
                for name in checkers:
                    everybody[name](event)
                for name in ("track_now, lenient", "await track", "track_now, strict"):
                    assert everybody[name](event) is Result.CAPTURED
        for event in validation.events("wrong"):
            for name in checkers:
                with pytest.raises(Exception):  # noqa: B017, PT011 - each has its own
                    everybody[name](event)
        assert everybody["track_now, off"]({}) is Result.WITHHELD


@pytest.mark.parametrize(
    ("path", "body", "coding", "unique"),
    [
        ("/ours/report", b'{"event_id":"a"}\n{"event_id":"b"}\n{"event_id":"a"}', "gzip", 2),
        ("/batch/", b'{"batch": [{"uuid": "a"}, {"uuid": "b"}]}', "", 2),
        ("/v1/batch", b'{"batch": [{"messageId": "a"}]}', "gzip", 1),
        ("/com.snowplowanalytics.snowplow/tp2", b'{"data": [{"eid": "a"}, {"eid": "a"}]}', "", 1),
        (
            "/api/1/envelope/",
            b'{}\n{"type":"log","item_count":2}\n{"items":[{"timestamp":1},{"timestamp":2}]}\n',
            "",
            2,
        ),
        # resource logs (1) of scope logs (2) of three records (2), two of them alike
        ("/v1/logs", bytes.fromhex("0a0e120c120208011202080212020801"), "", 2),
        ("/elsewhere", b'{"event_id":"a"}', "", 0),
    ],
)
def test_the_sink_counts_each_event_once(path: str, body: bytes, coding: str, unique: int) -> None:
    sink = subprocess.Popen([sys.executable, str(BENCH / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)  # fmt: skip
    assert sink.stdout is not None
    port = int(sink.stdout.readline())
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", gzip.compress(body) if coding else body, {"Content-Encoding": coding}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert unique
            if path == "/ours/report":
                assert [each["status"] for each in json.load(answer)["results"]] == ["accepted"] * 3
    except urllib.error.HTTPError as refused:
        refused.close()
        assert not unique
    counted = json.loads(sink.communicate("count\n", timeout=10)[0])
    assert counted["unique"] == unique
    assert counted["requests"] == bool(unique)
