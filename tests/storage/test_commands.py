"""A real `cmdorc run` in every awkward home: its output and exit code are what they are without telemetry, and there is
one warning at most."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.home import Home

BIN = Path(sys.executable).parent
DISK, KERNEL = (Path(__file__).with_name(name) for name in ("disk.py", "kernel.py"))
PROJECT = """
[[command]]
name = "work"
command = "sleep 0.7; echo done; exit 3"
triggers = []
"""
"""Long enough for delivery to begin."""

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launch(tmp_path: Path, environ: dict[str, str]) -> Launch:
    project = tmp_path / "project"
    project.mkdir()
    (project / "cmdorc.toml").write_text(PROJECT)

    def start(*before: object, without: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, before), BIN / "cmdorc", "run", "work"]
        environment = {key: value for key, value in environ.items() if key != without} | variables
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    return start


def same_as_ever(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said beside what the command says; all else is as without telemetry."""
    assert (done.returncode, done.stdout) == (3, "done\n"), done.stderr
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    return [line for line in lines if not line.startswith("cmdorc: work ")]


def completed(home: Home) -> int:
    """The runs in the history."""
    with closing(sqlite3.connect(home.history)) as db:
        return int(db.execute("SELECT count(*) FROM event WHERE name='command_completed'").fetchone()[0])


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether this machine lets everybody have worlds of their own."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "empty.py").touch()
    (folder / "disk").mkdir()
    command = [sys.executable, DISK, "read-only", folder / "disk", folder / "empty.py"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_without_telemetry_nothing_is_said(launch: Launch, home: Home) -> None:
    assert same_as_ever(launch(CMDORC_HOME=str(home.root), DO_NOT_TRACK="1")) == []


def test_where_all_is_well_nothing_is_said_either(launch: Launch, home: Home, program) -> None:
    assert same_as_ever(launch(CMDORC_HOME=str(home.root))) == []
    assert program() == (True, 1, True, [])
    assert completed(home) == 1 + 2 + 1 + 1  # what was there, the run, and the last


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_home_that_cannot_be_written(kind: str, launch: Launch, home: Home, worlds: bool) -> None:
    if worlds:
        done = launch(DISK, kind, home.root, CMDORC_HOME=str(home.root))
    elif kind == "full":
        done = launch(DISK, "full-limit", home.root, CMDORC_HOME=str(home.root))
    else:  # nobody but its user may write there, and root always may: a disk that takes nothing looks the same
        for path in (home.journal, home.locks, home.telemetry, home.root):
            path.chmod(0o500)
        done = launch(DISK, "full-limit", home.root, CMDORC_HOME=str(home.root))
    (line,) = same_as_ever(done)
    assert f"{home.journal} cannot be written: " in line
    assert "Events are counted as dropped." in line


def test_a_home_that_cannot_be_made(launch: Launch, tmp_path: Path, worlds: bool) -> None:
    (tmp_path / "folder").mkdir()
    kind = "read-only" if worlds else "full-limit"
    home = tmp_path / "folder" / "home"
    (line,) = same_as_ever(launch(DISK, kind, home.parent, CMDORC_HOME=str(home), CMDORC_TELEMETRY="minimal"))
    assert str(home) in line
    assert "cannot be" in line
    assert same_as_ever(launch(DISK, kind, home.parent, CMDORC_HOME=str(home))) == []  # nobody asked for it


@pytest.mark.parametrize("asked", [True, False])
def test_no_home_at_all(asked: bool, launch: Launch, tmp_path: Path, worlds: bool) -> None:
    said = {"CMDORC_TELEMETRY": "minimal"} if asked else {}
    if worlds:
        lines = same_as_ever(launch(DISK, "nobody", tmp_path, without="HOME", **said))
    else:  # the next best: a home in which there is nothing, and never will be
        lines = same_as_ever(launch(HOME="/dev/null/home", **said))
    assert len(lines) == asked
    assert all("telemetry is off: " in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "place"), [("HOME", "missing/home"), ("HOME", "file"), ("CMDORC_HOME", "file"), ("HOME", "file/home")]
)
def test_a_home_that_is_none(variable: str, place: str, launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    values = {variable: str(tmp_path / place)}
    assert same_as_ever(launch(**values)) == []
    asked = same_as_ever(launch(**values, CMDORC_TELEMETRY="minimal"))
    assert len(asked) == ("file" in place)
    assert all("telemetry is off: " in line for line in asked)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("fault", "calls"),
    [("ENOLCK", "flock"), ("EOPNOTSUPP", "flock,lockf"), ("EWOULDBLOCK", "flock"), ("ENOLCK", "lockf")],
)
def test_locks_that_fail_for_ever(fault: str, calls: str, launch: Launch, home: Home, program) -> None:
    lines = same_as_ever(launch(KERNEL, fault, calls, CMDORC_HOME=str(home.root)))
    assert len(lines) <= 1
    if "flock" in calls:
        assert f"{home.journal} cannot be written: " in lines[0]
        assert "lock" in lines[0] or "not supported" in lines[0] or "unavailable" in lines[0]
    assert program() == (True, 1, True, [])  # elsewhere, or on another day
    assert completed(home) == 1 + 2 + ("flock" not in calls) + 1


def test_everything_damaged_at_once(launch: Launch, home: Home, program) -> None:
    for path in home.root.rglob("*"):
        if path.is_file() and path not in (home.consent, home.config):
            path.write_bytes(b"\0garbage\xff" * 100)
    lines = same_as_ever(launch(CMDORC_HOME=str(home.root)))
    assert len(lines) <= 4  # one a kind of file, once
    assert program()[:3] == (True, 1, True)
    assert program() == (True, 1, True, [])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no owners in this sense")
def test_somebody_elses_home(launch: Launch, home: Home, tmp_path: Path, worlds: bool) -> None:
    """A decision that another user recorded is not this one's."""
    if os.geteuid() == 0:
        os.chown(home.consent, 54321, 54321)
        lines = same_as_ever(launch(CMDORC_HOME=str(home.root)))
    else:
        home.consent.chmod(0)
        lines = same_as_ever(launch(CMDORC_HOME=str(home.root)))
    (line,) = lines
    assert f"{home.consent} cannot be used" in line
    shutil.rmtree(home.root)
