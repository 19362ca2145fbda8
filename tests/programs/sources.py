"""What programs here are made of, and what they leave."""

from __future__ import annotations

COMMANDS = """
import asyncio, cmdorc

def config(name):
    return cmdorc.RunnerConfig(commands=[cmdorc.CommandConfig(name=name, command="true", triggers=["go"])])

async def run(orchestrator, name):
    await (await orchestrator.run_command(name)).wait()
"""
"""What programs here begin with."""
ONE = COMMANDS + "asyncio.run(run(cmdorc.CommandOrchestrator(config('A')), 'A'))\n"
STARTED, STOPPED = "orchestrator_started", "orchestrator_stopped"
WHOLE = {STARTED: 1, "A": 1, STOPPED: 1}
"""What one orchestrator with one run is."""
