"""The connection to one server, imported with the first request: whether there is one, and whether it is used again.

The only file that has a request sent: to the address it is given and nowhere else. No redirects, no cookies, no
``.netrc``. The way there is in ``route.py``, HTTP in ``wire.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import h11

from ..errors import RetryLater
from .answers import Answer
from .deadline import deadline
from .route import Route, authority
from .wire import Problem, Unanswered, Wire

_SECONDS = 300.0
"""What a request may take: a net below the deadline that the core sets for each call."""
_REST_SECONDS = 4.0
"""How long a connection is kept: under the 5 of most servers, so that none closes while a batch is on its way."""


class Connection:
    """A connection to one server, kept between requests. To be used in one event loop."""

    def __init__(self, endpoint: str, agent: str) -> None:
        """``endpoint`` is a checked address; ``agent`` is what it is told of who asks, such as ``name/1.0``."""
        parts = urlsplit(endpoint)
        self._name = parts.netloc
        self._headers = {
            "Host": authority(parts, parts.port),
            "User-Agent": agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # answers are small; none may blow up
        }
        self._route = Route(endpoint)
        self._kept: Wire | None = None
        self._closed = False

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """The server's answer, whatever its status. Raises RetryLater where there is none.

        What had no answer on a connection that was kept is sent once more on a new one. That harms nobody, also where
        the server had taken it: events have an id by which it recognises them, and the rest asks or deletes.
        """
        length = {} if body is None else {"Content-Length": str(len(body))}
        fields = {**self._headers, **headers, **length}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        request = h11.Request(method=method, target=_target(url), headers=encoded)
        try:
            with deadline(_SECONDS):
                return await self._send(request, body)
        except asyncio.TimeoutError:
            problem = "no answer in time"
        except Problem as fault:
            problem = str(fault)
        raise RetryLater(f"{self._name}: {problem}")

    async def close(self) -> None:
        """Close the connection; one that is in use is not kept."""
        self._closed = True
        if self._kept is not None:
            self._kept.transport.abort()
            await asyncio.sleep(0)  # with that, the socket is closed

    async def _send(self, request: h11.Request, body: bytes | None) -> Answer:
        kept, self._kept = self._kept, None
        if kept is not None and kept.wake():
            try:
                return await self._over(kept, request, body)
            except Unanswered:
                pass  # the server had closed it, or did this moment
        return await self._over(await self._route.open(), request, body)

    async def _over(self, wire: Wire, request: h11.Request, body: bytes | None) -> Answer:
        answer = await wire.request(request, body)
        if self._kept is None and not self._closed and wire.keep(_REST_SECONDS):
            self._kept = wire
        else:
            wire.transport.abort()
        return answer


def _target(url: str) -> str:
    """The part of an address that a server is asked for."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return quote(f"{parts.path or '/'}{query}", safe="/?%:@!$&'()*+,;=~")
