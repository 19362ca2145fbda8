"""What an answer of PostHog's capture API means. Pure."""

from __future__ import annotations

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http.answers import Answer, document, refusal

_HINTS = {
    0: "gave an answer that PostHog does not give: check 'endpoint'",
    401: "does not know the project: check 'api_key'",
    403: "refuses access: check 'api_key'",
    404: "captures no events at this address: check 'endpoint'",
    405: "captures no events at this address: check 'endpoint'",
}


def judge(answer: Answer, count: int, host: str, now: float) -> None:
    """What became of a batch of ``count`` events: returning means that PostHog has all of it.

    ``now`` is in seconds since the epoch. Raises RetryLater, TooLarge (the batch must be split) or Rejected.
    """
    if answer.status != 200:
        raise refusal(answer, count=count, host=host, now=now, hints=_HINTS)
    said = document(answer)
    if said.get("status") not in (1, "Ok"):  # any service may answer 200 and some page
        raise RetryLater(f"{host} gave an answer that does not confirm the batch: is 'endpoint' PostHog's?")
    if said.get("quota_limited"):  # what PostHog says 200 to, and throws away
        raise RetryLater(f"{host} discards events: the quota of the project is used up")
