"""Shows telemetry to a Prometheus of the user's own. What it offers is loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["PrometheusReporter", "alert_rules"]

if TYPE_CHECKING:
    from .reporter import PrometheusReporter
    from .rules import alert_rules

_WHERE = {"PrometheusReporter": "reporter", "alert_rules": "rules"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
