"""Homes as the real pipeline leaves them: programs that recorded over 90 days, a server that answered.

Time is the only thing that is not real: ``clock.wall`` says what the day of a program is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import NamedTuple

import pytest

import cmdorc_telemetry.pipeline  # noqa: F401  # before time is changed: the audit takes the clock's function by name
from cmdorc_telemetry import CompletedRun, Session, Telemetry, clock
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.cli.machine import Machine
from cmdorc_telemetry.lifecycle import Trigger

DAY = 86_400.0
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert('1')>",
    "</title></style></svg><h1>owned",
    "שלום \u202egnp.exe",
    "nul\x00 bell\x07 escape\x1b[31m line\nbreak",
    "&lt;b&gt; 'quoted' \"twice\" `tick` ${x} {{y}}",
    "W" * 190,
    "javascript:alert(1)//",
)
"""Names that a configuration may have, and a page must only show."""


class Command(NamedTuple):
    """How the runs of one command go."""

    name: str
    seconds: float
    weight: int = 1
    fails: float = 0.05


COMMANDS = (
    Command("Lint", 0.9, 6),
    Command("Tests", 3.5, 6, 0.12),
    Command("Build", 8.2, 2),
    Command("Docs", 3.1, 1, 0.3),
    Command("Deploy to staging", 95.0, 1, 0.1),
)


@contextmanager
def at(patch: pytest.MonkeyPatch, moment: float) -> Iterator[None]:
    """Everything in here happens at ``moment``."""
    with patch.context() as inner:
        inner.setattr(clock, "wall", lambda: moment)
        inner.setattr(clock, "utcnow", lambda: datetime.fromtimestamp(int(moment), timezone.utc))
        yield


def record(runs: list[CompletedRun], trigger: str = "") -> None:
    """A program that starts, does these runs, and ends."""
    program = Telemetry.start(CMDORC._replace(version="0.12.0"))
    program.fire("cmdorc_startup", Session(id="s", started_at=0.0, command_count=len(runs), config_name="cmdorc.toml"))
    for run in runs:
        program.fire("cmdorc_completed", run)
    if trigger:
        program.fire("cmdorc_trigger", Trigger(name=trigger, outcome="ran", runs_started=1))
    program.close()


def runs(
    chance: random.Random, commands: tuple[Command, ...], count: int, *, slower: float = 1.0
) -> list[CompletedRun]:
    """So many runs, by weight, some of them failed or cancelled."""
    found = []
    for each in chance.choices(commands, [each.weight for each in commands], k=count):
        state = chance.choices(("failed", "cancelled", "success"), (each.fails, 0.03, 1 - each.fails - 0.03))[0]
        seconds = each.seconds * chance.lognormvariate(0, 0.25) * slower
        found.append(CompletedRun(run_id=f"{chance.random()}", command_name=each.name, state=state, duration=seconds))
    return found


def fill(
    patch: pytest.MonkeyPatch, *, now: float, days: int, total: int, commands: tuple[Command, ...] = COMMANDS
) -> None:
    """``total`` runs within ``days``, few on weekends, by programs of a morning and of an afternoon."""
    chance = random.Random(7)
    moments = []
    for ago in range(days):
        start = now - ago * DAY
        weekday = clock.local(start).weekday()
        moments += [(start - hour * 3600, 1 if weekday < 5 else 0.12) for hour in (1, 3, 6)]
    each = total / sum(share for _, share in moments)
    for number, (moment, share) in enumerate(reversed(moments)):
        with at(patch, moment):
            record(runs(chance, commands, max(round(each * share), 0), slower=1.6 if now - moment < 20 * DAY else 1.0))
            if number % 60 == 59:  # before it expires
                import_all()


def import_all() -> None:
    """Everything that was recorded goes into the history."""
    machine = Machine()
    with machine.spool() as spool:
        machine.fill_history(spool)
