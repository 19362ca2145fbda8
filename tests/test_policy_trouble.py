"""What is damaged, of tomorrow, somebody else's or out of reach: real `cmdorc run`s go on, and nothing is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Telemetry, clock
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import load_consent, save_decision
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import CI_VARIABLES
from cmdorc_telemetry.testing import FaultServer

from .agreement import agree

CMDORC = Path(sys.executable).with_name("cmdorc")
SOMEBODY = 12345
"""The number of a user who is neither the administrator nor this one."""


class User:
    """One who decided, with a project, a server, and files that nobody else can see but everybody could reach."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder, self.server, self.home = folder, server, Home(folder / "home")
        (folder / "cmdorc.toml").write_text('[[command]]\nname = "A"\ncommand = "echo a"\ntriggers = []\n')
        said = (*CI_VARIABLES, "DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG")
        # Somebody else cannot write down what was covered.
        self.env = {name: value for name, value in os.environ.items()
                    if name not in said and not name.startswith("COVERAGE")}  # fmt: skip
        self.env |= {"CMDORC_HOME": str(self.home.root), "PYTHONDONTWRITEBYTECODE": "1"}

    def agree(self) -> None:
        self.home.root.mkdir(mode=0o700)
        self.home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{self.server.endpoint}"\n')
        agree(self.home)

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CMDORC, *args], cwd=self.folder, env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=40, check=False,
        )  # fmt: skip

    def run(self) -> str:
        """What a run says beside its output."""
        done = self("run", "A", "--flush", "10")
        assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
        return done.stderr

    def files(self) -> dict[str, tuple[int, int]]:
        """All that lies in the home: its mode and its time."""
        found = {str(path): path.lstat() for path in self.home.root.rglob("*")}
        return {path: (status.st_mode, status.st_mtime_ns) for path, status in found.items()}


@pytest.fixture
def user() -> Iterator[User]:
    with FaultServer() as server, tempfile.TemporaryDirectory(prefix="trouble-") as folder:
        os.chmod(folder, 0o755)
        yield User(Path(folder), server)


def of_tomorrow(home: Home) -> None:
    consent = load_consent(home)
    assert consent is not None
    save_decision(
        home, {CORE_SPEC: consent.grants[CORE_SPEC]._replace(decided_at="2999-01-01T00:00:00Z")}, consent.destinations
    )


TROUBLES: dict[str, tuple[Callable[[Home], Any], str]] = {
    "damaged": (lambda home: home.consent.write_bytes(b"\xff"), "consent.toml cannot be used ("),
    "a directory": (lambda home: (home.consent.unlink(), home.consent.mkdir()), "it is no file): "),
    "a pipe": (lambda home: (home.consent.unlink(), os.mkfifo(home.consent)), "it is no file): "),
    "a link to nowhere": (
        lambda home: (home.consent.unlink(), home.consent.symlink_to("/nowhere")), "consent.toml cannot be used ("
    ),
    "of tomorrow": (of_tomorrow, "Your decision is of 2999-01-01T00:00:00Z, which is yet to come: "),
    "somebody else's": (lambda home: os.chown(home.consent, SOMEBODY, -1), "(it belongs to somebody else): "),
    "of a group": (lambda home: home.consent.chmod(0o660), "(others may write to it: its mode is 660): "),
    "in a folder of all": (lambda home: home.telemetry.chmod(0o777), "telemetry: others may write to it: its mode is "),
    "somebody else's configuration": (
        lambda home: os.chown(home.config, SOMEBODY, -1), "config.toml cannot be used (it belongs to somebody else): "
    ),
    "a configuration of all": (lambda home: home.config.chmod(0o666), "config.toml cannot be used (others may write "),
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLES)
def test_it_is_closed_and_said_and_the_tool_runs_on(name: str, user: User) -> None:
    damage, why = TROUBLES[name]
    user.agree()
    damage(user.home)
    before = user.files()
    warned = user.run()
    assert why in warned
    assert "nothing is recorded or sent" in warned
    assert warned.count("\n") == 1
    assert user.server.seen == []
    assert user.files() == before
    told = json.loads(user("telemetry", "status", "--json").stdout)
    assert (told["recording"], told["recording_elsewhere"], told["level"]) == (False, False, "off")
    assert told["problems"] == [warned.rstrip("\n")]


