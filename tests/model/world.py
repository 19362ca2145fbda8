"""What lies on the disk of a home directory, read without the code that wrote it, as far as that can be."""

from __future__ import annotations

import json
import re
import sqlite3
import zlib
from dataclasses import dataclass, field

from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import DROP_REASONS, Ledger

_ID = re.compile(rb'"event_id":"([0-9a-f-]{36})"')
_LEVEL = re.compile(rb'"level":"([a-z]+)"')
_HALF, _HEADER = 256, 512


def event_id(record: bytes) -> str:
    found = _ID.search(record)
    assert found is not None
    return found[1].decode()


@dataclass
class World:
    """One look."""

    waiting: dict[str, str] = field(default_factory=dict)
    """Events in journals, not yet imported, and the generation of their segments."""
    told: dict[str, int] = field(default_factory=dict)
    """Segment → the losses that its header tells of."""
    stored: set[str] = field(default_factory=set)
    """Events that are rows of the spool."""
    shared: dict[str, str] = field(default_factory=dict)
    """Of those, the ones that have a shared body, and the level it is of."""
    ledgers: dict[str, Ledger] = field(default_factory=dict)


class Observer:
    """Looks at a home directory between any two calls of those that work in it; holds no lock."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._spool: Spool | None = None
        self._db: sqlite3.Connection | None = None
        self._ids: dict[int, str] = {}

    def close(self) -> None:
        for each in (self._spool, self._db):
            if each is not None:
                each.close()
        self._spool = self._db = None

    @property
    def epoch(self) -> str:
        """Which spool it is; empty where there is none."""
        return self._spool.epoch if self._spool is not None else ""

    def _ready(self) -> bool:
        """Whether there is a spool. The one that is opened first keeps its WAL, so that it can be read at any time."""
        if self._db is None:
            if not self.home.spool.exists():
                return False
            db = sqlite3.connect(self.home.spool, timeout=0, isolation_level=None)
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                db.close()
                return False
            self._db, self._spool = db, Spool(self.home.spool, reading=True)
        return True

    def look(self) -> World:
        world = World()
        if self._ready():
            assert self._spool is not None
            world.ledgers = self._spool.ledger()
            world.stored = self._stored()
            world.shared = self._shared(world.stored)
        self._journals(world)
        return world

    def _stored(self) -> set[str]:
        assert self._db is not None
        there = {seq for (seq,) in self._db.execute("SELECT seq FROM event")}
        new = there - self._ids.keys()
        for seq in new:
            ((body,),) = self._db.execute("SELECT private FROM event WHERE seq=?", (seq,))
            self._ids[seq] = event_id(body)
        rows = [self._ids[seq] for seq in there]
        assert len(set(rows)) == len(rows), "an event has two rows"
        return set(rows)

    def _shared(self, stored: set[str]) -> dict[str, str]:
        assert self._db is not None
        rows = self._db.execute("SELECT seq, shared FROM event WHERE shared IS NOT NULL").fetchall()
        levels = {self._ids[seq]: _LEVEL.search(body) for seq, body in rows}
        return {event: found[1].decode() for event, found in levels.items() if found is not None and event in stored}

    def _journals(self, world: World) -> None:
        try:
            paths = sorted(path for path in self.home.journal.iterdir() if path.suffix == ".seg")
        except FileNotFoundError:
            return
        for path in paths:
            offset = self._spool.offset(path.name) if self._spool is not None else 0
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            world.told[path.name] = sum(json.loads(data[_HALF:_HEADER]).get(reason, 0) for reason in DROP_REASONS)
            if offset is None:
                continue
            generation = json.loads(data[data.index(b"{") : _HALF])["generation"].partition("/")[0]
            for line in data[max(offset, _HEADER) :].split(b"\n"):
                if line[:8] == b"%08x" % zlib.crc32(line[9:]) and len(line) > 9:
                    event = event_id(line)
                    assert event not in world.waiting, "an event lies in two journals"
                    world.waiting[event] = generation
