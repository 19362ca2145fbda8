"""What an answer means: pure, each line of the documentation once."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.http.answers import Answer
from cmdorc_telemetry_segment.answers import judge

NOW = 1_800_000_000.0


def test_a_batch_that_was_taken() -> None:
    judge(Answer(200, b'{"success": true}'), 2, "h", NOW)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>captive portal</html>", b"[]", b"{}", b'{"success": false}', b'{"success": 1}', b'{"s', b"\xff", None,
     b'{"x":' * 100_000],
)  # fmt: skip
def test_a_page_is_no_confirmation(body: bytes | None) -> None:
    with pytest.raises(RetryLater, match=r"^h gave an answer that does not confirm the batch: is 'endpoint' Segment's"):
        judge(Answer(200, body), 2, "h", NOW)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "check 'write_key'"), (403, "check 'write_key'"), (404, "check 'endpoint'"), (405, "check 'endpoint'"),
     (204, "check 'endpoint'"), (402, "check 'endpoint'"), (302, "nothing is sent there")],
)  # fmt: skip
def test_a_wrong_setting_loses_nothing(status: int, hint: str) -> None:
    for count in (1, 2):
        with pytest.raises(RetryLater, match=rf"^h .*\({status}\)") as failure:
            judge(Answer(status, b"no"), count, "h", NOW)
        assert hint in str(failure.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_not_ready(status: int) -> None:
    with pytest.raises(RetryLater, match=f"not ready .{status}") as failure:
        judge(Answer(status, b"", {"Retry-After": "7"}), 1, "h", NOW)
    assert failure.value.after == 7.0


def test_what_is_refused() -> None:
    for status in (400, 413):
        with pytest.raises(TooLarge):
            judge(Answer(status), 2, "h", NOW)
    with pytest.raises(TooLarge):
        judge(Answer(413), 1, "h", NOW)
    with pytest.raises(Rejected, match="no such thing"):
        judge(Answer(400, b'{"detail": "no such thing"}'), 1, "h", NOW)
