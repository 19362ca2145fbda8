"""Applies the rules to one event: the only place that brings treatments, the key and the counts together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .operations import Secret, moved_id
from .rarity import Rarity
from .rules import Treatment, compiled
from .secret import Key
from .settings import Settings

if TYPE_CHECKING:
    from cmdorc_telemetry.types import Event, Setup


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
        treatments = self._table[event.spec][event.name]
        fields, changed = event.fields, dict[str, Any]()
        secret = self._key.of(fields["anonymous_install_id"])
        event_id = fields["event_id"]
        for name, treatment in treatments.items():
            value = fields.get(name)
            if value is None:
                continue
            new = self._treated(treatment, value, event_id, secret)
            if new != value:
                changed[name] = new
        if "timestamp" in changed:
            changed["event_id"] = moved_id(event_id, _milliseconds(changed["timestamp"]), secret)
        return changed

    def _treated(self, treatment: Treatment, value: Any, event_id: str, secret: Secret) -> Any:
        if not treatment.many:
            return self._one(treatment, value, event_id, secret)
        items = [self._one(treatment, item, event_id, secret) for item in value]
        left = [item for item in items if item is not None]
        return left if left or not value else None

    def _one(self, treatment: Treatment, value: Any, event_id: str, secret: Secret) -> Any:
        new = treatment.change(value, secret)
        k = treatment.rare
        if k is None or new is None or new == treatment.instead:
            return new
        common = self._rarity.is_common(treatment.place, new, event_id, k, secret)
        return new if common else treatment.instead


def _milliseconds(timestamp: str) -> int:
    return int(datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000)
