"""Every promise of a reporter that sends over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from cmdorc_telemetry.testing import Answer, HttpReporterContract, Request
from cmdorc_telemetry.testing.contracts.httpreporter import TRANSPORT

_PROTOBUF = {"Content-Type": "application/x-protobuf"}


class TestOtlp(HttpReporterContract):
    plugin = "otlp"
    faults = (*TRANSPORT, "html", "broken-json", "deep-json")

    def settings(self) -> Mapping[str, Any]:
        return {"endpoint": f"{self.server.scheme}://127.0.0.1:{self.server.port}", "headers": {"X-Key": "s3cret"}}

    def answer(self, request: Request) -> Answer:
        taken = self.__dict__.setdefault("taken", [])
        if request.path == "/v1/logs":
            for group in ExportLogsServiceRequest.FromString(request.plain).resource_logs:
                for record in (each for scope in group.scope_logs for each in scope.log_records):
                    taken += [each.value.string_value for each in record.attributes if each.key == "cmdorc.event_id"]
        return Answer(200, b"", _PROTOBUF)

    def received(self) -> Sequence[str]:
        return list(self.__dict__.get("taken", []))
