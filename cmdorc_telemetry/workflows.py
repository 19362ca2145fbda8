"""What specs make of cmdorc's runs and chains: the events of their operations and workflows.

An operation with ``commands`` has an event of its own for each run of one of them that ended; a workflow has events for
the begin of a chain, for each of its runs, and for its end. Nothing is remembered here: a record carries what is told
of it. How an event is captured and journalled, and whether anybody agreed to it, is the recorder's.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .hookspecs import hookimpl
from .lifecycle import Chain, CompletedRun
from .recording import Recording
from .spec import Operation, Outcome, TelemetrySpec, Version, Workflow
from .spec.sources import FILLED, PRIVATE, bounded

if TYPE_CHECKING:
    from .recorder import Recorder

OUTCOMES: Mapping[str, str] = {"success": "success", "failed": "failure"}
"""State of a run → what it is called in events; a run that did neither counts as cancelled."""
_MANY = 1000
"""Names that are remembered with what stands for them."""


class _Emission(NamedTuple):
    """What one outcome sends."""

    event: str
    version: Version | None
    paths: Mapping[str, str]
    """Property ← path."""

    @classmethod
    def of(cls, spec: TelemetrySpec, outcome: Outcome) -> _Emission:
        """What fills itself, and what the outcome says; no private name in what is shared, whatever it says."""
        event = spec.event(outcome.event, outcome.version)
        assert event is not None  # the model refuses others
        paths = {name: name for name in FILLED} | outcome.properties
        allowed = {
            name: path for name, path in paths.items()
            if (prop := event.properties.get(name)) is not None
            and (path not in PRIVATE or bounded(prop, masked=event.masks(name)))
        }  # fmt: skip
        return cls(outcome.event, outcome.version, allowed)

    def send(self, recorder: Recorder, now: Recording, told: Mapping[str, Any]) -> None:
        """Record it, where somebody agreed to its spec."""
        if self.event in now.capture:
            properties = {name: value for name, path in self.paths.items() if (value := told.get(path)) is not None}
            recorder.track(self.event, properties, now, version=self.version)


class _Declared(NamedTuple):
    """An operation or a workflow of a spec, and what its outcomes send."""

    ref: str
    name: str
    outcomes: Mapping[str, _Emission]
    covers: Callable[[str], bool]


class _Table:
    """Operations or workflows, by the commands or events that they are for."""

    def __init__(self, declared: list[_Declared]) -> None:
        self._declared = declared
        self._found: dict[str, list[_Declared]] = {}

    def __getitem__(self, name: str) -> list[_Declared]:
        found = self._found.get(name)
        if found is None:
            if len(self._found) >= _MANY:
                self._found.clear()
            found = self._found[name] = [each for each in self._declared if each.covers(name)]
        return found


class Operations:
    """Tells the outcome of every run that is an operation of some spec."""

    def __init__(self, recorder: Recorder, operations: _Table) -> None:
        self._recorder, self._operations = recorder, operations

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        """Record its success or its failure: a run that was cancelled or abandoned is no success."""
        found = self._operations[run.command_name]
        if not found:
            return
        now, told = self._recorder.recording, _told(run)
        which = "success" if told["outcome"] == "success" else "failure"
        told |= {"command": run.command_name, "trigger": run.trigger_event, "manual": run.manual,
                 "chain_depth": len(run.trigger_chain)}  # fmt: skip
        for operation in found:
            if (emission := operation.outcomes.get(which)) is not None:
                emission.send(self._recorder, now, {**told, "name": operation.name})


class Workflows:
    """Tells the begin, the steps and the end of every chain that is a workflow of some spec."""

    def __init__(self, recorder: Recorder, workflows: _Table) -> None:
        self._recorder, self._workflows = recorder, workflows

    @hookimpl
    def cmdorc_chain(self, chain: Chain) -> None:
        """Record that it began, or how it ended."""
        if chain.outcome is None:
            self._tell("started", chain, {})
        else:
            duration = round(chain.duration * 1000)
            self._tell("completed", chain, {"outcome": chain.outcome, "duration_ms": duration, "steps": chain.runs,
                                            "started_ms": round(chain.started_at * 1000), "failed": chain.failed,
                                            "cancelled": chain.cancelled})  # fmt: skip

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        """Record that one of its steps ended."""
        if run.chain is not None:
            # One that never started ends now, as the chain has it.
            started = run.started_at if run.started_at is not None else run.chain.started_at + run.chain.duration
            self._tell("step", run.chain, {**_told(run), "step": run.command_name, "index": run.chain_index,
                                           "causes": list(run.chain_causes),
                                           "started_ms": round(started * 1000)})  # fmt: skip

    def _tell(self, which: str, chain: Chain, told: Mapping[str, Any]) -> None:
        now = self._recorder.recording
        for workflow in self._workflows[chain.trigger]:
            if (emission := workflow.outcomes.get(which)) is not None:
                identity = {"name": workflow.name, "trigger": chain.trigger, "workflow_id": _id(chain, workflow, now)}
                emission.send(self._recorder, now, {**told, **identity})


def _told(run: CompletedRun) -> dict[str, Any]:
    """What is told of a run in any event."""
    state = run.state if run.final else "cancelled"
    outcome = OUTCOMES.get(state, "cancelled")
    told: dict[str, Any] = {
        "duration_ms": round(run.duration * 1000), "outcome": outcome, "state": state, "timed_out": run.timed_out,
        "concurrent_runs": run.concurrent_runs, "run_id": run.run_id,
    }  # fmt: skip
    if outcome != "success":
        told["error_class"] = "timed_out" if run.timed_out else state
    return told


def _id(chain: Chain, workflow: _Declared, now: Recording) -> str:
    """What events of one chain have in common: nothing that another workflow's have, or another generation's."""
    text = f"{chain.id} {now.generation} {workflow.ref} {workflow.name}"
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


def listeners(recorder: Recorder) -> Iterator[tuple[str, object]]:
    """The lifecycle plugins that the specs of a recorder need, by name: none where they declare nothing of the kind."""
    latest = [spec for spec in recorder.registry if spec is recorder.registry.get(spec.meta.name)]
    operations = [_declared(spec, each, each.covers)
                  for spec in latest for each in spec.operations if each.commands]  # fmt: skip
    workflows = [_declared(spec, each, each.begins) for spec in latest for each in spec.workflows]
    if operations:
        yield "telemetry-operations", Operations(recorder, _Table(operations))
    if workflows:
        yield "telemetry-workflows", Workflows(recorder, _Table(workflows))


def _declared(spec: TelemetrySpec, owner: Operation | Workflow, covers: Callable[[str], bool]) -> _Declared:
    outcomes = {which: _Emission.of(spec, outcome) for which, outcome in owner.outcomes()}
    return _Declared(spec.ref, owner.name, outcomes, covers)
