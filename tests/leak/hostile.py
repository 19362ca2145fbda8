"""A plugin that does with canaries whatever it can, in every hook. What it is told is in the plan of its process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.spec import Event, Property, TelemetrySpec
from cmdorc_telemetry.spec.model import Meta, Semantics
from cmdorc_telemetry.types import Batch, BatchResult, EventResult
from tests.leak.plan import Plan

NAME = "hostile"
ANYTHING = "(?s:.*)"


def spec(plan: Plan | None = None) -> TelemetrySpec:
    """The spec of the plugin's own event. Without a plan, as the server knows it: without a canary in it."""
    text = plan.junk if plan else "A probe"
    private = Property(type="string", pattern=ANYTHING, max_length=500, audience="private")
    properties = {
        "size": Property(type="count", level="minimal", description=text),
        "word": Property(type="string", pattern="[a-z]{1,8}", max_length=8, level="minimal", description=text),
        "kind": Property(type="enum", members=("one", "two"), level="minimal", description=text),
        "secret": private,
    }
    if plan:
        properties[plan.property] = private
        properties["mail"] = Property(type="string", pattern=ANYTHING, max_length=500, pii=True, level="minimal")
        properties["key"] = Property(type="string", pattern=ANYTHING, max_length=500, redact=True, level="minimal")
    return TelemetrySpec(
        meta=Meta(name="leak.probe", title=text, description=text, owners=(text,), tags=(text,)),
        events=(Event(name="probe", semantics=Semantics(what=text, who=text, why=text), properties=properties),),
    )


def probe(plan: Plan) -> dict[str, Any]:
    """Properties of one such event: declared and not, valid and not."""
    return {
        "size": 3, "word": plan.junk, "kind": plan.junk, "secret": plan.junk, plan.property: plan.junk,
        "mail": plan.junk, "key": plan.junk, plan.variables and next(iter(plan.variables)): plan.junk,
    }  # fmt: skip


class Hostile(TelemetryReporter):
    """A shared destination that raises once, then answers with what it should not know."""

    name = NAME

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._failed = False

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Not called: batches are."""

    async def report_batch(self, batch: Batch) -> BatchResult:
        """Raise, then answer."""
        junk = _plan().junk
        if not self._failed:
            self._failed = True
            raise RuntimeError(f"{junk} {_plan().error}")
        results = tuple(EventResult(each.event_id, "accepted", junk) for each in batch.events)
        return BatchResult(results=results, answer={junk: junk, "message": junk, "stats": {junk: junk}})


def _plan() -> Plan:
    return Plan.read(Path(os.environ["LEAK_PLAN"]).read_bytes())


class Plugin:
    """The hooks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def _raise(self, record: object) -> None:
        raise RuntimeError(f"{self._plan.error} {record!r}")

    @hookimpl
    def cmdorc_startup(self, session: object) -> None:
        """Raises."""
        self._raise(session)

    @hookimpl
    def cmdorc_completed(self, run: object) -> None:
        """Raises."""
        self._raise(run)

    @hookimpl
    def cmdorc_trigger(self, trigger: object) -> None:
        """Raises."""
        self._raise(trigger)

    @hookimpl
    def cmdorc_shutdown(self, session: object) -> None:
        """Raises."""
        self._raise(session)

    @hookimpl
    def telemetry_specs(self) -> list[TelemetrySpec]:
        """One with canaries wherever a spec has text."""
        return [spec(self._plan)]

    @hookimpl
    def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
        """One that is configured."""
        return [Hostile]

    @hookimpl
    def telemetry_detectors(self) -> list[Any]:
        """Nothing that is a detector."""
        return [self._plan.junk]

    @hookimpl
    def telemetry_anonymize(self, event: Any) -> Mapping[str, Any]:
        """In the mood that the event's id asks for."""
        plan = self._plan
        mood = plan.moods[int(event.fields["event_id"][-1], 16)]
        if mood == "raises":
            raise RuntimeError(f"{plan.error} {event!r}")
        if mood == "odd":
            return plan.junk  # type: ignore[return-value]
        if mood == "adds":
            return {plan.junk: plan.junk, "command_name": plan.junk, plan.property: plan.junk}
        if mood == "breaks":
            return {name: plan.junk for name in event.fields if name not in ("event", "spec", "level")}
        return {"python_version": None}


plugin = Plugin(_plan()) if "LEAK_PLAN" in os.environ else None
