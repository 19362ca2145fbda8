"""The README's plugins work as they stand: at most ten lines, discovered, called, and true to their kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import blocks, entry_points, example, install, page

README = page("README.md")
PLUGINS = ("bell", "jot")
PROGRAM = """
import asyncio, cmdorc
from cmdorc_telemetry import TelemetryOrchestrator
async def main():
    config = cmdorc.RunnerConfig(commands=[cmdorc.CommandConfig(name="A", command="exit 1", triggers=[])])
    async with TelemetryOrchestrator(config) as orchestrator:
        await (await orchestrator.run_command("A")).wait()
    orchestrator.telemetry.flush(10)
asyncio.run(main())
"""


CONTRACTS = """
from contextlib import contextmanager
from pathlib import Path
import pytest
from cmdorc_telemetry.testing import LifecycleContract, ReporterContract

class TestBell(LifecycleContract):
    plugin = "bell"

class TestJot(ReporterContract):
    plugin = "jot"

    @pytest.fixture(autouse=True)
    def here(self, _contract, monkeypatch):
        monkeypatch.chdir(self.folder)

    def received(self):
        file = self.folder / "jotted.txt"
        return [line.split()[-1] for line in file.read_text().splitlines()] if file.exists() else []

    @contextmanager
    def broken(self):
        (self.folder / "jotted.txt").mkdir()
        yield
        (self.folder / "jotted.txt").rmdir()
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Both plugins as an installer leaves them: a module and a distribution's metadata."""
    site = tmp_path / "site"
    for name in PLUGINS:
        (points,) = (block for block in blocks(README, "toml") if f'{name} = "{name}"\n' in block)
        module = {f"{name}.py": example(README, f"{name}.py")}
        install(site, module, entry_points(f"[project]\n{points}"), name)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
    return {**environ, "PYTHONPATH": str(site), "CMDORC_HOME": str(tmp_path / "home")}


def run(environ: dict[str, str], cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", PLUGINS)
def test_an_example_is_at_most_ten_lines(name: str) -> None:
    assert len([line for line in example(README, f"{name}.py").splitlines() if line.strip()]) <= 10


def test_each_keeps_what_its_kind_promises(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(CONTRACTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    told = run(installed, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider").stdout
    assert "passed" in told
    assert "skipped" not in told


def test_a_lifecycle_plugin_runs_without_telemetry_being_on(installed: dict[str, str], tmp_path: Path) -> None:
    assert run(installed, tmp_path, "-c", PROGRAM).stdout == ""
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "enable", "bell")
    rung = run(installed, tmp_path, "-c", PROGRAM)
    assert (rung.stdout, rung.stderr) == ("", "\a")
    assert not (tmp_path / "home" / "telemetry").exists()


def test_a_reporter_gets_what_was_agreed_to(installed: dict[str, str], tmp_path: Path) -> None:
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "enable", "jot")
    run(installed, tmp_path, "-c", PROGRAM)
    assert not (tmp_path / "jotted.txt").exists()
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "opt-in", "--level", "minimal", "--yes")
    run(installed, tmp_path, "-c", PROGRAM)
    events = [line.split()[0] for line in (tmp_path / "jotted.txt").read_text().splitlines()]
    assert sorted(events) == ["command_completed", "orchestrator_started", "orchestrator_stopped"]
