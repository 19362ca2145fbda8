"""Who may hold something of this install, and asking them to erase it; what they answer is entered in ``erasure.toml``.

Nobody is asked while something of the id may still be sent to them, for that would make the install there anew.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import clock
from ..config import DestinationConfig, is_built_in
from ..consent import Consent, load_consent, renew
from ..destinations import make_reporter
from ..erasure import Owed, load_owed, note, strike
from ..errors import ConfigError, ConsentError, Rejected, StorageError, TelemetryError
from ..files import FileLock
from ..home import Home
from ..identity import Identity, drop_identity
from ..reporter import TelemetryReporter
from .machine import Machine
from .wording import address, clean, command_line

ERASE_SECONDS = 10.0
"""How long all of them together have to answer."""
INTERRUPTED = 130
FILE = "file"
"""The reporter that writes to this machine: ``local_file`` is short for a destination of it."""
_PAUSE_SECONDS = 0.005
_SETTING = re.compile(r" (?=\w+=)")
"""Before each setting in where a destination leads."""
_WRITTEN = re.compile(r" path=(.*?)(?= \w+=|$)")


class Answer(NamedTuple):
    """What became of one destination that owes an erasure."""

    name: str
    text: str
    done: bool
    """Whether nothing of the id is asked for there any more."""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def reached(home: Home) -> dict[str, str]:
    """Every destination that may have got the id of now → where it leads: those agreed to, and those of the spool.

    Where one led elsewhere before, that place is there beside it, with the place behind the name.
    """
    from ..spool import Spool

    known: dict[str, str] = {}
    former: list[tuple[str, str]] = []
    with suppress(StorageError), closing(Spool(home.spool, reading=True)) as spool:  # else, those agreed to are known
        known, former = spool.identities(_since(home)), spool.former(_since(home))
    consent = _decision(home)
    agreed = consent.destinations if consent is not None else {}
    former += [each for each in known.items() if agreed.get(each[0], each[1]) != each[1]]
    known |= agreed
    known |= {f"{name} ({address(lead)})": lead for name, lead in former if known.get(name) != lead}
    return {name: lead for name, lead in known.items() if not is_built_in(name)}


def _since(home: Home) -> float:
    """Since when there has been the id of now."""
    try:
        return os.stat(home.install_id).st_mtime
    except OSError:
        return 0.0


def give_up(machine: Machine | None, home: Home, identity: Identity | None, *, here: bool = False) -> None:
    """Note that the id of ``identity`` is to be erased wherever it may be; from here on it is nobody's.

    But for the lines of ``file``, which nobody has to be asked to delete. ``here``: on this machine alone. ``machine``
    is None where the configuration cannot be read. Raises StorageError: then nothing was changed.
    """
    destinations = {name: lead for name, lead in reached(home).items()
                    if lead.partition(" ")[0] != FILE and not (here and _on_disk(name, lead) is None)}  # fmt: skip
    for to in () if machine is None else machine.pipeline.configured:
        if destinations.get(to.name) == to.identity:  # a variable may lead elsewhere next time: what it says now counts
            destinations[to.name] = _lead(to, os.environ)
    if identity is not None and destinations:
        consent = _decision(home)
        generation = "" if consent is None else consent.generation
        note(home, Owed(identity.install_id, generation, clock.iso(clock.wall()), destinations))


def _decision(home: Home) -> Consent | None:
    try:
        return load_consent(home)
    except ConsentError:  # then nothing is sent
        return None


def _lead(to: DestinationConfig, environ: Mapping[str, str]) -> str:
    """The identity of a destination, with what variables say; where one says nothing, with its name."""
    try:
        return to._replace(settings=to.resolved(environ)).identity
    except ConfigError:
        return to.identity


def _on_disk(name: str, lead: str) -> DestinationConfig | None:
    """The destination that led there, where that is a file of this machine: whoever wrote it can delete it, whatever
    the configuration says by now. None where it is more than that, or something else."""
    plugin, *places = _SETTING.split(lead)
    found: dict[str, Any] = dict(place.split("=", 1) for place in places)
    if "path" not in found or not found.keys() <= {"path", "port"}:
        return None
    if "port" in found:
        found["port"] = int(found["port"])
    return DestinationConfig(name, plugin, "private", settings=found, where="erasure.toml")


# -- asking ---------------------------------------------------------------------------------------------------------


def ask(machine: Machine, seconds: float) -> list[Answer]:
    """Ask everybody who owes an erasure, all at once. Raises StorageError where it cannot be read who does."""
    owed = load_owed(machine.home)
    if not owed:
        return []
    if fault := _unsafe(machine, owed):
        return [Answer(name, f"is not asked yet: {fault}", False) for each in owed for name in each.destinations]
    deadline = clock.monotonic() + seconds
    requests = [_Request(machine, each.install_id, name, lead, deadline)
                for each in owed for name, lead in each.destinations.items()]  # fmt: skip
    for request in requests:
        request.start()
    return [request.wait() for request in requests]


def _unsafe(machine: Machine, owed: tuple[Owed, ...]) -> str:
    """Why something recorded under an id that was given up may still be sent; empty where it cannot be.

    What was cut short between giving up an id and the decision that goes with it is ended here: the identity first,
    then the decision, as ``resetid.py`` says.
    """
    home = machine.home
    try:
        drop_identity(home, {each.install_id for each in owed})
        consent = load_consent(home)
        if consent is None:  # an operator's variable has no generations
            return "the opt-out was cut short, and has to be run again" if machine.recording else ""
        if any(each.generation == consent.generation or consent.shares(each.generation) for each in owed):
            renew(home)
    except ConsentError:  # then nothing is sent at all
        return ""
    except StorageError as fault:
        return str(fault)
    return ""


def quiet(path: Path, deadline: float, *, unlink: bool = False) -> bool:
    """Wait until whoever holds the lock of a destination has let go once: what is sent later follows the decision."""
    if not path.exists():
        return True
    lock = FileLock(path)
    while not lock.acquire(wait=False):
        if clock.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    lock.release(unlink=unlink)
    return True


def _reporter(machine: Machine, plugin: str) -> type[TelemetryReporter] | None:
    """The reporter of a plugin: of one that is disabled, too, since to erase what it wrote is what was asked for."""
    from ..plugins import PluginHost

    pipeline, user = machine.pipeline, machine.situation.user
    if plugin in pipeline.classes or plugin in user.plugins:
        return pipeline.classes.get(plugin)
    host = PluginHost([plugin], destinations=[plugin])
    host.configure(user, machine.home, pipeline.registry)
    return host.reporters().get(plugin)


class _Request:
    """One destination, asked on a thread of its own: what a reporter does may hang in ways that no loop can end."""

    def __init__(self, machine: Machine, install_id: str, name: str, lead: str, deadline: float) -> None:
        self._machine, self._install_id, self._name = machine, install_id, name
        self._deadline = deadline
        self._answer = Answer(name, "is not asked yet: a batch is still on its way to it", False)
        self._place = name.partition(" ")[0]
        now = next((to for to in machine.pipeline.configured if to.name == self._place), None)
        leads_there = now is not None and lead in (_lead(now, machine.situation.environ), now.identity)
        self._to = now if leads_there else _on_disk(self._place, lead)
        self._class = None if self._to is None else _reporter(machine, self._to.plugin)
        self._thread: threading.Thread | None = None
        if self._class is not None:
            self._thread = threading.Thread(target=self._run, name=f"erase-{name}", daemon=True)
            return
        if self._to is not None:
            lack, fix = machine.missing.get(self._place) or (f"plugin {self._to.plugin} is not there, or broken",
                                                             command_line("plugins"))  # fmt: skip
            why = f"cannot be asked: {lack}: {fix}"
        elif now is None:
            source = machine.situation.user.source
            why = f"cannot be asked: it is not in {source} any more (it was {address(lead)})"
        else:
            why = f"is not asked: it leads elsewhere now (it was {address(lead)})"
        written = _WRITTEN.search(lead)
        self._say(f"{why}. Delete {written[1]} yourself" if written else why)

    def _say(self, text: str, done: bool = False) -> None:
        self._answer = Answer(self._name, text, done)

    def start(self) -> None:
        """Ask, if there is somebody to ask."""
        if self._thread is not None:
            self._thread.start()

    def wait(self) -> Answer:
        """What came of it within the time that there is."""
        if self._thread is not None:
            self._thread.join(max(self._deadline - clock.monotonic(), 0.0))
        return self._answer

    def _run(self) -> None:
        locks = self._machine.home.locks  # also of who took over from a process that was stopped
        if not all(quiet(locks / f"{self._place}{kind}.lock", self._deadline) for kind in ("", ".heir")):
            return
        self._say("gave no answer in time")
        try:
            text, done = asyncio.run(self._asked())
            if done:
                strike(self._machine.home, self._install_id, self._name)
            self._say(text, done)
        except asyncio.TimeoutError:
            pass  # as if it hung
        except TelemetryError as fault:
            self._say(f"not confirmed: {fault}")
        except (Exception, SystemExit) as fault:
            self._say(f"not confirmed: {type(fault).__name__}: {fault}")

    async def _asked(self) -> tuple[str, bool]:
        assert self._to is not None
        assert self._class is not None
        reporter = make_reporter(self._class, self._to, self._machine.situation.environ)
        try:
            left = max(self._deadline - clock.monotonic(), 0.0)
            if await asyncio.wait_for(reporter.erase([self._install_id]), left):
                return "erased what it held of this install", True
        except Rejected as fault:
            return str(fault), True
        finally:
            await reporter.close()
        if type(reporter).erase is TelemetryReporter.erase:
            return f"has no way to erase what it was sent: whoever runs it may, by the id {self._install_id}", True
        return "did not confirm that it erased this install", False


# -- telling ----------------------------------------------------------------------------------------------------------


def told(machine: Machine, seconds: float) -> int:
    """Ask everybody who owes an erasure, and tell what became of it. The exit code."""
    try:
        answers = ask(machine, seconds)
    except KeyboardInterrupt:
        return interrupted(machine.home)
    for line in dict.fromkeys(map(str, answers)):  # of several ids that were given up, a server may say the same
        click.echo(clean(line), err=True)
    if all(answer.done for answer in answers):
        return 0
    _what_now()
    return 1


def interrupted(home: Home) -> int:
    """Tell what becomes of an erasure that Ctrl-C cut short. The exit code."""
    click.echo("Interrupted.", err=True)
    if load_owed(home):
        _what_now()
    return INTERRUPTED


def _what_now() -> None:
    rows = {"asks now": command_line("erase"), "drops even that": command_line("erase", "--forget")}
    width = max(map(len, rows.values()))
    click.echo(
        f"Kept is only the id that is to be erased, and where. Each {command_line()} command asks again.", err=True
    )
    for what, command in rows.items():
        click.echo(f"  {command.ljust(width)}  {what}", err=True)
