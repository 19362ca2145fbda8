"""Chains: what one run, or one event, sets off, directly and by triggers, until it has all settled.

cmdorc does not tell when a chain is over: the tasks that follow runs and fire their triggers are its own. They are
counted here as they are made; a task belongs to the chain in whose context it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import cmdorc

from cmdorc_telemetry import TelemetryConfig, TelemetryOrchestrator

from .executor import NOT_STARTED, LiveExecutor

WRONG, NOTHING_STARTED = 2, 3
_POLICY = (cmdorc.DebounceError, cmdorc.ConcurrencyLimitError)


@dataclass(frozen=True)
class Refusal:
    """A run that was asked for and did not start."""

    command: str
    error: Exception
    direct: bool

    @property
    def by_policy(self) -> bool:
        """Whether the command's own debounce or concurrency limit is why."""
        return isinstance(self.error, _POLICY)

    @property
    def why(self) -> str:
        """The reason, as cmdorc words it."""
        if isinstance(self.error, AttributeError | TypeError):  # it does not check values before it uses them
            return f"{self.error}. Is every variable and every value of env a string?"
        return str(self.error)

    @property
    def code(self) -> int:
        """The exit code that stands for it."""
        if self.by_policy:
            return NOTHING_STARTED
        return NOT_STARTED if isinstance(self.error, OSError) else WRONG


@dataclass
class Chain:
    """What was set off, so far."""

    event: str | None = None
    """The event that set it off; None for a run."""
    direct: list[str] = field(default_factory=list)
    """The ids of the runs that were asked for, or that the event started."""
    refused: list[Refusal] = field(default_factory=list)
    _open: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def counted(self, work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """``work``, which keeps the chain from being settled from now until it is done."""
        self._open += 1
        return self._closing(work)

    async def _closing(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def settled(self) -> None:
        """Wait until nothing of it is under way."""
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    def exit_code(self, executor: LiveExecutor) -> int:
        """That of the first direct run that failed; of a refusal where nothing else says so; otherwise 0."""
        codes = [executor.exit_code(run_id) for run_id in self.direct]
        codes += [each.code for each in self.refused if each.direct and not (each.by_policy and self.direct)]
        return next(filter(None, codes), 0)


_current: ContextVar[Chain | None] = ContextVar("cmdorc_cli_chain", default=None)


class ChainOrchestrator(TelemetryOrchestrator):
    """An instrumented orchestrator that knows what belongs together."""

    def __init__(
        self, runner_config: cmdorc.RunnerConfig, executor: LiveExecutor, *, config: TelemetryConfig | None
    ) -> None:
        super().__init__(runner_config, executor, config=config)
        self.chains: list[Chain] = []

    def begin(self, event: str | None = None) -> Chain:
        """A new chain, to which everything belongs that this task does from now on."""
        chain = Chain(event)
        self.chains.append(chain)
        _current.set(chain)
        return chain

    async def run_chain(self, name: str, variables: Mapping[str, str]) -> Chain:
        """Run a command, and wait until everything that it triggered is over."""
        chain = self.begin()
        try:
            handle = await self.run_command(name, dict(variables))
        except (cmdorc.CmdorcError, OSError, AttributeError, TypeError) as fault:
            chain.refused.append(Refusal(name, fault, direct=True))
        else:
            chain.direct.append(handle.run_id)
        await chain.settled()
        return chain

    async def trigger_chain(self, event: str) -> Chain:
        """Fire an event, and wait until everything that it set off is over."""
        chain = self.begin(event)
        await self.trigger(event)
        await chain.settled()
        return chain

    # -- cmdorc's own, which it has no public names for ------------------------------------------------------------

    def _monitor_run(
        self, result: cmdorc.RunResult, handle: cmdorc.RunHandle, context: cmdorc.TriggerContext | None = None
    ) -> Coroutine[Any, Any, None]:
        return _counted(super()._monitor_run(result, handle, context))

    def _emit_auto_trigger(
        self, event_name: str, handle: cmdorc.RunHandle | None, context: cmdorc.TriggerContext | None = None
    ) -> Coroutine[Any, Any, None]:
        return _counted(super()._emit_auto_trigger(event_name, handle, context))

    async def _trigger_run_command(
        self, config: cmdorc.CommandConfig, event_name: str, context: cmdorc.TriggerContext
    ) -> cmdorc.RunHandle:
        chain = _current.get()
        direct = chain is not None and chain.event == event_name
        try:
            handle = await super()._trigger_run_command(config, event_name, context)
        except Exception as fault:  # which cmdorc only logs
            if chain is not None:
                chain.refused.append(Refusal(config.name, fault, direct))
            raise
        if chain is not None and direct:
            chain.direct.append(handle.run_id)
        return handle


def _counted(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    chain = _current.get()
    return work if chain is None else chain.counted(work)
