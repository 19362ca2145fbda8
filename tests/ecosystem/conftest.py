"""Every plugin of this repository, with what each needs to work, and a server that takes whatever they send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry import CompletedRun, Session, Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.discovery import installed
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import Answer, FaultServer, Request
from cmdorc_telemetry.types import Ledger

from ..agreement import agree

DISTRIBUTIONS = Path(__file__).parents[2] / "plugins"
PLUGINS = sorted(point.name for point in installed() if (DISTRIBUTIONS / point.distribution).is_dir())
"""Those of this repository, however many there are by now."""
TABLES = {
    "anomaly": "",
    "anonymizer": "[telemetry.settings.anonymizer.fields.arch]\nremove = true\n",
    "file": '[telemetry.to.file]\npath = "{folder}/events.jsonl"\n',
    "http": '[telemetry.to.http]\nendpoint = "{server}/ours"\n',
    "otlp": '[telemetry.to.otlp]\nendpoint = "{server}/otlp"\n',
    "posthog": '[telemetry.to.posthog]\nendpoint = "{server}"\napi_key = "k"\n',
    "prometheus": '[telemetry.to.prometheus]\naudience = "private"\npath = "{folder}/metrics.prom"\n',
    "segment": '[telemetry.to.segment]\nendpoint = "{server}"\nwrite_key = "k"\n',
}
"""What each plugin is told."""
LONG = 40.0
RUNS = 5


def answer(request: Request) -> Answer:
    """What a receiver of each kind says that took everything."""
    if request.path.startswith("/ours"):
        ids = [json.loads(line)["event_id"] for line in request.plain.splitlines()]
        return Answer.json(
            {"message": "Thanks!", "results": [{"event_id": each, "status": "accepted"} for each in ids]}
        )
    if request.path.startswith("/otlp"):
        return Answer(200, b"", {"Content-Type": "application/x-protobuf"})
    return Answer.json({"success": True, "status": "Ok"})


class Place:
    """A user who agreed to everything that the plugins want."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.home.root.mkdir()
        self._server = server.endpoint.removesuffix("/v1")

    def enable(self, *names: str) -> None:
        told = {"folder": self.folder, "server": self._server}
        tables = "".join(TABLES[name].format_map(told) for name in names)
        listed = ", ".join(f'"{name}"' for name in names)
        self.home.config.write_text(f"[telemetry]\nplugins = [{listed}]\n{tables}", encoding="utf-8")
        agree(self.home)

    @property
    def environ(self) -> dict[str, str]:
        return {"CMDORC_HOME": str(self.home.root)}

    def use(self) -> tuple[dict[str, str], dict[str, Ledger]]:
        """A program that runs some commands. What its plugins failed in, and where everything is in the end."""
        telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"), environ=self.environ)
        telemetry.fire("cmdorc_startup", Session(id="s", started_at=0.0, command_count=2))
        for number in range(RUNS):
            run = CompletedRun(run_id=f"r{number}", command_name="Tests", state="success", duration=1.0)
            telemetry.fire("cmdorc_completed", run)
        done = telemetry.flush(LONG)
        telemetry.close()
        with closing(Spool(self.home.spool, reading=True)) as spool:
            ledger = spool.ledger()
        assert done, ledger
        return dict(telemetry.failures), ledger


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with FaultServer(answer=answer) as server:
        yield Place(tmp_path, server)
