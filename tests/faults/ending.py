"""A program whose end is timed: ``ending.py FIRST_SERIAL [--silent-names] [--until THREAD]``.

Captures, lives long enough for delivery to begin, and says so; after a line of input, its last statement prints the
moment, and the serial numbers are known to be those from FIRST_SERIAL on, 51 of them.
"""

from __future__ import annotations

import sys
import threading
import time

from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.recorder import START_SECONDS

COUNT = 51


def main() -> None:
    if "--silent-names" in sys.argv:
        from cmdorc_telemetry.testing import names

        names().__enter__()  # until the process ends
    telemetry, first = Telemetry.start(CMDORC._replace(version="0.12.0")), int(sys.argv[1])
    for serial in range(first, first + COUNT):
        if serial == first + COUNT - 1:
            time.sleep(START_SECONDS * 1.1)  # what is recorded now has delivery begin
        run = CompletedRun(run_id="r", command_name="c", state="success", duration=serial / 1000)
        telemetry.fire("cmdorc_completed", run)
    if "--until" in sys.argv:
        wanted = sys.argv[sys.argv.index("--until") + 1]
        while telemetry.recording and not any(thread.name == wanted for thread in threading.enumerate()):
            time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.readline()
    print(time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
