"""A receiver of OTLP, built on OpenTelemetry's own protobuf classes; events as the gate lets them out; a machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from cmdorc_telemetry.testing import Answer, Fault, FaultServer, Request
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult
from cmdorc_telemetry_otlp import OtlpReporter

INSTALL = "6f1e1d3a-5b1c-4b6f-9d5e-000000000001"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
DEADLINE = 40.0
MESSAGES: dict[str, tuple[Any, Any]] = {
    "traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
    "logs": (ExportLogsServiceRequest, ExportLogsServiceResponse),
    "metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
}


def value(of: AnyValue) -> Any:
    """What an attribute holds."""
    kind = of.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in of.array_value.values]
    return getattr(of, kind) if kind else None


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of anything that has some. A name that is there twice is a mistake."""
    assert len({each.key for each in of.attributes}) == len(of.attributes)
    return {each.key: value(each.value) for each in of.attributes}


class Receiver:
    """What an OTLP receiver holds: spans by their ids, records one by one, of each series the latest point."""

    def __init__(self) -> None:
        self.spans: dict[tuple[bytes, bytes], Any] = {}
        self.copies: dict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
        """Of each span all that came: they must not differ."""
        self.records: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.scopes: set[tuple[str, str, str]] = set()
        self.series: dict[tuple[Any, ...], Any] = {}
        """(service, instance, metric, attributes) → its latest point."""
        self.units: dict[str, str] = {}
        self.faults: list[str] = []
        """What no receiver would like: points that go back in time, sums that fall."""
        self.refusing: dict[str, tuple[int, str]] = {}
        """Signal → how many it does not take of its requests, and why."""
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        signal = request.path.rpartition("/v1/")[2]
        if request.method != "POST" or signal not in MESSAGES:
            return Answer(404, b"404 page not found", {"Content-Type": "text/plain"})
        if request.headers.get_content_type() != "application/x-protobuf":
            return Answer(415, b"", PROTOBUF)
        message, response = MESSAGES[signal]
        try:
            taken = message.FromString(request.plain)
        except (ValueError, DecodeError):
            return Answer(400, b"\x08\x03\x12\x0bnot decoded", PROTOBUF)
        answer = response()
        if refused := self.refusing.get(signal):
            field = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}
            setattr(answer.partial_success, field[signal], refused[0])
            answer.partial_success.error_message = refused[1]
        with self._lock:
            getattr(self, f"_{signal}")(taken)
        return Answer(200, answer.SerializeToString(), PROTOBUF)

    def _traces(self, taken: ExportTraceServiceRequest) -> None:
        for group in taken.resource_spans:
            self.resources.append(attributes(group.resource))
            for scope in group.scope_spans:
                self.scopes.add(("traces", scope.scope.name, scope.scope.version))
                for span in scope.spans:
                    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
                    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                    self.spans[span.trace_id, span.span_id] = span
                    self.copies[span.trace_id, span.span_id].append(span.SerializeToString(deterministic=True))

    def _logs(self, taken: ExportLogsServiceRequest) -> None:
        for group in taken.resource_logs:
            self.resources.append(attributes(group.resource))
            for scope in group.scope_logs:
                self.scopes.add(("logs", scope.scope.name, scope.scope.version))
                self.records += scope.log_records

    def _metrics(self, taken: ExportMetricsServiceRequest) -> None:
        for group in taken.resource_metrics:
            who = tuple(sorted(attributes(group.resource).items()))
            for metric in (each for scope in group.scope_metrics for each in scope.metrics):
                self.units[metric.name] = metric.unit
                data = getattr(metric, metric.WhichOneof("data"))
                if not isinstance(data, type(metric.gauge)):
                    assert data.aggregation_temporality == 2, "cumulative"
                for point in data.data_points:
                    self._point((who, metric.name, tuple(sorted(attributes(point).items()))), point)

    def _point(self, key: tuple[Any, ...], point: Any) -> None:
        before = self.series.get(key)
        if before is not None and before != point:  # the same again changes nothing
            if before.time_unix_nano >= point.time_unix_nano:
                self.faults.append(f"{key}: a point that is not later")
            if amount(point) < amount(before) and point.start_time_unix_nano == before.start_time_unix_nano:
                self.faults.append(f"{key}: it fell")
        if hasattr(point, "bucket_counts"):
            assert sum(point.bucket_counts) == point.count
            assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        self.series[key] = point

    # -- what tests ask -----------------------------------------------------------------------------------------------

    attributes = staticmethod(attributes)

    def named(self, name: str) -> Any:
        """The one span of that name."""
        (span,) = [span for span in self.spans.values() if span.name == name]
        return span

    def event_ids(self) -> list[str]:
        return [attributes(record)["cmdorc.event_id"] for record in self.records]

    def point(self, metric: str, **labels: Any) -> Any:
        """The latest point of the one series that has these attributes; dots are written as two underscores."""
        wanted = {name.replace("__", "."): each for name, each in labels.items()}
        (found,) = [point for (_, name, has), point in self.series.items()
                    if name == metric and wanted.items() <= dict(has).items()]  # fmt: skip
        return found

    def total(self, metric: str, **labels: Any) -> float:
        """The sum of all series that have these attributes: how often, for a histogram."""
        wanted = {name.replace("__", "."): each for name, each in labels.items()}
        return sum(amount(point) for (_, name, has), point in self.series.items()
                   if name == metric and wanted.items() <= dict(has).items())  # fmt: skip


