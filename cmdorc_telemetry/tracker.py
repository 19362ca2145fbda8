"""How an application tracks events of its own specs: the same capture, journal and destinations as cmdorc's events.

Lenient, as a program should be where its users have it: whatever is wrong with an event is withheld and counted, and
nothing is raised. Strict, for whoever develops it: what is wrong is raised, also where telemetry is off.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, OperationError, TelemetryError, TelemetryViolation, told
from .forks import on_fork
from .results import Reason, Result, Violation
from .telemetry import Telemetry

if TYPE_CHECKING:
    from .application import Application
    from .capture import Check, Declared, Events
    from .monitor import TelemetryAnomalyMonitor
    from .operations import Tracked
    from .reporter import TelemetryReporter
    from .spec import Event, Operation, Outcome, TelemetryRegistry, Version

log = logging.getLogger("cmdorc_telemetry")

MOST_COUNTED = 1000
"""So many different violations are counted each by itself; further ones together, under names that are empty."""

_WITHHELD = Result.WITHHELD
"""What all of `track` costs while telemetry is off is to hand this back."""


class TelemetryTracker:
    """Tracks events. Threads and forked children may share one.

    ``strict`` raises what is wrong with an event, and then records nothing of it. ``on_violation`` gets everything
    that is wrong: what it raises is logged, or raised where the tracker is strict. ``anomaly_monitor`` sees what is
    captured.
    """

    def __init__(
        self, telemetry: Telemetry, *, strict: bool = False, on_violation: Callable[[Violation], object] | None = None,
        anomaly_monitor: TelemetryAnomalyMonitor | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(telemetry, Telemetry):
            raise ConfigError("TelemetryTracker", "telemetry", f"found {type(telemetry).__name__}",
                              "a Telemetry: TelemetryTracker.start makes one of an Application")  # fmt: skip
        self.telemetry = telemetry
        self._strict, self._on_violation, self._monitor = strict, on_violation, anomaly_monitor
        self._violations: dict[tuple[str, str, Reason], int] = {}
        self._lock = threading.RLock()  # a signal's handler may track, too
        self._known: Events | None = None
        self._checks: dict[tuple[str, Version], Check] = {}
        on_fork(self)

    @classmethod
    def start(
        cls, source: Application | TelemetryRegistry, *, providers: Iterable[TelemetryReporter] = (),
        strict: bool = False, on_violation: Callable[[Violation], object] | None = None,
        anomaly_monitor: TelemetryAnomalyMonitor | None = None, environ: Mapping[str, str] | None = None,
    ) -> TelemetryTracker:  # fmt: skip
        """Telemetry and a tracker in one line. ``providers`` are reporters beside the destinations that users have.

        A registry stands for an application that is called like its first spec. Raises ConfigError.
        """
        telemetry = Telemetry.start(application_of(source), reporters=_reporters(providers), environ=environ)
        return cls(telemetry, strict=strict, on_violation=on_violation, anomaly_monitor=anomaly_monitor)

    def forked(self) -> None:
        """A thread of the parent's may have held the lock."""
        self._lock = threading.RLock()

    # -- events ------------------------------------------------------------------------------------------------------

    async def track(
        self, name: str, version: Version | None, properties: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
    ) -> Result:  # fmt: skip
        """Like ``track_now``, which takes microseconds and awaits nothing."""
        return self.track_now(name, version, properties, context)

    def track_now(
        self, name: str, version: Version | None, properties: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
    ) -> Result:  # fmt: skip
        """Track an event; its latest version where ``version`` is None.

        Withheld where telemetry is off, or nobody agreed to its spec, or it lacks what it requires. A property that is
        undeclared or invalid is withheld alone. Strict: raises TelemetryViolation for any of these but the first two.
        """
        if self._strict:
            self._demand(name, version, properties, context)
        elif not self.telemetry.recording:
            return _WITHHELD
        try:
            return self._tracked(name, version, properties, context)
        except Exception as fault:  # telemetry's own matter
            log.warning("an event could not be tracked: %s", told(fault))
            return _WITHHELD

    def emit(self, event: str, version: Version | None, properties: Mapping[str, Any]) -> Result:
        """Track an event of which some properties fill themselves: those that it does not declare are left out.

        Never raises: what is wrong is counted, and logged where the tracker is strict.
        """
        if not (self._strict or self.telemetry.recording):
            return Result.WITHHELD
        try:
            check = self._check(event, version)
            known = properties if check is None else {
                name: value for name, value in properties.items() if check.declares(name)
            }  # fmt: skip
            return self.track_now(event, version, known)
        except (Exception, SystemExit) as fault:
            log.warning("%s", fault if isinstance(fault, TelemetryError) else told(fault))
            return Result.WITHHELD

    def operation(
        self, name: str, *, success: str | Outcome | None = None, failure: str | Outcome | None = None
    ) -> Tracked:
        """An operation that is tracked: a decorator, and a context manager, synchronous or not.

        Without outcomes it is one that a spec declares. Raises OperationError for one that none does, where the tracker
        is strict.
        """
        from .operations import Tracked, spec_operation

        operation = spec_operation(name, success, failure)
        if success is None and failure is None and (self._strict or self.telemetry.recording):
            operation = self._operation(name) or operation
        return Tracked(self, operation)

    # -- what was wrong ----------------------------------------------------------------------------------------------

    @property
    def violations(self) -> Mapping[tuple[str, str, Reason], int]:
        """How often what was wrong with which property of which event, so far."""
        with self._lock:
            return dict(self._violations)

    def violated(self, violations: tuple[Violation, ...]) -> None:
        """Count what is wrong with an event, and tell whoever wants to know."""
        with self._lock:
            for each in violations:
                key = (each.event, each.property, each.reason)
                if key not in self._violations and len(self._violations) >= MOST_COUNTED:
                    key = ("", "", each.reason)
                self._violations[key] = self._violations.get(key, 0) + 1
        if self._on_violation is None:
            return
        for each in violations:
            try:
                self._on_violation(each)
            except (Exception, SystemExit) as fault:
                if self._strict:
                    raise
                log.warning("on_violation failed: %s", told(fault))

    def accepted(self, event: Event, own: bytes) -> None:
        """Nothing to do: without a monitor nobody looks at what is captured."""

    # -- the end -----------------------------------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Import and send all there is. Whether nothing waits any more. Blocks up to ``timeout`` seconds."""
        return self.telemetry.flush(timeout)

    def close(self) -> None:
        """End delivery; one under way gets at most 50 ms. What is left is sent by the next process."""
        self.telemetry.close()

    async def aclose(self) -> None:
        """Like ``close``, without holding up the event loop."""
        await self.telemetry.aclose()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _tracked(
        self, name: str, version: Version | None, properties: Mapping[str, Any], context: Mapping[str, Any] | None
    ) -> Result:
        watching = self if self._monitor is None else _Watching(self, self._monitor)
        result = self.telemetry.track(name, properties, version=version, context=context, witness=watching)
        if result is Result.UNKNOWN:
            self.violated((self._unknown(name, version),))
        elif result and isinstance(watching, _Watching):
            watching.done()
        return result

    def _demand(
        self, name: str, version: Version | None, properties: Mapping[str, Any], context: Mapping[str, Any] | None
    ) -> None:
        """Raises TelemetryViolation where anything is wrong."""
        check = self._check(name, version)
        wrong = (self._unknown(name, version),) if check is None else check.own(properties, context)[1]
        if wrong:
            self.violated(wrong)
            raise TelemetryViolation(*wrong)

    def _events(self) -> Events:
        if self._known is None:
            from . import clock
            from .capture import Events

            self._known = Events(self.telemetry.registry, clock.day(clock.wall()))
        return self._known

    def declared(self, name: str, version: Version | None) -> Declared | None:
        """An event, and the spec that declares it; None for one that none does."""
        return self._events().find(name, version)

    def _check(self, name: str, version: Version | None) -> Check | None:
        from .capture import Check

        found = self.declared(name, version)
        if found is None:
            return None
        key = (found.event.name, found.event.version)
        return self._checks.get(key) or self._checks.setdefault(key, Check(found.event))

    def _unknown(self, name: str, version: Version | None) -> Violation:
        from .capture import no_such_event

        return no_such_event(name, version, self._events())

    def _operation(self, name: str) -> Operation | None:
        """What the latest spec that declares an operation says of it."""
        for spec in reversed(list(self.telemetry.registry)):
            for each in spec.operations:
                if each.name == name:
                    return each
        fault = OperationError(f"operation {name!r} is declared by no spec; expected success=, failure= or both")
        if self._strict:
            raise fault
        log.warning("%s", fault)
        return None


