"""The background sender: what it is, what it sends, how long it lives; and when there is none."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import TelemetryLevel, clock
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.files import FileLock, lock_fd
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.sender import leave_behind
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE
from cmdorc_telemetry.spool import Spool

from .agreement import agree
from .waiting import until

BIN = Path(sys.executable).parent
DEADLINE = 20.0
PROGRAM = """
import os, sys
from cmdorc_telemetry import CompletedRun, Telemetry, sender
from cmdorc_telemetry.application import CMDORC
sender.LIFE_SECONDS = float(sys.argv[1])
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5))
"""
CLOSED = f"{PROGRAM}telemetry.close()\n"
WATCHED = """
import os, sys
if "cmdorc_telemetry.sender" in sys.orig_argv:
    with open(os.environ["CMDORC_HOME"] + "/senders", "a") as file:
        print(os.getpid(), file=file)
"""
"""A ``sitecustomize`` that notes every sender as soon as its interpreter runs."""
PROBE = """
import asyncio, ctypes, json, os, time
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Probe(TelemetryReporter):
    class Settings(TelemetryReporter.Settings):
        home: str = ""
        how: str = ""
        word: str = ""

    async def report(self, event, payload):
        about = {"pid": os.getpid(), "session": os.getsid(0), "nice": os.nice(0), "cwd": os.getcwd(),
                 "event_id": payload["event_id"], "environ": dict(os.environ), "word": self.settings.word,
                 "files": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                           if os.path.lexists(f"/proc/self/fd/{fd}")}}
        with open(self.settings.home + "/probed", "a") as file:
            print(json.dumps(about), file=file)
        while self.settings.how == "wait" and not os.path.exists(self.settings.home + "/go"):
            await asyncio.sleep(0.01)
        if self.settings.how == "hang":
            await asyncio.sleep(600)
        if self.settings.how == "block":
            ctypes.PyDLL(None).sleep(600)  # and nothing else runs in this interpreter

@hookimpl
def telemetry_reporters():
    return [Probe]
