"""What telemetry has to do with a session: the project's table, the one line about it, the wait at the end.

Nothing in here ever stops a command: what is wrong is said, and the session goes on without telemetry.
"""

from __future__ import annotations

from pathlib import Path

import click

from cmdorc_telemetry import Telemetry, TelemetryConfig, load_telemetry_config
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.errors import ConfigError, TelemetryError
from cmdorc_telemetry.policy import truthy
from cmdorc_telemetry.situation import Situation

from .report import say

_ASKED = "This project asks for telemetry. It is off. `cmdorc telemetry opt-in` shows what it would send."


def telemetry_config(path: Path) -> TelemetryConfig | None:
    """What the ``[telemetry]`` table of a cmdorc TOML lowers; None without one. One that is wrong turns it off."""
    try:
        layer = load_layer(path)
        if not layer.asks:
            return None
        if layer.enabled and _undecided():
            click.echo(_ASKED, err=True)
        return load_telemetry_config(path)
    except ConfigError as fault:
        say(f"telemetry is off: {fault}")
        return TelemetryConfig()


def _undecided() -> bool:
    """Whether neither a person nor an operator ever said anything about telemetry on this machine."""
    try:
        situation = Situation.read()
    except TelemetryError:  # the session will say so
        return False
    said = situation.trouble or situation.user.enabled is False or truthy(situation.environ.get("DO_NOT_TRACK"))
    operator = situation.environ.get("CMDORC_TELEMETRY", "").strip()
    return not said and not operator and situation.policy(layered=False).decided_by == "nobody"


def flush_now(config: TelemetryConfig | None, seconds: float) -> None:
    """Send what waits, the end of the session included, for at most ``seconds``."""
    telemetry = Telemetry.start(config=config)
    try:
        if not telemetry.flush(seconds):
            say(f"telemetry: not everything was sent within {seconds:g} s. A later process sends the rest.")
    finally:
        telemetry.close()
