"""A program with cmdorc and telemetry in it, started by ``rig``: plants the canaries of its plan, and runs commands.

Says on standard output how many runs ended, and nothing else. What it logs goes to standard error, everything of it.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import logging
import os
import random
import shlex
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

CLONE_NEWUTS = 0x04000000


def pose(plan: Any) -> None:
    """Take another host's name: really, where that is allowed, else for whoever asks Python."""
    name = plan.host.encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if not (sys.platform == "linux" and libc.unshare(CLONE_NEWUTS) == 0 and libc.sethostname(name, len(name)) == 0):
        was = os.uname()
        socket.gethostname = lambda: plan.host
        os.uname = lambda: os.uname_result((was.sysname, plan.host, *was[2:]))
    assert plan.host == socket.gethostname() == os.uname().nodename


def listen_to_logs() -> None:
    """Everything that telemetry logs, at every level, goes to standard error; what cmdorc logs is not ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(threadName)s %(message)s"))
    log = logging.getLogger()
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    logging.getLogger("cmdorc").setLevel(logging.CRITICAL + 1)


def command_line(command: Any) -> str:
    """Prints its arguments, on both outputs, and ends as it should."""
    words = " ".join(shlex.quote(word) for word in command.words)
    return f"echo {words}; echo {words} >&2; exit {command.code}"


def configured(plan: Any, folder: Path) -> Any:
    """The configuration of the plan, read from a file with a name of its own."""
    import cmdorc
    import tomlkit

    tables = []
    for each in plan.commands:
        table = {"name": each.name, "command": command_line(each), "triggers": each.triggers, "max_concurrent": 0,
                 "env": each.variables}  # fmt: skip
        if each.folder:
            (folder / each.folder).mkdir(parents=True, exist_ok=True)
            table["cwd"] = str(folder / each.folder)
        tables.append(table)
    path = folder / f"{plan.config}.toml"
    path.write_text(tomlkit.dumps({"command": tables, "telemetry": {"enabled": True}}), encoding="utf-8")
    return path, cmdorc.load_config(path)


def picky(base: type[Any], error: str, chance: random.Random) -> type[Any]:
    """An executor that starts some runs not at all."""

    class Picky(base):  # type: ignore[misc]
        async def start_run(self, result: Any, resolved: Any) -> None:
            if chance.random() < 0.05:
                raise RuntimeError(f"{error} {result!r} {resolved!r}")
            await super().start_run(result, resolved)

    return Picky


async def session(plan: Any, folder: Path, runs: int, executor: Any) -> Any:
    """One orchestrator, from start to shutdown. Its telemetry."""
    import cmdorc

    from cmdorc_telemetry import instrument, load_telemetry_config
    from tests.leak.hostile import probe

    path, config = configured(plan, folder)
    orchestrator = cmdorc.CommandOrchestrator(config, executor)
    telemetry = instrument(orchestrator, config=load_telemetry_config(path))
    assert telemetry.recording

    async def ask(begin: Callable[[], Any]) -> None:
        with suppress(Exception):  # a cycle, a name that cmdorc does not take, an executor
            await begin()

    for number in range(runs):
        name = plan.commands[number % len(plan.commands)].name
        await ask(lambda name=name: orchestrator.run_command(name))
        if number % 10 == 0:
            await ask(lambda number=number: orchestrator.trigger(plan.events[number // 10 % len(plan.events)]))
            telemetry.track("probe", probe(plan))
            forge(telemetry, plan)
        while len(orchestrator.get_all_active_handles()) > 8:
            await asyncio.sleep(0.002)
    while orchestrator.get_all_active_handles():
        await asyncio.sleep(0.002)
    await orchestrator.shutdown()
    return telemetry


def forge(telemetry: Any, plan: Any) -> None:
    """Get into the journal what capture would never write: the gate must not trust it."""
    import msgspec

    from cmdorc_telemetry.capture import Capture, machine_fields
    from tests.leak.hostile import spec

    junk = msgspec.json.encode(plan.junk)
    capture = Capture([spec(plan)], {**machine_fields(), "anonymous_install_id": plan.install_id})
    for more in (b'"word":' + junk, b'"mail":' + junk, junk + b":" + junk, b'"app_name":' + junk):
        record = capture.record("probe", {"size": 4})
        telemetry._recorder.append(record.replace(b'"size":4', b'"size":4,' + more))


def sabotage(plan: Any) -> None:
    """Leak on purpose, in every way that the search has to see."""
    from cmdorc_telemetry.application import CMDORC
    from cmdorc_telemetry.gate import Gate
    from cmdorc_telemetry.home import Home
    from cmdorc_telemetry_http import HttpReporter

    name = plan.commands[0].name
    plain = name.encode()
    ways = [plain, plain.upper(), plain.hex().encode(), quote(name).encode(), base64.b64encode(plain),
            base64.b64encode(b"." + plain), base64.urlsafe_b64encode(b".." + plain), plain[::-1]]  # fmt: skip
    share, request = Gate._share, HttpReporter._request
    count = iter(range(1 << 30))

    def leaky(*args: Any) -> Any:
        import msgspec

        note = ways[next(count) % len(ways)].decode("utf-8", "replace")
        return share(*args)[:-1] + b',"note":' + msgspec.json.encode(note) + b"}"

    async def chatty(self: Any, method: str, path: str, headers: Any = None, body: Any = None) -> Any:
        logging.getLogger("cmdorc_telemetry").debug("sending what %s made", name)
        return await request(self, method, path, {**(headers or {}), "X-Note": plain.hex()}, body)

    Gate._share, HttpReporter._request = leaky, chatty
    audit = Home.of(CMDORC).audit
    audit.mkdir(parents=True, exist_ok=True)
    (audit / "http").write_bytes(base64.b64encode(plain))


def flush(telemetry: Any) -> bool:
    """Send all that can be sent, also behind the pause that a refusal brings with it."""
    deadline = time.monotonic() + 60
    while not telemetry.flush(2):
        with closing(telemetry.pipeline.open_spool()) as spool:
            ledgers = spool.ledger().values()
        if not any(each.pending > each.set_aside for each in ledgers if each.name != "later"):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def main() -> None:
    """``program.py FOLDER``, with the plan in ``LEAK_PLAN``."""
    from tests.leak.plan import Plan

    folder = Path(sys.argv[1])
    plan = Plan.read(Path(os.environ["LEAK_PLAN"]).read_bytes())
    pose(plan)
    os.umask(plan.umask)
    listen_to_logs()
    os.chdir(folder / plan.folder)
    import cmdorc

    if plan.sabotage:
        sabotage(plan)
    chance = random.Random(plan.salt)
    mock = picky(cmdorc.MockExecutor, plan.error, chance)
    real = picky(cmdorc.LocalSubprocessExecutor, plan.error, chance)
    flushed = True
    for executor, runs in ((mock(simulated_output=plan.junk), plan.mocked // 2),
                           (mock(should_fail=True, failure_message=plan.error), plan.mocked - plan.mocked // 2),
                           (real(), plan.real)):  # fmt: skip
        if runs:
            telemetry = asyncio.run(session(plan, folder, runs, executor))
            flushed = flush(telemetry) and flushed
    print("flushed" if flushed else "waiting")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
