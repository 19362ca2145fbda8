"""``audit``: every batch that left this machine, and whether that is the whole truth. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, nearest
from .machine import Machine
from .wording import command_line, moment, place, plural

if TYPE_CHECKING:
    from ..audit import Entry, Mismatch
    from ..types import Ledger
    from .screen import Screen

_LAST = 20


@click.command(short_help="Show every batch that left this machine.")
@click.option("--to", metavar="NAME", help="Only what left for this destination.")
@click.option("--last", type=click.IntRange(1), metavar="N", help=f"So many batches; {_LAST} unless --json.")
@click.option("--verify", is_flag=True, help="Compare it with the ledger; exit code 1 if anything is missing.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: an object a line.")
def audit(to: str | None, last: int | None, verify: bool, as_json: bool) -> None:
    """Show every batch that left this machine: when, for whom, which events and fields, what came of it.

    What stays on this machine, as the history does, is no part of it.
    """
    machine = Machine()
    _check_name(machine, to)
    if verify:
        _verify(machine, to, as_json)
        return
    from ..audit import entries

    found = [entry for entry in entries(machine.home) if to in (None, entry.destination)]
    shown = found[-last:] if last is not None else found if as_json else found[-_LAST:]
    if as_json:
        _print_json(shown)
    else:
        from .screen import Screen

        _show(Screen(), machine, found, shown)


def _check_name(machine: Machine, to: str | None) -> None:
    from ..audit import names

    known = {*names(machine.home.audit), *(each.name for each in machine.pipeline.configured)}
    if to is not None and to not in known:
        expected = f"one of {', '.join(sorted(known))}" if known else "none: nothing ever left this machine"
        raise ConfigError("--to", "", f"found {to!r}", expected, nearest=nearest(to, known))


def _print_json(found: Sequence[Entry | Mismatch]) -> None:
    import msgspec

    for each in found:
        click.echo(msgspec.json.encode(each))


def _show(screen: Screen, machine: Machine, found: Sequence[Entry], shown: Sequence[Entry]) -> None:
    if not found:
        screen.line("Nothing left this machine.")
        return
    ever = sum({entry.destination: entry.batch for entry in found}.values())  # the numbers of the last ones
    which = "" if len(shown) == ever else " The last one:" if len(shown) == 1 else f" The last {len(shown):,}:"
    screen.line((f"{plural(ever, 'batch', 'batches')} left this machine.", "bold"), which)
    screen.line()
    screen.table(("Left", "For", "Batch", "Events", "Bytes", "Answer"), [_row(each) for each in shown], right={2, 4})
    screen.line()
    _fields(screen, shown)
    screen.line()
    screen.labelled([
        ("With ids and digests", command_line("audit", "--json")),
        ("Is it true?", command_line("audit", "--verify")),
        ("Where", place(machine.home.audit)),
    ])  # fmt: skip


def _row(entry: Entry) -> list[str | list[str | tuple[str, str]]]:
    fine = set(entry.answer) <= {"accepted", "duplicate"}
    answer = _counts(entry.answer) + (f" ({entry.error})" if entry.error else "")
    return [moment(entry.at), entry.destination, f"{entry.batch:,}", _counts(entry.events), f"{entry.bytes:,}",
            [(answer, "cyan" if fine else "yellow")]]  # fmt: skip


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _fields(screen: Screen, shown: Sequence[Entry]) -> None:
    """Which fields were in these batches, by event; their values are in no audit."""
    names: dict[str, dict[str, None]] = {}
    for entry in shown:
        for event, fields in entry.fields.items():
            names.setdefault(event, {}).update(dict.fromkeys(fields))
    screen.line(("Fields in them", "dim"))
    screen.labelled([(event, ", ".join(fields)) for event, fields in sorted(names.items())])


def _verify(machine: Machine, to: str | None, as_json: bool) -> None:
    from .. import audit
    from ..config import is_built_in

    spools = Counter[str]()

    def look() -> tuple[str, Mapping[str, Ledger]]:
        spool = machine.peek()
        if spool is None:
            return "", {}
        with closing(spool):
            spools[spool.epoch] += 1
            return spool.epoch, {name: each for name, each in spool.ledger().items() if not is_built_in(name)}

    wrong = [each for each in audit.verify(machine.home, look) if to in (None, each.destination)]
    if as_json:
        _print_json(wrong)
    else:
        _say(machine, wrong, compared=bool(spools))
    if wrong:
        click.get_current_context().exit(1)


def _say(machine: Machine, wrong: Sequence[Mismatch], *, compared: bool) -> None:
    from ..audit import names
    from .screen import Screen

    screen = Screen()
    if wrong:
        screen.line((f"The audit does not add up: {plural(len(wrong), 'mismatch', 'mismatches')}.", "bold"))
        screen.line()
        for each in wrong:
            screen.below(0, ("! ", "yellow"), str(each) + (f" (left {moment(each.at)})" if each.at else ""))
    elif not names(machine.home.audit):
        screen.line("Nothing left this machine.")
    elif compared:
        what = " It accounts for everything that the ledger has as acknowledged."
        screen.below(0, ("The audit is whole.", "bold"), what)
    else:
        screen.line(("The audit is whole.", "bold"), " There is no ledger to compare it with.")
