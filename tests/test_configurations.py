"""Configurations that people really use: what cmdorc accepts runs instrumented, what it refuses it refuses itself."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import cmdorc
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from cmdorc_telemetry import CompletedRun, Trigger, hookimpl, instrument

FOLDER = Path(os.environ.get("CMDORC_CONFIGS") or Path(__file__).parents[2] / "shared" / "data" / "cmdorc-configs")
FILES = sorted(FOLDER.glob("*.toml"))
ACCEPTED = 8

pytestmark = pytest.mark.skipif(not FILES, reason="no collection of cmdorc configurations: name one by CMDORC_CONFIGS")


class Listener:
    def __init__(self) -> None:
        self.runs: list[CompletedRun] = []
        self.triggers: list[Trigger] = []

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        self.runs.append(run)

    @hookimpl
    def cmdorc_trigger(self, trigger: Trigger) -> None:
        self.triggers.append(trigger)


def accepted(path: Path) -> bool:
    try:
        cmdorc.load_config(path)
    except (cmdorc.ConfigValidationError, tomllib.TOMLDecodeError):
        return False
    return True


def test_the_collection_is_the_known_one() -> None:
    assert sum(accepted(path) for path in FILES) == ACCEPTED
    assert len(FILES) - ACCEPTED == 7


@pytest.mark.parametrize("path", [path for path in FILES if accepted(path)], ids=lambda path: path.stem)
async def test_an_accepted_configuration_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMDORC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config = cmdorc.load_config(path)
    harmless = [replace(command, command="true", cwd=None, debounce_in_ms=0) for command in config.commands]
    storage = replace(config.output_storage, directory=str(tmp_path / "outputs"))
    listener = Listener()
    orchestrator = cmdorc.CommandOrchestrator(replace(config, commands=harmless, output_storage=storage))
    instrument(orchestrator, plugins=[listener])
    async with orchestrator:
        patterns = sorted({trigger for command in harmless for trigger in command.triggers})
        for event in (pattern for pattern in patterns if ":" not in pattern and "*" not in pattern):
            await orchestrator.trigger(event)
        for command in harmless:
            try:
                await orchestrator.run_command(command.name)
            except cmdorc.ConcurrencyLimitError:
                continue
        while orchestrator.get_all_active_handles():
            await asyncio.sleep(0.01)
    names = {command.name for command in harmless}
    assert {run.command_name for run in listener.runs} == names
    assert len({run.run_id for run in listener.runs}) == len(listener.runs)
    assert {run.state for run in listener.runs} <= {"success", "cancelled"}
    assert listener.triggers
