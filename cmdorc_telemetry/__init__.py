"""Opt-in telemetry for command-line tools that its users would choose to switch on.

Names are loaded when first used, so that importing the package costs nothing while telemetry is off.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes longer than what `exec` does before it becomes the program

__version__ = "0.1.0"

_WHERE = {
    "Application": "application",
    "Chain": "lifecycle",
    "CompletedRun": "lifecycle",
    "NoopReporter": "reporter",
    "Result": "results",
    "Session": "lifecycle",
    "Telemetry": "telemetry",
    "TelemetryAnomalyMonitor": "monitor",
    "TelemetryConfig": "argument",
    "TelemetryLevel": "config",
    "TelemetryOrchestrator": "instrumentation",
    "TelemetryPayloadBuilder": "capture.payloads",
    "TelemetryRegistry": "spec",
    "TelemetryReporter": "reporter",
    "TelemetrySpec": "spec",
    "TelemetryTracker": "tracker",
    "TelemetryViolation": "errors",
    "ThresholdAnomaly": "monitor",
    "Trigger": "lifecycle",
    "Violation": "results",
    "hookimpl": "hookspecs",
    "instrument": "instrumentation",
    "load_telemetry_config": "argument",
}
__all__ = [
    "Application",
    "Chain",
    "CompletedRun",
    "NoopReporter",
    "Result",
    "Session",
    "Telemetry",
    "TelemetryAnomalyMonitor",
    "TelemetryConfig",
    "TelemetryLevel",
    "TelemetryOrchestrator",
    "TelemetryPayloadBuilder",
    "TelemetryRegistry",
    "TelemetryReporter",
    "TelemetrySpec",
    "TelemetryTracker",
    "TelemetryViolation",
    "ThresholdAnomaly",
    "Trigger",
    "Violation",
    "hookimpl",
    "instrument",
    "load_telemetry_config",
]

if TYPE_CHECKING:
    from typing import Any

    from .application import Application
    from .argument import TelemetryConfig, load_telemetry_config
    from .capture.payloads import TelemetryPayloadBuilder
    from .config import TelemetryLevel
    from .errors import TelemetryViolation
    from .hookspecs import hookimpl
    from .instrumentation import TelemetryOrchestrator, instrument
    from .lifecycle import Chain, CompletedRun, Session, Trigger
    from .monitor import TelemetryAnomalyMonitor, ThresholdAnomaly
    from .reporter import NoopReporter, TelemetryReporter
    from .results import Result, Violation
    from .spec import TelemetryRegistry, TelemetrySpec
    from .telemetry import Telemetry
    from .tracker import TelemetryTracker


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
