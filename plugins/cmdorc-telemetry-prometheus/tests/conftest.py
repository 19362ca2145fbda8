"""A home of its own, events as the gate lets them out, free ports, and a real Prometheus where there is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.types import Batch, BatchEvent

signal.signal(signal.SIGINT, signal.default_int_handler)  # behind a shell's & it is ignored, also by every child

DEADLINE = 30.0
BIN = Path(sys.executable).parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "home"
    root.mkdir()
    monkeypatch.setenv("CMDORC_HOME", str(root))
    for name in ("DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until something is true, and return it."""

    def wait(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "the condition never came true"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def made() -> Callable[..., BatchEvent]:
    """Makes an event; ``event_id`` may be given, other fields are the body's."""

    def make(event: str = "command_completed", **body: Any) -> BatchEvent:
        event_id = str(body.pop("event_id", uuid.uuid4()))
        fixed = {"event": event, "event_id": event_id, "timestamp": "2026-01-02T03:04:05Z", "spec": "cmdorc.core@1",
                 "cmdorc_version": "0.12.0", "python_version": "3.12", "os": "linux", "arch": "x86_64"}  # fmt: skip
        return BatchEvent(event_id, event, json.dumps({**fixed, **body}).encode())

    return make


@pytest.fixture
def batch() -> Callable[..., Batch]:
    def make(*events: BatchEvent, **more: Any) -> Batch:
        return Batch(destination="prometheus", events=events, **more)

    return make


@pytest.fixture
def scrape() -> Callable[[int], dict[str, float]]:
    """What is served at a port: series → value, as promtool and Prometheus read it; empty where nobody serves."""

    def get(port: int) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        return series(lines)

    return get


@pytest.fixture
def series_of() -> Callable[[bytes], dict[str, float]]:
    return lambda text: series(text.decode().splitlines())


def series(lines: list[str]) -> dict[str, float]:
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python processes with a script; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: object, **more: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", script, *map(str, args)], **{**pipes, **more})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):  # what was written to it, and will never be read
                    pipe.close()


def program(name: str) -> str:
    """A program of Debian's packages: beside the interpreter or in the path. Skips where there is none."""
    found = shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"no Prometheus: .ci/env.sh takes {name} from Debian")
    return found


@pytest.fixture
def promtool() -> Callable[..., str]:
    """Runs promtool; what it said. Fails where it finds something wrong."""
    path = program("promtool")

    def run(*args: object, **more: Any) -> str:
        done = subprocess.run([path, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              **more)  # fmt: skip
        said = done.stdout.decode()
        assert done.returncode == 0, said
        return said

    return run


class Prometheus:
    """A real server that scrapes, started in a directory of its own; asked by its HTTP interface."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, target: int, rules: str = "groups: []\n") -> None:
        self._folder.mkdir()
        (self._folder / "rules.yml").write_text(rules)
        (self._folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 200ms}\n"
            "rule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: cmdorc, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                cwd=self._folder, stdout=log, stderr=log,
            )  # fmt: skip

    def get(self, what: str, **query: str) -> Any:
        """Of the HTTP interface; None while it does not answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def values(self, query: str, label: str) -> dict[str, float]:
        """What an expression is now: value of ``label`` → value."""
        found = self.get("query", query=query)
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in found["result"]} if found else {}

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)


@pytest.fixture
def node_exporter(port: int) -> Iterator[Callable[[Path], int]]:
    """Starts a real node exporter that reads the textfiles of a folder; the port that it answers at."""
    path = program("prometheus-node-exporter")
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> int:
        command = [path, "--collector.disable-defaults", "--collector.textfile",
                   f"--collector.textfile.directory={folder}", f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    program("prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Prometheus(tmp_path / "prometheus", port)
    yield server
    server.stop()
