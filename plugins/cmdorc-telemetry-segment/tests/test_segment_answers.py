"""Which answers of 200 mean that the events were taken. Pure; those of all other statuses are the contract's affair."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http.answers import Answer
from cmdorc_telemetry_segment.answers import judge


def test_a_batch_that_was_taken() -> None:
    judge(Answer(200, b'{"success": true}'), 2, "h", 0.0)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>captive portal</html>", b"[]", b"{}", b'{"success": false}', b'{"success": 1}', b'{"s', b"\xff", None,
     b'{"x":' * 100_000],
)  # fmt: skip
def test_a_page_is_no_confirmation(body: bytes | None) -> None:
    with pytest.raises(RetryLater, match=r"^h gave an answer that does not confirm the batch: is 'endpoint' Segment's"):
        judge(Answer(200, body), 2, "h", 0.0)
