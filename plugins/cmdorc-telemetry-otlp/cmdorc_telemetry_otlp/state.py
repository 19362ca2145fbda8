"""What one destination counted and was acknowledged, on disk: of all its senders, one after the other.

The counts are the core's. What is remembered beside them: which signals of an event arrived, as its marks, for what
comes again because one of them could not be sent; and since when and until when the series are told.

Only those series are told that the events of a batch add to, as they are let out then. Where events were counted while
the receiver could not be reached, and do not come again, all series begin anew: of what may no longer be sent nobody
hears.
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
_AHEAD = 3600 * _SECOND
"""What was told as of later than this from now was told while the clock was wrong: no point has to be later still."""
_BEGUN, _TOLD = "begun ", "told "
"""What these are remembered as, before the source."""


class Period(NamedTuple):
    """Since when, and until when, what one source counted is told, in nanoseconds since the epoch.

    Each source has its own: by what two have in common a receiver would know that they are one.
    """

    begun: int
    """Before its first event was."""
    told: int
    """Later than whenever it was told before, and not in the future."""


class Draft(NamedTuple):
    """What counting some events would make of the state; nothing is written yet."""

    counted: counts.Draft[Tally]
    periods: Mapping[str, Period]
    """Source → what its series are told of."""
    families: Mapping[str, Family]
    samples: Mapping[Sample, float]
    """All series to which those of the events add that were not told by metrics yet."""

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

    def draft(self, events: Sequence[Facts], catalogue: Catalogue | None, now: float, metrics: int) -> Draft:
        """What is to be counted and sent for ``events``. Writes nothing. ``catalogue``: None where nothing is counted.

        ``metrics``: the mark of events that were told by metrics. Raises sqlite3.Error, StorageError.
        """

        def read(db: sqlite3.Connection) -> Draft:
            told_by = metrics if catalogue is not None else 0
            counted = self.counts.drafted(db, events, partial(Tally, catalogue), now, told_by)
            again = Tally(catalogue, counted.room.place)
            for event in events:
                if not counted.marks.get(event.event_id, metrics) & metrics:
                    again.count(event)
            families = counts.families(db)
            moments: dict[str, list[int]] = {}
            for event in events:
                moments.setdefault(event.source, []).append(event.seconds * _SECOND)
            return Draft(
                counted=counted,
                periods={source: _period(counted, source, found) for source, found in moments.items()},
                families={**families, **counted.tally.families},
                samples=_merged(db, counted, again, families),
            )

        return self.counts.reading(read)

    def commit(self, draft: Draft) -> None:
        """Count what a draft counts. Raises RetryLater where the state is not any more as it was drafted from.

        Also sqlite3.Error, OSError, StorageError.
        """
        notes: dict[str, int] = {}
        for source, (begun, told) in draft.periods.items():
            notes |= {_BEGUN + source: begun, _TOLD + source: told}
        self.counts.commit(draft.counted, notes)

    def arrived(self, event_ids: Iterable[str], signal: int) -> None:
        """A signal of these events has arrived. Raises sqlite3.Error."""
        self.counts.mark(event_ids, signal)


def _period(counted: counts.Draft[Tally], source: str, moments: Sequence[int]) -> Period:
    """``moments``: of the events of that source; 0 where one does not say."""
    present, last = int(counted.now * _SECOND), counted.notes.get(_TOLD + source, 0)
    if last > present + _AHEAD:
        last = 0
    told = max([last + _STEP, *(min(each, present) for each in moments)])
    first = min(filter(None, moments), default=_SECOND) - _SECOND
    begun = last or first if counted.anew else counted.notes.get(_BEGUN + source, first)
    return Period(min(begun, told - _STEP), told)


def _merged(
    db: sqlite3.Connection, counted: counts.Draft[Tally], again: Tally, families: Mapping[str, Family]
) -> dict[Sample, float]:
    """The whole series to which what is ``counted`` adds, and those to which ``again`` has added before."""
    tally = counted.tally
    told = {sample[:3] for each in (tally, again) for sample in (*each.added, *each.latest)}
    anew = {name for name, new in tally.families.items() if families.get(name, new).measure != new.measure}
    found: dict[Sample, float] = {}
    later: set[Sample] = set()
    for key in told:
        if key[1] not in anew and not counted.anew:
            where = "source = ? AND metric = ? AND labels = ?"
            for part, value, at in db.execute(f"SELECT part, value, at FROM sample WHERE {where}", key):
                sample = Sample(key[0], key[1], key[2], part)
                found[sample] = value
                if min(tally.latest.get(sample, (0, inf))[1], counted.now) < at <= counted.now:
                    later.add(sample)
    for sample, value in tally.added.items():
        found[sample] = found.get(sample, 0.0) + value
    found.update({sample: value for sample, (value, _) in tally.latest.items() if sample not in later})
    return found
