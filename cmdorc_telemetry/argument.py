"""What a program asks for in code: the ``config=`` argument, made by hand or read from a file. It only ever lowers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from . import clock
from .bounds import DEFAULT, Bounds
from .config import DestinationConfig, Layer, TelemetryLevel, expanded, load_layer
from .errors import ConfigError


@dataclass(frozen=True)
class TelemetryConfig:
    """What one file, or one caller, asks for. Asking never turns anything on: see ``policy.py``.

    Raises ConfigError (a ValueError) for DEBUG without a consent that is still valid.
    """

    enabled: bool = False
    level: TelemetryLevel = TelemetryLevel.MINIMAL
    endpoint: str | None = None
    local_file: Path | None = None
    debug_consent_given: bool = False
    debug_consent_expires: datetime | None = None
    plugins: tuple[str, ...] = ()
    destinations: tuple[DestinationConfig, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of plugins that are not destinations, by plugin."""
    specs: tuple[Path, ...] = ()
    bounds: Bounds = DEFAULT
    """What telemetry may take of the machine."""
    sync: bool = False
    """Whether what was captured is synced to the disk in groups, to survive a loss of power."""
    background: bool = False
    """Whether a process that ends may leave a sender behind."""
    source: Path | None = None
    """The file it was read from."""
    unsaid: frozenset[str] = frozenset()
    """Which of ``enabled`` and ``level`` that file does not mention: these lower nothing."""

    def __post_init__(self) -> None:
        where = self.source or "TelemetryConfig"
        if not isinstance(self.level, TelemetryLevel):
            raise ConfigError(where, "level", f"found {self.level!r}", "a TelemetryLevel")
        if self.level is TelemetryLevel.DEBUG:
            if not self.debug_consent_given:
                raise ConfigError(where, "level", "found 'debug' without debug_consent_given",
                                  "a consent: opt-in --debug")  # fmt: skip
            expires = self.debug_consent_expires
            if expires is None or expires.tzinfo is None:
                raise ConfigError(where, "debug_consent_expires", f"found {expires!r}", "a moment with a time zone")
            if expires <= clock.utcnow():
                raise ConfigError(where, "debug_consent_expires", f"expired on {expires:%Y-%m-%d}",
                                  "a new consent: opt-in --debug")  # fmt: skip


def load_telemetry_config(path: str | Path) -> TelemetryConfig:
    """The ``[telemetry]`` table of a file, such as a cmdorc TOML. Raises ConfigError; a missing file is one.

    Nothing is turned on by it: an ``instrument(…, config=…)`` can only lower what the user decided.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ConfigError(path, "", "no such file", "a TOML file")
    return _config(path, load_layer(path))


def project_config(path: Path, layer: Layer) -> TelemetryConfig:
    """What a project's file lowers, for the program that it is the project of. Raises ConfigError.

    DEBUG is the most that there is: who asks for it lowers nothing, and a project's own word that somebody consented
    to it counts for nothing. So that wish is left out, rather than refused.
    """
    return _config(path, layer._replace(level=None) if layer.level is TelemetryLevel.DEBUG else layer)


def _config(path: Path, layer: Layer) -> TelemetryConfig:
    settings = {to.name: to.settings for to in layer.destinations}
    local_file = settings.get("file", {}).get("path")
    return TelemetryConfig(
        enabled=bool(layer.enabled),
        level=layer.level or TelemetryLevel.MINIMAL,
        endpoint=settings.get("http", {}).get("endpoint"),
        local_file=expanded(path, "telemetry.to.file.path", local_file) if local_file else None,
        debug_consent_given=layer.debug_consent_given,
        debug_consent_expires=layer.debug_consent_expires,
        plugins=layer.plugins,
        destinations=layer.destinations,
        settings=layer.settings,
        specs=layer.specs,
        bounds=layer.bounds,
        sync=layer.sync,
        background=layer.background,
        source=path,
        unsaid=frozenset(name for name in ("enabled", "level") if getattr(layer, name) is None),
    )
