"""The interface of a reporter: code that sends bodies to one destination.

A reporter sees only what the gate let out, never a lifecycle record. It is made, used and closed in a thread and
an asyncio loop of its own, so it may import heavy libraries in ``__init__``. Each call has a deadline: what still
awaits then is cancelled; what blocks the thread is left alone until it comes back, and holds up nobody else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from .types import Batch, BatchResult


class TelemetryReporter(ABC):
    """Sends events to one destination. ``report`` is all that a simple one must have.

    What a method raises decides what becomes of the batch: :class:`~cmdorc_telemetry.errors.RetryLater` asks for
    a pause, :class:`~cmdorc_telemetry.errors.TooLarge` for smaller batches,
    :class:`~cmdorc_telemetry.errors.Rejected` sets the batch aside; anything else is retried with a growing pause.
    """

    name: ClassVar[str | None] = None
    """The name that ``plugin = "…"`` in a destination refers to; the entry point's name where None."""

    class Settings(Struct, forbid_unknown_fields=True):
        """The keys of a destination beside the reserved ones. Replace it by a Struct of your own."""

    def __init__(self, settings: Any = None) -> None:
        """``settings`` is an instance of ``Settings``, already checked."""
        self.settings = settings if settings is not None else self.Settings()

    @abstractmethod
    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Send one event. Returning means that the receiver has it."""

    async def close(self) -> None:
        """Release what is held. Called once; given at most 50 ms at the end of a process."""

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        """Send a batch; None means that every event was accepted. By default one ``report`` an event."""
        for event in batch.events:
            await self.report(event.event, event.payload)
        return None

    def encode(self, batch: Batch) -> bytes:
        """The bytes that stand for ``batch`` on the wire, before compression: exactly those that are sent.

        Pure, and called before each send: the audit keeps their digest, and show-payload prints them. What it raises
        keeps the batch from leaving.
        """
        return b"".join(event.body + b"\n" for event in batch.events)

    async def erase(self, install_ids: Sequence[str]) -> bool:
        """Ask the receiver to delete what it holds of these installs. True: nothing of them is left there.

        False where that was not confirmed; Rejected where to ask again is of no use; whatever else it raises, it is
        asked again. A reporter without this method has no way to erase, and the user is told so.
        """
        return False

    async def fetch_policy(self, etag: str | None) -> Mapping[str, Any] | None:
        """What the operator wants less of, with its own ``etag``; None where nothing is new since that one.

        Such as ``{"level": "minimal", "events": {"trigger_fired": {"level": "off"}, "command_completed": {"sampling":
        0.1, "fields": {"concurrent_runs": False}}}}``. It can only lower; a key that is malformed means nothing.
        """
        return None


class NoopReporter(TelemetryReporter):
    """Takes everything and sends it nowhere."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Do nothing."""
