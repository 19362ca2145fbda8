"""Beside OpenTelemetry's own SDK and exporters: the same story told to both arrives as the same messages; and what they
lose that is not lost here."""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.types import Batch
from cmdorc_telemetry_otlp import OtlpReporter

from .conftest import INSTALL, MESSAGES, Server

Make = Callable[..., Any]
MS, S = 10**6, 10**9
AT = 1767323045  # 2026-01-02T03:04:05Z
CHAIN = "11111111-2222-4333-8444-555555555555"
WHO = {"service.name": "cmdorc", "service.instance.id": INSTALL}
WHERE = {
    **WHO,
    "service.version": "0.12.0",
    "os.type": "linux",
    "host.arch": "amd64",
    "process.runtime.version": "3.12",
}
RUN_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
UPTIME_BOUNDS = (1, 10, 60, 600, 3600, 28800)


def said(server: Server, signal: str) -> Any:
    """All that a server got of a signal, in an order of its own: by resource, scope and name, attributes by key."""
    whole = MESSAGES[signal][0]()
    for request in server.seen:
        if request.path == f"/v1/{signal}":
            whole.MergeFromString(request.plain)
    return _ordered(whole)


def _ordered(message: Any) -> Any:
    """As plain values, a set in meaning sorted. Series are as of no time: that is the clock of whoever tells."""
    found = {}
    for field, value in message.ListFields():
        if field.name == "description" or (
            field.name.endswith("_unix_nano") and "DataPoint" in message.DESCRIPTOR.name
        ):
            continue
        if field.name in ("min", "max") and math.isinf(value):  # the SDK's, of a histogram that is to have none
            continue
        if field.type != field.TYPE_MESSAGE:
            found[field.name] = list(value) if field.name in ("bucket_counts", "explicit_bounds") else value
        elif isinstance(value, type(message)) or hasattr(value, "DESCRIPTOR"):
            found[field.name] = _ordered(value)
        else:
            found[field.name] = sorted(map(_ordered, value), key=repr)
    return found


def same(ours: Any, theirs: Any) -> None:
    """Fails with the lines in which they differ: what the SDK has is marked with a plus."""
    lines = (json.dumps(each, indent=1, default=bytes.hex).splitlines() for each in (ours, theirs))
    if differences := "\n".join(difflib.unified_diff(*lines, lineterm="", n=4)):
        pytest.fail(differences)


class Given(IdGenerator):
    """Gives the ids that it is told to: which ones they are is everybody's own affair."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


@contextmanager
def official(server: Server, **settings: Any) -> Iterator[tuple[TracerProvider, Given]]:
    """The SDK as its documentation has one set it up."""
    ids = Given()
    provider = TracerProvider(resource=Resource(WHERE), id_generator=ids, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{server.url}/v1/traces", **settings)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider, ids
    finally:
        provider.shutdown()


@pytest.fixture
def other() -> Iterator[Server]:
    """A second receiver, for OpenTelemetry's own."""
    with Server() as server:
        yield server


# -- the same messages -------------------------------------------------------------------------------------------------


