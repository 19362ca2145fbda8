"""The connection to one server: the only file that imports aiohttp, itself imported at the first request.

Sends a body to the address it is given and nowhere else: no redirects, no cookies, no ``.netrc``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass  # noqa: TID251 - they read variables, no more

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from cmdorc_telemetry.errors import RetryLater

from . import __version__
from .answers import Answer

MAX_ANSWER = 1_000_000
"""Bytes of an answer that are read; what goes on beyond is not."""

_TIMEOUT = aiohttp.ClientTimeout(total=300, connect=15)  # a net below the deadline that the core sets for each call
_KEEPALIVE = 4.0  # seconds: under the 5 of most servers, so that none closes while a batch is on its way
_USER_AGENT = f"cmdorc-telemetry-http/{__version__}"
_PROBLEMS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name cannot be resolved"),
    (aiohttp.ClientProxyConnectionError, "the proxy in HTTPS_PROXY cannot be reached"),
    (aiohttp.ClientHttpProxyError, "the proxy in HTTPS_PROXY refuses the connection"),
    (aiohttp.ClientConnectorCertificateError, "the certificate is not to be trusted"),
    (aiohttp.ClientSSLError, "no secure connection"),
    (asyncio.TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorError, "no connection"),
    (aiohttp.ClientResponseError, "no HTTP answer"),
)


class Connection:
    """A session with one server, kept alive between requests. To be made inside the loop that uses it."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is a checked address."""
        parts = urlsplit(endpoint)
        self._host = parts.netloc
        self._proxy = _proxy(parts.netloc) if parts.scheme == "https" else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Resolver(), keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_TIMEOUT,
            trust_env=False,  # it would send passwords from ~/.netrc
            auto_decompress=False,  # answers are small; none may blow up
            headers={"User-Agent": _USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """The server's answer, whatever its status. Raises RetryLater where there is none."""
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                return Answer(response.status, await _read(response.content), response.headers)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as fault:
            raise RetryLater(f"{self._host}: {_problem(fault)}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    data = bytearray()
    async for chunk in content.iter_chunked(65_536):
        data += chunk
        if len(data) > MAX_ANSWER:
            return None
    return bytes(data)


def _problem(fault: BaseException) -> str:
    """One line for ``fault``. Nothing of a request or a proxy's address is in it."""
    text = next((text for kind, text in _PROBLEMS if isinstance(fault, kind)), "the connection broke off")
    cause = getattr(fault, "certificate_error", None) or getattr(fault, "os_error", None) or fault
    for name in ("verify_message", "reason", "strerror"):
        if isinstance(detail := getattr(cause, name, None), str) and detail:
            return f"{text} ({detail})"
    return text


def _proxy(netloc: str) -> str | None:
    """The proxy of ``HTTPS_PROXY``, unless ``NO_PROXY`` names the host."""
    proxy = getproxies_environment().get("https")
    if not proxy or proxy_bypass(netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class _Resolver(AbstractResolver):
    """Resolves names in daemon threads: asyncio's own would hold up the exit of a process while DNS hangs."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host == "localhost":  # never asked of DNS: plain http:// may go there
            return [_address(host, "127.0.0.1", port, socket.AF_INET), _address(host, "::1", port, socket.AF_INET6)]
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()

        def settle(found: list[Any] | OSError) -> None:
            if not future.done():
                future.set_exception(found) if isinstance(found, OSError) else future.set_result(found)

        def ask() -> None:
            found: list[Any] | OSError
            try:
                found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as fault:
                found = fault if isinstance(fault, OSError) else OSError(str(fault))
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=ask, name="cmdorc-telemetry-dns", daemon=True).start()
        return [_address(host, address[0], port, kind) for kind, _, _, _, address in await future]

    async def close(self) -> None:
        """Nothing is held."""


def _address(name: str, address: str, port: int, family: int) -> ResolveResult:
    return ResolveResult(
        hostname=name, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )  # fmt: skip
