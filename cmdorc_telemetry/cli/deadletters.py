"""``dead-letters``: events that were rejected while alone. Lists them, shows one, sends them again, discards them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import click

from .. import clock
from ..errors import ConfigError, nearest
from .machine import Machine
from .wording import command_line, moment, plural

if TYPE_CHECKING:
    from ..spool import Spool
    from ..types import DeadLetter

_F = TypeVar("_F", bound=Callable[..., object])
_T = TypeVar("_T")
_to_option = click.option("--to", metavar="NAME", help="Only those of this destination.")


def _which(command: _F) -> _F:
    """The parameters that say which events are meant."""
    command = click.option("--all", "every", is_flag=True, help="All that are set aside.")(command)
    return click.argument("ids", nargs=-1, type=int, metavar="[ID]...")(_to_option(command))


@click.group("dead-letters", invoke_without_command=True, short_help="List what was refused, and decide on it.")
@_to_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_context
def dead_letters(ctx: click.Context, to: str | None, as_json: bool) -> None:
    """List events that were set aside: each was rejected while it was alone, and is kept until you decide."""
    if ctx.invoked_subcommand is not None:
        if to is not None or as_json:
            raise click.UsageError(f"options come after {ctx.invoked_subcommand}")
        return
    found = _set_aside(Machine(), to)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        _list(found)


def _list(found: list[DeadLetter]) -> None:
    from .screen import Screen

    screen = Screen()
    if not found:
        screen.line("No event is set aside.")
        return
    screen.line((f"{plural(len(found), 'event is', 'events are')} set aside.", "bold"))
    screen.line()
    rows = [
        (str(each.seq), moment(each.at), each.destination, each.event, str(each.tries), each.reason) for each in found
    ]
    screen.table(("ID", "Time", "Destination", "Event", "Tries", "Why"), rows, right={0, 4})
    screen.line()
    screen.labelled([
        ("The bytes", command_line("dead-letters", "show", str(found[0].seq))),
        ("Send again", command_line("dead-letters", "resend", "--all")),
        ("Drop", command_line("dead-letters", "discard", "--all")),
    ])  # fmt: skip


@dead_letters.command()
@click.argument("number", type=int, metavar="ID")
@click.option("--to", metavar="NAME", help="The destination, where several set it aside.")
def show(number: int, to: str | None) -> None:
    """Print the event ID as its destination would get it now: into a pipe its bytes alone."""
    from ..history import NAME as HISTORY
    from . import payload

    machine = Machine()
    names = [each.destination for each in _set_aside(machine, to) if each.seq == number]
    row = _asked(machine, lambda spool: spool.row(number)) if names else None
    if row is None:
        raise _unknown(number, to)
    if len(names) > 1:
        raise ConfigError("--to", "", f"{number} was set aside for several", f"one of {', '.join(names)}")
    # Neither the history nor the reporter of a running program is configured.
    destination = next((each for each in machine.pipeline.configured if each.name == names[0]), None)
    private = names[0] == HISTORY or (destination is not None and destination.audience == "private")
    payload.show(machine, payload.stored(machine, row, destination, private))


@dead_letters.command()
@_which
def resend(ids: tuple[int, ...], to: str | None, every: bool) -> None:
    """Let the events ID (or --all) wait to be sent again, as if they were new."""
    machine = Machine()
    found = _meant(machine, ids, to, every)
    count = _changed(machine, found, lambda spool, numbers: spool.resend(clock.wall(), to, numbers))
    click.echo(f"{plural(count, 'event waits', 'events wait')} to be sent again.")
    if count:
        click.echo(f"  {command_line('flush')}  sends them now.")


@dead_letters.command()
@_which
@click.option("--yes", is_flag=True, help="Ask nothing.")
def discard(ids: tuple[int, ...], to: str | None, every: bool, yes: bool) -> None:
    """Drop the events ID (or --all) for good; the ledger counts them as discarded."""
    from .offer import ask, can_ask

    machine = Machine()
    found = _meant(machine, ids, to, every)
    if found and not yes:
        if not can_ask():
            raise ConfigError("discard", "", "there is no terminal to ask on; nothing was discarded", "--yes")
        if not ask(f"Discard {plural(len(found), 'event')} for good?"):
            click.echo("Nothing was discarded.", err=True)
            click.get_current_context().exit(1)
    count = _changed(machine, found, lambda spool, numbers: spool.discard(to, numbers))
    click.echo(f"{plural(count, 'event')} discarded.")


# -- which events -----------------------------------------------------------------------------------------------------


def _asked(machine: Machine, question: Callable[[Spool], _T]) -> _T | None:
    """The answer of the spool, as it is; None where there is none."""
    spool = machine.peek()
    if spool is None:
        return None
    with closing(spool):
        return question(spool)


def _changed(machine: Machine, found: list[DeadLetter], change: Callable[[Spool, set[int]], int]) -> int:
    """How many of ``found`` were changed: others may have done so meanwhile."""
    if not found:
        return 0
    with closing(machine.pipeline.open_spool()) as spool:
        return change(spool, {each.seq for each in found})


def _set_aside(machine: Machine, to: str | None) -> list[DeadLetter]:
    """What is set aside, for one destination or for all. Raises ConfigError for one that does not exist."""
    known = {each.name for each in machine.pipeline.configured} | set(
        _asked(machine, lambda spool: spool.ledger()) or ()
    )
    if to is not None and to not in known:
        expected = f"one of {', '.join(sorted(known)) or 'none: there is no destination'}"
        raise ConfigError("--to", "", f"found {to!r}", expected, nearest=nearest(to, known))
    return _asked(machine, lambda spool: spool.dead_letters(to)) or []


def _meant(machine: Machine, ids: Sequence[int], to: str | None, every: bool) -> list[DeadLetter]:
    """Those that a person named. Raises ConfigError where one of them is not set aside."""
    if every == bool(ids):
        raise click.UsageError("name events by their ID, or say --all")
    found = _set_aside(machine, to)
    there = {each.seq for each in found}
    for number in ids:
        if number not in there:
            raise _unknown(number, to)
    return [each for each in found if every or each.seq in ids]


def _unknown(number: int, to: str | None) -> ConfigError:
    whose = f" for {to}" if to is not None else ""
    return ConfigError(
        "ID", "", f"{number} is not set aside{whose}", f"one that `{command_line('dead-letters')}` lists"
    )
