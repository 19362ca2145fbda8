"""Sends telemetry to Segment. ``SegmentReporter`` is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["SegmentReporter"]

if TYPE_CHECKING:
    from .reporter import SegmentReporter


def __getattr__(name: str) -> Any:
    if name != "SegmentReporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reporter import SegmentReporter

    return SegmentReporter
