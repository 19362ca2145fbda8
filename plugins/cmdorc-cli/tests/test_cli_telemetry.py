"""What telemetry may do to ``cmdorc run``: as good as nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cmdorc_telemetry import TelemetryLevel, TelemetryRegistry, clock
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.home import Home

ASKED = "This project asks for telemetry. It is off. `cmdorc telemetry opt-in` shows what it would send.\n"
ECHO = 'name = "A"\ncommand = "echo a"'

PROBE = """
import json
from cmdorc_telemetry import TelemetryReporter, hookimpl

def note(hook, **more):
    with open("hooks.jsonl", "a") as file:
        file.write(json.dumps({"hook": hook, **more}) + "\\n")

class Sink(TelemetryReporter):
    async def report(self, event, payload):
        with open("sent.jsonl", "a") as file:
            file.write(json.dumps({"event": event, "level": payload["level"]}) + "\\n")

@hookimpl
def telemetry_reporters():
    return [Sink]

@hookimpl
def cmdorc_startup(session):
    note("startup", config_name=session.config_name, executor=session.executor_type)

@hookimpl
def cmdorc_completed(run):
    note("completed", name=run.command_name, state=run.state)

@hookimpl
def cmdorc_shutdown(session):
    note("shutdown")
"""


@pytest.fixture
def probe(project):
    """A plugin distribution ``probe`` that notes hooks and events in files, enabled by the user's own file."""
    folder = project.folder / "site" / "probe-1.0.dist-info"
    project.write("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n", f"site/{folder.name}/METADATA")
    project.write("[cmdorc_telemetry]\nprobe = probe\n", f"site/{folder.name}/entry_points.txt")
    project.write(PROBE, "site/probe.py")
    project.write('[telemetry]\nplugins = ["probe"]\n[telemetry.to.probe]\n', "home/config.toml")
    project.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder.parent), os.environ.get("PYTHONPATH")]))
    return project


def opt_in(project) -> None:
    home = Home(project.home)
    (core,) = TelemetryRegistry.with_core()
    destinations = load_layer(home.config).destinations
    save_decision(home, {CORE_SPEC: new_grant(core, TelemetryLevel.STANDARD, clock.utcnow())}, identities(destinations))


def lines(project, name: str) -> list[dict[str, str]]:
    file = project.folder / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_hooks_of_a_users_own_plugin_are_called_to_the_end(probe) -> None:
    probe.commands(
        ECHO, 'name = "B"\ncommand = "exit 2"\ntriggers = ["command_success:A"]', head="[telemetry]\nlevel = 'minimal'"
    )
    done = probe.run("run", "A")
    assert (done.returncode, done.stdout) == (0, "A | a\n")
    assert lines(probe, "hooks.jsonl") == [
        {"hook": "startup", "config_name": "cmdorc.toml", "executor": "local_subprocess"},
        {"hook": "completed", "name": "A", "state": "success"},
        {"hook": "completed", "name": "B", "state": "failed"},
        {"hook": "shutdown"},
    ]


def test_the_end_of_the_session_is_seen_after_ctrl_c_too(probe) -> None:
    probe.commands('name = "Long"\ncommand = "echo up; sleep 60"')
    process = probe.start("run", "Long")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert lines(probe, "hooks.jsonl")[1:] == [
        {"hook": "completed", "name": "Long", "state": "cancelled"},
        {"hook": "shutdown"},
    ]


def test_flush_sends_everything_the_end_of_the_session_included(probe) -> None:
    opt_in(probe)
    probe.commands(ECHO)
    assert probe.run("run", "A").returncode == 0
    assert lines(probe, "sent.jsonl") == []
    done = probe.run("run", "A", "--flush", "15")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
    sent = [each["event"] for each in lines(probe, "sent.jsonl")]
    assert [sent.count(f"orchestrator_{what}") for what in ("started", "stopped")] == [2, 2]
    assert sent.count("command_completed") == 2


def test_flush_says_when_the_time_was_too_short(probe) -> None:
    opt_in(probe)
    probe.write(PROBE.replace('with open("sent.jsonl", "a")', 'raise OSError("no way out")\n        with open("x")'),
                "site/probe.py")  # fmt: skip
    probe.commands('name = "A"\ncommand = "exit 3"')
    done = probe.run("run", "A", "--flush", "1")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "cmdorc: telemetry: not everything was done within 1 s. A later process goes on with it; "
        "`cmdorc telemetry status` says what waits, and why."
    )


def test_ctrl_c_ends_a_flush(probe, until) -> None:
    opt_in(probe)
    method = "async def report(self, event, payload):"
    slow = PROBE.replace(method, f'{method}\n        note("sending"); await asyncio.Event().wait()')
    probe.write("import asyncio\n" + slow, "site/probe.py")
    probe.commands(ECHO)
    process = probe.start("run", "A", "--flush", "60")
    until(lambda: {"hook": "sending"} in lines(probe, "hooks.jsonl"))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert time.monotonic() - began < 5
    assert (process.stdout.read(), process.stderr.read()) == (b"a\n", b"")


