"""The entry point: what this distribution offers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from cmdorc_telemetry.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmdorc_telemetry.reporter import TelemetryReporter
    from cmdorc_telemetry.spec import TelemetrySpec
    from cmdorc_telemetry.types import Setup

    from .reporter import OtlpReporter

TRACES = Path(__file__).with_name("traces.telemetry.toml")
"""The spec of the events that traces are made of."""


class NoSettings(Struct, forbid_unknown_fields=True):
    """The keys of ``[telemetry.settings.otlp]``: none. A destination has them, in ``[telemetry.to.NAME]``."""


class Otlp:
    """Made once by whoever loads plugins: its reporters know the specs that are in force there."""

    _class: type[OtlpReporter] | None = None
    _setup: Setup | None = None

    @hookimpl
    def telemetry_configure(self, setup: Setup) -> None:
        """Keep the specs and the folder for the reporters. Raises ConfigError for settings in the wrong table."""
        setup.read(NoSettings)
        self._setup = setup
        if self._class is not None:
            self._class.setup = setup

    @hookimpl
    def telemetry_specs(self) -> Sequence[TelemetrySpec]:
        """The events that traces are made of. All that they hold is private."""
        from cmdorc_telemetry.spec import load_spec

        return [load_spec(TRACES)]

    @hookimpl
    def telemetry_reporters(self) -> Sequence[type[TelemetryReporter]]:
        """The OTLP reporter."""
        from .reporter import OtlpReporter

        if self._class is None:
            self._class = type("OtlpReporter", (OtlpReporter,), {"setup": self._setup})
        return [self._class]
