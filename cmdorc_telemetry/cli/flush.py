"""``flush``: send everything that waits, now, and say what became of it."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import click

from .machine import Machine
from .stats import note_running
from .wording import clean, command_line

if TYPE_CHECKING:
    from ..delivery import Delivery
    from ..spool import Spool
    from ..types import Ledger

CLOSE_SECONDS = 2.0
_POLL_SECONDS = 0.1


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              metavar="SECONDS", help="How long to try.")  # fmt: skip
def flush(timeout: float) -> None:
    """Send everything that waits, now. Exit code 1 where something could not be sent."""
    machine = Machine()
    if not machine.recording:
        click.echo("Telemetry is off. Nothing is recorded.", err=True)
        return
    with machine.spool() as spool:
        delivery = machine.pipeline.delivery()
        done = _send(delivery, spool, timeout)
        delivery.stop(CLOSE_SECONDS)
        ledgers = {name: each for name, each in spool.ledger().items() if _ours(machine, name)}
        live = machine.segments(spool)[1]
    reasons = {name: _reason(machine, each) for name, each in ledgers.items() if each.pending}
    if not done and not reasons:
        reasons["flush"] = f"not everything was done within {timeout:g} s"
    for name, reason in reasons.items():
        click.echo(f"{name}: {clean(reason)}", err=True)
    for to in machine.pipeline.waiting:
        click.echo(f"{to.name}: waits for your yes: {command_line('opt-in')}", err=True)
    note_running(live)
    for name, each in ledgers.items():
        click.echo(f"{name}: {each}")
    click.get_current_context().exit(1 if reasons else 0)


def _ours(machine: Machine, name: str) -> bool:
    """Whether it is a destination of now, and not one that belongs to a running program."""
    return name in {view.name for view in machine.pipeline.views()}


def _reason(machine: Machine, ledger: Ledger) -> str:
    if ledger.name in machine.missing:
        lack, fix = machine.missing[ledger.name]
        return f"{lack}, {ledger.pending} pending: {fix}"
    if ledger.pending == ledger.set_aside:
        return f"{ledger.set_aside} rejected and set aside"
    return f"{ledger.pending} pending: {ledger.last_error or 'there was not enough time'}"


def _send(delivery: Delivery, spool: Spool, timeout: float) -> bool:
    """Send, with a progress bar where somebody can see it. Whether nothing waits any more."""
    if not sys.stderr.isatty():
        return delivery.flush(timeout)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(delivery.flush(timeout)), daemon=True)
    columns = (TextColumn("Sending"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        before = _settled(spool)[0]
        sender.start()
        while sender.is_alive():
            settled, pending = _settled(spool)
            progress.update(bar, completed=settled - before, total=settled - before + pending)
            sender.join(_POLL_SECONDS)
    return answers == [True]


def _settled(spool: Spool) -> tuple[int, int]:
    """Events that are done with, and those that wait, over all destinations."""
    ledgers = [each for each in spool.ledger().values() if not each.removed]
    return sum(each.recorded - each.pending for each in ledgers), sum(each.pending for each in ledgers)
