"""Who is measured: each subject makes one function that records one completed run, enabled or disabled.

Every SDK gets the same ten fields, its own defaults, and a sink on loopback.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FIELDS: dict[str, Any] = {
    "duration_ms": 1234, "state": "success", "final": True, "manual": False, "chain_depth": 2, "concurrent_runs": 1,
    "timed_out": False, "command_arg_count": 3, "executor_type": "local_subprocess", "command_count": 7,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """``make(port, home, enabled)`` gives the function that is timed and the one that cleans up."""

    name: str
    config: str
    make: Callable[[int, Path, bool], tuple[Callable[[], object], Callable[[], object]]]


def _nothing(port: int, home: Path, enabled: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    return lambda: None, lambda: None


def _ours(port: int, home: Path, enabled: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    from cmdorc_telemetry import Telemetry
    from cmdorc_telemetry.config import Home, TelemetryLevel
    from cmdorc_telemetry.consent import new_grant, save_grant
    from cmdorc_telemetry.spec import CORE, load_spec
    from cmdorc_telemetry.types import CompletedRun

    if enabled:
        grant = new_grant(load_spec(CORE), TelemetryLevel.STANDARD, [], datetime.now(timezone.utc))
        save_grant(Home(home), "cmdorc.core", grant)
    telemetry = Telemetry.start(cmdorc_version="0.12.0", environ={"CMDORC_HOME": str(home)})
    run = CompletedRun(run_id="0" * 36, command_name="Tests", state="success", duration=1.234, manual=False,
                       trigger_event="changed", trigger_chain=("changed", "command_success:Lint"))  # fmt: skip
    assert telemetry.recording is enabled
    return lambda: telemetry.fire("cmdorc_completed", run), telemetry.close


def _posthog(port: int, home: Path, enabled: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    from posthog import Posthog

    client = Posthog("phc_bench", host=f"http://127.0.0.1:{port}", disabled=not enabled, max_queue_size=1_000_000)
    return lambda: client.capture("command_completed", distinct_id="bench", properties=FIELDS), client.shutdown


def _opentelemetry(port: int, home: Path, enabled: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it warns about every record that it drops
    os.environ["OTEL_SDK_DISABLED"] = "false" if enabled else "true"
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"http://127.0.0.1:{port}/v1/logs")))
    logger = logging.Logger("bench", logging.INFO)
    if enabled:
        logger.addHandler(LoggingHandler(logger_provider=provider))
    else:
        logger.setLevel(logging.CRITICAL)
    return lambda: logger.info("command_completed", extra=FIELDS), provider.shutdown


SUBJECTS = (
    Subject("none", "empty call", _nothing),
    Subject("cmdorc-telemetry", "default", _ours),
    Subject("posthog", "default", _posthog),
    Subject("opentelemetry", "OTLP/HTTP logs, batch", _opentelemetry),
)
