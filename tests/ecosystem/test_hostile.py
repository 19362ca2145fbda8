"""A plugin that does its worst in every hook, in a real process, beside one that does its work: what is promised for
each case, no more and no less. docs/hostile-plugins.md says it in words; each row there is one of ``CELLS``.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cmdorc_telemetry.home import Home

from ..agreement import agree
from ..test_hookspecs import HOOKS
from ..waiting import LONG, until

PAGE = Path(__file__).parents[2] / "docs" / "hostile-plugins.md"
LIFECYCLE = [name for name in HOOKS if name.startswith("cmdorc_")]
GOOD = """
import json, os
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.types import Anomaly

def heard(name):
    with open("heard", "a") as file:
        print(name, file=file)

class Good(TelemetryReporter):
    async def report(self, event, payload):
        with open("sent", "a") as file:
            print(json.dumps(payload), file=file)

class Watcher(Detector):
    name = "good"
    told = False

    def score_one(self, event, payload):
        if self.told or event != "command_completed":
            return []
        self.told = True
        return [Anomaly(detector="good", event=event, metric="count", kind="above", value=2.0, threshold=1.0,
                        sample_count=5)]

    def learn_one(self, event, payload):
        pass

@hookimpl
def cmdorc_startup(): heard("cmdorc_startup")
@hookimpl
def cmdorc_completed(): heard("cmdorc_completed")
@hookimpl
def cmdorc_trigger(): heard("cmdorc_trigger")
@hookimpl
def cmdorc_chain(): heard("cmdorc_chain")
@hookimpl
def cmdorc_shutdown(): heard("cmdorc_shutdown")
@hookimpl
def telemetry_reporters(): return [Good]
@hookimpl
def telemetry_detectors(): return [Watcher]
@hookimpl
def telemetry_anomaly(): heard("telemetry_anomaly")
"""
BAD = """
import os, time
from cmdorc_telemetry import hookimpl

def hang():
    open("entered", "w").close()
    while not os.path.exists("release"):
        time.sleep(0.01)

@hookimpl
def {hook}({arguments}):
    {body}
"""
PROGRAM = """
import json, sys
from cmdorc_telemetry import Chain, CompletedRun, Session, Telemetry, Trigger
from cmdorc_telemetry.application import CMDORC

def say(*what):
    print(json.dumps(what), flush=True)

telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
say("started")
telemetry.fire("cmdorc_startup", Session(id="s", started_at=0.0))
for number in range(3):
    telemetry.fire("cmdorc_completed", CompletedRun(run_id=str(number), command_name="A", state="success"))
