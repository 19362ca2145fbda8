"""Real cmdorc runs → hooks → journal → gate → spool → http plugin → a real server: the whole way, and back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cmdorc
import pytest

from cmdorc_telemetry import TelemetryLevel, TelemetryOrchestrator
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.types import Ledger

from .agreement import agree

BIN = Path(sys.executable).parent


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "reports.db"


class Servers:
    """Starts server processes; a call returns the endpoint of a new one."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._running: list[subprocess.Popen[str]] = []

    def __call__(self, *options: str, port: int = 0) -> str:
        command = [BIN / "cmdorc-telemetry-server", "serve", "--port", str(port), "--store", self._store, "--k", "1"]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        self._running.append(process)
        assert process.stdout is not None
        return process.stdout.readline().split()[-1]

    def stop(self) -> None:
        """End them all."""
        while self._running:
            process = self._running.pop()
            process.terminate()
            process.communicate(timeout=15)


@pytest.fixture
def serve(store: Path) -> Iterator[Servers]:
    servers = Servers(store)
    yield servers
    servers.stop()


MINE = """
[telemetry]
plugins = ["http"]
[telemetry.to.mine]
plugin = "http"
endpoint = "{}"
audience = "private"
"""


async def session(runs: int = 3, *, flush: float = 20.0) -> dict[str, Ledger]:
    """Some real runs, one of them failing; then the ledger after a flush that includes the shutdown."""
    commands = [
        cmdorc.CommandConfig(name="Secret name", command="true", triggers=["go"], max_concurrent=0),
        cmdorc.CommandConfig(
            name="Fails", command="exit 3", triggers=["command_success:Secret name"], max_concurrent=0
        ),
    ]
    orchestrator = TelemetryOrchestrator(cmdorc.RunnerConfig(commands=commands))
    async with orchestrator:
        for _ in range(runs):
            await orchestrator.trigger("go")
        while orchestrator.get_all_active_handles():
            await asyncio.sleep(0.005)
    telemetry = orchestrator.telemetry
    await asyncio.to_thread(telemetry.flush, flush)
    assert telemetry.pipeline is not None
    spool = telemetry.pipeline.open_spool()
    try:
        ledger = spool.ledger()
    finally:
        spool.close()
    for each in ledger.values():
        assert each.recorded == each.acknowledged + each.pending + sum(each.dropped.values())
    return ledger


def rows(store: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [BIN / "cmdorc-telemetry-server", "rows", "--store", store, "--json", "--limit", "1000"],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stored: list[dict[str, object]] = json.loads(done.stdout)
    return stored


async def test_reports_arrive_and_an_answer_comes_back(home: Home, serve: Servers, store: Path) -> None:
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{serve()}"\n')
    agree(home)
    ledger = (await session())["http"]
    assert ledger.recorded > 0
    assert (ledger.acknowledged, ledger.pending, ledger.dropped) == (ledger.recorded, 0, {})
    assert ledger.answer["stats"]["percentile_duration"] == 50
    stored = rows(store)
    assert len(stored) == ledger.recorded
    text = json.dumps(stored)
    assert "Secret name" not in text
    assert text.count('"command_completed"') == 6


async def test_a_dead_server_loses_and_doubles_nothing(home: Home, serve: Servers, store: Path) -> None:
    endpoint = serve()
    serve.stop()
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
    agree(home)
    first = (await session(flush=8.0))["http"]
    assert first.pending == first.recorded > 0
    assert "no connection" in first.last_error
    assert serve(port=int(endpoint.rsplit(":", 1)[1].split("/")[0])) == endpoint
    second = (await session())["http"]
    assert second.acknowledged == second.recorded > first.recorded
    stored = rows(store)
    assert len({json.dumps(row, sort_keys=True) for row in stored}) == len(stored) == second.recorded


async def test_private_fields_reach_only_a_server_that_is_the_users_own(
    home: Home, serve: Servers, store: Path
) -> None:
    endpoint = serve("--accept-private")
    home.config.write_text(MINE.format(endpoint))
    agree(home, TelemetryLevel.OFF)
    ledger = await session()
    assert ledger["mine"].acknowledged == ledger["mine"].recorded > 0
    assert "Secret name" in json.dumps(rows(store))


async def test_a_server_of_somebody_else_refuses_private_fields(home: Home, serve: Servers, store: Path) -> None:
    endpoint = serve()
    home.config.write_text(MINE.format(endpoint))
    agree(home)
    ledger = (await session())["mine"]
    assert "Secret name" not in json.dumps(rows(store))
    assert ledger.dropped["rejected-by-server"] > 0


async def test_without_the_plugin_events_wait(home: Home, serve: Servers) -> None:
    home.config.write_text('[telemetry]\nplugins = []\nendpoint = "http://127.0.0.1:9/v1"\n')
    agree(home)
    ledger = await session()
    assert ledger["http"].pending == ledger["http"].recorded > 0
    assert ledger["history"].acknowledged == ledger["history"].recorded
