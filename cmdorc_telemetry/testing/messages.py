"""Requests and answers, and what gives an answer where nothing goes wrong: a receiver in memory, or a real server."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

_HOP = ("connection", "content-length", "host", "keep-alive", "transfer-encoding")


@dataclass(frozen=True)
class Request:
    """One request as it came in, the body still compressed."""

    method: str
    path: str
    headers: Message
    """Looked up whatever the case of a name."""
    body: bytes = b""
    peer: tuple[str, int] = ("", 0)
    """Address and port that it came from: the same for all requests of one connection."""

    @property
    def plain(self) -> bytes:
        """The body, decompressed. Raises ValueError for a coding that is not known here."""
        return self.expanded(-1)

    def expanded(self, most: int) -> bytes:
        """No more than ``most`` bytes of the body, decompressed; all of it where that is -1. Raises likewise."""
        coding = self.headers.get("Content-Encoding", "identity").lower()
        if coding == "identity":
            return self.body if most < 0 else self.body[:most]
        if coding == "gzip":
            with gzip.GzipFile(fileobj=io.BytesIO(self.body)) as stream:
                return stream.read(most)
        if coding == "zstd":
            import zstandard  # of the extra

            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(self.body)) as reader:
                return bytes(reader.read(most))
        raise ValueError(f"Content-Encoding {coding!r}")

    def with_lines(self, lines: list[bytes]) -> Request:
        """The same request with these lines, uncompressed, as its body."""
        headers = Message()
        for name, value in self.headers.items():
            if name.lower() != "content-encoding":
                headers[name] = value
        return replace(self, headers=headers, body=b"".join(line + b"\n" for line in lines))


@dataclass(frozen=True)
class Answer:
    """One answer as it will go out."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Answer:
        """``value`` as JSON."""
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def encode(self, *, close: bool = False) -> bytes:
        """The bytes on the wire."""
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status >= 200 and self.status not in (204, 304):
            lines.append(f"Content-Length: {len(self.body)}")
        if close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


class Receiver:
    """Takes reports as wire protocol version 1 wants it, and keeps them in memory: one event, or one a line."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        """Event id → body: each id once, however often it was sent."""
        self.received: list[str] = []
        """The event ids in the order in which they came, those that came again included."""
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        """The answer of a server to which nothing happens."""
        if request.method != "POST":
            return Answer.json({"message": "only reports are taken here"}, 404)
        try:
            lines = request.plain.splitlines()
        except ValueError as fault:
            return Answer.json({"message": f"not taken: {fault}"}, 415)
        try:
            ids = [str(json.loads(line)["event_id"]) for line in lines]
        except (ValueError, KeyError, TypeError) as fault:
            return Answer.json({"message": f"not taken: {fault!r}"}, 400)
        results = []
        with self._lock:
            for event_id, line in zip(ids, lines, strict=True):
                results.append({"event_id": event_id, "status": "duplicate" if event_id in self.stored else "accepted"})
                self.received.append(event_id)
                self.stored.setdefault(event_id, line)
        return Answer.json({"message": "Thanks!", "stats": {"percentile_duration": 87}, "results": results})


class Forward:
    """Passes requests on to a real server over plain HTTP, so that what is committed is committed for real."""

    def __init__(self, url: str, seconds: float = 30.0) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._seconds = parts.hostname or "127.0.0.1", parts.port or 80, seconds

    def __call__(self, request: Request) -> Answer:
        """The real server's answer; 502 where there is none."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._seconds)
        try:
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
            return Answer(response.status, response.read(), kept)
        except (OSError, http.client.HTTPException) as fault:
            return Answer.json({"message": f"nobody behind this server: {type(fault).__name__}"}, 502)
        finally:
            connection.close()
