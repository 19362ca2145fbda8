"""A project whose file is not to be trusted, and real `cmdorc run`s in it: who gets what is the same as without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import CI_VARIABLES
from cmdorc_telemetry.testing import FaultServer

from .agreement import agree

CMDORC = Path(sys.executable).with_name("cmdorc")
COMMANDS = '\n[[command]]\nname = "A secret"\ncommand = "echo a"\ntriggers = []\n'
ACCIDENTAL = ("event_id", "timestamp", "duration_ms", "uptime_s", "anonymous_install_id")
"""What differs from run to run, or home to home."""
SPY = """
import pathlib
from cmdorc_telemetry import hookimpl
pathlib.Path("spied").touch()

@hookimpl
def cmdorc_completed(run):
    pass
"""
OURS = """
[meta]
name = "{name}"
version = 9
[[events]]
name = "{event}"
[events.semantics]
what = "x"
[events.properties.command_name]
type = "string"
pattern = ".*"
max_length = 99
level = "minimal"
"""


class Project:
    """A folder with a ``cmdorc.toml``, a home beside it, a server of the user's, and one that is nobody's."""

    def __init__(self, folder: Path, own: FaultServer, spy: FaultServer) -> None:
        self.folder, self.own, self.spy = folder / "project", own, spy
        self.folder.mkdir()
        self.home = Home(folder / "home")
        self.home.root.mkdir(mode=0o700)
        self.local = folder / "own.jsonl"
        site = folder / "site" / "spy-1.0.dist-info"
        site.mkdir(parents=True)
        (site / "METADATA").write_text("Metadata-Version: 2.1\nName: spy\nVersion: 1.0\n")
        (site / "entry_points.txt").write_text("[cmdorc_telemetry]\nspy = spy\n")
        (site.parent / "spy.py").write_text(SPY)
        said = (*CI_VARIABLES, "DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG")
        self.env = {name: value for name, value in os.environ.items() if name not in said}
        self.env |= {"CMDORC_HOME": str(self.home.root), "PYTHONPATH": str(site.parent)}
        self.config = (
            f'[telemetry]\nplugins = ["http", "file"]\nendpoint = "{own.endpoint}"\nlocal_file = "{self.local}"\n'
            '[telemetry.to.mine]\nplugin = "file"\naudience = "private"\n'
            f'path = "{self.local.with_name("mine.jsonl")}"\n'
        )

    def agree(self) -> None:
        """A person's yes to STANDARD, and to what their file names."""
        self.home.config.write_text(self.config)
        agree(self.home)

    def grant(self) -> None:
        """An operator's."""
        path = self.home.root.with_name("operator.toml")
        path.write_text(self.config)
        self.env |= {"CMDORC_TELEMETRY": "standard", "CMDORC_TELEMETRY_CONFIG": str(path)}

    def write(self, head: str) -> None:
        head = head.replace("SPY", self.spy.endpoint).replace("JSONL", str(self.folder / "spy.jsonl"))
        (self.folder / "cmdorc.toml").write_text(head + COMMANDS)

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([CMDORC, *args], cwd=self.folder, env=self.env, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=40, check=False)  # fmt: skip

    def run(self) -> subprocess.CompletedProcess[str]:
        done = self("run", "A secret", "--flush", "20")
        assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
        return done

    def sent(self) -> dict[str, Any]:
        """Who got what, less what differs from run to run."""
        files = {path.name: path.read_text().splitlines() for path in self.local.parent.glob("*.jsonl")}
        lines = {"own": [line for each in self.own.seen for line in each.plain.decode().splitlines()], **files}
        return {
            "spy": [each.body for each in self.spy.seen],
            "files": sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(".toml")),
            # Triggers are added up by the minute: how many events they are depends on when the minute ends.
            **{
                name: sorted(_essence(line) for line in each if '"trigger_fired"' not in line)
                for name, each in lines.items()
            },
        }


def _essence(line: str) -> str:
    body = json.loads(line)
    return json.dumps({name: None if name in ACCIDENTAL or name == "run_id" else value for name, value in body.items()})


@pytest.fixture
def servers() -> Iterator[tuple[FaultServer, FaultServer]]:
    with FaultServer() as own, FaultServer() as spy:
        yield own, spy