def test_without_any_of_that_it_is_sent(user: User) -> None:
    user.agree()
    assert user.run() == ""
    assert len(user.server.seen) >= 1


def test_a_program_that_runs_closes_when_the_clock_is_set_back_and_opens_when_it_is_right(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.agree()
    real, moved = clock.wall, [0.0]
    monkeypatch.setattr(clock, "wall", lambda: real() + moved[0])
    event = "orchestrator_started", {"executor_type": "mock", "command_count": 1, "has_triggers": False}
    running = Telemetry.start(environ=user.env)
    assert running.track(*event)
    assert running.flush(10)
    user.server.seen.clear()
    moved[0] = -86_400.0
    running.flush(10)
    assert not running.track(*event)
    assert not Telemetry.start(environ=user.env).recording
    running.close()
    assert user.server.seen == []
    moved[0] = 0.0
    again = Telemetry.start(environ=user.env)
    assert again.track(*event)
    assert again.flush(10)
    again.close()
    assert [each.path for each in user.server.seen if each.method == "POST"] == ["/v1/report"]


AS_SOMEBODY = """
import os, sys
from cmdorc_cli.cli import main

def run():
    try:
        main(["run", "A", "--flush", "10"])
    except SystemExit as end:
        assert end.code == 0, end.code

home, operator = sys.argv[1:]
run()  # where all is well; what it imports is out of reach afterwards
sys.stdout.flush()
os.environ["CMDORC_HOME"] = home
if operator:
    os.environ["CMDORC_TELEMETRY"] = operator
os.setegid({number})
os.seteuid({number})
print("---", file=sys.stderr, flush=True)
run()
"""


def run_as_somebody(user: User, home: Home, operator: str = "") -> str:
    """What a run says in a process that may do no more than somebody else, with ``home``, which is all theirs."""
    for path in (home.root, *home.root.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    code = AS_SOMEBODY.format(number=SOMEBODY)
    done = subprocess.run([sys.executable, "-c", code, home.root, operator], cwd=user.folder, env=user.env, timeout=40,
                          capture_output=True, text=True, check=False)  # fmt: skip
    well, _, said = done.stderr.partition("---\n")
    assert (done.returncode, done.stdout, well) == (0, "a\na\n", ""), done.stderr
    return said


def read_only(home: Home) -> None:
    for path in (home.root, *home.root.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda home: None, ""),
        (read_only, "cannot be written"),
        (lambda home: home.root.chmod(0), "Permission denied"),
        (lambda home: home.telemetry.chmod(0), "Permission denied"),
    ],
    ids=["well", "read-only", "out of reach", "half out of reach"],
)
def test_a_home_that_cannot_be_written_or_read(
    change: Callable[[Home], None], why: str, user: User, tmp_path: Path
) -> None:
    user.agree()
    with FaultServer() as server:
        other = User(tmp_path, server)
        os.chmod(tmp_path, 0o755)
        other.home = Home(user.folder / "other")
        other.agree()
        change(other.home)
        before = other.files()
        said = run_as_somebody(user, other.home)
        if why:
            assert why in said
            assert said.count("\n") == 1
            assert server.seen == []
            assert other.files() == before
        else:
            assert said == ""
            assert [each.path for each in server.seen if each.method == "POST"] == ["/v1/report"]


def test_where_nobody_decided_and_nothing_can_be_written_only_an_operator_is_told(user: User) -> None:
    user.agree()
    home = Home(user.folder / "other")
    home.root.mkdir(mode=0o555)
    assert run_as_somebody(user, home) == ""
    said = run_as_somebody(user, home, "standard")
    assert said == f"telemetry is off: {home.telemetry} cannot be created: Permission denied\n"
    assert list(home.root.iterdir()) == []
