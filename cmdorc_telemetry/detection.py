"""Detectors as destinations of the user's own: events go in, alerts come out, what was learnt is kept in between.

What a detector has learnt is written down with the number of the last event in it, before that batch is acknowledged. A
batch that comes again, because a process was killed in between, is known by its numbers: each event is learnt once. So
are alerts: those that were found are written down with it, then raised, then struck out. One that was raised by a
process that was killed right then is raised again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from . import clock, files
from .application import Application
from .capture import Capture, Hasher, machine_fields
from .config import DETECTOR, TelemetryLevel
from .decoding import decode
from .delivery import Destination
from .detector import STATE_BYTES, Detector
from .errors import PluginError, RetryLater, StorageError, told
from .home import Home
from .identity import ensure_identity
from .journal import Journal
from .plugins import PluginHost
from .reporter import TelemetryReporter
from .situation import Situation
from .spec import CORE, TelemetrySpec, load_spec
from .types import Anomaly, Batch, BatchEvent, BatchResult, Leased, Ledger, View
from .wording import clean

log = logging.getLogger("cmdorc_telemetry")

EVENT = "anomaly_detected"
"""Recorded for each alert, and shown to no detector: it would find anomalies in its own."""
_VERSION = 1
_PROGRAM = frozenset({"cmdorc_version", "app_name", "app_version"})


class Kept(Struct, array_like=True):
    """What is written down between two batches."""

    version: int = _VERSION
    epoch: str = ""
    """Whose numbers ``seq`` is one of."""
    seq: int = 0
    """The last event that was learnt from."""
    alerts: list[Anomaly] = field(default_factory=list)
    """Those that are still to be raised."""
    state: bytes = b""
    """What the detector gave."""


class DetectorReporter(TelemetryReporter):
    """Feeds one detector. ``make`` gives a new one, ready to learn; ``alert`` raises an alert and records it."""

    def __init__(
        self, make: Callable[[], Detector], path: Path, alert: Callable[[Anomaly, Mapping[str, Any]], None],
        complain: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self._make, self._path, self._alert, self._complain = make, path, alert, complain
        self._detector: Detector | None = None
        self._kept = Kept()
        self._written: tuple[int, int] | None = None
        """The file that what is known here stands in: another process may have gone on meanwhile."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Not called: batches are."""

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        """Learn from a batch, once. Raises RetryLater where what was learnt cannot be kept."""
        detector = self._opened()
        self._raise({})
        seen = self._kept.seq if self._kept.epoch == batch.epoch else 0
        new = [each for each in batch.events if each.seq == 0 or each.seq > seen]
        if new:
            last: dict[str, Any] | None = None
            alerts = []
            for each in new:
                if each.event != EVENT:
                    last = each.payload
                    alerts += self._watched(detector, each, last)
            if last is not None:
                moment = _moment(last)
                alerts += self._called(lambda: _checked(detector.check(moment)))
            self._keep(Kept(_VERSION, batch.epoch, max(each.seq for each in new), alerts, self._saved(detector)))
            self._raise(last or {})
        return None

    def _watched(self, detector: Detector, event: BatchEvent, payload: dict[str, Any]) -> list[Anomaly]:
        found = self._called(lambda: _checked(detector.score_one(event.event, payload)))
        self._called(lambda: _learnt(detector, event.event, payload))
        return found

    def _called(self, call: Callable[[], list[Anomaly]]) -> list[Anomaly]:
        """What a call of somebody else's code gives; nothing where it fails, which is told."""
        try:
            return call()
        except BaseException as fault:  # not the user's Ctrl-C: this is no main thread
            self._complain(fault)
            return []

    def _saved(self, detector: Detector) -> bytes:
        try:
            state: object = detector.save()  # code of somebody else
            if not isinstance(state, bytes) or len(state) > STATE_BYTES:
                raise PluginError(f"save() gave what is no bytes, or more than {STATE_BYTES} of them")
        except BaseException as fault:
            self._complain(fault)
            return b""
        return state

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _opened(self) -> Detector:
        """The detector, knowing all that was learnt so far, whoever learnt it."""
        if self._detector is None or self._written != _identity(self._path):
            self._detector = None
            self._kept, self._written = self._read(), _identity(self._path)
            self._detector = self._restored(self._kept.state)
        return self._detector

    def _restored(self, state: bytes) -> Detector:
        detector = self._make()
        if state:
            try:
                detector.restore(state)
            except BaseException as fault:
                log.info("%s begins anew: %s", self._path.parent.name, told(fault))
                return self._make()
        return detector

    def _read(self) -> Kept:
        try:
            kept = msgspec.msgpack.decode(files.read(self._path), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (msgspec.MsgspecError, RecursionError) as fault:
            log.warning("%s could not be read and was moved to %s: %s", self._path, files.set_aside(self._path), fault)
            return Kept()
        if kept.version > _VERSION:
            raise RetryLater(f"{self._path} was made by a newer version of cmdorc-telemetry")
        return kept

    def _keep(self, kept: Kept) -> None:
        """Write down what was learnt. Raises RetryLater, and forgets it, where that cannot be done."""
        try:
            self._write(kept)
        except StorageError as fault:
            self._detector = None
            raise RetryLater(str(fault)) from fault

    def _write(self, kept: Kept) -> None:
        files.private_dir(self._path.parent.parent)
        files.private_dir(self._path.parent)
        files.replace(self._path, msgspec.msgpack.encode(kept))
        self._kept, self._written = kept, _identity(self._path)

    def _raise(self, payload: Mapping[str, Any]) -> None:
        """Raise the alerts that wait for it. ``payload``: of the last event that was learnt from."""
        if self._kept.alerts:
            for each in self._kept.alerts:
                self._alert(each, payload)
            self._kept = msgspec.structs.replace(self._kept, alerts=[])
            with suppress(StorageError):  # they were raised: another process may do it again, this one does not
                self._write(self._kept)


def _learnt(detector: Detector, event: str, payload: dict[str, Any]) -> list[Anomaly]:
    detector.learn_one(event, payload)
    return []


def _checked(found: Iterable[Anomaly]) -> list[Anomaly]:
    """The alerts, each as it can be kept and recorded: what fields hold is for the detector to say."""
    alerts = []
    for each in found:
        if not isinstance(each, Anomaly):
            raise PluginError(f"gave a {type(each).__name__} instead of an Anomaly")
        alerts.append(msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=Anomaly))
    return alerts


