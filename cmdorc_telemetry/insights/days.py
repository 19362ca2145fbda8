"""How the commands of this machine did day by day, in its own zone, for charts. Reads the history, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from .. import clock
from .runs import percentile, runs_since

_QUARTER = 900
"""Seconds: no zone is off by less, so all of them are the same day, weekday and hour."""
_LEAST = 14
"""Days that are shown, whenever the first run was."""


@dataclass(frozen=True)
class CommandDays:
    """The runs of one command. Durations are of those that came to an end of their own."""

    name: str
    succeeded: int
    failed: int
    cancelled: int
    """Those abandoned at shutdown included."""
    p50_ms: float | None
    p95_ms: float | None
    total_ms: float
    changes: int
    """How often a run ended otherwise than the one before it: between success and failure."""
    medians_ms: tuple[float | None, ...]
    """Of each day; None for one without such a run."""
    p95s_ms: tuple[float | None, ...]
    counts: tuple[int, ...]
    """Such runs of each day."""

    @property
    def runs(self) -> int:
        """All of them."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def ended(self) -> int:
        """Those that came to an end of their own."""
        return self.succeeded + self.failed


@dataclass(frozen=True)
class Days:
    """What happened on each of some days, the last one today."""

    dates: tuple[date, ...]
    outcomes: tuple[tuple[int, int, int], ...]
    """Of each day: runs that succeeded, failed, and were cancelled or abandoned."""
    hours: tuple[tuple[int, ...], ...]
    """Of each weekday, Monday first: the runs that ended in each hour."""
    commands: tuple[CommandDays, ...]
    """The most frequent first."""
    zone: str
    """The zone that days and hours are in, such as ``CET``."""

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(map(sum, self.outcomes))


@dataclass
class _Command:
    states: Counter[str] = field(default_factory=Counter)
    durations: dict[int, list[float]] = field(default_factory=dict)
    last: str = ""
    changes: int = 0


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
    commands: dict[str, _Command] = {}
    places: dict[int, tuple[int, int, int]] = {}
    for name, state, duration, at in found:
        quarter = at // _QUARTER
        if quarter not in places:
            when = clock.local(quarter * _QUARTER)
            places[quarter] = (when.date() - dates[0]).days, when.weekday(), when.hour
        day, weekday, hour = places[quarter]
        if not 0 <= day < days:
            continue
        outcomes[day][("success", "failed").index(state) if state in ("success", "failed") else 2] += 1
        hours[weekday][hour] += 1
        _add(commands.setdefault(name, _Command()), state, duration, day)
    summed = [_summed(name, command, days) for name, command in commands.items()]
    return Days(
        dates, tuple((each[0], each[1], each[2]) for each in outcomes), tuple(map(tuple, hours)),
        tuple(sorted(summed, key=lambda each: (-each.runs, each.name))), today.tzname() or "local time",
    )  # fmt: skip


def _add(command: _Command, state: str, duration: float | None, day: int) -> None:
    command.states[state] += 1
    if state not in ("success", "failed"):
        return
    command.changes += command.last not in ("", state)
    command.last = state
    if duration is not None:
        command.durations.setdefault(day, []).append(duration)


def _summed(name: str, command: _Command, days: int) -> CommandDays:
    states, by_day = command.states, [command.durations.get(day, []) for day in range(days)]
    every = [duration for durations in by_day for duration in durations]
    succeeded, failed = states["success"], states["failed"]
    return CommandDays(
        name=name, succeeded=succeeded, failed=failed, cancelled=states.total() - succeeded - failed,
        p50_ms=percentile(every, 50), p95_ms=percentile(every, 95), total_ms=sum(every), changes=command.changes,
        medians_ms=_each(by_day, 50), p95s_ms=_each(by_day, 95), counts=tuple(map(len, by_day)),
    )  # fmt: skip


def _each(by_day: Sequence[Sequence[float]], rank: int) -> tuple[float | None, ...]:
    return tuple(percentile(durations, rank) for durations in by_day)
