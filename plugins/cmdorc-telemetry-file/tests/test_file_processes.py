"""Several processes at once, processes that are killed, and disks that are full."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_file import LocalFileReporter

PREAMBLE = """
import asyncio, json, os, resource, sys
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_file import LocalFileReporter

def batch(who, start, count, filler=""):
    def event(number):
        event_id = f"{who}-{number:06}"
        return BatchEvent(event_id, "x", json.dumps({"event_id": event_id, "filler": filler}).encode())
    return Batch(destination="file", events=tuple(event(number) for number in range(start, start + count)))

def reporter(path, **settings):
    return LocalFileReporter(LocalFileReporter.Settings(path=path, **settings))

def send(to, what):
    return asyncio.run(to.report_batch(what))
"""


def start(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    return out.strip()


def files_of(path: Path) -> list[Path]:
    return [each for each in path.parent.iterdir() if each.name.startswith(path.name) and each.suffix != ".lock"]


def events_of(path: Path) -> list[str]:
    found = []
    for file in files_of(path):
        data = file.read_bytes()
        assert data.endswith(b"\n"), file
        found += [json.loads(line)["event_id"] for line in data.splitlines()]
    return found


WRITE = """
path, who, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
to = reporter(path, max_bytes=5000, files=files)

async def write():
    for number in range(60):
        result = await to.report_batch(batch(who, number * 10, 10, filler="ü" * (number % 30)))
        assert {each.status for each in result.results} == {"accepted"}

print("ready", flush=True)
asyncio.run(write())
"""


def test_processes_that_append_and_rotate_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    for process in [start(WRITE, path, who, 1000) for who in "abcd"]:
        finish(process)
    assert Counter(events_of(path)) == Counter(f"{who}-{number:06}" for who in "abcd" for number in range(600))
    assert all(file.stat().st_size <= 5000 for file in files_of(path))
    assert len(files_of(path)) > 20


def test_processes_that_rotate_at_once_keep_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    for process in [start(WRITE, path, who, 2) for who in "abc"]:
        finish(process)
    assert sorted(file.name for file in files_of(path)) == [f"telemetry.jsonl{end}" for end in ("", ".1", ".2")]
    assert set(Counter(events_of(path)).values()) == {1}


ENDLESS = """
path, number = sys.argv[1], int(sys.argv[2])
to = reporter(path, max_bytes=2_000_000)

async def write(number):
    while True:
        print(number, flush=True)  # acknowledged up to here
        await to.report_batch(batch("k", number, 100, filler="x" * 2000))
        number += 100

asyncio.run(write(number))
"""


def test_kill_in_the_middle(tmp_path: Path) -> None:
    """Each process is killed at some moment; the next begins with what was not acknowledged."""
    path, log, acknowledged = tmp_path / "telemetry.jsonl", tmp_path / "acknowledged", 0
    for _ in range(15):
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-c", PREAMBLE + ENDLESS, path, str(acknowledged)], stdout=out)
            deadline = time.monotonic() + 20
            while not log.read_bytes().endswith(b"\n"):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.05))  # not to wait for anything: the moment of the kill is the test
            process.kill()
            process.wait(20)
        acknowledged = int(log.read_text().rpartition("\n")[0].split()[-1])
    body = {"event_id": f"k-{acknowledged:06}", "filler": "x" * 2000}
    last = Batch(
        destination="file", events=(BatchEvent(str(body["event_id"]), "x", json.dumps(body).encode()),)
    )  # fmt: skip
    asyncio.run(LocalFileReporter(LocalFileReporter.Settings(path=str(path), max_bytes=2_000_000)).report_batch(last))
    counts = Counter(events_of(path))
    assert set(counts.values()) == {1}
    kept = sorted(int(event_id[2:]) for event_id in counts)
    assert set(range(kept[0], acknowledged + 1)) <= set(kept)
    assert acknowledged > 0


FULL = """
path, limit = sys.argv[1], int(sys.argv[2])
to = reporter(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        send(to, batch("f", written, 7))
        written += 7
except RetryLater as fault:
    before = open(path, "rb").read()
    print(fault)
assert before == b"".join(each.body + b"\\n" for each in batch("f", 0, written).events)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert {each.status for each in send(to, batch("f", written, 7)).results} == {"accepted"}
assert open(path, "rb").read() == b"".join(each.body + b"\\n" for each in batch("f", 0, written + 7).events)
"""


@pytest.mark.parametrize("limit", [5000, 5001, 100])
def test_a_full_disk_leaves_whole_batches(tmp_path: Path, limit: int) -> None:
    """The limit on file sizes lets part of a write through, as a disk does that runs full."""
    path = tmp_path / "telemetry.jsonl"
    assert finish(start(FULL, path, limit)) == f"{path}: File too large"


FORBIDDEN = """
path = sys.argv[1]
to = reporter(path)
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    send(to, batch("r", 0, 1))
except RetryLater as fault:
    print(fault)
print(asyncio.run(to.erase(["install"])))
"""


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # reachable for others, unlike pytest's own
        Path(name).chmod(0o555)
        path = Path(name).resolve() / "telemetry.jsonl"
        out = finish(start(FORBIDDEN, path)).splitlines()
        assert out == [f"{path}: Permission denied", "False"]
        assert os.listdir(name) == []
