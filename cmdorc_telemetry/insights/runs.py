"""How the commands of this machine did: counts, percentiles, a value a day. Reads the history, writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from ..history import SECOND
from .reading import opened

_DAY = 86_400
ENDED = ("success", "failed")
"""How runs end that come to an end of their own."""
_RUNS = """
SELECT command, state, duration_ms, {at} FROM event
WHERE name = 'command_completed' AND command IS NOT NULL AND state IS NOT NULL AND {at} >= ? ORDER BY {at}
"""


@dataclass(frozen=True)
class CommandRuns:
    """The runs of one command within some time, and within each of its parts, such as days, the oldest first."""

    name: str
    succeeded: int
    failed: int
    cancelled: int
    """Those abandoned at shutdown included."""
    p50_ms: float | None
    """Median duration of the runs that came to an end of their own, in milliseconds; None without any."""
    p95_ms: float | None
    total_ms: float
    changes: int
    """How often a run ended otherwise than the one before it: between success and failure."""
    medians_ms: tuple[float | None, ...]
    """Of each part; None for one without such a run."""
    p95s_ms: tuple[float | None, ...]
    counts: tuple[int, ...]
    """Of each part, the runs that durations are of."""

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
    tally = Tally(parts)
    for command, state, duration, at in runs_since(history, start):
        tally.add(command, state, duration, min(int((at - start) / length), parts - 1))
    return tally.commands()


def runs_since(history: Path, start: float) -> list[tuple[str, str, float | None, int]]:
    """Command, state, milliseconds and second of every run since ``start``, the oldest first. Raises StorageError."""
    with opened(history) as (db, current):
        if not current:
            return db.execute(_RUNS.format(at="at"), (int(start),)).fetchall()
        found = db.execute(_RUNS.format(at="id"), (int(start) * SECOND,)).fetchall()
    return [(command, state, duration, number // SECOND) for command, state, duration, number in found]


class Tally:
    """Adds runs up, command by command. They come in the order in which they ended."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._commands: dict[str, _Command] = {}

    def add(self, name: str, state: str, duration: float | None, part: int) -> None:
        """Count one run, in a part of the time."""
        command = self._commands.get(name)
        if command is None:
            command = self._commands[name] = _Command([[] for _ in range(self._parts)])
        command.states[state] += 1
        if state not in ENDED:
            return
        command.changes += command.last not in ("", state)
        command.last = state
        if duration is not None:
            command.durations[part].append(duration)

    def commands(self) -> list[CommandRuns]:
        """Every command that ran, the most frequent first."""
        found = [_summed(name, command) for name, command in self._commands.items()]
        return sorted(found, key=lambda each: (-each.runs, each.name))


@dataclass
class _Command:
    durations: list[list[float]]
    """In each part, of the runs that came to an end of their own."""
    states: Counter[str] = field(default_factory=Counter)
    last: str = ""
    changes: int = 0


def _summed(name: str, command: _Command) -> CommandRuns:
    states, parts = command.states, command.durations
    every = [duration for part in parts for duration in part]
    succeeded, failed = (states[state] for state in ENDED)
    return CommandRuns(
        name=name, succeeded=succeeded, failed=failed, cancelled=states.total() - succeeded - failed,
        p50_ms=percentile(every, 50), p95_ms=percentile(every, 95), total_ms=sum(every), changes=command.changes,
        medians_ms=tuple(percentile(part, 50) for part in parts), p95s_ms=tuple(percentile(part, 95) for part in parts),
        counts=tuple(map(len, parts)),
    )  # fmt: skip


def percentile(values: Sequence[float], rank: int) -> float | None:
    """The least of ``values`` that ``rank`` per cent of them do not exceed; None of none. Pure."""
    return sorted(values)[max(ceil(len(values) * rank / 100), 1) - 1] if values else None
