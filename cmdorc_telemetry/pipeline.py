"""The stages behind the journal, put together for the user of one home directory.

    journals on disk → gate → spool → delivery → destinations

Programs use it through ``telemetry.py``; commands use it directly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from . import clock
from . import journal as journals
from .bounds import PATIENCE_SECONDS
from .config import DestinationConfig, TelemetryLevel
from .consent import CORE_SPEC, waiting_fields
from .decoding import decode
from .delivery import Delivery, Destination
from .discovery import installed
from .errors import PluginError, StorageError
from .files import FileLock
from .gate import Gate
from .history import NAME as HISTORY
from .history import HistoryReporter
from .plugins import PluginHost
from .policy import allowed_destinations
from .reporter import TelemetryReporter
from .situation import Situation
from .spec import Level, Shapes, TelemetryRegistry, lower, project
from .spool import Spool
from .types import Gated, Leased, Row, View

log = logging.getLogger("cmdorc_telemetry")

_EXPIRE_SECONDS = 3600.0
_MANY_EVENTS = 100


def level_name(level: TelemetryLevel) -> Level | None:
    """A level as specs name it; None for OFF."""
    return None if level is TelemetryLevel.OFF else level.value


def make_reporter(
    class_: type[TelemetryReporter], to: DestinationConfig, environ: Mapping[str, str]
) -> TelemetryReporter:
    """The reporter of a destination, its settings checked. Raises ConfigError, PluginError."""
    settings = decode(to.resolved(environ), class_.Settings, to.where, key=f"telemetry.to.{to.name}")
    try:
        return class_(settings)
    except Exception as fault:
        raise PluginError(f"{class_.__name__} cannot be made: {fault}") from fault


def configured_destinations(
    situation: Situation, classes: Mapping[str, type[TelemetryReporter]]
) -> list[DestinationConfig]:
    """The destinations of the user's file, and one for each listed reporter that needs no settings."""
    configured = list(situation.user.destinations)
    served = {to.plugin for to in configured}
    for name, class_ in classes.items():
        if name in served or name not in situation.user.plugins:
            continue
        try:
            msgspec.convert({}, class_.Settings)
        except msgspec.ValidationError:
            continue
        configured.append(DestinationConfig(name, name, where=str(situation.user.source)))
    return configured


