"""``opt-out``: ends recording and sending, asks the servers to erase this install, deletes what is here, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .. import clock
from ..config import Home, home_dir
from ..errors import ConfigError, ConsentError, StorageError
from .machine import Machine
from .userfile import Table, edit
from .wording import clean, place

SENDING_SECONDS = 5.0
"""How long to wait for a batch that is on its way."""
_PAUSE_SECONDS = 0.02


@click.command("opt-out")
@click.option("--local-only", is_flag=True, help="Do not ask the servers to erase what they hold of this install.")
def opt_out(local_only: bool) -> None:
    """Stop, have this install erased, and delete what was recorded.

    Your config.toml and the record of this decision stay. Exit code 1 where a server did not confirm, or something
    could not be deleted.
    """
    from .deletion import delete, local_files
    from .erasure import erase

    home = Home(home_dir(os.environ))
    failures: list[str] = []
    confirmed = True
    machine = None
    try:
        machine = Machine()
        machine.pipeline  # noqa: B018 - made before the no, for whom it sent to until then
    except ConfigError as fault:
        failures.append(f"{fault}. It is left as it is; no server was asked to erase anything")
    _say_no(home, failures)
    with _no_senders(home):
        if machine is not None and not local_only:
            for told, good in erase(machine):
                click.echo(clean(told), err=True)
                confirmed = confirmed and good
        gone, faults = delete(home, local_files(machine))
    click.echo("Telemetry is off. Nothing is recorded.")
    for each in gone:
        click.echo(f"deleted  {place(each)}")
    if not gone:
        click.echo("There was nothing to delete.")
    failures += faults
    for failure in failures:
        click.echo(f"error: {clean(failure)}", err=True)
    click.get_current_context().exit(1 if failures or not confirmed else 0)


def _say_no(home: Home, failures: list[str]) -> None:
    """Record the no, for every spec that was decided on: from here on nothing more is sent."""
    from ..consent import CORE_SPEC, Grant, load_consent, save_grant

    try:
        consent = load_consent(home)
    except ConsentError:  # is replaced
        consent = None
    for spec in {CORE_SPEC: None, **dict.fromkeys(consent.grants if consent is not None else ())}:
        save_grant(home, spec, Grant(decided_at=clock.iso(clock.wall())))
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


@contextmanager
def _no_senders(home: Home) -> Iterator[None]:
    """While the body runs nobody sends; a batch on its way is waited for, but not for ever."""
    import time

    from ..files import FileLock

    locks = [FileLock(path) for path in home.locks.glob("*.lock")]
    deadline = clock.monotonic() + SENDING_SECONDS
    try:
        for lock in locks:
            while not lock.acquire(wait=False) and clock.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        for lock in locks:
            lock.release()
