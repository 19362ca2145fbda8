"""``stats`` of an application whose events are not the runs of commands: how often each of them was recorded here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .machine import Machine
from .stats import note_running
from .status import first_line
from .wording import command_line, moment, plural, sparkline

if TYPE_CHECKING:
    from ..insights import EventCounts
    from .screen import Cell, Screen

_BARS = 30


@click.command("stats", short_help="Show how often each event was recorded here.")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far back.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def counts(days: int, as_json: bool) -> None:
    """Show how often each event was recorded, from this machine's own history."""
    from .. import clock
    from ..insights import event_counts

    machine, live = Machine(), 0
    if machine.recording:
        with machine.spool() as spool:
            machine.fill_history(spool)
            live = len(machine.segments(spool).live)
    found = event_counts(machine.home.history, now=clock.wall(), days=days, parts=min(days, _BARS))
    if as_json:
        import msgspec

        events = [{"name": each.name, "count": each.count, "last": clock.iso(each.last)} for each in found]
        told = {"recording": machine.recording, "days": days, "events": events}
        click.echo(msgspec.json.format(msgspec.json.encode(told)))
        return
    from .screen import Screen

    screen = Screen()
    if not machine.recording:
        screen.line(*first_line(False, "off"))
        screen.line("  ", machine.trouble or command_line("opt-in"))
        screen.line()
    _show(screen, found, days)
    note_running(live)


def _show(screen: Screen, found: list[EventCounts], days: int) -> None:
    if not found:
        screen.line("No events yet.")
        return
    total = sum(each.count for each in found)
    screen.line((f"Last {plural(days, 'day')}", "bold"), f"  {plural(total, 'event')}, from this machine only")
    screen.line()
    rows: list[list[Cell]] = [
        [each.name, f"{each.count:,}", moment(each.last), (sparkline(each.counts), "cyan")] for each in found
    ]
    screen.table(["Event", "Count", "Newest", plural(days, "day")], rows, right={1})
