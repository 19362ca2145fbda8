"""A server for telemetry reports: validates them against the spec, keeps them, answers with a percentile.

Names are loaded when first used: the command line must not wait for FastAPI where it has no need of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["SQLiteStore", "Settings", "Store", "create_app"]
_WHERE = {"SQLiteStore": "sqlite", "Settings": "settings", "Store": "store", "create_app": "api"}

if TYPE_CHECKING:
    from .api import create_app
    from .settings import Settings
    from .sqlite import SQLiteStore
    from .store import Store


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
