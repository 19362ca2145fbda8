"""Sends telemetry to a server over HTTPS. ``HttpReporter`` is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["HttpReporter"]

if TYPE_CHECKING:
    from .reporter import HttpReporter


def __getattr__(name: str) -> Any:
    if name != "HttpReporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reporter import HttpReporter

    return HttpReporter
