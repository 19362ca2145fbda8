"""A server that captures events as PostHog documents it, and does to them what PostHog does where it is let."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cmdorc_telemetry.testing import Answer, Fault, FaultServer, Request
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_posthog import PosthogReporter

NAME = "posthog"
KEY = "phc_ofThisProject"
INSTALL = "6f1e1d3a-5b1c-4b6f-9d5e-000000000001"
BIN = Path(sys.executable).parent
LONG = 40.0
MakeEvent = Callable[..., BatchEvent]
MakeBatch = Callable[..., Batch]


class Project:
    """A project of PostHog's: what it keeps of what is posted to ``/batch/``.

    It follows the documentation of the capture API, and where that is silent the source: what has no name or id is
    ignored and answered 200; a larger event than a megabyte and an invalid UUID, too; one that is known is one.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[str, ...], dict[str, Any]] = {}
        """What tells events apart → the event."""
        self.received = 0
        """Events that came, those that came again included."""
        self.ignored: list[str] = []
        """Why something was thrown away although the answer was 200."""
        self.persons: set[str] = set()
        self.historical: list[bool] = []
        self._lock = threading.Lock()

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.kept.values())

    def ids(self) -> set[str]:
        return {event["uuid"] for event in self.events}

    def __call__(self, request: Request) -> Answer:
        if (request.method, request.path) != ("POST", "/batch/"):
            return Answer(404, b"Not Found")
        if request.headers.get_content_type() != "application/json":
            return Answer.json({"type": "validation_error", "detail": "wrong content type"}, 400)
        if len(request.plain) >= 20_000_000:
            return Answer(413, b"length limit exceeded")
        try:
            body = json.loads(request.plain)
            key, batch = body["api_key"], body["batch"]
        except (ValueError, KeyError, TypeError):
            return Answer(400, b"failed to parse request")
        if key != KEY:
            return Answer(401, b"API key is not valid")
        if not batch:
            return Answer(400, b"request holds no event")
        with self._lock:
            self.historical.append(body.get("historical_migration", False))
            for event in batch:
                self._take(event, body.get("sent_at"), request.peer[0])
        return Answer.json({"status": "Ok"})

    def _take(self, event: dict[str, Any], sent_at: str | None, address: str) -> None:
        self.received += 1
        if not event.get("event") or not event.get("distinct_id"):
            self.ignored.append("no event or no distinct_id")
            return
        if len(json.dumps(event)) > 1_000_000:
            self.ignored.append("larger than a megabyte")
            return
        try:
            uuid = str(UUID(event["uuid"]))
            datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
        except ValueError as fault:
            self.ignored.append(str(fault))
            return
        properties = dict(event.get("properties", {}))
        if not properties.get("$ip"):
            properties["$ip"] = address
        if not properties.get("$geoip_disable"):
            properties["$geoip_country_name"] = "Atlantis"
        if sent_at is not None:
            properties["$sent_at"] = sent_at
        if properties.get("$process_person_profile", True):
            self.persons.add(event["distinct_id"])
        apart = (uuid, event["event"], event["distinct_id"], event["timestamp"][:10])
        self.kept[apart] = {**event, "properties": properties}


class Server(FaultServer):
    """Does what it ``will``, one thing a request, and afterwards as PostHog does."""

    def __init__(self) -> None:
        self._next: list[str | Fault] = []
        self.project = Project()
        super().__init__(faults=lambda request: self._next.pop(0) if self._next else None, answer=self.project)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will(self, *faults: str | Fault) -> None:
        """The next requests fare like this."""
        self._next += faults

    def will_answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """The next request gets this answer, and nothing is taken."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.will(Fault("told", "the answer that a test gives",
                        act=lambda exchange: exchange.reply(Answer(status, body, named))))  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
async def reporter(server: Server) -> AsyncIterator[PosthogReporter]:
    reporter = PosthogReporter(PosthogReporter.Settings(endpoint=server.url, api_key=KEY))
    yield reporter
    await reporter.close()


@pytest.fixture
def made() -> MakeEvent:
    """Makes an event as the gate lets it out; ``None`` as a value takes a field away."""

    def make(number: int = 0, **more: Any) -> BatchEvent:
        event_id = more.pop("event_id", f"0198c0de-0000-7000-8000-{number:012}")
        body = {"event": "command_completed", "cmdorc_version": "0.12.0", "os": "linux", "spec": "cmdorc.core@1",
                "anonymous_install_id": INSTALL, "timestamp": "2026-01-02T03:04:05Z", "event_id": event_id,
                "duration_ms": number, "state": "success", **more}  # fmt: skip
        kept = {name: value for name, value in body.items() if value is not None}
        return BatchEvent(event_id, "command_completed", json.dumps(kept, separators=(",", ":")).encode())

    return make


@pytest.fixture
def batch(made: MakeEvent) -> MakeBatch:
    """``batch(3)``: three events; ``batch(event, …)``: these. Other arguments go to ``Batch``."""

    def make(*events: BatchEvent | int, **more: Any) -> Batch:
        if len(events) == 1 and isinstance(events[0], int):
            events = tuple(made(number) for number in range(events[0]))
        return Batch(destination="posthog", events=events, **more)  # type: ignore[arg-type]

    return make


# -- a machine with telemetry -----------------------------------------------------------------------------------------


class Machine:
    """A home whose user said yes to one destination, the programs on it, and its ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        unwanted = ("CMDORC", "DO_NOT", "COVERAGE", "SSL_", "HTTPS_PROXY", "https_proxy", "CI")
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
        self.environ["CMDORC_HOME"] = str(root)

    def agree(self, settings: str, **bounds: int) -> None:
        """Write the configuration and say yes to it."""
        self.root.mkdir(exist_ok=True)
        limits = {"pause_seconds": 1, "batch_seconds": 1, **bounds}
        lines = ["[telemetry]", f'plugins = ["{NAME}"]', f"[telemetry.to.{NAME}]", settings, "timeout = 2",
                 "[telemetry.bounds]", *(f"{key} = {value}" for key, value in limits.items())]  # fmt: skip
        (self.root / "config.toml").write_text("\n".join(lines))
        self.tell("opt-in", "--yes", "--level", "standard")

    def tell(self, *arguments: str, code: int = 0) -> bytes:
        """What a command of ``cmdorc-telemetry`` prints."""
        done = subprocess.run([BIN / "cmdorc-telemetry", *arguments], env=self.environ, cwd=self.root, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT if code else subprocess.PIPE,
                              timeout=LONG)  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    def start(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        """A program on this machine."""
        command = [sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.Popen(command, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ledger(self) -> dict[str, Any]:
        """Of the destination; it is right at any moment."""
        (found,) = json.loads(self.tell("status", "--json"))["destinations"]
        ledger: dict[str, Any] = found["ledger"]
        assert ledger["recorded"] == ledger["acknowledged"] + ledger["pending"] + sum(ledger["dropped"].values())
        return ledger


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture
def make_project() -> type[Project]:
    """What makes a receiver with nothing in it."""
    return Project
