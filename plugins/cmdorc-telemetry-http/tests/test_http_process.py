"""What only shows in a process of its own: imports, exit, what is set in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

import cmdorc_telemetry_http
from cmdorc_telemetry_http import HttpReporter

if TYPE_CHECKING:
    from .conftest import Server

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
        print([name for name in ("h11", "asyncio", "socket", "ssl", "gzip", "zstandard")
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
        import socket, threading
        asked = threading.Event()
        def hang(*args):
            asked.set()
            threading.Event().wait()
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
    assert run(script) == "True"  # though the name server never answers


def test_one_event_over_plain_http_needs_little(server: Server) -> None:
    out = run(
        """
        import sys
        import asyncio, cmdorc_telemetry.types  # what the core has, too
        before = set(sys.modules)
        from cmdorc_telemetry.types import Batch, BatchEvent
        from cmdorc_telemetry_http import HttpReporter
        reporter = HttpReporter(HttpReporter.Settings(endpoint=sys.argv[1]))
        body = b'{"event":"command_completed","event_id":"e"}'
        batch = Batch(destination="http", events=(BatchEvent("e", "command_completed", body),))
        asyncio.run(reporter.report_batch(batch))
        new = set(sys.modules) - before
        print(sorted(new & {"email", "gzip", "http.client", "urllib.request", "zstandard"}), len(new) < 40)
        """,
        server.endpoint,
    )
    assert out == "[] True"


def test_an_authority_of_ones_own(tls_server: Server) -> None:
    assert run(SEND, tls_server.endpoint, SSL_CERT_FILE=str(tls_server.authority)) == "['accepted']"
    out = run(SEND, tls_server.endpoint)
    assert out.startswith(f"RetryLater: {tls_server.host}: the certificate is not to be trusted (")
    assert list(tls_server.receiver.stored) == ["e"]


def test_no_proxy_for_whom_no_proxy_names(tls_server: Server) -> None:
    trust = {"SSL_CERT_FILE": str(tls_server.authority), "HTTPS_PROXY": "http://anna:hunter2@127.0.0.1:9"}
    out = run(SEND, tls_server.endpoint, **trust)
    assert out.startswith(f"RetryLater: {tls_server.host}: the proxy in HTTPS_PROXY cannot be reached")
    assert "hunter2" not in out
    assert run(SEND, tls_server.endpoint, NO_PROXY="127.0.0.1", **trust) == "['accepted']"