"""


class Machine:
    """A home where telemetry is on, and programs that end there with an event that was not delivered."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.home.root.mkdir()
        site = folder / "site"
        (site / "probe-1.0.dist-info").mkdir(parents=True)
        (site / "probe.py").write_text(PROBE)
        (site / "sitecustomize.py").write_text(WATCHED)
        (site / "probe-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
        (site / "probe-1.0.dist-info" / "entry_points.txt").write_text("[cmdorc_telemetry]\nprobe = probe\n")
        named = ("CI", "GITHUB_ACTIONS", "DO_NOT_TRACK", "PYTHONPATH")
        self.environ = {name: text for name, text in os.environ.items()
                        if name not in named and not name.startswith("CMDORC_")}  # fmt: skip
        self.site = str(site)
        path = os.pathsep.join(filter(None, [self.site, os.environ.get("PYTHONPATH")]))
        self.environ.update(CMDORC_HOME=str(self.home.root), PYTHONPATH=path)
        self.folder = folder

    def config(self, destination: str, *, background: str = "background = true", more: str = "") -> None:
        (plugin,) = (name for name in ("http", "probe") if destination.startswith(f"[telemetry.to.{name}]"))
        self.home.config.write_text(
            f'[telemetry]\nplugins = ["{plugin}"]\n{background}\n{more}\n'
            f"[telemetry.bounds]\nbatch_seconds = 1\n{destination}\n"
        )

    def probe(self, how: str = "", *, timeout: float = 10.0, **more: str) -> None:
        self.config(f'[telemetry.to.probe]\nhome = "{self.home.root}"\nhow = "{how}"\ntimeout = {timeout}', **more)

    def agree(self) -> None:
        agree(self.home, TelemetryLevel.MINIMAL)

    def program(self, code: str = CLOSED, life: float = 30, **more: Any) -> subprocess.Popen[str]:
        options: dict[str, Any] = {"env": self.environ, "cwd": self.folder, "text": True, **more}
        return subprocess.Popen([sys.executable, "-c", code, str(life)], **options)

    def run(self, code: str = CLOSED, life: float = 30, **more: Any) -> str:
        process = self.program(code, life, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
        told = process.communicate(timeout=DEADLINE)[0]
        assert process.returncode == 0, told
        return told

    def noted(self, name: str) -> list[Any]:
        path = self.home.root / name
        # The last line may be about to be written.
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    @property
    def lock(self) -> Path:
        return self.home.locks / "sender.owner"

    def sending(self) -> bool:
        """Whether there is a sender: one that lives, or that was handed the lock and has not begun to run.

        Seen without touching the lock, or a sender would find it held.
        """
        if any(self.senders()):
            return True
        if not self.lock.exists():
            return False
        held = Path("/proc/locks").read_text().splitlines()
        return any("FLOCK" in line and line.split()[-3].endswith(f":{self.lock.stat().st_ino}") for line in held)

    def senders(self) -> Iterator[int]:
        """The senders that live."""
        for pid in self.noted("senders"):
            with suppress(OSError):  # it ended this moment
                # The number may be somebody else's by now.
                if b"cmdorc_telemetry.sender" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    yield pid

    def ledger(self, name: str) -> tuple[int, int, int]:
        spool = Spool(self.home.spool, reading=True)
        try:
            each = spool.ledger()[name]
        finally:
            spool.close()
        assert each.recorded == each.acknowledged + each.pending + sum(each.dropped.values())
        return each.recorded, each.acknowledged, each.pending

    def end(self) -> None:
        for pid in self.senders():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.probe()
    machine.agree()
    yield machine
    machine.end()


@pytest.fixture
def silent() -> Iterator[str]:
    """The endpoint of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


# -- what it does -----------------------------------------------------------------------------------------------------


def test_what_a_program_left_behind_arrives_at_the_server(machine: Machine, tmp_path: Path) -> None:
    store = tmp_path / "reports.db"
    command = [BIN / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", store, "--k", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            machine.config(f'[telemetry.to.http]\nendpoint = "{server.stdout.readline().split()[-1]}"')
            machine.agree()
            assert machine.run() == ""
            until(lambda: not machine.sending(), "the end of the sender")
            assert machine.ledger("http") == (1, 1, 0)
        finally:
            server.terminate()
    rows = subprocess.run([BIN / "cmdorc-telemetry-server", "rows", "--store", store, "--json"], check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert rows.stdout.count('"command_completed"') == len(json.loads(rows.stdout)) == 1


def test_it_is_detached_from_everything_and_knows_no_more_than_it_needs(machine: Machine) -> None:
    machine.config(f'[telemetry.to.probe]\nhome = "{machine.home.root}"\nword_env = "WORD"')
    machine.environ.update(WORD="secret of a destination", OTHER="secret", HTTPS_PROXY="http://proxy.example:1")
    leak = "pipe = os.pipe(); os.set_inheritable(pipe[1], True)\n"
    assert machine.run(CLOSED + leak) == ""
    until(lambda: machine.noted("probed"), "the report")
    (about,) = machine.noted("probed")
    assert about["session"] == about["pid"]
    assert about["cwd"] == "/"
    assert about["nice"] >= min(os.nice(0) + 10, 19)
    assert [about["files"][fd] for fd in ("0", "1", "2")] == ["/dev/null"] * 3
    home = str(machine.home.root)
    others = [name for fd, name in about["files"].items() if fd not in ("0", "1", "2") and not name.startswith(home)]
    assert [name for name in others if not name.startswith(("anon_inode:", "socket:", f"/proc/{about['pid']}"))] == []
    known = about["environ"]
    assert (known["WORD"], known["CMDORC_HOME"], known["PATH"]) == (
        "secret of a destination", home, machine.environ["PATH"]
    )  # fmt: skip
    assert known["HTTPS_PROXY"] == "http://proxy.example:1"
    assert "OTHER" not in known
    assert about["word"] == "secret of a destination"


def test_the_programs_reader_sees_its_end_while_the_sender_lives(machine: Machine) -> None:
    machine.probe("hang")
    assert machine.run() == ""  # reads until nobody holds the other end
    assert machine.sending()


def test_a_terminal_that_closes_does_not_take_it_along(machine: Machine) -> None:
    master, slave = pty.openpty()
    process = machine.program(stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    assert process.wait(DEADLINE) == 0
    os.close(master)
    assert machine.sending()
    until(lambda: machine.noted("probed"), "the report")


def test_of_many_programs_that_end_at_once_one_leaves_a_sender(machine: Machine) -> None:
    waiting = "import sys; sys.stdin.readline()\n"
    programs = [machine.program(CLOSED + waiting, stdin=subprocess.PIPE) for _ in range(5)]
    for each in programs:
        assert each.stdin is not None
        each.stdin.close()
    for each in programs:
        assert each.wait(DEADLINE) == 0
    until(lambda: not machine.sending(), "the end of the sender")
    assert len(machine.noted("senders")) == 1
    assert machine.ledger("probe") == (5, 5, 0)


def test_what_ends_while_it_sends_is_sent_too(machine: Machine) -> None:
    machine.probe("wait")
    machine.run()
    until(lambda: machine.noted("probed"), "the first report")
    machine.run()
    (machine.home.root / "go").touch()
    until(lambda: not machine.sending(), "the end of the sender")
    assert len({each["pid"] for each in machine.noted("probed")}) == len(machine.noted("senders")) == 1
    assert machine.ledger("probe") == (2, 2, 0)


def test_a_program_that_never_closed_leaves_one_too(machine: Machine) -> None:
    machine.run(PROGRAM)
    until(lambda: machine.noted("probed"), "the report")


def test_a_relative_operators_file_is_found_from_where_it_starts(machine: Machine) -> None:
    machine.home.config.rename(machine.folder / "operator.toml")
    machine.home.consent.unlink()
    machine.environ.update(CMDORC_TELEMETRY="minimal", CMDORC_TELEMETRY_CONFIG="operator.toml")
    machine.run()
    until(lambda: machine.noted("probed"), "the report")


def test_killed_it_loses_nothing(machine: Machine) -> None:
    machine.probe("hang")
    machine.run()
    until(lambda: machine.noted("probed"), "the report")
    machine.end()
    until(lambda: not machine.sending(), "the end of the sender")
    machine.probe()
    subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "flush"], env=machine.environ, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    assert machine.ledger("probe") == (1, 1, 0)
    assert len({each["event_id"] for each in machine.noted("probed")}) == 1


# -- how long it lives ------------------------------------------------------------------------------------------------


def test_it_does_not_outlive_a_server_that_hangs(machine: Machine, silent: str) -> None:
    machine.config(f'[telemetry.to.http]\nendpoint = "{silent}"')
    machine.agree()
    began = time.monotonic()
    machine.run(life=4)
    assert machine.sending()
    until(lambda: not machine.sending(), "the end of the sender")
    assert time.monotonic() - began < 5.5
    assert machine.ledger("http") == (1, 0, 1)


def test_it_does_not_outlive_an_interpreter_that_is_stuck(machine: Machine) -> None:
    machine.probe("block")
    began = time.monotonic()
    # A program that blocks or ignores the signal hands that on.
    deaf = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
    deaf += "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
    machine.run(CLOSED + deaf, life=4)
    until(lambda: machine.noted("probed"), "the report")
    assert machine.sending()
    until(lambda: not machine.sending(), "the end of the sender")
    assert time.monotonic() - began < 6.5


def test_a_no_while_it_waits_ends_it(machine: Machine) -> None:
    machine.run()
    save_decision(machine.home, {CORE_SPEC: Grant(record=False)})
    until(lambda: not machine.sending(), "the end of the sender")
    assert machine.noted("probed") == []
    assert not machine.home.spool.exists()


def test_a_server_that_fails_is_not_asked_again_by_the_next(machine: Machine) -> None:
    machine.config('[telemetry.to.http]\nendpoint = "http://127.0.0.1:9/v1"')
    machine.agree()
    machine.run()
    until(lambda: not machine.sending(), "the end of the sender")
    assert machine.ledger("http") == (1, 0, 1)
    spool = Spool(machine.home.spool)
    failures = spool.state("http")[0]
    spool.postpone("http", clock.wall() + 600, "503")
    spool.close()
    assert failures >= 1
    machine.run()
    assert not machine.sending()
    assert len(machine.noted("senders")) == 1
    spool = Spool(machine.home.spool)
    spool.hurry()
    spool.close()
    machine.run()
    assert machine.sending()


def test_the_pause_of_one_destination_is_kept_while_another_is_sent_to(machine: Machine) -> None:
    paused = f'[telemetry.to.paused]\nplugin = "probe"\nhome = "{machine.home.root}"'
    machine.config(f'[telemetry.to.probe]\nhome = "{machine.home.root}"\n{paused}')
    machine.agree()
    machine.run(f"{PROGRAM}assert telemetry.flush(10)\nos._exit(0)\n")
    spool = Spool(machine.home.spool)
    spool.postpone("paused", clock.wall() + 600, "503")
    spool.close()
    machine.run()
    until(lambda: not machine.sending(), "the end of the sender")
    assert (machine.ledger("probe"), machine.ledger("paused")) == ((2, 2, 0), (2, 1, 1))
    spool = Spool(machine.home.spool, reading=True)
    assert spool.state("paused")[1] > clock.wall() + 500
    spool.close()


# -- when there is none -----------------------------------------------------------------------------------------------


def test_off_unless_the_user_says_so(machine: Machine) -> None:
    for background in ("", "background = false"):
        machine.probe(background=background)
        machine.run()
        assert not machine.lock.exists()


@pytest.mark.parametrize(
    ("name", "text"), [("CI", "true"), ("GITHUB_ACTIONS", "true"), ("DO_NOT_TRACK", "1"), ("CMDORC_TELEMETRY", "off")]
)
def test_never_where_the_environment_is_against_it(machine: Machine, name: str, text: str) -> None:
    machine.environ[name] = text
    machine.run()
    assert not machine.lock.exists()


def test_not_where_the_user_said_no_meanwhile(machine: Machine) -> None:
    save = "from pathlib import Path; from cmdorc_telemetry.home import Home\n"
    save += "from cmdorc_telemetry.consent import Grant, save_decision\n"
    save += "save_decision(Home(Path(os.environ['CMDORC_HOME'])), {'cmdorc.core': Grant(record=False)})\n"
    machine.run(CLOSED + save)
    assert not machine.lock.exists()


def test_not_where_nothing_waits_or_nobody_would_get_it(machine: Machine) -> None:
    machine.run(f"{PROGRAM}assert telemetry.flush(10)\n")
    assert not machine.lock.exists()
    machine.home.config.write_text("[telemetry]\nbackground = true\n")
    machine.run()
    assert not machine.lock.exists()


def test_not_where_a_plugin_is_missing_that_may_be_an_anonymizer(machine: Machine) -> None:
    machine.home.config.write_text(machine.home.config.read_text().replace('["probe"]', '["probe", "masker"]'))
    process = machine.program(stderr=subprocess.DEVNULL)
    assert process.wait(DEADLINE) == 0
    assert not machine.lock.exists()


def test_a_program_that_is_no_interpreter_is_not_started(machine: Machine) -> None:
    for name in ("app", "python3-app"):
        path = machine.folder / name
        path.write_text(f"#!/bin/sh\ntouch {path}.started\n")
        path.chmod(0o700)
    started = machine.folder / "python3-app.started"
    machine.run(f"{CLOSED}sys.executable = {str(machine.folder / 'app')!r}\n")
    machine.run(f"{CLOSED}sys.executable = {str(started.with_suffix(''))!r}; sys.frozen = True\n")
    assert not machine.lock.exists()
    machine.run(f"{CLOSED}sys.executable = {str(started.with_suffix(''))!r}\n")  # it would have been seen
    until(started.exists, "the start")
    assert not (machine.folder / "app.started").exists()


@pytest.mark.parametrize("executable", ["", "/nowhere/python3"])
def test_an_interpreter_that_is_not_there_is_no_problem(machine: Machine, executable: str) -> None:
    assert machine.run(f"{CLOSED}sys.executable = {executable!r}\n") == ""
    assert not machine.sending()


# -- in this process, where each step can be seen ---------------------------------------------------------------------


def leave(machine: Machine) -> bool:
    situation = Situation.read(machine.environ)
    return leave_behind(situation, PluginHost(situation.user.plugins, destinations=["probe"]))


def test_one_that_is_there_is_enough(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(machine.site)
    monkeypatch.setenv("PYTHONPATH", machine.environ["PYTHONPATH"])
    machine.run(f"{PROGRAM}os._exit(0)\n")
    machine.home.locks.mkdir()
    with FileLock(machine.lock):
        assert not leave(machine)
    assert leave(machine)
    assert not leave(machine)
    until(lambda: not machine.sending(), "the end of the sender")
    assert machine.ledger("probe") == (1, 1, 0)


def test_a_home_that_cannot_be_used_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(machine.site)
    machine.run(f"{PROGRAM}os._exit(0)\n")
    machine.home.spool.write_text("not a database")
    assert not leave(machine)
    machine.home.spool.unlink()
    (machine.home.locks / "sender.owner").mkdir(parents=True)
    assert not leave(machine)


def test_a_segment_that_goes_or_is_still_written_is_nobodys_matter(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(machine.site)
    machine.home.journal.mkdir(parents=True)
    (machine.home.journal / "gone.seg").symlink_to("nowhere")
    running = machine.program(f"{PROGRAM}print(flush=True); sys.stdin.readline(); os._exit(0)\n",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert running.stdout is not None
    running.stdout.readline()
    assert not leave(machine)
    running.communicate(timeout=DEADLINE)
    assert leave(machine)


# -- the sender itself, started by hand: what it inherits is the test's, measuring tools included ----------------------


def by_hand(machine: Machine, seconds: float = 20) -> subprocess.Popen[bytes]:
    machine.home.locks.mkdir(exist_ok=True)
    lock = os.open(machine.lock, os.O_RDWR | os.O_CREAT)
    try:
        assert lock_fd(lock, wait=False)
        described = json.dumps(["cmdorc", "", [str(CORE)], "cmdorc telemetry"])
        command = [sys.executable, "-m", "cmdorc_telemetry.sender", str(lock), str(seconds), described]
        return subprocess.Popen(command, env=machine.environ, pass_fds=(lock,))
    finally:
        os.close(lock)


def test_it_sends_and_ends_as_soon_as_nothing_waits(machine: Machine) -> None:
    machine.probe("wait")
    machine.run(f"{PROGRAM}os._exit(0)\n")
    process = by_hand(machine)
    until(lambda: machine.noted("probed"), "the first report")
    machine.run(f"{PROGRAM}os._exit(0)\n")
    (machine.home.root / "go").touch()
    assert process.wait(DEADLINE) == 0
    assert machine.ledger("probe") == (2, 2, 0)
    assert not machine.sending()


def test_it_asks_for_itself_whether_it_may(machine: Machine) -> None:
    machine.run(f"{PROGRAM}os._exit(0)\n")
    for name, text in (("CI", "1"), ("DO_NOT_TRACK", "1")):
        machine.environ[name] = text
        assert by_hand(machine).wait(DEADLINE) == 0
        del machine.environ[name]
    machine.probe(background="background = false")
    assert by_hand(machine).wait(DEADLINE) == 0
    machine.home.config.write_text("not TOML")
    assert by_hand(machine).wait(DEADLINE) == 0
    assert not machine.home.spool.exists()


def test_it_gives_up_before_its_time_is_over(machine: Machine) -> None:
    machine.probe("hang")
    machine.run(f"{PROGRAM}os._exit(0)\n")
    began = time.monotonic()
    assert by_hand(machine, 5).wait(DEADLINE) == 0  # and was not killed
    assert time.monotonic() - began < 5.5
    assert by_hand(machine, 1).wait(DEADLINE) == 0  # no time for anything
    assert machine.ledger("probe") == (1, 0, 1)
