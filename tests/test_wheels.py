"""What a stranger does, from built wheels in a fresh environment: install, two lines, a yes, and reports arrive."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, cmdorc
from cmdorc_telemetry import instrument
async def main():
    commands = [cmdorc.CommandConfig(name="A", command="true", triggers=["go"]),
                cmdorc.CommandConfig(name="B", command="false", triggers=["command_success:A"])]
    orchestrator = cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=commands))
    instrument(orchestrator)
    async with orchestrator:
        await orchestrator.trigger("go")
        while not orchestrator.get_history("B"):
            await asyncio.sleep(0.01)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def alone(fresh: Callable[..., Path]) -> Path:
    """An environment with cmdorc, in which somebody ran `pip install cmdorc-telemetry-http`."""
    return fresh("cmdorc-telemetry-http", "cmdorc")


def test_reports_arrive_after_two_lines_and_a_yes(alone: Path, wheel_env: Path, tmp_path: Path) -> None:
    home, store = tmp_path / "home", tmp_path / "reports.db"
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("CMDORC", "DO_NOT", "PYTHON", "COVERAGE"))}  # fmt: skip
    environ = {**kept, "CMDORC_HOME": str(home)}

    def run(program: str, *arguments: str, where: Path = alone) -> str:
        done = subprocess.run([where / "bin" / program, *arguments], env=environ, cwd=tmp_path, capture_output=True,
                              text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    server = subprocess.Popen(
        [wheel_env / "bin" / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", store, "--k", "1"],
        env=environ, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().split()[-1]
        home.mkdir()
        (home / "config.toml").write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
        run("cmdorc-telemetry", "opt-in", "--level", "standard", "--yes")
        run("python", "-c", PROGRAM)
        ledger = run("cmdorc-telemetry", "flush", "--timeout", "30")
        found = re.search(r"http: recorded (\d+) = acknowledged \1 \+ pending 0 \+ dropped 0", ledger)
        assert found, ledger
        assert int(found[1]) > 0
        rows = run("cmdorc-telemetry-server", "rows", "--store", str(store), "--json", where=wheel_env)
        assert rows.count('"command_completed"') == 2
        assert '"failed"' in rows
    finally:
        server.terminate()
        server.wait(timeout=10)
        server.stdout.close() if server.stdout else None
