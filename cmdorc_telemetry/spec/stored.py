"""What is stored under one declaration of a property, and whether another one still takes it. Pure.

Stored is what the shapes (``shapes.py``) let through: whole bodies, each at a level of its own. A column is the one
that ``columns.py`` makes of a property.
"""

from __future__ import annotations

import re
from math import ceil, floor

from .columns import column_types
from .model import Event
from .property import LEVELS, Property, bucket_labels
from .shapes import ANYTHING, MOST, PATTERNS


def broken(old: Event, new: Event, name: str) -> str:
    """Why stored events have a property that ``new`` does not take as it is there; empty where it takes them all."""
    before, after = old.properties.get(name), new.properties.get(name)
    if before is None or before.type == "json":  # which nobody ever stored
        return "stored events lack it" if after is not None and after.required else ""
    if after is None or after.type == "json":
        return "stored events have it"
    if before.audience == "shared" and (
        after.audience == "private" or LEVELS.index(after.level) > LEVELS.index(before.level)
    ):
        return "stored events have it where it may no longer be"
    if after.required and not before.required:
        return "stored events may lack it"
    if old.masks(name) != new.masks(name):
        return "stored values are masks" if old.masks(name) else "stored values are no masks"
    if not old.masks(name) and not _takes(after, before):
        return "stored values may not fit"
    types, now = column_types(old, name), column_types(new, name)
    other = [store for store in types if types[store] != now[store]]
    return f"its column is of another type in {', '.join(other)}" if other and before.audience == "shared" else ""


def _takes(new: Property, old: Property) -> bool:
    """Whether every value that ``old`` can have is one of ``new``; where nobody can tell, it is not."""
    if (new.max_items is None) != (old.max_items is None) or (new.max_items or 0) < (old.max_items or 0):
        return False
    if (words := _words(old)) is not None:
        return all(_takes_word(new, word) for word in words)
    if old.type in ("count", "duration_ms", "number"):
        whole = old.type != "number"
        if new.type not in ("count", "duration_ms", "number") or (new.type != "number" and not whole):
            return False
        (low, high), (least, most) = _range(old), _range(new)
        return least <= low and high <= most
    if old.type == "bool" or new.type == "bool":
        return new.type == old.type
    return _takes_text(new, old)


def _takes_text(new: Property, old: Property) -> bool:
    if new.type != "string":
        return new.type == old.type
    pattern, length = PATTERNS.get(old.type, (old.pattern, old.max_length))
    assert length is not None
    assert new.max_length is not None
    return new.pattern in (pattern, ANYTHING) and length <= new.max_length


def _words(prop: Property) -> tuple[str, ...] | None:
    """The words that are all its values; None where they are no such list."""
    if prop.type == "enum":
        return (*prop.members, "other")
    return bucket_labels(prop.edges) if prop.type == "bucket" else None


def _takes_word(prop: Property, word: str) -> bool:
    if (words := _words(prop)) is not None:
        return word in words
    pattern, length = PATTERNS.get(prop.type, (prop.pattern, prop.max_length))
    return pattern is not None and length is not None and len(word) <= length and bool(re.fullmatch(pattern, word))


def _range(prop: Property) -> tuple[float, float]:
    if prop.type == "number":
        assert prop.min is not None
        assert prop.max is not None
        return prop.min, prop.max
    return ceil(prop.min or 0), floor(min(prop.max, MOST) if prop.max is not None else MOST)
