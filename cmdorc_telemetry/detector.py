"""The interface of an anomaly detector: a private destination that watches the stream.

After river's ``learn_one`` / ``score_one``: first judge an event with what is known, then learn from it. A detector is
made, used and dropped in a thread of its own, so it may import heavy libraries in ``__init__``. What a method raises is
reported once with the detector's name; the event at hand is passed over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from .types import Anomaly

if TYPE_CHECKING:
    from .spec import TelemetrySpec


class Detector(ABC):
    """Watches events of this machine. Gets private bodies, one at a time, in order, each once.

    An alert is one per episode: a detector that keeps on finding the same keeps it to itself until it was over.
    """

    name: ClassVar[str | None] = None
    """The plugin's name where None."""

    class Settings(Struct, forbid_unknown_fields=True):
        """The keys of ``[telemetry.settings.NAME]``. Replace it by a Struct of your own."""

    def __init__(self, settings: Any = None) -> None:
        """``settings`` is an instance of ``Settings``, already checked."""
        self.settings = settings if settings is not None else self.Settings()

    def watch(self, specs: Sequence[TelemetrySpec]) -> None:
        """The specs in force, with their thresholds. Called once, before anything else."""

    @abstractmethod
    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        """The alerts that this event gives rise to, judged by what was learnt before it."""

    @abstractmethod
    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        """Take the event into account from now on."""

    def check(self, now: float) -> Iterable[Anomaly]:
        """The alerts that all that was learnt gives rise to. Called after each batch: nobody knows when the next comes.

        ``now``: when the last event in it was, in seconds since the epoch, however long ago that is.
        """
        return ()

    def save(self) -> bytes:
        """What it has learnt: kept with what it was learnt from, so that each event is learnt once.

        At most ``STATE_BYTES``. Nothing is kept of a detector without this method.
        """
        return b""

    def restore(self, state: bytes) -> None:
        """Go on from what ``save`` gave, maybe in another process, of another version. Called after ``watch``.

        Where that is of no use any more: raise, and begin anew.
        """


STATE_BYTES = 8 << 20
"""The most that a detector may keep."""
