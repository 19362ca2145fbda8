"""What a receiver asks for less of: its policy document, read so that it can only lower. Pure.

Whatever the document holds, reading it raises nothing: unknown keys mean nothing, malformed ones are named and mean
nothing either. Knows no destination, and not what becomes of an event that is not wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from .model import Event
from .property import BASE, LEVELS, Level
from .sampling import sampled
from .shapes import CAPTURED, lower

MOST_BYTES = 64 << 10
"""A larger document is not read."""
FIXED = frozenset({*CAPTURED, "level", "sampling_rate"})
"""Base fields that no receiver can do without."""
OFF = "off"
_NAME = re.compile(BASE["event"].pattern or "")
_MOST_ETAG = 200
_MOST_NAMED = 6


class Rule(Struct, frozen=True):
    """What is wanted at most of one event. Without arguments: everything."""

    level: Level | None = LEVELS[-1]
    """None for nothing at all."""
    sampling: float = 1.0
    without: frozenset[str] = frozenset()
    """Fields that are not wanted."""

    def narrow(self, event: Event | None, body: bytes, subject: str = "") -> bytes | None:
        """``body`` with no more in it than is wanted; None where nothing of the event's own remains.

        ``event`` declares the fields; one that is not declared passes for a field of the highest level. A share is
        taken by ``subject``, which is the event where it is empty: of what was shared before, a lower share is a part
        of a higher one.
        """
        if self == EVERYTHING:
            return body
        if self.level is None:
            return None
        payload: dict[str, Any] = msgspec.json.decode(body)
        if self.sampling < (had := payload.get("sampling_rate", 1.0)):
            if not sampled(subject or payload["event_id"], self.sampling, had):
                return None
            payload["sampling_rate"] = self.sampling
        if "level" in payload:
            payload["level"] = lower(payload["level"], self.level)
        own = payload.keys() - BASE.keys()
        declared = {**BASE, **(event.properties if event is not None else {})}
        for name in list(payload):
            least = declared[name].level if name in declared else LEVELS[-1]
            if name in self.without or lower(least, self.level) != least:
                del payload[name]
        return None if own and own.isdisjoint(payload) else msgspec.json.encode(payload)


EVERYTHING = Rule()


class Wishes(Struct, frozen=True):
    """A policy document, as far as it means something."""

    every: Rule = EVERYTHING
    """Holds for all events."""
    events: Mapping[str, Rule] = field(default_factory=dict)
    """What some of them have beside that."""
    malformed: tuple[str, ...] = ()
    """The keys that cannot be understood."""

    def of(self, event: str) -> Rule:
        """What is wanted of an event: the least of all that is said of it."""
        own = self.events.get(event, EVERYTHING)
        return Rule(lower(self.every.level, own.level), min(self.every.sampling, own.sampling),
                    self.every.without | own.without)  # fmt: skip

    def words(self, level: Level | None = LEVELS[-1]) -> str:
        """What is asked for less of, as one line, such as ``level minimal, no trigger_fired``; empty for nothing.

        ``level`` is what there would be otherwise.
        """
        parts = _words(self.every, "", level)
        for name, rule in self.events.items():
            parts += _words(rule, name, lower(level, self.every.level))
        return _listed(parts)

    def unclear(self) -> str:
        """The keys that cannot be understood, as one line; empty where there are none."""
        return _listed(self.malformed)


def _words(rule: Rule, event: str, level: Level | None) -> list[str]:
    if rule.level is None:
        return [f"no {event or 'events at all'}"] if level is not None else []
    parts = []
    if lower(rule.level, level) != level:
        parts.append(f"{event} at level {rule.level}" if event else f"level {rule.level}")
    if rule.sampling < 1:
        parts.append(f"{rule.sampling * 100:.3g} % of {event or 'all events'}")
    parts += [f"no {name}{f' in {event}' if event else ''}" for name in sorted(rule.without)]
    return parts


def _listed(parts: list[str] | tuple[str, ...]) -> str:
    more = len(parts) - _MOST_NAMED
    return ", ".join(parts[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


# -- reading ----------------------------------------------------------------------------------------------------------


def read_wishes(document: object) -> Wishes:
    """What ``document`` (plain dicts, lists and values) asks for less of."""
    if not isinstance(document, dict):
        return Wishes(malformed=("all of it",))
    malformed: list[str] = []
    tables = document.get("events", {})
    if not isinstance(tables, dict):
        malformed.append("events")
        tables = {}
    events = {}
    for name, table in tables.items():
        key = f"events.{_printable(name)}"
        if isinstance(table, dict) and _NAME.fullmatch(name):
            events[name] = _rule(table, f"{key}.", malformed)
        else:
            malformed.append(key)
    return Wishes(_rule(document, "", malformed), events, tuple(malformed))


def _rule(table: Mapping[str, Any], where: str, malformed: list[str]) -> Rule:
    level, sampling = table.get("level", EVERYTHING.level), table.get("sampling", EVERYTHING.sampling)
    fields, without = table.get("fields", {}), set()
    if level != OFF and level not in LEVELS:
        malformed.append(f"{where}level")
        level = EVERYTHING.level
    if isinstance(sampling, bool) or not (isinstance(sampling, int | float) and 0 <= sampling <= 1):
        malformed.append(f"{where}sampling")
        sampling = EVERYTHING.sampling
    if not isinstance(fields, dict):
        malformed.append(f"{where}fields")
        fields = {}
    for name, wanted in fields.items():
        if not isinstance(wanted, bool) or not _NAME.fullmatch(name) or (name in FIXED and not wanted):
            malformed.append(f"{where}fields.{_printable(name)}")
        elif not wanted:
            without.add(name)
    return Rule(None if level == OFF else level, float(sampling), frozenset(without))


def _printable(name: str) -> str:
    return "".join(char for char in name if char.isprintable())[:60]


# -- as it is kept ----------------------------------------------------------------------------------------------------


class Kept(Struct, frozen=True):
    """A document as it is kept on disk, and the mark by which its receiver knows whether it is the newest."""

    etag: str | None = None
    document: Any = field(default_factory=dict)
    """None for one that was too large."""


def keep_policy(answer: Mapping[str, Any]) -> str:
    """What is stored of a reporter's answer: its ``etag``, and the rest of it, which is the document."""
    etag = answer.get("etag")
    etag = etag if isinstance(etag, str) and len(etag) <= _MOST_ETAG else None
    document = {name: value for name, value in answer.items() if name != "etag"}
    text = msgspec.json.encode(Kept(etag, document))
    return (text if len(text) <= MOST_BYTES else msgspec.json.encode(Kept(etag, None))).decode()


def kept_policy(text: str) -> Kept:
    """What was stored; nothing where it cannot be read."""
    try:
        return _kept.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Kept()


_kept = msgspec.json.Decoder(Kept)
