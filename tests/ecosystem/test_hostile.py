"""A plugin that does its worst in every hook, in a real process, beside one that does its work: what is promised for
each case, no more and no less. docs/hostile-plugins.md says it in words; its rows are those of ``CELLS`` and
``METHODS``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Ledger

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

PLACE = os.environ["PLACE"]

def heard(name):
    with open(f"{PLACE}/heard", "a") as file:
        print(name, file=file)

class Good(TelemetryReporter):
    async def report(self, event, payload):
        with open(f"{PLACE}/sent", "a") as file:
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
import os, signal, time
from cmdorc_telemetry import hookimpl

class Odd(BaseException):
    pass

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
from cmdorc_telemetry import Chain, CompletedRun, Session, Telemetry, Trigger, isolation
from cmdorc_telemetry.application import CMDORC

def say(*what):
    print(json.dumps(what), flush=True)

if sys.argv[2] == "hangs":
    isolation.HOOK_SECONDS = 1.0
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
say("started")
telemetry.fire("cmdorc_startup", Session(id="s", started_at=0.0))
for number in range(3):
    telemetry.fire("cmdorc_completed", CompletedRun(run_id=str(number), command_name="A", state="success"))
telemetry.fire("cmdorc_trigger", Trigger(name="t", outcome="ran"))
telemetry.fire("cmdorc_chain", Chain(id="c", trigger="t"))
telemetry.fire("cmdorc_shutdown", Session(id="s", started_at=0.0, uptime=1.0))
say("fired")
if sys.argv[1] == "wait":
    import threading
    threading.Thread(target=telemetry.flush, args=(1000,), daemon=True).start()
    sys.stdin.read()
else:
    say("flushed", telemetry.flush(float(sys.argv[1])))
telemetry.close()
say("closed", dict(telemetry.failures))
"""
OFFERS = """
import asyncio, os, time
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.types import BatchResult, EventResult

class Odd(BaseException):
    pass

def block():
    while True:
        time.sleep(0.01)

class Reporter(TelemetryReporter):
    async def report(self, event, payload):
        pass

class Watcher(Detector):
    def score_one(self, event, payload):
        return []

    def learn_one(self, event, payload):
        pass

def doing(base, method, word, what):
    def misdeed(self, *arguments, **more):
        return exec_(what)
    async def later(self, *arguments, **more):
        if what == "hangs":
            await asyncio.sleep(1000)
        return exec_(what)
    slow = asyncio.iscoroutinefunction(getattr(base, method)) and what != "blocks"
    return type(word, (base,), {{"name": word, method: later if slow else misdeed}})

def exec_(what):
    if what == "wrong type":
        return 5
    if what == "wrong result":
        return BatchResult(results=(EventResult("no-such-id", "accepted"),))
    if what in ("blocks", "hangs"):
        block()
    raise {{"raises": ValueError("private words"), "SystemExit": SystemExit(9), "BaseException": Odd("private words"),
           "KeyboardInterrupt": KeyboardInterrupt()}}[what]

@hookimpl
def telemetry_{kind}s():
    base = {{"reporter": Reporter, "detector": Watcher}}["{kind}"]
    return [doing(base, method, f"{{method.strip('_')}}-{{number}}", what)
            for method, misdeeds in {misdeeds!r}.items() for number, what in enumerate(misdeeds)]
"""
EVENTS = ["command_completed"] * 3 + ["orchestrator_started", "orchestrator_stopped", "trigger_fired"]


class Cell(NamedTuple):
    """What comes of one misdeed in one hook."""

    body: str
    failure: str = ""
    """What ``failures`` say of the plugin; nothing where it is empty."""
    shared: bool = True
    """Whether events still reach others."""
    arguments: str | None = None


TELEMETRY = [name for name in HOOKS if name not in LIFECYCLE]
OFFERING = [name for name in TELEMETRY if not HOOKS[name] and name != "telemetry_specs"]
WITHHOLDS = ("telemetry_configure", "telemetry_anonymize")
"""Hooks without which more might be shared than there should be."""
RAISING = {
    "raises": ("raise ValueError('private words')", "ValueError"),
    "SystemExit": ("raise SystemExit(9)", "SystemExit"),
    "BaseException": ("raise Odd('private words')", "Odd"),
}
MEDDLING = {"prints": "print('of a plugin', flush=True)", "changes the directory": "os.chdir('/')"}
HANDLER = "signal.signal(signal.SIGUSR1, signal.SIG_IGN)"
FINE = {"telemetry_anonymize": "{}", **dict.fromkeys((*OFFERING, "telemetry_specs"), "[]")}
"""What a hook returns that has nothing to say."""


