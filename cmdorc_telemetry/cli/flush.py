"""``flush``: send everything that waits, now, and say what became of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import click

from .. import clock
from ..bounds import EXIT_SECONDS
from ..errors import ConsentError
from .machine import Machine
from .stats import note_running
from .waiting import answer_line, destinations
from .wording import clean, command_line, plural

if TYPE_CHECKING:
    from ..delivery import Delivery
    from ..spool import Spool
    from ..types import Ledger

CLOSE_SECONDS = 2.0
"""How long connections may take to be closed, where the time given is not over before."""
INTERRUPTED = 130
_POLL_SECONDS = 0.1


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
              metavar="SECONDS", help="How long to try.")  # fmt: skip
def flush(timeout: float) -> None:
    """Send everything that waits, now.

    \b
    Exit code:
      0    nothing waits any more
      1    something could not be sent, and is kept
      130  ended by Ctrl-C; what was not sent is kept
    """
    deadline = clock.monotonic() + timeout
    machine = Machine()
    if machine.trouble:
        raise ConsentError(machine.trouble)
    if not machine.recording:
        click.echo("Telemetry is off. Nothing is recorded.", err=True)
        return
    code, done = 0, False
    with closing(machine.pipeline.open_spool()) as spool:
        delivery = machine.pipeline.delivery()
        try:
            done = _send(delivery, spool, deadline)
        except KeyboardInterrupt:
            code, deadline = INTERRUPTED, 0.0
        late = clock.monotonic() >= deadline
        ended = delivery.stop(min(max(deadline - clock.monotonic(), EXIT_SECONDS), CLOSE_SECONDS))
        ledgers = {name: each for name, each in spool.ledger().items() if _ours(machine, name)}
        live = len(machine.segments(spool).live)
    busy = {name for name in ledgers if ended and _is_busy(machine, name)}
    excuse = "there was not enough time" if late else "to be sent again later, says its receiver"
    excuses = {**dict.fromkeys(ledgers, excuse), **dict.fromkeys(busy, "another process is sending to it")}
    reasons = {name: _reason(machine, each, excuses[name]) for name, each in ledgers.items() if each.pending}
    if code == INTERRUPTED:
        reasons = {}
        count = sum(each.pending for each in ledgers.values())
        click.echo(f"Interrupted. Nothing is lost: {plural(count, 'event waits', 'events wait')}.", err=True)
    elif not done and not reasons:
        reasons = {name: excuses[name] for name in sorted(busy)} or {
            "flush": f"not everything was done within {timeout:g} s"
        }
    _tell(machine, ledgers, reasons, live)
    click.get_current_context().exit(code or (1 if reasons else 0))


def _tell(machine: Machine, ledgers: Mapping[str, Ledger], reasons: Mapping[str, str], live: int) -> None:
    for name, reason in reasons.items():
        click.echo(f"{name}: {clean(reason)}", err=True)
    for to in destinations(machine):
        click.echo(f"{to.name}: waits for your yes: {answer_line(machine)}", err=True)
    note_running(live)
    for name, each in ledgers.items():
        click.echo(f"{name}: {each}")


def _ours(machine: Machine, name: str) -> bool:
    """Whether it is a destination of now, and not one that belongs to a running program."""
    return name in {view.name for view in machine.pipeline.views()}


def _is_busy(machine: Machine, name: str) -> bool:
    """Whether another process is sending to a destination."""
    from ..files import FileLock

    lock = FileLock(machine.home.locks / f"{name}.lock")
    free = lock.acquire(wait=False)
    lock.release()
    return not free


def _reason(machine: Machine, ledger: Ledger, excuse: str) -> str:
    if ledger.name in machine.missing:
        lack, fix = machine.missing[ledger.name]
        return f"{lack}, {ledger.pending} pending: {fix}"
    aside = f"{ledger.set_aside} rejected and set aside: {command_line('dead-letters')}"
    if ledger.pending == ledger.set_aside:
        return aside
    return f"{ledger.pending - ledger.set_aside} pending: {ledger.last_error or excuse}" + (
        f"; {aside}" if ledger.set_aside else ""
    )


def _send(delivery: Delivery, spool: Spool, deadline: float) -> bool:
    """Send, with a progress bar where somebody can see it. Whether nothing waits any more."""
    if not sys.stderr.isatty():
        return delivery.flush(max(deadline - clock.monotonic(), 0.0))
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(delivery.flush(deadline - clock.monotonic())), daemon=True)
    columns = (TextColumn("Sending"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        before = _settled(spool)[0]
        sender.start()
        while sender.is_alive() and clock.monotonic() < deadline:
            began = clock.monotonic()
            settled, pending = _settled(spool)
            progress.update(bar, completed=settled - before, total=settled - before + pending)
            # To look at a long queue takes a while, in which nothing is sent.
            pause = max(_POLL_SECONDS, 9 * (clock.monotonic() - began))
            sender.join(min(pause, max(deadline - clock.monotonic(), 0.0)))
    return answers == [True]


def _settled(spool: Spool) -> tuple[int, int]:
    """Events that are done with, and those that wait, over all destinations."""
    ledgers = [each for each in spool.ledger().values() if not each.removed]
    return sum(each.recorded - each.pending for each in ledgers), sum(each.pending for each in ledgers)
