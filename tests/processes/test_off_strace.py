"""With telemetry off, a real ``cmdorc run`` opens no file of telemetry's, no socket, and starts no thread for it.

Each state of "off" is watched by an audit hook in the process, and by strace where there is one. What cmdorc does by
itself is known from the same run with telemetry taken out of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cmdorc_telemetry.home import Home

CMDORC = Path(sys.executable).with_name("cmdorc")
SECONDS = 60
PROJECT = """
[telemetry]
{telemetry}

[[command]]
name = "Wait"
command = "sleep 0.7"  # longer than a process lives before telemetry would start a thread
triggers = []
"""
USER = '[telemetry]\nenabled = true\nlevel = "standard"\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
WITHOUT = """
import sys
import cmdorc_cli.telemetry
import cmdorc_telemetry.instrumentation
from cmdorc_telemetry import Telemetry

cmdorc_telemetry.instrumentation._attach = lambda *_: Telemetry.off()
cmdorc_cli.telemetry.telemetry_config = lambda path: None
from cmdorc_cli.cli import main

main(prog_name="cmdorc")
"""
WATCH = """
import _thread, json, os, sys

fd = os.open(os.environ["WATCH_TO"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def note(*what):
    os.write(fd, (json.dumps(what) + "\\n").encode())

def hook(name, arguments):
    if name == "open":
        flags = arguments[2]
        note(name, str(arguments[0]), not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    elif name.startswith(("sqlite3.connect", "os.mkdir", "os.rename", "os.remove")):
        note(name, str(arguments[0]))
    elif name.startswith("socket."):
        note(name)

def noted(start):
    def begin(*args, **kwargs):
        note("thread")
        return start(*args, **kwargs)
    return begin

for name in ("start_new_thread", "start_joinable_thread"):  # not all versions have an audit event for it
    if hasattr(_thread, name):
        setattr(_thread, name, noted(getattr(_thread, name)))
assert "threading" not in sys.modules
sys.addaudithook(hook)
"""


class Seen(NamedTuple):
    """What a process did."""

    files: set[tuple[str, bool]]
    """Below the home: name, and whether it was only read."""
    sockets: int
    threads: int


class Machine:
    """A home, a project, and a run of its one command that is watched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.environ = {key: value for key, value in os.environ.items()
                        if not key.startswith(("CMDORC", "DO_NOT", "COVERAGE", "PYTHON"))}  # fmt: skip
        self.environ["CMDORC_HOME"] = str(self.home.root)
        self.project("enabled = true")

    def project(self, telemetry: str) -> None:
        (self.folder / "cmdorc.toml").write_text(PROJECT.format(telemetry=telemetry))

    def user(self) -> None:
        self.home.root.mkdir()
        self.home.config.write_text(USER)

    def say(self, *words: str) -> None:
        done = subprocess.run([CMDORC, "telemetry", *words], env=self.environ, cwd=self.folder, check=False,
                              capture_output=True, text=True, timeout=SECONDS)  # fmt: skip
        assert done.returncode == 0, done.stderr

    def run(self, watch: Watch, *options: str, without: bool = False) -> Seen:
        start = [sys.executable, "-c", WITHOUT] if without else [str(CMDORC)]
        return watch(self, [*start, "run", "Wait", *options])

    def call(self, command: list[str], **more: str) -> None:
        done = subprocess.run(command, env={**self.environ, **more}, cwd=self.folder, check=False,
                              capture_output=True, text=True, timeout=SECONDS)  # fmt: skip
        assert done.returncode == 0, done.stderr

    def below(self, path: str) -> str | None:
        """The name of a path below the home."""
        root = str(self.home.root)
        return path[len(root) + 1 :] if path.startswith(root + "/") else None


Watch = Callable[[Machine, list[str]], Seen]


def by_audit_hook(machine: Machine, command: list[str]) -> Seen:
    """As the interpreter tells it."""
    site, log = machine.folder / "site", machine.folder / "watched"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(WATCH)
    log.unlink(missing_ok=True)
    machine.call(command, PYTHONPATH=str(site), WATCH_TO=str(log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    files = {(name, called == "open" and rest[0]) for called, path, *rest in (line for line in lines if len(line) > 1)
             if (name := machine.below(path))}  # fmt: skip
    return Seen(files, sum(line[0].startswith("socket.") for line in lines), sum(line[0] == "thread" for line in lines))


def by_strace(machine: Machine, command: list[str]) -> Seen:
    """As the kernel tells it, of the process and all that it starts."""
    log = machine.folder / "strace"
    calls = (
        "trace=open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,socket,connect,clone,clone3"
    )
    machine.call(["strace", "-f", "-qq", "-s", "4096", "-e", calls, "-o", str(log), *command])
    files: set[tuple[str, bool]] = set()
    sockets = threads = 0
    for line in log.read_text(errors="replace").splitlines():
        found = re.search(r'\b(open|openat|creat|mkdir\w*|rename\w*|unlink\w*)\((?:AT_FDCWD, )?"([^"]*)"(.*)', line)
        if found and (name := machine.below(found[2])):
            reads = found[1].startswith("open") and not re.search("O_(WRONLY|RDWR|CREAT|TRUNC)", found[3])
            files.add((name, reads))
        sockets += bool(re.search(r"\b(socket|connect)\(", line))
        threads += "CLONE_THREAD" in line
    return Seen(files, sockets, threads)


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-f", "-qq", "-o", os.devnull, "true"], check=False, capture_output=True)
    return done.returncode == 0


WATCHES = [by_audit_hook, *([by_strace] if _strace_works() else [])]  # what is not here is no test that is skipped


def nobody_decided(machine: Machine) -> None:
    """Neither a file nor a variable says anything, but for the project, which asks."""


def files_ask(machine: Machine) -> None:
    """The user's file would have it on, and names a plugin and a server; nobody said yes."""
    machine.user()


def no_was_said(machine: Machine) -> None:
    machine.user()
    machine.say("opt-in", "--yes")
    machine.say("opt-out", "--local-only")


def not_to_be_tracked(machine: Machine) -> None:
    machine.user()
    machine.say("opt-in", "--yes")
    machine.environ["DO_NOT_TRACK"] = "1"


def the_project_says_no(machine: Machine) -> None:
    machine.user()
    machine.say("opt-in", "--yes")
    machine.project("enabled = false")


@pytest.fixture(scope="module", params=WATCHES, ids=lambda watch: watch.__name__)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Watch, Seen]:
    """How it is watched, and what is seen so of cmdorc alone."""
    return request.param, Machine(tmp_path_factory.mktemp("alone")).run(request.param, without=True)


OFF = (nobody_decided, files_ask, no_was_said, not_to_be_tracked, the_project_says_no)
READ = {("config.toml", True), ("telemetry/consent.toml", True)}
"""What tells that telemetry is off."""


@pytest.mark.parametrize("state", OFF)
def test_off_is_off(state: Callable[[Machine], None], watched: tuple[Watch, Seen], tmp_path: Path) -> None:
    machine, (watch, alone) = Machine(tmp_path), watched
    state(machine)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("home/**/*")}
    seen = machine.run(watch)
    assert seen.files <= READ
    assert (seen.sockets, seen.threads) == (alone.sockets, alone.threads)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("home/**/*")} == before


def test_a_yes_is_what_changes_that(watched: tuple[Watch, Seen], tmp_path: Path) -> None:
    """Both watches see what telemetry does where it is on."""
    machine, (watch, alone) = Machine(tmp_path), watched
    machine.user()
    machine.say("opt-in", "--yes")
    seen = machine.run(watch, "--flush", "10")
    assert not alone.files
    assert any(name.startswith("telemetry/journal/") and not reads for name, reads in seen.files)
    assert any(name.startswith("telemetry/spool.db") for name, _ in seen.files)
    assert seen.threads > alone.threads
    assert seen.sockets > alone.sockets
