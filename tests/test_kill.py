"""The long tests in short: what is killed loses nothing; `make kill-test` and `make soak` do more."""

from __future__ import annotations

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
    said = passes("kill.py", "--kills", 100, "--once", 20)
    assert "\nlost        0\n" in said


@pytest.mark.timeout(120)
def test_many_processes_and_a_flapping_server_lose_nothing() -> None:
    said = passes("soak.py", "--events", 20_000, "--seconds", 90)
    assert "\nlost        0\n" in said
