"""A reporter that keeps what it is given, and fails as it is told."""

from __future__ import annotations

from typing import Any

from ..reporter import TelemetryReporter
from ..types import Batch, BatchEvent, BatchResult


class RecordingReporter(TelemetryReporter):
    """Takes everything and remembers it, for a test to look at."""

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.batches: list[Batch] = []
        """What came, in its order; what was answered with a failure is not among it."""
        self.fail: BaseException | None = None
        """Raised in the place of an answer, from now on."""
        self.closed = False

    @property
    def events(self) -> list[BatchEvent]:
        """Every event of every batch."""
        return [event for batch in self.batches for event in batch.events]

    def payloads(self, event: str | None = None) -> list[dict[str, Any]]:
        """The bodies, decoded: of one event, or of all."""
        return [each.payload for each in self.events if event in (None, each.event)]

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Not called: batches are."""
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        """Keep the batch."""
        if self.fail is not None:
            raise self.fail
        self.batches.append(batch)
        return None

    async def close(self) -> None:
        """Remember that, too."""
        self.closed = True
