"""Which destinations there are here, and what makes their reporters. Whether they get anything is decided elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .config import DestinationConfig
from .decoding import decode
from .errors import PluginError
from .reporter import TelemetryReporter
from .situation import Situation


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
