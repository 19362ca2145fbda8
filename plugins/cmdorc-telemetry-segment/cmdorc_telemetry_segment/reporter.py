"""The Segment reporter: one ``POST {endpoint}/batch`` a batch. What is in it is in ``batches.py``."""

from __future__ import annotations

from base64 import b64encode

from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.decoding import Secret
from cmdorc_telemetry.http.endpoint import check_endpoint, check_secret
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.types import Batch

from . import __version__
from .answers import judge
from .batches import encoded


class SegmentReporter(PostingReporter):
    """Tracks events in a Segment source, for anonymous ids alone."""

    name = "segment"
    agent = f"cmdorc-telemetry-segment/{__version__}"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of a ``segment`` destination."""

        endpoint: str
        """The Tracking API: ``https://api.segment.io/v1``, or ``https://events.eu1.segmentapis.com/v1``."""
        write_key: Secret[str]
        """The source's key: it says whose the events are, and can only add some."""

        def __post_init__(self) -> None:
            if fault := check_endpoint(self.endpoint, "write_key") or check_secret("write_key", self.write_key):
                raise ValueError(fault)
            if ":" in self.write_key:
                raise ValueError("write_key: found a colon in it; expected the bare write_key")

        def __repr__(self) -> str:  # the key stays out of logs and tracebacks
            return f"Settings(endpoint={self.endpoint!r})"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.endpoint)
        pair = b64encode(f"{settings.write_key}:".encode()).decode("ascii")
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    async def report_batch(self, batch: Batch) -> None:
        """Send a batch. Returning means that Segment has all of it. Raises RetryLater, TooLarge or Rejected."""
        if batch.events:
            answer = await self.request("POST", "/batch", self._headers, self.encode(batch))
            judge(answer, len(batch.events), self.host, clock.wall())

    def encode(self, batch: Batch) -> bytes:
        """The body of the request. Raises TooLarge, or what keeps an event from being tracked."""
        return encoded(batch)
