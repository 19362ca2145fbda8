"""Every promise of a reporter to a hosted service, with a source of Segment's that takes events as is documented."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import cmdorc_telemetry_segment
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.testing import Answer, FaultServer, HostedContract, Request, Samples
from cmdorc_telemetry.testing.contracts.httpreporter import EVERY

KEY = "ofThisSource"


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


class TestSegment(HostedContract):
    plugin = "segment"
    faults = tuple(name for name in EVERY if name != "some-rejected")  # Segment takes all of a batch, or nothing

    @pytest.fixture(autouse=True)
    def _source(self, _contract: None) -> None:
        self.source = Source()

    def settings(self) -> Mapping[str, Any]:
        return {"endpoint": self.endpoint, "write_key": KEY}

    def answer(self, request: Request) -> Answer:
        return self.source(request)

    def received(self) -> Sequence[str]:
        return list(self.source.kept)

    def documented(self, payloads: Sequence[dict[str, Any]]) -> Any:
        return {"batch": [
            {"type": "track", "messageId": payload.pop("event_id"), "event": payload.pop("event"),
             "anonymousId": payload.pop("anonymous_install_id"), "timestamp": payload.pop("timestamp"),
             "properties": payload}
            for payload in payloads
        ]}  # fmt: skip

    def test_segment_learns_no_address_and_no_other_time(self) -> None:
        batch = self.batch(2)
        self.send(batch)
        assert self.source.ignored == []
        times = [event.payload["timestamp"] for event in batch.events]
        assert [event["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ") for event in self.source.events] == times
        for event in self.source.events:
            assert event["context"] == {}
            assert "userId" not in event

    def test_what_is_said_of_the_sender(self) -> None:
        self.send(self.batch())
        (request,) = self.server.seen
        assert (request.method, request.path) == ("POST", "/v1/batch")
        assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type",
                                        "Content-Length", "Authorization"}  # fmt: skip
        assert request.headers["User-Agent"] == f"cmdorc-telemetry-segment/{cmdorc_telemetry_segment.__version__}"

    def test_more_than_segment_takes_at_once_is_split(self) -> None:
        bounds = {"batch_events": 3000, "batch_kib": 8192}
        self.machine.configure({**self.table(self.settings()), "bounds": bounds})
        samples = Samples([load_spec(CORE)], install_id=self.machine.install_id)
        (properties, *_) = (samples.properties(each) for each in samples.specs[0].events if each.name == COMPLETED)
        self.machine.journal(samples.record(COMPLETED, properties) for _ in range(3000))
        ledger = self.machine.deliver()["contract"]
        assert (ledger.acknowledged, ledger.pending) == (3000, 0)
        assert len(self.source.events) == self.source.received == 3000
        assert all(len(request.body) < 500_000 for request in self.server.seen)
        assert len(self.server.seen) < 20  # and no smaller than need be


COMPLETED = "command_completed"


def test_the_package_has_its_reporter_and_nothing_else() -> None:
    assert cmdorc_telemetry_segment.SegmentReporter.name == "segment"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_segment.nothing


def test_the_source_here_takes_what_segments_own_library_sends(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom segment.analytics import Client\n"
        "client = Client(sys.argv[1], host=sys.argv[2])\n"
        "for n in range(3): client.track(anonymous_id='d', event='e', properties={'n': n})\n"
        "client.shutdown()\n"
    )
    source = Source()
    with FaultServer(answer=source) as server:
        command = [sys.executable, "-c", script, KEY, server.endpoint.removesuffix("/v1")]
        subprocess.run(command, check=True, timeout=30, cwd=tmp_path)
    assert sorted(event["properties"]["n"] for event in source.events) == [0, 1, 2]
    assert source.ignored == []
    assert source.events[0]["context"]["library"]  # which is why it is not used
    assert json.loads(server.seen[0].plain)["sentAt"]
