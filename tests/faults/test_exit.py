"""The end of a process waits for nothing: whatever the server does, and with a delivery under way.

In the suite each state is tried once, against a bound that only a real wait exceeds. ``make exit-test`` tries each
twenty times, in turn with the same program without telemetry, and prints what the end took.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmdorc_telemetry.testing import FaultServer, Forward, slow
from cmdorc_telemetry.testing.script import Faults

if TYPE_CHECKING:
    from .conftest import Machine
    from .receivers import RealServer

ENDING = Path(__file__).with_name("ending.py")
SILENT_DNS = Path(__file__).with_name("silent_dns.py")
EVENTS = 51
ROUNDS = int(os.environ.get("EXIT_ROUNDS", "1"))
REAL_WAIT = 5.0
RESOLVING = "cmdorc-telemetry-dns"

STATES: dict[str, Faults] = {
    "fine": None,
    "slow": slow(3.0),
    "hanging": "hang-after-reading",
    "refusing": "refused",
    "black hole": "black-hole",
    "silent DNS": None,
    "importing": "hang-before-reading",
}
"""What the server does as the process ends. Importing: the reporter's libraries are on their way in, nothing is yet."""


def silent_dns(folder: Path) -> tuple[list[str], list[str]]:
    """What to put before and behind a program for a name service that never answers: the real one where that works."""
    private = ["unshare", "--map-root-user", "--mount", "--net", sys.executable, str(SILENT_DNS), str(folder)]
    try:
        tried = subprocess.run([*private, "-c", ""], capture_output=True, check=False)
    except FileNotFoundError:
        return [sys.executable], ["--silent-names"]
    return (private, []) if tried.returncode == 0 else ([sys.executable], ["--silent-names"])


def end_of(command: list[str], environ: dict[str, str], under_way: Callable[[], None]) -> float:
    """Milliseconds from a program's last statement to when its parent knows that it is gone."""
    program = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        assert program.stdout.readline() == "ready\n"
        under_way()
        program.stdin.write("\n")
        program.stdin.flush()
        last = float(program.stdout.readline())
        assert program.wait() == 0  # without a timeout: with one, it would look only now and then
        return (time.monotonic() - last) * 1000
    finally:
        program.kill()
        program.communicate()


def connecting(port: int) -> int:
    """How many connections to a port this machine is about to make, where the system tells."""
    table = Path("/proc/net/tcp")
    lines = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]] if table.exists() else []
    return sum(line[3] == "02" and line[2].endswith(f":{port:04X}") for line in lines)


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("state", STATES)
def test_nobody_waits_for_the_end(
    state: str,
    tmp_path: Path,
    machine: Callable[[str, FaultServer], Machine],
    real_server: RealServer,
    install: Callable[[Machine], str],
) -> None:
    before, behind = silent_dns(tmp_path) if state == "silent DNS" else ([sys.executable], [])
    if state == "silent DNS":
        behind += ["--until", RESOLVING]
    with FaultServer(faults=STATES[state], answer=Forward(real_server.url), tls=state == "silent DNS") as server:
        endpoint = server.endpoint.replace("127.0.0.1", "telemetry.test") if state == "silent DNS" else server.endpoint
        here = machine("http", server)
        here.agree(f'plugin = "http"\nendpoint = "{endpoint}"', timeout=10)
        took: dict[str, list[float]] = {"on": [], "off": []}
        for number in range(1, ROUNDS + 1):
            seen, struck, full = len(server.seen), server.injected.total(), connecting(server.port)
            first = number * 1000

            under_way = {
                "fine": lambda seen=seen: server.wait_for(lambda server: len(server.seen) > seen),
                "refusing": lambda: here.wait_for(here.failed),
                "black hole": lambda full=full: here.wait_for(lambda: connecting(server.port) > full),
                "silent DNS": lambda: None,
                "importing": lambda: here.wait_for(here.began),
            }.get(state, lambda struck=struck: server.wait_for(lambda server: server.injected.total() > struck))
            here.forget_pauses()
            command = [*before, str(ENDING), str(first), *behind]
            took["on"].append(end_of(command, here.environ, under_way))
            took["off"].append(end_of(command, here.environ | {"DO_NOT_TRACK": "1"}, lambda: None))
            here.serials += range(first, first + EVENTS)
            assert took["on"][-1] < REAL_WAIT * 1000
        server.fail(None)
        ledger = here.deliver()
        stored = real_server.durations(install(here))
        assert sorted(here.serials) == sorted(stored.elements())
        assert (ledger.pending, ledger.acknowledged) == (0, len(here.serials))
    off, on = ("/".join(f"{each:.0f}" for each in (min(times), statistics.median(times), max(times)))
               for times in (took["off"], took["on"]))  # fmt: skip
    more = statistics.median(took["on"]) - statistics.median(took["off"])
    how = " (resolver in a namespace)" if before[0] == "unshare" else ""
    print(f"\n{state + how:<40} without {off:>12}   with {on:>12} ms (min/median/max)   median {more:+.1f} ms")
