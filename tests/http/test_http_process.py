"""What only shows in a process of its own: exit, and what is set in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from cmdorc_telemetry.testing import FaultServer

SEND = """
    import asyncio, sys
    from cmdorc_telemetry.errors import RetryLater
    from cmdorc_telemetry.http.connection import Connection

    async def send():
        connection = Connection(sys.argv[1], "test")
        try:
            body = b'{"event":"command_completed","event_id":"e"}'
            print((await connection.request("POST", sys.argv[1] + "/report", {}, body)).status)
        except RetryLater as fault:
            print(fault)
        finally:
            await connection.close()

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
            from cmdorc_telemetry.http.connection import Connection
            asyncio.run(Connection("https://t.example", "test").request("GET", "https://t.example/v1", {}))
        threading.Thread(target=send, daemon=True).start()
        print(asked.wait(20))
    """
    assert run(script) == "True"  # though the name server never answers


def test_an_authority_of_ones_own(tls_server: FaultServer) -> None:
    assert run(SEND, tls_server.endpoint, SSL_CERT_FILE=str(tls_server.authority)) == "200"
    out = run(SEND, tls_server.endpoint)
    assert out.startswith(f"127.0.0.1:{tls_server.port}: the certificate is not to be trusted (")
    assert list(tls_server.receiver.stored) == ["e"]


def test_no_proxy_for_whom_no_proxy_names(tls_server: FaultServer) -> None:
    trust = {"SSL_CERT_FILE": str(tls_server.authority), "HTTPS_PROXY": "http://anna:hunter2@127.0.0.1:9"}
    out = run(SEND, tls_server.endpoint, **trust)
    assert out.startswith(f"127.0.0.1:{tls_server.port}: the proxy in HTTPS_PROXY cannot be reached")
    assert "hunter2" not in out
    assert run(SEND, tls_server.endpoint, NO_PROXY="127.0.0.1", **trust) == "200"