def _raising(hook: str, body: str, kind: str) -> Cell:
    said = "raised " if hook in (*LIFECYCLE, "telemetry_anonymize") else f"{hook} raised "
    return Cell(body, said + kind, shared=hook not in WITHHOLDS)


def _meddling(hook: str, body: str) -> Cell:
    return Cell(f"{body}; return {FINE.get(hook)}")


CELLS: dict[tuple[str, str], Cell] = {
    **{(hook, word): _raising(hook, *each) for word, each in RAISING.items() for hook in HOOKS},
    **{(hook, "KeyboardInterrupt"): _raising(hook, "raise KeyboardInterrupt", "KeyboardInterrupt")
       for hook in TELEMETRY},
    **{(hook, word): _meddling(hook, body) for word, body in MEDDLING.items() for hook in HOOKS},
    **{(hook, "replaces a signal handler"): _meddling(hook, HANDLER) for hook in LIFECYCLE},
    **{(hook, "replaces a signal handler"): _raising(hook, HANDLER, "ValueError: signal only works in main thread")
       for hook in TELEMETRY},
    **{(hook, "adds fields"): _raising(hook, f"{HOOKS[hook][0]}.extra = 1", "AttributeError")
       for hook in HOOKS if HOOKS[hook]},
    ("telemetry_anonymize", "adds fields"): Cell("return {'extra': 1}", "extra"),
    **{(hook, "wrong type"): Cell("return 5") for hook in HOOKS if hook not in FINE},
    ("telemetry_anonymize", "wrong type"): Cell("return 5", "returned", shared=False),
    ("telemetry_anonymize", "wrong value"): Cell("return {'arch': 5}", "arch"),
    ("telemetry_specs", "wrong type"): Cell("return [5]", "telemetry_specs returned 5"),
    ("telemetry_reporters", "wrong type"): Cell("return [dict]", "telemetry_reporters returned <class 'dict'>"),
    ("telemetry_detectors", "wrong type"): Cell("return 5", "telemetry_detectors raised TypeError"),
    **{(hook, "hangs"): Cell(f"hang(); return {FINE.get(hook)}", "took more than .* s .*and is given up",
                             shared=hook not in WITHHOLDS) for hook in TELEMETRY},
    **{(hook, "misspelt argument"): Cell("pass", r"breaks the hook rules: .*(argument|Argument)", False, "mispelt")
       for hook in HOOKS},
}  # fmt: skip
TOGETHER: dict[tuple[str, ...], list[str]] = {
    (misdeed,): [hook for hook in HOOKS if (hook, misdeed) in CELLS and
                 (CELLS[hook, misdeed].shared or misdeed == "misspelt argument")]
    for misdeed in dict.fromkeys(word for _, word in CELLS)
}  # fmt: skip
TOGETHER |= {(misdeed, hook): [hook] for hook, misdeed in CELLS if hook not in TOGETHER[misdeed,]}
"""Cells that are tried in one program, a plugin each: all of a misdeed, but those that hold back what is shared."""


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

    def enable(self, *names: str, to: Iterable[str] = ()) -> None:
        listed = ", ".join(f'"{name}"' for name in names)
        tables = "".join(f'[telemetry.to.{name}]\nplugin = "{name}"\ntimeout = 1\n' for name in to)
        self.home.config.write_text(f"[telemetry]\nplugins = [{listed}]\n[telemetry.to.good]\n{tables}")
        agree(self.home)

    def spoil(self, cells: Mapping[str, Cell]) -> None:
        """For each hook a plugin that misbehaves there, enabled before the good one."""
        for hook, cell in cells.items():
            arguments = ", ".join(HOOKS[hook]) if cell.arguments is None else cell.arguments
            self._plugin(f"bad_{hook}", BAD.format(hook=hook, arguments=arguments, body=cell.body))
        self.enable(*(f"bad_{hook}" for hook in cells), "good")

    def offer(self, kind: str, misdeeds: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """A plugin with one reporter, or detector, for each misdeed in each method. The destinations."""
        self._plugin("bad", OFFERS.format(kind=kind, misdeeds=misdeeds))
        made = {f"{method.strip('_')}-{number}": f"{method}: {what}"
                for method, each in misdeeds.items() for number, what in enumerate(each)}  # fmt: skip
        self.enable("bad", "good", to=made if kind == "reporter" else ())
        return made if kind == "reporter" else {f"detector-{name}": what for name, what in made.items()}

    def begin(self, seconds: object = LONG, misdeed: str = "") -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT"))}
        environ = kept | {"CMDORC_HOME": str(self.home.root), "PYTHONPATH": str(self.folder), "PLACE": str(self.folder)}
        script = self.folder / "program.py"
        script.write_text(textwrap.dedent(PROGRAM))
        command = [sys.executable, script, str(seconds), misdeed]
        self.running.append(subprocess.Popen(command, cwd=self.folder, env=environ,
                                             text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.PIPE))  # fmt: skip
        return self.running[-1]

    def run(self, misdeed: str = "") -> tuple[dict[str, Any], str]:
        """A program from its beginning to its end: what it said, and standard error."""
        program = self.begin(misdeed=misdeed)
        out, err = program.communicate(timeout=2 * LONG)
        assert program.returncode == 0, err
        self.printed = [line for line in out.splitlines() if line[0] != "["]
        said = {word: rest for word, *rest in map(json.loads, (line for line in out.splitlines() if line[0] == "["))}
        assert list(said) == ["started", "fired", "flushed", "closed"]
        return said, err

    def ledger(self) -> dict[str, Ledger]:
        with closing(Spool(self.home.spool, reading=True)) as spool:
            return spool.ledger()

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines("sent")]

    def kept(self) -> list[str]:
        """What the history of this machine has."""
        if not self.home.history.exists():
            return []
        with closing(sqlite3.connect(self.home.history)) as db, suppress(sqlite3.OperationalError):  # just being made
            return sorted(name for (name,) in db.execute("SELECT name FROM event WHERE name <> 'anomaly_detected'"))
        return []


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


