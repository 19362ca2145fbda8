"""What only shows in a process of its own: imports, exit, trust in certificates, a proxy."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import cmdorc_telemetry_http
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.types import Batch
from cmdorc_telemetry_http import HttpReporter

if TYPE_CHECKING:
    from .conftest import FaultyServer

SEND = """
    import asyncio, sys
    from cmdorc_telemetry.types import Batch, BatchEvent
    from cmdorc_telemetry_http import HttpReporter

    async def send():
        reporter = HttpReporter(HttpReporter.Settings(endpoint=sys.argv[1]))
        event = BatchEvent("e", "command_completed", b'{"event":"command_completed","event_id":"e"}')
        try:
            result = await reporter.report_batch(Batch(destination="http", events=(event,)))
            print([each.status for each in result.results])
        except Exception as fault:
            print(f"{type(fault).__name__}: {fault}")
        finally:
            await reporter.close()

    asyncio.run(send())
"""


def run(script: str, *args: str, **env: str) -> str:
    unset = {name for name in os.environ if name.lower().endswith("_proxy") or name == "SSL_CERT_FILE"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        env=inherited | env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    out = run("""
        import sys
        before = set(sys.modules)  # a measuring tool may have loaded some already
        import cmdorc_telemetry_http, cmdorc_telemetry_http.plugin as plugin
        assert "msgspec" not in sys.modules and "cmdorc_telemetry_http.reporter" not in sys.modules
        (kind,) = plugin.telemetry_reporters()
        assert kind is cmdorc_telemetry_http.HttpReporter
        from cmdorc_telemetry.types import Batch, BatchEvent
        reporter = kind(kind.Settings(endpoint="https://t.example/v1"))
        reporter.encode(Batch(destination="http", events=(BatchEvent("e", "x", b"{}"),)))
        print([name for name in ("aiohttp", "asyncio", "socket", "ssl", "gzip", "zstandard")
               if name in set(sys.modules) - before])
    """)
    assert out == "[]"


def test_the_package_offers_its_reporter() -> None:
    (point,) = (each for each in metadata.entry_points(group="cmdorc_telemetry") if each.name == "http")
    assert point.load().telemetry_reporters() == [HttpReporter]
    assert metadata.version("cmdorc-telemetry-http") == cmdorc_telemetry_http.__version__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_http.nothing


def test_a_hanging_name_server_holds_up_no_exit() -> None:
    script = """
        import socket, threading, time
        asked = threading.Event()
        def hang(*args):
            asked.set()
            time.sleep(60)
        socket.getaddrinfo = hang
        def send():
            import asyncio
            from cmdorc_telemetry.types import Batch, BatchEvent
            from cmdorc_telemetry_http import HttpReporter
            reporter = HttpReporter(HttpReporter.Settings(endpoint="https://t.example/v1"))
            asyncio.run(reporter.report_batch(Batch(destination="http", events=(BatchEvent("e", "x", b"{}"),))))
        threading.Thread(target=send, daemon=True).start()
        print(asked.wait(20))
    """
    assert run(script) == "True"  # within 30 s, though the name server takes 60


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority; ``ca.pem`` in ``tmp_path`` is what trusts it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


@pytest.fixture
async def tls_server(
    authority: trustme.CA,
    faulty_server: FaultyServer,
    serve: Callable[[FaultyServer, ssl.SSLContext], Awaitable[Any]],
) -> AsyncIterator[FaultyServer]:
    """A server with a certificate for 127.0.0.1 and telemetry.test that nobody trusts by itself."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "telemetry.test").configure_cert(context)
    runner = await serve(faulty_server, context)
    yield faulty_server
    await runner.cleanup()


async def test_an_untrusted_certificate_is_refused(tls_server: FaultyServer, make_batch: Callable[..., Batch]) -> None:
    reporter = HttpReporter(HttpReporter.Settings(endpoint=tls_server.endpoint))
    with pytest.raises(RetryLater, match=rf"^{tls_server.host}: the certificate is not to be trusted \(.*certificate"):
        await reporter.report_batch(make_batch(1))
    await reporter.close()
    assert tls_server.seen == []


async def test_a_server_without_tls(server: FaultyServer, make_batch: Callable[..., Batch]) -> None:
    reporter = HttpReporter(HttpReporter.Settings(endpoint=f"https://{server.host}/v1"))
    with pytest.raises(RetryLater, match=f"^{server.host}: no secure connection"):
        await reporter.report_batch(make_batch(1))
    await reporter.close()
    assert server.seen == []


async def test_an_authority_of_ones_own(tls_server: FaultyServer, authority: trustme.CA, tmp_path: Path) -> None:
    out = await asyncio.to_thread(run, SEND, tls_server.endpoint, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert out == "['accepted']"
    wrong_name = tls_server.endpoint.replace("127.0.0.1", "localhost")
    out = await asyncio.to_thread(run, SEND, wrong_name, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert out.startswith("RetryLater: localhost")
    assert "not to be trusted" in out


async def test_a_proxy_sees_the_name_and_not_the_report(tls_server: FaultyServer, tmp_path: Path) -> None:
    passed, asked = bytearray(), list[bytes]()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            passed.extend(data)
            writer.write(data)
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if b"telemetry.test" not in asked[-1]:
            writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        upstream = await asyncio.open_connection("127.0.0.1", tls_server.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    trust = str(tmp_path / "ca.pem")

    async def send(endpoint: str, **env: str) -> str:
        return await asyncio.to_thread(run, SEND, endpoint, SSL_CERT_FILE=trust, **env)

    assert await send("https://telemetry.test/v1", HTTPS_PROXY=f"http://anna:hunter2@{address}") == "['accepted']"
    assert asked[0].startswith(b"CONNECT telemetry.test:443 ")
    assert b"command_completed" not in passed
    assert len(passed) > 500
    refused = await send("https://other.test/v1", HTTPS_PROXY=address)
    assert refused == "RetryLater: other.test: the proxy in HTTPS_PROXY refuses the connection"
    assert await send(tls_server.endpoint, HTTPS_PROXY=address, NO_PROXY="127.0.0.1") == "['duplicate']"
    assert len(asked) == 2
    dead = await send("https://telemetry.test/v1", HTTPS_PROXY="http://anna:hunter2@127.0.0.1:9")
    assert dead.startswith("RetryLater: telemetry.test: the proxy in HTTPS_PROXY cannot be reached")
    assert "hunter2" not in dead
    listener.close()
