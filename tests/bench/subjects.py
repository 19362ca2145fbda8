"""Who is measured: this project, five SDKs that people use, and nothing at all; each with its configurations.

A subject makes a client, in a process of its own, that records one completed run as its SDK would: the same ten
fields for each. Imports nothing at the top, for importing is among the things that are measured.
"""

from __future__ import annotations

from itertools import cycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

EVENT = "command_completed"


def fields(number: int) -> dict[str, Any]:
    """The ten fields of one run: no two neighbours alike, or compressing them would be too easy."""
    return {
        "duration_ms": number * 7919 % 30_011, "state": "failed" if number % 11 == 3 else "success", "final": True,
        "manual": number % 5 == 0, "chain_depth": number % 4, "concurrent_runs": 1 + number % 3,
        "timed_out": number % 29 == 7, "command_arg_count": number % 6, "executor_type": "local_subprocess",
        "command_count": 7,
    }  # fmt: skip


def some() -> Iterator[dict[str, Any]]:
    """Fields of one run after the other, without end."""
    return cycle([fields(number) for number in range(61)])


class Client:
    """What a program of a subject has. The base is the subject ``none``: it does nothing."""

    room: int | None = None
    """How many events may wait before some are lost; None where that is no matter."""

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        """``port``: of the sink. ``config``: one of ``CONFIGS``. ``enabled``: False to measure what off costs."""
        each = some()
        self.capture: Callable[[], object] = lambda: next(each)
        """Record one event."""

    def flush(self) -> None:
        """Return when everything is delivered, where there is somebody to deliver to."""

    def end(self) -> None:
        """What a program calls when it ends: nothing in a default configuration."""

    def hook(self, orchestrator: Any) -> None:
        """Have each successful run of a cmdorc orchestrator recorded: for the SDKs, by a callback."""

        async def completed(handle: object, context: object) -> None:
            self.capture()

        for name in orchestrator.list_commands():
            orchestrator.on_event(f"command_success:{name}", completed)


class Ours(Client):
    """This project, as a user has it who opted in at the level standard, with one http destination."""

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        if config == "default":
            import sys

            sys.modules["zstandard"] = None  # type: ignore[assignment] # as if it were not installed
        from cmdorc_telemetry import CompletedRun, Telemetry
        from cmdorc_telemetry.application import CMDORC

        telemetry = self.telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
        assert telemetry.recording is enabled
        runs = cycle([
            CompletedRun(
                run_id=f"{number:036}", command_name=f"Command {number % 7}", state=each["state"],
                duration=each["duration_ms"] / 1000, manual=each["manual"], arg_count=each["command_arg_count"],
                concurrent_runs=each["concurrent_runs"], timed_out=each["timed_out"], trigger_event="changed",
                trigger_chain=("changed",) * each["chain_depth"],
            )
            for number, each in enumerate(map(fields, range(61)))
        ])  # fmt: skip
        self.capture = lambda: telemetry.fire("cmdorc_completed", next(runs))

    def flush(self) -> None:
        if not self.telemetry.flush(60):
            raise RuntimeError("not everything was delivered within a minute")

    def end(self) -> None:
        self.telemetry.close()

    def hook(self, orchestrator: Any) -> None:
        from cmdorc_telemetry import instrument

        instrument(orchestrator)


class PostHog(Client):
    room = 10_000

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        from posthog import Posthog

        better: dict[str, Any] = {"gzip": True, "flush_at": 500} if config == "best" else {}
        client = self.client = Posthog("phc_bench", host=f"http://127.0.0.1:{port}", disabled=not enabled, **better)
        self.explicit, each = config == "best", some()
        self.capture = lambda: client.capture(EVENT, distinct_id="bench", properties=next(each))

    def flush(self) -> None:
        self.client.flush()

    def end(self) -> None:
        if self.explicit:
            self.client.shutdown()


class Segment(Client):
    room = 10_000

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        from segment.analytics import Client as Analytics

        better: dict[str, Any] = {"gzip": True, "upload_size": 500} if config == "best" else {}
        client = self.client = Analytics("bench", host=f"http://127.0.0.1:{port}", send=enabled, **better)
        self.explicit, each = config == "best", some()
        self.capture = lambda: client.track("bench", EVENT, next(each))

    def flush(self) -> None:
        self.client.flush()

    def end(self) -> None:
        if self.explicit:
            self.client.shutdown()