class Pipeline:
    """Imports, gates, stores and delivers. ``host`` holds the enabled plugins; ``registry`` the specs, also theirs."""

    def __init__(self, situation: Situation, host: PluginHost, registry: TelemetryRegistry | None = None) -> None:
        self.situation, self.host, self.home = situation, host, situation.home
        self.registry = host.registry() if registry is None else registry
        self.shapes = Shapes(list(self.registry))
        self.classes = host.reporters()
        self.anonymizers = host.anonymizers()
        self.configured = configured_destinations(situation, self.classes)
        self._consent_stamp: tuple[int, int] | None = None  # whatever was decided since `situation` was read counts
        self._levels: dict[tuple[str, str], Level | None] = {}
        self._made_gate: Gate | None = None
        self._own_drops: Mapping[str, int] = {}
        self._expired = 0.0
        self._newer_told = False
        self._decide()

    # -- the decision, which may change while we run --------------------------------------------------------------

    def _decide(self) -> None:
        self._levels.clear()
        consent = self.situation.consent
        self.policy = self.situation.policy(layered=False)
        self.grant = consent.grants.get(CORE_SPEC) if consent else None
        self.allowed, self.waiting = allowed_destinations(self.policy, self.grant, self.configured)

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.home.consent)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def refresh(self) -> bool:
        """Read the decision again where it was written since. Whether it was."""
        seen, self._consent_stamp = self._consent_stamp, self._read_stamp()
        changed = seen != self._consent_stamp
        if changed:
            self.situation = self.situation.again()
            self._made_gate = None
        self._decide()  # also because a consent to DEBUG may have expired
        return changed

    def level_of(self, stamped: str, spec: str) -> Level | None:
        """At which level something recorded under a stamp may be shared: the least of then, its program's, and now."""
        key = (stamped, spec)
        if key not in self._levels:
            self._levels[key] = self._level_of(stamped, spec)
        return self._levels[key]

    def _level_of(self, stamped: str, spec: str) -> Level | None:
        generation, _, cap = stamped.partition("/")
        now = self.policy if spec == CORE_SPEC else self.situation.policy(layered=False, spec=spec)
        consent = self.situation.consent
        if not now.record or cap not in [level.value for level in TelemetryLevel]:
            return None
        if now.decided_by == "you" and consent is not None:
            then = consent.level_of(generation, spec)
        else:
            then = now.share if generation == now.generation else TelemetryLevel.OFF
        return lower(lower(level_name(then), level_name(now.share)), level_name(TelemetryLevel(cap)))

    # -- import ---------------------------------------------------------------------------------------------------

    def open_spool(self) -> Spool:
        """The spool, with the destinations of now registered. Raises StorageError."""
        spool = Spool(self.home.spool, self.situation.user.bounds, self.situation.user.sync)
        if spool.moved_aside is not None:
            log.warning("the spool could not be read and was moved to %s; a new one was begun", spool.moved_aside)
        try:
            if self.policy.record:  # otherwise nobody asked for its destinations to go
                spool.register(self.views(), withdrawn=[to.name for to in self.waiting], owner_lives=self._owner_lives)
        except BaseException:
            spool.close()
            raise
        return spool

    def views(self) -> list[View]:
        """What each destination gets to see."""
        return [View(name=HISTORY, audience="private", identity=HISTORY), *(self._view(to) for to in self.allowed)]

    def _view(self, to: DestinationConfig) -> View:
        private, kinds = to.audience == "private", None
        if to.events is not None or (to.level is not None and not private):
            level = level_name(to.level or TelemetryLevel.DEBUG)
            kinds = frozenset(
                (spec.ref, event.name) for spec, event in self.shapes
                if (to.events is None or event.name in to.events) and (private or event.shared_at(level))
            )  # fmt: skip
        return View(name=to.name, audience="private" if private else "shared", identity=to.identity, kinds=kinds)

    def _owner_lives(self, owner: str) -> bool:
        lock = FileLock(self.home.locks / f"{owner}.owner")
        try:
            free = lock.acquire(wait=False)
        except OSError:
            return True
        lock.release(unlink=True)
        return not free

    def pump(self, spool: Spool, own: journals.Journal | None = None) -> bool:
        """Import every segment whose owner is gone, and ``own``. False: recording is switched off."""
        self.refresh()
        if not self.policy.record:
            return False
        for orphan in journals.orphans(self.home.journal):
            try:
                self._pump_orphan(spool, orphan)
            except OSError as fault:  # of this file; there are others
                log.debug("import of %s waits: %s", orphan.path, fault)
        if own is not None and own.path is not None:
            self._pump_own(spool, own, own.path)
        self._tend(spool)
        return True

    def _pump_orphan(self, spool: Spool, orphan: journals.Orphan) -> None:
        before = spool.offset(orphan.path.name)
        if before is None:
            orphan.discard()
            return
        try:
            segment = orphan.read(before)
        except journals.NewerSegment as fault:
            if not self._newer_told:
                log.warning("%s", fault)
            self._newer_told = True
            return
        except StorageError as fault:
            log.warning("%s; it was set aside", fault)
            # How many records it had, nobody knows: one at least, or nobody would have made it.
            spool.take_in(orphan.path.name, Gated(unreadable=1), before=before, after=before, drops={},
                          still_there=orphan.linked)  # fmt: skip
            orphan.set_aside()
            return
        if self._take_in(spool, segment, before, orphan.linked):
            orphan.discard()
            spool.finish(segment.name, clock.wall())

    def _pump_own(self, spool: Spool, own: journals.Journal, path: Path) -> None:
        before = spool.offset(path.name) or 0
        current = self.situation.policy().stamp
        try:
            segment = journals.read_live(path, before)
        except (FileNotFoundError, StorageError):  # deleted or overwritten by hand: go on in a new one
            own.rotate(current)
            return
        if segment.generation != current:
            own.rotate(current)
        news = segment.offset > max(before, journals.HEADER) or segment.drops != self._own_drops
        if news and self._take_in(spool, segment, before, path.exists):
            self._own_drops = segment.drops

    def _take_in(
        self, spool: Spool, segment: journals.Segment, before: int, still_there: Callable[[], bool]
    ) -> bool:  # fmt: skip
        gated = self._gate().gate(segment.records, segment.generation, segment.source)
        return spool.take_in(segment.name, gated, before=before, after=segment.offset, drops=segment.drops,
                             damaged=segment.damaged, slow=segment.slow, source=segment.source,
                             still_there=still_there)  # fmt: skip

    def _gate(self) -> Gate:
        if self._made_gate is None:
            self._made_gate = self._make_gate()
        return self._made_gate

    def _make_gate(self) -> Gate:
        consent = self.situation.consent
        withheld = {}
        if self.policy.decided_by == "you" and consent is not None:
            withheld = {spec.ref: waiting_fields(spec, consent.grants.get(spec.meta.name)) for spec in self.registry}
        return Gate(self.shapes, self.level_of, withheld=withheld, anonymizers=self.anonymizers, blocked=self.blocked())

    def blocked(self) -> str | None:
        """Why nothing at all may be shared: an enabled plugin that is not there may have been an anonymizer."""
        reporters = {to.plugin for to in self.configured}
        missing = sorted(self.host.unloaded - reporters)
        return f"plugin {missing[0]!r} could not be loaded, and may be an anonymizer" if missing else None

    def _tend(self, spool: Spool) -> None:
        """Keep the spool in bounds, and the mark that says since when something waits."""
        now = clock.wall()
        if now - self._expired > _EXPIRE_SECONDS:
            self._expired = now
            spool.expire(now, every=_EXPIRE_SECONDS)
        due = self._due(spool)
        if due is None:
            self.home.waiting.unlink(missing_ok=True)
        else:
            self.home.waiting.touch(mode=0o600)
            os.utime(self.home.waiting, (due, due))

    def _due(self, spool: Spool) -> float | None:
        """From when on any process, however young, should deliver; None where nothing waits.

        A pause after failures is kept by all. Many events do not wait: processes that all end soon would put them off
        for each other.
        """
        moments = []
        for name in (HISTORY, *(to.name for to in self.allowed if to.plugin in self.classes)):
            oldest = spool.oldest({name})
            if oldest is not None:
                many = spool.backlog(name, _MANY_EVENTS)[0] >= _MANY_EVENTS
                moments.append(max(oldest if many else oldest + PATIENCE_SECONDS, spool.state(name)[1]))
        return min(moments, default=None)

    # -- delivery -------------------------------------------------------------------------------------------------

    def missing(self) -> dict[str, str]:
        """Destinations whose reporter is not there → what to do about it."""
        there = {point.name for point in installed(self.home.discovered)} if self.configured else set()
        return {
            to.name: f'add "{to.plugin}" to plugins in {to.where}' if to.plugin in there
            else f"pip install cmdorc-telemetry-{to.plugin}"
            for to in self.configured if to.plugin not in self.classes
        }  # fmt: skip

    def routes(self) -> list[Destination]:
        """Where workers send to: the history, and every allowed destination whose reporter is there."""
        settings = HistoryReporter.Settings(
            str(self.home.history), self.situation.user.sync, self.situation.user.bounds.history_mib
        )
        routes = [
            Destination(HISTORY, lambda: HistoryReporter(settings),
                        lambda item: item.row.private if self.policy.record else None, refresh=self.refresh,
                        trusted=True)
        ]  # fmt: skip
        routes.extend(Destination(to.name, self._maker(to), self._narrower(to), to.timeout, self.refresh)
                      for to in self.allowed if to.plugin in self.classes)  # fmt: skip
        return routes

    def _maker(self, to: DestinationConfig) -> Callable[[], TelemetryReporter]:
        return lambda: make_reporter(self.classes[to.plugin], to, self.situation.environ)

    def _narrower(self, to: DestinationConfig) -> Callable[[Leased], bytes | None]:
        return lambda item: self.body_for(to, item.row)

    def body_for(self, to: DestinationConfig, row: Row) -> bytes | None:
        """What ``to`` gets of an event now: delivery and show-payload both ask here. None for nothing."""
        if to not in self.allowed:
            return None
        if to.audience == "private":
            return project(self.shapes, row.spec, row.event, row.private, rename=to.rename)
        return self.shared_body(row, to.level, to.rename)

    def shared_body(
        self, row: Row, limit: TelemetryLevel | None = None, rename: Mapping[str, str] | None = None
    ) -> bytes | None:
        """The stored shared body, as far as consent and ``limit`` still cover it."""
        level = self.level_of(row.generation, row.spec.partition("@")[0])
        if limit is not None:
            level = lower(level, level_name(limit))
        if level is None or row.shared is None:
            return None
        return project(self.shapes, row.spec, row.event, row.shared, level=level, rename=rename or {})

    def delivery(
        self, own: journals.Journal | None = None, *, open_spool: Callable[[], Spool] | None = None,
        also: Sequence[Destination] = (), only: Sequence[str] | None = None,
        on_trouble: Callable[[str], None] = log.warning,
    ) -> Delivery:  # fmt: skip
        """The telemetry thread, not yet started.

        ``also``: destinations of reporters injected by code. ``only``: the names it delivers to; None for all.
        ``on_trouble`` is told what keeps it from delivering.
        """
        routes = [route for route in (*self.routes(), *also) if only is None or route.name in only]
        return Delivery(open_spool or self.open_spool, routes, lambda spool: self.pump(spool, own), self.home.locks,
                        self.situation.user.bounds, on_trouble)  # fmt: skip
