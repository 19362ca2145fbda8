"""A real cmdorc orchestrator with telemetry, for tests that want to see what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmdorc import CommandOrchestrator

    from ..telemetry import Telemetry

Commands = Mapping[str, str | tuple[str, Sequence[str]]]
"""Name → the shell command; or that and the triggers that start it."""
_DEADLINE_SECONDS = 20.0
_LOOK_SECONDS = 0.005


def orchestrator_of(commands: Commands) -> CommandOrchestrator:
    """A cmdorc orchestrator with these commands, which nobody observes yet."""
    import cmdorc  # of the extra

    made = []
    for name, command in commands.items():
        line, triggers = (command, ()) if isinstance(command, str) else command
        made.append(cmdorc.CommandConfig(name=name, command=line, triggers=list(triggers), max_concurrent=0))
    return cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=made))


async def run(
    commands: Commands, *triggers: str, plugins: Sequence[object] = (), seconds: float = _DEADLINE_SECONDS
) -> Telemetry:
    """Trigger events in an instrumented orchestrator, wait until nothing runs any more, and shut it down.

    ``plugins`` are plugin objects beside those that are enabled. Raises TimeoutError.
    """
    from ..instrumentation import instrument

    orchestrator = orchestrator_of(commands)
    telemetry = instrument(orchestrator, plugins=plugins)
    async with orchestrator:
        for trigger in triggers:
            await orchestrator.trigger(trigger)
        waited = 0.0
        while orchestrator.get_all_active_handles():
            if waited > seconds:
                raise TimeoutError(f"after {seconds:g} s something still runs")
            await asyncio.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
    return telemetry
