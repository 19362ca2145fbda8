"""A name service that knows what a test tells it, and otherwise never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def names(known: Mapping[str, str] | None = None) -> Iterator[threading.Event]:
    """Within this, names in ``known`` have that address, and every other one hangs until the end of it.

    Addresses and ``localhost`` resolve as ever. Holds for ``socket.getaddrinfo``, in which asyncio, httpx and requests
    resolve. The event is set once somebody hangs.
    """
    asked, over, real = threading.Event(), threading.Event(), socket.getaddrinfo

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in (known or {}):
            return real((known or {})[name], *args, **more)
        if name is not None and name != "localhost" and not name.replace(".", "").isdigit() and ":" not in name:
            asked.set()
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "the name service never answered")
        return real(host, *args, **more)

    with mock.patch("socket.getaddrinfo", resolve):
        try:
            yield asked
        finally:
            over.set()
