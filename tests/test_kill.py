"""The long tests in short: what is killed loses nothing; `make kill-test` and `make soak` do more."""

from __future__ import annotations

import importlib
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


COUNTING = """
from pathlib import Path
from sys import argv
from programs import Tally
tally = Tally(Path(argv[1]))
for number in range(1, 1_000_000):
    tally[1, "returned"] = number
"""


def test_what_a_process_counted_is_whole_at_whichever_moment_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(LONG))
    tally = importlib.import_module("programs").Tally(tmp_path / "tally", 3)
    before = 0
    with subprocess.Popen([sys.executable, "-c", COUNTING, str(tmp_path / "tally")], cwd=LONG) as counting:
        while counting.poll() is None:
            number = tally[1, "returned"]
            assert number >= before
            before = number
    assert counting.returncode == 0
    assert (tally[1, "returned"], tally.total("returned"), tally.total("sent")) == (999_999, 999_999, 0)


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
    # How many it takes is a matter of how busy the machine is: mostly ten.
    said = passes("short_lived.py", "--processes", 100, "--until-sent", "--only", 2, "--rule", "PATIENCE_SECONDS=0")
    arrived = re.search(r"arrived meanwhile (\d+) of (\d+)", said)
    assert arrived is not None
    assert 0 < int(arrived[1]) <= int(arrived[2])
