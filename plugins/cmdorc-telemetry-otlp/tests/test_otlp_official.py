"""Beside OpenTelemetry's own: the same spans as its encoder makes, and why its exporters are not what sends."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cmdorc_telemetry_otlp import messages
from cmdorc_telemetry_otlp.fields import Facts
from cmdorc_telemetry_otlp.spans import span_of

Make = Callable[..., Any]


def as_the_sdk_has_it(facts: Facts) -> ReadableSpan:
    span = span_of(facts)
    assert span is not None

    def context(span_id: bytes) -> SpanContext:
        return SpanContext(
            int.from_bytes(span.context.trace, "big"), int.from_bytes(span_id, "big"), False, TraceFlags(1)
        )

    return ReadableSpan(
        name=span.name,
        context=context(span.context.span),
        parent=context(span.parent) if span.parent else None,
        resource=Resource(dict(sorted(facts.resource().items()))),
        attributes=span.attributes,
        links=[Link(context(each)) for each in span.links],
        kind=SpanKind.SERVER if span.chain else SpanKind.INTERNAL,
        instrumentation_scope=InstrumentationScope("cmdorc.traces", "1"),
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
    )


@pytest.fixture
def step(made: Make) -> Any:
    own = {"workflow_id": str(uuid.uuid4()), "trigger": "push", "step": "Deploy", "index": 3, "causes": [2, 1, 0],
           "outcome": "failure", "error_class": "failed", "duration_ms": 100, "started": 1767323045123,
           "timed_out": False, "run_id": "r"}  # fmt: skip
    return made("traces.run_ended", "cmdorc.traces@1", **own)


def test_spans_are_encoded_as_opentelemetry_does(step: Any, made: Make) -> None:
    end = made("traces.chain_ended", "cmdorc.traces@1", workflow_id=step.payload["workflow_id"], trigger="push",
               outcome="success", duration_ms=7, steps=4)  # fmt: skip
    facts = [Facts(step), Facts(end)]
    assert messages.traces(facts) == encode_spans([as_the_sdk_has_it(each) for each in facts])


def test_the_receiver_takes_what_the_official_exporters_send(server: Any, step: Any) -> None:
    """It is no receiver made for this plugin."""
    spans = OTLPSpanExporter(endpoint=f"{server.url}/v1/traces")
    assert spans.export([as_the_sdk_has_it(Facts(step))]) is SpanExportResult.SUCCESS
    spans.shutdown()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("m").create_counter("c").add(3, {"a": "b"})
    points = OTLPMetricExporter(endpoint=f"{server.url}/v1/metrics")
    points.export(reader.get_metrics_data())
    points.shutdown()
    provider.shutdown()
    assert server.got.named("Deploy").links
    assert server.got.total("c", a="b") == 3


def test_the_official_exporter_loses_what_is_refused(server: Any, step: Any) -> None:
    """500 is a server that is ill, and a pause of an hour is one that is full: it gives up on both, and so on the
    spans. That is why it is not what sends here."""
    exporter = OTLPSpanExporter(endpoint=f"{server.url}/v1/traces", timeout=0.5)
    for status, more in ((500, {}), (503, {"Retry_After": "3600"})):
        server.will_answer(status, **more)
        assert exporter.export([as_the_sdk_has_it(Facts(step))]) is SpanExportResult.FAILURE
    exporter.shutdown()
    assert server.got.spans == {}
