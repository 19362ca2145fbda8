"""What an OTLP receiver's answer means for a request. Imported with the first answer: it is protobuf.

OTLP has senders drop what is refused with most codes. Here nothing is dropped that the user can still bring to arrive,
such as by a setting; what comes again comes after a pause that grows.
"""

from __future__ import annotations

import re

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http.answers import Answer, printable, refusal

_HINTS = {
    0: "gave an answer that no OTLP receiver gives",
    401: "refuses access: check the destination's 'headers'",
    403: "refuses access: check the destination's 'headers'",
    404: "takes nothing at this address: check 'endpoint' and 'signals'",
    405: "takes nothing at this address: check 'endpoint' and 'signals'",
    415: "does not take protobuf: is 'endpoint' an OTLP receiver?",
}


def judge(signal: str, answer: Answer, where: str, now: float, *, events: int) -> tuple[int, str]:
    """How many spans, records or points of an accepted request were not taken, and why. OTLP forbids to repeat these.

    Raises RetryLater, TooLarge (the batch of ``events`` must be split) or Rejected (the one event never will be taken).
    """
    if not 200 <= answer.status < 300:
        told = msgspec.json.encode({"message": _message(answer.body or b"")})
        raise refusal(Answer(answer.status, told, answer.headers), count=events, host=where, now=now, hints=_HINTS)
    try:
        if answer.body is None:
            raise DecodeError
        count, said = _refused(signal, answer.body)
    except DecodeError:
        # Any service may answer 200 and some page; what it was sent would be taken for delivered, and be lost.
        raise RetryLater(f"{where} gave an answer that is none of OTLP: is 'endpoint' an OTLP receiver?") from None
    return max(count, 0), printable(said, 200) or "it does not say why"


def _refused(signal: str, body: bytes) -> tuple[int, str]:
    if signal == "traces":
        spans = ExportTraceServiceResponse.FromString(body).partial_success
        return spans.rejected_spans, spans.error_message
    if signal == "logs":
        records = ExportLogsServiceResponse.FromString(body).partial_success
        return records.rejected_log_records, records.error_message
    points = ExportMetricsServiceResponse.FromString(body).partial_success
    return points.rejected_data_points, points.error_message


def _message(body: bytes) -> str:
    """What a refusal says: ``message`` of a ``google.rpc.Status``, whose class is one more import for one text."""
    found = re.match(rb"(?:\x08[\x80-\xff]*[\x00-\x7f])?\x12([\x80-\xff]?[\x00-\x7f])", body)
    if found is None:
        return ""
    size = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(found[1]))
    return body[found.end() : found.end() + size].decode("utf-8", "replace")
