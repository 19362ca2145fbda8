"""The entry point: what this distribution offers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmdorc_telemetry.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmdorc_telemetry.reporter import TelemetryReporter


@hookimpl
def telemetry_reporters() -> Sequence[type[TelemetryReporter]]:
    """The Segment reporter."""
    from .reporter import SegmentReporter

    return [SegmentReporter]
