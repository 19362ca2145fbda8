"""Telemetry for one test: a home of its own that is gone afterwards, a decision that is already made, no network.

What was recorded there is asked for by the name of an event, what was withheld by ``violations``.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from types import TracebackType

from .. import clock
from ..application import CMDORC, Application
from ..config import TelemetryLevel
from ..consent import Grant, save_decision
from ..declarations import new_grant
from ..files import FileLock, own_dir
from ..home import Home
from ..spec import TelemetryRegistry
from ..spec.versions import Version, major
from ..spool import Spool
from ..telemetry import Telemetry
from ..tracker import TelemetryTracker, application_of
from ..types import View
from .observed import Observed, Withheld
from .recorded import Reader, Recorded
from .sources import Source, declared, registry_of

_KEEPS = "code-sandbox"
"""A destination as code has it that gets everything and takes nothing: whatever processes deliver, each event stays."""


class Sandbox:
    """A home for one test, as if its user had said yes. A context manager; or ``start`` and ``stop``.

    ``sources`` is an application, or specs, their files or a registry, of one that is called like the first of them;
    cmdorc where there is none.
    ``share`` is the level that its user agreed to: ``off`` records and shares nothing, None leaves it undecided.
    ``strict``: whatever is wrong with an event is raised, also by trackers of the application's own that are lenient.
    """

    def __init__(
        self, *sources: Source, share: TelemetryLevel | str | None = TelemetryLevel.STANDARD, strict: bool = True
    ) -> None:
        self._registry = registry_of(sources or (CMDORC,))
        self.application = _application(sources, self._registry)
        self.strict = strict
        self._observed = Observed(strict=strict)
        self._share = None if share is None else TelemetryLevel.parse(share, "Sandbox", "share")
        self._home: Home | None = None
        self._owner: FileLock | None = None
        self._undo = ExitStack()

    # -- what a test asks ---------------------------------------------------------------------------------------------

    def recorded(self, event: str, version: Version | None = None) -> list[Recorded]:
        """The events of that name, and version, in their order: each a dictionary of its own properties.

        Whoever recorded them, this process or one that it started. Raises ValueError where no spec declares it.
        """
        declared(self._registry, event, version)
        wanted = None if version is None else major(version)
        return [each for each in self._reader(self.home) if each.event == event and wanted in (None, each.version)]

    def violations(self) -> list[Withheld]:
        """What this process withheld of the events that it tracked, with the reason, and how often."""
        return self._observed.counts()

    @property
    def home(self) -> Home:
        """Where everything is, for as long as the sandbox is on. Raises RuntimeError before and afterwards."""
        if self._home is None:
            raise RuntimeError("there is a home only between start and stop: ask within the `with` block")
        return self._home

    @cached_property
    def telemetry(self) -> Telemetry:
        """For an application that is handed one."""
        return Telemetry.start(self.application)

    @cached_property
    def tracker(self) -> TelemetryTracker:
        """Likewise; strict where the sandbox is."""
        return TelemetryTracker(self.telemetry)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(os.environ, self._registry, _KEEPS)

    # -- what a test says ---------------------------------------------------------------------------------------------

    def decide(self, share: TelemetryLevel | str | None) -> None:
        """Let the user decide otherwise: a level, ``off`` for recording alone, None for no."""
        level = None if share is None else TelemetryLevel.parse(share, "decide", "share")
        now = clock.utcnow()
        save_decision(self.home, {
            spec.meta.name: Grant() if level is None else new_grant(spec, level, now) for spec in self._registry
        })  # fmt: skip
        if level is not None:
            self._keep()
        self._observed.follow()

    def _keep(self) -> None:
        """From now on every event stays, for as long as the lock says that who wants it lives."""
        if self._owner is None:
            self._owner = FileLock(own_dir(self.home.locks) / f"{_KEEPS}.owner")
            self._owner.acquire(wait=False)
        with closing(Spool(self.home.spool)) as spool:
            spool.adopt(View(name=_KEEPS, audience="private", identity=_KEEPS), _KEEPS)

    def start(self) -> Sandbox:
        """Make the home and lead everything there."""
        with ExitStack() as undo:
            self._lead(Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="telemetry-sandbox-"))), undo)
            self._home = Home.of(self.application)
            if self._share is not None:
                self.decide(self._share)
            undo.callback(self._observed.stop)
            self._observed.start()
            self._undo = undo.pop_all()
        return self

    def _lead(self, folder: Path, undo: ExitStack) -> None:
        """Let every variable that telemetry reads lead here, or nowhere."""
        unset = ("DO_NOT_TRACK", *(name for each in (CMDORC, self.application)
                                   for name in (each.variable, each.config_variable)))  # fmt: skip
        homes = {each.home_variable: str(folder / each.name) for each in (CMDORC, self.application)}
        for name in (*unset, *homes):
            undo.callback(_set, name, os.environ.get(name))
            _set(name, homes.get(name))

    def stop(self) -> None:
        """End whatever records, and delete the home.

        Raises AssertionError where the sandbox is strict, something was withheld that was raised to nobody (what an
        operation sends, or an event that was recorded without a tracker), and nobody asked for ``violations``.
        """
        self._home = None
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        self._undo.close()
        if self.strict and (silent := self._observed.silent):
            raise AssertionError("\n".join(("something was withheld:", *map(str, silent))))

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None:
            self._observed.silent.clear()  # the test has failed already, for whatever it says itself
        self.stop()


def _application(sources: tuple[Source, ...], registry: TelemetryRegistry) -> Application:
    """The application among ``sources``, or the one that these stand for."""
    if not sources:
        return CMDORC
    if len(sources) > 1 and any(isinstance(source, Application) for source in sources):
        raise TypeError("found an Application among other sources; expected it alone, or specs alone")
    return sources[0] if isinstance(sources[0], Application) else application_of(registry)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
