"""``cmdorc run`` and ``trigger`` in a container: a fresh home, an operator's variables, and no later process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PROJECT = """
[[command]]
name = "Build"
command = "echo built; exit $CODE"
triggers = ["push"]
"""


class Container:
    """A home directory that nobody ever used, a project, and the operator's configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "work").mkdir()
        (folder / "work" / "cmdorc.toml").write_text(PROJECT)
        self.operator = folder / "operator.toml"
        kept = ("PATH", "PYTHONPATH", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
        self.environ = {name: os.environ[name] for name in kept if name in os.environ}
        self.environ.update(HOME=str(folder / "root"), CI="true", CMDORC_TELEMETRY="standard", CODE="0",
                            CMDORC_TELEMETRY_CONFIG=str(self.operator))  # fmt: skip

    def to(self, endpoint: str) -> None:
        self.operator.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\nbackground = true\n')

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BIN / "cmdorc", *args], cwd=self.folder / "work", env=self.environ, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=50, check=False)  # fmt: skip


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


@pytest.fixture
def store(tmp_path: Path, container: Container) -> Iterator[Path]:
    """The store of a real server that ``container`` reports to."""
    store = tmp_path / "reports.db"
    command = [BIN / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", store, "--k", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        container.to(server.stdout.readline().split()[-1])
        yield store
        server.terminate()


def stored(store: Path) -> list[dict[str, object]]:
    done = subprocess.run([BIN / "cmdorc-telemetry-server", "rows", "--store", store, "--json"], check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize(("args", "code"), [(("run", "Build"), "0"), (("trigger", "push"), "7")])
def test_everything_of_a_container_that_vanishes_arrives(
    container: Container, store: Path, args: tuple[str, ...], code: str
) -> None:
    container.environ["CODE"] = code
    done = container(*args, "--flush", "30")
    assert (done.returncode, done.stdout) == (int(code), "built\n")
    assert "telemetry" not in done.stderr
    text = json.dumps(stored(store))
    for event in ("orchestrator_started", "command_completed", "orchestrator_stopped"):
        assert text.count(f'"{event}"') == 1, event
    assert "Build" not in text


def test_without_flush_nothing_is_sent_and_nobody_waits(container: Container, store: Path) -> None:
    done = container("run", "Build")
    assert (done.returncode, done.stdout, done.stderr) == (0, "built\n", "")
    assert stored(store) == []
    locks = container.folder / "root" / ".cmdorc" / "telemetry" / "locks"
    assert not (locks / "sender.owner").exists()  # although the operator wants one: not in CI


def test_a_server_that_hangs_changes_neither_the_code_nor_more_than_the_given_time(container: Container) -> None:
    container.environ["CODE"] = "5"
    began = time.monotonic()
    container("run", "Build")
    without = time.monotonic() - began
    with socket.create_server(("127.0.0.1", 0)) as silent:
        container.to(f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        began = time.monotonic()
        done = container("run", "Build", "--flush", "2")
        took = time.monotonic() - began
    assert done.returncode == 5
    assert done.stdout == "built\n"
    assert done.stderr.splitlines()[1:] == [
        "cmdorc: telemetry: not everything was done within 2 s. A later process goes on with it; "
        "`cmdorc telemetry status` says what waits, and why."
    ]
    assert 2 < took < without + 2 + 3  # a slow machine's imports among it


def test_where_telemetry_is_off_it_waits_for_nothing(container: Container) -> None:
    container.to("http://127.0.0.1:9/v1")
    container.environ["DO_NOT_TRACK"] = "1"
    done = container("run", "Build", "--flush", "30")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (container.folder / "root").exists()
