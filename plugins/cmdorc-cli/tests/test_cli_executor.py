"""``LiveExecutor`` by itself: what cmdorc's own results hold."""

from __future__ import annotations

import asyncio
import io
import time

import cmdorc
import pytest

from cmdorc_cli.executor import LiveExecutor
from cmdorc_cli.output import Output


@pytest.fixture
def orchestrator():
    def make(command: str, **more) -> tuple[cmdorc.CommandOrchestrator, io.BytesIO]:
        shown = io.BytesIO()
        executor = LiveExecutor(Output(shown, ["A"], pytest.fail), cmdorc.OutputStorageConfig())
        config = cmdorc.RunnerConfig([cmdorc.CommandConfig(name="A", command=command, triggers=[], **more)])
        return cmdorc.CommandOrchestrator(config, executor), shown

    return make


async def test_a_result_holds_the_whole_output_decoded(orchestrator) -> None:
    runner, shown = orchestrator(r"printf 'gr\303\274n \377\n'; echo err >&2; exit 1")
    result = await (await runner.run_command("A")).wait()
    await runner.shutdown()
    assert result.output == "grün \ufffd\nerr\n"
    assert shown.getvalue() == b"gr\xc3\xbcn \xff\nerr\n"
    assert result.state is cmdorc.RunState.FAILED
    assert result.error == "Command exited with code 1"


async def test_a_result_holds_what_came_before_a_timeout(orchestrator) -> None:
    runner, shown = orchestrator("echo begun; sleep 60", timeout_secs=1)
    result = await (await runner.run_command("A")).wait()
    await runner.shutdown()
    assert result.output == "begun\n"
    assert shown.getvalue() == b"begun\n"
    assert result.error == "Command timed out after 1 seconds"


async def test_a_cancelled_result_is_final_as_in_cmdorc(orchestrator) -> None:
    runner, shown = orchestrator("trap 'echo bye; exit 0' TERM; echo up; sleep 60 & wait")
    handle = await runner.run_command("A")
    deadline = time.monotonic() + 20
    while shown.getvalue() != b"up\n":
        assert time.monotonic() < deadline, shown.getvalue()
        await asyncio.sleep(0.01)
    assert await runner.cancel_command("A", "enough") == 1
    await runner.shutdown()
    assert handle.state is cmdorc.RunState.CANCELLED
    assert handle.comment == "enough"
    assert shown.getvalue() == b"up\nbye\n"


def test_it_counts_as_a_local_subprocess_executor() -> None:
    executor = LiveExecutor(Output(io.BytesIO(), [], pytest.fail), cmdorc.OutputStorageConfig())
    assert isinstance(executor, cmdorc.LocalSubprocessExecutor)
