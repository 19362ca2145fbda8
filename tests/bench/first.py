"""A program with one run of ``true``; with an argument, it is instrumented."""

import asyncio
import sys

import cmdorc


async def main() -> None:
    commands = [cmdorc.CommandConfig(name="True", command="true", triggers=[])]
    orchestrator = cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=commands))
    if sys.argv[1:]:
        from cmdorc_telemetry import instrument

        instrument(orchestrator)
    await (await orchestrator.run_command("True")).wait()
    await orchestrator.shutdown()


asyncio.run(main())
