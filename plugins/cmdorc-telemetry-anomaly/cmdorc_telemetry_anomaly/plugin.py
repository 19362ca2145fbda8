"""The entry point: what this distribution offers. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cmdorc_telemetry.hookspecs import hookimpl

if TYPE_CHECKING:
    from cmdorc_telemetry.detector import Detector


@hookimpl
def telemetry_detectors() -> Sequence[type[Detector]]:
    """The detector of thresholds."""
    from .detector import ThresholdDetector

    return [ThresholdDetector]
