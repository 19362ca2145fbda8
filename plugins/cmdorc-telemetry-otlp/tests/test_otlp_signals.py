"""What events become: spans, log records and series, as a receiver sees them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv._incubating.attributes import cicd_attributes as cicd
from opentelemetry.semconv._incubating.attributes import (
    host_attributes,
    os_attributes,
    process_attributes,
    service_attributes,
)
from opentelemetry.semconv._incubating.metrics import cicd_metrics
from opentelemetry.semconv.attributes import error_attributes

from cmdorc_telemetry.spec import BASE, parse_toml
from cmdorc_telemetry.types import BatchEvent
from cmdorc_telemetry_otlp import OtlpReporter, fields, metrics

Make = Callable[..., Any]
TRACES = "cmdorc.traces@1"
CHAIN = "11111111-2222-4333-8444-555555555555"
MS, S = 10**6, 10**9
AT = 1767323045  # 2026-01-02T03:04:05Z


@pytest.fixture
def step(made: Make) -> Make:
    def make(index: int, name: str, *causes: int, outcome: str = "success", chain: str = CHAIN, **more: Any) -> Any:
        own = {"workflow_id": chain, "trigger": "push", "step": name, "index": index, "causes": list(causes),
               "outcome": outcome, "timed_out": False, "duration_ms": 100, "run_id": f"run-{index}",
               "started": AT * 1000 + 200 * index}  # fmt: skip
        return made("traces.run_ended", TRACES, **{**own, **more})

    return make


@pytest.fixture
def end(made: Make) -> Make:
    def make(outcome: str = "success", **more: Any) -> Any:
        own = {"workflow_id": CHAIN, "trigger": "push", "outcome": outcome, "duration_ms": 5000, "steps": 4,
               "failed": 0, "cancelled": 0, "started": AT * 1000 - 5}  # fmt: skip
        return made("traces.chain_ended", TRACES, **{**own, **more})

    return make


def test_names_are_those_of_the_conventions() -> None:
    ours = {fields.PIPELINE, fields.RUN_ID, fields.RUN_RESULT, fields.RUN_STATE, fields.TASK, fields.TASK_ID,
            fields.TASK_RESULT}  # fmt: skip
    assert ours <= {each for name, each in vars(cicd).items() if name.startswith("CICD_")}
    assert fields.ERROR == error_attributes.ERROR_TYPE
    assert metrics.CHAIN_DURATION.name == cicd_metrics.CICD_PIPELINE_RUN_DURATION
    assert metrics.RUN_ERRORS.name == cicd_metrics.CICD_PIPELINE_RUN_ERRORS
    results = {each.value for each in cicd.CicdPipelineTaskRunResultValues}
    assert {"success", "timeout", *fields.RESULTS.values()} <= results


def test_what_recorded_it_is_called_as_the_conventions_have_it(made: Make) -> None:
    named = {service_attributes.SERVICE_NAME, service_attributes.SERVICE_VERSION, os_attributes.OS_TYPE,
             service_attributes.SERVICE_INSTANCE_ID, host_attributes.HOST_ARCH,
             process_attributes.PROCESS_RUNTIME_VERSION}  # fmt: skip
    assert set(fields.Facts(made()).resource()) == named
    systems = {fields.Facts(made(os=name)).resource()["os.type"] for name in BASE["os"].members}
    assert systems <= {each.value for each in os_attributes.OsTypeValues}
    machines = {fields.Facts(made(arch=name)).resource()["host.arch"] for name in BASE["arch"].members}
    assert machines - {each.value for each in host_attributes.HostArchValues} == {"riscv64"}, "which has no name yet"


def test_a_chain_is_a_trace(server: Any, reporter: Any, send: Make, step: Make, end: Make) -> None:
    steps = [step(0, "Build"), step(1, "Unit", 0), step(2, "Lint", 0), step(3, "Deploy", 2, 1)]
    assert set(send(reporter, *steps, end())) == {"accepted"}
    chain, build, unit, deploy = (server.got.named(name) for name in ("RUN push", "Build", "Unit", "Deploy"))
    assert {span.trace_id for span in server.got.spans.values()} == {uuid.UUID(CHAIN).bytes}
    assert len(server.got.spans) == 5
    assert chain.parent_span_id == b""
    assert chain.kind == Span.SPAN_KIND_SERVER
    assert (chain.start_time_unix_nano, chain.end_time_unix_nano) == (AT * S - 5 * MS, AT * S + 4995 * MS)
    assert build.parent_span_id == chain.span_id
    assert build.kind == Span.SPAN_KIND_INTERNAL
    assert unit.parent_span_id == build.span_id
    assert (unit.start_time_unix_nano, unit.end_time_unix_nano) == (AT * S + 200 * MS, AT * S + 300 * MS)
    assert deploy.parent_span_id == server.got.named("Lint").span_id
    assert [(link.trace_id, link.span_id) for link in deploy.links] == [(unit.trace_id, unit.span_id)]
    assert not unit.links
    assert server.got.attributes(deploy) == {
        "cicd.pipeline.name": "push", "cicd.pipeline.run.id": CHAIN, "cicd.pipeline.task.name": "Deploy",
        "cicd.pipeline.task.run.id": "run-3", "cicd.pipeline.task.run.result": "success",
        "cmdorc.index": 3, "cmdorc.causes": [2, 1], "cmdorc.duration_ms": 100, "cmdorc.timed_out": False,
        "cmdorc.started": AT * 1000 + 600, "cmdorc.spec": TRACES,
        "cmdorc.event_id": server.got.attributes(deploy)["cmdorc.event_id"],
    }  # fmt: skip
    assert ("traces", "cmdorc.traces", "1") in server.got.scopes
    assert server.got.records == []  # their runs are told by events of the core


@pytest.mark.parametrize(
    ("outcome", "more", "result", "error"),
    [
        ("success", {}, "success", None),
        ("failure", {"error_class": "failed"}, "failure", "failed"),
        ("failure", {"error_class": "timed_out", "timed_out": True}, "timeout", "timed_out"),
        ("cancelled", {"error_class": "cancelled"}, "cancellation", None),
    ],
)
def test_how_a_run_ended(
    server: Any, reporter: Any, send: Make, step: Make, outcome: str, more: Any, result: str, error: str | None
) -> None:
    send(reporter, step(0, "Build", outcome=outcome, **more))
    span = server.got.named("Build")
    assert span.status.code == (Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET)
    found = server.got.attributes(span)
    assert (found["cicd.pipeline.task.run.result"], found.get("error.type")) == (result, error)
    assert server.got.total("cicd.pipeline.run.errors") == (1 if error else 0)


def test_a_chain_that_failed(server: Any, reporter: Any, send: Make, end: Make) -> None:
    send(reporter, end("failure", failed=2), end("cancelled", workflow_id=str(uuid.uuid4())), end(duration_ms=700))
    failed = server.got.point("cicd.pipeline.run.duration", cicd__pipeline__result="failure")
    assert (failed.count, failed.sum) == (1, 5.0)
    labels = {"cicd.pipeline.name": "push", "cicd.pipeline.run.state": "executing", "error.type": "failed",
              "cicd.pipeline.result": "failure"}  # fmt: skip
    assert server.got.attributes(failed) == labels
    assert server.got.total("cicd.pipeline.run.duration", cicd__pipeline__result="cancellation") == 1
    assert server.got.units["cicd.pipeline.run.duration"] == "s"
    assert not any("traces" in name for _, name, _ in server.got.series)


def test_a_run_started_by_hand_is_a_trace_of_one(server: Any, reporter: Any, send: Make, run: Make) -> None:
    send(reporter, run("Build", manual=True, ms=1500, run_id="r1"), run("Test", run_id="r2"))
    (span,) = server.got.spans.values()
    assert span.name == "Build"
    assert span.parent_span_id == b""
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (AT * S - 1500 * MS, AT * S)
    hand, triggered = server.got.records
    assert (hand.trace_id, hand.span_id) == (span.trace_id, span.span_id)
    assert (triggered.trace_id, triggered.span_id) == (b"", b"")
    assert server.got.attributes(triggered)["cicd.pipeline.task.run.id"] == "r2"  # by which the span is found


def test_each_event_is_a_record(server: Any, reporter: Any, send: Make, run: Make, made: Make) -> None:
    started = made("orchestrator_started", executor_type="mock", command_count=3, has_triggers=True, config_name="c")
    odd = made("anomaly_detected", metric="count", hashes=["a", "b"])
    send(reporter, run("Build", "failed", timed_out=True), started, odd)
    failed, first, anomaly = server.got.records
    assert [each.event_name for each in server.got.records] == [
        "cmdorc.command_completed", "cmdorc.orchestrator_started", "cmdorc.anomaly_detected",
    ]  # fmt: skip
    assert [each.severity_text for each in server.got.records] == ["ERROR", "INFO", "WARN"]
    assert failed.time_unix_nano == AT * S
    assert server.got.attributes(failed)["cicd.pipeline.task.run.result"] == "timeout"
    found = server.got.attributes(first)
    del found["cmdorc.event_id"]
    assert found == {"cmdorc.executor_type": "mock", "cmdorc.command_count": 3, "cmdorc.has_triggers": True,
                     "cmdorc.config_name": "c", "cmdorc.spec": "cmdorc.core@1"}  # fmt: skip
    assert server.got.attributes(anomaly)["cmdorc.hashes"] == ["a", "b"]
    assert ("logs", "cmdorc.core", "1") in server.got.scopes


def test_who_recorded_it(server: Any, another: Make, send: Make, run: Make, made: Make) -> None:
    send(another(signals=["logs"]), run(), made("paid", "acme.shop@2", app_name="shop", app_version="3.1", os="darwin"))
    ours, theirs = server.got.resources
    assert ours == {
        "service.name": "cmdorc", "service.version": "0.12.0", "service.instance.id": fields_install(run()),
        "os.type": "linux", "host.arch": "amd64", "process.runtime.version": "3.12",
    }  # fmt: skip
    assert (theirs["service.name"], theirs["service.version"], theirs["os.type"]) == ("shop", "3.1", "darwin")
    assert server.got.records[1].event_name == "acme.paid"


def fields_install(event: Any) -> str:
    install: str = event.payload["anonymous_install_id"]
    return install


def test_what_is_counted(server: Any, reporter: Any, send: Make, run: Make, made: Make) -> None:
    stopped = made("orchestrator_stopped", uptime_s="10-60", run_count=4, avg_concurrent_runs=1.5)
    more = {"manual": False, "timed_out": False, "chain_depth": 3, "hashed_command_name": "0123456789ab"}
    send(reporter, run(**more), run("Test", "failed", 4000, **more), run(ms=300, **more), stopped)
    got = server.got
    build = {"cicd__pipeline__task__name": "Build", "cicd__pipeline__task__run__result": "success"}
    assert got.point("cmdorc.command_completed.count", **build).as_int == 2
    assert got.total("cmdorc.command_completed.count", cicd__pipeline__task__run__result="failure") == 1
    duration = got.point("cmdorc.command_completed.duration", **build)
    assert (duration.count, duration.sum) == (2, 0.5)
    counts = dict(zip(duration.explicit_bounds, duration.bucket_counts, strict=False))
    assert (counts[0.1], counts[0.25], counts[0.5]) == (0, 1, 1)
    assert got.point("cmdorc.command_completed.timed_out", **build).as_int == 0
    assert got.point("cmdorc.command_completed.chain_depth", **build).sum == 6
    uptime = got.point("cmdorc.orchestrator_stopped.uptime")
    assert list(uptime.bucket_counts) == [0, 0, 1, 0, 0, 0, 0]
    assert not uptime.HasField("sum")
    assert got.point("cmdorc.orchestrator_stopped.avg_concurrent_runs").as_double == 1.5
    assert got.units["cmdorc.command_completed.duration"] == "s"
    assert {dict(who)["service.name"] for who, _, _ in got.series} == {"cmdorc"}
    assert not any("0123456789ab" in str(labels) for _, _, labels in got.series)


def test_a_shared_body_makes_no_trace_and_names_nothing(
    server: Any, reporter: Any, send: Make, run: Make
) -> None:  # fmt: skip
    send(reporter, run(None, manual=True, level="minimal"))
    assert server.got.spans == {}
    (record,) = server.got.records
    assert not {"cicd.pipeline.task.name", "cicd.pipeline.task.run.id"} & set(server.got.attributes(record))
    assert server.got.total("cmdorc.command_completed.count") == 1


def test_only_what_is_in_the_body_is_sent(server: Any, reporter: Any, send: Make, run: Make) -> None:
    event = run("Build", manual=True)
    send(reporter, event)
    known = {str(value) for value in event.payload.values()} | {"amd64", "cmdorc", "success"}
    for holder in (*server.got.records, *server.got.spans.values()):
        assert {str(value) for value in server.got.attributes(holder).values()} <= known
    for resource in server.got.resources:
        assert set(resource.values()) <= known
    heads = {name.lower() for request in server.seen for name in request.headers}
    assert heads == {"host", "user-agent", "accept", "accept-encoding", "content-type", "content-encoding",
                     "content-length"}  # fmt: skip


def test_what_does_not_fit_its_spec(server: Any, reporter: Any, send: Make, run: Make, made: Make) -> None:
    odd = made(state="exploded", duration_ms="long", manual=1, chain_depth=2**60, command_name=7, timestamp=["now"])
    broken = [BatchEvent("x", "command_completed", b"[]"), BatchEvent("y", "command_completed", b"{")]
    assert set(send(reporter, odd, *broken, made("unheard_of"), made(spec="other@1"), made(spec=7))) == {"accepted"}
    assert server.got.total("cmdorc.command_completed.count", cicd__pipeline__task__run__result="other") == 1
    assert len(server.got.records) == 6


def test_values_of_every_kind(server: Any, another: Make, send: Make, made: Make) -> None:
    own = {"none": None, "large": 2**70, "real": 1.5, "deep": {"a": 1}, "truth": False, "list": [1, "a", None]}
    send(another(signals=["logs"]), made("odd", "acme.shop@1", **own))
    (record,) = server.got.records
    found = server.got.attributes(record)
    assert {name: found[f"acme.{name}"] for name in own} == {**own, "large": float(2**70), "deep": "{'a': 1}"}


def test_instruments_of_any_spec(server: Any, send: Make, made: Make) -> None:
    spec = parse_toml(SHOP, "shop")
    reporter = OtlpReporter(OtlpReporter.Settings(endpoint=server.url, labels=("plan",)), specs=[spec])
    body = {"count": 3, "waitMs": 250, "load": 0.5, "ratio": "2-4", "plan": "team", "kind": "b", "kinds": ["a"]}
    send(reporter, made("paid", "acme.shop@1", **body), made("acme.sent", "acme.shop@1"))
    assert server.got.units == {
        "acme.paid.count": "{event}", "acme.paid.count_2": "1", "acme.paid.wait": "s", "acme.paid.load": "1",
        "acme.paid.ratio": "1", "acme.sent.count": "{event}",
    }  # fmt: skip
    assert server.got.attributes(server.got.point("acme.paid.count")) == {"acme.plan": "team", "acme.kind": "other"}
    assert server.got.point("acme.paid.wait").sum == 0.25
    assert server.got.point("acme.paid.load").as_double == 0.5
    assert 0.3 in server.got.point("acme.paid.wait").explicit_bounds


SHOP = """
[meta]
name = "acme.shop"
version = 1
[[events]]
name = "paid"
semantics = { what = "x" }
[events.properties]
count = { type = "count" }
waitMs = { type = "duration_ms" }
load = { type = "number", min = 0, max = 1 }
ratio = { type = "bucket", edges = [1, 2, 4] }
plan = { type = "string", pattern = ".*", max_length = 9 }
kind = { type = "enum", members = ["a"] }
kinds = { type = "enum", members = ["a"], max_items = 3 }
[events.anomaly_detection]
thresholds = [{ metric = "waitMs", max = 300 }]
[[events]]
name = "acme.sent"
semantics = { what = "y" }
properties = {}
"""


@pytest.mark.parametrize("chain", ["", "no uuid", "x" * 36, 7, None, CHAIN.replace("-", "")])
def test_a_step_without_a_chain_is_no_span(server: Any, reporter: Any, send: Make, step: Make, chain: Any) -> None:
    assert send(reporter, step(0, "Build", chain=chain)) == ["accepted"]
    assert server.got.spans == {}


def test_the_signals_that_are_asked_for(server: Any, another: Make, send: Make, run: Make) -> None:
    for signal in ("traces", "logs", "metrics"):
        before = len(server.seen)
        send(another(endpoint=f"{server.url}/{signal}", signals=[signal]), run(manual=True))
        assert server.paths()[before:] == [f"/{signal}/v1/{signal}"]
