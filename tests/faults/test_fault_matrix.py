"""Every fault × every reporter over HTTP × a program that is killed or ends: nothing is lost, nothing counts twice.

Between a real program and the receiver stands a server that fails. When the faults are over, the next process delivers;
then every event that was captured is at the receiver once, also where only its answer had been lost. The ledger on
disk is right at every stage. A part of the matrix is in the suite; ``make fault-matrix`` runs all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from cmdorc_telemetry.testing import FAULTS, FaultServer

from .receivers import REPORTERS, fit, settings

if TYPE_CHECKING:
    from .conftest import Machine
    from .receivers import RealServer

RESTARTS = ("killed", "ended")
SILENT_NAMES = "silent-names"
"""Not a matter of the server: a name service that never answers."""

CELLS = [(fault, reporter, restart) for reporter in REPORTERS for fault in (*fit(reporter), SILENT_NAMES)
         for restart in RESTARTS]  # fmt: skip
if not os.environ.get("FAULT_MATRIX"):  # each fault once over http, killed and ended in turn; and some over others
    CELLS = [cell for number, cell in enumerate(CELLS) if number % (4 if cell[1] == "http" else 11) in (0, 3)]


@pytest.mark.parametrize(("fault", "reporter", "restart"), CELLS)
def test_nothing_is_lost_and_nothing_counts_twice(
    fault: str,
    reporter: str,
    restart: str,
    machine: Callable[[str, FaultServer], Machine],
    real_server: RealServer,
    install: Callable[[Machine], str],
) -> None:
    silent, kill = fault == SILENT_NAMES, restart == "killed"
    tls = silent or FAULTS[fault].tls
    service = REPORTERS[reporter].service
    receiver = real_server if service is None else service()
    with FaultServer(faults=None if silent else fault, answer=receiver.answer, tls=tls) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "telemetry.test") if silent else server.endpoint
        here = machine(reporter, server)
        here.agree(settings(reporter, endpoint), timeout=0.6)
        program = here.program(*["--silent-names"] * silent)
        try:
            if silent or FAULTS[fault].at == "listen":
                here.wait_for(lambda: (ledger := here.ledger()) is not None and ledger.last_error != "")
            else:
                here.wait_for(lambda: server.injected[fault] >= 2)
        finally:
            here.end(program, kill=kill)
        here.ledger()
        assert not (tls and not silent and server.seen), "told something to a server that is not to be trusted"
        server.fail(None)
        here.agree(settings(reporter, endpoint), timeout=20)
        ledger = here.deliver()
        assert "/elsewhere" not in {request.path for request in server.seen}
    stored = receiver.durations(install(here))
    lost = [serial for serial in here.serials if not stored[serial]]
    assert len(here.serials) >= 20
    if fault == "some-rejected":
        assert 0 < len(lost) <= ledger.dropped["rejected-by-server"] <= len(server.rejected)
        assert set(ledger.dropped) == {"rejected-by-server"}
    else:
        assert lost == []
        assert ledger.dropped == {}
    assert [serial for serial, times in stored.items() if times > 1] == []
    assert (ledger.pending, ledger.acknowledged) == (0, len(stored))
    assert ledger.recorded == ledger.acknowledged + sum(ledger.dropped.values())
