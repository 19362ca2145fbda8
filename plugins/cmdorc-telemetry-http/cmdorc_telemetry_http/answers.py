"""What an answer of wire protocol version 1 means. Pure: no network, and the moment is passed in."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct

from cmdorc_telemetry.errors import Rejected, RetryLater
from cmdorc_telemetry.http.answers import UNREADABLE, Answer, printable, reason, refusal
from cmdorc_telemetry.types import BatchResult, EventResult, EventStatus

_STATUSES = frozenset(get_args(EventStatus))
_HINTS = {
    0: "gave an answer that no telemetry server gives",
    401: "refuses access: check the destination's 'token'",
    403: "refuses access: check the destination's 'token'",
    404: "has no telemetry server at this address: check 'endpoint'",
    405: "takes no reports at this address: check 'endpoint'",
    415: "does not take this content type: is 'endpoint' a telemetry server?",
}


class _Result(Struct):
    event_id: str
    status: str
    reason: Any = None


class _Body(Struct):
    message: Any = None
    stats: Any = None
    results: list[_Result] | None = None


_body = msgspec.json.Decoder(_Body)  # made here: two threads must not be the first to use a type at the same time


def judge(answer: Answer, event_ids: Collection[str], host: str, now: float) -> BatchResult:
    """What became of the batch of ``event_ids``. ``now`` is in seconds since the epoch.

    Raises RetryLater, TooLarge (the batch must be split) or Rejected (the one event will never be taken).
    """
    if answer.status == 200:
        return _accepted(answer, event_ids, host)
    raise refusal(answer, count=len(event_ids), host=host, now=now, hints=_HINTS)


def judge_erasure(answer: Answer, host: str) -> None:
    """What became of a request to erase: returning means that it was done.

    Raises Rejected where to ask again is of no use, RetryLater where it is.
    """
    status = answer.status
    if status in (404, 405, 410, 501):
        raise Rejected(f"{host} has nothing of this install, or no way to erase it ({status})")
    if not 200 <= status < 300:
        hint = _HINTS[status] if status in (401, 403) else "did not erase this install"
        raise RetryLater(f"{host} {hint} ({status}){reason(answer)}")
    try:
        if answer.body != b"":  # any service may answer 200 and some page
            msgspec.json.decode(answer.body or b"", type=dict[str, Any])
    except UNREADABLE:
        raise RetryLater(f"{host} gave an answer that cannot be read: is 'endpoint' a telemetry server?") from None


def _accepted(answer: Answer, event_ids: Collection[str], host: str) -> BatchResult:
    if answer.body is None:
        raise RetryLater(f"{host} gave too long an answer")
    try:
        body = _body.decode(answer.body)
    except UNREADABLE:
        raise RetryLater(f"{host} gave an answer that cannot be read: is 'endpoint' a telemetry server?") from None
    if body.results is None and body.stats is None and not isinstance(body.message, str):
        # Any service may answer 200 and some JSON; what it was sent would be taken for delivered, and be lost.
        raise RetryLater(f"{host} gave an answer that says nothing of the events: is 'endpoint' a telemetry server?")
    results = None
    if body.results is not None:
        results = tuple([_result(each) for each in body.results if each.event_id in event_ids])
    return BatchResult(results=results, answer=_kept(body) or None)


def _result(result: _Result) -> EventResult:
    status = cast(EventStatus, result.status) if result.status in _STATUSES else "retry"
    why = None if result.reason is None else printable(result.reason, 200) or None
    return EventResult(result.event_id, status, why)


def _kept(body: _Body) -> dict[str, Any]:
    """What the user may be shown, bounded: the message, and the stats that are single values."""
    kept: dict[str, Any] = {}
    if message := printable(body.message, 500):
        kept["message"] = message
    if isinstance(body.stats, dict):
        stats = {
            printable(name, 60): printable(value, 200) if isinstance(value, str) else value
            for name, value in list(body.stats.items())[:50]
            if isinstance(value, str) or (isinstance(value, (bool, int, float)) and abs(value) < 2**53)
        }
        if stats:
            kept["stats"] = stats
    return kept
