"""``reset-id``: another install id and salt; nothing recorded under the old id is sent any more, and it is erased.

The order of the writes decides that no program ever sends the old id under the new decision. Programs read the
decision first and the identity after it, so it is written the other way round:

    1  note the old id and who may hold it   from here on it is nobody's: the one step that cannot be taken back
    2  write the new identity                programs that start now have it, under the old decision
    3  renew the decision                    who reads the new one finds the new identity

Whoever is killed, or fails, after the first step leaves the others to the next command (``erasure._unsafe``).
"""

from __future__ import annotations

from contextlib import closing

import click

from ..errors import ConfigError, ConsentError, StorageError
from ..home import Home
from .machine import Machine
from .wording import application, clean, command_line, plural


@click.command("reset-id")
def reset_id() -> None:
    """Take another install id, and have the old one erased.

    The salt of hashes changes, too. What waited to be sent under the old id is not sent any more. What is on this
    machine stays: the history, and the files of file destinations. Where a server does not confirm, the old id is kept
    until it does, and each later command asks again.

    \b
    Exit code:
      0    all of that is done, or there was nothing to do
      1    a server did not confirm, or the new id could not be written
      130  ended by Ctrl-C while servers were asked; the new id is in place
    """
    from ..consent import renew
    from ..identity import another_identity, ensure_identity, stored_identity
    from .erasure import ERASE_SECONDS, give_up, told

    home = Home.of(application())
    machine = Machine()
    old = stored_identity(home)
    if not _decided(machine, old is not None):
        return
    waiting = _waiting(machine)
    give_up(machine, home, old)
    try:
        new = ensure_identity(home)
        if old is not None and new.install_id == old.install_id:  # nobody holds it, so that nobody is owed an answer
            new = another_identity(home)
        renew(home)
    except StorageError as fault:
        raise StorageError(f"{fault}. The old id is given up; the next command goes on from here") from fault
    click.echo(f"The install id is {new.install_id} now, and the salt is another one.")
    for name, count in waiting.items():
        click.echo(f"{clean(name)}: {plural(count, 'event')} recorded under the old id will not be sent.")
    click.get_current_context().exit(told(machine, ERASE_SECONDS))


def _decided(machine: Machine, identified: bool) -> bool:
    """Whether there is a yes of a person's to go on with under another id; where there is none, say what there is.

    Raises ConsentError where nobody knows, ConfigError where an operator decided.
    """
    situation = machine.situation
    if situation.trouble:
        raise ConsentError(situation.trouble)
    if situation.consent is not None and any(grant.record for grant in situation.consent.grants.values()):
        return True
    if situation.consent is None and machine.recording:
        raise ConfigError("environment", machine.application.variable,
                          "decides here, and what it allowed cannot be taken back",
                          f"a decision of yours: {command_line('opt-in')}, or {command_line('opt-out')}")  # fmt: skip
    click.echo(f"Telemetry is off, and this install has {'still an' if identified else 'no'} id.", err=True)
    if identified:
        click.echo(f"To delete it, and have it erased: {command_line('opt-out')}", err=True)
    return False


def _waiting(machine: Machine) -> dict[str, int]:
    """How many events wait for each destination beside the history."""
    from ..history import NAME

    try:
        if machine.recording:
            with machine.spool() as spool:
                ledgers = spool.ledger()
        elif (peeked := machine.peek()) is not None:
            with closing(peeked):
                ledgers = peeked.ledger()
        else:
            return {}
    except StorageError:  # nothing of it will be sent, however much it is
        return {}
    return {name: each.pending for name, each in ledgers.items() if name != NAME and each.pending}
