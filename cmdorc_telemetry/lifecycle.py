"""What hooks are told of an orchestrator's life: a session, its triggers, its runs, and the chains that they form.

All are frozen, and hold raw values for local use; a reporter never sees one, only a ``Batch`` of bodies that the gate
let out.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from msgspec import Struct

RunState = Literal["pending", "running", "success", "failed", "cancelled"]
FINAL = ("success", "failed", "cancelled")
TriggerOutcome = Literal["ran", "nothing", "cycle", "refused"]
ChainOutcome = Literal["success", "failure", "cancelled"]


class Session(Struct, frozen=True, kw_only=True):
    """One instrumented orchestrator, as it was when its startup or shutdown was reported."""

    id: str
    """Random, fresh for each orchestrator."""
    started_at: float
    """Seconds since the epoch, UTC."""
    uptime: float = 0.0
    """Seconds since the orchestrator was instrumented, monotonic. 0 at startup."""
    command_count: int = 0
    """Commands that the orchestrator knows."""
    has_triggers: bool = False
    """Whether any of them is started by an event."""
    trigger_count: int = 0
    """Distinct trigger patterns that start commands."""
    trigger_patterns: tuple[str, ...] = ()
    """These patterns, as they are written."""
    executor_type: Literal["local_subprocess", "mock", "custom"] = "custom"
    """What runs the commands: cmdorc's own executor, its mock, or one of the program's."""
    retrigger_policies: tuple[str, ...] = ()
    """One ``on_retrigger`` value a command, in the order of the configuration."""
    cmdorc_version: str = ""
    """Of the cmdorc that is installed."""
    config_name: str | None = None
    """Name of the configuration file; None where the orchestrator was made without one that is known."""


class Chain(Struct, frozen=True, kw_only=True):
    """A trigger and the runs that it led to, as far as it had come: a chain begins with its first run."""

    id: str
    """Random, fresh for each chain, however many begin with the same event."""
    trigger: str
    """The event that it began with."""
    outcome: ChainOutcome | None = None
    """None until it is over; ``cancelled`` also where the orchestrator was shut down before its end."""
    started_at: float = 0.0
    """When its trigger was called: seconds since the epoch, UTC."""
    duration: float = 0.0
    """Seconds since its trigger, monotonic."""
    runs: int = 0
    """How many were started."""
    failed: int = 0
    """How many of those that have ended failed."""
    cancelled: int = 0
    """How many were cancelled, or abandoned."""
    session_id: str = ""
    """``id`` of the session that it belongs to."""


class CompletedRun(Struct, frozen=True, kw_only=True):
    """One run that reached a final state, or that was abandoned at shutdown (``final`` is then False)."""

    run_id: str
    """cmdorc's own, unique."""
    command_name: str
    """As the configuration has it."""
    state: RunState
    """cmdorc's own value, the last one where a cancel finalised twice."""
    final: bool = True
    """False where it was abandoned at shutdown."""
    started_at: float | None = None
    """Seconds since the epoch, UTC; in a chain they fit its begin and all durations, whatever was done to the clock
    meanwhile. None for a run that never started."""
    duration: float = 0.0
    """Seconds from running to final, monotonic; 0 for a run that never started."""
    manual: bool = True
    """Whether it was started by hand, and not by an event."""
    trigger_event: str | None = None
    """The event that started the run; None for a manual one."""
    trigger_chain: tuple[str, ...] = ()
    """The events that led to it, the first one first; empty for a manual one."""
    concurrent_runs: int = 1
    """Runs of this orchestrator that were live when this one ended, itself included."""
    timed_out: bool = False
    """Whether its time was up; its state is then ``failed``."""
    arg_count: int = 0
    """Words of the resolved command line after the first."""
    cwd: str | None = None
    """Working directory of the command; None where it was the orchestrator's own."""
    session_id: str = ""
    """``id`` of the session that it belongs to."""
    chain: Chain | None = None
    """The chain that started it, as it stood before this run was counted among its ends. None for a run that was
    started by hand, and where nobody listens to ``cmdorc_chain``."""
    chain_index: int = 0
    """Its number among the runs of its chain, in the order of their starts, from 0."""
    chain_causes: tuple[int, ...] = ()
    """The runs of its chain, by their numbers, that led to it: first the one whose event started it, then those whose
    other events had started the same command before. Empty where the chain's own trigger started it."""

    @classmethod
    def from_result(cls, result: Any) -> CompletedRun:
        """What cmdorc's own ``RunResult``, or whatever has its attributes, says of a run by itself."""
        state = getattr(result.state, "value", result.state)
        duration, error, resolved = result.duration, result.error, result.resolved_command
        return cls(
            run_id=result.run_id,
            command_name=result.command_name,
            state=state,
            final=state in FINAL,
            duration=duration.total_seconds() if isinstance(duration, timedelta) else duration or 0.0,
            manual=result.trigger_event is None,
            trigger_event=result.trigger_event,
            trigger_chain=tuple(result.trigger_chain),
            timed_out=state == "failed" and isinstance(error, str) and error.startswith("Command timed out after"),
            arg_count=max(0, len(resolved.command.split()) - 1) if resolved is not None else 0,
            cwd=resolved.cwd if resolved is not None else None,
        )


class Trigger(Struct, frozen=True, kw_only=True):
    """One trigger event and what came of it."""

    name: str
    """The event's."""
    outcome: TriggerOutcome
    """``ran``: at least one run started; ``nothing``: none; ``cycle``: it had come round, and started none;
    ``refused``: it came after shutdown."""
    chain_depth: int = 0
    """Events before this one in its chain."""
    runs_started: int = 0
    """Runs that it started itself."""
    session_id: str = ""
    """``id`` of the session that it belongs to."""
