"""Each plugin works where nothing else is installed but what it needs, and cmdorc: it is enabled, and seen to work."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.testing import FaultServer

from .conftest import PLUGINS, TABLES, answer

PROGRAM = """
import asyncio, cmdorc
from cmdorc_telemetry import instrument
async def main():
    commands = [cmdorc.CommandConfig(name="A", command="true", triggers=["go"]),
                cmdorc.CommandConfig(name="B", command="false", triggers=["command_success:A"])]
    orchestrator = cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(commands=commands))
    telemetry = instrument(orchestrator)
    async with orchestrator:
        await orchestrator.trigger("go")
        while not orchestrator.get_history("B"):
            await asyncio.sleep(0.01)
        for number in range(10):
            assert telemetry.track("paid", {"duration_ms": 2000})  # of the user's own spec
asyncio.run(main())
"""
SPEC = """
[meta]
name = "shop.web"
[[events]]
name = "paid"
semantics = { what = "Somebody paid" }
[events.properties]
duration_ms = { type = "duration_ms" }
[events.anomaly_detection]
minimum_sample = 10
actions = ["log"]
thresholds = [{ metric = "duration_ms", max = 1000 }]
"""
COMMANDS = '[[command]]\nname = "A"\ncommand = "echo out of A"\ntriggers = []\n'
MORE = {"otlp": 'audience = "private"\n'}
"""Traces are for their owner alone."""
DETACHED = ("CMDORC", "DO_NOT", "PYTHON", "COVERAGE")


class Alone:
    """An environment, somebody's home, and a server that takes whatever is sent there."""

    def __init__(self, environment: Path, folder: Path, server: FaultServer) -> None:
        self.folder, self.server = folder, server
        self._bin = environment / "bin"
        (site,) = environment.glob("lib/python*/site-packages")
        self.distributions = {each.metadata["Name"] for each in metadata.distributions(path=[str(site)])}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(DETACHED)}
        self._environ = {**kept, "HOME": str(folder), "CMDORC_HOME": str(folder / "home")}
        self.told = ""
        """What was said on standard error."""
        self.shown: dict[str, Any] = {}
        """The last run, as others may see it."""

    def say(self, program: str, *words: str) -> str:
        done = subprocess.run([self._bin / program, *words], env=self._environ, cwd=self.folder, capture_output=True,
                              text=True, timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        self.told += done.stderr
        return done.stdout

    @contextmanager
    def saying(self, program: str, *words: str) -> Iterator[str]:
        """While it runs: the first line that it prints."""
        running = subprocess.Popen([self._bin / program, *words], env=self._environ, cwd=self.folder, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            assert running.stdout is not None
            yield running.stdout.readline()
        finally:
            running.terminate()
            running.communicate(timeout=20)

    def configure(self, name: str) -> None:
        """What a user writes, and says yes to."""
        (self.folder / "shop.toml").write_text(SPEC)
        told = {"folder": self.folder, "server": self.server.endpoint.removesuffix("/v1")}
        (self.folder / "home").mkdir()
        file = self.folder / "home" / "config.toml"
        file.write_text(
            f'[telemetry]\nspecs = ["{self.folder}/shop.toml"]\n{TABLES[name].format_map(told)}{MORE.get(name, "")}'
        )
        self.say("cmdorc-telemetry", "enable", name)
        self.say("cmdorc-telemetry", "opt-in", "--level", "standard", "--yes")

    def taken(self, path: str) -> str:
        """What arrived there."""
        return "\n".join(each.plain.decode("latin-1") for each in self.server.seen if each.path == path)


EFFECTS: dict[str, Callable[[Alone], bool]] = {
    "anomaly": lambda alone: "paid: mean of duration_ms is 2 s, above 1 s" in alone.told,
    "anonymizer": lambda alone: alone.shown["state"] == "failed" and "arch" not in alone.shown,
    "file": lambda alone: (alone.folder / "events.jsonl").read_text().count('"command_completed"') == 2,
    "http": lambda alone: alone.taken("/ours/report").count('"command_completed"') == 2,
    "otlp": lambda alone: all(alone.taken(f"/otlp/v1/{signal}") for signal in ("metrics", "logs", "traces")),
    "posthog": lambda alone: alone.taken("/batch/").count('"command_completed"') == 2,
    "prometheus": lambda alone: 'command_name="B",state="failed"' in (alone.folder / "metrics.prom").read_text(),
    "segment": lambda alone: alone.taken("/batch").count('"command_completed"') == 2,
}
"""What is seen of each plugin, once two commands ran, of which the second one failed."""


@pytest.fixture
def alone(fresh: Callable[..., Path], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Alone]:
    """With one distribution, and cmdorc."""
    with FaultServer(answer=answer) as server:
        yield Alone(fresh(request.param, "cmdorc"), tmp_path, server)


def test_each_plugin_is_tried_alone() -> None:
    assert set(EFFECTS) == set(PLUGINS), "say in EFFECTS what is seen of it"


@pytest.mark.parametrize(
    ("alone", "name"), [pytest.param(f"cmdorc-telemetry-{name}", name, id=name) for name in EFFECTS], indirect=["alone"]
)
def test_a_plugin_alone_does_what_it_is_for(alone: Alone, name: str) -> None:
    ours = {each for each in alone.distributions if each.startswith("cmdorc")}
    assert ours == {"cmdorc", "cmdorc-telemetry", f"cmdorc-telemetry-{name}"}
    alone.configure(name)
    alone.told = ""
    assert alone.say("python", "-c", PROGRAM) == alone.told == ""
    alone.shown = json.loads(alone.say("cmdorc-telemetry", "show-payload", "command_completed"))
    ledger = alone.say("cmdorc-telemetry", "flush", "--timeout", "30")
    assert EFFECTS[name](alone), ledger + alone.told + str([each.path for each in alone.server.seen])


@pytest.mark.parametrize("alone", ["cmdorc-telemetry-server"], indirect=True)
def test_a_server_alone_takes_and_shows_events(alone: Alone) -> None:
    body = alone.say("cmdorc-telemetry", "show-payload", "command_completed")
    with alone.saying("cmdorc-telemetry-server", "serve", "--port", "0", "--store", "reports.db") as line:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{line.split()[-1]}/report", body.encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert json.load(reply)["message"]
    assert "command_completed" in alone.say("cmdorc-telemetry-server", "rows", "--store", "reports.db", "--json")


@pytest.mark.parametrize("alone", ["cmdorc-cli"], indirect=True)
def test_the_command_line_alone_runs_commands_and_records_them(alone: Alone) -> None:
    (alone.folder / "cmdorc.toml").write_text(COMMANDS)
    alone.say("cmdorc", "telemetry", "opt-in", "--local", "--yes")
    assert alone.say("cmdorc", "run", "A") == "out of A\n"
    alone.say("cmdorc", "telemetry", "flush")
    (command,) = json.loads(alone.say("cmdorc", "telemetry", "stats", "--json"))["commands"]
    assert (command["name"], command["runs"]) == ("A", 1)
