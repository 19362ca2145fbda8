"""The entry point: what cmdorc-telemetry calls. Imports nothing heavy; the rules are read when it is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cmdorc_telemetry.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmdorc_telemetry.types import Event, Setup

    from .anonymizer import Narrowing


class Anonymizer:
    """Made once by whoever loads plugins, configured before the first event."""

    _narrowing: Narrowing | None = None

    @hookimpl
    def telemetry_configure(self, setup: Setup) -> None:
        """Compile the rules. Raises ConfigError."""
        from .anonymizer import Narrowing
        from .settings import Settings

        self._narrowing = Narrowing(setup.read(Settings), setup)

    @hookimpl
    def telemetry_anonymize(self, event: Event) -> Mapping[str, Any]:
        """What is shared in the place of the fields that have rules."""
        if self._narrowing is None:
            raise RuntimeError("was never configured: its settings are not known")
        return self._narrowing(event)