def _moment(payload: Mapping[str, Any]) -> float:
    """When an event was; now, where it does not say so."""
    try:
        return msgspec.convert(payload.get("timestamp"), datetime, strict=False).timestamp()
    except msgspec.ValidationError:
        return clock.wall()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _view(name: str) -> View:
    return View(name=name, audience="private", identity=name)


class Detection:
    """The detectors of the enabled plugins."""

    def __init__(
        self, host: PluginHost, home: Home, specs: Iterable[TelemetrySpec], now: Callable[[], Situation]
    ) -> None:  # fmt: skip
        """``now``: what holds at the moment."""
        self._host, self._home, self._specs, self._now = host, home, tuple(specs), now
        self._classes = host.detectors()

    def views(self) -> list[View]:
        """What detectors get to see: everything, as the history does."""
        return [_view(DETECTOR + name) for name in self._classes]

    def absent(self, ledgers: Mapping[str, Ledger]) -> list[View]:
        """Detectors that were there before and may be in a plugin that cannot be loaded here: they are waited for."""
        there = {view.name for view in self.views()}
        names = [name for name, ledger in ledgers.items() if name.startswith(DETECTOR) and not ledger.removed]
        return [_view(name) for name in names if self._host.unloaded and name not in there]

    def routes(
        self, body: Callable[[Leased], bytes | None], refresh: Callable[[], object]
    ) -> Iterator[Destination]:  # fmt: skip
        """Where workers send to. ``body``: what such a destination gets of an event."""
        for name in self._classes:
            yield Destination(DETECTOR + name, self._maker(name), body, refresh=refresh)

    def _maker(self, name: str) -> Callable[[], TelemetryReporter]:
        def complain(fault: BaseException) -> None:
            self._host.fail(name, f"raised {type(fault).__name__}: {fault}", "report it to its author",
                            logged=f"raised {told(fault)}")  # fmt: skip

        path = self._home.plugins / name / "learnt"
        return lambda: DetectorReporter(lambda: self._made(name), path, self._alert, complain)

    def _made(self, name: str) -> Detector:
        """A new detector. Raises ConfigError for its settings, and what it raises itself: then its events wait."""
        user, class_ = self._now().user, self._classes[name]
        written, key = dict(user.settings.get(name, {})), f"telemetry.settings.{name}"
        settings = decode(written, class_.Settings, user.source, key=key)
        detector = class_(settings)
        detector.watch(self._specs)
        return detector

    # -- alerts ------------------------------------------------------------------------------------------------------

    def _alert(self, anomaly: Anomaly, payload: Mapping[str, Any]) -> None:
        """Do what is to be done about an anomaly."""
        if "log" in anomaly.actions:
            text = anomaly.message or f"{anomaly.event}: {anomaly.metric} is {anomaly.kind} its bound"
            log.warning("%s", clean(text))
        if "alert" in anomaly.actions:
            self._host.announce(anomaly)
        try:
            self._record(anomaly, payload)
        except (StorageError, OSError) as fault:
            log.warning("the anomaly was not recorded: %s", fault)

    def _record(self, anomaly: Anomaly, payload: Mapping[str, Any]) -> None:
        """Journal the event that tells of it, as any program would: it comes in through the gate like all others.

        Of cmdorc it is an event of the core's spec. Any other application has it where one of its own specs declares
        it, with as many of these properties as that has.
        """
        situation = self._now()
        application = situation.application
        spec = load_spec(CORE) if application.is_cmdorc else self._declaring()
        if spec is None or not situation.policy(layered=False, spec=spec.meta.name).record:
            return
        policy = situation.policy(layered=False)
        identity = ensure_identity(self._home)
        base = {**_program(payload, application), **machine_fields(), "anonymous_install_id": identity.install_id}
        capture = Capture([spec], base)
        hasher = Hasher(identity.salt) if policy.share is TelemetryLevel.DEBUG else None
        declared = {name for event in spec.events if event.name == EVENT for name in event.properties}
        properties = {name: value for name, value in properties_of(anomaly, hasher).items() if name in declared}
        journal = Journal(self._home.journal, policy.stamp, bounds=situation.user.bounds, sync=situation.user.sync)
        try:
            if (record := capture.record(EVENT, properties)) is not None:
                journal.append(record)
        finally:
            journal.close()

    def _declaring(self) -> TelemetrySpec | None:
        """The spec in force that declares the event; a plugin's may, too."""
        return next((spec for spec in self._specs if any(event.name == EVENT for event in spec.events)), None)


def _program(payload: Mapping[str, Any], application: Application) -> dict[str, str]:
    """The base fields that say what program it was: that of the event which gave rise to it, where that says so."""
    said = {name: payload[name] for name in _PROGRAM - application.foreign_fields if isinstance(payload.get(name), str)}
    return {**application.base, **said}


def properties_of(anomaly: Anomaly, hasher: Hasher | None) -> dict[str, Any]:
    """The own fields of ``anomaly_detected``. Pure."""
    statistic, call, _ = anomaly.metric.partition("(")
    properties: dict[str, Any] = {
        "metric": statistic if call else anomaly.metric, "kind": anomaly.kind, "sample_count": anomaly.sample_count,
        "message": anomaly.message[:500],
    }  # fmt: skip
    if anomaly.threshold:
        properties["ratio"] = anomaly.value / anomaly.threshold
    if anomaly.group is not None and anomaly.group_by == "command_name":
        properties["command_name"] = anomaly.group[:200]
        if hasher is not None:
            properties["hashed_command_name"] = hasher(anomaly.group)
    return properties
