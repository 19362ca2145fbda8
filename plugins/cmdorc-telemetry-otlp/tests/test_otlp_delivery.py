"""What becomes of a batch, whatever a receiver does: what arrived is not sent again, what did not is not lost."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, Rejected, RetryLater, TooLarge
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.testing import FaultServer
from cmdorc_telemetry.types import Batch
from cmdorc_telemetry_otlp import OtlpReporter

Make = Callable[..., Any]
RUNS = "cmdorc.command_completed.count"


def test_one_request_a_signal(server: Any, reporter: Any, send: Make, run: Make) -> None:
    assert send(reporter, run(manual=True), run()) == ["accepted", "accepted"]
    assert server.paths() == ["/v1/traces", "/v1/logs", "/v1/metrics"]
    assert len({request.peer for request in server.seen}) == 1, "one connection"
    (first, *_) = server.seen
    assert first.headers["Content-Type"] == "application/x-protobuf"
    assert first.headers["Content-Encoding"] == "gzip"
    assert first.body[4:8] == b"\0\0\0\0", "the same batch is the same bytes"
    assert ExportTraceServiceRequest.FromString(gzip.decompress(first.body)).resource_spans


def test_without_compression(server: Any, another: Make, send: Make, run: Make) -> None:
    send(another(compression="none"), run(manual=True))
    assert not any("Content-Encoding" in request.headers for request in server.seen)
    assert len(server.got.spans) == 1


def test_what_is_encoded_is_what_is_sent(server: Any, reporter: Any, run: Make) -> None:
    batch = Batch(destination="otlp", events=(run(manual=True), run()))

    async def life() -> bytes:
        encoded: bytes = reporter.encode(batch)
        assert encoded == reporter.encode(batch)
        await reporter.report_batch(batch)
        await reporter.close()
        return encoded

    assert asyncio.run(life()) == b"".join(request.plain for request in server.seen)


def test_encoding_writes_nothing(another: Make, send: Make, run: Make, home: Path) -> None:
    batch = Batch(destination="otlp", events=(run(),))
    first = another().encode(batch)
    assert not list(home.iterdir())
    send(another(), run())
    state = another().state_of("otlp").path
    before = state.read_bytes()
    assert another().encode(batch) == another().encode(batch) != first  # it counts on
    assert state.read_bytes() == before


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_signal_that_failed_comes_again_and_no_other(
    server: Any, another: Make, send: Make, run: Make, failing: int
) -> None:
    events = [run(manual=True), run()]
    server.will(*[None] * failing, "503-seconds")
    with pytest.raises(RetryLater) as raised:
        send(another(), *events)
    assert raised.value.after == pytest.approx(1, abs=0.5)
    assert send(another(), *events) == ["accepted"] * 2  # as another process does
    assert Counter(server.paths()) == Counter(
        f"/v1/{signal}" for number, signal in enumerate(("traces", "logs", "metrics"))
        for _ in range(2 if number == failing else 1)
    )  # fmt: skip
    assert len(server.got.records) == 2
    assert len(server.got.spans) == 1
    assert server.got.total(RUNS) == 2
    assert server.got.faults == []


def test_what_arrived_without_an_answer(server: Any, another: Make, send: Make, run: Make) -> None:
    sent = []
    for number in range(3):
        events = [run(manual=True), run()]
        sent += events
        server.will(*[None] * number, "answer-lost")
        with suppress(RetryLater):  # on a connection that was kept, it is sent once more
            send(another(), *events)
        assert send(another(), *events) == ["accepted", "accepted"]
    copies = server.got.copies.values()
    assert sorted(len(each) for each in copies) == [1, 1, 2]
    assert [len(set(each)) for each in copies] == [1, 1, 1], "the same span, byte for byte"
    assert set(server.got.event_ids()) == {event.event_id for event in sent}
    assert len(server.got.event_ids()) == 8, "OTLP has nothing that tells two records apart"
    assert server.got.total(RUNS) == 6, "however often they were told"
    assert server.got.faults == []


def test_what_comes_again_counts_once(server: Any, another: Make, send: Make, run: Make) -> None:
    events = [run(manual=True), run()]
    for _ in range(3):
        assert send(another(), *events) == ["accepted", "accepted"]
    assert len(server.seen) == 3
    fresh = run(ms=90)
    assert send(another(), events[0], fresh, fresh) == ["accepted"] * 3
    assert server.got.event_ids().count(fresh.event_id) == 2  # twice in one batch, which delivery never does
    assert server.got.total(RUNS) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 301, 401, 403, 404, 405, 415, 418])
def test_nothing_is_lost_that_may_still_arrive(
    server: Any, another: Make, send: Make, run: Make, status: int
) -> None:  # fmt: skip
    event = run(manual=True)
    server.will_answer(status, Retry_After="17")
    with pytest.raises(RetryLater) as raised:
        send(another(), event)
    assert raised.value.after == (17 if status in (408, 429) or status >= 500 else None)
    assert str(status) in str(raised.value)
    send(another(), event)
    assert server.got.event_ids() == [event.event_id]


def test_a_batch_that_is_too_large_is_split(server: Any, another: Make, send: Make, run: Make) -> None:
    events = [run(manual=True), run(manual=True)]
    for status in (400, 413, 422):
        server.will_answer(status)
        with pytest.raises(TooLarge):
            send(another(), *events)
    server.will_answer(400, b"\x08\x03\x12\x0bnot decoded", Content_Type="application/x-protobuf")
    with pytest.raises(Rejected, match=r"\(400\): not decoded$"):
        send(another(), events[0])
    server.will_answer(413)
    with pytest.raises(TooLarge):
        send(another(), events[0])
    assert send(another(), *events) == ["accepted"] * 2
    assert server.got.total(RUNS) == 2


def test_of_series_that_are_refused_no_event_is_to_blame(server: Any, another: Make, send: Make, run: Make) -> None:
    for status in (400, 413):
        server.will(None)
        server.will_answer(status)
        assert send(another(), run()) == ["accepted"]
    send(another(), run())
    assert server.got.total(RUNS) == 3  # the next ones tell all


def test_a_partial_success_is_told_and_not_repeated(server: Any, reporter: Any, run: Make) -> None:
    events = tuple(run(manual=True) for _ in range(3))
    server.got.refusing = {"traces": (1, "too old\x1b[31m"), "metrics": (2, "no room")}

    async def life() -> Any:
        first = await reporter.report_batch(Batch(destination="otlp", events=events))
        again = await reporter.report_batch(Batch(destination="otlp", events=events))
        await reporter.close()
        return first, again

    first, again = asyncio.run(life())
    assert {each.status for each in first.results} == {"accepted"}
    assert first.answer == {
        "message": "traces: 1 of 3 not taken: too old[31m; metrics: 2 points not taken: no room"
    }  # fmt: skip
    assert again.answer is None
    assert server.paths() == ["/v1/traces", "/v1/logs", "/v1/metrics"]


def test_what_is_refused_as_a_whole_is_rejected(server: Any, reporter: Any, send: Make, run: Make) -> None:
    server.got.refusing = {"traces": (1, "")}
    assert send(reporter, run(), run(manual=True), run()) == ["accepted", "rejected", "accepted"]
    server.got.refusing = {"logs": (2, "")}
    assert send(reporter, run(), run()) == ["rejected", "rejected"]


@pytest.mark.parametrize("fault", ["html", "broken-json", "other-shape", "huge-body"])
def test_an_answer_of_something_else_is_none(server: Any, another: Make, send: Make, run: Make, fault: str) -> None:
    event = run()
    server.will(fault)
    with pytest.raises(RetryLater, match="none of OTLP"):
        send(another(), event)
    send(another(), event)
    assert set(server.got.event_ids()) == {event.event_id}


def test_an_empty_batch_is_nothing(server: Any, another: Make, send: Make, home: Path) -> None:
    assert send(another()) == []
    assert server.seen == []
    assert not list(home.iterdir())


def test_headers_of_the_users_own(server: Any, another: Make, send: Make, run: Make) -> None:
    send(another(headers={"X-Api-Key": "s3cret"}), run())
    send(another(headers="x-api-key=s3%20cret, x-tenant=a=b"), run())
    assert {request.headers["X-Api-Key"] for request in server.seen} == {"s3cret", "s3 cret"}
    assert server.seen[-1].headers["x-tenant"] == "a=b"
    assert "s3cret" not in repr(another(headers={"X-Api-Key": "s3cret"}).settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "endpoint"),
        ({"endpoint": "http://collector:4318"}, "expected https://"),
        ({"endpoint": "http://127.0.0.1:4317"}, "4317 is that of gRPC"),
        ({"endpoint": "https://o.example/v1/traces"}, "expected it without /v1/…"),
        ({"endpoint": "https://u:p4ss@o.example"}, "use the key 'headers'"),
        ({"signals": []}, "signals"),
        ({"signals": ["logs", "logs"]}, "signals"),
        ({"signals": ["profiles"]}, "profiles"),
        ({"compression": "zstd"}, "zstd"),
        ({"headers": "p4ss"}, "found no '=' in number 1"),
        ({"headers": {"a b": "p4ss"}}, "found the name 'a b'"),
        ({"headers": {"Content-Type": "p4ss"}}, "that are made here"),
        ({"headers": {"a": "p4ss\r\nb: c"}}, "the value of 'a'"),
        ({"most_values": 0}, "most_values"),
        ({"buckets": [1, 1]}, "buckets"),
        ({"bukets": [1]}, "Did you mean 'buckets'"),
    ],
)
def test_settings_that_cannot_be(settings: Any, said: str) -> None:
    whole = {"endpoint": "https://o.example", **settings} if settings else {}
    with pytest.raises(ConfigError) as raised:
        decode(whole, OtlpReporter.Settings, "config.toml", key="telemetry.to.otlp")
    assert said in str(raised.value)
    assert "p4ss" not in str(raised.value)
    assert "config.toml: telemetry.to.otlp" in str(raised.value)


def test_only_a_server_that_proves_who_it_is(run: Make, send: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        from cmdorc_telemetry.testing import Answer

        seen.append(request)
        return Answer(200)

    with FaultServer(tls=True, answer=answer) as server:
        settings = OtlpReporter.Settings(endpoint=f"https://127.0.0.1:{server.port}")
        with pytest.raises(RetryLater, match="certificate"):
            send(OtlpReporter(settings), run())
        assert seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        assert send(OtlpReporter(settings), run()) == ["accepted"]
        assert len(seen) == 2


def test_while_another_process_counts(another: Make, send: Make, run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import cmdorc_telemetry.tally.counts as module

    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    reporter = another()
    reporter.state_of("otlp").path.parent.mkdir(parents=True)
    lock = FileLock(reporter.state_of("otlp").path.with_suffix(".db.lock"))
    assert lock.acquire(wait=False)
    with pytest.raises(RetryLater, match="another process holds its lock"):
        send(reporter, run())
    lock.release()
    assert send(reporter, run()) == ["accepted"]


def test_nothing_is_sent_that_was_drafted_before_another_counted(
    server: Any, another: Make, send: Make, run: Make
) -> None:  # fmt: skip
    late = another()
    batch = Batch(destination="otlp", events=(run(),))
    late.encode(batch)
    send(another(), run())
    before = len(server.seen)
    with pytest.raises(RetryLater, match="has counted meanwhile"):
        send_batch(late, batch)
    assert len(server.seen) == before
    send_batch(late, batch)
    assert server.got.total(RUNS) == 2


def send_batch(reporter: Any, batch: Batch) -> None:
    async def life() -> None:
        try:
            await reporter.report_batch(batch)
        finally:
            await reporter.close()

    asyncio.run(life())


def test_nothing_is_imported_before_something_is_sent() -> None:
    script = (
        "import sys, cmdorc_telemetry_otlp.plugin as plugin; from cmdorc_telemetry_otlp import OtlpReporter\n"
        "OtlpReporter(OtlpReporter.Settings(endpoint='https://o.example'))\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'google', 'h11')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
