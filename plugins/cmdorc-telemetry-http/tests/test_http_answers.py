"""What an answer means: pure, each line of the protocol once."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.http.answers import Answer, retry_after
from cmdorc_telemetry.types import EventResult
from cmdorc_telemetry_http.answers import judge

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
IDS = ("a", "b")


def ok(body: Any) -> Answer:
    return Answer(200, json.dumps(body).encode())


def test_no_results_means_that_all_were_taken() -> None:
    result = judge(ok({"message": "Thanks!"}), IDS, "h", NOW)
    assert result.results is None
    assert result.answer == {"message": "Thanks!"}
    assert judge(ok({"stats": {}}), IDS, "h", NOW).results is None


@pytest.mark.parametrize("body", [{}, {"ok": True}, {"message": 3}, {"results": None}])
def test_a_200_that_says_nothing_of_the_events_is_no_acknowledgement(body: Any) -> None:
    with pytest.raises(RetryLater, match=r"^h gave an answer that says nothing of the events"):
        judge(ok(body), IDS, "h", NOW)


def test_results() -> None:
    entries = [
        {"event_id": "a", "status": "rejected", "reason": "no such\x1b[31m field"},
        {"event_id": "b", "status": "banana", "reason": 7},
        {"event_id": "z", "status": "accepted"},
    ]
    assert judge(ok({"results": entries}), IDS, "h", NOW).results == (
        EventResult("a", "rejected", "no such[31m field"),
        EventResult("b", "retry", None),
    )


def test_the_answer_is_bounded_and_safe_to_print() -> None:
    stats = {f"s{number}": number for number in range(1000)}
    kept = judge(ok({"message": "\x1b[2J" + "x" * 10_000, "stats": stats, "more": 1}), IDS, "h", NOW).answer
    assert kept is not None
    assert kept["message"] == "[2J" + "x" * 497
    assert len(kept["stats"]) == 50
    assert set(kept) == {"message", "stats"}


def test_stats_are_single_values() -> None:
    stats = {"p": 87, "ok": True, "text": "a\nb", "list": [1], "none": None, "huge": 1e300, "ra\tte": 0.5}
    kept = judge(ok({"message": 3, "stats": stats}), IDS, "h", NOW).answer
    assert kept == {"stats": {"p": 87, "ok": True, "text": "ab", "rate": 0.5}}
    assert judge(ok({"stats": [1]}), IDS, "h", NOW).answer is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>captive portal</html>",
        b"[]",
        b"null",
        b'{"results": 5}',
        b'{"results": [{"status": "accepted"}]}',
        b'{"message": "\xff"}',
        b'{"x":' * 100_000,
        None,
    ],
)
def test_an_unreadable_200_is_retried(body: bytes | None) -> None:
    with pytest.raises(RetryLater, match=r"^h gave (an answer that cannot be read|too long an answer)"):
        judge(Answer(200, body), IDS, "h", NOW)


def test_too_large() -> None:
    with pytest.raises(TooLarge, match="413"):
        judge(Answer(413), ("a",), "h", NOW)


@pytest.mark.parametrize("status", [400, 422])
def test_invalid(status: int) -> None:
    answer = Answer(status, b'{"detail": "unknown\\n field"}')
    with pytest.raises(TooLarge, match=f"{status}"):
        judge(answer, IDS, "h", NOW)
    with pytest.raises(Rejected, match=rf"h finds the event invalid \({status}\): unknown field"):
        judge(answer, ("a",), "h", NOW)
    for body in (b"<html>", b"{}"):
        with pytest.raises(Rejected, match=rf"invalid \({status}\)$"):
            judge(Answer(status, body), ("a",), "h", NOW)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415, 204, 302, 402, 410])
def test_a_wrong_setting_loses_nothing(status: int) -> None:
    for ids in (IDS, ("a",)):
        with pytest.raises(RetryLater, match=rf"^h .*\({status}\)") as failure:
            judge(Answer(status, b"", {"Retry-After": "5"}), ids, "h", NOW)
        assert failure.value.after is None


def test_a_redirect_says_where_to() -> None:
    with pytest.raises(RetryLater, match=r"h redirects to https://e\.example \(307\): nothing is sent there"):
        judge(Answer(307, b"", {"Location": "https://e.example"}), IDS, "h", NOW)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_not_ready(status: int) -> None:
    with pytest.raises(RetryLater, match=f"{status}") as failure:
        judge(Answer(status, b"", {"Retry-After": "7"}), ("a",), "h", NOW)
    assert failure.value.after == 7.0


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
    headers = {"Retry-After": "Fri, 15 Jan 2027 10:00:30 GMT", **({"Date": date} if date else {})}
    with pytest.raises(RetryLater) as raised:
        judge(Answer(503, b"", headers), IDS, "h", NOW)
    assert raised.value.after == after


def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after("Fri, 15 Jan 2027 08:00:30 -0000", NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()
