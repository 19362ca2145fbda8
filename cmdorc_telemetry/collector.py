"""What telemetry itself does with lifecycle records: they become events.

How an event is captured and journalled is the recorder's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .capture import SessionStatistics, completed_properties, startup_properties
from .hookspecs import hookimpl
from .lifecycle import CompletedRun, Session, Trigger
from .recording import Recording

if TYPE_CHECKING:
    from .recorder import Recorder


class Collector:
    """Telemetry's own lifecycle plugin: lifecycle records become events."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @staticmethod
    def _of(session_id: str, now: Recording) -> SessionStatistics:
        return now.sessions.get(session_id) or now.sessions.setdefault(session_id, SessionStatistics())

    @hookimpl
    def cmdorc_startup(self, session: Session) -> None:
        """Record ``orchestrator_started``."""
        now = self._recorder.recording
        self._recorder.track("orchestrator_started", startup_properties(session, now.hasher), now)

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        """Record ``command_completed``."""
        now = self._recorder.recording
        self._of(run.session_id, now).add_run(run)
        self._recorder.track("command_completed", completed_properties(run, now.hasher), now)

    @hookimpl
    def cmdorc_trigger(self, trigger: Trigger) -> None:
        """Record one trigger, to be folded at import."""
        now = self._recorder.recording
        self._of(trigger.session_id, now).triggers += 1
        self._recorder.append(now.capture.trigger_record(trigger, now.hasher), now)

    @hookimpl
    def cmdorc_shutdown(self, session: Session) -> None:
        """Record ``orchestrator_stopped``."""
        now = self._recorder.recording
        statistics = now.sessions.pop(session.id, SessionStatistics())
        self._recorder.track("orchestrator_stopped", statistics.properties(session), now)
