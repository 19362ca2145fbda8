"""Threads that capture at once, from the first event on: nothing that they share may be found half-made."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 300
PROGRAM = """
import sys, threading
from cmdorc_telemetry.capture import Capture
from cmdorc_telemetry.spec import CORE, load_spec

sys.setswitchinterval(1e-6)
core = load_spec(CORE)
PROPERTIES = {"duration_ms": 7, "state": "failed", "final": True, "manual": True}
for _ in range(int(sys.argv[1])):
    capture, together, records = Capture([core], {}), threading.Barrier(3), []

    def record():
        together.wait()
        records.append(capture.record("command_completed", PROPERTIES))

    threads = [threading.Thread(target=record) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [b'"duration_ms":7' in each for each in records] == [True] * 3, records
"""


def test_the_first_event_of_several_threads() -> None:
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", PROGRAM, str(ROUNDS)], stderr=subprocess.PIPE,
                          text=True, check=False, timeout=50)  # fmt: skip
    assert done.returncode == 0, done.stderr