telemetry.fire("cmdorc_trigger", Trigger(name="t", outcome="ran"))
telemetry.fire("cmdorc_chain", Chain(id="c", trigger="t"))
telemetry.fire("cmdorc_shutdown", Session(id="s", started_at=0.0, uptime=1.0))
say("fired")
say("flushed", telemetry.flush(float(sys.argv[1])))
telemetry.close()
say("closed", dict(telemetry.failures))
"""
EVENTS = ["command_completed"] * 3 + ["orchestrator_started", "orchestrator_stopped", "trigger_fired"]
RAISES, EXITS, WRONG = "raise ValueError('private words')", "raise SystemExit(9)", "return 5"


class Cell(NamedTuple):
    """What comes of one misdeed in one hook."""

    body: str
    failure: str = ""
    """What ``failures`` say of the plugin; nothing where it is empty."""
    shared: bool = True
    """Whether events still reach others."""
    arguments: str | None = None


RULES = r"breaks the hook rules: .*(argument|Argument)"
MISSPELT = Cell("pass", RULES, shared=False, arguments="mispelt")
CELLS: dict[tuple[str, str], Cell] = {
    **{(hook, "raises"): Cell(RAISES, "raised ValueError") for hook in LIFECYCLE},
    **{(hook, "SystemExit"): Cell(EXITS, "raised SystemExit") for hook in LIFECYCLE},
    **{(hook, "wrong type"): Cell(WRONG) for hook in [*LIFECYCLE, "telemetry_configure", "telemetry_anomaly"]},
    **{(hook, "adds fields"): Cell(f"{HOOKS[hook][0]}.extra = 1", "raised AttributeError") for hook in LIFECYCLE},
    ("telemetry_specs", "raises"): Cell(RAISES, "telemetry_specs raised ValueError"),
    ("telemetry_specs", "SystemExit"): Cell(EXITS, "telemetry_specs raised SystemExit"),
    ("telemetry_specs", "wrong type"): Cell("return [5]", "telemetry_specs returned 5"),
    ("telemetry_configure", "raises"): Cell(RAISES, "cannot be configured: ValueError", shared=False),
    ("telemetry_configure", "SystemExit"): Cell(EXITS, "cannot be configured: SystemExit", shared=False),
    ("telemetry_configure", "adds fields"): Cell("setup.extra = 1", "configured: AttributeError", shared=False),
    ("telemetry_reporters", "raises"): Cell(RAISES, "telemetry_reporters raised ValueError"),
    ("telemetry_reporters", "SystemExit"): Cell(EXITS, "telemetry_reporters raised SystemExit"),
    ("telemetry_reporters", "wrong type"): Cell("return [dict]", "telemetry_reporters returned <class 'dict'>"),
    ("telemetry_anonymize", "raises"): Cell(RAISES, "raised ValueError", shared=False),
    ("telemetry_anonymize", "SystemExit"): Cell(EXITS, "raised SystemExit", shared=False),
    ("telemetry_anonymize", "wrong type"): Cell(WRONG, "returned", shared=False),
    ("telemetry_anonymize", "adds fields"): Cell("return {'extra': 1}", "extra"),
    ("telemetry_anonymize", "wrong value"): Cell("return {'arch': 5}", "arch"),
    ("telemetry_detectors", "raises"): Cell(RAISES, "telemetry_detectors raised ValueError"),
    ("telemetry_detectors", "SystemExit"): Cell(EXITS, "telemetry_detectors raised SystemExit"),
    ("telemetry_detectors", "wrong type"): Cell("return 5", "telemetry_detectors raised TypeError"),
    ("telemetry_anomaly", "raises"): Cell(RAISES, "raised ValueError"),
    ("telemetry_anomaly", "SystemExit"): Cell(EXITS, "raised SystemExit"),
    ("telemetry_anomaly", "adds fields"): Cell("anomaly.extra = 1", "raised AttributeError"),
    **{(hook, "misspelt argument"): MISSPELT for hook in HOOKS},
}
HANGS: dict[str, str] = {
    **dict.fromkeys(LIFECYCLE, "caller"),
    "telemetry_specs": "start",
    **dict.fromkeys(("telemetry_configure", "telemetry_reporters", "telemetry_detectors"), "delivery"),
    "telemetry_anonymize": "event",
    "telemetry_anomaly": "alerts",
}
"""Hook → what waits for it."""


class Place:
    """A home, two plugins, and programs that have both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.home.root.mkdir()
        self.running: list[subprocess.Popen[str]] = []
        self._plugin("good", GOOD)
        self.enable("good")

    def _plugin(self, name: str, code: str) -> None:
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (self.folder / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name} = {name}\n")

    def enable(self, *names: str) -> None:
        listed = ", ".join(f'"{name}"' for name in names)
        self.home.config.write_text(f"[telemetry]\nplugins = [{listed}]\n[telemetry.to.good]\n")
        agree(self.home)

    def spoil(self, hook: str, body: str, arguments: str | None) -> None:
        arguments = ", ".join(HOOKS[hook]) if arguments is None else arguments
        self._plugin("bad", BAD.format(hook=hook, arguments=arguments, body=body))
        self.enable("bad", "good")

    def begin(self, seconds: float = LONG) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
        environ = kept | {"CMDORC_HOME": str(self.home.root), "PYTHONPATH": str(self.folder)}
        script = self.folder / "program.py"
        script.write_text(textwrap.dedent(PROGRAM))
        self.running.append(subprocess.Popen([sys.executable, script, str(seconds)], cwd=self.folder, env=environ,
                                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))  # fmt: skip
        return self.running[-1]

    def run(self, seconds: float = LONG) -> tuple[dict[str, Any], str]:
        """A program from its beginning to its end: what it said, and standard error."""
        program = self.begin(seconds)
        out, err = program.communicate(timeout=2 * LONG)
        assert program.returncode == 0, err
        said = {word: rest for word, *rest in map(json.loads, out.splitlines())}
        assert list(said) == ["started", "fired", "flushed", "closed"]
        return said, err

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines("sent")]

    def kept(self) -> list[str]:
        """What the history of this machine has."""
        if not self.home.history.exists():
            return []
        with closing(sqlite3.connect(self.home.history)) as db:
            return sorted(name for (name,) in db.execute("SELECT name FROM event WHERE name <> 'anomaly_detected'"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for program in place.running:
        program.kill()
        program.communicate()


def named(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["event"] for event in events if event["event"] != "anomaly_detected")


def test_the_good_one_alone(place: Place) -> None:
    said, err = place.run()
    assert (said["flushed"], said["closed"], err) == ([True], [{}], "")
    assert place.kept() == named(place.sent()) == EVENTS
    assert set(place.lines("heard")) == {*LIFECYCLE, "telemetry_anomaly"}


@pytest.mark.parametrize(("hook", "misdeed"), CELLS, ids=lambda word: word.replace(" ", "-"))
def test_what_it_does_hurts_itself_alone(place: Place, hook: str, misdeed: str) -> None:
    cell = CELLS[hook, misdeed]
    place.spoil(hook, cell.body, cell.arguments)
    said, err = place.run()
    assert place.kept() == EVENTS, "what is recorded here is whole"
    assert set(place.lines("heard")) == {*LIFECYCLE, "telemetry_anomaly"}, "the other plugin hears everything"
    assert named(place.sent()) == (EVENTS if cell.shared else [])
    assert all("extra" not in event for event in place.sent())
    if cell.failure and cell.shared:
        assert re.search(cell.failure, said["closed"][0]["bad"]), said["closed"]
    failures = said["closed"][0]
    assert set(failures) == ({"bad"} if cell.failure else set())
    assert err.count("plugin 'bad'") == bool(cell.failure), "it is reported once"
    assert "private words" not in err, "a log may be sent to somebody"
    if cell.failure:
        assert re.search(cell.failure, failures["bad"]), failures


@pytest.mark.parametrize("hook", HANGS)
def test_who_waits_for_one_that_hangs(place: Place, hook: str) -> None:
    place.spoil(hook, "hang()" if hook != "telemetry_anonymize" else "hang(); return {}", None)
    waits = HANGS[hook]
    program = place.begin(seconds=LONG if waits in ("caller", "start") else 3)
    assert program.stdout is not None
    entered, release = place.folder / "entered", place.folder / "release"
    until(entered.exists, "the hook")
    if waits in ("caller", "start"):
        said = "" if waits == "start" else program.stdout.readline()
        assert said == ("" if waits == "start" else '["started"]\n')
        assert program.poll() is None
        release.touch()
    out, _ = program.communicate(timeout=2 * LONG)
    assert program.returncode == 0
    assert '["fired"]' in out
    assert not release.exists() or waits in ("caller", "start"), "nobody waited for it to return"
    if waits == "delivery":
        assert (place.kept(), place.sent()) == ([], [])
        place.enable("good")
        place.run()
        assert place.kept() == named(place.sent()) == sorted(2 * EVENTS), "nothing is lost"
        return
    assert place.kept() == EVENTS
    assert named(place.sent()) == ([] if waits == "event" else EVENTS)


def test_every_cell_is_in_the_page_and_every_row_of_it_a_cell() -> None:
    rows = re.findall(r"^\| `(\w+)`(?: … `(\w+)`)? \| ([\w ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    written = {
        (hook, misdeed)
        for first, last, misdeed in rows
        for hook in (HOOKS if not last else list(HOOKS)[list(HOOKS).index(first) : list(HOOKS).index(last) + 1])
        if last or hook == first
    }
    assert written == {*CELLS, *((hook, "hangs") for hook in HANGS)}
