"""``stats``: what the history of this machine says about its commands, and how it compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from .machine import Machine
from .status import first_line
from .wording import command_line, duration, moment, percent, plural, sparkline

if TYPE_CHECKING:
    from ..insights import CommandRuns
    from ..types import Ledger
    from .screen import Cell, Screen

ENOUGH = 20
"""Runs before charts are drawn."""
_BARS = 30


@click.command(short_help="Show how often, how well and how fast your commands run.")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far back.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def stats(days: int, as_json: bool) -> None:
    """Show runs, success, p50 and p95 of each command, from this machine's own history.

    A run that was cancelled counts as a run, but neither for success nor for durations.
    """
    from .. import clock
    from ..insights import command_runs

    machine = Machine()
    ledgers: Mapping[str, Ledger] = {}
    live = 0
    if machine.recording:
        with machine.spool() as spool:
            machine.fill_history(spool)
            ledgers, live = spool.ledger(), len(machine.segments(spool).live)
    found = command_runs(machine.home.history, now=clock.wall(), days=days, parts=min(days, _BARS))
    compared = {name: rank for name, each in ledgers.items() if (rank := percentile_told(each.answer)) is not None}
    if as_json:
        _print_json(machine, found, compared, days)
        return
    from .screen import Screen

    screen = Screen()
    if not machine.recording:
        screen.line(*first_line(False, "off"))
        screen.line("  ", machine.trouble or command_line("opt-in"))
        if not found:
            return
        screen.line()
    _show(screen, found, days)
    if machine.recording:
        screen.line()
        for name, rank in compared.items():
            when = moment(ledgers[name].last_report)
            screen.below(10, f"your median run is slower than {rank:g} % of installs ({name}, {when})",
                         label="Compared")  # fmt: skip
        if not compared:
            screen.line("No comparison yet: needs an answer from the server.")
    note_running(live)


def note_running(live: int) -> None:
    """Say that processes which run now have events of their own."""
    if live:
        text = f"{plural(live, 'running process has', 'running processes have')} events that are not imported yet."
        click.echo(text, err=True)


def percentile_told(answer: Mapping[str, Any]) -> float | None:
    """What a server answered, if it makes sense."""
    told = answer.get("stats")
    rank = told.get("percentile_duration") if isinstance(told, dict) else None
    return rank if isinstance(rank, int | float) and not isinstance(rank, bool) and 0 <= rank <= 100 else None


def _print_json(machine: Machine, found: list[CommandRuns], compared: Mapping[str, float], days: int) -> None:
    import msgspec

    commands = [{**msgspec.to_builtins(each), "runs": each.runs} for each in found]
    told = {"recording": machine.recording, "days": days, "runs": sum(each.runs for each in found),
            "commands": commands, "percentile_duration": compared}  # fmt: skip
    click.echo(msgspec.json.format(msgspec.json.encode(told)))


def _show(screen: Screen, found: list[CommandRuns], days: int) -> None:
    total = sum(each.runs for each in found)
    if not found:
        screen.line(f"No runs yet. Charts appear after {ENOUGH} runs.")
        return
    period = f"Last {days} days" if days > 1 else "Last day"
    screen.line(
        (period, "bold"), f"  {plural(total, 'run')} of {plural(len(found), 'command')}, from this machine only"
    )
    screen.line()
    charts = total >= ENOUGH
    header: list[str] = ["Command", "Runs", "OK", "p50", "p95", *([f"{plural(days, 'day')}, p50"] if charts else [])]
    rows: list[list[Cell]] = [
        [each.name, f"{each.runs:,}", percent(each.succeeded, each.ended), duration(each.p50_ms), duration(each.p95_ms),
         *([(sparkline(each.medians_ms), "cyan")] if charts else [])]
        for each in found
    ]  # fmt: skip
    screen.table(header, rows, right={1, 2, 3, 4})
    if not charts:
        screen.line()
        screen.line(f"Charts appear after {ENOUGH} runs.")
