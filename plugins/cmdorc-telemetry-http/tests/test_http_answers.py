"""What an answer means: pure, each line of the protocol once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.http.answers import Answer
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


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "'token'"), (403, "'token'"), (404, "'endpoint'"), (405, "'endpoint'"), (415, "'endpoint'"),
     (302, "'endpoint'"), (204, "no telemetry server"), (402, "no telemetry server"), (410, "no telemetry server")],
)  # fmt: skip
def test_a_wrong_setting_loses_nothing_and_is_named(status: int, hint: str) -> None:
    for ids in (IDS, ("a",)):
        with pytest.raises(RetryLater, match=rf"^h .*\({status}\)") as failure:
            judge(Answer(status), ids, "h", NOW)
        assert hint in str(failure.value)


def test_what_is_refused() -> None:
    with pytest.raises(TooLarge):
        judge(Answer(413), ("a",), "h", NOW)
    with pytest.raises(TooLarge):
        judge(Answer(422), IDS, "h", NOW)
    with pytest.raises(Rejected):
        judge(Answer(422), ("a",), "h", NOW)
