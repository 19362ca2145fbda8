"""A project in a folder of its own, and the console script, run there for real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.policy import CI_VARIABLES

SCRIPT = Path(sys.executable).with_name("cmdorc")
DEADLINE = 20.0


class Project:
    """A folder with a ``cmdorc.toml``; ``run`` and ``start`` call ``cmdorc`` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.env = {
            name: value for name, value in os.environ.items()
            if not name.startswith("CMDORC_") and name not in (*CI_VARIABLES, "DO_NOT_TRACK", "PYTHONUNBUFFERED")
        }  # fmt: skip
        self.env["CMDORC_HOME"] = str(self.home)
        self.started: list[subprocess.Popen[bytes]] = []

    def write(self, text: str, name: str = "cmdorc.toml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def commands(self, *tables: str, head: str = "") -> None:
        """Write the TOML: a table a command; ``triggers`` may be left out."""
        full = (table + ("" if "\ntriggers" in table else "\ntriggers = []") for table in tables)
        self.write(head + "".join(f"\n[[command]]\n{table}\n" for table in full))

    def fifo(self, name: str) -> Path:
        os.mkfifo(self.folder / name)
        return self.folder / name

    def run(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **more}
        return subprocess.run(
            [str(SCRIPT), *args], cwd=self.folder, env=self.env, timeout=DEADLINE, check=False, **options
        )

    def start(self, *args: str, **more: Any) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen([str(SCRIPT), *args], cwd=self.folder, env=self.env, bufsize=0, **{**pipes, **more})
        self.started.append(process)
        return process


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    for process in project.started:
        process.kill()
        for pipe in (process.stdout, process.stderr, process.stdin):
            if pipe is not None:
                pipe.close()
        process.wait()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition, with a deadline."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "the condition never came true"
            time.sleep(0.01)

    return wait
