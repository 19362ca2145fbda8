"""Every promise of a reporter to a hosted service, with a project of PostHog's that takes events as is documented."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import cmdorc_telemetry_posthog
from cmdorc_telemetry.testing import Answer, FaultServer, HostedContract, Request
from cmdorc_telemetry.testing.contracts.httpreporter import EVERY

KEY = "phc_ofThisProject"
ORDERS = {"$geoip_disable": True, "$ip": "0.0.0.0", "$process_person_profile": False}


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


class TestPosthog(HostedContract):
    plugin = "posthog"
    faults = tuple(name for name in EVERY if name != "some-rejected")  # PostHog takes all of a batch, or nothing
    more: Mapping[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _project(self, _contract: None) -> None:
        self.project = Project()

    def settings(self) -> Mapping[str, Any]:
        return {"endpoint": self.endpoint.removesuffix("/v1"), "api_key": KEY, **self.more}

    def answer(self, request: Request) -> Answer:
        return self.project(request)

    def received(self) -> Sequence[str]:
        return [event["uuid"] for event in self.project.events]

    def documented(self, payloads: Sequence[dict[str, Any]]) -> Any:
        return {"api_key": KEY, "batch": [
            {"uuid": payload.pop("event_id"), "event": payload.pop("event"), "timestamp": payload.pop("timestamp"),
             "distinct_id": payload.pop("anonymous_install_id"), "properties": {**payload, **ORDERS}}
            for payload in payloads
        ]}  # fmt: skip

    def test_posthog_learns_neither_address_nor_place_nor_person_nor_another_time(self) -> None:
        batch = self.batch(2)
        self.send(batch)
        assert self.project.ignored == []
        times = [event.payload["timestamp"] for event in batch.events]
        assert [event["timestamp"] for event in self.project.events] == times
        for event in self.project.events:
            assert {name: value for name, value in event["properties"].items() if name.startswith("$")} == ORDERS
        assert self.project.persons == set()

    def test_what_is_said_of_the_sender(self) -> None:
        self.send(self.batch())
        (request,) = self.server.seen
        assert (request.method, request.path) == ("POST", "/batch/")
        assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type",
                                        "Content-Length"}  # fmt: skip
        assert request.headers["User-Agent"] == f"cmdorc-telemetry-posthog/{cmdorc_telemetry_posthog.__version__}"

    def test_what_is_from_the_past_says_so(self) -> None:
        self.more = {"historical_migration": True}
        self.send(self.batch())
        assert self.project.historical == [True]

    def test_a_key_that_posthog_does_not_know(self) -> None:
        self.more = {"api_key": "phc_other"}
        with pytest.raises(Exception, match="does not know the project: check 'api_key'"):
            self.send(self.batch())


def test_the_package_has_its_reporter_and_nothing_else() -> None:
    assert cmdorc_telemetry_posthog.PosthogReporter.name == "posthog"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_posthog.nothing


def test_the_project_here_takes_what_posthogs_own_library_sends(tmp_path: Path) -> None:
    script = (
        "import sys, uuid\nfrom posthog import Posthog\n"
        "client = Posthog(sys.argv[1], host=sys.argv[2])\n"
        "for n in range(3): client.capture('e', distinct_id='d', properties={'n': n})\n"
        "client.shutdown()\n"
    )
    project = Project()
    with FaultServer(answer=project) as server:
        command = [sys.executable, "-c", script, KEY, server.endpoint.removesuffix("/v1")]
        subprocess.run(command, check=True, timeout=30, cwd=tmp_path)
    assert sorted(event["properties"]["n"] for event in project.events) == [0, 1, 2]
    assert project.ignored == []
    added = project.events[0]["properties"]
    assert {"$lib", "$os_version", "$python_version", "$sent_at"} <= set(added)  # which is why it is not used
    assert added["$ip"] == "127.0.0.1"
    assert json.loads(server.seen[0].plain)["sent_at"]
