"""One session of an orchestrator, from its start to its shutdown: the jobs in order, signals, the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from .chains import ChainOrchestrator
from .executor import LiveExecutor
from .output import Output
from .project import SHUTDOWN, STARTUP, Project
from .report import say, summarise

if TYPE_CHECKING:
    from cmdorc_telemetry import TelemetryConfig

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SIGPIPE = 13


@dataclass(frozen=True)
class Run:
    """Run a command."""

    name: str
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Fire:
    """Fire an event."""

    event: str


Job = Run | Fire


class Stop:
    """Whether, and why, the session has to end before its time."""

    def __init__(self) -> None:
        self.code = 0
        """The exit code that follows from it; 0 while there is no reason."""
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ask(self, code: int) -> None:
        """End the session soon."""
        self.code = self.code or code
        self._loop.call_soon_threadsafe(self._asked.set)

    async def asked(self) -> None:
        """Wait until the session has to end."""
        await self._asked.wait()

    def output_lost(self, fault: OSError) -> None:
        """Nobody reads stdout any more, or it takes no more."""
        if not isinstance(fault, BrokenPipeError):
            say(f"stdout cannot be written: {fault.strerror}")
        self.ask(128 + _SIGPIPE if isinstance(fault, BrokenPipeError) else 1)

    @contextmanager
    def signals(self, kill: Callable[[], None]) -> Iterator[None]:
        """Be asked by Ctrl-C and SIGTERM; at the second ``kill`` and end at once. What was ignored stays so."""

        def signalled(number: int, frame: FrameType | None) -> None:
            if self.code:
                kill()
                os._exit(128 + number)
            self.ask(128 + number)
            self._loop.call_soon_threadsafe(say, "stopping; a second signal stops at once")

        known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        heard = [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        before = [(number, signal.signal(number, signalled)) for number in heard]
        try:
            yield
        finally:
            if not self.code:  # otherwise the process is about to end, and a second signal still ends it at once
                for number, handler in before:
                    signal.signal(number, handler)


async def conduct(project: Project, jobs: Sequence[Job], telemetry: TelemetryConfig | None) -> int:
    """Do ``jobs`` in order, stop at the first that fails, shut down. The exit code."""
    stop = Stop()
    names = [job.name for job in jobs if isinstance(job, Run)]
    events = [job.event for job in jobs if isinstance(job, Fire)]
    reachable = project.reachable(names, [STARTUP, *events, SHUTDOWN])
    output = Output(sys.stdout.buffer, reachable, stop.output_lost)
    executor = LiveExecutor(output, project.runner.output_storage)
    with stop.signals(executor.kill):
        orchestrator = ChainOrchestrator(project.runner, executor, config=telemetry)
        work = asyncio.create_task(_work(orchestrator, executor, jobs))
        asked = asyncio.create_task(stop.asked())
        await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        orchestrator.begin(SHUTDOWN)
        await orchestrator.shutdown()
        for task in (work, asked):
            task.cancel()
        await asyncio.gather(work, asked, return_exceptions=True)
        summarise(executor, orchestrator.chains)
    return stop.code or work.result()


async def _work(orchestrator: ChainOrchestrator, executor: LiveExecutor, jobs: Sequence[Job]) -> int:
    if Fire(STARTUP) not in jobs:
        orchestrator.begin(STARTUP)
        await orchestrator.startup()
    for job in jobs:
        if isinstance(job, Run):
            chain = await orchestrator.run_chain(job.name, job.variables)
        else:
            chain = await orchestrator.trigger_chain(job.event)
        code = chain.exit_code(executor)
        if code:
            return code
    return 0
