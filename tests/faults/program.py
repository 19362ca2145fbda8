"""A program with telemetry, for the tests to end in every way: ``program.py FIRST_SERIAL [HOW]``.

Captures and sends without a pause, and says on stdout which events it has: the serial number of an event travels as
its duration, the one field that a shared body keeps exactly. Ends in an orderly way with its input.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack
from itertools import count

from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.lifecycle import CompletedRun


def capture(telemetry: Telemetry, serials: range) -> None:
    for serial in serials:
        run = CompletedRun(run_id="r", command_name="c", state="success", duration=serial / 1000)
        telemetry.fire("cmdorc_completed", run)
        os.write(1, b"%d\n" % serial)


def work(telemetry: Telemetry, first: int, over: threading.Event) -> None:
    for serial in count(first, 4):
        capture(telemetry, range(serial, serial + 4))
        telemetry.flush(20)  # hurries: this program knows no pauses
        if over.wait(0.02):
            return


def main() -> None:
    with ExitStack() as stack:
        if "--silent-names" in sys.argv:
            from cmdorc_telemetry.testing import names

            stack.enter_context(names())
        telemetry, over = Telemetry.start(CMDORC._replace(version="0.12.0")), threading.Event()
        first = int(sys.argv[1])
        capture(telemetry, range(first, first + 20))
        worker = threading.Thread(target=work, args=(telemetry, first + 20, over), daemon=True)
        worker.start()
        sys.stdin.read()
        over.set()
        telemetry.close()


if __name__ == "__main__":
    main()
