"""A telemetry server on loopback that fails as it is told, and batches to send to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from cmdorc_telemetry.testing import Answer, Fault, FaultServer
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_http import HttpReporter

MakeBatch = Callable[..., Batch]


class Server(FaultServer):
    """Does what it ``will``, one thing a request, and afterwards as a telemetry server does."""

    def __init__(self) -> None:
        self._next: list[str | Fault] = []
        super().__init__(faults=lambda request: self._next.pop(0) if self._next else None)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def will(self, *faults: str | Fault) -> None:
        """The next requests fare like this."""
        self._next += faults

    def will_answer(self, status: int, body: str | bytes = b"", **headers: str) -> None:
        """The next request gets this answer, and nothing is taken."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = Answer(status, body.encode() if isinstance(body, str) else body, named)
        self.will(Fault("told", "the answer that a test gives", act=lambda exchange: exchange.reply(answer)))


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    with Server() as server:
        yield server


@pytest.fixture
async def reporter(server: Server) -> AsyncIterator[HttpReporter]:
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
