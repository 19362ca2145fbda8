"""What the fields of a body are called in OpenTelemetry: attributes, resource, moments. Pure.

cmdorc's own fields have the names of OpenTelemetry's conventions for CI/CD where there are such: a chain of triggers is
a pipeline run, a run of a command one of its tasks. Whatever else a body has is ``DOMAIN.FIELD``. Nothing is here that
is not in the body.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import msgspec

from cmdorc_telemetry.types import BatchEvent

CORE, TRACES = "cmdorc.core", "cmdorc.traces"
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_MOST = 2**53
"""What is further from zero is no value that capture takes."""

PIPELINE, RUN_ID, RUN_RESULT = "cicd.pipeline.name", "cicd.pipeline.run.id", "cicd.pipeline.result"
RUN_STATE = "cicd.pipeline.run.state"
TASK, TASK_ID, TASK_RESULT = "cicd.pipeline.task.name", "cicd.pipeline.task.run.id", "cicd.pipeline.task.run.result"
ERROR = "error.type"
_NAMES: Mapping[tuple[str, str], Mapping[str, str]] = {
    (CORE, "command_completed"): {"command_name": TASK, "run_id": TASK_ID, "state": TASK_RESULT},
    (TRACES, "traces.run_ended"): {
        "step": TASK, "run_id": TASK_ID, "outcome": TASK_RESULT, "workflow_id": RUN_ID, "trigger": PIPELINE,
    },
    (TRACES, "traces.chain_ended"): {"trigger": PIPELINE, "workflow_id": RUN_ID, "outcome": RUN_RESULT},
}  # fmt: skip
"""(spec, event) → field → what the conventions call it."""
RESULTS: Mapping[str, str] = {"failed": "failure", "cancelled": "cancellation"}
"""States of cmdorc → results as the conventions have them, where they differ."""
_RESULT_NAMES = (TASK_RESULT, RUN_RESULT)

_SERVICE = ("app_name", "app_version", "cmdorc_version", "anonymous_install_id", "python_version", "os", "arch")
_NO_ATTRIBUTES = (*_SERVICE, "event", "timestamp")
_OS = {"macos": "darwin"}
_ARCH = {"x86_64": "amd64", "i686": "x86", "armv7l": "arm32", "ppc64le": "ppc64"}


class Facts:
    """One event, read."""

    def __init__(self, event: BatchEvent) -> None:
        """What is no body that the gate lets out has no fields."""
        self.event_id = event.event_id or os.urandom(16).hex()  # one without cannot be known again
        self.body = _body(event)
        self.event = str(self.body.get("event", event.event))
        self.spec = str(self.body.get("spec", ""))
        self.kind = self.spec.partition("@")[0], self.event
        self.domain = self.kind[0].partition(".")[0] or "unknown"

    @property
    def name(self) -> str:
        """What the event is called among those of all programs."""
        return self.event if self.event.startswith(f"{self.domain}.") else f"{self.domain}.{self.event}"

    @property
    def is_trace(self) -> bool:
        """Whether it is an event that traces are made of."""
        return self.kind[0] == TRACES

    @property
    def seconds(self) -> int:
        """When it was recorded, since the epoch; 0 where it does not say."""
        return _seconds(str(self.body.get("timestamp", "")))

    def called(self, field: str) -> str:
        """The attribute that a field becomes."""
        return _NAMES.get(self.kind, {}).get(field) or f"{self.domain}.{field}"

    def attributes(self) -> dict[str, Any]:
        """All fields but those that say what recorded the event, and when."""
        names = _NAMES.get(self.kind, {})
        found: dict[str, Any] = {}
        for field, value in self.body.items():
            if field not in _NO_ATTRIBUTES and field != "error_class":
                found[names.get(field) or f"{self.domain}.{field}"] = value
        for name in _RESULT_NAMES:
            if name in found:
                found[name] = self.result(str(found[name]))
        if (error := self.error) is not None:
            found[ERROR] = error
        return found

    def result(self, state: str) -> str:
        """A state of cmdorc's as the conventions call it."""
        return "timeout" if self.body.get("timed_out") is True and state != "success" else RESULTS.get(state, state)

    @property
    def error(self) -> str | None:
        """What kind of failure it tells of; None for none."""
        failed = self.body.get("outcome", self.body.get("state")) in ("failure", "failed")
        if not failed:
            return None
        return "timed_out" if self.body.get("timed_out") is True else str(self.body.get("error_class", "failed"))

    def service(self) -> dict[str, str]:
        """Who it is, whatever its version: what metrics are counted for."""
        name = self.body.get("app_name", self.domain)
        found = {"service.name": name, "service.instance.id": self.body.get("anonymous_install_id")}
        return {key: value for key, value in found.items() if isinstance(value, str) and value}

    def resource(self) -> dict[str, str]:
        """What recorded it."""
        system, arch = str(self.body.get("os", "")), str(self.body.get("arch", ""))
        found = {
            "service.version": self.body.get("app_version", self.body.get("cmdorc_version")),
            "os.type": _OS.get(system, system),
            "host.arch": _ARCH.get(arch, arch),
            "process.runtime.version": self.body.get("python_version"),
        }
        return self.service() | {key: value for key, value in found.items() if isinstance(value, str) and value}


def number(value: object) -> int | None:
    """``value``, where it is a whole number that capture takes."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST else None


def measured(value: object) -> float | None:
    """``value``, where it is a number that capture takes."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST else None


def _body(event: BatchEvent) -> dict[str, Any]:
    try:
        return _decode(event.body)
    except _UNREADABLE:
        return {}


@lru_cache(maxsize=256)  # most events of a batch are of the same few seconds
def _seconds(timestamp: str) -> int:
    try:
        moment = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return 0
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return max(int(seconds), 0)


_decode = msgspec.json.Decoder(dict[str, Any]).decode  # made here: two threads must not be the first to use a type
