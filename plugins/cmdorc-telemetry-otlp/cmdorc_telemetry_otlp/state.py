"""What one destination counted and was acknowledged, on disk: of all its senders, one after the other.

The counts are the core's. What is remembered beside them: which signals of an event arrived, as its marks, for what
comes again because one of them could not be sent; since when and until when the series are told; and which of them
were taken, by how many events were counted then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple

from cmdorc_telemetry.spec.instruments import Family
from cmdorc_telemetry.tally import Sample, counts
from cmdorc_telemetry.tally.counts import Counts

from .fields import Facts
from .metrics import Catalogue
from .tally import Tally

_SECOND, _STEP = 10**9, 10**6
"""In nanoseconds: what event times are told in, and how far apart two tellings are at least."""
_BEGUN, _TOLD, _TAKEN = "begun", "told", "taken"


class Draft(NamedTuple):
    """What counting some events would make of the state; nothing is written yet."""

    counted: counts.Draft[Tally]
    begun: int
    """Nanoseconds since the epoch: before the first event was."""
    told: int
    """Likewise: as of when the series are told. Later than whenever they were told before."""
    families: Mapping[str, Family]
    samples: Mapping[Sample, float]
    """All series that changed since they were last taken, with what is added now."""

    @property
    def arrived(self) -> Mapping[str, int]:
        """Event id → the signals of it that have arrived, of those that were counted before."""
        return self.counted.marks


class State:
    """The file."""

    def __init__(self, path: Path, most_values: int = 100) -> None:
        """``most_values``: how many values an attribute has that are not declared; others become ``other``."""
        self.counts = Counts(path, most_values)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.counts.path

    def draft(self, events: Sequence[Facts], catalogue: Catalogue | None, now: float) -> Draft:
        """What is to be counted and sent for ``events``. Writes nothing. ``catalogue``: None where nothing is counted.

        Raises sqlite3.Error, StorageError.
        """

        def read(db: sqlite3.Connection) -> Draft:
            counted = self.counts.drafted(db, events, partial(Tally, catalogue), now)
            families = counts.families(db)
            first = min((facts.seconds for facts in events if facts.seconds), default=1)
            begun = counted.notes.get(_BEGUN, (first - 1) * _SECOND)
            last = counted.notes.get(_TOLD, begun) + _STEP
            return Draft(
                counted=counted,
                begun=begun,
                told=max([last, *(facts.seconds * _SECOND for facts in events)]),
                families={**families, **counted.tally.families},
                samples=_merged(db, counted, families),
            )

        return self.counts.reading(read)

    def commit(self, draft: Draft) -> None:
        """Count what a draft counts. Raises RetryLater where the state is not any more as it was drafted from.

        Also sqlite3.Error, OSError, StorageError.
        """
        self.counts.commit(draft.counted, {_BEGUN: draft.begun, _TOLD: draft.told})

    def arrived(self, event_ids: Iterable[str], signal: int) -> None:
        """A signal of these events has arrived. Raises sqlite3.Error."""
        self.counts.mark(event_ids, signal)

    def metrics_arrived(self, draft: Draft) -> None:
        """The series of a draft have arrived. Raises sqlite3.Error."""
        self.counts.note(_TAKEN, draft.counted.number)


def _merged(
    db: sqlite3.Connection, counted: counts.Draft[Tally], families: Mapping[str, Family]
) -> dict[Sample, float]:
    """The whole series of all that changed, or changes now."""
    tally, taken = counted.tally, counted.notes.get(_TAKEN, 0)
    changed = {*db.execute("SELECT DISTINCT source, metric, labels FROM sample WHERE changed > ?", (taken,)),
               *(sample[:3] for sample in (*tally.added, *tally.latest))}  # fmt: skip
    anew = {name for name, new in tally.families.items() if families.get(name, new).measure != new.measure}
    found: dict[Sample, float] = {}
    later: set[Sample] = set()
    for key in changed:
        if key[1] not in anew:
            where = "source = ? AND metric = ? AND labels = ?"
            for part, value, at in db.execute(f"SELECT part, value, at FROM sample WHERE {where}", key):
                sample = Sample(key[0], key[1], key[2], part)
                found[sample] = value
                if at > tally.latest.get(sample, (0, inf))[1]:
                    later.add(sample)
    for sample, value in tally.added.items():
        found[sample] = found.get(sample, 0.0) + value
    found.update({sample: value for sample, (value, _) in tally.latest.items() if sample not in later})
    return found
