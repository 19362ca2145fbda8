"""Sends telemetry to PostHog. ``PosthogReporter`` is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["PosthogReporter"]

if TYPE_CHECKING:
    from .reporter import PosthogReporter


def __getattr__(name: str) -> Any:
    if name != "PosthogReporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reporter import PosthogReporter

    return PosthogReporter
