"""What every reporter that posts to one server has, and how services that name fields otherwise get them."""

from __future__ import annotations

import json

import msgspec
import pytest

from cmdorc_telemetry.errors import Rejected, RetryLater
from cmdorc_telemetry.http.bodies import split
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.testing import FaultServer
from cmdorc_telemetry.types import Batch, BatchResult, EventResult


class Posting(PostingReporter):
    """The least of one."""

    name, agent = "posting", "posting/1.0"
    result: BatchResult | None = None

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        await self.request("POST", "/report", {"Content-Type": "application/json"}, self.encode(batch))
        return self.result


async def test_one_event_is_a_batch(server: FaultServer) -> None:
    reporter = Posting(None, server.endpoint + "/")
    await reporter.report("ran", {"event_id": "e", "state": "success"})
    (request,) = server.seen
    assert (request.method, request.path) == ("POST", "/v1/report")
    assert json.loads(request.body) == {"event": "ran", "event_id": "e", "state": "success"}
    assert request.headers["User-Agent"] == "posting/1.0"
    assert reporter.host == f"127.0.0.1:{server.port}"
    await reporter.close()


async def test_what_a_result_says_of_it_is_raised(server: FaultServer) -> None:
    reporter = Posting(None, server.endpoint)
    for status in ("accepted", "duplicate"):
        reporter.result = BatchResult(results=(EventResult("e", status),))  # type: ignore[arg-type]
        await reporter.report("ran", {"event_id": "e"})
    reporter.result = BatchResult(results=(EventResult("e", "rejected", "too old"),))
    with pytest.raises(Rejected, match=rf"^{reporter.host} rejects the event: too old"):
        await reporter.report("ran", {"event_id": "e"})
    reporter.result = BatchResult(results=(EventResult("e", "retry", "busy"),))
    with pytest.raises(RetryLater, match=rf"^{reporter.host} asks for the event again: busy"):
        await reporter.report("ran", {"event_id": "e"})
    reporter.result = BatchResult()
    await reporter.report("ran", {})
    await reporter.close()


async def test_a_connection_is_kept_until_it_is_closed(server: FaultServer) -> None:
    reporter = Posting(None, server.endpoint)
    for _ in range(2):
        for _ in range(2):
            await reporter.report("ran", {"event_id": "e"})
        await reporter.close()
        await reporter.close()
    peers = [request.peer for request in server.seen]
    assert peers[0] == peers[1] != peers[2] == peers[3]


NAMES = {"uuid": "event_id", "who": "install"}


def test_values_are_passed_on_as_the_gate_let_them_out() -> None:
    base, others = split(b'{"a":1e3,"event_id":"\\u00fc","b":[ 1, 2],"install":7,"c":1.0}', NAMES)
    assert msgspec.json.encode(base) == b'{"uuid":"\\u00fc","who":7}'
    assert msgspec.json.encode(others) == b'{"a":1e3,"b":[ 1, 2],"c":1.0}'


@pytest.mark.parametrize(("body", "lacks"), [(b'{"event_id":1}', "install"), (b"{}", "event_id, install")])
def test_an_event_waits_for_what_rename_took_away(body: bytes, lacks: str) -> None:
    with pytest.raises(RetryLater, match=f"^it needs {lacks}: check the destination's 'rename'$"):
        split(body, NAMES)