@pytest.mark.parametrize("words", TOGETHER, ids=lambda words: "-".join(words).replace(" ", "-"))
def test_what_it_does_hurts_itself_alone(place: Place, words: tuple[str, ...]) -> None:
    cells = {hook: CELLS[hook, words[0]] for hook in TOGETHER[words]}
    place.spoil(cells)
    said, err = place.run(words[0])
    assert said["flushed"] == [True]
    assert place.kept() == EVENTS, "what is recorded here is whole"
    assert set(place.lines("heard")) == {*LIFECYCLE, "telemetry_anomaly"}, "the other plugin hears everything"
    assert named(place.sent()) == (EVENTS if all(cell.shared for cell in cells.values()) else [])
    assert all("extra" not in event for event in place.sent())
    (failures,) = said["closed"]
    assert set(failures) == {f"bad_{hook}" for hook, cell in cells.items() if cell.failure}
    for hook, cell in cells.items():
        assert not cell.failure or re.search(cell.failure, failures[f"bad_{hook}"]), failures
        assert err.count(f"plugin 'bad_{hook}'") == bool(cell.failure), "it is reported once"
    assert "private words" not in err, "a log may be sent to somebody"
    assert len(set(place.printed)) == (words == ("prints",)), "what it prints is printed"


@pytest.mark.parametrize("hook", LIFECYCLE)
def test_ctrl_c_goes_through_to_the_caller_and_what_was_recorded_stays(place: Place, hook: str) -> None:
    place.spoil({hook: Cell("raise KeyboardInterrupt")})
    program = place.begin()
    _, err = program.communicate(timeout=2 * LONG)
    assert program.returncode == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")
    place.enable("good")
    place.run()
    runs = 0 if hook == "cmdorc_startup" else 1 if hook == "cmdorc_completed" else 3
    assert place.kept().count("command_completed") == runs + 3
    assert named(place.sent()) == place.kept()


METHODS: dict[str, dict[str, list[str]]] = {
    "reporter": {
        "__init__": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "blocks"],
        "report": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "hangs", "blocks"],
        "report_batch": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "wrong result",
                         "hangs", "blocks"],
        "encode": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "blocks"],
        "fetch_policy": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "hangs", "blocks"],
        "close": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "hangs", "blocks"],
    },
    "detector": {
        "__init__": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "blocks"],
        "watch": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "blocks"],
        "score_one": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "blocks"],
        "learn_one": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "blocks"],
        "check": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "blocks"],
        "save": ["raises", "SystemExit", "BaseException", "KeyboardInterrupt", "wrong type", "blocks"],
    },
}  # fmt: skip
"""What the code of a destination does wrong. All of a kind at once, in one program."""