@pytest.fixture
def project(tmp_path: Path, servers: tuple[FaultServer, FaultServer]) -> Project:
    return Project(tmp_path, *servers)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run sends where the project wants nothing."""
    with FaultServer() as own, FaultServer() as spy:
        quiet = Project(tmp_path_factory.mktemp("usual"), own, spy)
        quiet.agree()
        quiet.write("[telemetry]\n")
        assert quiet.run().stderr == ""
        sent = quiet.sent()
    assert [len(sent[name]) for name in ("own", "own.jsonl", "mine.jsonl")] == [3, 3, 3]
    assert "A secret" in str(sent["mine.jsonl"])
    assert "A secret" not in str((sent["own"], sent["own.jsonl"]))
    return sent


WISHES = {
    "level": ("enabled = true\nlevel = 'debug'", ["level = debug"]),
    "level with a consent": (
        "level = 'debug'\ndebug_consent_given = true\ndebug_consent_expires = 2999-01-01T00:00:00Z",
        ["level = debug", "debug_consent_given", "debug_consent_expires"],
    ),
    "endpoint": ("endpoint = 'SPY'", ["endpoint"]),
    "local file": ("local_file = 'JSONL'", ["local_file"]),
    "plugin": ("plugins = ['spy', 'http']", ["plugins (spy, http)"]),
    "private destination": (
        "[telemetry.to.spy]\nplugin = 'http'\naudience = 'private'\nendpoint = 'SPY'\n"
        "[telemetry.to.mine]\nplugin = 'file'\naudience = 'private'\npath = 'JSONL'",
        ["to.spy", "to.mine"],
    ),
    "destination of that name": ("[telemetry.to.http]\naudience = 'private'\nendpoint = 'SPY'", ["to.http"]),
    "means": (
        "sync = true\nbackground = true\n[telemetry.bounds]\nbatch_events = 1\n[telemetry.settings.http]\nurl = 'SPY'",
        ["sync", "background", "bounds.batch_events", "settings.http"],
    ),
}  # fmt: skip
ALL = [wish for name, wish in WISHES.items() if name not in ("level", "destination of that name")]


def _tables(wishes: list[tuple[str, list[str]]]) -> str:
    parts = [text.partition("[telemetry.") for text, _ in wishes]
    return "\n".join([keys for keys, _, _ in parts] + [start + tables for _, start, tables in parts])


SPECS: dict[str, tuple[str | None, str]] = {
    "core": (OURS.format(name="cmdorc.core", event="mine"),
             "spec cmdorc.core is declared already, by cmdorc"),
    "event": (OURS.format(name="acme.app", event="command_completed"),
              "event 'command_completed' is declared already, by cmdorc"),
    "broken": ("[meta", "is not valid TOML"),
    "nested": ("a = " + "[" * 99_999, "ours.toml: is "),
    "large": ("#" * (1 << 20) + "\n", "is larger than 1 MiB"),
    "pipe": (None, "it is no file"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WISHES, "all at once"])
@pytest.mark.parametrize("decided", ["you", "operator"])
def test_a_wish_changes_nothing_and_is_named(name: str, decided: str, project: Project, usual: dict[str, Any]) -> None:
    if decided == "you":
        project.agree()
    else:
        project.grant()
    texts = [WISHES[name]] if name in WISHES else ALL
    project.write("[telemetry]\n" + _tables(texts))
    assert project.run().stderr == ""
    assert project.sent() == usual
    told = json.loads(project("telemetry", "status", "--json").stdout)
    shown = project("telemetry", "status").stdout if name == "all at once" else "\n".join(told["ignored"])
    for key in [key for _, keys in texts for key in keys]:
        (named,) = [text for text in told["ignored"] if text.startswith(f"cmdorc.toml: telemetry.{key} ")]
        assert "; only " in named
        assert named in shown
    assert told["limits"] == []


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_that_may_not_be_added_is_left_out_and_named(name: str, project: Project, usual: dict[str, Any]) -> None:
    text, why = SPECS[name]
    project.agree()
    path = project.folder / "ours.toml"
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text)
    project.write("[telemetry]\nspecs = ['ours.toml']\n")
    warned = project.run().stderr
    assert warned.startswith("cmdorc.toml: telemetry.specs[0]: ours.toml: ")
    assert why in warned
    assert warned.count("\n") == 1
    assert project.sent() == usual
    (named,) = json.loads(project("telemetry", "status", "--json").stdout)["ignored"]
    assert named == warned.rstrip("\n")


def test_a_spec_that_a_project_adds_has_no_consent(project: Project, usual: dict[str, Any]) -> None:
    project.agree()
    (project.folder / "ours.toml").write_text(OURS.format(name="acme.app", event="paid"))
    project.write("[telemetry]\nspecs = ['ours.toml']\n")
    assert project.run().stderr == ""
    code = """
from pathlib import Path
from cmdorc_telemetry import Telemetry, load_telemetry_config
from cmdorc_telemetry.application import CMDORC
telemetry = Telemetry.start(config=load_telemetry_config("cmdorc.toml"), application=CMDORC._replace(version="0.12.0"))
assert telemetry.recording
assert not telemetry.track("paid", {"command_name": "A secret"})
assert telemetry.flush(20)
telemetry.close()
"""
    subprocess.run([sys.executable, "-c", code], cwd=project.folder, env=project.env, check=True, timeout=40)
    assert project.sent() == usual
    assert b"paid" not in project.home.history.read_bytes()


def test_where_nobody_decided_there_is_one_line_and_nothing_else(project: Project) -> None:
    project.write("[telemetry]\nenabled = true\nspecs = ['ours.toml']\n" + _tables(ALL))
    before = list(project.home.root.iterdir())
    assert project.run().stderr == (
        "This project asks for telemetry. It is off. `cmdorc telemetry opt-in` shows what it would send.\n"
    )
    assert list(project.home.root.iterdir()) == before
    assert project.sent() == {"own": [], "spy": [], "files": []}


def test_a_table_that_is_wrong_turns_telemetry_off_and_nothing_else(project: Project) -> None:
    """Whoever names a home in a project's file has not understood; nobody guesses what else they meant."""
    project.agree()
    project.write(f"[telemetry]\nhome = '{project.folder}'\n")
    warned = project.run().stderr
    assert warned.startswith("cmdorc: telemetry is off: cmdorc.toml: telemetry.home: unknown key; ")
    assert warned.count("\n") == 1
    assert project.sent() == {"own": [], "spy": [], "files": []}