def amount(point: Any) -> float:
    """What must not fall."""
    return float(point.count if hasattr(point, "bucket_counts") else point.as_int)


class Server(FaultServer):
    """Does what it ``will``, one thing a request, and afterwards as a receiver does."""

    def __init__(self, **more: Any) -> None:
        self._next: list[str | Fault | None] = []
        self.receiver_of_otlp = Receiver()
        super().__init__(faults=lambda request: self._next.pop(0) if self._next else None,
                         answer=self.receiver_of_otlp, **more)  # fmt: skip

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def got(self) -> Receiver:
        return self.receiver_of_otlp

    def will(self, *faults: str | Fault | None) -> None:
        """The next requests fare like this; None for well."""
        self._next += faults

    def will_answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """The next request gets this answer, and nothing is taken."""
        named = {name.replace("_", "-"): each for name, each in headers.items()}
        self.will(Fault("told", "the answer that a test gives",
                        act=lambda exchange: exchange.reply(Answer(status, body, named))))  # fmt: skip

    def paths(self) -> list[str]:
        return [request.path for request in self.seen]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "home"
    root.mkdir()
    monkeypatch.setenv("CMDORC_HOME", str(root))
    for name in ("DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG", "CI"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until something is true, and return it."""

    def wait(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "the condition never came true"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def another(server: Server) -> Callable[..., OtlpReporter]:
    """Makes a reporter, as one process after the other does."""
    return lambda **settings: OtlpReporter(OtlpReporter.Settings(**{"endpoint": server.url, **settings}))


@pytest.fixture
def reporter(another: Callable[..., OtlpReporter]) -> OtlpReporter:
    return another()


@pytest.fixture
def send() -> Callable[..., list[str]]:
    """Sends events with a reporter that lives just for that: what became of each."""

    def sending(reporter: OtlpReporter, *events: BatchEvent) -> list[str]:
        async def life() -> BatchResult:
            try:
                return await reporter.report_batch(Batch(destination="otlp", events=events))
            finally:
                await reporter.close()

        return [each.status for each in asyncio.run(life()).results or ()]

    return sending


@pytest.fixture
def made() -> Callable[..., BatchEvent]:
    """Makes an event; ``event_id`` may be given, other fields are the body's."""

    def make(event: str = "command_completed", spec: str = "cmdorc.core@1", **body: Any) -> BatchEvent:
        event_id = str(body.pop("event_id", uuid.uuid4()))
        fixed = {"event": event, "event_id": event_id, "timestamp": "2026-01-02T03:04:05Z", "spec": spec,
                 "cmdorc_version": "0.12.0", "python_version": "3.12", "os": "linux", "arch": "x86_64",
                 "anonymous_install_id": INSTALL}  # fmt: skip
        return BatchEvent(event_id, event, json.dumps({**fixed, **body}).encode())

    return make


@pytest.fixture
def run(made: Callable[..., BatchEvent]) -> Callable[..., BatchEvent]:
    """Makes the event of a run, started by a trigger."""

    def make(name: str | None = "Build", state: str = "success", ms: int = 200, **more: Any) -> BatchEvent:
        named = {} if name is None else {"command_name": name, "run_id": str(uuid.uuid4())}
        return made(**{"state": state, "duration_ms": ms, "manual": False, "final": True, **named, **more})

    return make


class Machine:
    """A user's home and project; commands run as the user would run them."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self.home = root, home
        self.environ = {name: each for name, each in os.environ.items() if name != "CI"}

    def configure(self, text: str, pipeline: str) -> None:
        (self.home / "config.toml").write_text(text)
        (self.root / "cmdorc.toml").write_text(pipeline)

    def __call__(self, *arguments: str, module: str = "cmdorc_cli", text: bool = True) -> Any:
        return subprocess.run([sys.executable, "-m", module, *arguments], cwd=self.root, env=self.environ, text=text,
                              capture_output=True, timeout=120, check=False)  # fmt: skip

    def start(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=self.root, env=self.environ,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, home: Path) -> Machine:
    return Machine(tmp_path, home)
