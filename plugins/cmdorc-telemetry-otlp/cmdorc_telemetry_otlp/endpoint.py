"""Where requests may go, and what may be sent along. Pure; knows nothing of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from cmdorc_telemetry.http import endpoint as addresses

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = ("connection", "content-encoding", "content-length", "content-type", "expect", "host", "transfer-encoding")
_GRPC = 4317


def check_endpoint(endpoint: str) -> str | None:
    """What is wrong with ``endpoint`` and what would be right, or None. Never repeats credentials."""
    if fault := addresses.check_endpoint(endpoint, "headers"):
        return fault
    parts = urlsplit(endpoint)
    if parts.port == _GRPC:
        return f"endpoint: found {endpoint!r}; expected OTLP over HTTP, mostly at port 4318: {_GRPC} is that of gRPC"
    if re.search(r"/v1/(traces|metrics|logs)/?$", parts.path):
        return f"endpoint: found {endpoint!r}; expected it without /v1/…: that is added for each signal"
    return None


def read_headers(headers: Mapping[str, str] | str) -> dict[str, str]:
    """Headers to send along, also from a text as ``OTEL_EXPORTER_OTLP_HEADERS`` has it: ``a=1,b=2``, percent-encoded.

    Raises ValueError, which repeats no value.
    """
    found = _split(headers) if isinstance(headers, str) else dict(headers)
    for name, value in found.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"headers: found the name {name!r}; expected letters, digits and '-'")
        if name.lower() in _OURS:
            raise ValueError(f"headers: found {name!r}; expected none of those that are made here")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"headers: the value of {name!r} has characters that no header has; expected plain ASCII")
    return found


def _split(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, pair in enumerate((each for each in text.split(",") if each.strip()), 1):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"headers: found no '=' in number {number}; expected 'name=value,name=value'")
        found[unquote(name.strip())] = unquote(value.strip())
    return found