class OpenTelemetry(Client):
    room = 2048

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        import logging
        import os
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)  # the handler is about to move to a package of its own
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        if not enabled:
            os.environ["OTEL_SDK_DISABLED"] = "true"
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        endpoint, best = f"http://127.0.0.1:{port}/v1/logs", config == "best"
        exporter = OTLPLogExporter(endpoint, compression=Compression.Gzip if best else None)
        provider = self.provider = LoggerProvider()
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        self.explicit, each = best, some()
        if best:
            from opentelemetry._logs import SeverityNumber

            info, emit = SeverityNumber.INFO, provider.get_logger("bench").emit
            self.capture = lambda: emit(body=EVENT, attributes=next(each), severity_number=info)
        else:
            logger = logging.Logger("bench", logging.INFO)
            logger.addHandler(LoggingHandler(logger_provider=provider))
            self.capture = lambda: logger.info(EVENT, extra=next(each))

    def flush(self) -> None:
        self.provider.force_flush()

    def end(self) -> None:
        if self.explicit:
            self.provider.shutdown()


class Sentry(Client):
    room = 1000

    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        import sentry_sdk
        from sentry_sdk import logger

        better: dict[str, Any] = {}
        if config == "best":
            from sentry_sdk.integrations.atexit import AtexitIntegration

            better = {"default_integrations": False, "auto_session_tracking": False, "max_breadcrumbs": 0,
                      "integrations": [AtexitIntegration(lambda pending, timeout: None)],
                      "_experiments": {"transport_compression_level": 1}}  # fmt: skip
        if enabled:  # there is no other way to be off that would cost as little
            sentry_sdk.init(f"http://bench@127.0.0.1:{port}/1", enable_logs=True, **better)
        self.sdk, self.explicit, each = sentry_sdk, config == "best", some()
        self.capture = lambda: logger.info(EVENT, attributes=next(each))

    def flush(self) -> None:
        self.sdk.flush(30)

    def end(self) -> None:
        if self.explicit:
            self.sdk.flush()


class Snowplow(Client):
    def __init__(self, port: int, config: str, *, enabled: bool = True) -> None:
        from snowplow_tracker import AsyncEmitter, SelfDescribing, SelfDescribingJson, Tracker
        from snowplow_tracker import Snowplow as Trackers

        endpoint, schema = f"http://127.0.0.1:{port}", "iglu:com.example/command_completed/jsonschema/1-0-0"
        if config == "best":
            import logging

            import requests

            logging.getLogger("snowplow_tracker").setLevel(logging.WARNING)
            logging.getLogger("snowplow_tracker.emitters").setLevel(logging.WARNING)
            emitter = AsyncEmitter(endpoint, batch_size=500, session=requests.Session())
            tracker = Tracker("bench", emitter, encode_base64=False)
        else:
            tracker = Trackers.create_tracker("bench", endpoint)
        self.tracker, self.explicit, each = tracker, config == "best", some()
        self.capture = lambda: tracker.track(SelfDescribing(SelfDescribingJson(schema, next(each))))

    def flush(self) -> None:
        self.tracker.flush()

    def end(self) -> None:
        if self.explicit:
            self.tracker.flush()


CLIENTS: dict[str, type[Client]] = {
    "cmdorc-telemetry": Ours,
    "posthog": PostHog,
    "segment-analytics-python": Segment,
    "opentelemetry-sdk": OpenTelemetry,
    "sentry-sdk": Sentry,
    "snowplow-tracker": Snowplow,
    "none": Client,
}
OURS, NONE = "cmdorc-telemetry", "none"
PEERS = tuple(name for name in CLIENTS if name not in (OURS, NONE))

CONFIGS: dict[str, dict[str, str]] = {
    OURS: {
        "default": "opt-in at level standard, one http destination, the local history; gzip, as zstandard is an extra",
        "best": "the same with zstandard installed",
    },
    "posthog": {
        "default": "Posthog(key, host); ends without a call",
        "best": "gzip and 500 events a batch instead of 100; shutdown() at the end",
    },
    "segment-analytics-python": {
        "default": "Client(key, host); ends without a call",
        "best": "gzip and 500 events a batch instead of 100; shutdown() at the end",
    },
    "opentelemetry-sdk": {
        "default": "logging with the SDK's handler, batch processor, OTLP/HTTP; ends without a call",
        "best": "the logs API itself, gzip; batches are 512 by default; shutdown() at the end",
    },
    "sentry-sdk": {
        "default": "init(dsn, enable_logs=True), logs; ends without a call",
        "best": "no integrations but the one at exit, no sessions, no breadcrumbs, gzip 1 instead of 9; flush()",
    },
    "snowplow-tracker": {
        "default": "Snowplow.create_tracker(): posts ten at a time, on the caller's thread; ends without a call",
        "best": "AsyncEmitter, 500 events a batch, one kept connection, no base64, no log lines; flush() at the end",
    },
    NONE: {"default": "an empty call"},
}
"""Subject → configuration → what it is. ``best`` is the least cost for events that all arrive."""