def test_a_trace_is_what_the_sdk_would_send(server: Any, other: Any, reporter: Any, send: Make, made: Make) -> None:
    """A chain in which two ways lead to a deployment that fails, and one that was started by hand and cancelled."""
    chain = {"workflow_id": CHAIN, "trigger": "push"}
    deploy = {**chain, "step": "Deploy", "index": 3, "causes": [2, 1], "outcome": "failure", "error_class": "timed_out",
              "timed_out": True, "duration_ms": 100, "started": AT * 1000 + 600, "run_id": "r3"}  # fmt: skip
    lint = {**chain, "step": "Lint", "index": 2, "causes": [], "outcome": "success", "duration_ms": 40,
            "started": AT * 1000 + 200, "run_id": "r2"}  # fmt: skip
    over = {**chain, "outcome": "failure", "duration_ms": 5000, "steps": 4, "failed": 1, "started": AT * 1000 - 5}
    events = [
        made("traces.run_ended", "cmdorc.traces@1", event_id="e1", **deploy),
        made("traces.run_ended", "cmdorc.traces@1", event_id="e2", **lint),
        made("traces.chain_ended", "cmdorc.traces@1", event_id="e3", **over),
        made(event_id="e4", state="cancelled", duration_ms=1500, manual=True, run_id="r9", command_name="Alone"),
    ]
    assert set(send(reporter, *events)) == {"accepted"}
    got = {span.name: span for span in server.got.spans.values()}

    def context(span: Any, span_id: bytes) -> SpanContext:
        trace, own = (int.from_bytes(each, "big") for each in (span.trace_id, span_id))
        return SpanContext(trace, own, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    with official(other) as (provider, ids):

        def tell(name: str, scope: str, kind: SpanKind, start: int, ms: int, own: Any, error: bool = False) -> None:
            span = got[name]
            ids.trace, ids.span = int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big")
            parent = span.parent_span_id
            links = [Link(context(span, each.span_id)) for each in span.links]
            told = provider.get_tracer(scope, "1").start_span(
                name, set_span_in_context(NonRecordingSpan(context(span, parent))) if parent else None,
                kind, own, links, start_time=start,
            )  # fmt: skip
            if error:
                told.set_status(StatusCode.ERROR)
            told.end(start + ms * MS)

        task = {"cicd.pipeline.name": "push", "cicd.pipeline.run.id": CHAIN, "cmdorc.spec": "cmdorc.traces@1"}
        tell("Deploy", "cmdorc.traces", SpanKind.INTERNAL, AT * S + 600 * MS, 100, {
            **task, "cicd.pipeline.task.name": "Deploy", "cicd.pipeline.task.run.id": "r3", "error.type": "timed_out",
            "cicd.pipeline.task.run.result": "timeout", "cmdorc.index": 3, "cmdorc.causes": [2, 1],
            "cmdorc.duration_ms": 100, "cmdorc.timed_out": True, "cmdorc.started": AT * 1000 + 600,
            "cmdorc.event_id": "e1",
        }, error=True)  # fmt: skip
        tell("Lint", "cmdorc.traces", SpanKind.INTERNAL, AT * S + 200 * MS, 40, {
            **task, "cicd.pipeline.task.name": "Lint", "cicd.pipeline.task.run.id": "r2",
            "cicd.pipeline.task.run.result": "success", "cmdorc.index": 2, "cmdorc.causes": [],
            "cmdorc.duration_ms": 40, "cmdorc.started": AT * 1000 + 200, "cmdorc.event_id": "e2",
        })  # fmt: skip
        tell("RUN push", "cmdorc.traces", SpanKind.SERVER, AT * S - 5 * MS, 5000, {
            **task, "cicd.pipeline.result": "failure", "error.type": "failed", "cmdorc.duration_ms": 5000,
            "cmdorc.steps": 4, "cmdorc.failed": 1, "cmdorc.started": AT * 1000 - 5, "cmdorc.event_id": "e3",
        }, error=True)  # fmt: skip
        tell("Alone", "cmdorc.core", SpanKind.INTERNAL, AT * S - 1500 * MS, 1500, {
            "cicd.pipeline.task.name": "Alone", "cicd.pipeline.task.run.id": "r9", "cmdorc.duration_ms": 1500,
            "cicd.pipeline.task.run.result": "cancellation", "cmdorc.manual": True, "cmdorc.spec": "cmdorc.core@1",
            "cmdorc.event_id": "e4",
        })  # fmt: skip
    assert got["Deploy"].parent_span_id == got["Lint"].span_id
    assert len(got["Deploy"].links) == 1
    assert got["Lint"].parent_span_id == got["RUN push"].span_id
    same(said(server, "traces"), said(other, "traces"))


def test_records_are_what_the_sdk_would_send(server: Any, other: Any, reporter: Any, send: Make, made: Make) -> None:
    send(reporter,
         made(event_id="e1", state="failed", duration_ms=200, manual=True, run_id="r1", command_name="Build"),
         made("orchestrator_stopped", event_id="e2", avg_concurrent_runs=1.5, uptime_s="10-60", names=["a", "b"]),
         made("anomaly_detected", event_id="e3", metric="count"))  # fmt: skip
    (span,) = server.got.spans.values()
    provider = LoggerProvider(Resource(WHERE), shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{other.url}/v1/logs")))
    logger = provider.get_logger("cmdorc.core", "1")

    def tell(name: str, severity: SeverityNumber, own: Any, **context: Any) -> None:
        logger.emit(LogRecord(timestamp=AT * S, observed_timestamp=AT * S, severity_number=severity,
                              severity_text=severity.name, body=name, event_name=name, **context,
                              attributes={**own, "cmdorc.spec": "cmdorc.core@1"}))  # fmt: skip

    tell("cmdorc.command_completed", SeverityNumber.ERROR, {
        "cicd.pipeline.task.name": "Build", "cicd.pipeline.task.run.id": "r1", "error.type": "failed",
        "cicd.pipeline.task.run.result": "failure", "cmdorc.duration_ms": 200, "cmdorc.manual": True,
        "cmdorc.event_id": "e1",
    }, trace_id=int.from_bytes(span.trace_id, "big"), span_id=int.from_bytes(span.span_id, "big"),
       trace_flags=TraceFlags(TraceFlags.SAMPLED))  # fmt: skip
    tell("cmdorc.orchestrator_stopped", SeverityNumber.INFO, {
        "cmdorc.avg_concurrent_runs": 1.5, "cmdorc.uptime_s": "10-60", "cmdorc.names": ["a", "b"],
        "cmdorc.event_id": "e2",
    })  # fmt: skip
    tell("cmdorc.anomaly_detected", SeverityNumber.WARN, {"cmdorc.metric": "count", "cmdorc.event_id": "e3"})
    provider.shutdown()
    same(said(server, "logs"), said(other, "logs"))


def test_series_are_what_the_sdk_would_send(server: Any, other: Any, reporter: Any, send: Make, made: Make) -> None:
    runs = [("Build", "success", 200), ("Build", "success", 300), ("Test", "failed", 4000)]
    chain = {"workflow_id": CHAIN, "trigger": "push", "duration_ms": 700}
    send(reporter,
         *(made(state=state, duration_ms=ms, command_name=name, timed_out=name == "Test") for name, state, ms in runs),
         made("orchestrator_stopped", avg_concurrent_runs=1.5, uptime_s="10-60"),
         made("traces.run_ended", "cmdorc.traces@1", **chain, outcome="failure", error_class="failed", index=0),
         made("traces.chain_ended", "cmdorc.traces@1", **chain, outcome="failure"))  # fmt: skip
    reader = InMemoryMetricReader()
    views = [View(instrument_type=Histogram, instrument_name="*",
                  aggregation=ExplicitBucketHistogramAggregation(RUN_BOUNDS, record_min_max=False))]  # fmt: skip
    provider = MeterProvider([reader], Resource(WHO), shutdown_on_exit=False, views=views)
    meter = provider.get_meter("cmdorc.telemetry")
    count = meter.create_counter("cmdorc.command_completed.count", "{event}")
    late = meter.create_counter("cmdorc.command_completed.timed_out", "{event}")
    took = meter.create_histogram("cmdorc.command_completed.duration", "s")
    for name, state, ms in runs:
        labels = {"cicd.pipeline.task.name": name,
                  "cicd.pipeline.task.run.result": "timeout" if state == "failed" else state}  # fmt: skip
        count.add(1, labels)
        late.add(int(name == "Test"), labels)
        took.record(ms / 1000, labels)
    meter.create_counter("cmdorc.orchestrator_stopped.count", "{event}").add(1)
    meter.create_gauge("cmdorc.orchestrator_stopped.avg_concurrent_runs", "1").set(1.5)
    named = {"cicd.pipeline.name": "push", "error.type": "failed"}
    meter.create_counter("cicd.pipeline.run.errors", "{error}").add(1, named)
    whole = {**named, "cicd.pipeline.run.state": "executing", "cicd.pipeline.result": "failure"}
    meter.create_histogram("cicd.pipeline.run.duration", "s").record(0.7, whole)
    exporter = OTLPMetricExporter(endpoint=f"{other.url}/v1/metrics")
    exporter.export(reader.get_metrics_data())
    exporter.shutdown()
    provider.shutdown()
    ours, theirs = said(server, "metrics"), said(other, "metrics")
    (series,) = (metrics["scope_metrics"][0]["metrics"] for metrics in ours["resource_metrics"])
    # Of a bucket the values are not recorded: there is a count of each range, and no sum, which the SDK always has.
    uptime = next(each for each in series if each["name"] == "cmdorc.orchestrator_stopped.uptime")
    series.remove(uptime)
    assert uptime["histogram"]["data_points"] == [
        {"count": 1, "bucket_counts": [0, 0, 1, 0, 0, 0, 0], "explicit_bounds": list(UPTIME_BOUNDS)}
    ]
    same(ours, theirs)


# -- what would be lost ------------------------------------------------------------------------------------------------

TWENTY = 20
LOSSES = ["500", "503 with Retry-After", "302", "200 with a web page"]


def _fault(server: Any, kind: str) -> None:
    if kind.startswith("200"):
        server.will("html")
    else:
        server.will_answer(int(kind[:3]), Retry_After="60", Location=f"{server.url}/elsewhere")


@pytest.mark.parametrize("kind", LOSSES)
def test_of_twenty_the_sdk_loses_all_by_one_bad_answer(
    server: Any, other: Any, another: Make, run: Make, kind: str
) -> None:  # fmt: skip
    """It hands a batch over once; what is refused, or goes to who does not want it, is gone. Here it waits."""
    _fault(other, kind)
    with official(other) as (provider, ids):
        for ids.span in range(1, TWENTY + 1):
            ids.trace = ids.span
            provider.get_tracer("t").start_span(f"{ids.span}").end()
        provider.force_flush()
        assert len(other.seen) == 1
    assert other.got.spans == {}
    _fault(server, kind)
    batch = Batch(destination="otlp", events=tuple(run(manual=True) for _ in range(TWENTY)))

    async def life(reporter: OtlpReporter) -> None:
        try:
            await reporter.report_batch(batch)
        finally:
            await reporter.close()

    for _ in range(2):  # as delivery does, after a pause
        with suppress(RetryLater):
            asyncio.run(life(another()))
    assert len(server.got.spans) == TWENTY


def test_a_partial_success_is_a_success_to_the_sdk(other: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told that five were not taken: the answer is not read. ``test_otlp_delivery`` has what is told here."""
    other.got.refusing = {"traces": (5, "too old")}
    with official(other) as (provider, ids):
        ids.trace = ids.span = 1
        provider.get_tracer("t").start_span("a").end()
        provider.force_flush()
    assert len(other.seen) == 1
    assert "too old" not in caplog.text


KILLED = """
import os, signal, sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(sys.argv[1] + "/v1/traces")))
for number in range(20):
    provider.get_tracer("t").start_span(str(number)).end()
if sys.argv[2:]:
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""Without a second argument it ends as programs do."""
OURS = """
import os, signal
from cmdorc_telemetry import Telemetry
telemetry = Telemetry.start()
for number in range(20):
    telemetry.track("command_completed", {"state": "success", "duration_ms": 1, "final": True, "manual": True,
                    "command_name": "A", "run_id": str(number)})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_that_is_killed_loses_what_the_sdk_holds(machine: Any, server: Any, other: Any) -> None:
    subprocess.run([sys.executable, "-c", KILLED, other.url, "kill"], check=False, timeout=60)
    assert other.seen == []
    table = f'plugins = ["otlp"]\n[telemetry.to.otlp]\naudience = "private"\nendpoint = "{server.url}"\n'
    machine.configure(f"[telemetry]\n{table}", "")
    assert machine("opt-in", "--yes", "--level", "minimal", module="cmdorc_telemetry").returncode == 0
    process = machine.start(OURS)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert machine("flush", module="cmdorc_telemetry").returncode == 0
    assert len(server.got.spans) == TWENTY


def test_the_end_of_a_program_waits_for_the_sdk(machine: Any, other: Any) -> None:
    """As long as its timeout allows, here two seconds: and then all is lost. ``test_otlp_machine`` has what is here."""
    other.fail("refused")
    machine.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "2"
    before = time.monotonic()
    process = machine.start(KILLED, other.url)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - before > 0.8, "the pause before a second attempt"
    other.fail(None)
    assert other.got.spans == {}


FORKS = """
import asyncio, os, sys, threading
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
if sys.argv[1] == "sdk":
    TracerProvider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:9/v1/traces")))
else:
    from cmdorc_telemetry_otlp import OtlpReporter
    OtlpReporter(OtlpReporter.Settings(endpoint="http://127.0.0.1:9"))
def before_the_command():
    os.write(2, str(threading.active_count()).encode())
async def main():  # as cmdorc starts commands
    process = await asyncio.create_subprocess_shell("true", preexec_fn=before_the_command)
    await process.wait()
asyncio.run(main())
"""


def test_the_sdk_starts_a_thread_in_every_process_that_is_forked() -> None:
    """That is, in each command between its fork and its begin, where only what is safe may be done."""
    threads = {
        which: subprocess.run([sys.executable, "-c", FORKS, which], capture_output=True, text=True, timeout=60,
                              check=True).stderr[:1]
        for which in ("sdk", "ours")
    }  # fmt: skip
    assert threads == {"sdk": "2", "ours": "1"}
