"""The way to a server: several addresses, slow names, TLS, a proxy."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.http import route
from cmdorc_telemetry.http.connection import Connection
from cmdorc_telemetry.http.deadline import deadline
from cmdorc_telemetry.testing import FAULTS, FaultServer

BODY = b'{"event":"command_completed","event_id":"e"}'
REFUSING = ("127.0.0.1", 9)


async def post(sending: Connection, endpoint: str) -> int:
    """One report: its status."""
    return (await asyncio.wait_for(sending.request("POST", endpoint + "/report", {}, BODY), 20)).status


async def once(endpoint: str) -> int:
    sending = Connection(endpoint, "test")
    try:
        return await post(sending, endpoint)
    finally:
        await sending.close()


async def problem_of(endpoint: str) -> str:
    with pytest.raises(RetryLater) as failure:
        await once(endpoint)
    return str(failure.value)


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``resolving(addresses)``: what every name resolves to from now on; the names that are asked for."""

    def to(*addresses: tuple[str, int]) -> list[str]:
        asked = []

        def resolve(host: str, *args: object) -> list[Any]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return asked

    return to


# -- addresses and names ----------------------------------------------------------------------------------------------


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that were tried."""
    tried: list[tuple[str, int]] = []
    attempt = route._attempt

    async def noting(address: Any) -> socket.socket:
        tried.append(address[1])
        return await attempt(address)

    monkeypatch.setattr(route, "_attempt", noting)
    return tried


async def test_localhost_needs_no_name_server(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: pytest.fail("asked"))
    assert await once(f"http://localhost:{server.port}/v1") == 200


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    problem = await problem_of("https://telemetry.invalid/v1")
    assert problem.startswith("telemetry.invalid: the name cannot be resolved (Name or service")


@pytest.mark.parametrize("closed", [False, True])
def test_a_name_that_resolves_too_late_harms_nobody(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    asked, go_on = threading.Event(), threading.Event()
    faults: list[object] = []

    def late(*args: object) -> list[Any]:
        asked.set()
        go_on.wait(20)
        return []

    def finish() -> None:
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == "cmdorc-telemetry-dns":
                thread.join(20)

    async def give_up() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        call = asyncio.ensure_future(route.Route("https://t.example").open())
        await asyncio.to_thread(asked.wait, 20)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        if not closed:
            finish()
            await asyncio.sleep(0)  # lets the loop run what the thread left

    monkeypatch.setattr(socket, "getaddrinfo", late)
    monkeypatch.setattr(threading, "excepthook", faults.append)
    asyncio.run(give_up())
    finish()
    assert asked.is_set()
    assert faults == []


async def test_the_next_address_where_one_refuses_and_that_first_afterwards(
    tls_server: FaultServer, resolving: Callable[..., list[str]], tries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    good = ("127.0.0.1", tls_server.port)
    asked = resolving(REFUSING, good)
    sending = Connection("https://telemetry.test/v1", "test")
    assert await post(sending, "https://telemetry.test/v1") == 200
    assert (asked, tries) == (["telemetry.test"], [REFUSING, good])
    assert sending._kept is not None
    sending._kept.transport.abort()
    assert await post(sending, "https://telemetry.test/v1") == 200
    assert tries == [REFUSING, good, good]
    await sending.close()


async def test_the_next_address_where_one_does_not_answer(
    tls_server: FaultServer, resolving: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    with FaultServer(faults="black-hole") as hole:
        resolving(("127.0.0.1", hole.port), ("127.0.0.1", tls_server.port))
        start = time.monotonic()
        assert await once("https://telemetry.test/v1") == 200
        assert time.monotonic() - start < 5
        assert asyncio.all_tasks() == {asyncio.current_task()}  # nobody goes on trying the other one


async def test_a_slow_address_may_still_win(
    tls_server: FaultServer, resolving: Callable[..., list[str]], tries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    monkeypatch.setattr(route, "_HEAD_START_SECONDS", 0.01)
    attempt, slow, hole_tried = route._attempt, ("127.0.0.1", tls_server.port), asyncio.Event()

    async def slowly(address: Any) -> socket.socket:
        if address[1] == slow:
            await hole_tried.wait()
        else:
            hole_tried.set()
        return await attempt(address)

    monkeypatch.setattr(route, "_attempt", slowly)
    with FaultServer(faults="black-hole") as hole:
        resolving(slow, ("127.0.0.1", hole.port))
        assert await once("https://telemetry.test/v1") == 200
    assert len(tries) == 2


async def test_of_two_that_accept_one_is_closed(
    tls_server: FaultServer, resolving: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    monkeypatch.setattr(route, "_HEAD_START_SECONDS", 0.01)
    attempt, made, both = route._attempt, list[socket.socket](), asyncio.Event()

    async def together(address: Any) -> socket.socket:
        connected = await attempt(address)
        made.append(connected)
        if len(made) == 2:
            both.set()
        await both.wait()
        return connected

    monkeypatch.setattr(route, "_attempt", together)
    resolving(*[("127.0.0.1", tls_server.port)] * 2)
    sending = Connection("https://telemetry.test/v1", "test")
    assert await post(sending, "https://telemetry.test/v1") == 200
    assert sorted(each.fileno() == -1 for each in made) == [False, True]
    await sending.close()
    assert [each.fileno() for each in made] == [-1, -1]


async def test_all_addresses_refuse(resolving: Callable[..., list[str]]) -> None:
    resolving(REFUSING, REFUSING)
    assert await problem_of("https://telemetry.test/v1") == "telemetry.test: no connection (Connection refused)"


async def test_a_name_without_addresses(resolving: Callable[..., list[str]]) -> None:
    resolving()
    assert await problem_of("https://telemetry.test/v1") == "telemetry.test: no connection"


async def test_a_name_that_is_none() -> None:
    name = "a" * 64 + ".test"  # refused before any name server is asked
    assert (await problem_of(f"https://{name}/v1")).startswith(f"{name}: the name cannot be resolved")


async def test_a_name_that_is_whole(
    tls_server: FaultServer, resolving: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    asked = resolving(("127.0.0.1", tls_server.port))
    assert await once("https://telemetry.test./v1") == 200
    assert asked == ["telemetry.test."]


async def test_a_name_beyond_ascii(resolving: Callable[..., list[str]]) -> None:
    asked = resolving(REFUSING)
    assert await problem_of("https://tëlemetry.test:8443/v1") == (
        "tëlemetry.test:8443: no connection (Connection refused)"
    )
    assert asked == ["xn--tlemetry-t1a.test"]
    assert Connection("https://Tëlemetry.test:8443/v1", "test")._headers["Host"] == "xn--tlemetry-t1a.test:8443"


async def test_a_slow_name_service_is_asked_once_and_heard_the_next_time(
    tls_server: FaultServer, resolving: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    monkeypatch.setattr(route, "_SECONDS", 0.05)
    answer = threading.Event()
    asked = resolving(("127.0.0.1", tls_server.port))
    resolve = socket.getaddrinfo

    def slowly(*args: Any) -> Any:
        found = resolve(*args)
        answer.wait(20)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    sending = Connection("https://telemetry.test/v1", "test")
    for _ in range(3):
        with pytest.raises(RetryLater, match=r"^telemetry\.test: no answer in time$"):
            await post(sending, "https://telemetry.test/v1")
    assert asked == ["telemetry.test"]
    monkeypatch.setattr(route, "_SECONDS", 20)
    answer.set()
    assert await post(sending, "https://telemetry.test/v1") == 200
    assert asked == ["telemetry.test"]
    await sending.close()
    assert await post(sending, "https://telemetry.test/v1") == 200
    assert asked == ["telemetry.test"] * 2
    await sending.close()


async def test_a_way_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_SECONDS", 0.05)
    with FaultServer(faults="black-hole") as server:
        assert await problem_of(server.endpoint) == f"127.0.0.1:{server.port}: no answer in time"
    with FaultServer(faults="hang-before-reading", tls=True) as server:
        assert await problem_of(server.endpoint) == f"127.0.0.1:{server.port}: no answer in time"


@pytest.mark.parametrize("fault", ["black-hole", "hang-before-reading"])
async def test_cancelled_on_the_way(fault: str) -> None:
    with FaultServer(faults=fault, tls=fault != "black-hole") as server:
        sending = Connection(server.endpoint, "test")
        asking = asyncio.ensure_future(post(sending, server.endpoint))
        if fault == "black-hole":
            await asyncio.sleep(0.05)
        else:
            await asyncio.to_thread(server.wait_for, lambda server: server.injected[fault] == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await sending.close()


async def test_cancelled_as_it_is_connected_it_leaves_no_socket_behind(
    tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted, made = route._accepted, list[socket.socket]()

    async def cancelling(*arguments: Any) -> Any:
        winner = await accepted(*arguments)
        assert winner is not None
        made.append(winner.result())
        asking.cancel()
        return winner

    monkeypatch.setattr(route, "_accepted", cancelling)
    sending = Connection(tls_server.endpoint, "test")
    asking = asyncio.ensure_future(post(sending, tls_server.endpoint))
    with pytest.raises(asyncio.CancelledError):
        await asking
    await sending.close()
    assert [each.fileno() for each in made] == [-1]


async def test_who_cancels_is_not_told_of_a_deadline() -> None:
    async def both() -> None:
        with deadline(0):
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0, task.cancel)
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError if sys.version_info >= (3, 11) else asyncio.TimeoutError):
        await asyncio.ensure_future(both())


async def test_a_deadline_leaves_nothing_behind() -> None:
    with pytest.raises(asyncio.TimeoutError), deadline(0):
        await asyncio.sleep(20)
    with pytest.raises(KeyError), deadline(0.001):
        raise KeyError
    task = asyncio.current_task()
    assert task is not None
    assert sys.version_info < (3, 11) or task.cancelling() == 0
    await asyncio.sleep(0.02)  # an exception here would be of a timer that runs on


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_over_tls_a_connection_is_kept_too(tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    context = tls_server.context(None)
    assert context is not None
    context.set_alpn_protocols(["h2", "http/1.1"])
    sending = Connection(tls_server.endpoint, "test")
    for _ in range(3):
        assert await post(sending, tls_server.endpoint) == 200
    assert len({request.peer for request in tls_server.seen}) == 1
    assert sending._kept is not None
    assert sending._kept.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    tls_server.fail(["reset-after-reading"])
    assert await post(sending, tls_server.endpoint) == 200
    assert len({request.peer for request in tls_server.seen}) == 2
    await sending.close()


async def test_nothing_is_said_to_whom_nobody_trusts(tls_server: FaultServer) -> None:
    start = f"127.0.0.1:{tls_server.port}: the certificate is not to be trusted ("
    assert (await problem_of(tls_server.endpoint)).startswith(start)
    assert tls_server.seen == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("wrong-name", r"the certificate is not to be trusted \(.*127\.0\.0\.1"),
        ("self-signed", r"the certificate is not to be trusted \(self[- ]signed"),
        ("expired", r"the certificate is not to be trusted \(certificate has expired\)"),
        ("plain-on-tls-port", r"no secure connection \("),
        ("reset-on-connect", "no connection|no secure connection"),
    ],
)
async def test_no_tls(fault: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(faults=FAULTS[fault], tls=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
        with pytest.raises(RetryLater, match=f"^127.0.0.1:{server.port}: (?:{text})"):
            await once(server.endpoint)
        assert server.seen == []


async def test_a_server_without_tls(server: FaultServer) -> None:
    host = f"127.0.0.1:{server.port}"
    assert (await problem_of(f"https://{host}/v1")).startswith(f"{host}: no secure connection (")
    assert server.seen == []


# -- a proxy ----------------------------------------------------------------------------------------------------------


class Proxy:
    """Lets CONNECT through to one port, whatever the name, if nothing else is ``answer``."""

    def __init__(self, port: int) -> None:
        self.port, self.answer = port, b"HTTP/1.1 200 OK\r\n\r\n"
        self.asked, self.passed, self.address = list[bytes](), bytearray(), ""
        self.left = 0

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.passed.extend(data)
                writer.write(data)
        writer.transport.abort()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        if b" 200 " in self.answer:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await asyncio.gather(self.copy(reader, upstream), self.copy(answers, writer))
            finally:
                upstream.transport.abort()
        else:
            await reader.read()
            self.left += 1


@asynccontextmanager
async def running(proxy: Proxy, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    under_way = set[asyncio.Task[None]]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            await proxy.talk(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way)
        await asyncio.sleep(0.01)  # with that, the sockets are closed


async def test_a_proxy_sees_the_name_and_not_the_report(
    tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: pytest.fail("asked for the name"))
    async with running(Proxy(tls_server.port)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://anna:hunter%402@{proxy.address}")
        sending = Connection("https://telemetry.test/v1", "test")
        for _ in range(2):
            assert await post(sending, "https://telemetry.test/v1") == 200
        await sending.close()
        secret = base64.b64encode(b"anna:hunter@2")
        assert proxy.asked == [
            b"CONNECT telemetry.test:443 HTTP/1.1\r\nHost: telemetry.test:443\r\n"
            b"Proxy-Authorization: Basic " + secret + b"\r\n\r\n"
        ]
        assert len({request.peer for request in tls_server.seen}) == 1
        assert b"command_completed" not in proxy.passed
        assert len(proxy.passed) > 500


async def test_the_server_behind_a_proxy_is_to_be_trusted_as_ever(
    tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    async with running(Proxy(tls_server.port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        assert (await problem_of("https://other.test/v1")).startswith(
            "other.test: the certificate is not to be trusted (Hostname mismatch"
        )
        assert proxy.asked[0].startswith(b"CONNECT other.test:443 ")
        assert (await problem_of("https://[2001:db8::1]:8443/v1")).startswith("[2001:db8::1]:8443: the certificate")
        assert proxy.asked[1].startswith(b"CONNECT [2001:db8::1]:8443 ")
    assert tls_server.seen == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno!", ""),
        (b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", ""),
        (b"\x05\xff", ": no HTTP answer"),
    ],
)
async def test_a_proxy_that_refuses(
    tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch, answer: bytes, why: str
) -> None:
    async with running(Proxy(tls_server.port)) as proxy:
        proxy.answer = answer
        monkeypatch.setenv("HTTPS_PROXY", f"http://anna:hunter2@{proxy.address}")
        refused = f"telemetry.test: the proxy in HTTPS_PROXY refuses the connection{why}"
        assert await problem_of("https://telemetry.test/v1") == refused
        while not proxy.left:
            await asyncio.sleep(0.005)


async def test_a_proxy_that_hangs(tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_SECONDS", 0.2)
    async with running(Proxy(tls_server.port)) as proxy:
        proxy.answer = b""
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        assert await problem_of("https://telemetry.test/v1") == "telemetry.test: no answer in time"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:99999", "http://", "http://[::1"])
async def test_what_is_no_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert await problem_of("https://telemetry.test/v1") == (
        "telemetry.test: HTTPS_PROXY holds no address of a proxy; expected http:// or https://"
    )


async def test_a_proxy_over_tls(tls_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_server.authority))
    context = tls_server.context(None)
    async with running(Proxy(tls_server.port), context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://anna:hunter2@{proxy.address}")
        if sys.version_info < (3, 11):
            assert "needs Python 3.11" in await problem_of("https://telemetry.test/v1")
            return
        sending = Connection("https://telemetry.test/v1", "test")
        for _ in range(2):
            assert await post(sending, "https://telemetry.test/v1") == 200
        await sending.close()
        assert len(proxy.asked) == 1
    stranger = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    async with running(Proxy(tls_server.port), stranger) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://anna:hunter2@{proxy.address}")
        problem = await problem_of("https://telemetry.test/v1")
        assert problem.startswith("telemetry.test: the proxy in HTTPS_PROXY cannot be reached (")
        assert "certificate" in problem
        assert "hunter2" not in problem
        assert proxy.asked == []
