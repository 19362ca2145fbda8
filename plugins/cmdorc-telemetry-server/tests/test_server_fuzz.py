"""Whatever is sent to a real server, on a real socket: never a 5xx, and it goes on."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Event = Callable[..., dict[str, Any]]
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = [
    "event",
    "spec",
    "level",
    "event_id",
    "anonymous_install_id",
    "timestamp",
    "os",
    "duration_ms",
    "state",
    "x",
    "",
]
LIKELY = [
    "command_completed", "trigger_fired", "cmdorc.core@1", "minimal", "standard", "debug", "other", "success",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "00000000-0000-0000-0000-000000000000",
    2**53, 2**64,
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(LIKELY),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
CHANGES = st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES, max_size=4)


def encode(event: Any) -> bytes:
    """JSON as Python writes it: with NaN, Infinity and lone surrogates."""
    return json.dumps(event).encode()


@fuzz
@given(changes=CHANGES, gone=st.sets(st.sampled_from(NAMES)))
def test_events_with_anything_in_them(server: Any, event: Event, changes: dict[str, Any], gone: set[str]) -> None:
    sent = {name: value for name, value in {**event(), **changes}.items() if name not in gone}
    single, _, _ = server.report(encode(sent))
    assert single in (200, 422)
    (status,) = server.statuses(encode(sent))
    assert (single, status) in ((200, "duplicate"), (422, "rejected"))


@fuzz
@given(
    body=st.binary(max_size=200) | st.lists(VALUES, max_size=5).map(lambda each: b"\n".join(map(encode, each))),
    media=st.sampled_from(["application/json", "application/x-ndjson", "text/plain", "", "application/json;;;=é"]),
    coding=st.sampled_from(["", "identity", "gzip", "zstd", "br", "é"]),
    packed=st.booleans(),
    drops=st.none() | st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])),
)
def test_any_body_type_and_encoding(
    server: Any, body: bytes, media: str, coding: str, packed: bool, drops: str | None
) -> None:
    if packed:
        body = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(coding, bytes)(body)
    headers = {
        "Content_Type": media,
        "Content_Encoding": coding,
        **({} if drops is None else {"Telemetry_Drops": drops}),
    }
    status, answer, _ = server.request("POST", "/v1/report", body, **headers)
    assert status in (200, 400, 413, 415, 422)
    assert answer["message"]


@fuzz
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH", "OPTIONS", "FROB"]),
    path=st.sampled_from(["/v1/report", "/v1/installs/", "/v1/policy", "/v1/health", "/", "/docs"]),
    tail=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    tag=st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
def test_any_path_and_method(server: Any, method: str, path: str, tail: str, tag: str) -> None:
    status, _, _ = server.request(method, path + tail, If_None_Match=tag)
    assert status < 500


@fuzz
@given(
    junk=st.binary(max_size=300), head=st.sampled_from([b"", b"POST /v1/report HTTP/1.1\r\n", b"GET / HTTP/9\r\n\r\n"])
)
def test_bytes_that_are_no_http(server: Any, junk: bytes, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + junk)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except ConnectionError:
            pass
    assert not answer.startswith(b"HTTP/1.1 5")


def test_it_still_serves(server: Any, event: Event) -> None:
    assert server.report(event())[0] == 200
