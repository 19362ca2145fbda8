"""Real requests to a server that follows the documentation, and misbehaves."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry_segment import SegmentReporter

if TYPE_CHECKING:
    from .conftest import MakeBatch, MakeEvent, Server

KEY = "ofThisSource"


async def test_a_batch_is_taken_as_it_is_documented(
    server: Server, reporter: SegmentReporter, batch: MakeBatch
) -> None:
    assert await reporter.report_batch(batch(3)) is None
    (request,) = server.seen
    assert (request.method, request.path) == ("POST", "/v1/batch")
    assert request.body == reporter.encode(batch(3))
    assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Content-Length",
                                    "Authorization"}  # fmt: skip
    assert request.headers["User-Agent"] == "cmdorc-telemetry-segment/0.1.0"
    assert server.source.ids() == {event.event_id for event in batch(3).events}
    assert server.source.ignored == []


async def test_segment_learns_no_address_and_no_other_time(
    server: Server, reporter: SegmentReporter, batch: MakeBatch
) -> None:
    await reporter.report_batch(batch(2))
    for event in server.source.events:
        assert event["context"] == {}
        assert "userId" not in event
        assert event["timestamp"].isoformat() == "2026-01-02T03:04:05+00:00"  # its own, however late it comes


async def test_a_batch_that_comes_again_counts_once(
    server: Server, reporter: SegmentReporter, batch: MakeBatch
) -> None:
    server.will("answer-lost", "reset-mid-answer", "502-after-commit")
    for _ in range(3):
        with pytest.raises(RetryLater):
            await reporter.report_batch(batch(5))
    await reporter.report_batch(batch(5))
    assert server.source.received == 20
    assert len(server.source.events) == 5
    assert len({request.body for request in server.seen}) == 1


async def test_a_single_event(server: Server, reporter: SegmentReporter, made: MakeEvent) -> None:
    await reporter.report("command_completed", made(7).payload)
    assert [event["properties"]["duration_ms"] for event in server.source.events] == [7]


async def test_nothing_is_sent_for_an_empty_batch(server: Server, reporter: SegmentReporter, batch: MakeBatch) -> None:
    await reporter.report_batch(batch())
    assert server.seen == []


async def test_a_refused_key(server: Server, batch: MakeBatch) -> None:
    reporter = SegmentReporter(SegmentReporter.Settings(endpoint=server.endpoint + "/", write_key="other_one"))
    server.will_answer(401)
    with pytest.raises(RetryLater, match="does not know the source: check 'write_key'") as failure:
        await reporter.report_batch(batch(1))
    assert "other_one" not in str(failure.value)
    assert server.seen[0].path == "/v1/batch"
    await reporter.close()


async def test_refusals(server: Server, reporter: SegmentReporter, batch: MakeBatch, made: MakeEvent) -> None:
    server.will_answer(503, Retry_After="11")
    with pytest.raises(RetryLater) as failure:
        await reporter.report_batch(batch(2))
    assert failure.value.after == 11
    server.will_answer(413)
    with pytest.raises(TooLarge):
        await reporter.report_batch(batch(2))
    server.will_answer(400, b'{"detail": "bad"}')
    with pytest.raises(Rejected, match="bad"):
        await reporter.report_batch(batch(1))
    requests = len(server.seen)
    with pytest.raises(TooLarge):  # known before anything is sent
        await reporter.report_batch(batch(made(1, text="x" * 1_000_000)))
    assert len(server.seen) == requests
    assert server.source.events == []


@pytest.mark.skipif(find_spec("segment") is None, reason="Segment's own library is not installed")
def test_the_server_here_takes_what_segments_own_library_sends(server: Server) -> None:
    script = (
        "import sys\nfrom segment.analytics import Client\n"
        "client = Client(sys.argv[1], host=sys.argv[2])\n"
        "for n in range(3): client.track(anonymous_id='d', event='e', properties={'n': n})\n"
        "client.shutdown()\n"
    )
    subprocess.run([sys.executable, "-c", script, KEY, f"http://127.0.0.1:{server.port}"], check=True, timeout=30)
    assert sorted(event["properties"]["n"] for event in server.source.events) == [0, 1, 2]
    assert server.source.ignored == []
    assert server.source.events[0]["context"]["library"]  # which is why it is not used
    assert json.loads(server.seen[0].plain)["sentAt"]
