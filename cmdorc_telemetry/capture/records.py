"""An event of a spec → checked fields → one journal record.

Writes every declared field with a valid value, private ones included, whatever the level: the gate decides
what may be shared.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from .. import clock
from ..forks import on_fork
from ..spec import BASE, MASK, TelemetrySpec, coerce, masked_names, own_shape
from ..types import Trigger
from .fields import Hasher, bounded

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


def flattened(properties: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """``properties`` with the parts of their tables that ``paths``, such as ``balance.amount``, name. Pure."""
    flat = {name: value for name, value in properties.items()
            if not (isinstance(value, Mapping) and any(path.startswith(f"{name}.") for path in paths))}  # fmt: skip
    for path in paths:
        value: Any = properties
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is not None:
            flat.setdefault(path, value)
    return flat


class _Compiled:
    """What capture needs to know of one event, made once; and the begin of its records, made once a second."""

    def __init__(self, spec: TelemetrySpec, name: str, base: Mapping[str, str]) -> None:
        event = spec.event(name)
        assert event is not None
        self.properties = event.properties
        self.shape = own_shape(event)
        self.masked = masked_names(event)
        self.paths = frozenset(name for name in event.properties if "." in name)
        """Properties that stand for a part of a value."""
        self._head = f'"{spec.ref}","{name}",{event.major},'.encode()
        self._base = _encode({"event": name, **base, "spec": spec.ref})[:-1]
        self.begin: tuple[int, bytes] = (-1, b"")

    def prepared(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """``properties`` with the declared parts of values taken out, and masks for what is not to be seen."""
        flat = flattened(properties, self.paths) if self.paths else dict(properties)
        for name in self.masked & flat.keys():
            if flat[name] is not None:
                flat[name] = MASK
        return flat

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

    def __init__(
        self,
        specs: Iterable[TelemetrySpec],
        base: Mapping[str, str],
        *,
        on_violation: Callable[[str, str, str], None] | None = None,
    ) -> None:
        base = _valid_base(base)
        self._specs = {event.name: spec for spec in specs for event in spec.events}
        self._compiled: dict[str, _Compiled] = {}
        self._base = base
        self._on_violation = on_violation
        self._ids = EventIds()

    def __contains__(self, event: str) -> bool:
        return event in self._specs

    def _event(self, name: str) -> _Compiled:
        compiled = self._compiled.get(name)
        if compiled is None:  # most programs record few kinds of events
            compiled = self._compiled[name] = _Compiled(self._specs[name], name, self._base)
        return compiled

    def record(self, event: str, properties: Mapping[str, Any]) -> bytes:
        """The journal record of an event. Fields that are undeclared or invalid are left out and reported.

        Raises KeyError for an event that no spec declares.
        """
        compiled = self._event(event)
        if compiled.masked or compiled.paths:
            properties = compiled.prepared(properties)
        try:
            own = _encode(msgspec.convert(properties, compiled.shape))
        except (ValueError, TypeError):  # some of it is not valid, or nothing that JSON could hold
            own = _encode(self._valid(event, compiled, properties))
        if self._on_violation is not None and not properties.keys() <= compiled.properties.keys():
            for name in properties.keys() - compiled.properties.keys():
                self._on_violation(event, name, "undeclared")
        return self._framed(b'["event",', compiled, own)

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
        return self._framed(b'["trigger",', self._event("trigger_fired"), _encode({"trigger": own}))

    def _framed(self, kind: bytes, compiled: _Compiled, own: bytes) -> bytes:
        now = int(clock.wall())
        second, begin = compiled.begin
        if now != second:
            begin = compiled.begin_at(now)
        return b"".join((kind, begin, self._ids.tail(), b'",' if len(own) > 2 else b'"', own[1:], b"]"))

    def _valid(self, event: str, compiled: _Compiled, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The properties that can be made valid, one by one."""
        valid: dict[str, Any] = {}
        for name, value in properties.items():
            if name not in compiled.properties or compiled.properties[name].type == "json":
                continue
            if value == MASK and name in compiled.masked:
                valid[name] = MASK
                continue
            try:
                coerced = coerce(compiled.properties[name], value)
                _encode(coerced)
                valid[name] = coerced
            except Exception:  # a value may be any object, and raise anything
                if self._on_violation is not None:
                    self._on_violation(event, name, "invalid")
        return valid
