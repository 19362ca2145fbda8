"""A real server behind a failing one, a home that agreed to report to it, and programs that do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry import Telemetry, TelemetryLevel
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import FaultServer, names
from cmdorc_telemetry.types import Ledger

from ..agreement import agree
from .receivers import RealServer

PROGRAM = Path(__file__).with_name("program.py")
BIN = Path(sys.executable).parent
LONG = 40.0


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """One for all tests of a process: installs tell them apart."""
    store = tmp_path_factory.mktemp("real") / "reports.db"
    command = [str(BIN / "cmdorc-telemetry-server"), "serve", "--port", "0", "--store", str(store), "--rate-limit", "0"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield RealServer(process.stdout.readline().split()[-1], store)
    process.terminate()
    process.communicate(timeout=15)


def environment(**more: str) -> dict[str, str]:
    """The environment of a program: nothing of this machine's telemetry, and no coverage, which a kill would spoil."""
    unwanted = ("CMDORC", "DO_NOT", "COVERAGE", "SSL_", "HTTPS_PROXY", "https_proxy")
    return {key: value for key, value in os.environ.items() if not key.startswith(unwanted)} | more


class Machine:
    """A home directory that agreed, the programs on it, and its ledger."""

    def __init__(self, root: Path, name: str, server: FaultServer) -> None:
        self.home, self.name, self.server = Home(root), name, server
        self.serials: list[int] = []
        """What was captured: every event whose hook returned."""
        self.environ = environment(CMDORC_HOME=str(root))
        if server.scheme == "https":
            self.environ["SSL_CERT_FILE"] = str(server.authority)
        self._started, self._since = 0, 0.0

    def agree(self, settings: str, *, timeout: float) -> None:
        """Write the configuration, and say yes to it where nobody did."""
        self.home.root.mkdir(exist_ok=True)
        lines = ["[telemetry]", f'plugins = ["{self.name}"]', f"[telemetry.to.{self.name}]", settings,
                 f"timeout = {timeout}", "[telemetry.bounds]", "pause_seconds = 1", "batch_seconds = 1"]  # fmt: skip
        self.home.config.write_text("\n".join(lines))
        if not self.home.consent.exists():
            agree(self.home, TelemetryLevel.MINIMAL)

    def program(self, *how: str) -> subprocess.Popen[bytes]:
        """Start one that captures."""
        self._started += 1
        command = [sys.executable, str(PROGRAM), str(self._started * 1_000_000), *how]
        return subprocess.Popen(command, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self, program: subprocess.Popen[bytes], *, kill: bool) -> None:
        """End it, note what it had captured."""
        if kill:
            program.kill()
        output, _ = program.communicate(timeout=LONG)
        assert (program.returncode == 0) is not kill
        self.serials += [int(line) for line in output.split(b"\n")[:-1]]

    def ledger(self) -> Ledger | None:
        """The ledger of the destination as it is on disk at this moment, checked; None where there is none yet."""
        if not self.home.spool.exists():
            return None
        with closing(Spool(self.home.spool)) as spool:
            ledger = spool.ledger().get(self.name)
        if ledger is not None:
            assert ledger.recorded == ledger.acknowledged + ledger.pending + sum(ledger.dropped.values()), str(ledger)
        return ledger

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true; the ledger is to be right all the while."""
        deadline = time.monotonic() + LONG
        while not condition():
            self.ledger()
            assert time.monotonic() < deadline, f"{self.ledger()}; {dict(self.server.injected)}"
            time.sleep(0.02)

    def began(self) -> bool:
        """Whether somebody has begun to send since ``forget_pauses``."""
        with closing(Spool(self.home.spool)) as spool:
            return spool.mark(self.name) > self._since

    def failed(self) -> bool:
        """Whether somebody has tried in vain since ``forget_pauses``."""
        with closing(Spool(self.home.spool)) as spool:
            return spool.state(self.name)[0] > 0

    def forget_pauses(self) -> None:
        """Have the next program send at once, however often the last one failed."""
        self._since = time.time()
        if self.home.spool.exists():
            with closing(Spool(self.home.spool)) as spool:
                spool.hurry()

    def deliver(self) -> Ledger:
        """Send all that waits from this process, or where trust is a matter of the environment, from another."""
        if self.server.scheme == "https":
            done = subprocess.run([sys.executable, "-c", FLUSH], env=self.environ, timeout=LONG, check=False)
            assert done.returncode == 0
        else:
            with names({"telemetry.test": "127.0.0.1"}):
                telemetry = Telemetry.start(environ=self.environ)
                self.wait_for(lambda: telemetry.flush(10))
                telemetry.close()
        ledger = self.ledger()
        assert ledger is not None
        return ledger


FLUSH = """
import sys
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.testing import names
with names({"telemetry.test": "127.0.0.1"}):
    telemetry = Telemetry.start()
    done = any(telemetry.flush(10) for _ in range(3))
    telemetry.close()
sys.exit(not done)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str, FaultServer], Machine]:
    """``machine(name, server)``: a home whose destination ``name`` is ``server``."""
    return lambda name, server: Machine(tmp_path / "home", name, server)


@pytest.fixture
def install() -> Callable[[Machine], str]:
    """The install id of a machine."""
    return lambda machine: ensure_identity(machine.home).install_id
