"""Two applications that have nothing to do with cmdorc, each a package with a spec and a command line of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cmdorc_telemetry import Application, Telemetry
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import CI_VARIABLES

from ..cli.conftest import Terminal
from ..waiting import LONG

SPEC = """
[meta]
name = "{name}.app"
version = 1
title = "{name}"
owners = ["@{name}"]

[[events]]
name = "{name}.signup"
semantics = {{ what = "Somebody signed up", why = "To see which plans are wanted" }}
[events.properties]
plan = {{ type = "enum", members = ["free", "team"], level = "minimal", required = true }}
duration_ms = {{ type = "duration_ms" }}
locale = {{ type = "string", pattern = "[a-z]{{2}}(-[A-Z]{{2}})?", max_length = 5 }}
code = {{ type = "string", pattern = "ZZ[0-9]{{9}}", max_length = 11 }}
depth = {{ type = "count", level = "debug" }}
who = {{ type = "string", pattern = ".*", max_length = 100, audience = "private" }}
email = {{ type = "string", pattern = ".*", max_length = 100, pii = true, redact = true }}
rest = {{ type = "json" }}

[[events]]
name = "{name}.page"
semantics = {{ what = "A page was shown" }}
[events.properties]
pages = {{ type = "count" }}
"""
MODULE = """
from pathlib import Path
import click
from cmdorc_telemetry import Application

APP = Application("{name}", "2.4.1", specs=(Path(__file__).with_name("{name}.telemetry.toml"),))

@click.group()
def main():
    pass

main.add_command(APP.commands())
"""


class Acme:
    """An application on a machine: its package, its home, its commands."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        package = folder / "site" / name
        package.mkdir(parents=True)
        self.spec_file = package / f"{name}.telemetry.toml"
        self.spec_file.write_text(SPEC.format(name=name))
        (package / "__init__.py").write_text(MODULE.format(name=name))
        (package / "__main__.py").write_text(f"from {name} import main\nmain(prog_name='{name}')\n")

    @property
    def application(self) -> Application:
        found: Application = importlib.import_module(self.name).APP
        return found

    @property
    def home(self) -> Home:
        return Home.of(self.application)

    @property
    def event(self) -> str:
        return f"{self.name}.signup"

    def __call__(self, *args: str, code: int = 0) -> Result:
        """Run a command, mounted in the application's own command line."""
        main: click.Group = importlib.import_module(self.name).main
        result = CliRunner().invoke(main, ["telemetry", *args], prog_name=self.name)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == code, result.output
        return result

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json").stdout)

    def opt_in(self, *args: str) -> None:
        self("opt-in", "--yes", *args)

    def config(self, text: str) -> None:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(text)

    def start(self, **options: Any) -> Telemetry:
        return Telemetry.start(self.application, **options)

    def record(self, *plans: str) -> None:
        """A program that recorded, and ended."""
        telemetry = self.start()
        for plan in plans or ("free",):
            assert telemetry.track(self.event, {"plan": plan, "duration_ms": 7, "locale": "en", "who": "Ann"})
        telemetry.close()

    def process(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command of its own command line, a process of its own."""
        return subprocess.run([sys.executable, "-m", self.name, "telemetry", *args], capture_output=True, text=True,
                              check=False, timeout=LONG)  # fmt: skip

    def stored(self) -> list[dict[str, Any]]:
        """The bodies that the history has, the oldest first."""
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(self.home.history)) as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM event ORDER BY id")]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nothing was said about telemetry yet."""
    for name in [*CI_VARIABLES, *os.environ]:
        if name in CI_VARIABLES or name.startswith(
            ("CMDORC", "ACME", "BOLT", "DO_NOT", "NO_COLOR", "FORCE", "COLUMNS")
        ):
            monkeypatch.delenv(name, raising=False)
    for folder in ("user", "work", "site"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)


def _made(name: str, folder: Path) -> Iterator[Acme]:
    yield Acme(name, folder)
    sys.modules.pop(name, None)


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Acme]:
    yield from _made("acme", tmp_path)


@pytest.fixture
def bolt(tmp_path: Path) -> Iterator[Acme]:
    yield from _made("bolt", tmp_path)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Commands of an application on a terminal."""
    opened: list[Terminal] = []

    def start(whose: Acme, *args: str) -> Terminal:
        opened.append(Terminal(python=("-m", whose.name, "telemetry", *args)))
        return opened[-1]

    yield start
    for each in opened:
        each.process.kill()
        each.process.wait()
        if each.process.stdout is not None:
            each.process.stdout.close()
