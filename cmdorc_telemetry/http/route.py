"""The way to a server: names, several addresses, a proxy, TLS. Knows nothing of reports.

Names are resolved in daemon threads: asyncio's own would hold up the end of a process while DNS hangs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import h11

from .deadline import deadline
from .wire import Problem, Wire

if TYPE_CHECKING:
    import ssl

_SECONDS = 15.0
"""What the whole way may take."""
_HEAD_START_SECONDS = 0.25
"""How long an address is tried alone before the next one is tried beside it."""

_Address = tuple[int, Any]
"""A family of addresses, and one of it as sockets take it."""


class Route:
    """The way to one server, from one event loop."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is a checked address."""
        self._server = urlsplit(endpoint)
        self._proxy = _proxy_for(self._server.netloc) if self._server.scheme == "https" else None
        self._found: asyncio.Future[list[_Address] | OSError] | None = None
        self._best: _Address | None = None

    async def open(self) -> Wire:
        """A new connection. Raises Problem, or asyncio.TimeoutError."""
        with deadline(_SECONDS):
            if self._proxy is None:
                return await self._direct(self._server)
            proxy = _usable(self._proxy)
            try:
                wire = await self._direct(proxy)
            except Problem as problem:
                raise Problem("the proxy in HTTPS_PROXY cannot be reached", problem.fault) from None
            try:
                return await self._through(wire, proxy)
            except BaseException:
                wire.transport.abort()
                raise

    async def _direct(self, to: SplitResult) -> Wire:
        host = _host(to)
        try:
            addresses = await self._addresses(host, _port(to))
        except OSError as fault:
            raise Problem("the name cannot be resolved", fault) from None
        addresses.sort(key=lambda address: address != self._best)
        with _naming_faults():
            secure: dict[str, Any] = self._secure(host) if to.scheme == "https" else {}
            self._best, connected = await _first_to_accept(addresses)
            _, wire = await asyncio.get_running_loop().create_connection(Wire, sock=connected, **secure)
        return wire

    async def _through(self, wire: Wire, proxy: SplitResult) -> Wire:
        """A tunnel: the proxy learns the server's name, and sees no report."""
        target = authority(self._server, _port(self._server))
        headers = [("Host", target), *_credentials(proxy)]
        refused = "the proxy in HTTPS_PROXY refuses the connection"
        try:
            answer = await wire.request(h11.Request(method="CONNECT", target=target, headers=headers))
        except Problem as problem:
            raise Problem(f"{refused}: {problem}") from None
        if not 200 <= answer.status < 300:
            raise Problem(refused)
        inner, secure = Wire(), self._secure(_host(self._server))
        with _naming_faults():
            transport = await asyncio.get_running_loop().start_tls(
                wire.transport, inner, secure["ssl"], server_hostname=secure["server_hostname"]
            )
        assert transport is not None
        inner.connection_made(transport)
        return inner

    def _secure(self, host: str) -> dict[str, Any]:
        return {"ssl": self._trust, "server_hostname": host.rstrip(".")}

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def _addresses(self, host: str, port: int) -> list[_Address]:
        if host == "localhost":  # never asked of DNS: plain http:// may go there
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        with suppress(ValueError):
            return [(socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6, (host, port))]
        # Whoever gave up on a slow name service finds its answer the next time, and nobody asks it twice at once.
        self._found = asked = self._found or _resolve(host, port)
        await asyncio.wait([asked])
        self._found, found = None, asked.result()
        if isinstance(found, OSError):
            raise found
        return found


def authority(parts: SplitResult, port: int | None) -> str:
    """Host and port as HTTP wants them."""
    host = f"[{_host(parts)}]" if ":" in _host(parts) else _host(parts)
    return host if port is None else f"{host}:{port}"


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]


@contextmanager
def _naming_faults() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        import ssl

        if isinstance(fault, ssl.SSLCertVerificationError):
            raise Problem("the certificate is not to be trusted", fault) from None
        raise Problem("no secure connection" if isinstance(fault, ssl.SSLError) else "no connection", fault) from None


# -- names and addresses ----------------------------------------------------------------------------------------------


def _resolve(host: str, port: int) -> asyncio.Future[list[_Address] | OSError]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[_Address] | OSError] = loop.create_future()

    def ask() -> None:
        found: list[_Address] | OSError
        try:
            asked = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
            found = [(family, address) for family, _, _, _, address in asked]
        except (OSError, UnicodeError) as fault:
            found = fault if isinstance(fault, OSError) else OSError(str(fault))
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(future.set_result, found)

    threading.Thread(target=ask, name="cmdorc-telemetry-dns", daemon=True).start()
    return future


async def _first_to_accept(addresses: Sequence[_Address]) -> tuple[_Address, socket.socket]:
    """The address that accepts first, and a socket connected to it. Raises OSError: what the first one says."""
    attempts: list[asyncio.Future[socket.socket]] = []
    winner = None
    try:
        for number, address in enumerate(addresses, 1):
            attempts.append(asyncio.ensure_future(_attempt(address)))
            winner = await _accepted(attempts, _HEAD_START_SECONDS if number < len(addresses) else None)
            if winner is not None:
                return addresses[attempts.index(winner)], winner.result()
        raise next((fault for each in attempts if (fault := each.exception())), OSError())
    finally:
        for each in attempts:
            each.cancel()  # what has not ended yet closes its socket itself
            if each is not winner and each.done() and not each.cancelled() and not each.exception():
                each.result().close()


async def _accepted(
    attempts: Sequence[asyncio.Future[socket.socket]], seconds: float | None
) -> asyncio.Future[socket.socket] | None:
    """One that has succeeded. None where all have failed, or nothing has happened for so long."""
    while pending := [each for each in attempts if not each.done()]:
        done, _ = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            if each.exception() is None:
                return each
        if not done:
            break
    return None


async def _attempt(address: _Address) -> socket.socket:
    family, where = address
    # With the protocol named, as asyncio wants it where it is to switch Nagle's algorithm off.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException as fault:
        made.close()
        if isinstance(fault, OSError) and fault.errno:  # asyncio says where; it is why that helps
            raise OSError(fault.errno, os.strerror(fault.errno)) from None
        raise
    return made


# -- the proxy --------------------------------------------------------------------------------------------------------


def _proxy_for(netloc: str) -> str | None:
    """What ``HTTPS_PROXY`` holds, unless ``NO_PROXY`` names the host."""
    if not any(name.lower() == "https_proxy" for name in os.environ):
        return None  # as it mostly is, and then there is less to import
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: TID251 - they read variables, no more

    return None if proxy_bypass(netloc) else getproxies_environment().get("https")


def _usable(proxy: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme in ("http", "https") and _host(parts) and _port(parts):
            if parts.scheme == "https" and sys.version_info < (3, 11):  # pragma: no cover - Python 3.10 only
                raise Problem("a proxy in HTTPS_PROXY that is https:// itself needs Python 3.11")
            return parts
    raise Problem("HTTPS_PROXY holds no address of a proxy; expected http:// or https://")


def _credentials(proxy: SplitResult) -> list[tuple[str, str]]:
    if proxy.username is None:
        return []
    from base64 import b64encode

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [("Proxy-Authorization", "Basic " + b64encode(pair.encode()).decode("ascii"))]
