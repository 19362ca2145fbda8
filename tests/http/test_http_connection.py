"""One request after the other to a real server that misbehaves. What is sent goes there, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http import connection
from cmdorc_telemetry.http.connection import Connection
from cmdorc_telemetry.testing import Answer, FaultServer

BODY = b'{"event":"command_completed","event_id":"e"}'


@pytest.fixture
async def sending(server: FaultServer) -> AsyncIterator[Connection]:
    """A connection to the server."""
    sending = Connection(server.endpoint, "test")
    yield sending
    await sending.close()


@asynccontextmanager
async def listening(says: bytes) -> AsyncIterator[str]:
    """A server that says something once it has the head of a request, whatever that is, and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


async def ask(sending: Connection, server: FaultServer, body: bytes = BODY) -> int:
    """One report: its status."""
    return (await asyncio.wait_for(sending.request("POST", server.endpoint + "/report", {}, body), 10)).status


async def test_a_closed_connection_is_made_again(server: FaultServer) -> None:
    for _ in range(2):
        sending = Connection(server.endpoint, "test")
        for _ in range(2):
            assert await ask(sending, server) == 200
        await sending.close()
        await sending.close()
    assert len({request.peer for request in server.seen}) == 2


async def test_netrc_proxies_and_cookies_are_no_way_out(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login anna password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answer = lambda request: Answer(200, b"{}", {"Set-Cookie": "who=anna; Path=/"})
    sending = Connection(server.endpoint, "test")
    for _ in range(2):
        await ask(sending, server)
    await sending.close()
    for request in server.seen:
        assert set(request.headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Length"}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(server: FaultServer, sending: Connection, status: int) -> None:
    server.fail(str(status))
    assert await ask(sending, server) == status
    assert [request.path for request in server.seen] == ["/v1/report"]


async def test_413_before_the_body_was_read() -> None:
    async with listening(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as endpoint:
        sending = Connection(endpoint, "test")
        assert (await sending.request("POST", endpoint, {}, b"x" * 1_000_000)).status == 413
        await sending.close()


@pytest.mark.parametrize("fault", ["reset-after-reading", "reset-mid-answer", "truncated"])
async def test_what_breaks_off_is_said_and_the_next_request_goes_through(
    server: FaultServer, sending: Connection, fault: str
) -> None:  # fmt: skip
    server.fail([fault])
    with pytest.raises(RetryLater, match=rf"^127\.0\.0\.1:{server.port}: the connection broke off") as failure:
        await ask(sending, server)
    assert "command_completed" not in str(failure.value)
    assert await ask(sending, server) == 200


async def test_of_too_long_an_answer_nothing_is_kept(server: FaultServer, sending: Connection) -> None:
    server.fail(["endless-body"])
    answer = await asyncio.wait_for(sending.request("POST", server.endpoint, {}, BODY), 10)
    assert (answer.status, answer.body) == (200, None)


async def test_not_http() -> None:
    async with listening(b"SSH-2.0-OpenSSH_9.9\r\n\r\n") as endpoint:
        sending = Connection(endpoint, "test")
        with pytest.raises(RetryLater, match="no HTTP answer"):
            await sending.request("POST", endpoint, {}, BODY)
        await sending.close()


async def test_the_core_may_cancel_a_hanging_call(server: FaultServer, sending: Connection) -> None:
    server.fail(["hang-after-reading"])
    call = asyncio.ensure_future(ask(sending, server))
    await asyncio.to_thread(server.wait_for, lambda server: server.injected["hang-after-reading"] == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await ask(sending, server) == 200


async def test_no_answer_in_time(
    server: FaultServer, sending: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(connection, "_SECONDS", 0.2)
    server.fail("hang-after-reading")
    with pytest.raises(RetryLater, match=rf"127\.0\.0\.1:{server.port}: no answer in time"):
        await ask(sending, server)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RetryLater, match=rf"^{host}: no connection \(.*refused"):
            await Connection(f"http://{host}/v1", "test").request("POST", f"http://{host}/v1", {}, BODY)
