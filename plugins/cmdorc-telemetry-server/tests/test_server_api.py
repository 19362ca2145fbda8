"""What the server answers to reports, on a real socket."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Event = Callable[..., dict[str, Any]]
Serve = Callable[..., Any]


def test_one_event_in_the_form_of_the_protocol(serve: Serve, event: Event) -> None:
    server, sent = serve(), event()
    status, answer, headers = server.report(sent)
    assert (status, answer) == (
        200,
        {"message": "Thanks!", "stats": {}, "results": [{"event_id": sent["event_id"], "status": "accepted"}]},
    )
    assert headers["Content-Type"] == "application/json"
    assert "Server" not in headers
    assert server.stored() == [sent]


def test_the_seeds_form_gets_a_digest_the_core_spec_and_minimal(serve: Serve, event: Event) -> None:
    server, sent = serve(), event(event_id=None, spec=None, level=None)
    first, second = server.report(sent), server.report(dict(reversed(sent.items())))
    (result,) = first[1]["results"]
    assert result["status"] == "accepted"
    assert uuid.UUID(result["event_id"]).version == 8
    assert second[1]["results"] == [{"event_id": result["event_id"], "status": "duplicate"}]
    assert server.report({**sent, "duration_ms": 13})[1]["results"][0]["status"] == "accepted"
    body = server.stored()
    assert {**sent, "event_id": result["event_id"], "spec": "cmdorc.core@1", "level": "minimal"} in body
    assert len(body) == 2
    assert server.report({**sent, "chain_depth": 1})[0] == 422


def test_a_batch_has_a_result_for_each_line(serve: Serve, event: Event) -> None:
    server = serve()
    good, other = event(), event()
    batch = [good, b'{"event": ', {**event(), "extra": 1}, good, [], other]
    lines = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in batch)
    status, answer, _ = server.batch(lines + b"\r\n\n  \n")
    assert status == 200
    assert [(result["status"], result.get("reason")) for result in answer["results"]] == [
        ("accepted", None), ("rejected", "unreadable"), ("rejected", "invalid"), ("duplicate", None),
        ("rejected", "invalid"), ("accepted", None),
    ]  # fmt: skip
    assert answer["results"][1]["event_id"] == ""
    assert answer["results"][2]["event_id"] == batch[2]["event_id"]
    assert server.statuses([good, other]) == ["duplicate", "duplicate"]
    assert len(server.stored()) == 2


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"command_name": "deploy"}, "invalid", "unknown field `command_name`"),  # private
    ({"hashed_command_name": "0123456789ab"}, "invalid", "unknown field `hashed_command_name`"),  # above its level
    ({"duration_ms": "12"}, "invalid", "Expected `int`, got `str` - at `$.duration_ms`"),
    ({"duration_ms": -1}, "invalid", "`int` >= 0"),
    ({"duration_ms": 10**30}, "invalid", "$.duration_ms"),
    ({"duration_ms": 1.5}, "invalid", "$.duration_ms"),
    ({"final": 1}, "invalid", "$.final"),
    ({"state": "gone"}, "invalid", "$.state"),
    ({"anonymous_install_id": None}, "invalid", "missing required field `anonymous_install_id`"),
    ({"anonymous_install_id": "me@example.org"}, "invalid", "$.anonymous_install_id"),
    ({"event_id": "1"}, "invalid", "$.event_id"),
    ({"timestamp": "2026-13-45T99:99:99Z"}, "invalid", "$.timestamp"),
    ({"timestamp": "٢٠٢٦-01-01T00:00:00Z"}, "invalid", "$.timestamp"),  # digits, but not of ASCII
    ({"level": "loud"}, "invalid", "$.level"),
    ({"level": "other"}, "invalid", "$.level"),
    ({"event": "command_started"}, "unknown-event", "command_started"),
    ({"event": 7}, "invalid", "$.event"),
    ({"event": None}, "invalid", "missing required field `event`"),
    ({"spec": "cmdorc.core@2"}, "unknown-spec", "expected one of cmdorc.core@1"),
    ({"event": "trigger_fired"}, "invalid", "not shared at level minimal"),
    ({"os": "plan9"}, "invalid", "$.os"),
    ({"sampling_rate": 2}, "invalid", "$.sampling_rate"),
]


@pytest.mark.parametrize(("changes", "reason", "detail"), INVALID)
def test_what_the_spec_does_not_allow(
    server: Any, event: Event, changes: dict[str, Any], reason: str, detail: str
) -> None:
    bad, good = event(**changes), event()
    status, answer, _ = server.report(bad)
    (result,) = answer["results"]
    assert (status, result["status"], result["reason"]) == (422, "rejected", reason)
    assert detail in result["detail"]
    assert result["detail"] in answer["message"]
    if "event_id" not in changes:
        assert result["event_id"] == bad["event_id"]
    assert server.statuses([good, bad]) == ["accepted", "rejected"]
    stored = server.stored()
    assert good in stored
    assert bad not in stored


def test_properties_may_be_withheld(serve: Serve, event: Event) -> None:
    server = serve(k=1)
    withheld = ({"state": None}, {"duration_ms": None}, {"os": None, "python_version": None, "cmdorc_version": None})
    answers = [server.report(event(**changes)) for changes in withheld]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert [answer["stats"] for _, answer, _ in answers] == [{}, {}, {"percentile_duration": 50}]


def test_levels_admit_their_fields(server: Any, event: Event) -> None:
    for level, field in (("standard", {"chain_depth": 2}), ("debug", {"hashed_command_name": "0123456789ab"})):
        assert server.report(event(level=level, **field))[0] == 200
        assert server.report(event(level="minimal", **field))[0] == 422
    base = {"duration_ms": None, "state": None, "final": None, "manual": None, "event": "trigger_fired"}
    assert server.report(event(**base, level="standard", trigger_count=3))[0] == 200


def test_a_server_of_ones_own_accepts_private_properties(serve: Serve, event: Event) -> None:
    server = serve(accept_private=True)
    sent = event(command_name="deploy ü", chain_depth=1, level=None)
    assert server.report(sent)[0] == 200
    assert server.report(event(commandname="x"))[0] == 422
    assert server.stored() == [sent]


def test_only_declared_fields_are_kept_whatever_the_bytes_were(serve: Serve, event: Event) -> None:
    server, sent = serve(), event()
    raw = json.dumps(sent)[:-1].encode() + b', "state": "success"}'
    assert server.report(raw.replace(b'"success"', b'"failed" ,\n\t \r  "state":"success"', 1))[0] == 200
    with closing(sqlite3.connect(server.store.path)) as con:
        (body,) = con.execute("SELECT body FROM event").fetchone()
    assert body.count(b"state") == 1
    assert b" " not in body
    assert json.loads(body) == sent
    assert server.report(raw.replace(b'"success"', b'"my secret", "state":"success"', 1))[0] == 422


UNREADABLE = [b"", b" ", b"{", b"nonsense", b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b"\0"]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:12]))
def test_a_single_event_that_is_no_json_is_not_taken(server: Any, body: bytes) -> None:
    status, answer, _ = server.report(body)
    assert status == (400 if not body.strip() else 422)
    assert answer["message"]


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Content_Type": "text/plain"}, "application/json"),
        ({"Content_Type": ""}, "application/json"),
        ({"Content_Encoding": "br"}, "gzip"),
        ({"Content_Encoding": "gzip, gzip"}, "gzip"),
    ],
)
def test_other_types_and_encodings(server: Any, event: Event, headers: dict[str, str], named: str) -> None:
    status, answer, given = server.report(event(), **headers)
    assert status == 415
    assert named in answer["message"]
    if "Content_Encoding" in headers:
        assert given["Accept-Encoding"] == "gzip, zstd"
    assert server.report(event(), Content_Type="Application/JSON; charset=utf-8", Content_Encoding="identity")[0] == 200


def test_too_much_is_refused_and_the_client_sees_it(serve: Serve, event: Event) -> None:
    server = serve(body_limit=100_000, batch_limit=20)
    status, answer, _ = server.report(b" " * 100_001)
    assert (status, "larger than 100000 bytes" in answer["message"]) == (413, True)
    assert server.statuses([event() for _ in range(20)]) == ["accepted"] * 20
    status, answer, _ = server.batch([event() for _ in range(21)])
    assert (status, "more than 20 events" in answer["message"]) == (413, True)
    assert server.batch(b"\n" * 50_000)[0] == 413
    assert server.batch(b"\n" * 5)[0] == 400
    # Several times the limit, sent without looking for the answer first.
    assert server.report(b"x" * 500_000)[0] == 413
    assert server.report(event())[0] == 200


def test_an_endless_body_is_cut_off(serve: Serve) -> None:
    server = serve(body_limit=1_000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        with pytest.raises(ConnectionError):
            connection.sendall((b"100\r\n" + b"x" * 256 + b"\r\n") * 200_000)
    assert server.request("GET", "/v1/health")[0] == 200


def test_a_body_that_does_not_come(serve: Serve) -> None:
    server = serve(body_timeout=0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = b"POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert server.request("GET", "/v1/health")[0] == 200


def test_a_client_that_hangs_up(serve: Serve) -> None:
    server = serve()
    head = b"POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(head)
        assert server.request("GET", "/v1/health")[0] == 200


def test_the_percentile_is_the_mid_rank_of_the_median(serve: Serve, event: Event) -> None:
    server = serve(k=4)
    medians = {str(uuid.uuid4()): value for value in (10, 20, 20, 50)}
    seen = []
    for install, value in medians.items():
        runs = [event(anonymous_install_id=install, duration_ms=value + more) for more in (-5, 0, 1000)]
        runs.append(event(anonymous_install_id=install, duration_ms=9_999_999, state="failed"))
        _, answer, _ = server.batch(runs)
        seen.append(answer["stats"])
    assert seen == [{}, {}, {}, {"percentile_duration": 88}]  # 3.5 of 4
    for install, expected in zip(medians, (12, 50, 50, 88), strict=True):
        # A failed run changes no median, but is answered all the same, as is one that was there already.
        again = event(anonymous_install_id=install, state="cancelled")
        for _ in range(2):
            assert server.report(again)[1]["stats"] == {"percentile_duration": expected}
    assert server.report(event(state="failed"))[1]["stats"] == {}
    assert "percentile_duration" in server.report(event())[1]["stats"]


def test_only_the_last_thirty_days_count(serve: Serve, event: Event) -> None:
    moment = 1_800_000_000.0
    server = serve(k=1, now=lambda: moment)

    def percentile(days: float, **changes: Any) -> int | None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment - days * 86_400))
        _, answer, _ = server.report(event(timestamp=at, **changes))
        stats: dict[str, int] = answer["stats"]
        return stats.get("percentile_duration")

    assert percentile(0) == 50
    assert percentile(31, duration_ms=99) is None
    assert percentile(29, duration_ms=99) == 75
    assert percentile(-500, duration_ms=1) == 17  # a clock that is ahead counts as today
    who = str(uuid.uuid4())
    assert percentile(29, duration_ms=500, anonymous_install_id=who) == 88
    moment += 86_400
    assert percentile(0, duration_ms=5, anonymous_install_id=who) == 38


def test_events_of_several_installs_get_no_percentile(serve: Serve, event: Event) -> None:
    server = serve(k=1)
    assert server.batch([event(), event()])[1]["stats"] == {}


def test_the_rate_limit_is_one_installs_own(serve: Serve, event: Event) -> None:
    server, noisy = serve(rate_limit=60, k=1), str(uuid.uuid4())
    for _ in range(3):
        assert server.statuses([event(anonymous_install_id=noisy) for _ in range(20)]) == ["accepted"] * 20
    status, answer, headers = server.report(event(anonymous_install_id=noisy))
    assert (status, headers["Retry-After"]) == (429, "1")
    assert answer["results"][0]["status"] == "retry"
    assert server.report(event())[0] == 200
    status, answer, headers = server.batch([event(), event(anonymous_install_id=noisy), {}])
    assert (status, headers["Retry-After"]) == (200, "1")
    assert [result["status"] for result in answer["results"]] == ["accepted", "retry", "rejected"]
    assert answer["results"][1]["reason"] == "rate-limited"
    deadline = time.monotonic() + 10
    while server.report(event(anonymous_install_id=noisy))[0] != 200:
        assert time.monotonic() < deadline
    assert len(server.stored()) == 63


def test_the_same_events_at_the_same_time_are_stored_once(serve: Serve, event: Event) -> None:
    server, events = serve(), [event() for _ in range(30)]

    def send(_: int) -> list[str]:
        client = server.another()
        with closing(client.connection):
            return [client.report(each)[1]["results"][0]["status"] for each in events]

    with ThreadPoolExecutor(8) as pool:
        statuses = [status for answers in pool.map(send, range(8)) for status in answers]
    assert statuses.count("accepted") == 30
    assert statuses.count("duplicate") == 210
    assert len(server.stored()) == 30


def test_erasure(serve: Serve, event: Event) -> None:
    server, gone, stays = serve(k=1), str(uuid.uuid4()), str(uuid.uuid4())
    for install in (gone, stays):
        server.batch([event(anonymous_install_id=install) for _ in range(5)], Telemetry_Drops="epoch=e; full=3")
    assert server.request("DELETE", f"/v1/installs/{gone}")[:2] == (200, {"message": "Erased.", "deleted": 5})
    assert server.request("DELETE", f"/v1/installs/{gone}")[:2] == (200, {"message": "Erased.", "deleted": 0})
    assert {body["anonymous_install_id"] for body in server.stored()} == {stays}
    assert server.report(event(anonymous_install_id=stays))[1]["stats"] == {"percentile_duration": 50}
    for malformed in ("1", gone.upper(), f"{gone}0", "%00", "x" * 5_000):
        assert server.request("DELETE", f"/v1/installs/{malformed}")[0] == 422


async def test_drops_are_kept_and_malformed_ones_counted(serve: Serve, event: Event) -> None:
    server, who = serve(), str(uuid.uuid4())
    headers = [
        "epoch=a1; expired=3; full=1",
        "epoch=a1; expired=4; full=1;",
        "epoch=b2;destination-removed=9",
        "epoch=c",
    ]
    for header in headers:
        assert server.report(event(anonymous_install_id=who), Telemetry_Drops=header)[0] == 200
    too_many = "epoch=a" + "".join(f"; r{number}=1" for number in range(21))
    malformed = ["", "expired=3", "epoch=; full=1", "epoch=a; full", "epoch=a; full=-1", "epoch=a; full=1; full=2",
                 "epoch=a; full=1 OR 1", "epoch=" + "x" * 65, too_many, "é" * 50]  # fmt: skip
    for header in malformed:
        assert server.report(event(anonymous_install_id=who), Telemetry_Drops=header)[0] == 200
    server.batch([event(), event()], Telemetry_Drops="epoch=z; full=1")  # whose they are cannot be said
    found = {(drops.install, drops.epoch): drops.counts for drops in await server.store.drops()}
    assert found == {(who, "a1"): {"expired": 4, "full": 1}, (who, "b2"): {"destination-removed": 9}}
    assert server.request("GET", "/v1/health")[1] == {"status": "ok", "malformed_drops": len(malformed)}


def test_the_policy_has_an_etag(serve: Serve) -> None:
    server = serve(policy={"level": "minimal"})
    status, policy, headers = server.request("GET", "/v1/policy")
    assert (status, policy) == (200, {"level": "minimal"})
    for tag in (headers["ETag"], f'"x", W/{headers["ETag"]}'):
        status, body, again = server.request("GET", "/v1/policy", If_None_Match=tag)
        assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    assert server.request("GET", "/v1/policy", If_None_Match='"x"')[0] == 200


def test_other_paths_and_methods_say_so(server: Any) -> None:
    assert server.request("GET", "/v1/nothing")[:2] == (404, {"message": "Not Found"})
    assert server.request("GET", "/v1/report")[:2] == (405, {"message": "Method Not Allowed"})


def test_the_openapi_page(server: Any) -> None:
    status, page, _ = server.request("GET", "/openapi.json")
    assert status == 200
    assert set(page["paths"]) == {"/v1/report", "/v1/policy", "/v1/installs/{anonymous_install_id}", "/v1/health"}
    report = page["paths"]["/v1/report"]["post"]
    titles = [each["title"] for each in report["requestBody"]["content"]["application/json"]["schema"]["oneOf"]]
    assert "cmdorc.core@1 command_completed" in titles
    assert len(titles) == 5
    assert '"command_name"' not in json.dumps(report)
    assert {"200", "400", "413", "415", "422", "429", "503"} <= set(report["responses"])

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    for reference in references(page):
        target: Any = page
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target
    assert server.request("GET", "/docs")[0] == 200


def test_a_store_that_fails_is_503_and_loses_nothing(serve: Serve, event: Event, tmp_path: Path) -> None:
    server, sent = serve(), event()
    with closing(sqlite3.connect(tmp_path / "store.db")) as con:
        con.execute("BEGIN IMMEDIATE")
        status, answer, headers = server.report(sent)
        assert (status, headers["Retry-After"], answer["message"]) == (503, "5", "the store cannot take this now")
        assert server.request("GET", "/v1/health")[0] == 503
        assert server.request("DELETE", f"/v1/installs/{uuid.uuid4()}")[0] == 503
    assert server.statuses([sent]) == ["accepted"]


def test_fastapis_own_telemetry_is_off(serve: Serve, event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    from opentelemetry import trace

    class Watching(trace.TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
            raise AssertionError("a request was traced")

    monkeypatch.setattr("fastapi.telemetry._asgi.trace.get_tracer_provider", Watching)
    server = serve()
    assert server.report(event())[0] == 200


def test_nothing_about_the_sender_is_stored_or_logged(
    serve: Serve, event: Event, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = serve()
    marks = {"X_Forwarded_For": "203.0.113.77", "Cookie": "session=unmistakable", "User_Agent": "unmistakable/1"}
    assert server.report(event(), **marks)[0] == 200
    assert server.report({**event(), "extra": "unmistakable"}, **marks)[0] == 422
    assert "127.0.0.1" not in caplog.text
    assert "/v1/report" not in caplog.text
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    for file in files:
        content = file.read_bytes()
        assert b"203.0.113.77" not in content
        assert b"127.0.0.1" not in content
        assert b"unmistakable" not in content


def test_a_connection_is_kept(server: Any, event: Event) -> None:
    server.report(event())
    first = server.connection.sock
    for body in (b"{", b""):
        server.report(body)
    assert server.report(event())[0] == 200
    assert server.connection.sock is first
    assert threading.active_count() < 20
