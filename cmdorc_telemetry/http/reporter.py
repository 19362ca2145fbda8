"""What every reporter that posts to one server has: a connection that is made when needed, and one event as a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from ..errors import Rejected, RetryLater
from ..reporter import TelemetryReporter
from ..types import Batch, BatchEvent, BatchResult
from .answers import Answer

if TYPE_CHECKING:
    from .connection import Connection


class PostingReporter(TelemetryReporter):
    """A reporter with a connection to the server at its endpoint. ``report_batch`` is left to write."""

    agent: ClassVar[str] = "cmdorc-telemetry"
    """What the server is told of who asks, such as ``name/1.0``."""

    def __init__(self, settings: Any, endpoint: str) -> None:
        """``endpoint`` is a checked address."""
        super().__init__(settings)
        self.endpoint = endpoint.rstrip("/")
        self.host = urlsplit(endpoint).netloc
        """What messages call the server."""
        self._connection: Connection | None = None

    @abstractmethod
    async def report_batch(self, batch: Batch) -> BatchResult | None:
        """Send a batch; None means that every event was accepted."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Send one event. Raises RetryLater or Rejected where the server does not take it."""
        event_id = str(payload.get("event_id", ""))
        body = msgspec.json.encode({"event": event, **payload})
        result = await self.report_batch(
            Batch(destination=self.name or "", events=(BatchEvent(event_id, event, body),))
        )
        for each in (result.results if result is not None else None) or ():
            if each.status == "rejected":
                raise Rejected(f"{self.host} rejects the event: {each.reason}")
            if each.status == "retry":
                raise RetryLater(f"{self.host} asks for the event again: {each.reason}")

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:  # fmt: skip
        """The server's answer, whatever its status. Raises RetryLater where there is none."""
        if self._connection is None:
            from .connection import Connection  # with h11: paid when there is something to send

            self._connection = Connection(self.endpoint, self.agent)
        return await self._connection.request(method, self.endpoint + path, headers, body)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
