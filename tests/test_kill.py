"""SIGKILL at 100 random moments: every event whose hook returned arrives at a real server exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cmdorc_telemetry import Telemetry, TelemetryLevel
from cmdorc_telemetry.config import Home, load_layer
from cmdorc_telemetry.consent import new_grant, save_grant
from cmdorc_telemetry.spec import CORE, load_spec

BIN = Path(sys.executable).parent
KILLS = 100
AT_ONCE = 4
CAPTURING = """
import os, sys, time
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.types import CompletedRun
telemetry = Telemetry.start(cmdorc_version="0.12.0")
serial = int(sys.argv[1])
while True:  # the serial number travels as the duration: the one field that a shared body keeps exactly
    serial += 1
    telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name="c", state="success",
                                                    duration=serial / 1000))
    os.write(1, b"%d\\n" % serial)
    time.sleep(0.0003)  # a pace that stays within the bounds of journal and spool
"""


def capture_until_killed(number: int, seconds: float, environ: dict[str, str]) -> list[int]:
    """The serial numbers whose hook had returned when the process was killed."""
    process = subprocess.Popen([sys.executable, "-c", CAPTURING, str(number * 1_000_000)], env=environ,
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    data = os.read(pipe, 1 << 16)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        data += os.read(pipe, 1 << 16)
    process.send_signal(signal.SIGKILL)
    data += process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [int(line) for line in data.split(b"\n")[:-1]]


@pytest.mark.timeout(240)
def test_every_event_arrives_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store, home = tmp_path / "reports.db", Home(tmp_path / "home")
    # Without coverage in the children: they are killed before it could write anything.
    environ = {key: value for key, value in os.environ.items()
               if not key.startswith(("CMDORC", "DO_NOT", "COVERAGE"))}  # fmt: skip
    environ["CMDORC_HOME"] = str(home.root)
    server = subprocess.Popen(
        [BIN / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", store, "--rate-limit", "0"],
        env=environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().split()[-1]
        home.root.mkdir()
        home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
        grant = new_grant(load_spec(CORE), TelemetryLevel.MINIMAL, load_layer(home.config).destinations,
                          datetime.now(timezone.utc))  # fmt: skip
        save_grant(home, "cmdorc.core", grant)
        # Most die before they would start to deliver; some while they do.
        moments = [chance.uniform(0, 1.2 if number % 10 == 0 else 0.1) for number in range(KILLS)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            captured = pool.map(lambda n: capture_until_killed(n, moments[n], environ), range(KILLS))
            returned = [serial for serials in captured for serial in serials]
        monkeypatch.setenv("CMDORC_HOME", str(home.root))
        telemetry = Telemetry.start()
        assert telemetry.flush(120)
        assert telemetry.pipeline is not None
        spool = telemetry.pipeline.open_spool()
        ledger = spool.ledger()["http"]
        spool.close()
        telemetry.close()
        rows = subprocess.run(
            [BIN / "cmdorc-telemetry-server", "rows", "--store", store, "--json", "--limit", "100000000"],
            check=True, env=environ, stdout=subprocess.PIPE,
        )  # fmt: skip
        stored = Counter(row["body"]["duration_ms"] for row in json.loads(rows.stdout))
    finally:
        server.terminate()
        server.communicate(timeout=15)
    assert len(returned) > KILLS
    missing = [serial for serial in returned if stored[serial] != 1]
    assert not missing, f"{len(missing)} of {len(returned)} lost or doubled, seed {seed}"
    assert max(stored.values()) == 1
    assert ledger.recorded == ledger.acknowledged == sum(stored.values())
    assert (ledger.pending, sum(ledger.dropped.values())) == (0, 0)
