"""The stages behind the journal, put together for the user of one home directory.

    journals on disk → gate → spool → delivery → destinations

Programs use it through ``telemetry.py``; commands use it directly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from . import clock
from .audit import AuditLog, tidy
from .bounds import PATIENCE_SECONDS
from .config import DestinationConfig, TelemetryLevel
from .decision import Decision, level_name
from .delivery import Delivery, Destination
from .destinations import configured_destinations, make_reporter
from .detection import Detection
from .discovery import installed, remedy
from .erasure import load_owed
from .errors import ConsentError, StorageError
from .files import FileLock
from .gate import Gate
from .history import NAME as HISTORY
from .history import HistoryReporter
from .home import Home
from .identity import load_identity
from .importer import Importer
from .journal import Journal
from .plugins import PluginHost
from .policy import Policy, allowed_destinations
from .situation import Situation
from .spec import (
    EVERYTHING,
    Level,
    Rule,
    Shapes,
    TelemetryRegistry,
    Wishes,
    kept_policy,
    lower,
    project,
    read_wishes,
)
from .spool import Spool
from .types import DropReason, Leased, Row, View

log = logging.getLogger("cmdorc_telemetry")

_EXPIRE_SECONDS = 3600.0
_MANY_EVENTS = 100


def _identity(home: Home) -> tuple[bytes, bytes]:
    """The id of this install as it stands in bodies, and its salt, which draws by a value are made with.

    Where the id was given up and there is no other, what is in no body; where there never was one, nothing. Raises
    StorageError where that cannot be told.
    """
    identity = load_identity(home)
    if identity is not None:
        return identity.install_id.encode(), identity.salt
    return b"\n" if load_owed(home) else b"", b""


class Pipeline:
    """Imports, gates, stores and delivers. ``host`` holds the enabled plugins; ``registry`` the specs, also theirs."""

    def __init__(self, situation: Situation, host: PluginHost, registry: TelemetryRegistry | None = None) -> None:
        self.host, self.home = host, situation.home
        self.registry = host.registry(*situation.specs()) if registry is None else registry
        self.shapes = Shapes(self.registry)
        self.shapes.expire(clock.day(clock.wall()))
        self.classes = host.reporters()
        host.configure(situation.user, situation.home, self.registry)
        self.anonymizers = host.anonymizers()
        self.detection = Detection(host, situation.home, self.registry, lambda: self.situation)
        self.configured = configured_destinations(situation, self.classes)
        self.decision = Decision(situation, self.registry, self.shapes)
        self._importer = Importer(self.home.journal, self.decision, self.gate())
        self._expired = 0.0
        self._wishes: dict[str, tuple[str, Wishes]] = {}
        self._install_id = self._salt = b""
        """The id of now: what was recorded under another one was given up with it, and leaves for nobody."""
        self._identify()
        self._decide()

    # -- the decision, which may change while we run --------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        """What files and variables said when they were read last."""
        return self.decision.situation

    @property
    def policy(self) -> Policy:
        """What is in force on this machine, whatever project or program this is."""
        return self.decision.policy

    def _decide(self) -> None:
        self.allowed, self.waiting = allowed_destinations(self.policy, self.situation.consent, self.configured)

    def refresh(self) -> bool:
        """Read the decision again where it was written since. Whether it was."""
        changed = self.decision.refresh()
        if changed or self._nameless:
            self._identify()
        self.shapes.expire(clock.day(clock.wall()))
        self._decide()
        return changed

    def _identify(self) -> None:
        self._nameless = ""
        try:
            self._install_id, self._salt = _identity(self.home)
        except StorageError as fault:
            self._nameless = str(fault)

    def ask(self) -> None:
        """Read the decision again, before something is sent. Raises ConsentError where it cannot be read just now.

        Nor is anything sent while nobody can tell which id was given up.
        """
        self.refresh()
        if trouble := self.decision.trouble or self._nameless:  # which is no no: what waits goes on waiting
            raise ConsentError(trouble)

    def level_of(self, stamped: str, spec: str) -> Level | None:
        """At which level something recorded under a stamp may be shared now."""
        return self.decision.level_of(stamped, spec)

    def narrow(self, spool: Spool) -> None:
        """Take back what is stored to be shared and no longer covered, once a decision."""
        if self.decision.known:
            spool.narrow(self.decision.judge, self.decision.digest, self.decision.cover_of)

    # -- import ---------------------------------------------------------------------------------------------------

    def open_spool(self) -> Spool:
        """The spool, with the destinations of now registered. Raises StorageError."""
        spool = Spool(self.home.spool, self.situation.user.bounds, self.situation.user.sync)
        if spool.moved_aside is not None:
            log.warning("the spool could not be read and was moved to %s; a new one was begun", spool.moved_aside)
        try:
            if self.policy.record:  # otherwise nobody asked for its destinations to go
                waiting, undecided = [to.name for to in self.waiting], self.decision.undecided(self.waiting)
                spool.register([*self.views(), *self.detection.absent(spool.ledger())], withdrawn=waiting,
                               undecided=undecided, owner_lives=self._owner_lives)  # fmt: skip
            self.heed(spool.policies())
            self._account(spool)
        except BaseException:
            spool.close()
            raise
        return spool

    def _account(self, spool: Spool) -> None:
        """Tell receivers of losses under the id of now alone."""
        if self._install_id.strip():
            spool.open_account(self._install_id.decode())

    def views(self) -> list[View]:
        """What each destination gets to see."""
        history = View(name=HISTORY, audience="private", identity=HISTORY)
        return [history, *self.detection.views(), *(self._view(to) for to in self.allowed)]

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

    def pump(
        self, spool: Spool, own: Journal | None = None, follow: Callable[[Situation], None] | None = None
    ) -> bool:  # fmt: skip
        """Import every segment whose owner is gone, and ``own``. False: recording is switched off.

        ``follow`` lets this process record under the decision of now: where it is not given, ``own`` goes on itself.
        """
        self.refresh()
        if self.decision.refused:
            self._importer.discard(own)
            with suppress(StorageError):  # who refused may have deleted the spool, too
                self.narrow(spool)
            return False
        self.narrow(spool)
        self._account(spool)
        if not self.policy.record:
            return bool(self.decision.trouble)  # which may pass
        self._importer.take_orphans(spool)
        if own is not None:
            self._importer.take_own(spool, own, follow or (lambda situation: own.rotate(situation.policy().stamp)))
        self._tend(spool)
        return True

    def gate(self) -> Gate:
        """The last word on what may be shared."""
        anonymizers = {each.name: each for each in self.anonymizers}
        return Gate(self.shapes, self.decision.level_of, hidden=self.decision.hidden, anonymizers=anonymizers,
                    complain=self._complain, blocked=self.blocked(), key=lambda: self._salt)  # fmt: skip

    def _complain(self, plugin: str, what: str) -> None:
        self.host.fail(plugin, what, "report it to its author, or disable it")

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
            tidy(self.home.audit, self._owner_lives)
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
            else remedy(to.plugin, there, f"telemetry.to.{to.name}.plugin in {to.where}")
            for to in self.configured if to.plugin not in self.classes
        }  # fmt: skip

    def routes(self) -> list[Destination]:
        """Where workers send to: the history, and every allowed destination whose reporter is there."""
        settings = HistoryReporter.Settings(
            str(self.home.history), self.situation.user.sync, self.situation.user.bounds.history_mib
        )
        history = Destination(HISTORY, lambda: HistoryReporter(settings), self._own_body, refresh=self.ask,
                              trusted=True)  # fmt: skip
        return [history, *self.detection.routes(self._own_body, self.ask),
                *(self._route(to) for to in self.allowed if to.plugin in self.classes)]  # fmt: skip

    def _route(self, to: DestinationConfig) -> Destination:
        return Destination(to.name, lambda: make_reporter(self.classes[to.plugin], to, self.situation.environ),
                           lambda item: self.body_for(to, item.row), to.timeout, self.ask,
                           audit=self.audit_log(to.name), heed=lambda policy: self.heed({to.name: policy}))  # fmt: skip

    def _own_body(self, item: Leased) -> bytes | None:
        """What stays on this machine gets all there is, as long as anything is recorded."""
        return item.row.private if self.policy.record else None

    def audit_log(self, name: str) -> AuditLog:
        """Where every batch for a destination is written down before it leaves."""
        return AuditLog(self.home.audit, name, sync=self.situation.user.sync)

    def heed(self, policies: Mapping[str, str]) -> None:
        """What receivers ask for less of, as the spool keeps it by the name of the destination, holds from now on."""
        for name, policy in policies.items():
            if name not in self._wishes or self._wishes[name][0] != policy:
                self._wishes[name] = policy, read_wishes(kept_policy(policy).document)

    def wishes(self, name: str) -> Wishes:
        """What the receiver of a destination asks for less of."""
        return self._wishes[name][1] if name in self._wishes else Wishes()

    def body_for(self, to: DestinationConfig, row: Row) -> bytes | DropReason | None:
        """What ``to`` gets of an event now: delivery and show-payload both ask here. None for nothing.

        ``unwanted``: its receiver alone keeps the event away. ``before-your-yes``: it may have other events.
        """
        wanted = self.wishes(to.name).of(row.event)
        body = self._body_for(to, row, wanted)
        if body is None and wanted != EVERYTHING and self._body_for(to, row, EVERYTHING) is not None:
            return "unwanted"
        return body

    def _body_for(self, to: DestinationConfig, row: Row, wanted: Rule) -> bytes | DropReason | None:
        if to not in self.allowed or self._install_id not in row.private:
            return None
        if to.audience == "private":
            return project(self.shapes, row.spec, row.event, row.private, rename=to.rename, wanted=wanted,
                           version=row.version, subject=self.subject(row))  # fmt: skip
        consent = self.situation.consent
        if consent is not None and not consent.reaches(row.generation.partition("/")[0], to.name):
            return "before-your-yes"
        return self.shared_body(row, to.level, to.rename, wanted)

    def shared_body(
        self, row: Row, limit: TelemetryLevel | None = None, rename: Mapping[str, str] | None = None,
        wanted: Rule = EVERYTHING,
    ) -> bytes | None:  # fmt: skip
        """The stored shared body, as far as consent and ``limit`` still cover it, and it is ``wanted``."""
        level = self.level_of(row.generation, row.spec.partition("@")[0])
        if limit is not None:
            level = lower(level, level_name(limit))
        if level is None or row.shared is None or self._install_id not in row.private:
            return None
        return project(self.shapes, row.spec, row.event, row.shared, level=level, rename=rename or {},
                       wanted=wanted, version=row.version, subject=self.subject(row))  # fmt: skip

    def subject(self, row: Row) -> str:
        """Whom the share of an event is taken by where it is not the event itself; empty where it is."""
        sampler = self.shapes.sampler(row.spec, row.event, row.version)
        return "" if sampler is None else sampler.subject(row.private, "", self._salt)

    def delivery(
        self, pump: Callable[[Spool], bool] | None = None, *, open_spool: Callable[[], Spool] | None = None,
        also: Sequence[Destination] = (), only: Sequence[str] | None = None,
        on_trouble: Callable[[str], None] = log.warning,
    ) -> Delivery:  # fmt: skip
        """The telemetry thread, not yet started.

        ``also``: destinations of reporters injected by code. ``only``: the names it delivers to; None for all. What
        keeps it from delivering is told to ``on_trouble``.
        """
        routes = [route for route in (*self.routes(), *also) if only is None or route.name in only]
        return Delivery(open_spool or self.open_spool, routes, pump or self.pump, self.home.locks,
                        self.situation.user.bounds, on_trouble)  # fmt: skip
