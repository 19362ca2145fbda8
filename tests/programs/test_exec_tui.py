"""cmdorc-tui, which makes its orchestrators itself and takes the callbacks for itself, in a real terminal."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..waiting import until

TUI = Path(sys.executable).with_name("cmdorc-tui")
TOML = """
[[command]]
name = "Lint"
command = "true"
triggers = []

[[command]]
name = "Tests"
command = "exit 3"
triggers = ["command_success:Lint"]

[[command]]
name = "Serve"
command = "exec sleep 600"
triggers = []

[keyboard]
shortcuts = { Lint = "1", Serve = "3" }
"""
pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux"),
    pytest.mark.skipif(importlib.util.find_spec("textual_cmdorc") is None, reason="no textual-cmdorc"),
]


@pytest.fixture
def tui(place: Any, tmux: Any) -> Any:
    """The application, run in a shell that shows its exit code and the terminal's settings before and after."""
    (place.work / "project.toml").write_text(TOML)
    command = f"{sys.executable} -m cmdorc_telemetry exec {TUI} --config project.toml"
    tmux.start("stty -g > before", command, "echo ended $? > ended", "stty -g > now", "mv now after", "read")
    until(lambda: "Lint" in tmux.screen(), "the application")
    return tmux


def test_it_works_and_is_recorded(place: Any, tui: Any) -> None:
    first = tui.screen()
    tui.type("1")
    until(lambda: tui.screen().count("✅") == 1 and tui.screen().count("❌") == 1, "what its callbacks show")
    assert "telemetry" not in first + tui.screen()
    tui.type("C-q")
    until((place.work / "after").exists, "its end")
    assert (place.work / "ended").read_text() == "ended 0\n"
    assert (place.work / "after").read_text() == (place.work / "before").read_text()
    assert place.counts() == {"orchestrator_started": 1, "Lint": 1, "Tests": 1, "orchestrator_stopped": 1}
    states = {event["command_name"]: event["state"] for event in place.events() if "command_name" in event}
    assert states == {"Lint": "success", "Tests": "failed"}


def test_what_still_runs_when_it_is_left_is_recorded_as_not_final(place: Any, tui: Any) -> None:
    tui.type("3")
    until(lambda: running(place.work), "the command")
    tui.type("C-q")
    until((place.work / "after").exists, "its end")
    for process in running(place.work):
        os.kill(process, 9)
    assert place.counts() == {"orchestrator_started": 1, "Serve": 1, "orchestrator_stopped": 1}
    (run,) = [event for event in place.events() if "command_name" in event]
    assert not run["final"] or run["state"] != "success"


def test_a_terminal_that_is_closed_loses_nothing(place: Any, tui: Any) -> None:
    tui.type("1")
    until(lambda: tui.screen().count("❌") == 1, "the last run")
    tui.end()
    until(lambda: place.counts()["Tests"] == 1, "the runs")
    assert place.counts() - Counter("orchestrator_stopped") >= Counter(
        {"orchestrator_started": 1, "Lint": 1, "Tests": 1}
    )


def running(work: Path) -> list[int]:
    """The processes of commands that run in ``work``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes() == b"sleep\x00600\x00" and (
                folder / "cwd"
            ).resolve() == work.resolve():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
