"""``opt-out``: ends recording and sending, deletes what is here, by name, and asks the servers to erase this install.

Killed at any moment it leaves either what it can delete when it is run again, or the note of who is still to be asked:

    1  note the id and who may hold it   from here on the id is nobody's
    2  record the no                     from here on nothing more is sent
    3  wait for the batches on their way
    4  delete what is here               what 5 needs is in the note
    5  ask; whoever confirms is struck out
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from .. import clock
from ..errors import ConfigError, ConsentError, SpecError, StorageError
from ..home import Home
from .machine import Machine
from .userfile import Table, edit
from .wording import application, clean, command_line, place

SENDING_SECONDS = 12.0
"""How long to wait for batches that are on their way: a destination has 10 seconds, if nobody said otherwise."""
_TELL_SECONDS = 0.5


@click.command("opt-out", short_help="Stop, have this install erased, delete what was recorded.")
@click.option("--local-only", is_flag=True, help="Ask no server to erase what it holds of this install, now or later.")
def opt_out(local_only: bool) -> None:
    """Stop, have this install erased, and delete what was recorded.

    Your config.toml and the record of this decision stay. Where a server does not confirm, so does the id that it is
    to erase, and each later command asks again.

    \b
    Exit code:
      0    all of that is done
      1    a server did not confirm, or something could not be deleted
      130  ended by Ctrl-C while servers were asked; telemetry is off
    """
    from ..erasure import forget
    from ..history import NAME as HISTORY
    from ..identity import stored_identity
    from .deletion import delete, local_files
    from .erasure import ERASE_SECONDS, give_up, interrupted, reached, told

    home = Home.of(application())
    failures: list[str] = []
    machine = _machine(failures)
    written = list(local_files(reached(home), failures))
    if local_only:
        forget(home)
    try:
        identity = stored_identity(home)
    except StorageError as fault:
        if not local_only:
            failures.append(f"nobody can be asked to erase this install: {fault}")
    else:
        give_up(machine, home, identity, here=local_only)
    _say_no(home, failures)
    busy, ended = _busy(home)
    gone, faults = delete(home, written, busy)
    if home.locks / f"{HISTORY}.lock" in busy:
        faults.append(f"{home.history} may be written once more, by a program that is suspended: "
                      f"run {command_line('opt-out')} again when that goes on or is gone")  # fmt: skip
    click.echo("Telemetry is off. Nothing is recorded.")
    for each in gone:
        click.echo(f"deleted  {place(each)}")
    if not gone:
        click.echo("There was nothing to delete.")
    for failure in failures + faults:
        click.echo(f"error: {clean(failure)}", err=True)
    code = 1 if failures or faults else 0
    if ended:
        code = interrupted(home)
    elif machine is not None:
        code = told(machine, ERASE_SECONDS) or code
    click.get_current_context().exit(code)


def _machine(failures: list[str]) -> Machine | None:
    """What is configured, read before the no; None where it cannot be."""
    try:
        machine = Machine()
        machine.missing  # noqa: B018 - with the pipeline: made before what they read and write is deleted
    except ConfigError as fault:
        failures.append(f"{fault}. It is left as it is; no server can be asked to erase anything until it is right")
        return None
    return machine


def _say_no(home: Home, failures: list[str]) -> None:
    """Record the no, for every spec that was decided on: from here on nothing more is sent."""
    from ..consent import Grant, load_consent, save_decision

    try:
        consent = load_consent(home)
    except ConsentError:  # is replaced
        consent = None
    names = set(consent.grants if consent is not None else ())
    with suppress(SpecError):  # told already
        names.add(home.application.spec)
    save_decision(home, dict.fromkeys(names, Grant(decided_at=clock.iso(clock.wall()))))
    try:
        edit(home.config, _switched_off)
    except ConfigError:
        pass  # told already
    except StorageError as fault:
        failures.append(str(fault))


def _switched_off(table: Table) -> None:
    table["enabled"] = False
    for key in ("debug_consent_given", "debug_consent_expires"):
        table.pop(key, None)
    if table.get("level") == "debug":  # which is an error without them
        del table["level"]


def _busy(home: Home) -> tuple[set[Path], bool]:
    """Wait for what is on its way, but not for ever. The locks of those who still send, and whether Ctrl-C came.

    The locks of all others are deleted: nobody needs them any more.
    """
    from .erasure import quiet

    locks = sorted(home.locks.glob("*.lock"))
    began, ended = clock.monotonic(), False
    try:
        if not all(quiet(path, began + _TELL_SECONDS, unlink=True) for path in locks):
            click.echo("A batch is on its way: waiting until it has arrived.", err=True)
        busy = {path for path in locks if not quiet(path, began + SENDING_SECONDS, unlink=True)}
    except KeyboardInterrupt:
        busy, ended = {path for path in locks if path.exists()}, True
    return busy, ended
