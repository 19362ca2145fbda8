"""What a recording program has: capture and journal on the caller's thread, delivery behind them."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import Mapping
from typing import Any

from . import clock, journal
from .capture import (
    Capture,
    Hasher,
    SessionStatistics,
    completed_properties,
    machine_fields,
    startup_properties,
)
from .config import TelemetryLevel
from .consent import Situation
from .delivery import EXIT_SECONDS, Destination
from .errors import StorageError
from .files import FileLock, private_dir
from .hookspecs import hookimpl
from .identity import ensure_identity
from .pipeline import Pipeline, stamp
from .plugins import PluginHost
from .reporter import TelemetryReporter
from .spool import Spool
from .types import CompletedRun, Session, Trigger, View

log = logging.getLogger("cmdorc_telemetry")

START_SECONDS = 0.5
"""A process that ends sooner starts no thread."""
LONG_AGO = 3600.0
"""What has waited for longer is sent at once, however young the process is."""
MANY_SEGMENTS = 50
"""If more wait to be imported, processes that end soon follow each other closely: somebody has to do it."""


class Collector:
    """Telemetry's own lifecycle plugin: lifecycle records become events."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._sessions: dict[str, SessionStatistics] = {}

    def _of(self, session_id: str) -> SessionStatistics:
        return self._sessions.get(session_id) or self._sessions.setdefault(session_id, SessionStatistics())

    @hookimpl
    def cmdorc_startup(self, session: Session) -> None:
        """Record ``orchestrator_started``."""
        self._recorder.track("orchestrator_started", startup_properties(session, self._recorder.hasher))

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        """Record ``command_completed``."""
        self._of(run.session_id).add_run(run)
        recorder = self._recorder
        recorder.append(recorder.capture.record("command_completed", completed_properties(run, recorder.hasher)))

    @hookimpl
    def cmdorc_trigger(self, trigger: Trigger) -> None:
        """Record one trigger, to be folded at import."""
        self._of(trigger.session_id).triggers += 1
        recorder = self._recorder
        recorder.append(recorder.capture.trigger_record(trigger, recorder.hasher))

    @hookimpl
    def cmdorc_shutdown(self, session: Session) -> None:
        """Record ``orchestrator_stopped``."""
        statistics = self._sessions.pop(session.id, SessionStatistics())
        self._recorder.track("orchestrator_stopped", statistics.properties(session))


class Recorder:
    """Captures and journals; starts delivery when the process has lived for half a second.

    Raises StorageError where the home directory cannot be used.
    """

    def __init__(
        self, situation: Situation, host: PluginHost, base: Mapping[str, str], reporter: TelemetryReporter | None
    ) -> None:
        self.pipeline = Pipeline(situation, host)
        home, policy = situation.home, situation.policy()
        identity = ensure_identity(home)
        constants = {**base, **machine_fields(), "anonymous_install_id": identity.install_id}
        # Another application's spec has a consent of its own.
        agreed = [spec for spec in self.pipeline.registry if situation.policy(spec=spec.meta.name).record]
        self.capture = Capture(agreed, constants)
        self._hasher = Hasher(identity.salt) if policy.share is TelemetryLevel.DEBUG else None
        self.journal = journal.Journal(home.journal, stamp(policy), on_trouble=self._warn)
        self.collector = Collector(self)
        self._warned = self._stopped = self._scheduled = self._started = False
        self._born = clock.monotonic()
        self._owner: FileLock | None = None
        injected = [self._inject(reporter)] if reporter is not None else []
        self.delivery = self.pipeline.delivery(self.journal, open_spool=self._open_spool, also=injected)
        if injected or self._overdue():
            self._start()

    @property
    def hasher(self) -> Hasher | None:
        """What makes the hashes of DEBUG; None where nobody said yes to them, or that yes has expired."""
        if self._hasher is not None and self.pipeline.situation.policy().share is not TelemetryLevel.DEBUG:
            self._hasher = None
        return self._hasher

    def track(self, event: str, properties: Mapping[str, Any]) -> bool:
        """Capture and journal one event. Whether that was done."""
        return event in self.capture and self.append(self.capture.record(event, properties))

    def append(self, record: bytes) -> bool:
        """Journal one record, and see to it that somebody delivers it."""
        if self._stopped or not self.pipeline.policy.record:
            return False
        done = self.journal.append(record)
        if not self._started:
            self._schedule()
        return done

    def _schedule(self) -> None:
        """Start delivery half a second into the process's life: later by itself where a loop runs here."""
        age = clock.monotonic() - self._born
        if age >= START_SECONDS:
            self._start()
            return
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._scheduled = True  # a loop that ends before that never calls; then a later record does
        loop.call_later(START_SECONDS - age, self._start)

    def _start(self) -> None:
        if not (self._stopped or self._started):
            self._started = True
            self.delivery.start()
            atexit.register(self.close)

    def _overdue(self) -> bool:
        """Whether something has waited for an hour, in the spool or in segments, or there are many segments."""
        home = self.pipeline.home
        found = []
        for path in (home.waiting, *journal.segments(home.journal)):
            try:
                found.append(os.stat(path).st_mtime)
            except OSError:
                continue
        return len(found) > MANY_SEGMENTS or min(found, default=float("inf")) < clock.wall() - LONG_AGO

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s. Events are counted as dropped.", what)

    # -- a reporter that was injected by code ------------------------------------------------------------------------

    def _inject(self, reporter: TelemetryReporter) -> Destination:
        name = f"code-{self.journal.source}"
        private_dir(self.pipeline.home.locks)
        self._owner = FileLock(self.pipeline.home.locks / f"{name}.owner")
        try:
            self._owner.acquire(wait=False)
        except OSError as fault:
            raise StorageError(f"{self.pipeline.home.locks} cannot be written: {fault.strerror}") from fault
        shared_body, refresh = self.pipeline.shared_body, self.pipeline.refresh
        return Destination(name, lambda: reporter, lambda item: shared_body(item.row), refresh=refresh, injected=True)

    def _open_spool(self) -> Spool:
        spool = self.pipeline.open_spool()
        if self._owner is not None:
            name = f"code-{self.journal.source}"
            spool.adopt(View(name=name, identity="injected by code", source=self.journal.source), name)
        return spool

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Import and send all there is, also after ``close``. Whether nothing waits any more."""
        if not self._stopped:
            self._start()
            return self.delivery.flush(timeout)
        last = self.pipeline.delivery()
        done = last.flush(timeout)
        last.stop()
        return done

    def _finish(self) -> None:
        self._stopped = True
        atexit.unregister(self.close)
        self.journal.close()
        if self._owner is not None:
            self._owner.release(unlink=True)

    def close(self) -> None:
        """End delivery, wait for it at most 50 ms, and let the journal go."""
        if not self._stopped:
            self.delivery.stop(EXIT_SECONDS)
            self._finish()

    async def aclose(self) -> None:
        """Like ``close``, without holding up the event loop."""
        if not self._stopped:
            deadline = clock.monotonic() + EXIT_SECONDS
            try:
                while not self.delivery.stop(0) and clock.monotonic() < deadline:  # noqa: ASYNC110 - a thread, no task
                    await asyncio.sleep(0.002)
            finally:
                self._finish()
