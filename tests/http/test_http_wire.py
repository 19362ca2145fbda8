"""HTTP as servers speak it, well and badly; and when a connection is used again."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http import connection, route, wire
from cmdorc_telemetry.http.answers import Answer
from cmdorc_telemetry.http.connection import Connection
from cmdorc_telemetry.testing import FaultServer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"Content-Length: 4\r\n\r\nfine"


class Last(bytes):
    """An answer with which the connection ends."""


class Raw:
    """A server that answers with bytes, one answer a request."""

    def __init__(self, *answers: bytes, host: str = "127.0.0.1") -> None:
        self.answers = list(answers)
        self.address, self.host = host, ""
        self.requests, self.writers = list[bytes](), list[asyncio.StreamWriter]()

    @property
    def connections(self) -> int:
        return len(self.writers)

    @property
    def ended(self) -> int:
        return sum(writer.is_closing() for writer in self.writers)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer: bytes = b""
        while not isinstance(answer, Last):
            self.requests.append(await request_of(reader))
            answer = self.answers.pop(0) if self.answers else FINE
            writer.write(answer)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def connect(self) -> Connection:
        return Connection(f"http://{self.host}/v1", "test")


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@asynccontextmanager
async def listening(raw: Raw) -> AsyncIterator[Raw]:
    under_way = set[asyncio.Task[None]]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        raw.writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await raw.talk(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(talk, raw.address, 0)
    port = server.sockets[0].getsockname()[1]
    raw.host = f"[{raw.address}]:{port}" if ":" in raw.address else f"{raw.address}:{port}"
    try:
        yield raw
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way)
        await asyncio.sleep(0)  # with that, the sockets are closed


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def ask(connection: Connection, body: bytes | None = b"{}") -> Answer:
    headers = {} if body is None else {"Content-Type": "application/json"}
    url = f"http://{connection._name}/v1/report"
    return await asyncio.wait_for(connection.request("GET" if body is None else "POST", url, headers, body), 10)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (FINE, True),
        (OK + b"content-length:4\n\nfine", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;why=not\r\nfi\r\n2\r\nne\r\n0\r\nTrailer: x\r\n\r\n", True),
        (Last(OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nfine"), False),
        (Last(OK + b"Connection: close\r\n\r\nfine"), False),
        (Last(b"HTTP/1.0 200 OK\r\n\r\nfine"), False),
        (Last(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine"), False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 19 + b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + FINE, True),
        (FINE + FINE, False),
        (FINE + b"\r\n", False),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
async def test_ways_to_answer(answer: bytes, again: bool, slow: bool) -> None:
    raw = Raw(answer)

    async def in_drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write = writer.write

        def drop(data: bytes) -> None:
            for byte in data:
                write(bytes([byte]))

        writer.write = drop  # type: ignore[method-assign]
        await Raw.talk(raw, reader, writer)

    if slow:
        raw.talk = in_drops  # type: ignore[method-assign]
    async with listening(raw):
        sending = raw.connect()
        found = await ask(sending)
        assert (found.status, found.body) == (200, b"fine")
        assert (await ask(sending)).body == b"fine"
        assert raw.connections == (1 if again else 2)
        await sending.close()


async def test_what_is_sent() -> None:
    async with listening(Raw()) as raw:
        sending = raw.connect()
        url = f"http://{raw.host}/v1/ü/a%2Fb?c"
        await sending.request("POST", url, {"If-None-Match": '"é"'}, b"{}")
        await sending.request("DELETE", url, {})
        await sending.close()
    common = b"Host: %b\r\nUser-Agent: test\r\n" % raw.host.encode()
    common += b"Accept: application/json\r\nAccept-Encoding: identity\r\n"
    assert raw.requests == [
        b"POST /v1/%C3%BC/a%2Fb?c HTTP/1.1\r\n" + common + b'If-None-Match: "\xe9"\r\nContent-Length: 2\r\n\r\n{}',
        b"DELETE /v1/%C3%BC/a%2Fb?c HTTP/1.1\r\n" + common + b"\r\n",
    ]


async def test_headers_that_are_read() -> None:
    headers = b'retry-after: 3\r\nDATE: today\r\nLocation: /x\r\nETag: "\xe9"\r\nSet-Cookie: who=anna\r\n'
    async with listening(Raw(b"HTTP/1.1 503 No\r\n" + headers + b"Content-Length: 4\r\n\r\nfine")) as raw:
        sending = raw.connect()
        answer = await ask(sending)
        assert answer.headers == {"Retry-After": "3", "Date": "today", "Location": "/x", "ETag": '"é"'}
        await sending.close()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "the connection broke off"),
        (b"HT", "the connection broke off"),
        (OK, "the connection broke off"),
        (OK + b"Content-Length: 9\r\n\r\nfi", "the connection broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nfi", "the connection broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n", "the connection broke off"),
        (b"\x15\x03\x01\x00\x02\x02F", "no HTTP answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 2OO OK\r\n\r\n", "no HTTP answer"),
        (OK + b"Content-Length: -4\r\n\r\nfine", "no HTTP answer"),
        (OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nfine", "no HTTP answer"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\nfine", "no HTTP answer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\nfi\r\n", "no HTTP answer"),
        (OK + b"X y\r\n\r\nfine", "no HTTP answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "no HTTP answer"),
        (OK + b"X: " + b"x" * 200_000, "no HTTP answer"),
        (OK + b"X: y\r\n" * 50_000, "no HTTP answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 21 + FINE, "no HTTP answer"),
    ],
)
async def test_no_answer(answer: bytes, problem: str) -> None:
    async with listening(Raw(Last(answer))) as raw:
        sending = raw.connect()
        with pytest.raises(RetryLater, match=f"^{raw.host}: {problem}$"):
            await ask(sending)
        assert (await ask(sending)).body == b"fine"
        assert len(raw.requests) == 2
        await sending.close()


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n\r\n", b"Connection: close\r\n\r\n"])
async def test_no_more_is_read_than_that(framing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 100_000)
    head = b"HTTP/1.1 503 No\r\nRetry-After: 3\r\n" + framing.replace(b"%d", b"99999999")
    most = b"HTTP/1.1 200 OK\r\nContent-Length: 99900\r\n\r\n"
    async with listening(Raw(Last(head + b"x" * 5_000_000), most + b"x" * 99_900)) as raw:
        sending = raw.connect()
        answer = await ask(sending)
        assert (answer.status, answer.body, answer.headers) == (503, None, {"Retry-After": "3"})
        assert (await ask(sending)).body == b"x" * 99_900
        await sending.close()
        await until(lambda: raw.ended == raw.connections == 2)


# -- used again -------------------------------------------------------------------------------------------------------


async def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async with listening(Raw(FINE, Last())) as raw:  # closed as the second request comes, before any answer
        sending = raw.connect()
        await ask(sending)
        assert (await ask(sending)).body == b"fine"
        assert (raw.connections, len(raw.requests)) == (2, 3)
        await sending.close()


async def test_it_is_replaced_once() -> None:
    async with listening(Raw(FINE, Last(), Last())) as raw:
        sending = raw.connect()
        await ask(sending)
        with pytest.raises(RetryLater, match="the connection broke off"):
            await ask(sending)
        assert (raw.connections, len(raw.requests)) == (2, 3)
        raw.answers.append(Last())
        with pytest.raises(RetryLater, match="the connection broke off"):  # nothing was kept: nothing is replaced
            await ask(sending)
        assert len(raw.requests) == 4
        await sending.close()


async def test_it_is_not_replaced_where_the_answer_had_begun() -> None:
    async with listening(Raw(FINE, Last(b"H"))) as raw:
        sending = raw.connect()
        await ask(sending)
        with pytest.raises(RetryLater, match="the connection broke off"):
            await ask(sending)
        assert len(raw.requests) == 2
        await sending.close()


async def test_a_server_that_closes_kept_connections_at_random() -> None:
    dice, told = random.Random(7), list[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            told.append(await request_of(reader))
            writer.write(FINE)
            await writer.drain()
            if dice.random() < 0.3:
                await asyncio.sleep(dice.choice([0, 0, 0.001, 0.003]))
                return

    raw = Raw()
    raw.talk = talk  # type: ignore[method-assign]
    async with listening(raw):
        sending = raw.connect()
        for number in range(200):
            assert (await ask(sending, b"%d" % number)).body == b"fine"
            await asyncio.sleep(dice.choice([0, 0, 0.001, 0.003]))
        await sending.close()
    assert {int(each.rpartition(b"\n")[2]) for each in told} == set(range(200))


@pytest.mark.parametrize("held_up", [False, True])
async def test_it_is_not_used_again_after_a_rest(monkeypatch: pytest.MonkeyPatch, held_up: bool) -> None:
    monkeypatch.setattr(connection, "_REST_SECONDS", 0.05)
    async with listening(Raw()) as raw:
        sending = raw.connect()
        await ask(sending)
        if held_up:
            time.sleep(0.1)  # noqa: ASYNC251 - the event loop comes too late to close it
        else:
            await until(lambda: raw.ended == 1)
        assert (await ask(sending)).body == b"fine"
        assert raw.connections == 2
        await sending.close()


async def test_who_speaks_unasked_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_REST_SECONDS", 60)
    async with listening(Raw()) as raw:
        sending = raw.connect()
        await ask(sending)
        raw.writers[0].write(OK + b"Content-Length: 5\r\n\r\nwrong")  # an answer to what was not asked yet
        await until(lambda: raw.ended == 1)
        assert (await ask(sending)).body == b"fine"
        assert raw.connections == 2
        await sending.close()


async def test_two_at_once() -> None:
    async with listening(Raw()) as raw:
        sending = raw.connect()
        answers = await asyncio.gather(*[ask(sending) for _ in range(3)])
        assert [answer.body for answer in answers] == [b"fine"] * 3
        assert raw.connections == 3
        await until(lambda: raw.ended == 2)  # one is kept
        await ask(sending)
        assert raw.connections == 3
        await sending.close()
        await until(lambda: raw.ended == 3)


async def test_what_is_in_use_at_close_is_not_kept(server: FaultServer) -> None:
    server.fail(["slow-answer"])
    sending = Connection(server.endpoint, "test")
    asking = asyncio.ensure_future(sending.request("POST", server.endpoint + "/report", {}, b'{"event_id":"e"}'))
    await asyncio.to_thread(server.wait_for, lambda server: len(server.seen) == 1)
    await sending.close()
    assert (await asking).status == 200
    assert sending._kept is None


@pytest.mark.parametrize("reset", [False, True])
async def test_what_happens_ahead_of_the_request(monkeypatch: pytest.MonkeyPatch, reset: bool) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        writer.write(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    opened = route.Route.open

    async def slowly(self: route.Route) -> wire.Wire:
        made = await opened(self)
        await until(lambda: made.transport.is_closing() if reset else made._read > 0)
        await asyncio.sleep(0)
        return made

    monkeypatch.setattr(route.Route, "open", slowly)
    raw = Raw()
    raw.talk = hasty  # type: ignore[method-assign]
    async with listening(raw):
        sending = raw.connect()
        if reset:
            with pytest.raises(RetryLater, match="the connection broke off"):
                await ask(sending)
        else:
            assert (await ask(sending)).status == 503
        await sending.close()


async def test_an_answer_within_the_request() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(10)  # and nothing of the rest is read

    raw = Raw()
    raw.talk = refuse  # type: ignore[method-assign]
    async with listening(raw):
        sending = raw.connect()
        for _ in range(2):
            assert (await ask(sending, b"x" * 20_000_000)).status == 413
        assert raw.connections == 2  # what was half said cannot be gone on with
        await sending.close()


@pytest.mark.parametrize("kept", [False, True])
async def test_cancelled_it_closes(server: FaultServer, kept: bool) -> None:
    sending = Connection(server.endpoint, "test")
    if kept:
        await sending.request("GET", server.endpoint + "/policy", {})
    server.fail(["hang-after-reading"])
    asking = asyncio.ensure_future(sending.request("GET", server.endpoint + "/policy", {}))
    await asyncio.to_thread(server.wait_for, lambda server: server.injected["hang-after-reading"] == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: not server._open)
    await sending.close()


async def test_over_ipv6() -> None:
    try:
        async with listening(Raw(host="::1")) as raw:
            sending = raw.connect()
            assert (await ask(sending)).body == b"fine"
            await sending.close()
    except OSError as fault:  # pragma: no cover
        pytest.skip(f"no IPv6 here: {fault}")
    assert b"Host: [::1]:" in raw.requests[0]
