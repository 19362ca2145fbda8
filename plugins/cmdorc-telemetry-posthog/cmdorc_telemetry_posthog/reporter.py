"""The PostHog reporter: one ``POST {endpoint}/batch/`` a batch. What is in it is in ``batches.py``."""

from __future__ import annotations

from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.decoding import Secret
from cmdorc_telemetry.http.endpoint import check_endpoint, check_secret
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.types import Batch

from . import __version__
from .answers import judge
from .batches import encoded


class PosthogReporter(PostingReporter):
    """Captures events in a PostHog project, without persons, places or addresses."""

    name = "posthog"
    agent = f"cmdorc-telemetry-posthog/{__version__}"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of a ``posthog`` destination."""

        endpoint: str
        """Where events are captured: ``https://us.i.posthog.com``, ``https://eu.i.posthog.com``, or one's own."""
        api_key: Secret[str]
        """The project's key, ``phc_…``: it says whose the events are, and can only add some."""
        historical_migration: bool = False
        """Whether all that is sent is from the past: PostHog then keeps it from what watches for sudden growth."""

        def __post_init__(self) -> None:
            if fault := check_endpoint(self.endpoint, "api_key") or _check_key(self.api_key):
                raise ValueError(fault)

        def __repr__(self) -> str:  # the key stays out of logs and tracebacks
            return f"Settings(endpoint={self.endpoint!r})"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.endpoint)
        self._key, self._historical = settings.api_key, settings.historical_migration

    async def report_batch(self, batch: Batch) -> None:
        """Send a batch. Returning means that PostHog has all of it. Raises RetryLater, TooLarge or Rejected."""
        if batch.events:
            body = self.encode(batch)
            answer = await self.request("POST", "/batch/", {"Content-Type": "application/json"}, body)
            judge(answer, len(batch.events), self.host, clock.wall())

    def encode(self, batch: Batch) -> bytes:
        """The body of the request. Raises TooLarge, or what keeps an event from being captured."""
        return encoded(batch, self._key, historical=self._historical)


def _check_key(key: str) -> str | None:
    """What is wrong with a project's key, or None. Never repeats it."""
    if key.startswith(("phx_", "phs_")):  # what these open is private, and would be sent to where anybody may write
        return "api_key: found a personal or secret key; expected the key of the project, phc_…"
    return check_secret("api_key", key)
