"""What became of a field between two declarations of it: whether more may leave than before, or less. Pure.

Compares texts, as ``TelemetrySpec.declaration`` writes them and a consent keeps them. What cannot be read, or is not
known here, counts as more.
"""

# Annotations are evaluated here, as in model.py.

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, Literal, NamedTuple

import msgspec

from .property import LEVELS, Property

Change = Literal["added", "removed", "narrowed", "widened", "re-meant"]
"""``narrowed``: whatever it holds now, it could hold before; ``widened``: not so; ``re-meant``: for another reason."""
ASKS: frozenset[Change] = frozenset({"added", "widened", "re-meant"})
"""What nobody has agreed to who agreed to the declaration before."""
UNREADABLE = "declaration"
"""The name under which a declaration differs as a whole."""

_WORST: tuple[Change, ...] = ("widened", "re-meant", "narrowed")


class Difference(NamedTuple):
    """One thing that two declarations say otherwise."""

    name: str
    """A key of the declaration."""
    old: Any
    new: Any
    change: Change


class _Declaration(Property, frozen=True, kw_only=True):
    """What a text holds."""

    why: str | None = None
    retention_days: int | None = None


_COMPARED = tuple(name for name in _Declaration.__struct_fields__ if name != "description")
_read = msgspec.json.Decoder(_Declaration).decode


def compare_declarations(old: str | None, new: str | None) -> Change | None:
    """What became of a field, its worst change; None where nothing did. A text that is None: there is no such field."""
    if old is None or new is None:
        return None if old == new else "added" if old is None else "removed"
    return worst(differences(old, new))


def worst(found: Iterable[Difference]) -> Change | None:
    """What some differences amount to; None where there are none."""
    changes = {each.change for each in found}
    return next((change for change in _WORST if change in changes), None)


def differences(old: str, new: str) -> tuple[Difference, ...]:
    """Everything that two declarations of a field say otherwise; nothing where they allow and mean the same."""
    if old == new:
        return ()
    try:
        before, after = _read(old), _read(new)
    except (msgspec.MsgspecError, RecursionError):
        return (Difference(UNREADABLE, old, new, "widened"),)
    return tuple(_differences(before, after))


def _differences(old: _Declaration, new: _Declaration) -> Iterator[Difference]:
    for name in _COMPARED:
        before, after = getattr(old, name), getattr(new, name)
        change = _change(name, before, after, new) if before != after else None
        if change is not None:
            yield Difference(name, before, after, change)


def _change(name: str, old: Any, new: Any, declared: _Declaration) -> Change | None:
    """What it means that a key had one value and has another."""
    match name:
        case "why":
            return "re-meant"
        case "pii" | "redact" | "required":  # what is required holds back an event that lacks it
            return _less(new and not old)
        case "level":
            return _less(LEVELS.index(new) > LEVELS.index(old))
        case "audience":
            return _less(new == "private")
        case "members":
            old, new = {*old, "other"}, {*new, "other"}  # what is no member becomes "other", and so always could
            return _less(new < old) if new != old else None
        case "edges":  # fewer of the same ones: ranges put together
            return _less(set(new) < set(old))
        case "min":  # where there is none, counts and durations begin at 0
            return _less((new or 0) > (old or 0)) if (new or 0) != (old or 0) else None
        case "max":
            return _less(_most(new) < _most(old))
        case "max_length" | "retention_days":
            return _less(_most(new) < _most(old))
        case "max_items" if None not in (old, new):  # one value and a list of them are two types
            return _less(new < old)
        case _:  # type, pattern, and what later versions of this file add without saying here what it means
            return "widened"


def _less(narrowed: bool) -> Change:
    return "narrowed" if narrowed else "widened"


def _most(bound: float | None) -> float:
    return inf if bound is None else bound
