"""The README's plugins work as they stand: at most ten lines, one entry point, discovered and called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
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


def example(name: str) -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(f"# {name}.py\n")]
    return found


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Both plugins as an installer leaves them: a module and a distribution's metadata."""
    site = tmp_path / "site"
    for name in ("bell", "jot"):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(example(name))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name} = {name}\n")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
    return {**environ, "PYTHONPATH": str(site), "CMDORC_HOME": str(tmp_path / "home")}


def run(environ: dict[str, str], cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("name", ["bell", "jot"])
def test_an_example_is_at_most_ten_lines(name: str) -> None:
    assert len([line for line in example(name).splitlines() if line.strip()]) <= 10


def test_a_lifecycle_plugin_runs_without_telemetry_being_on(installed: dict[str, str], tmp_path: Path) -> None:
    assert run(installed, tmp_path, "-c", PROGRAM).stdout == ""
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "enable", "bell")
    assert run(installed, tmp_path, "-c", PROGRAM).stdout == "\a"
    assert not (tmp_path / "home" / "telemetry").exists()


def test_a_reporter_gets_what_was_agreed_to(installed: dict[str, str], tmp_path: Path) -> None:
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "enable", "jot")
    run(installed, tmp_path, "-c", PROGRAM)
    assert not (tmp_path / "jotted.txt").exists()
    run(installed, tmp_path, "-m", "cmdorc_telemetry", "opt-in", "--level", "minimal", "--yes")
    run(installed, tmp_path, "-c", PROGRAM)
    events = [line.split()[0] for line in (tmp_path / "jotted.txt").read_text().splitlines()]
    assert sorted(events) == ["command_completed", "orchestrator_started", "orchestrator_stopped"]
