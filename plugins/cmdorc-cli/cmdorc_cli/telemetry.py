"""What telemetry has to do with a session: the project's table, the one line about it, the wait at the end.

Nothing in here ever stops a command: what is wrong is said, and the session goes on without telemetry.
"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from cmdorc_telemetry import Telemetry, TelemetryConfig, TelemetryLevel
from cmdorc_telemetry.argument import project_config
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.errors import ConfigError, TelemetryError
from cmdorc_telemetry.policy import in_ci, truthy
from cmdorc_telemetry.situation import Situation

from .report import say

_ASKED = "This project asks for telemetry. It is off. `cmdorc telemetry opt-in` shows what it would send."


class _Once(logging.Filter):
    """Lets a warning through once: a flush after the session would find the same things wrong again."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self._said
        self._said.add(text)
        return new


def telemetry_config(path: Path) -> TelemetryConfig | None:
    """What the ``[telemetry]`` table of a cmdorc TOML lowers; None without one. One that is wrong turns it off."""
    logging.getLogger("cmdorc_telemetry").addFilter(_Once())
    try:
        layer = load_layer(path)
        if not layer.asks:
            return None
        if layer.enabled and _undecided():
            click.echo(_ASKED, err=True)
        return project_config(path, layer)
    except ConfigError as fault:
        say(f"telemetry is off: {fault}")
        return TelemetryConfig()


def _undecided() -> bool:
    """Whether neither a person nor an operator ever said anything about telemetry here, and a person may be reading."""
    try:
        situation = Situation.read()
    except TelemetryError:  # the session will say so
        return False
    environ, files = situation.environ, (situation.user, situation.other)
    said = (
        situation.trouble or truthy(environ.get("DO_NOT_TRACK")) or environ.get("CMDORC_TELEMETRY", "").strip()
        or any(file and (file.enabled is False or file.level is TelemetryLevel.OFF) for file in files)
    )  # fmt: skip
    return not said and not in_ci(environ) and situation.policy(layered=False).decided_by == "nobody"


def flush_now(config: TelemetryConfig | None, seconds: float) -> None:
    """Send what waits, the end of the session included, for at most ``seconds``."""
    telemetry = Telemetry.start(config=config)
    try:
        if not telemetry.flush(seconds):
            say(f"telemetry: not everything was done within {seconds:g} s. A later process goes on with it; "
                "`cmdorc telemetry status` says what waits, and why.")  # fmt: skip
    finally:
        telemetry.close()
