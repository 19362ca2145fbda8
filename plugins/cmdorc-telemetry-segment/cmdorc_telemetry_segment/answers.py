"""What an answer of Segment's Tracking API means. Pure."""

from __future__ import annotations

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http.answers import Answer, document, refusal

_HINTS = {
    0: "gave an answer that Segment does not give: check 'endpoint'",
    401: "does not know the source: check 'write_key'",
    403: "refuses access: check 'write_key'",
    404: "tracks no events at this address: check 'endpoint'",
    405: "tracks no events at this address: check 'endpoint'",
}


def judge(answer: Answer, count: int, host: str, now: float) -> None:
    """What became of a batch of ``count`` events: returning means that Segment has all of it.

    ``now`` is in seconds since the epoch. Raises RetryLater, TooLarge (the batch must be split) or Rejected.
    """
    if answer.status != 200:
        raise refusal(answer, count=count, host=host, now=now, hints=_HINTS)
    if document(answer).get("success") is not True:  # any service may answer 200 and some page
        raise RetryLater(f"{host} gave an answer that does not confirm the batch: is 'endpoint' Segment's?")
