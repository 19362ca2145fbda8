"""An event of a spec → checked fields → one journal record.

Writes every declared field with a valid value, private ones included, whatever the level: the gate decides
what may be shared.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from math import inf
from typing import Any

import msgspec

from .. import clock
from ..forks import on_fork
from ..lifecycle import Trigger
from ..results import Witness
from ..spec import BASE, Event, TelemetrySpec, Version, coerce
from .checks import Check, Events
from .fields import Hasher, bounded

_DAY = 86_400
_encode = msgspec.json.Encoder().encode


def _valid_base(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` as bodies hold it: an uncommon machine is ``other``; what is no version is left out."""
    valid = {}
    for name, value in base.items():
        with suppress(msgspec.ValidationError):
            valid[name] = coerce(BASE[name], value)
    return valid


class EventIds:
    """Random tails of UUIDv7 (RFC 9562) event ids: all that stands behind the time and the ``7``.

    Each is fresh randomness of the operating system's, taken from a block that is laid out at once: a system call an
    id would cost more than all the rest of a capture. (A counter or a common part would be cheaper still, and would
    link the events of one process.) Threads share it; a forked child begins a block of its own.
    """

    _BLOCK = 128
    _LAYOUT = b"...-....-............"
    _DIGITS = tuple(place for place, sign in enumerate(_LAYOUT) if sign == ord("."))
    _VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)

    def __init__(self) -> None:
        self._tails: Iterator[tuple[bytes]] = iter(())
        on_fork(self)

    def forked(self) -> None:
        """Use nothing of the parent's block."""
        self._tails = iter(())

    def tail(self) -> bytes:
        """21 characters that no other id has."""
        for (tail,) in self._tails:  # an iterator in C: no two threads get the same
            return tail
        self._tails = tails = self._block()
        return next(tails)[0]

    def _block(self) -> Iterator[tuple[bytes]]:
        digits = os.urandom(10 * self._BLOCK).hex().encode()  # twenty an id, the last of them spare
        block = bytearray(self._LAYOUT * self._BLOCK)
        width = len(self._LAYOUT)
        for number, place in enumerate(self._DIGITS):
            block[place::width] = digits[number::20]
        variant = self._LAYOUT.index(b"-") + 1
        block[variant::width] = block[variant::width].translate(self._VARIANT)
        return struct.iter_unpack(f"{width}s", bytes(block))


class _Compiled:
    """What capture needs to know of one event, made once; and the begin of its records, made once a second."""

    def __init__(self, spec: TelemetrySpec, event: Event, base: Mapping[str, str]) -> None:
        self.check = Check(event)
        self._head = f'"{spec.ref}","{event.name}",{event.major},'.encode()
        self._base = _encode({"event": event.name, **base, "spec": spec.ref})[:-1]
        self.begin: tuple[int, bytes] = (-1, b"")

    def begin_at(self, now: int) -> bytes:
        """Everything before the random part of the event id, which is of that second."""
        stamp, time = clock.iso(now).encode(), b"%012x" % (now * 1000)
        begin = b'%b%d,%b,"timestamp":"%b","event_id":"%b-%b-7' % (
            self._head,
            now,
            self._base,
            stamp,
            time[:8],
            time[8:],
        )
        self.begin = (now, begin)
        return begin


class Capture:
    """Makes journal records of the events of some specs. ``base``: the constant base fields."""

    def __init__(self, specs: Iterable[TelemetrySpec], base: Mapping[str, str]) -> None:
        self._specs = list(specs)
        self._base = _valid_base(base)
        self._ids = EventIds()
        self._begin_day(clock.wall())

    def _begin_day(self, now: float) -> None:
        """Know what has not expired by that day. One expires between two events, seldom enough to begin anew."""
        self._events = Events(self._specs, clock.day(now))
        self._compiled: dict[tuple[str, Version | None], _Compiled] = {}
        """By the version as it is asked for, too."""
        ends = any(spec.in_force(date.max) is not spec for spec in self._specs)
        self._day_ends = (now // _DAY + 1) * _DAY if ends else inf

    def __contains__(self, event: str) -> bool:
        return event in self._events

    def _event(self, name: str, version: Version | None = None) -> _Compiled:
        """Raises KeyError for an event that no spec declares."""
        found = self._events.find(name, version)
        if found is None:
            raise KeyError(name)
        whole = (name, found.event.version)
        compiled = self._compiled.get(whole)
        if compiled is None:  # most programs record few kinds of events
            compiled = self._compiled[whole] = _Compiled(*found, self._base)
        self._compiled[name, version] = compiled
        return compiled

    def record(
        self, event: str, properties: Mapping[str, Any], context: Mapping[str, Any] | None = None,
        version: Version | None = None, *, witness: Witness | None = None,
    ) -> bytes | None:  # fmt: skip
        """The journal record of an event, the latest version where there is none; None where it lacks what it requires.

        Fields that are undeclared or invalid are left out; ``witness`` is told of them, and of what is left. Raises
        KeyError for an event that no spec declares, and what the witness raises.
        """
        now = clock.wall()
        if now >= self._day_ends:
            self._begin_day(now)
        try:
            compiled = self._compiled[event, version]
        except (Exception, SystemExit):  # the first of its kind, or no name or version at all
            compiled = self._event(event, version)
        own, wrong = compiled.check.own(properties, context)
        if witness is not None:
            if wrong:
                witness.violated(wrong)
            if own is not None:
                witness.accepted(compiled.check.event, own)
        return None if own is None else self._framed(b'["event",', compiled, own, int(now))

    def trigger_record(self, trigger: Trigger, hasher: Hasher | None) -> bytes:
        """The journal record of one trigger, to be folded with others at import."""
        own = {
            "session_id": trigger.session_id,
            "name": bounded(trigger.name, 200),
            "outcome": trigger.outcome,
            "chain_depth": trigger.chain_depth,
            "runs_started": trigger.runs_started,
        }
        if hasher is not None:
            own["hash"] = hasher(trigger.name)
        compiled = self._compiled.get(("trigger_fired", None)) or self._event("trigger_fired")
        return self._framed(b'["trigger",', compiled, _encode({"trigger": own}), int(clock.wall()))

    def _framed(self, kind: bytes, compiled: _Compiled, own: bytes, now: int) -> bytes:
        second, begin = compiled.begin
        if now != second:
            begin = compiled.begin_at(now)
        return b"".join((kind, begin, self._ids.tail(), b'",' if len(own) > 2 else b'"', own[1:], b"]"))
