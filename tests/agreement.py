"""A person's yes, as ``opt-in`` records it, for tests that begin after it."""

from __future__ import annotations

from datetime import datetime, timezone

from cmdorc_telemetry import TelemetryLevel, clock
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec


def agree(home: Home, level: TelemetryLevel = TelemetryLevel.STANDARD, *, spec: TelemetrySpec | None = None) -> str:
    """Say yes to a spec, the core's where none is given, and to the destinations in the user's file. The generation."""
    spec = load_spec(CORE) if spec is None else spec
    grant = new_grant(spec, level, datetime.fromtimestamp(clock.wall(), timezone.utc))
    return save_decision(home, {spec.meta.name: grant}, identities(load_layer(home.config).destinations)).generation
