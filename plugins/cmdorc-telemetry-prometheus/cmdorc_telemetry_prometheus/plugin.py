"""The entry point: what this distribution offers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from cmdorc_telemetry.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmdorc_telemetry.reporter import TelemetryReporter
    from cmdorc_telemetry.types import Setup

    from .reporter import PrometheusReporter


class NoSettings(Struct, forbid_unknown_fields=True):
    """The keys of ``[telemetry.settings.prometheus]``: none. A destination has them, in ``[telemetry.to.NAME]``."""


class Prometheus:
    """Made once by whoever loads plugins: its reporters know the specs that are in force there."""

    _class: type[PrometheusReporter] | None = None
    _setup: Setup | None = None

    @hookimpl
    def telemetry_configure(self, setup: Setup) -> None:
        """Keep the specs and the folder for the reporters. Raises ConfigError for settings in the wrong table."""
        setup.read(NoSettings)
        self._setup = setup
        if self._class is not None:
            self._class.setup = setup

    @hookimpl
    def telemetry_reporters(self) -> Sequence[type[TelemetryReporter]]:
        """The Prometheus reporter."""
        from .reporter import PrometheusReporter

        if self._class is None:
            self._class = type("PrometheusReporter", (PrometheusReporter,), {"setup": self._setup})
        return [self._class]
