"""How the commands of this machine did day by day, in its own zone, for charts. Reads the history, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from .. import clock
from .runs import ENDED, CommandRuns, Tally, runs_since

_QUARTER = 900
"""Seconds: no zone is off by less, so all of them are the same day, weekday and hour."""
_LEAST = 14
"""Days that are shown, whenever the first run was."""


@dataclass(frozen=True)
class Days:
    """What happened on each of some days, the last one today."""

    dates: tuple[date, ...]
    outcomes: tuple[tuple[int, int, int], ...]
    """Of each day: runs that succeeded, failed, and were cancelled or abandoned."""
    hours: tuple[tuple[int, ...], ...]
    """Of each weekday, Monday first: the runs that ended in each hour."""
    commands: tuple[CommandRuns, ...]
    """The most frequent first."""
    zone: str
    """The zone that days and hours are in, such as ``CET``."""

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(map(sum, self.outcomes))


def command_days(history: Path, *, now: float, days: int) -> Days:
    """What ran in the last ``days`` calendar days, today included; nothing where there is no history.

    Days before the first run are left out, but for the last two weeks. Raises StorageError where it cannot be read.
    """
    today = clock.local(now)
    found = runs_since(history, now - (days + 1) * 86_400) if history.exists() else []
    since = (today.date() - clock.local(found[0][3]).date()).days + 1 if found else 0
    days = min(days, max(since, _LEAST))
    dates = tuple(today.date() - timedelta(days=days - 1 - number) for number in range(days))
    outcomes = [[0, 0, 0] for _ in dates]
    hours = [[0] * 24 for _ in range(7)]
    tally = Tally(days)
    places: dict[int, tuple[int, int, int]] = {}
    for name, state, duration, at in found:
        quarter = at // _QUARTER
        if quarter not in places:
            when = clock.local(quarter * _QUARTER)
            places[quarter] = (when.date() - dates[0]).days, when.weekday(), when.hour
        day, weekday, hour = places[quarter]
        if not 0 <= day < days:
            continue
        outcomes[day][ENDED.index(state) if state in ENDED else 2] += 1
        hours[weekday][hour] += 1
        tally.add(name, state, duration, day)
    return Days(
        dates, tuple((each[0], each[1], each[2]) for each in outcomes), tuple(map(tuple, hours)),
        tuple(tally.commands()), today.tzname() or "local time",
    )  # fmt: skip
