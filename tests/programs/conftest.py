"""Programs that know nothing of telemetry, run by ``exec``, and what the history of their home holds in the end."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import textwrap
import venv
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cmdorc
import msgspec
import pluggy
import pytest

import cmdorc_telemetry
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.home import Home

DEADLINE = 40.0
OURS = [Path(str(module.__file__)).parents[1] for module in (cmdorc, cmdorc_telemetry, msgspec, pluggy)]
"""Where all is that a program needs which is recorded."""


class Place:
    """A home, a working directory, and a user who said yes (``on``) or nothing."""

    def __init__(self, folder: Path) -> None:
        self.home, self.work = Home(folder / "home"), folder / "work"
        self.work.mkdir()
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT", "PYTHONPATH"))
        }
        self.off = {**kept, "CMDORC_HOME": str(self.home.root)}
        self.on = {**self.off, "CMDORC_TELEMETRY": "standard"}
        self._begun: list[subprocess.Popen[str]] = []

    def script(self, code: str, name: str = "program.py", *, shebang: str = "") -> Path:
        """A Python file; with ``shebang``, one that can be executed."""
        path = self.work / name
        path.write_text(f"{shebang}\n" * bool(shebang) + textwrap.dedent(code), encoding="utf-8")
        if shebang:
            path.chmod(0o755)
        return path

    def begin(self, *words: object, plain: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Start a program: by ``exec``, or ``plain`` as it is."""
        before = () if plain else (sys.executable, "-m", "cmdorc_telemetry", "exec")
        options = {
            "env": self.on,
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | options
        self._begun.append(subprocess.Popen([*before, *map(str, words)], cwd=self.work, text=True, **options))
        return self._begun[-1]

    def __call__(self, *words: object, **options: Any) -> tuple[int, str, str]:
        """Run a program to its end: exit code, standard output, standard error."""
        begun = self.begin(*words, **options)
        out, err = begun.communicate(timeout=DEADLINE)
        return begun.returncode, out, err

    def events(self) -> list[dict[str, Any]]:
        """All that was recorded, in order, as soon as it arrived. Triggers apart: each run makes some."""
        telemetry = Telemetry.start(environ=self.on)
        assert telemetry.flush(DEADLINE)
        telemetry.close()
        if not self.home.history.exists():
            return []
        with closing(sqlite3.connect(self.home.history)) as db:
            found = db.execute("SELECT body FROM event WHERE name <> 'trigger_fired' ORDER BY id")
            return [json.loads(body) for (body,) in found]

    def counts(self) -> Counter[str]:
        """How many of each event; runs by the name of their command."""
        return Counter(str(event.get("command_name", event["event"])) for event in self.events())

    def end(self) -> None:
        for program in self._begun:
            if program.poll() is None:
                program.kill()
            program.communicate()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


@pytest.fixture
def tmux(place: Place) -> Iterator[Any]:
    """A terminal: what is typed there, and what it shows."""
    server = f"exec-{os.getpid()}-{id(place)}"

    def ask(*words: str) -> str:
        command = ["tmux", "-L", server, "-f", "/dev/null", *words]
        return subprocess.run(command, env=place.on, cwd=place.work, text=True, check=True, capture_output=True).stdout

    class Tmux:
        def start(self, *lines: str) -> None:
            ask("new-session", "-d", "-x", "100", "-y", "30", f"bash -c {shlex.quote('; '.join(lines))}")

        def type(self, *keys: str) -> None:
            ask("send-keys", *keys)

        def screen(self) -> str:
            return ask("capture-pane", "-p")

        def end(self) -> None:
            subprocess.run(["tmux", "-L", server, "kill-server"], check=False, capture_output=True)

    made = Tmux()
    yield made
    made.end()


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment, with nothing in it: its Python."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@contextmanager
def having(python: Path, *lines: object) -> Iterator[None]:
    """Let an environment have what is in these folders, and do what these lines say whenever it starts."""
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages" / "having.pth"
    site.write_text("".join(f"{line}\n" for line in lines))
    yield
    site.unlink()
