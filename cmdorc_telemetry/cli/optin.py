"""``opt-in``: shows what would be shared, asks, and writes the decision, all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import files
from ..config import TelemetryLevel
from ..errors import ConfigError, StorageError
from ..home import Home
from .machine import Machine
from .status import first_line, the_bytes
from .wording import command_line

if TYPE_CHECKING:
    from datetime import datetime

    from ..consent import Grant
    from .screen import Screen


@click.command("opt-in")
@click.option("--level", type=click.Choice(["minimal", "standard", "debug"]),
              help="How much to share. Default: what your file says, or minimal.")  # fmt: skip
@click.option("--debug", is_flag=True, help="The same as --level debug.")
@click.option("--local", is_flag=True, help="Record on this machine only; share nothing.")
@click.option("--yes", is_flag=True, help="Ask nothing. Never covers debug.")
def opt_in(level: str | None, debug: bool, local: bool, yes: bool) -> None:
    """Show every field and destination, then ask. Without your yes nothing changes."""
    if debug and level not in (None, "debug"):
        raise click.UsageError(f"--debug and --level {level} contradict each other.")
    if local and (debug or level):
        raise click.UsageError("--local shares nothing: it takes no level.")
    from .offer import can_ask
    from .screen import Screen

    asking = can_ask()
    chosen = TelemetryLevel.DEBUG if debug else TelemetryLevel(level) if level else None
    machine = Machine(own=True)
    wanted = TelemetryLevel.OFF if local else chosen or _configured(machine)
    if wanted is TelemetryLevel.DEBUG and not asking:
        raise ConfigError("level debug", "", "needs a person at a terminal, and --yes is none; nothing was changed")
    if not asking and not yes:
        raise ConfigError("opt-in", "", "there is no terminal to ask on; nothing was changed", "--yes")
    _check(machine)
    screen = Screen(err=True)
    if not yes and not local and chosen is None and _local_first(screen, machine):
        wanted = TelemetryLevel.OFF
    elif not _agreed(screen, machine, wanted, yes):
        click.echo("Nothing was changed.", err=True)
        click.get_current_context().exit(1)
    _write(machine, wanted)
    tell()


def _check(machine: Machine) -> None:
    """Refuse now what could not be used later. Raises ConfigError."""
    from .userfile import check_owner

    check_owner(machine.home.config)
    for to in machine.pipeline.configured:
        if fault := machine.fault(to):
            raise fault
    reporters = {to.plugin for to in machine.pipeline.configured}
    for name in sorted(machine.host.unloaded - reporters):
        raise ConfigError(machine.home.config, "telemetry.plugins", f"{name!r} {machine.host.failures[name]}")


def _configured(machine: Machine) -> TelemetryLevel:
    level = machine.situation.user.level
    return level if level not in (None, TelemetryLevel.OFF) else TelemetryLevel.MINIMAL


def _local_first(screen: Screen, machine: Machine) -> bool:
    from .offer import ask, show_destinations

    of = machine.application
    what = "your own runs" if of.is_cmdorc else f"your use of {of.name}"
    screen.below(0, ("On this machine only", "bold"), f": statistics of {what}. Nothing is shared with anybody.")
    show_destinations(screen, machine, local=True)
    screen.line()
    return ask("Record on this machine only?")


def _agreed(screen: Screen, machine: Machine, wanted: TelemetryLevel, yes: bool) -> bool:
    """Show what ``wanted`` means, and ask, unless ``yes`` did."""
    from .examples import Examples
    from .offer import ask, debug_question, show_destinations, show_exact, show_specs
    from .waiting import specs

    if wanted is TelemetryLevel.OFF:
        return yes or _local_first(screen, machine)
    screen.line(("Shared", "bold"), " at level ", (wanted.value, "bold"), ", with:")
    show_destinations(screen, machine, local=False)
    screen.line()
    show_specs(screen, machine, Examples(machine, wanted), list(specs(machine)), wanted)
    show_exact(screen)
    screen.line()
    if not yes and not ask("Record, and share this?"):
        return False
    return wanted is not TelemetryLevel.DEBUG or ask(debug_question())


def _write(machine: Machine, wanted: TelemetryLevel) -> None:
    """Identity, the user's file, the decision, the destinations' cursors: all or nothing. Raises StorageError."""
    from .. import clock
    from ..consent import save_decision
    from ..declarations import identities
    from ..identity import ensure_identity
    from .userfile import edit, setting

    home, shares = machine.home, wanted is not TelemetryLevel.OFF
    grants = _grants(machine, wanted, clock.utcnow())
    debug = wanted is TelemetryLevel.DEBUG
    with all_or_nothing(home):
        ensure_identity(home)
        edit(home.config, setting(
            enabled=True, level=wanted.value if shares else None, debug_consent_given=True if debug else None,
            debug_consent_expires=grants[machine.application.spec].debug_expires,
        ))  # fmt: skip
        save_decision(home, grants, identities(machine.pipeline.configured), declined={})
        Machine().pipeline.open_spool().close()  # what is recorded from now on is for the destinations of now


def _grants(machine: Machine, wanted: TelemetryLevel, now: datetime) -> dict[str, Grant]:
    """A yes to every spec that was shown; of those that are not there now, no more than to these."""
    from ..declarations import new_grant
    from .waiting import specs

    shown = {spec.meta.name: new_grant(spec, wanted, now) for spec in specs(machine)}
    consent = machine.situation.consent
    others = {name: grant._replace(share=min(grant.share, wanted))
              for name, grant in (consent.grants if consent else {}).items()}  # fmt: skip
    return {**others, **shown}


@contextmanager
def all_or_nothing(home: Home) -> Iterator[None]:
    """Where the body fails, or Ctrl-C ends it, everything is as it was."""
    paths = [home.config.resolve(), home.consent, home.install_id, home.salt]
    before = {path: _content(path) for path in paths}
    new = not home.telemetry.exists()
    try:
        yield
    except BaseException:
        for path, data in before.items():
            with suppress(OSError, StorageError):
                if data is None:
                    path.unlink(missing_ok=True)
                elif _content(path) != data:
                    files.replace(path, data)
        if new:
            shutil.rmtree(home.telemetry, ignore_errors=True)
            with suppress(OSError):  # there is something else in it
                home.root.rmdir()
        raise


def _content(path: Path) -> bytes | None:
    try:
        return None if files.is_foreign(path) else files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def tell() -> None:
    """Say what is in force now, and what to do about it."""
    from .screen import Screen

    after = Machine()
    policy = after.situation.policy()
    screen = Screen()
    screen.line(*first_line(policy.record, policy.share.value))
    screen.line()
    for limit in policy.limits:
        screen.warn(f"Lowered by {limit}.")
    for name, (lack, fix) in after.missing.items():
        screen.warn(f"{name}: {lack}. Events wait for it.", fix)
    local = policy.record and policy.share is TelemetryLevel.OFF
    screen.labelled([("The bytes", the_bytes(local=local)), ("State", command_line("status")),
                     ("Stop", command_line("opt-out"))])  # fmt: skip
