"""The process that serves: a socket, uvicorn on it, and an orderly end. Knows nothing of events."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from cmdorc_telemetry.errors import ConfigError

_BACKLOG = 2048


class Server(uvicorn.Server):
    """A uvicorn server that says when it listens, and whose end by SIGINT or SIGTERM is no failure."""

    def __init__(self, app: FastAPI, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nobody's address is of interest
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=10,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``ready``."""
        await super().startup(sockets)
        self._ready()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a free port for ``port`` 0. Raises ConfigError."""
    tcp = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, flags=socket.AI_PASSIVE, **tcp)[0]
        # Not socket.create_server: it leaves `proto` 0, by which asyncio takes the connections for something else
        # than TCP and leaves Nagle's algorithm on: 40 ms an answer.
        listener = socket.socket(family, **tcp)
    except (OSError, UnicodeError) as fault:
        raise _no_listener(host, port, fault) from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as fault:
        listener.close()
        raise _no_listener(host, port, fault) from None
    return listener


def _no_listener(host: str, port: int, fault: Exception) -> ConfigError:
    return ConfigError("--host, --port", f"{host}:{port}", f"cannot listen there: {fault}")


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach ``listener``."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url(listener: socket.socket) -> str:
    """The endpoint that clients are configured with."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def end_quietly() -> None:
    """uvicorn raises the signal that ended it once more: let that be a normal exit."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
