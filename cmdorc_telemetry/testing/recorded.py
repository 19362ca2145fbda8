"""What was recorded in a home: read where it lies, in journals and in the spool, without moving any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress

import msgspec

from ..decision import Decision
from ..gate import Gate
from ..home import Home
from ..identity import load_identity
from ..segment import parse, segments
from ..situation import Situation
from ..spec import Shapes, TelemetryRegistry
from ..spool import Spool
from ..types import Captured, Row
from .verdicts import Properties

_ALL = 1 << 30


class Recorded(Properties):
    """An event as it was recorded: a dictionary of its own properties, private ones included."""

    def __init__(self, row: Row, shared: bytes | None, withheld: str) -> None:
        super().__init__(row.event, row.spec, msgspec.json.decode(row.private))
        self.version = row.version
        """The major version of the event."""
        self.shared = None if shared is None else Properties(row.event, row.spec, msgspec.json.decode(shared))
        """What of it may leave the machine for somebody else, at most; None where nothing may."""
        self.withheld = withheld
        """Why nothing of it may leave: ``consent``, ``level``, ``undeclared``, ``sampling`` or ``invalid``; empty where
        something may."""


class Reader:
    """Reads the events of a home, as the gate would pass them on now. ``destination``: one that keeps all of them."""

    def __init__(self, environ: Mapping[str, str], registry: TelemetryRegistry, destination: str) -> None:
        self._environ, self._registry, self._destination = environ, registry, destination
        self._shapes = Shapes(list(registry))

    def __call__(self, home: Home) -> list[Recorded]:
        """All events, in the order in which each process recorded them."""
        situation = Situation.read(self._environ, application=home.application)
        decision = Decision(situation, self._registry, self._shapes)
        identity = load_identity(home)
        salt = b"" if identity is None else identity.salt
        gate = Gate(self._shapes, decision.level_of, hidden=decision.hidden, key=lambda: salt)
        waiting = list(_journalled(home, gate))  # first: what is imported meanwhile is then found in the spool
        stored = list(self._stored(home, gate))
        known = {each.base["event_id"] for each in stored}
        return stored + [each for each in waiting if each.base["event_id"] not in known]

    def _stored(self, home: Home, gate: Gate) -> Iterator[Recorded]:
        if home.spool.exists():
            with closing(Spool(home.spool, reading=True)) as spool:
                rows = spool.next(self._destination, _ALL)
            for row in rows:
                yield _recorded(row, gate)


def _journalled(home: Home, gate: Gate) -> Iterator[Recorded]:
    found = []
    for path in segments(home.journal):
        with suppress(OSError):  # imported this moment
            found.append((path.stat().st_mtime_ns, path.name, path.read_bytes()))
    for _, name, data in sorted(found):
        segment = parse(name, data, live=True)
        for row in gate.gate(segment.records, segment.generation, segment.source).rows:
            yield _recorded(row, gate)


def _recorded(row: Row, gate: Gate) -> Recorded:
    """The event of a row, and why nothing of it is shared where that is so: the gate counts reasons, not events."""
    if row.shared is not None:
        return Recorded(row, row.shared, "")
    frame = Captured("event", row.spec, row.event, row.version, row.at, msgspec.Raw(row.private))
    gated = gate.gate([msgspec.json.encode(frame)], row.generation, row.source)
    return Recorded(row, None, next(iter(gated.withheld), "consent"))
