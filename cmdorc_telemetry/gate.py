"""The last word on what may be shared. Runs once per event, at import; pure, but for the anonymizers it is given.

Makes two bodies of a record: ``private``, every captured field, and ``shared``, what the widest shared
destination may get, or None. Default deny: what is not declared, consented and valid is not in ``shared``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from .errors import PluginError
from .spec import BASE, Body, Level, Sampler, Shapes, sampled
from .types import Captured, Event, Gated, Row


class _EventBody(msgspec.Struct):
    event_id: str
    timestamp: str


class _Trigger(msgspec.Struct):
    session_id: str
    name: str
    outcome: str
    chain_depth: int
    runs_started: int
    hash: str = ""


class _TriggerBody(_EventBody):
    trigger: _Trigger


LevelOf = Callable[[str, str], Level | None]
"""(generation, spec name) → the level at which such an event may be shared; None for not at all."""
Hidden = Callable[[str, str, str], frozenset[str]]
"""(spec, event, generation) → the fields that nobody agreed to, now or when such an event was recorded."""
Anonymizer = Callable[[Event], Mapping[str, Any]]
_FIXED = frozenset({"event", "spec", "level", "sampling_rate"})
"""What says what kind of event it is, and how it was shared: no anonymizer's business. The id is: its time has to be
generalised together with the timestamp."""
_NEEDED = ("event", "event_id", "spec", "level", "anonymous_install_id", "timestamp")
"""Without these nobody could do anything with a body."""
_MINUTE = 60
_MOST = 1 << 53

_encode = msgspec.json.Encoder().encode
_captured = msgspec.json.Decoder(Captured)
_event = msgspec.json.Decoder(_EventBody)
_trigger = msgspec.json.Decoder(_TriggerBody)


class _Withheld(Exception):
    """Why an event has no shared body."""


class _Way(NamedTuple):
    """What becomes of all events of one kind."""

    withheld: str
    """Why none of them is shared; empty where they are."""
    level: Level = "minimal"
    shape: type[Body] = Body
    read: Callable[[bytes], Any] = bytes
    sampler: Sampler | None = None
    """Which of them are shared; None for all."""


def _is_event(body: bytes) -> bool:
    """Whether it has what every private body must have."""
    try:
        _event.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


class Gate:
    """Turns journal records into rows."""

    def __init__(
        self,
        shapes: Shapes,
        level_of: LevelOf,
        *,
        hidden: Hidden = lambda spec, event, generation: frozenset(),
        anonymizers: Mapping[str, Anonymizer] = {},
        complain: Callable[[str, str], None] = lambda name, what: None,
        blocked: str | None = None,
        key: Callable[[], bytes] = bytes,
    ) -> None:
        """``anonymizers`` run in their order, by their plugins' names; ``complain`` is told what one does wrong.

        ``key`` gives what is this machine's own: what is sampled by a value is drawn with it.
        """
        self._shapes, self._level_of, self._hidden = shapes, level_of, hidden
        self._anonymizers, self._complain = anonymizers, complain
        self._key = key
        self._blocked = blocked
        """Why nothing at all may be shared, such as an enabled anonymizer that could not be loaded."""

    def gate(self, records: Iterable[bytes], generation: str, source: str) -> Gated:
        """The rows that ``records`` of one segment become, triggers folded per session and minute."""
        rows: list[Row] = []
        withheld: Counter[str] = Counter()
        ways: dict[tuple[str, str, int], _Way] = {}
        captured, unreadable = self._read(records)
        for each in captured:
            kind = (each.spec, each.event, each.version)
            way = ways.get(kind)
            if way is None:
                way = ways[kind] = self._way(*kind, generation)
            body = bytes(each.body)
            taken: dict[str, str] = {}
            try:
                shared = self._share(each, way, body, taken)
            except _Withheld as reason:
                # Without these, no destination of anybody could tell events apart, or when they were.
                if not _is_event(body):
                    unreadable += 1
                    continue
                withheld[str(reason)] += 1
                shared = None
                taken = {}
            declared = self._shapes.event(*kind)
            rows.append(
                Row(spec=each.spec, event=each.event, version=each.version, at=each.at, generation=generation,
                    source=source, rank=declared[1].rank if declared else 0,
                    private=body, shared=shared, withheld=taken)
            )  # fmt: skip
        return Gated(rows=tuple(rows), withheld=dict(withheld), unreadable=unreadable)

    def _read(self, records: Iterable[bytes]) -> tuple[list[Captured], int]:
        """The events among ``records``, triggers folded, and how many of them are no events at all."""
        captured: list[Captured] = []
        unreadable = 0
        for record in records:
            try:
                record.decode()  # msgspec leaves the inside of the body as it is
                each = _captured.decode(record)
                if each.kind == "trigger":
                    _trigger.decode(each.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                unreadable += 1
                continue
            if 0 <= each.at < _MOST and 0 <= each.version < _MOST:
                captured.append(each)
            else:
                unreadable += 1
        return fold(captured), unreadable

    def _way(self, spec: str, event: str, version: int, generation: str) -> _Way:
        """What is the same for all events of a kind that were recorded under one generation."""
        if self._blocked is not None:
            return _Way("plugin-not-loaded")
        level = self._level_of(generation, spec.partition("@")[0])
        if level is None:
            return _Way("consent")
        if self._shapes.event(spec, event, version) is None:  # it expired, or whoever imports it knows of no such spec
            return _Way("undeclared")
        hidden = self._hidden(spec, self._shapes.label(spec, event, version), generation)
        shape = self._shapes.shared(spec, event, level, hidden, version)
        read = self._shapes.reader(spec, event, level, hidden, version)
        if shape is None or read is None:
            return _Way("level")
        if not hidden.isdisjoint((*_NEEDED, "sampling_rate")):
            return _Way("consent")
        return _Way("", level, shape, read, self._shapes.sampler(spec, event, version))

    def _share(self, record: Captured, way: _Way, raw: bytes, taken: dict[str, str]) -> bytes:
        """The shared body; ``taken`` gets the fields that it lacks because of an anonymizer, with its name."""
        if way.withheld:
            raise _Withheld(way.withheld)
        try:
            body = way.read(raw)
        except (msgspec.MsgspecError, RecursionError):
            raise _Withheld("invalid") from None
        body.level = way.level
        sampler = way.sampler
        subject = sampler.subject(raw, body.event_id, self._key()) if sampler is not None else ""
        late = sampler is not None and sampler.asks
        if sampler is not None and not late:
            _draw(sampler.rate, subject)
            body.sampling_rate = sampler.rate
        if not (self._anonymizers or late):
            return _encode(body)
        fields: dict[str, Any] = msgspec.to_builtins(body)
        self._anonymize(record, fields, way.shape, taken)
        if sampler is not None and late:  # after the anonymizers: it depends on what is told, and on nothing else
            share = _draw(sampler.share(fields), subject)
            if share < 1:
                fields["sampling_rate"] = share
        return _encode(fields)

    def preview(
        self, spec: str, event: str, version: int, level: Level, body: Mapping[str, Any]
    ) -> tuple[bytes, dict[str, str]]:
        """What would be shared at ``level`` of a sample, and the fields that an anonymizer takes out, with its name.

        Its install id is of zeros, nobody's: by that an anonymizer knows that it counts nowhere. Raises PluginError
        where nothing of such an event would be shared, msgspec.ValidationError for what its spec does not allow.
        """
        if self._blocked is not None:
            raise PluginError(self._blocked)
        shape = self._shapes.shared(spec, event, level, version=version)
        if shape is None:
            raise PluginError("it has expired")
        fields: dict[str, Any] = msgspec.to_builtins(msgspec.convert(body, shape))
        taken: dict[str, str] = {}
        try:
            self._anonymize(Captured("event", spec, event, version, 0, msgspec.Raw(b"")), fields, shape, taken)
        except _Withheld as reason:
            raise PluginError(f"{str(reason).partition(':')[2]}, which anonymizes, holds it back") from None
        return _encode(fields), taken

    def _anonymize(
        self, record: Captured, fields: dict[str, Any], shape: type[Body], taken: dict[str, str]
    ) -> None:  # fmt: skip
        """Let the anonymizers change ``fields``."""
        for name, anonymize in self._anonymizers.items():
            try:
                lost = self._anonymized(record, fields, shape, name, anonymize)
            except Exception:  # the anonymizer, or the mapping it returned: code of somebody else
                raise _Withheld(f"anonymizer:{name}") from None
            taken.update(dict.fromkeys(lost, name))
            if not taken.keys().isdisjoint(_NEEDED) or fields.keys() <= BASE.keys():
                raise _Withheld(f"anonymizer:{name}")

    def _anonymized(
        self, record: Captured, fields: dict[str, Any], shape: type[Body], name: str, anonymize: Anonymizer
    ) -> list[str]:  # fmt: skip
        """Let one anonymizer change ``fields``. Those it removed, or gave a value that the spec does not allow."""
        event = Event(spec=record.spec, name=record.event, fields=MappingProxyType(dict(fields)))
        lost = []
        for key, value in dict(anonymize(event)).items():
            if key not in fields or key in _FIXED:
                if value is not None or key in fields:
                    self._complain(name, f"returned {key!r}, which is not its to set: that is ignored")
                continue
            valid = None if value is None else _valid(shape, key, value)
            if valid is None:
                lost.append(key)
                del fields[key]
                if value is not None:
                    self._complain(name, f"gave {key!r} a value that its spec does not allow: the field is withheld")
            else:
                fields[key] = valid
        return lost


def _draw(share: float | None, subject: str) -> float:
    """The share that an event is among. Raises _Withheld where it is among none."""
    if share is None or not sampled(subject, share):
        raise _Withheld("sampling")
    return share


def _valid(shape: type[Body], name: str, value: object) -> Any:
    """``value`` as a field of that shape holds it; None where it does not."""
    try:
        checked = msgspec.json.decode(_encode({name: value}), type=shape)
    except Exception:  # wrong, or nothing that JSON could hold: it may be any object
        return None
    return msgspec.to_builtins(checked).get(name)


class _Fold:
    """Triggers of one session and minute, added up."""

    def __init__(self, first: Captured, base: dict[str, Any]) -> None:
        self.first, self.base = first, base
        self.names: dict[str, None] = {}
        self.hashes: dict[str, None] = {}
        self.count = self.runs = self.cycles = self.depth = 0

    def add(self, trigger: dict[str, Any]) -> None:
        self.count += 1
        self.runs += trigger["runs_started"]
        self.cycles += trigger["outcome"] == "cycle"
        self.depth = max(self.depth, trigger["chain_depth"])
        self.names[trigger["name"][:200]] = None
        if "hash" in trigger:
            self.hashes[trigger["hash"]] = None

    def captured(self) -> Captured:
        body = {
            **self.base,
            "trigger_count": self.count,
            "distinct_triggers": len(self.names),
            "runs_started": self.runs,
            "cycles": self.cycles,
            "max_chain_depth": self.depth,
            "window_s": _MINUTE,
            "trigger_names": list(self.names)[:50],
        }
        if self.hashes:
            body["hashed_trigger_patterns"] = list(self.hashes)[:50]
        first = self.first
        return Captured("event", first.spec, first.event, first.version, first.at, msgspec.Raw(_encode(body)))


def fold(records: Iterable[Captured]) -> list[Captured]:
    """``records`` with the triggers of each session and minute added up into one event; sums stay exact. Pure.

    The event takes over the base fields, the id among them, of its first trigger.
    """
    events: list[Captured] = []
    folds: dict[tuple[str, int], _Fold] = {}
    for record in records:
        if record.kind == "event":
            events.append(record)
            continue
        base = msgspec.json.decode(record.body)
        trigger = base.pop("trigger")
        key = (trigger["session_id"], record.at // _MINUTE)
        if key not in folds:
            folds[key] = _Fold(record, base)
        folds[key].add(trigger)
    return events + [each.captured() for each in folds.values()]
