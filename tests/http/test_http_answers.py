"""What an answer means for a batch, whatever the service: pure, each line of the documentation once."""

from __future__ import annotations

import math
import time

import pytest

from cmdorc_telemetry.errors import DeliveryError, Rejected, RetryLater, TooLarge
from cmdorc_telemetry.http.answers import Answer, printable, reason, refusal, retry_after

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
HINTS = {0: "gave an answer that nobody knows", 401: "refuses access: check 'token'"}


def refused(status: int, body: bytes | None = b"", count: int = 1, **headers: str) -> DeliveryError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(Answer(status, body, named), count=count, host="h", now=NOW, hints=HINTS)


def test_what_is_too_large_comes_again_in_smaller_batches() -> None:
    for count in (1, 2):
        assert isinstance(refused(413, count=count), TooLarge)
    assert str(refused(413)) == "h does not take this batch as a whole (413)"


@pytest.mark.parametrize("status", [400, 422])
def test_an_invalid_event_is_looked_for_until_it_is_alone(status: int) -> None:
    body = b'{"detail": "unknown\\n field"}'
    assert isinstance(refused(status, body, count=2), TooLarge)
    alone = refused(status, body)
    assert isinstance(alone, Rejected)
    assert str(alone) == f"h finds the event invalid ({status}): unknown field"


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 204, 402, 410])
@pytest.mark.parametrize("count", [1, 2])
def test_a_wrong_setting_loses_nothing(status: int, count: int) -> None:
    fault = refused(status, count=count, Retry_After="5")
    assert isinstance(fault, RetryLater)
    assert fault.after is None
    assert str(fault) == f"h {HINTS.get(status, HINTS[0])} ({status})"


def test_a_redirect_says_where_to() -> None:
    fault = refused(307, Location="https://e.example\x1b[2J")
    assert isinstance(fault, RetryLater)
    assert str(fault) == "h redirects to https://e.example[2J (307): nothing is sent there; check 'endpoint'"
    assert "to nowhere (301)" in str(refused(301))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_not_ready(status: int) -> None:
    fault = refused(status, count=2, Retry_After="7")
    assert isinstance(fault, RetryLater)
    assert (fault.after, str(fault)) == (7.0, f"h is not ready ({status})")


@pytest.mark.parametrize(
    ("body", "said"),
    [(b'{"reason": "a", "message": "b"}', ": a"), (b'{"error": "e"}', ": e"), (b'{"message": 3, "detail": "d"}', ": d"),
     (b"{}", ""), (b"<html>", ""), (b'{"detail": "\xff"}', ""), (b'{"x":' * 100_000, ""), (b"[]", ""), (None, "")],
)  # fmt: skip
def test_the_reason_that_a_server_gives(body: bytes | None, said: str) -> None:
    assert reason(Answer(400, body)) == said


def test_what_a_server_says_is_safe_to_print() -> None:
    assert printable("a\x1b[31m\n" + "x" * 9, 8) == "a[31mxxx"
    assert printable(7, 8) == ""


@pytest.mark.parametrize(
    ("value", "after"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("3601", 3601.0),
        ("9" * 5000, math.inf),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 07:59:59 GMT", None),
        ("Sat, 15 Jan 2028 08:00:00 GMT", 365 * 86_400.0),
        ("Fri, 32 Jan 2027 08:00:00 GMT", None),
        ("Fri, 15 Jan 99999999999 08:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, after: float | None) -> None:
    assert retry_after(value, NOW) == after


@pytest.mark.parametrize(
    ("date", "after"), [("Fri, 15 Jan 2027 10:00:00 GMT", 30.0), ("today", 7230.0), (None, 7230.0)]
)
def test_a_date_is_meant_by_the_servers_clock(date: str | None, after: float) -> None:
    fault = refused(503, Retry_After="Fri, 15 Jan 2027 10:00:30 GMT", **({"Date": date} if date else {}))
    assert isinstance(fault, RetryLater)
    assert fault.after == after


def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after("Fri, 15 Jan 2027 08:00:30 -0000", NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()
