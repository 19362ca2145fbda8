"""A server that takes events as Segment documents it, and does to them what Segment does where it is let."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.testing import Answer, Fault, FaultServer, Request
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_segment import SegmentReporter

NAME = "segment"
KEY = "ofThisSource"
INSTALL = "6f1e1d3a-5b1c-4b6f-9d5e-000000000001"
BIN = Path(sys.executable).parent
LONG = 40.0
MakeEvent = Callable[..., BatchEvent]
MakeBatch = Callable[..., Batch]


class Source:
    """A source of Segment's: what it keeps of what is posted to ``/v1/batch``.

    It follows the documentation of the Tracking API: 400 for what is too large or no JSON, 200 for all else, also for
    what it does not keep: whose key is not known, what has no name or id, and a ``messageId`` that it has seen.
    """

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        """By their ``messageId``."""
        self.received = 0
        """Events that came, those that came again included."""
        self.ignored: list[str] = []
        """Why something was thrown away although the answer was 200."""
        self._lock = threading.Lock()

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.kept.values())

    def ids(self) -> set[str]:
        return set(self.kept)

    def __call__(self, request: Request) -> Answer:
        if (request.method, request.path) != ("POST", "/v1/batch"):
            return Answer(404, b"Not Found")
        if len(request.plain) >= 500_000:
            return Answer.json({"success": False, "message": "exceeded batch size"}, 400)
        try:
            body = json.loads(request.plain)
            batch = body["batch"]
        except (ValueError, KeyError, TypeError):
            return Answer.json({"success": False, "message": "malformed JSON"}, 400)
        if any(len(json.dumps(event, separators=(",", ":"))) >= 32_768 for event in batch):
            return Answer.json({"success": False, "message": "exceeded event size"}, 400)
        user = b64decode(request.headers.get("Authorization", "").removeprefix("Basic "))
        with self._lock:
            if user != f"{KEY}:".encode() or request.headers.get_content_type() != "application/json":
                self.ignored.append("nobody's")
                return Answer.json({"success": True})
            if len(batch) > 2_500:
                self.ignored.append("too many")
                return Answer.json({"success": True})
            for event in batch:
                self._take(event, body, request.peer[0])
        return Answer.json({"success": True})

    def _take(self, event: dict[str, Any], body: dict[str, Any], address: str) -> None:
        self.received += 1
        if event.get("type") != "track" or not event.get("event"):
            self.ignored.append("no track with a name")
            return
        if not (event.get("userId") or event.get("anonymousId")):
            self.ignored.append("no id")
            return
        if not 0 < len(event["messageId"]) < 100:
            self.ignored.append("no messageId that tells it apart")
            return
        context = {**body.get("context", {}), **event.get("context", {})}
        if context.get("direct"):
            context["ip"] = address
        at = datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
        sent_at = event.get("sentAt") or body.get("sentAt")
        if sent_at is not None:  # receivedAt - (sentAt - originalTimestamp)
            at += datetime.now(timezone.utc) - datetime.fromisoformat(sent_at.replace("Z", "+00:00"))
        self.kept.setdefault(event["messageId"], {**event, "context": context, "timestamp": at})


class Server(FaultServer):
    """Does what it ``will``, one thing a request, and afterwards as Segment does."""

    def __init__(self) -> None:
        self._next: list[str | Fault] = []
        self.source = Source()
        super().__init__(faults=lambda request: self._next.pop(0) if self._next else None, answer=self.source)

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
async def reporter(server: Server) -> AsyncIterator[SegmentReporter]:
    reporter = SegmentReporter(SegmentReporter.Settings(endpoint=server.endpoint, write_key=KEY))
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
        return Batch(destination="segment", events=events, **more)  # type: ignore[arg-type]

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
def make_source() -> type[Source]:
    """What makes a receiver with nothing in it."""
    return Source
