"""How the commands of this machine did: counts, percentiles, a value a day. Reads the history, writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from .. import files
from ..errors import StorageError, newer
from ..history import SCHEMA_VERSION, SECOND

_DAY = 86_400
_RUNS = """
SELECT command, state, duration_ms, {at} FROM event
WHERE name = 'command_completed' AND command IS NOT NULL AND state IS NOT NULL AND {at} >= ? ORDER BY {at}
"""


@dataclass(frozen=True)
class CommandRuns:
    """The runs of one command within some days."""

    name: str
    succeeded: int
    failed: int
    cancelled: int
    """Those abandoned at shutdown included."""
    p50_ms: float | None
    """Median duration of the runs that came to an end of their own, in milliseconds; None without any."""
    p95_ms: float | None
    medians_ms: tuple[float | None, ...]
    """The median in each of equal parts of the time, the oldest first; None for a part without such a run."""

    @property
    def runs(self) -> int:
        """All of them."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def ended(self) -> int:
        """Those that came to an end of their own."""
        return self.succeeded + self.failed


def command_runs(history: Path, *, now: float, days: int, parts: int) -> list[CommandRuns]:
    """Every command that ran in the ``days`` before ``now``, the most frequent first; ``parts`` medians of each.

    Empty where there is no history. Raises StorageError where it cannot be read.
    """
    if not history.exists():
        return []
    start, length = now - days * _DAY, days * _DAY / parts
    states: dict[str, list[str]] = {}
    durations: dict[str, list[list[float]]] = {}
    for command, state, duration, at in runs_since(history, start):
        states.setdefault(command, []).append(state)
        lists = durations.setdefault(command, [[] for _ in range(parts)])
        if state in ("success", "failed") and duration is not None:
            lists[min(int((at - start) / length), parts - 1)].append(duration)
    found = [_summed(name, states[name], durations[name]) for name in states]
    return sorted(found, key=lambda each: (-each.runs, each.name))


def runs_since(history: Path, start: float) -> list[tuple[str, str, float | None, int]]:
    """Command, state, milliseconds and second of every run since ``start``, the oldest first. Raises StorageError."""
    try:
        with closing(files.reading(history)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise newer(history, version, SCHEMA_VERSION)
            if version < SCHEMA_VERSION:  # it is brought up to date when somebody writes to it
                return db.execute(_RUNS.format(at="at"), (int(start),)).fetchall()
            found = db.execute(_RUNS.format(at="id"), (int(start) * SECOND,)).fetchall()
    except sqlite3.Error as fault:
        raise StorageError(f"{history} cannot be read: {fault}") from fault
    return [(command, state, duration, number // SECOND) for command, state, duration, number in found]


def _summed(name: str, states: Sequence[str], durations: Sequence[Sequence[float]]) -> CommandRuns:
    every = [duration for part in durations for duration in part]
    succeeded, failed = states.count("success"), states.count("failed")
    return CommandRuns(
        name=name, succeeded=succeeded, failed=failed, cancelled=len(states) - succeeded - failed,
        p50_ms=percentile(every, 50), p95_ms=percentile(every, 95),
        medians_ms=tuple(percentile(part, 50) for part in durations),
    )  # fmt: skip


def percentile(values: Sequence[float], rank: int) -> float | None:
    """The least of ``values`` that ``rank`` per cent of them do not exceed; None of none. Pure."""
    return sorted(values)[max(ceil(len(values) * rank / 100), 1) - 1] if values else None
