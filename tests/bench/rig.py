"""What measurements stand on: the sink, home directories of a user who opted in, and worker processes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from subjects import OURS

HERE = Path(__file__).parent
SETTLING = 5.0
LONGEST = 120.0
"""Seconds after which a worker is ended."""
_NOT_OURS = ("CMDORC", "COVERAGE", "OTEL", "SENTRY", "POSTHOG", "PYTHONDONT", "PYTHONPYCACHE", "DO_NOT_TRACK", "CI")


class WorkerFailed(Exception):
    """A worker ended otherwise than it should: what it said last."""


class Sink:
    """The sink's process. ``port`` 0: any."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen([sys.executable, str(HERE / "sink.py"), str(port)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def _ask(self, command: str) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def reset(self) -> None:
        """Forget what came."""
        self._ask("reset")

    def count(self) -> dict[str, int]:
        """What came, once nothing comes any more: events, unique, requests, bytes."""
        before = {"bytes": -1}
        while before["bytes"] != (now := self._ask("count"))["bytes"]:
            before = now
            time.sleep(0.1)
        return now

    def close(self) -> None:
        """End it, and wait for that."""
        self._process.communicate()


@dataclass
class Ended:
    """A worker that ended."""

    seconds: float
    """From its start to its end."""
    said: dict[str, Any]
    """Its line of JSON, if it said one."""
    exit_ms: float | None
    """From the end of the program's own work to the end of the process."""
    late: bool = False
    """Whether it had to be ended."""


class Spent(NamedTuple):
    """What a whole process took, with all that it started: milliseconds."""

    wall: float
    cpu: float


class Rig:
    """One run's sink, temporary directory and compiled bytecode."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.sink, self.dead_port = directory, Sink(), unused_port()
        self._templates: dict[int, Path] = {}
        self._numbers = count(1)
        self._environ = {
            name: value for name, value in os.environ.items()
            if not name.startswith(_NOT_OURS) and not name.lower().endswith("_proxy")
        }  # fmt: skip
        # Whatever the caller's setting: everything is compiled, as an installer leaves it.
        self._environ["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")

    def new(self, what: str) -> Path:
        """A path in the temporary directory that nobody used."""
        return self.directory / f"{what}-{next(self._numbers)}"

    def home(self, port: int, *, enabled: bool = True) -> Path:
        """A fresh home of a user who opted in to send to ``port``, and has used it before; or who never did."""
        home = self.new("home")
        if not enabled:
            home.mkdir()
            return home
        if port not in self._templates:
            self._templates[port] = self._template(port)
        return Path(shutil.copytree(self._templates[port], home))

    def _template(self, port: int) -> Path:
        home = self.new("template")
        home.mkdir()
        endpoint = f"http://127.0.0.1:{port}/ours"
        (home / "config.toml").write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
        subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "opt-in", "--level", "standard", "--yes"],
                       env=self.environ(home), cwd=home, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        until = time.monotonic() + SETTLING
        self.work("deliver", OURS, "default", 1, port=port, home=home)
        # What was installed a moment ago is not remembered yet, and would be looked for at each start.
        while not (home / "telemetry" / "plugins.json").exists() and time.monotonic() < until:
            self.work("deliver", OURS, "default", 1, port=port, home=home)
        return home

    def environ(self, home: Path, path: Path | None = None) -> dict[str, str]:
        """The variables of a process of a user; ``path`` has more distributions."""
        return self._environ | {"CMDORC_HOME": str(home)} | ({"PYTHONPATH": str(path)} if path else {})

    def spend(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> Spent:
        """Run a program to its end; nothing else may end meanwhile."""
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, check=False)  # fmt: skip
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise WorkerFailed(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return Spent(wall * 1e3, sum(after[:2]) * 1e3 - sum(before[:2]) * 1e3)

    def work(
        self, probe: str, subject: str, config: str, n: int, *,
        port: int | None = None, home: Path | None = None, enabled: bool = True, longest: float = LONGEST,
        path: Path | None = None,
    ) -> Ended:  # fmt: skip
        """Run a worker. Raises WorkerFailed where it fails; one that lasts too long, or kills itself, does not."""
        port = self.sink.port if port is None else port
        home = home or self.home(port, enabled=enabled and subject == OURS)
        command = [sys.executable, str(HERE / "worker.py"), probe, subject, config, str(port), str(n)]
        errors = self.new("errors")
        with errors.open("w+b") as log:
            start = time.monotonic()
            process = subprocess.Popen(command, env=self.environ(home, path), cwd=home, stderr=log,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # fmt: skip
            assert process.stdout is not None
            # A forked child may hold stdout open: what ends the measurement is the end of the process.
            text, late = process.stdout.readline(), False
            try:
                process.wait(longest)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                late = True
            end = time.monotonic()
            process.stdout.close()
            if process.returncode not in (0, -9):
                log.seek(0)
                raise WorkerFailed(f"{probe} of {subject}: {log.read().decode(errors='replace').strip()[-500:]}")
        said = json.loads(text) if text.strip() else {}
        exit_ms = (end - said["over"]) * 1e3 if "over" in said else None
        return Ended(end - start, said, exit_ms, late)


def unused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def rig() -> Iterator[Rig]:
    """A rig, and nothing left of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="cmdorc-bench-") as directory:
        made = Rig(Path(directory))
        try:
            yield made
        finally:
            made.sink.close()
