"""What the fields of a body are called in OpenTelemetry: attributes, resource, moments. Pure.

cmdorc's own fields have the names of OpenTelemetry's conventions for CI/CD where there are such: a chain of triggers is
a pipeline run, a run of a command one of its tasks. Whatever else a body has is ``DOMAIN.FIELD``. Nothing is here that
is not in the body.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cmdorc_telemetry.tally import body_of, measured, seconds_of, written
from cmdorc_telemetry.types import BatchEvent

CORE, TRACES = "cmdorc.core", "cmdorc.traces"

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
_ARCH = {"x86_64": "amd64", "i686": "x86", "armv7l": "arm32", "ppc64le": "ppc64"}


class Facts:
    """One event, read."""

    def __init__(self, event: BatchEvent) -> None:
        """What is no body that the gate lets out has no fields."""
        self.event_id = event.event_id or os.urandom(16).hex()  # one without cannot be known again
        self.body = body_of(event)
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
        return max(int(seconds_of(self.body.get("timestamp")) or 0), 0)

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

    @property
    def source(self) -> str:
        """The same as one text."""
        return written(self.service())

    def resource(self) -> dict[str, str]:
        """What recorded it."""
        arch = str(self.body.get("arch", ""))
        found = {
            "service.version": self.body.get("app_version", self.body.get("cmdorc_version")),
            "os.type": self.body.get("os"),
            "host.arch": _ARCH.get(arch, arch),
            "process.runtime.version": self.body.get("python_version"),
        }
        return self.service() | {key: value for key, value in found.items() if isinstance(value, str) and value}


def attribute(spec: str, event: str, field: str) -> str:
    """The attribute that a field of an event becomes; ``spec`` is the name alone."""
    return _NAMES.get((spec, event), {}).get(field) or f"{spec.partition('.')[0] or 'unknown'}.{field}"


def number(value: object) -> int | None:
    """``value``, where it is a whole number that capture takes."""
    return value if isinstance(value, int) and measured(value) is not None else None
