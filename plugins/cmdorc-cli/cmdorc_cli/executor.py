"""Runs commands as cmdorc's own executor does, shows their output while it comes, and keeps their exit codes.

cmdorc reads all output at the end and keeps an error text only. Here its executor goes on doing everything; what is
exchanged, once a process is there, is how its output is read, and whom its signals reach: the whole process group,
since a shell that is killed leaves behind what it had started, and that keeps the run waiting.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Any

import cmdorc

from .output import Output

TIMED_OUT, NOT_STARTED, CANCELLED = 124, 126, 128 + signal.SIGTERM
_CHUNK = 65536
_TIMEOUT_TEXT = "Command timed out after"
_SHUTDOWN_COMMENT = "orchestrator shutdown"


class LiveExecutor(cmdorc.LocalSubprocessExecutor):
    """A ``LocalSubprocessExecutor`` that writes to ``output`` what its commands print, when they print it."""

    def __init__(self, output: Output, output_storage: cmdorc.OutputStorageConfig) -> None:
        super().__init__(output_storage=output_storage)
        self.started: dict[str, cmdorc.RunResult] = {}
        """Every run, by its id, in the order of their starts."""
        self._output = output
        self._spawned: dict[str, Process] = {}

    async def start_run(self, result: cmdorc.RunResult, resolved: cmdorc.ResolvedCommand) -> None:
        """Start it, as cmdorc does, and remember it."""
        self.started[result.run_id] = result
        await super().start_run(result, resolved)

    def update_latest_run(self, result: cmdorc.RunResult) -> None:
        """Called for other things too, but also between the start of a process and the first reading from it."""
        process = self._processes.get(result.run_id)
        if process is not None and result.run_id not in self._spawned:
            self._spawned[result.run_id] = process
            if os.name != "nt":
                _reach_group(process)
            self._show(result, process)
        super().update_latest_run(result)

    def _show(self, result: cmdorc.RunResult, process: Process) -> None:
        stdout, channel = process.stdout, self._output.channel(result.command_name)
        assert stdout is not None
        read = stdout.read

        async def read_and_show(n: int = -1) -> bytes:
            if n >= 0:
                return await read(n)
            chunks = []
            try:
                while chunk := await read(_CHUNK):
                    channel.write(chunk)
                    chunks.append(chunk)
            except asyncio.CancelledError:  # a timeout, or a cancel that could not wait: keep what there is
                result.output = b"".join(chunks).decode("utf-8", errors="replace")
                raise
            finally:
                channel.end()
            return b"".join(chunks)

        stdout.read = read_and_show  # type: ignore[method-assign]  # of this object alone

    async def cancel_run(self, result: cmdorc.RunResult, comment: str | None = None) -> None:
        """Cancel it, as cmdorc does, but not while its process is being made: asyncio does not give that up quietly."""
        run_id = result.run_id
        while run_id in self._tasks and run_id not in self._spawned:  # noqa: ASYNC110 - nothing tells; a few turns
            await asyncio.sleep(0)
        await super().cancel_run(result, comment)

    async def _kill_process(self, process: Process) -> None:
        # What has left the process group may hold the pipe for ever: it is not waited for.
        _transport(process).get_pipe_transport(1).close()
        await super()._kill_process(process)

    async def cleanup(self) -> None:
        """End all runs, as cmdorc does, and their transports: asyncio complains of those that outlive its loop."""
        await super().cleanup()
        for process in self._spawned.values():
            process.kill()  # cmdorc forgets one whose latest_run.toml could not be written
            _transport(process).get_pipe_transport(1).close()
            await process.wait()
            _transport(process).close()

    def kill(self) -> None:
        """SIGKILL to everything that runs, without waiting."""
        for process in self._processes.values():
            process.kill()

    def exit_code(self, run_id: str) -> int:
        """What a shell would say of a run that is over: 0, the command's own code, or 128 + signal."""
        result, process = self.started[run_id], self._spawned.get(run_id)
        if result.state is cmdorc.RunState.SUCCESS:
            return 0
        if result.state is not cmdorc.RunState.FAILED:
            return CANCELLED
        if str(result.error).startswith(_TIMEOUT_TEXT):
            return TIMED_OUT
        if process is None:
            return NOT_STARTED
        code = process.returncode
        return 128 - code if code is not None and code < 0 else code or 1

    def fault(self, run_id: str) -> str:
        """What became of a run, in words; empty where it succeeded or was cancelled by shutdown."""
        result, process = self.started[run_id], self._spawned.get(run_id)
        if result.state is cmdorc.RunState.CANCELLED:
            return "" if result.comment == _SHUTDOWN_COMMENT else f"was cancelled ({result.comment})"
        if result.state is not cmdorc.RunState.FAILED:
            return ""
        if str(result.error).startswith(_TIMEOUT_TEXT):
            return str(result.error).replace("Command", "was killed: it", 1)
        if process is None:
            return f"could not be started: {result.error}"
        if process.returncode is not None and process.returncode < 0:
            return f"was killed by {_signal_name(-process.returncode)}"
        return f"failed with exit code {process.returncode}" if process.returncode else f"failed: {result.error}"


def _transport(process: Process) -> Any:
    return process._transport  # type: ignore[attr-defined]  # there is no public way to it


def _reach_group(process: Process) -> None:
    """Let the two signals that cmdorc sends go to the process group that every command leads."""

    def send(number: int) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # just gone: cmdorc is to wait until asyncio has heard of it
                os.killpg(process.pid, number)

    process.terminate = lambda: send(signal.SIGTERM)  # type: ignore[method-assign]  # of this object alone
    process.kill = lambda: send(signal.SIGKILL)  # type: ignore[method-assign]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