@pytest.mark.parametrize("args", [("run", "A"), ("trigger", "go")])
def test_a_project_that_asks_causes_one_line(project, args: tuple[str, ...]) -> None:
    project.commands(ECHO + '\ntriggers = ["go"]', head="[telemetry]\nenabled = true")
    done = project.run(*args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", ASKED)
    assert project.run("list").stderr == ""
    assert not project.home.exists()


def test_a_project_that_does_not_ask_causes_none(project) -> None:
    for head in ("", "[telemetry]", "[telemetry]\nlevel = 'minimal'", "[telemetry]\nenabled = false"):
        project.commands(ECHO, head=head)
        assert project.run("run", "A").stderr == ""


def test_the_line_comes_once_however_much_is_run_and_never_in_its_output(project) -> None:
    project.commands(ECHO, ECHO.replace("A", "B"), head="[telemetry]\nenabled = true\nlevel = 'debug'")
    done = project.run("run", "A", "B", "A", "--flush", "1")
    assert (done.returncode, done.stderr) == (0, ASKED)
    assert ASKED.strip() not in done.stdout


def test_where_somebody_decided_or_nobody_is_there_there_is_no_line(project) -> None:
    project.commands(ECHO, head="[telemetry]\nenabled = true")
    for name, value in (("DO_NOT_TRACK", "1"), ("CMDORC_TELEMETRY", "off"), ("CMDORC_TELEMETRY", "minimal"),
                        ("CMDORC_TELEMETRY", "what"), ("CI", "true"), ("GITLAB_CI", "true")):  # fmt: skip
        project.env[name] = value
        assert project.run("run", "A").stderr == "", name
        del project.env[name]
    config = project.write("[telemetry]\nenabled = false\n", "home/config.toml")
    assert project.run("run", "A").stderr == ""
    operators = project.write("[telemetry]\n", "operator.toml")
    project.env["CMDORC_TELEMETRY_CONFIG"] = str(operators)
    assert project.run("run", "A").stderr == ""  # an operator's file takes nothing back
    config.unlink()
    assert project.run("run", "A").stderr == ASKED
    operators.write_text("[telemetry]\nlevel = 'off'\n")
    assert project.run("run", "A").stderr == ""
    del project.env["CMDORC_TELEMETRY_CONFIG"]
    assert project.run("run", "A").stderr == ASKED
    save_decision(Home(project.home), {CORE_SPEC: Grant(record=False)})
    assert project.run("run", "A").stderr == ""


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("[telemetry]\nlevle = 'minimal'", "telemetry.levle: unknown key"),
        ("[telemetry]\nenabled = 'yes'", "telemetry.enabled: found 'yes'; expected true or false"),
    ],
)
def test_a_wrong_table_turns_telemetry_off_and_stops_nothing(probe, head: str, said: str) -> None:
    opt_in(probe)
    probe.commands(ECHO, head=head)
    done = probe.run("run", "A", "--flush", "5")
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert done.stderr.startswith(f"cmdorc: telemetry is off: cmdorc.toml: {said}")
    assert done.stderr.count("\n") == 1
    assert lines(probe, "sent.jsonl") == []


def test_a_broken_file_of_the_user_stops_nothing(project) -> None:
    project.commands(ECHO, head="[telemetry]\nenabled = true")
    project.write("[telemetry\n", "home/config.toml")
    done = project.run("run", "A")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "a\n", 1)
    assert "is not valid TOML" in done.stderr


def test_the_commands_of_telemetry_are_there(project) -> None:
    assert "telemetry" in project.run("--help").stdout
    for args in (("telemetry", "--help"), ("telemetry", "status")):
        done = project.run(*args)
        assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: cmdorc telemetry" in project.run("telemetry", "--help").stdout


WATCHED = """
import sys, threading
before = set(sys.modules)  # a measuring tool may have loaded some already
home, seen = {home!r}, []
sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == "open" else None)
started = []
start = threading.Thread.start
threading.Thread.start = lambda thread: (started.append(thread.name), start(thread))
from cmdorc_cli.cli import main
try:
    main(["run", "A"])
except SystemExit as end:
    assert end.code == 0, end.code
print([name for name in seen if name.startswith(home)], file=sys.stderr)
print([name for name in started if not "waitpid" in name], file=sys.stderr)
print([name for name in ("h11", "msgspec", "pluggy", "rich", "sqlite3", "tomlkit")
       if name in set(sys.modules) - before], file=sys.stderr)
print(sorted(name for name in sys.modules if name.startswith("cmdorc_telemetry.")), file=sys.stderr)
"""


@pytest.mark.parametrize("head", ["", "[telemetry]\nlevel = 'minimal'"])
def test_off_it_opens_starts_and_imports_nothing(project, head: str) -> None:
    project.commands(ECHO, head=head)
    code = WATCHED.format(home=str(project.home))
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, env=project.env, check=True,
                          capture_output=True, text=True)  # fmt: skip
    opened, threads, heavy, ours = map(json.loads, done.stderr.replace("'", '"').splitlines())
    home = str(project.home)
    assert set(opened) <= {f"{home}/config.toml", f"{home}/telemetry/consent.toml"}
    assert not project.home.exists()
    assert threads == []
    assert heavy == []
    stages = {"capture", "cli", "delivery", "gate", "history", "journal", "pipeline", "plugins", "recorder", "spool"}
    assert set(ours) & {f"cmdorc_telemetry.{name}" for name in (*stages, "watch")} == set()