class _Watching:
    """Keeps what is left of one event for the monitor, which sees it when it is recorded."""

    def __init__(self, tracker: TelemetryTracker, monitor: TelemetryAnomalyMonitor) -> None:
        self._tracker, self._monitor = tracker, monitor
        self._seen: tuple[Event, bytes] | None = None

    def violated(self, violations: tuple[Violation, ...]) -> None:
        self._tracker.violated(violations)

    def accepted(self, event: Event, own: bytes) -> None:
        self._seen = (event, own)

    def done(self) -> None:
        """The event is recorded. Where its spec has anomaly detection off, nobody looks at it."""
        assert self._seen is not None  # what is recorded was accepted
        event, own = self._seen
        if not self._monitor.judges(event):
            return
        found = self._tracker.declared(event.name, event.version)
        if found is None or found.spec.config.anomaly_detection:
            self._monitor.observe(event, own)


def _reporters(providers: Iterable[object]) -> tuple[TelemetryReporter, ...]:
    found = []
    for number, each in enumerate(providers):
        from .reporter import TelemetryReporter  # whoever has one has imported it

        if not isinstance(each, TelemetryReporter):
            raise ConfigError("TelemetryTracker.start", f"providers[{number}]", f"found {type(each).__name__}",
                              "a TelemetryReporter")  # fmt: skip
        found.append(each)
    return tuple(found)


def application_of(source: Application | TelemetryRegistry) -> Application:
    """The application that a registry stands for: it is called like its first spec."""
    from .application import Application

    if isinstance(source, Application):
        return source
    from .spec import TelemetryRegistry

    if not isinstance(source, TelemetryRegistry):
        raise ConfigError("TelemetryTracker.start", "", f"found {source!r}", "an Application, or a TelemetryRegistry")
    specs = tuple(source)
    return Application(specs[0].meta.name.removesuffix(".telemetry") if specs else "unnamed", specs=specs)
