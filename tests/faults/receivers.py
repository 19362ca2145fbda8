"""Who takes what in the fault matrix: a real server; and services, as far as they document what is one event to them.

PostHog tells events by their ``uuid``, Segment by their ``messageId``. To OpenTelemetry nothing is one event: whoever
keeps its log records tells them by the attribute ``cmdorc.event_id``.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from cmdorc_telemetry.testing import FAULTS, Answer, Forward, Request
from cmdorc_telemetry.testing.contracts.httpreporter import EVERY, TRANSPORT
from cmdorc_telemetry_server import SQLiteStore


class Receiver(Protocol):
    """Takes events where nothing goes wrong, and knows which it has."""

    def answer(self, request: Request) -> Answer: ...

    def durations(self, install: str) -> Counter[int]:
        """How often which serial number of one install is stored."""


class RealServer:
    """A server of another process."""

    def __init__(self, url: str, store: Path) -> None:
        self.url, self.store = url, store
        self.answer: Callable[[Request], Answer] = Forward(url)

    def durations(self, install: str) -> Counter[int]:
        async def read() -> Counter[int]:
            bodies = [msgspec.json.decode(row.body) async for row in SQLiteStore(self.store).export()
                      if row.install == install]  # fmt: skip
            return Counter(body["duration_ms"] for body in bodies)

        return asyncio.run(read())


class Service:
    """Keeps an event once, however often it comes. ``found`` reads id, install and serial number out of a request."""

    def __init__(self, found: Callable[[Request], Iterator[tuple[str, str, int]]], confirms: Answer) -> None:
        self._found, self._confirms = found, confirms
        self._kept: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        events = list(self._found(request))
        with self._lock:
            self._kept |= {event_id: (install, serial) for event_id, install, serial in events}
        return self._confirms

    def durations(self, install: str) -> Counter[int]:
        return Counter(serial for owner, serial in self._kept.values() if owner == install)


def _json(id_name: str, install_name: str) -> Callable[[Request], Iterator[tuple[str, str, int]]]:
    def found(request: Request) -> Iterator[tuple[str, str, int]]:
        for event in json.loads(request.plain)["batch"]:
            yield event[id_name], event[install_name], event["properties"]["duration_ms"]

    return found


def _log_records(request: Request) -> Iterator[tuple[str, str, int]]:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    if request.path != "/v1/logs":
        return
    for group in ExportLogsServiceRequest.FromString(request.plain).resource_logs:
        install = next(each.value.string_value for each in group.resource.attributes
                       if each.key == "service.instance.id")  # fmt: skip
        for record in (record for scope in group.scope_logs for record in scope.log_records):
            said: dict[str, Any] = {each.key: each.value for each in record.attributes}
            yield said["cmdorc.event_id"].string_value, install, said["cmdorc.duration_ms"].int_value


class Reporter(NamedTuple):
    """One that is under test."""

    settings: str
    """What a destination of it looks like. ``{root}`` is the endpoint without its path."""
    service: Callable[[], Receiver] | None = None
    """Who takes its events; None for the real server."""
    unfit: frozenset[str] = frozenset()
    """Faults that such a receiver cannot have."""


_NO_RESULTS = frozenset({"some-rejected"})
_OTLP = Answer(200, b"", {"Content-Type": "application/x-protobuf"})
REPORTERS: Mapping[str, Reporter] = {
    "http": Reporter('endpoint = "{endpoint}"'),
    "posthog": Reporter(
        'endpoint = "{root}"\napi_key = "phc_a"',
        lambda: Service(_json("uuid", "distinct_id"), Answer.json({"status": "Ok"})), _NO_RESULTS,
    ),
    "segment": Reporter(
        'endpoint = "{endpoint}"\nwrite_key = "a"',
        lambda: Service(_json("messageId", "anonymousId"), Answer.json({"success": True})), _NO_RESULTS,
    ),
    "otlp": Reporter(
        'endpoint = "{root}"', lambda: Service(_log_records, _OTLP),
        frozenset(EVERY) - {*TRANSPORT, "html", "broken-json", "deep-json"},
    ),
}  # fmt: skip
"""A reporter over HTTP is under test once it is here."""


def settings(name: str, endpoint: str) -> str:
    """What a destination of that reporter leads there by, in TOML."""
    return REPORTERS[name].settings.format(endpoint=endpoint, root=endpoint.removesuffix("/v1"))


def fit(name: str) -> list[str]:
    """The faults that a receiver of that reporter's can have."""
    return [fault for fault in FAULTS if fault not in REPORTERS[name].unfit]
