"""What the README shows does what it says: files as they stand there, real commands, an alert on the terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.lint import lint

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```toml\n# ~/\.cmdorc/(\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
PROGRAM = """
import asyncio
from cmdorc_telemetry.testing import run

asyncio.run(run({"Build": ("exit 1", ["changed"])}, *["changed"] * 11))
"""


def test_the_whole_spec_tells_of_a_command_that_fails(tmp_path: Path) -> None:
    home = tmp_path / ".cmdorc"
    home.mkdir(mode=0o700)
    for name, text in FILES.items():
        (home / name).write_text(text)
    told = [python(tmp_path, *words) for words in (
        ["-m", "cmdorc_telemetry", "opt-in", "--local", "--yes"], ["-c", PROGRAM], ["-m", "cmdorc_telemetry", "flush"],
    )]  # fmt: skip
    assert "my.command_ended Build: share of failures is 100 %, above 20 % (11 events in 60 min)" in "".join(told)


def python(folder: Path, *words: str) -> str:
    """What a program says beside its results, whose user is at home in ``folder``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT", "CI"))}
    done = subprocess.run([sys.executable, *words], env={**kept, "HOME": str(folder)}, cwd=folder, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_whole_spec_is_sound_and_shares_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checks.telemetry.toml"
    path.write_text(FILES["checks.telemetry.toml"])
    spec = load_spec(path)
    assert lint(spec, date(2026, 1, 1)) == []
    assert not [event for event in spec.events if event.shared_at("debug")]


def test_the_threshold_of_cmdorcs_own_spec_is_the_one_it_names() -> None:
    found = [(event.name, each.metric, each.min, each.max, event.anomaly_detection.minimum_sample)
             for event in load_spec(CORE).events if event.anomaly_detection
             for each in event.anomaly_detection.thresholds]  # fmt: skip
    assert found == [("command_completed", "duration_ms", None, 600_000, 20)]
