"""Real requests to a server that follows the documentation, and misbehaves."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry_posthog import PosthogReporter

if TYPE_CHECKING:
    from .conftest import MakeBatch, MakeEvent, Server

KEY = "phc_ofThisProject"


async def test_a_batch_is_taken_as_it_is_documented(
    server: Server, reporter: PosthogReporter, batch: MakeBatch
) -> None:
    assert await reporter.report_batch(batch(3)) is None
    (request,) = server.seen
    assert (request.method, request.path) == ("POST", "/batch/")
    assert request.body == reporter.encode(batch(3))
    assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Type", "Content-Length"}
    assert request.headers["User-Agent"] == "cmdorc-telemetry-posthog/0.1.0"
    assert server.project.ids() == {event.event_id for event in batch(3).events}
    assert server.project.ignored == []


async def test_posthog_learns_neither_address_nor_place_nor_person(
    server: Server, reporter: PosthogReporter, batch: MakeBatch
) -> None:
    await reporter.report_batch(batch(2))
    for event in server.project.events:
        assert {name for name in event["properties"] if name.startswith("$")} == {
            "$geoip_disable", "$ip", "$process_person_profile"
        }  # fmt: skip
        assert event["properties"]["$ip"] == "0.0.0.0"
        assert event["timestamp"] == "2026-01-02T03:04:05Z"  # its own, however late it comes
    assert server.project.persons == set()


async def test_a_batch_that_comes_again_counts_once(
    server: Server, reporter: PosthogReporter, batch: MakeBatch
) -> None:
    server.will("answer-lost", "reset-mid-answer", "502-after-commit")
    for _ in range(3):
        with pytest.raises(RetryLater):
            await reporter.report_batch(batch(5))
    await reporter.report_batch(batch(5))
    assert server.project.received == 20
    assert len(server.project.events) == 5
    assert len({request.body for request in server.seen}) == 1


async def test_historical_events(server: Server, batch: MakeBatch) -> None:
    settings = PosthogReporter.Settings(endpoint=server.url + "/", api_key=KEY, historical_migration=True)
    reporter = PosthogReporter(settings)
    await reporter.report_batch(batch(1))
    await reporter.close()
    assert server.project.historical == [True]
    assert server.seen[0].path == "/batch/"


async def test_a_single_event(server: Server, reporter: PosthogReporter, made: MakeEvent) -> None:
    await reporter.report("command_completed", made(7).payload)
    assert [event["properties"]["duration_ms"] for event in server.project.events] == [7]


async def test_nothing_is_sent_for_an_empty_batch(server: Server, reporter: PosthogReporter, batch: MakeBatch) -> None:
    await reporter.report_batch(batch())
    assert server.seen == []


async def test_a_key_that_is_not_known(server: Server, batch: MakeBatch) -> None:
    reporter = PosthogReporter(PosthogReporter.Settings(endpoint=server.url, api_key="phc_other"))
    with pytest.raises(RetryLater, match="does not know the project: check 'api_key'") as failure:
        await reporter.report_batch(batch(1))
    assert "phc_other" not in str(failure.value)
    await reporter.close()


async def test_refusals(server: Server, reporter: PosthogReporter, batch: MakeBatch, made: MakeEvent) -> None:
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
    assert server.project.events == []


@pytest.mark.skipif(find_spec("posthog") is None, reason="PostHog's own library is not installed")
def test_the_server_here_takes_what_posthogs_own_library_sends(server: Server) -> None:
    script = (
        "import sys, uuid\nfrom posthog import Posthog\n"
        "client = Posthog(sys.argv[1], host=sys.argv[2])\n"
        "for n in range(3): client.capture('e', distinct_id='d', properties={'n': n})\n"
        "client.shutdown()\n"
    )
    subprocess.run([sys.executable, "-c", script, KEY, server.url], check=True, timeout=30)
    assert sorted(event["properties"]["n"] for event in server.project.events) == [0, 1, 2]
    assert server.project.ignored == []
    added = server.project.events[0]["properties"]
    assert {"$lib", "$os_version", "$python_version", "$sent_at"} <= set(added)  # which is why it is not used
    assert added["$ip"] == "127.0.0.1"
    assert json.loads(server.seen[0].plain)["sent_at"]
