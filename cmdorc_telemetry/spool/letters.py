"""Dead letters: events that were rejected while they were alone, kept until a person sends or discards them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection

import msgspec

from ..types import DeadLetter
from .destinations import Destinations


class Letters(Destinations):
    """Lists dead letters, sends them again, discards them. What has been expired meanwhile is dropped as any event."""

    def dead_letters(self, destination: str | None = None) -> list[DeadLetter]:
        """What was set aside, for one destination or for all, in the order of its events."""
        found = self._ask(
            "SELECT destination, seq, at, spec, event, tries, reason, private "
            "FROM held JOIN event USING(seq) JOIN kind ON kind=id "
            "WHERE state='dead' AND destination=coalesce(?, destination) ORDER BY seq, destination",
            (destination,),
        )
        return [
            DeadLetter(destination=name, seq=seq, at=at, spec=spec, event=event, tries=tries, reason=reason,
                       event_id=_event_id(private))
            for name, seq, at, spec, event, tries, reason, private in found
        ]  # fmt: skip

    def resend(self, now: float, destination: str | None = None, seqs: Collection[int] | None = None) -> int:
        """Send dead letters again, at once: those of ``seqs``, or all. How many there are."""
        with self._write() as db:
            dead = self._dead(db, destination, seqs)
            query = "UPDATE held SET state='retry', next_try=? WHERE seq=? AND destination=?"
            db.executemany(query, [(now, *each) for each in dead])
        return len(dead)

    def discard(self, destination: str | None = None, seqs: Collection[int] | None = None) -> int:
        """Drop dead letters as ``discarded``: those of ``seqs``, or all. How many there were."""
        with self._write() as db:
            dead = self._dead(db, destination, seqs)
            db.executemany("DELETE FROM held WHERE seq=? AND destination=?", dead)
            for name, count in Counter(name for _, name in dead).items():
                self._drop(db, name, "discarded", count)
            self._trim(db)
        return len(dead)

    def _dead(
        self, db: sqlite3.Connection, destination: str | None, seqs: Collection[int] | None
    ) -> list[tuple[int, str]]:  # fmt: skip
        query = "SELECT seq, destination FROM held WHERE state='dead' AND destination=coalesce(?, destination)"
        found = db.execute(query, (destination,)).fetchall()
        return [(seq, name) for seq, name in found if seqs is None or seq in seqs]


class _Id(msgspec.Struct):
    event_id: str = ""


_id = msgspec.json.Decoder(_Id)


def _event_id(private: bytes) -> str:
    try:
        return _id.decode(private).event_id
    except msgspec.MsgspecError:
        return ""
