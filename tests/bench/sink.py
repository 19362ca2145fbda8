"""A loopback sink for every SDK: answers as each expects, and knows which events arrived, each once.

A process of its own. Prints its port, then obeys lines on stdin: ``reset`` forgets what came, ``count`` prints JSON
(events, unique events, requests, bytes on the sockets). Bodies are kept and read when somebody asks for the count,
so that reading them takes no time from what is measured; only ours and PostHog's second protocol, which answer
each event by its id, are read at once. Ends with its stdin.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterator

LIMIT = 64 << 20


def _text(body: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.decompress(body)
    if coding == "deflate":
        return zlib.decompress(body)
    if coding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(body, max_output_size=LIMIT)
    return body


# -- which events a body holds, by protocol ----------------------------------------------------------------------------


def _ids(name: bytes) -> Callable[[bytes], list[bytes]]:
    """Reads the string that every event has under ``name``, and nothing else has."""
    return re.compile(rb'"%b":\s?"([^"]+)"' % name).findall


def _sentry(envelope: bytes) -> list[bytes]:
    """The log items of an envelope: a header line, then a header and a payload line for each item."""
    found, lines = [], envelope.split(b"\n")[1:]
    for head, payload in zip(lines[::2], lines[1::2], strict=False):
        if b'"type":"log"' in head.replace(b" ", b""):
            found += [json.dumps(item).encode() for item in json.loads(payload)["items"]]
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbers and contents of a protobuf message's length-delimited fields."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if kind == 2:
            yield number, message[at : at + size]
        at += size


def _otlp(request: bytes) -> list[bytes]:
    """The log records of an export request; each is its own id, for it holds its nanosecond."""
    return [record for _, resource in _fields(request) for number, scope in _fields(resource) if number == 2
            for inner, record in _fields(scope) if inner == 2]  # fmt: skip


OURS, POSTHOG = "/ours/report", "/i/v1/analytics/events"
PROTOCOLS: dict[str, Callable[[bytes], list[bytes]]] = {
    OURS: _ids(b"event_id"),
    POSTHOG: _ids(b"uuid"),
    "/batch/": _ids(b"uuid"),
    "/v1/batch": _ids(b"messageId"),
    "/v1/logs": _otlp,
    "/api/1/envelope/": _sentry,
    "/com.snowplowanalytics.snowplow/tp2": _ids(b"eid"),
}


class Arrived:
    """What came since the last ``reset``."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.bytes = 0

    def count(self) -> dict[str, int]:
        """How much that is."""
        ids = [one for path, coding, body in self.requests for one in PROTOCOLS[path](_text(body, coding))]
        return {"events": len(ids), "unique": len(set(ids)), "requests": len(self.requests), "bytes": self.bytes}


arrived = Arrived()


def answer(path: str, coding: str, body: bytes) -> tuple[str, bytes]:
    """Status and body of the answer to a POST."""
    if path not in PROTOCOLS:
        return "404 Not Found", b"{}"
    arrived.requests.append((path, coding, body))
    if path == OURS:
        ids = PROTOCOLS[path](_text(body, coding))
        results = b",".join(b'{"event_id":"%b","status":"accepted"}' % one for one in ids)
        return "200 OK", b'{"message":"Thanks!","results":[' + results + b"]}"
    if path == POSTHOG:
        ids = PROTOCOLS[path](_text(body, coding))
        return "200 OK", b'{"results":{' + b",".join(b'"%b":{"result":"ok"}' % one for one in ids) + b"}}"
    if path == "/v1/logs":
        return "200 OK", b""  # an empty protobuf message
    return "200 OK", b'{"status": 1}' if path == "/batch/" else b"{}"


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection: requests with a length, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.data += data
        arrived.bytes += len(data)
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.data[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            stop = end + 4 + int(headers.get("content-length", 0))
            if len(self.data) < stop:
                return
            method, path, _ = first.split(" ", 2)
            body = bytes(self.data[end + 4 : stop])
            del self.data[:stop]
            status, text = "404 Not Found", b"{}"
            if method == "POST":
                status, text = answer(path.partition("?")[0], headers.get("content-encoding", ""), body)
            kind = "application/x-protobuf" if path == "/v1/logs" else "application/json"
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n"
            self.transport.write(head.encode() + text)


def _obey(loop: asyncio.AbstractEventLoop) -> None:
    """Read commands in a thread; do them on the loop, between two requests."""

    async def obey(command: str) -> None:
        global arrived  # noqa: PLW0603 - the connections are to see the new one
        if command == "reset":
            arrived = Arrived()
            print("{}", flush=True)
        else:
            print(json.dumps(arrived.count()), flush=True)

    for line in sys.stdin:
        asyncio.run_coroutine_threadsafe(obey(line.strip()), loop).result()
    loop.call_soon_threadsafe(loop.stop)


def main() -> None:
    # asyncio switches Nagle's algorithm off only where the protocol is named; otherwise each answer waits 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_server(Connection, sock=listening, backlog=100))
    print(listening.getsockname()[1], flush=True)
    threading.Thread(target=_obey, args=(loop,), daemon=True).start()
    loop.run_forever()


if __name__ == "__main__":
    main()
