"""The way to a server: its name, several addresses, a proxy, TLS. Knows nothing of reports.

Names are resolved in daemon threads: asyncio's own would hold up the exit of a process while DNS hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import h11

from .wire import Problem, Wire

if TYPE_CHECKING:
    import ssl

CONNECT_SECONDS = 15.0
"""What the way may take, from the name to TLS."""
_NEXT_SECONDS = 0.25
"""When to try the next address beside one that neither accepts nor refuses."""

_Address = tuple[int, Any]
"""A family, and what sockets of that family connect to."""


class Route:
    """The way to one server. To be used by one event loop."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is a checked address."""
        self._server = urlsplit(endpoint)
        self._proxy = _proxy(self._server.netloc) if self._server.scheme == "https" else None
        self._names: asyncio.Future[list[_Address] | OSError] | None = None
        self._best: _Address | None = None

    async def open(self) -> Wire:
        """A new connection. Raises Problem, and asyncio.TimeoutError."""
        with deadline(CONNECT_SECONDS):
            if self._proxy is None:
                return await self._connect(self._server, "the name cannot be resolved", "no connection")
            wire = await self._connect(self._proxy, *["the proxy in HTTPS_PROXY cannot be reached"] * 2)
            try:
                return await self._tunnel(wire, self._proxy)
            except BaseException:
                wire.transport.abort()
                raise

    async def _connect(self, to: SplitResult, no_name: str, no_connection: str) -> Wire:
        host, port = ascii_host(to), to.port or (443 if to.scheme == "https" else 80)
        try:
            addresses = await self._addresses(host, port)
        except OSError as fault:
            raise Problem(no_name, fault) from None
        addresses.sort(key=lambda address: address != self._best)
        try:
            self._best, connected = await _first_of(addresses)
        except OSError as fault:
            raise Problem(no_connection, fault) from None
        secure: dict[str, Any] = {"ssl": self._trust, "server_hostname": host} if to.scheme == "https" else {}
        with _naming(no_connection):
            return (await asyncio.get_running_loop().create_connection(Wire, sock=connected, **secure))[1]

    async def _tunnel(self, wire: Wire, proxy: SplitResult) -> Wire:
        """Through ``proxy``, which learns the server's name and sees no report."""
        host = ascii_host(self._server)
        target = f"[{host}]" if ":" in host else host
        target += f":{self._server.port or 443}"
        headers = [("Host", target), *_credentials(proxy)]
        answer = await wire.request(h11.Request(method="CONNECT", target=target, headers=headers))
        if not 200 <= answer.status < 300:
            raise Problem("the proxy in HTTPS_PROXY refuses the connection")
        inner, loop = Wire(), asyncio.get_running_loop()
        with _naming("no connection"):
            secured = await loop.start_tls(wire.transport, inner, self._trust, server_hostname=host)
        assert secured is not None
        inner.connection_made(secured)
        return inner

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    # -- names --------------------------------------------------------------------------------------------------------

    async def _addresses(self, host: str, port: int) -> list[_Address]:
        if host == "localhost":  # never asked of DNS: plain http:// may go there
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        with contextlib.suppress(ValueError):
            family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
            return [(family, (host, port))]
        # Whoever had to give up on a slow name service finds its answer the next time; nobody asks it twice at once.
        self._names = names = self._names or _resolved(host, port)
        await asyncio.wait([names])
        self._names, found = None, names.result()
        if isinstance(found, OSError):
            raise found
        return found


def _resolved(host: str, port: int) -> asyncio.Future[list[_Address] | OSError]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[_Address] | OSError] = loop.create_future()

    def ask() -> None:
        found: list[_Address] | OSError
        try:
            asked = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
            found = [(family, address) for family, _, _, _, address in asked]
        except (OSError, UnicodeError) as fault:
            found = fault if isinstance(fault, OSError) else OSError(str(fault))
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(future.set_result, found)

    threading.Thread(target=ask, name="cmdorc-telemetry-dns", daemon=True).start()
    return future


def ascii_host(parts: SplitResult) -> str:
    """The host of an address as it goes over the wire."""
    host = parts.hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")


# -- addresses --------------------------------------------------------------------------------------------------------


async def _first_of(addresses: Sequence[_Address]) -> tuple[_Address, socket.socket]:
    """The address that accepts first, each given a head start on the next one, and the connection to it.

    Raises OSError: what the first of them had to say.
    """
    attempts: dict[asyncio.Future[socket.socket], _Address] = {}
    won: socket.socket | None = None
    try:
        for number, address in enumerate(addresses, 1):
            attempts[asyncio.ensure_future(_attempt(address))] = address
            while pending := [each for each in attempts if not each.done()]:
                wait = _NEXT_SECONDS if number < len(addresses) else None
                done, _ = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                ...
    finally:
        pass
    raise OSError


