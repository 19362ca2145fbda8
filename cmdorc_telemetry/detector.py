"""The interface of an anomaly detector: a private destination that watches the stream.

After river's ``learn_one`` / ``score_one``: first judge an event with what is known, then learn from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from msgspec import Struct

from .types import Anomaly


class Detector(ABC):
    """Watches events of this machine. Gets private bodies, one at a time, in order, each once."""

    name: ClassVar[str | None] = None

    class Settings(Struct, forbid_unknown_fields=True):
        """Replace it by a Struct of your own."""

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings if settings is not None else self.Settings()

    @abstractmethod
    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        """The alerts that this event gives rise to, judged by what was learnt before it."""

    @abstractmethod
    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        """Take the event into account from now on."""
