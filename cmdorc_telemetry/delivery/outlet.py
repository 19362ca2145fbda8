"""The way out of this machine: a reporter, where it lives, and the audit of what it is given.

A batch is encoded, written into the audit, and only then sent; what became of it is written behind that. What cannot
be written does not leave.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .. import clock
from ..audit import AuditLog, Entered
from ..bounds import EXIT_SECONDS
from ..errors import Rejected, RetryLater, StorageError, TooLarge
from ..reporter import TelemetryReporter
from ..spec import keep_policy
from ..types import Batch, BatchResult, DropReason, Leased
from .cell import BlockedError, Cell, Here, Place
from .results import checked

log = logging.getLogger("cmdorc_telemetry")

_STORAGE_SECONDS = 60.0
_FAULTS: Mapping[type[BaseException], str] = {
    asyncio.TimeoutError: "no answer in time",
    BlockedError: "the reporter blocks",
    RetryLater: "not now",
    TooLarge: "too large",
    Rejected: "rejected as a whole",
}

Body = Callable[[Leased], bytes | DropReason | None]


@dataclass(frozen=True)
class Destination:
    """Where a worker sends to."""

    name: str
    make: Callable[[], TelemetryReporter]
    """Makes the reporter: called where it will live, when there is something to send."""
    body: Body
    """What this destination gets of an event, or why it gets nothing; None where consent was withdrawn meanwhile."""
    timeout: float = 10.0
    refresh: Callable[[], object] = lambda: None
    """Called before each batch: consent may have changed."""
    injected: bool = False
    """Whether the reporter is an object of this process, and gone with it."""
    trusted: bool = False
    """Whether the reporter is known not to block, so that it may run on the telemetry thread."""
    audit: AuditLog | None = None
    """Where each batch is written down before it is sent; None for what stays on this machine."""
    heed: Callable[[str], object] | None = None
    """Told before each batch what the receiver asks for less of, as it was kept; None where it is never asked."""


class Outlet:
    """Hands batches to the reporter of one destination, one at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination, self._audit = destination, destination.audit
        self._place: Place = Here() if destination.trusted else Cell(f"telemetry-{destination.name}")
        self._reporter: TelemetryReporter | None = None  # touched only where it lives
        self._epoch = ""
        """Of the batch that the reporter was last given: there is another one for each install id."""
        self._under_way: tuple[int, Batch] | None = None
        """What left, by its number in the audit, and has no answer yet."""
        if destination.injected:  # what it is to get may come in the last moment, when no thread is started any more
            with suppress(RuntimeError):  # then there is one more chance, at the first call
                self._place.open()

    @property
    def blocked(self) -> bool:
        """Whether a call has not come back, so that no other can be made."""
        return self._place.blocked

    async def send(
        self, batch: Batch, fields: Mapping[str, Sequence[str]], entered: Callable[[], Entered]
    ) -> BatchResult:  # fmt: skip
        """What the reporter says of ``batch``; raises what it raises, and RetryLater where nothing could be written.

        ``fields``: event name → names of fields, for the audit; so is what the ledger has ``entered`` so far.
        """
        self._under_way = None
        end = clock.monotonic() + self._destination.timeout
        if self._audit is not None:
            digest, size = await self._place.call(lambda: self._encode(batch), self._destination.timeout)
            try:
                number = self._audit.left(batch, fields, digest=digest, size=size, entered=entered())
            except StorageError as fault:
                raise RetryLater(f"nothing is sent: {fault}", _STORAGE_SECONDS) from fault
            self._under_way = number, batch
        return await self._place.call(lambda: self._report(batch), max(round(end - clock.monotonic(), 3), 0.0))

    def answered(self, outcomes: str | Mapping[str, Sequence[str]], fault: BaseException | None = None) -> None:
        """Write what became of the batch under way: one status for all its events, or status → event ids."""
        if self._audit is None or self._under_way is None:
            return
        (number, batch), self._under_way = self._under_way, None
        if isinstance(outcomes, str):
            outcomes = {outcomes: [event.event_id for event in batch.events]}
        try:
            self._audit.answered(number, outcomes, "" if fault is None else _kind(fault))
        except StorageError as full:  # it is known that the batch left, and that is what must be
            log.debug("the answer of %s is not written down: %s", self._destination.name, full)

    async def policy(self, etag: str | None) -> str | None:
        """What the receiver asks for less of, to be kept; None where nothing is new since ``etag``."""
        return await self._place.call(lambda: self._policy(etag), self._destination.timeout)

    async def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Close the reporter, if there is one; give it so long."""
        if self._place.used:
            with suppress(Exception):
                await self._place.call(self._dismiss, seconds)
        self._place.close()

    # -- where the reporter lives -------------------------------------------------------------------------------------

    def _made(self) -> TelemetryReporter:
        if self._reporter is None:
            self._reporter = self._destination.make()
        return self._reporter

    async def _encode(self, batch: Batch) -> tuple[str, int]:
        """The digest of what stands for ``batch`` on the wire, and how many bytes it is.

        A reporter that served another install id is closed before: by its connection the receiver would know that
        the two are one.
        """
        if batch.epoch != self._epoch and not self._destination.injected:
            with suppress(Exception):
                await self._dismiss()
        self._epoch = batch.epoch
        encoded = self._made().encode(batch)
        if not isinstance(encoded, bytes):
            raise TypeError(f"encode returned {type(encoded).__name__} instead of bytes")
        return f"sha256:{hashlib.sha256(encoded).hexdigest()}", len(encoded)

    async def _report(self, batch: Batch) -> BatchResult:
        return checked(await self._made().report_batch(batch))

    async def _policy(self, etag: str | None) -> str | None:
        answer = await self._made().fetch_policy(etag)
        return None if answer is None else keep_policy(answer)

    async def _dismiss(self) -> None:
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            await reporter.close()


def _kind(fault: BaseException) -> str:
    """What kind of failure it was. Not its words: they are a receiver's or a plugin's, and may repeat what was sent."""
    known = next((text for kind, text in _FAULTS.items() if isinstance(fault, kind)), "")
    return known or f"the reporter failed: {type(fault).__name__}"