WAIT, PASSED, TAKEN = "wait", "are passed over", "are taken"


def becomes(kind: str, misdeed: str) -> str:
    """What becomes of the events. Where a detector cannot be made, or does not come back, they wait for it."""
    if kind == "reporter":
        return TAKEN if re.match("close|fetch_policy", misdeed) else WAIT
    return WAIT if re.search("init|watch|blocks", misdeed) else PASSED


@pytest.mark.parametrize("kind", METHODS)
def test_what_the_code_of_a_destination_does_hurts_that_destination_alone(place: Place, kind: str) -> None:
    misdeeds = place.offer(kind, METHODS[kind])
    program = place.begin("wait")
    until(lambda: place.kept() == named(place.sent()) == EVENTS, "the others")
    until(lambda: "telemetry_anomaly" in place.lines("heard"), "the alert")
    expected = {name: becomes(kind, what) for name, what in misdeeds.items()}
    until(lambda: not [name for name, said in expected.items() if said != WAIT and place.ledger()[name].pending], "all")
    start = time.monotonic()
    _, err = program.communicate("", timeout=2 * LONG)
    assert time.monotonic() - start < LONG
    assert program.returncode == 0
    assert "private words" not in err
    ledger = place.ledger()
    assert ledger.keys() == {"history", "good", "detector-good", *misdeeds}
    for name, said in expected.items():
        each = ledger[name]
        assert (each.acknowledged, each.pending) == ((0, len(EVENTS)) if said == WAIT else (len(EVENTS), 0)), name
        assert each.dropped == {}, name
        assert err.count(f"plugin '{name.removeprefix('detector-')}'") == (said == PASSED), "it is reported once"


@pytest.mark.parametrize("hook", LIFECYCLE)
def test_the_caller_waits_for_one_that_hangs(place: Place, hook: str) -> None:
    place.spoil({hook: Cell("hang()")})
    program = place.begin()
    assert program.stdout is not None
    until((place.folder / "entered").exists, "the hook")
    assert program.stdout.readline() == '["started"]\n'
    assert program.poll() is None
    (place.folder / "release").touch()
    out, _ = program.communicate(timeout=2 * LONG)
    assert program.returncode == 0
    assert '["fired"]' in out
    assert place.kept() == named(place.sent()) == EVENTS


def spread(first: str, last: str) -> list[str]:
    """The hooks of a row: one, or those from one to another."""
    names = list(HOOKS)
    return names[names.index(first) : names.index(last or first) + 1]


def test_every_cell_is_in_the_page_and_every_row_of_it_a_cell() -> None:
    rows = re.findall(r"^\| `(\w+)`(?: … `(\w+)`)? \| ([\w ]+) \| (yes|no) \|", PAGE.read_text(), re.MULTILINE)
    written = {(hook, what): said == "yes" for first, last, what, said in rows for hook in spread(first, last)}
    assert written == {
        **{key: cell.shared for key, cell in CELLS.items()},
        **{(hook, "hangs"): True for hook in LIFECYCLE},
        **{(hook, "KeyboardInterrupt"): True for hook in LIFECYCLE},
    }
    assert sum(len(spread(first, last)) for first, last, *_ in rows) == len(written), "each is there once"


def test_every_misdeed_is_tried_in_every_hook_in_which_there_is_a_way() -> None:
    misdeeds = {word for _, word in CELLS}
    tried = {*CELLS, *((hook, "hangs") for hook in LIFECYCLE), *((hook, "KeyboardInterrupt") for hook in LIFECYCLE)}
    nothing_there = {(hook, "adds fields") for hook in HOOKS if not HOOKS[hook]}
    no_value = {(hook, "wrong value") for hook in HOOKS if hook != "telemetry_anonymize"}
    assert {(hook, word) for hook in HOOKS for word in misdeeds} - tried == nothing_there | no_value
    assert sorted((word, hook) for (word, *_), hooks in TOGETHER.items() for hook in hooks) == sorted(
        (word, hook) for hook, word in CELLS
    )


def test_every_method_is_in_the_page() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| ([\w, ]+) \| ([a-z ]+) \|", PAGE.read_text(), re.MULTILINE)
    written = {(kind, method, what): became for kind, method, words, became in rows for what in words.split(", ")}
    assert written == {
        (kind, method, what): becomes(kind, f"{method}: {what}")
        for kind, methods in METHODS.items() for method, each in methods.items() for what in each
    }  # fmt: skip
