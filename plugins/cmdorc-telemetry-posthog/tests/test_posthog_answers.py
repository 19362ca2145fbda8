"""Which answers of 200 mean that the events were taken. Pure; those of all other statuses are the contract's affair."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http.answers import Answer
from cmdorc_telemetry_posthog.answers import judge


@pytest.mark.parametrize("body", [b'{"status": 1}', b'{"status": "Ok"}', b'{"status": 1, "quota_limited": []}'])
def test_a_batch_that_was_taken(body: bytes) -> None:
    judge(Answer(200, body), 2, "h", 0.0)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>captive portal</html>", b"[]", b"{}", b'{"status": 0}', b'{"status": "error"}', b'{"s', b"\xff", None,
     b'{"x":' * 100_000],
)  # fmt: skip
def test_a_page_is_no_confirmation(body: bytes | None) -> None:
    with pytest.raises(RetryLater, match=r"^h gave an answer that does not confirm the batch: is 'endpoint' PostHog's"):
        judge(Answer(200, body), 2, "h", 0.0)


def test_what_is_discarded_for_want_of_quota_waits() -> None:
    with pytest.raises(RetryLater, match=r"^h discards events: the quota of the project is used up"):
        judge(Answer(200, b'{"status": "Ok", "quota_limited": ["events"]}'), 2, "h", 0.0)
