"""Applies the rules to one event: the only place that brings treatments, the key and the counts together."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .operations import moved_id
from .rarity import Rarity, Seen
from .rules import Treatment, compiled
from .secret import Key
from .settings import Settings

if TYPE_CHECKING:
    from cmdorc_telemetry.types import Event, Setup

_NOBODY = "00000000-0000-0000-0000-000000000000"
"""In the place of an install id: a sample, of which nothing is remembered, and for which no file is made."""


class Narrowing:
    """What becomes of events under some settings."""

    def __init__(self, settings: Settings, setup: Setup) -> None:
        """Raises ConfigError for rules that could never be valid."""
        self._table = compiled(settings, setup.specs, setup.where, setup.key)
        self._key = Key(setup.folder)
        self._rarity = Rarity(setup.folder)

    def __call__(self, event: Event) -> Mapping[str, Any]:
        """Fields → what is shared in their place; None for those that are taken out. Only those that change.

        Raises KeyError for an event that was not there when the rules were compiled: it is not shared.
        """
        fields, event_id = event.fields, event.fields["event_id"]
        sample = fields["anonymous_install_id"] == _NOBODY
        secret = _nobodys if sample else self._key.of(fields["anonymous_install_id"])
        treatments = self._table[event.spec][event.name]
        found = [(name, treatment, [treatment.change(item, secret) for item in _items(treatment, fields[name])])
                 for name, treatment in treatments.items() if fields.get(name) is not None]  # fmt: skip
        seen = {each for _, treatment, items in found for item in items if (each := _seen(treatment, item)) is not None}
        common = set[Seen]() if sample else self._rarity.common(seen, event_id, secret)
        new = {name: _shown(treatment, items, common) for name, treatment, items in found}
        # Whatever made the timestamp coarser, this or what came before: the id tells no more of the time.
        new["event_id"] = moved_id(event_id, _milliseconds(new.get("timestamp", fields["timestamp"])), secret)
        return {name: value for name, value in new.items() if value != fields[name]}


def _nobodys(text: bytes) -> bytes:
    """In the place of what a key makes of a text, where there is nothing to hide."""
    return hmac.digest(b"", text, "sha256")


def _items(treatment: Treatment, value: Any) -> list[Any]:
    return value if treatment.many else [value]


def _seen(treatment: Treatment, item: Any) -> Seen | None:
    """What is to be counted of a value, as the rest of its rule left it; None for nothing."""
    return None if treatment.rare is None or item is None else Seen(treatment.place, item, treatment.rare)


def _shown(treatment: Treatment, items: list[Any], common: Collection[Seen]) -> Any:
    """What is shared of a field; None for nothing."""
    shown = [treatment.instead if (seen := _seen(treatment, item)) is not None and seen not in common else item
             for item in items]  # fmt: skip
    if not treatment.many:
        return shown[0]
    left = [item for item in shown if item is not None]
    return left if left or not items else None


def _milliseconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000)
