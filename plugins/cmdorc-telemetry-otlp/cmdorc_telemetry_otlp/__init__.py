"""Sends telemetry to OpenTelemetry receivers. ``OtlpReporter`` is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["OtlpReporter"]

if TYPE_CHECKING:
    from .reporter import OtlpReporter


def __getattr__(name: str) -> Any:
    if name != "OtlpReporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reporter import OtlpReporter

    return OtlpReporter
