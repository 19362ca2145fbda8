"""What a reporter returned, made sure of: it may be anything. Runs where the reporter lives."""

from __future__ import annotations

from typing import get_args

import msgspec

from ..types import BatchResult, EventResult, EventStatus

_STATUSES = frozenset(get_args(EventStatus))
_decoder = msgspec.json.Decoder(BatchResult)


def checked(result: object) -> BatchResult:
    """``result`` as what it should be, of plain values alone; None means that all was accepted.

    Raises TypeError, or what msgspec raises.
    """
    if result is None:
        return BatchResult()
    if not isinstance(result, BatchResult):
        raise TypeError(f"report_batch returned {type(result).__name__} instead of a BatchResult")
    results, answer = result.results, result.answer
    if type(results) is tuple and all(map(_is_plain, results)):  # the costly part of a result, mostly in order
        result = BatchResult(answer=answer)
    else:
        results = None
    plain = _decoder.decode(msgspec.json.encode(result, enc_hook=dict))
    return plain if results is None else BatchResult(results=results, answer=plain.answer)


def _is_plain(each: object) -> bool:
    return (
        type(each) is EventResult
        and type(each.event_id) is str
        and each.reason is None  # text may hold what cannot be stored
        and type(each.status) is str
        and each.status in _STATUSES
    )
