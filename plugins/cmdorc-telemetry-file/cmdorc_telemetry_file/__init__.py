"""Appends telemetry to a JSONL file. ``LocalFileReporter`` is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LocalFileReporter"]

if TYPE_CHECKING:
    from .reporter import LocalFileReporter


def __getattr__(name: str) -> Any:
    if name != "LocalFileReporter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .reporter import LocalFileReporter

    return LocalFileReporter
