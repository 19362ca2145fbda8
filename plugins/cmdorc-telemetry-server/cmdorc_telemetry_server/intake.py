"""One line → an event that may be stored, or the reason why not: decided by the specs alone. Pure."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from cmdorc_telemetry.spec import (
    EVERYTHING,
    LEVELS,
    Body,
    Event,
    Level,
    Rule,
    TelemetryRegistry,
    Wishes,
    wire_shape,
)

from .store import Record

_CORE_SPEC, _TIMED_EVENT = "cmdorc.core", "command_completed"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DAY = 86_400
_MOST_DETAIL = 200
_NO_WISHES = Wishes()


class Refusal(Struct, frozen=True):
    """Why an event is not stored, for good."""

    event_id: str
    """Empty where the line does not say it."""
    reason: str
    """``unreadable``, ``unknown-spec``, ``unknown-event``, ``invalid`` or ``unwanted``."""
    detail: str


class _Head(Struct):
    event: str
    spec: str = f"{_CORE_SPEC}@1"
    level: Level = "minimal"


class _Kind(Struct):
    """What is known of one event at one level."""

    decoder: msgspec.json.Decoder[Any]
    timed: bool
    """Whether its duration counts for the percentile."""
    level: Level | None
    """The level that it is stored with; None, with private properties, for what it says itself."""
    event: Event
    wanted: Rule
    """What the operator wants of it at most."""


class Intake:
    """Judges events by the specs of ``registry``. With ``accept_private``, private properties are accepted.

    ``wishes``: what the operator wants less of. It is not stored, whether or not the client knew.
    """

    def __init__(self, registry: TelemetryRegistry, *, accept_private: bool, wishes: Wishes = _NO_WISHES) -> None:
        self._specs = {spec.ref: spec for spec in registry}
        self._kinds: dict[tuple[str, str, Level], list[_Kind]] = {}
        """Of an event each version, the latest first: a body does not say which one it is of."""
        for spec in registry:
            timed = spec.meta.name == _CORE_SPEC
            for event in sorted(spec.events, key=lambda event: event.major, reverse=True):
                for level in LEVELS:
                    if accept_private or event.shared_at(level):
                        kept = None if accept_private else level
                        decoder = msgspec.json.Decoder(wire_shape(event, kept))
                        self._kinds.setdefault((spec.ref, event.name, level), []).append(
                            _Kind(decoder, timed and event.name == _TIMED_EVENT, kept, event, wishes.of(event.name))
                        )

    def judge(self, line: bytes, now: float) -> Record | Refusal:
        """The event in ``line``, received ``now`` (seconds since the epoch). Never raises, whatever the line."""
        try:
            head = _HEAD.decode(line)
            kinds = self._kinds.get((head.spec, head.event, head.level))
            if kinds is None:
                return _refusal(line, *self._why_unknown(head))
            refusals = []
            for kind in kinds:
                try:
                    return _record(kind, kind.decoder.decode(line), head, int(now))
                except msgspec.ValidationError as fault:
                    refusals.append(_refusal(line, "invalid", str(fault)))
            return refusals[0]
        except msgspec.ValidationError as fault:
            return _refusal(line, "invalid", str(fault))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as fault:
            return Refusal("", "unreadable", f"the line is no JSON object: {fault}"[:_MOST_DETAIL])

    def _why_unknown(self, head: _Head) -> tuple[str, str]:
        spec = self._specs.get(head.spec)
        if spec is None:
            return "unknown-spec", f"{head.spec!r} is not known here; expected one of {', '.join(sorted(self._specs))}"
        if spec.event(head.event) is None:
            return "unknown-event", f"{head.spec} has no event {head.event!r}"
        return "invalid", f"{head.event} is not shared at level {head.level}"


_HEAD = msgspec.json.Decoder(_Head)
_ANY = msgspec.json.Decoder(dict[str, Any])


def _record(kind: _Kind, body: Body, head: _Head, now: int) -> Record | Refusal:
    fields: Any = body
    try:
        then = datetime.fromisoformat(fields.timestamp.removesuffix("Z") + "+00:00").timestamp()
    except ValueError:
        raise msgspec.ValidationError(f"Expected a moment, got {fields.timestamp!r} - at `$.timestamp`") from None
    if fields.event_id is UNSET:  # the same event sent again has the same digest
        digest = hashlib.sha256(msgspec.json.encode(body)).digest()
        fields.event_id = str(uuid.UUID(bytes=_version_8(digest[:16])))
    fields.spec, fields.level = head.spec, kind.level or fields.level
    # Written anew from the decoded fields: a duplicate key or white space could carry anything.
    stored = kind.wanted.narrow(kind.event, msgspec.json.encode(body))
    if stored is None:
        return Refusal(fields.event_id, "unwanted", "the operator of this server asks for less: see /policy")
    if kind.wanted != EVERYTHING:
        fields = kind.decoder.decode(stored)
    return Record(
        event_id=fields.event_id,
        install=fields.anonymous_install_id,
        spec=head.spec,
        event=head.event,
        received=now,
        body=stored,
        day=int(min(then, now) // _DAY),
        duration_ms=_duration(fields) if kind.timed else None,
    )


def _duration(fields: Any) -> int | None:
    """The duration of a successful run. Any property may be absent: its sender withheld it."""
    return fields.duration_ms if fields.state == "success" and fields.duration_ms is not UNSET else None


def _version_8(digest: bytes) -> bytes:
    """A digest as the bytes of a UUID that says of itself that it is none of the other kinds."""
    marked = bytearray(digest)
    marked[6] = marked[6] & 0x0F | 0x80
    marked[8] = marked[8] & 0x3F | 0x80
    return bytes(marked)


def _refusal(line: bytes, reason: str, detail: str) -> Refusal:
    try:
        event_id = _ANY.decode(line).get("event_id")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        event_id = None
    known = isinstance(event_id, str) and _UUID.fullmatch(event_id)
    return Refusal(str(event_id) if known else "", reason, detail[:_MOST_DETAIL])
