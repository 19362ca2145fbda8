"""What a store must do, whichever database is behind it. ``testing.py`` has the suite that each must pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from msgspec import Struct

from cmdorc_telemetry.errors import StorageError

from .drops import Drops
from .ranks import Rank


class StoreUnavailable(StorageError):
    """The store cannot take anything now: nothing was stored, the client comes again after ``after`` seconds."""

    def __init__(self, message: str, after: int = 5) -> None:
        super().__init__(message)
        self.after = after


class Stored(Struct, frozen=True, kw_only=True):
    """One event as it is kept."""

    event_id: str
    install: str
    spec: str
    """Such as ``cmdorc.core@1``."""
    event: str
    received: int
    """Seconds since the epoch, UTC."""
    body: bytes
    """A JSON object with declared fields only."""


class Record(Stored, frozen=True, kw_only=True):
    """One event that passed validation, with what the percentile needs of it."""

    day: int
    """Days since the epoch of the event's own time (never later than its receipt), UTC."""
    duration_ms: int | None = None
    """Of a successful run; None for any other event."""


class Store(ABC):
    """Keeps events, each once. Every method may raise :class:`StoreUnavailable`."""

    @abstractmethod
    async def open(self) -> None:
        """Make ready. Raises StorageError where that is impossible."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was begun and let go."""

    @abstractmethod
    async def append(self, records: Sequence[Record], drops: Drops | None = None) -> list[bool]:
        """Store each record whose event id is new, all or none, durably before it returns.

        Returns one flag a record: True where it was stored, False where its id was there already (also
        earlier in ``records``). ``drops`` replaces what is known of that install and epoch where it is more.
        """

    @abstractmethod
    async def rank(self, install: str) -> Rank | None:
        """The place of the install's median successful duration among all installs' of the last 30 days.

        Holds what was appended before. None where the install has none.
        """

    @abstractmethod
    async def delete_installs(self, installs: Collection[str]) -> int:
        """Delete all that is kept of these installs. Returns the number of events."""

    @abstractmethod
    async def purge(self, now: float, retention: Mapping[tuple[str, str], int], otherwise: int) -> int:
        """Delete events kept longer than their days of ``retention``, by spec and event; ``otherwise`` for the rest.

        What lies outside the percentile's window goes, too, and installs and drops of which nothing is left.
        Returns the number of events.
        """

    @abstractmethod
    def export(self, newest: int | None = None) -> AsyncIterator[Stored]:
        """All events in the order of their ids, or the ``newest`` of them."""

    @abstractmethod
    async def aggregate(self) -> dict[tuple[str, str], int]:
        """The number of events, by spec and event."""

    @abstractmethod
    async def drops(self) -> list[Drops]:
        """The latest that clients said of their losses."""
