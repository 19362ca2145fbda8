"""Payloads as a shared destination gets them, for whoever wants to see one without recording anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from .. import clock
from ..config import TelemetryLevel
from ..lifecycle import CompletedRun, Session, Trigger
from ..spec import LEVELS, TelemetrySpec, coerce
from .fields import Hasher, SessionStatistics, completed_properties, startup_properties, trigger_properties


def _completed(run: Any) -> CompletedRun:
    return run if isinstance(run, CompletedRun) else CompletedRun.from_result(run)


class TelemetryPayloadBuilder:
    """Payloads as a shared destination gets them at ``level``. Pure: the same input gives the same payload.

    ``base`` holds the constant base fields; ``now`` of each method is seconds since the epoch.
    """

    def __init__(self, spec: TelemetrySpec, level: TelemetryLevel, salt: bytes, base: Mapping[str, Any]) -> None:
        self._spec, self._base = spec, dict(base)
        self._level = None if level is TelemetryLevel.OFF else LEVELS[level.rank - 1]
        self._hasher = Hasher(salt)

    def hash_item(self, item: str) -> str:
        """HMAC-SHA256 of ``item`` with the salt, first 12 hex digits."""
        return self._hasher(item)

    def build_startup_payload(self, session: Session, *, now: float) -> dict[str, Any]:
        """``orchestrator_started``."""
        return self.build_payload("orchestrator_started", startup_properties(session, self._hasher), now=now)

    def build_command_completed_payload(self, run: Any, manual: bool | None = None, *, now: float) -> dict[str, Any]:
        """``command_completed`` of a ``CompletedRun`` or of cmdorc's own result; ``manual`` overrides what it says."""
        run = _completed(run)
        if manual is not None:
            run = msgspec.structs.replace(run, manual=manual)
        return self.build_payload("command_completed", completed_properties(run, self._hasher), now=now)

    def build_trigger_payload(self, trigger: Trigger, *, now: float) -> dict[str, Any]:
        """``trigger_fired`` for one trigger alone; empty where the level shares nothing of it."""
        return self.build_payload("trigger_fired", trigger_properties(trigger, self._hasher), now=now)

    def build_shutdown_payload(self, session: Session, runs: Collection[Any] = (), *, now: float) -> dict[str, Any]:
        """``orchestrator_stopped`` after ``runs``, each a ``CompletedRun`` or cmdorc's own result."""
        statistics = SessionStatistics()
        for run in runs:
            statistics.add_run(_completed(run))
        return self.build_payload("orchestrator_stopped", statistics.properties(session), now=now)

    def build_payload(self, name: str, properties: Mapping[str, Any], *, now: float) -> dict[str, Any]:
        """Any event of the spec, with valid ``properties``; empty where the level shares nothing of it."""
        event = self._spec.event(name)
        if event is None or not event.shared_at(self._level):
            return {}
        own = {key: coerce(event.properties[key], value) for key, value in properties.items()
               if event.properties[key].shared_at(self._level)}  # fmt: skip
        return {"event": name, **self._base, "timestamp": clock.iso(now), "spec": self._spec.ref,
                "level": self._level, **own}  # fmt: skip
