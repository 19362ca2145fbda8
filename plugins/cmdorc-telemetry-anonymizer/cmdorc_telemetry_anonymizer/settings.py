"""``[telemetry.settings.anonymizer]``: which rule is for which property. What a rule does is in ``operations.py``."""

# Annotations are evaluated here: msgspec needs them as types.

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Literal

from msgspec import Struct, field

_CHANGES = ("remove", "hash", "keep", "buckets", "generalise")

Unit = Literal["major", "minor", "minute", "hour", "day", "month", "year"]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of one property before it is shared. An empty rule leaves it as it is."""

    remove: bool = False
    """Take it out."""
    hash: bool = False
    """Put a keyed hash in its place, whose key never leaves this machine."""
    keep: tuple[str, ...] = ()
    """The only values that stay. Of an enum all others become ``other``, of a string they are taken out."""
    buckets: tuple[float, ...] = ()
    """Edges: a number becomes the lower edge of the range that it is in."""
    generalise: Unit | None = None
    """A version keeps this much of itself; a time is rounded down to this."""
    rare: int | None = None
    """Values, as the rest of the rule leaves them, that fewer events than this had are suppressed."""

    def __post_init__(self) -> None:
        changes = [name for name in _CHANGES if getattr(self, name)]
        if len(changes) > 1:
            raise ValueError(f"found {' and '.join(changes)}; expected one of them")
        if self.remove and self.rare is not None:
            raise ValueError("found remove and rare; expected one of them")
        if self.rare is not None and not 2 <= self.rare <= 1000:
            raise ValueError(f"found rare {self.rare}; expected 2 to 1000")
        if not all(map(isfinite, self.buckets)) or any(low >= high for low, high in pairwise(self.buckets)):
            raise ValueError(f"found buckets {list(self.buckets)}; expected numbers that rise")

    @property
    def change(self) -> str:
        """What it does to a value: the name of a key, or empty where it does nothing."""
        return next((name for name in _CHANGES if getattr(self, name)), "")


_MINOR = Rule(generalise="minor")
DEFAULTS: Mapping[str, Rule] = {
    "cmdorc_version": _MINOR,
    "app_version": _MINOR,
    "python_version": _MINOR,
    "timestamp": Rule(generalise="hour"),
}
"""What holds for fields that every event has, where the user wrote nothing about them."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of ``[telemetry.settings.anonymizer]``."""

    fields: dict[str, Rule] = field(default_factory=dict)
    """Property → rule, for every event that has the property."""
    events: dict[str, dict[str, Rule]] = field(default_factory=dict)
    """Event, or ``spec/event``, → property → the rule that stands there in place of the one for every event."""
