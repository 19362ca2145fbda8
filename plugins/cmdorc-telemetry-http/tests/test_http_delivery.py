"""Which request is made for what, and what becomes of its answer. The connection has tests of its own."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
import zstandard

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.types import Batch, EventResult
from cmdorc_telemetry_http import HttpReporter

if TYPE_CHECKING:
    from .conftest import Server

MakeBatch = Callable[..., Batch]


async def test_one_event_is_its_stored_body(server: Server, reporter: HttpReporter, make_batch: MakeBatch) -> None:
    batch = make_batch(1)
    result = await reporter.report_batch(batch)
    (request,) = server.seen
    assert (request.method, request.path) == ("POST", "/v1/report")
    assert request.body == batch.events[0].body == reporter.encode(batch)
    assert request.headers["Content-Type"] == "application/json"
    assert "Content-Encoding" not in request.headers
    assert result.results == (EventResult(batch.events[0].event_id, "accepted"),)
    assert result.answer == {"message": "Thanks!", "stats": {"percentile_duration": 87}}


async def test_nothing_else_is_said_of_the_sender(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch
) -> None:
    await reporter.report_batch(make_batch(1))
    headers = server.seen[0].headers
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Content-Length"}
    assert headers["User-Agent"] == "cmdorc-telemetry-http/0.1.0"
    assert headers["Accept-Encoding"] == "identity"


async def test_several_events_are_ndjson_with_zstd(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch
) -> None:
    batch = make_batch(300)
    result = await reporter.report_batch(batch)
    (request,) = server.seen
    assert request.headers["Content-Type"] == "application/x-ndjson"
    assert request.headers["Content-Encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompress(request.body) == reporter.encode(batch)
    assert reporter.encode(batch) == b"".join(event.body + b"\n" for event in batch.events)
    assert len(request.body) < len(reporter.encode(batch)) / 5
    assert result.results is not None
    assert {each.status for each in result.results} == {"accepted"}
    again = await reporter.report_batch(batch)
    assert again.results is not None
    assert {each.status for each in again.results} == {"duplicate"}


async def test_a_server_without_zstd_gets_gzip_from_then_on(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch
) -> None:
    batch = make_batch(3)
    server.will_answer(415)
    await reporter.report_batch(batch)
    await reporter.report_batch(batch)
    assert [request.headers["Content-Encoding"] for request in server.seen] == ["zstd", "gzip", "gzip"]
    assert gzip.decompress(server.seen[1].body) == reporter.encode(batch)
    assert server.seen[1].body == server.seen[2].body
    assert len(server.receiver.stored) == 3


async def test_gzip_where_zstandard_is_not_installed(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    await reporter.report_batch(make_batch(2))
    assert server.seen[0].headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(server.seen[0].body) == reporter.encode(make_batch(2))


async def test_415_for_every_coding_waits(server: Server, reporter: HttpReporter, make_batch: MakeBatch) -> None:
    for _ in range(2):
        server.will_answer(415)
    with pytest.raises(RetryLater, match="415"):
        await reporter.report_batch(make_batch(2))
    assert len(server.seen) == 2


async def test_drop_counts(server: Server, reporter: HttpReporter, make_batch: MakeBatch) -> None:
    await reporter.report_batch(make_batch(1, epoch="e1", drops={"expired": 3, "spool-full": 0, "disk-full": 2}))
    await reporter.report_batch(make_batch(1, epoch="e1", drops={"expired": 0}))
    assert server.seen[0].headers["Telemetry-Drops"] == "epoch=e1; expired=3; disk-full=2"
    assert "Telemetry-Drops" not in server.seen[1].headers


async def test_nothing_is_sent_for_an_empty_batch(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch
) -> None:
    assert (await reporter.report_batch(make_batch(0))).results is None
    assert server.seen == []


async def test_one_connection_for_many_batches(server: Server, reporter: HttpReporter, make_batch: MakeBatch) -> None:
    for count in (1, 2, 3):
        await reporter.report_batch(make_batch(count))
    assert len({request.peer for request in server.seen}) == 1


async def test_token_and_trailing_slash(server: Server, make_batch: MakeBatch) -> None:
    reporter = HttpReporter(HttpReporter.Settings(endpoint=server.endpoint + "/", token="s3cret"))
    await reporter.report_batch(make_batch(1))
    await reporter.fetch_policy(None)
    await reporter.close()
    assert [request.path for request in server.seen] == ["/v1/report", "/v1/policy"]
    assert {request.headers["Authorization"] for request in server.seen} == {"Bearer s3cret"}


@pytest.mark.parametrize(
    ("value", "low", "high"), [("3", 3, 3), ("date", 20, 31), ("-3", None, None), ("?", None, None)]
)
async def test_retry_after(
    server: Server, reporter: HttpReporter, make_batch: MakeBatch, value: str, low: float | None, high: float
) -> None:
    server.will_answer(503, Retry_After=formatdate(clock.wall() + 30, usegmt=True) if value == "date" else value)
    with pytest.raises(RetryLater, match=f"^{server.host} is not ready") as failure:
        await reporter.report_batch(make_batch(2))
    after = failure.value.after
    assert after is None if low is None else after is not None and low <= after <= high


async def test_413_and_400(server: Server, reporter: HttpReporter, make_batch: MakeBatch) -> None:
    server.will_answer(413)
    with pytest.raises(TooLarge):
        await reporter.report_batch(make_batch(2))
    server.will_answer(400, '{"detail": "line 2 is no JSON"}')
    with pytest.raises(TooLarge, match="line 2 is no JSON"):
        await reporter.report_batch(make_batch(2))
    server.will_answer(422, '{"detail": "duration_ms: expected a number"}')
    with pytest.raises(Rejected, match="duration_ms"):
        await reporter.report_batch(make_batch(1))


async def test_report_sends_one_event(server: Server, reporter: HttpReporter) -> None:
    await reporter.report("command_completed", {"event_id": "e", "state": "success"})
    assert json.loads(server.seen[0].body) == {"event": "command_completed", "event_id": "e", "state": "success"}
    assert server.seen[0].headers["Content-Type"] == "application/json"
    server.will_answer(200, '{"results": [{"event_id": "e", "status": "rejected", "reason": "too old"}]}')
    with pytest.raises(Rejected, match="too old"):
        await reporter.report("command_completed", {"event_id": "e"})
    server.will_answer(200, '{"results": [{"event_id": "e", "status": "retry"}]}')
    with pytest.raises(RetryLater):
        await reporter.report("command_completed", {"event_id": "e"})


async def test_erase(server: Server, reporter: HttpReporter) -> None:
    server.will_answer(204)
    server.will_answer(200, '{"message": "Erased.", "deleted": 3}')
    assert await reporter.erase(["a", "b/../c"]) is True
    assert [(request.method, request.path) for request in server.seen] == [
        ("DELETE", "/v1/installs/a"),
        ("DELETE", "/v1/installs/b%2F..%2Fc"),
    ]
    server.will_answer(204)
    server.will_answer(503, '{"message": "later"}')
    with pytest.raises(RetryLater, match=r"did not erase this install \(503\): later$"):
        await reporter.erase(["a", "b"])
    server.will("reset-after-reading", "reset-after-reading")  # on the connection that was kept, and on a new one
    with pytest.raises(RetryLater):
        await reporter.erase(["a"])


@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_a_server_that_cannot_erase(server: Server, reporter: HttpReporter, status: int) -> None:
    server.will_answer(status)
    with pytest.raises(Rejected, match=rf"has nothing of this install, or no way to erase it \({status}\)$"):
        await reporter.erase(["a"])


@pytest.mark.parametrize("status", [301, 400, 401, 403, 408, 429, 500])
async def test_an_erasure_that_is_not_confirmed(server: Server, reporter: HttpReporter, status: int) -> None:
    server.will_answer(status)
    with pytest.raises(RetryLater, match=rf"\({status}\)$"):
        await reporter.erase(["a"])


@pytest.mark.parametrize("body", [b"<html>Welcome to the hotel</html>", b"[]", b"\xff"])
async def test_a_page_is_no_confirmation(server: Server, reporter: HttpReporter, body: bytes) -> None:
    server.will_answer(200, body)
    with pytest.raises(RetryLater, match="cannot be read"):
        await reporter.erase(["a"])


async def test_policy(server: Server, reporter: HttpReporter) -> None:
    server.will_answer(200, '{"sampling": 0.5}', ETag='"v1"')
    server.will_answer(304)
    assert await reporter.fetch_policy(None) == {"sampling": 0.5, "etag": '"v1"'}
    assert await reporter.fetch_policy('"v1"') is None
    assert "If-None-Match" not in server.seen[0].headers
    assert server.seen[1].headers["If-None-Match"] == '"v1"'
    assert {(request.method, request.path) for request in server.seen} == {("GET", "/v1/policy")}


@pytest.mark.parametrize("body", [b"[]", b"<html>", b"", b'{"\xff": 1}', b'{"x":' * 100_000])
async def test_policy_that_cannot_be_read(server: Server, reporter: HttpReporter, body: bytes) -> None:
    server.will_answer(200, body)
    assert await reporter.fetch_policy(None) is None


async def test_policy_that_cannot_be_had(server: Server, reporter: HttpReporter) -> None:
    server.will_answer(500, "{}")
    server.will("endless-body", "reset-after-reading")
    for _ in range(3):
        assert await asyncio.wait_for(reporter.fetch_policy(None), 10) is None


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Whatever goes wrong is raised, never logged."""
    with caplog.at_level(logging.DEBUG, logger="cmdorc_telemetry"):
        yield
    assert [record for record in caplog.records if record.name.startswith("cmdorc")] == []
