"""The long tests in short: what is killed loses nothing; `make kill-test` and `make soak` do more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LONG = Path(__file__).parent / "long"


def passes(script: str, *arguments: object) -> str:
    """Run one of the long tests; what it printed."""
    command = [sys.executable, str(LONG / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout)  # with the seed
    assert done.returncode == 0
    return done.stdout


@pytest.mark.timeout(240)
def test_of_what_is_killed_every_event_arrives_once() -> None:
    said = passes("kill.py", "--kills", 100, "--once", 10)
    assert "\nlost        0\n" in said


@pytest.mark.timeout(120)
def test_many_processes_and_a_flapping_server_lose_nothing() -> None:
    said = passes("soak.py", "--events", 20_000, "--seconds", 90)
    assert "\nlost        0\n" in said


@pytest.mark.timeout(120)
def test_where_no_process_lives_long_what_waited_long_is_sent_at_once() -> None:
    said = passes("short_lived.py", "--processes", 12, "--only", 2, "--rule", "PATIENCE_SECONDS=0")
    arrived = re.search(r"arrived meanwhile (\d+) of (\d+)", said)
    assert arrived is not None
    assert 0 < int(arrived[1]) <= int(arrived[2])
