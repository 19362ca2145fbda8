"""A telemetry server on loopback that injects faults, and batches to send to it."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_http import HttpReporter

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
MakeBatch = Callable[..., Batch]
MakeReporter = Callable[..., HttpReporter]


@dataclass
class Seen:
    """One request as it came in, still compressed."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]


@dataclass
class FaultyServer:
    """Answers with ``faults``, one a request, and afterwards as a telemetry server does."""

    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    scheme: str = "http"

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer(self, status: int, body: str | bytes = b"", **headers: str) -> None:
        """The next request gets this answer."""
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def respond(request: web.Request) -> web.Response:
            return web.Response(status=status, body=data, headers=named)

        self.faults.append(respond)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")[:2]
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body, peer))
        self.arrived.set()
        if self.faults:
            return await self.faults.pop(0)(request)
        results = []
        for line in decompressed(body, request.headers.get("Content-Encoding")).splitlines():
            event_id = json.loads(line)["event_id"]
            results.append({"event_id": event_id, "status": "duplicate" if event_id in self.stored else "accepted"})
            self.stored[event_id] = line
        return web.json_response({"message": "Thanks!", "stats": {"percentile_duration": 87}, "results": results})


def decompressed(body: bytes, coding: str | None) -> bytes:
    if coding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(body)
    return gzip.decompress(body) if coding == "gzip" else body


async def serving(server: FaultyServer, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, auto_decompress=False, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.port = runner.addresses[0][1]
    server.scheme = "https" if tls else "http"
    return runner


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    """A running server."""
    server = FaultyServer()
    runner = await serving(server)
    yield server
    await runner.cleanup()


@pytest.fixture
async def reporter(server: FaultyServer) -> AsyncIterator[HttpReporter]:
    """A reporter that sends to ``server``."""
    reporter = HttpReporter(HttpReporter.Settings(endpoint=server.endpoint))
    yield reporter
    await reporter.close()


@pytest.fixture
def make_batch() -> MakeBatch:
    """``make_batch(3)``: a batch of three events; other arguments go to ``Batch``."""

    def make(count: int, *, filler: str = "", **more: object) -> Batch:
        ids = [f"00000000-0000-7000-8000-{number:012}" for number in range(count)]
        return Batch(
            destination="http",
            events=tuple(
                BatchEvent(
                    event_id,
                    "command_completed",
                    json.dumps({"event": "command_completed", "event_id": event_id, "x": filler}).encode(),
                )
                for event_id in ids
            ),
            **more,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def serve() -> Callable[[FaultyServer, ssl.SSLContext], Awaitable[web.AppRunner]]:
    """Start a server with TLS; the caller cleans the runner up."""
    return serving


@pytest.fixture
def faulty_server() -> FaultyServer:
    """A server that was not started."""
    return FaultyServer()
