"""``exec``: everything that a program does with cmdorc is recorded, and the program is the one that it was."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.home import Home

from ..agreement import agree
from .sources import COMMANDS, ONE, STARTED, STOPPED, WHOLE

# -- whichever orchestrators it makes --------------------------------------------------------------------------------


def test_a_program_is_recorded(place: Any) -> None:
    assert place(sys.executable, place.script(ONE)) == (0, "", "")
    assert place.counts() == WHOLE


SEVERAL = """
from cmdorc_telemetry import TelemetryOrchestrator
from abc import ABC

class Late(cmdorc.CommandOrchestrator, ABC):
    def __init__(self, name):
        super().__init__(config(name))
        self._executor = cmdorc.LocalSubprocessExecutor()  # after cmdorc's own part

class Later(Late):
    def __init__(self):
        super().__init__("D")
        self.whole = True

class Plain(cmdorc.CommandOrchestrator):
    pass

class Beside:
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._executor = cmdorc.LocalSubprocessExecutor()

class Tagged:
    def __init_subclass__(cls, tag=""):
        cls.tag = tag

class Both(Beside, cmdorc.CommandOrchestrator, Tagged, tag="x"):
    pass

assert Both.tag == "x"
assert "__init__" not in vars(Plain), "there is nothing that would have to be wrapped"

async def main():
    made = [cmdorc.CommandOrchestrator(config("A")), cmdorc.CommandOrchestrator(runner_config=config("B")), Late("C"),
            Later(), Plain(config("E")), TelemetryOrchestrator(config("F")), Both(config("G"))]
    for orchestrator, name in zip(made, "ABCDEFG", strict=True):
        await run(orchestrator, name)
    for orchestrator in made:
        await orchestrator.shutdown()

asyncio.run(main())
"""


def test_every_orchestrator_of_a_process_is_recorded_once(place: Any) -> None:
    assert place(sys.executable, place.script(COMMANDS + SEVERAL)) == (0, "", "")
    assert place.counts() == {STARTED: 7, STOPPED: 7, **dict.fromkeys("ABCDEFG", 1)}


def test_orchestrators_of_several_threads_are_recorded(place: Any) -> None:
    code = (
        COMMANDS
        + """
import threading
def work(name):
    asyncio.run(run(cmdorc.CommandOrchestrator(config(name)), name))
threads = [threading.Thread(target=work, args=(name,)) for name in "ABCDEFGH"]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "", "")
    assert place.counts() == {STARTED: 8, STOPPED: 8, **dict.fromkeys("ABCDEFGH", 1)}


def test_an_orchestrator_that_cannot_be_made_is_none(place: Any) -> None:
    code = (
        COMMANDS
        + """
class Half(cmdorc.CommandOrchestrator):
    def __init__(self):
        super().__init__(config("A"))
        raise RuntimeError("no")
for make in (Half, cmdorc.CommandOrchestrator):
    try:
        make()
    except (RuntimeError, TypeError) as fault:
        print(type(fault).__name__)
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "RuntimeError\nTypeError\n", "")
    assert place.counts() == {}


@pytest.mark.parametrize("killed", [True, False])
def test_one_that_is_dropped_ends_when_the_next_is_made(place: Any, killed: bool) -> None:
    code = (
        COMMANDS
        + """
import gc, os, signal, sys
def one(name):
    asyncio.run(run(cmdorc.CommandOrchestrator(config(name)), name))
one("A")
gc.collect()
kept = cmdorc.CommandOrchestrator(config("B"))
asyncio.run(run(kept, "B"))
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
del kept
gc.collect()
"""
    )
    word, ended = ("killed", -signal.SIGKILL) if killed else ("ends", 0)
    assert place(sys.executable, place.script(code), word) == (ended, "", "")
    assert place.counts() == {STARTED: 2, "A": 1, STOPPED: 1 if killed else 2, "B": 1}, "each durable at once"


def test_a_begin_is_recorded_one_tick_later(place: Any) -> None:
    code = (
        COMMANDS
        + """
import os, signal
async def main():
    kept = cmdorc.CommandOrchestrator(config("A"))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    )
    assert place(sys.executable, place.script(code))[0] == -signal.SIGKILL
    assert place.counts() == {STARTED: 1}


def test_what_still_runs_at_the_end_is_reported_as_not_final(place: Any) -> None:
    code = (
        COMMANDS
        + """
async def main():
    orchestrator = cmdorc.CommandOrchestrator(cmdorc.RunnerConfig(
        commands=[cmdorc.CommandConfig(name="Long", command="exec sleep 60", triggers=[])]))
    handle = await orchestrator.run_command("Long")
    while not (handle._result.state.name == "RUNNING"):
        await asyncio.sleep(0.01)
    import os
    print(os.getpid())
    import atexit
    raise SystemExit(3)
asyncio.run(main())
"""
    )
    code, _, _ = place(sys.executable, place.script(code))
    assert code == 3
    (run,) = [event for event in place.events() if event["event"] == "command_completed"]
    assert (run["command_name"], run["state"] != "success") == ("Long", True)
    assert place.counts() == {STARTED: 1, "Long": 1, STOPPED: 1}


def test_a_copy_of_the_process_ends_nothing(place: Any) -> None:
    code = (
        COMMANDS
        + """
import os, sys
kept = cmdorc.CommandOrchestrator(config("A"))
child = os.fork()
if not child:
    asyncio.run(run(cmdorc.CommandOrchestrator(config("B")), "B"))
    sys.exit(0)
os.waitpid(child, 0)
asyncio.run(run(kept, "A"))
"""
    )
    assert place(sys.executable, place.script(code))[0] == 0
    assert place.counts() == {STARTED: 2, "A": 1, "B": 1, STOPPED: 2}


def test_a_copy_of_the_process_begins_nothing(place: Any) -> None:
    code = (
        COMMANDS
        + """
import os, sys
kept = cmdorc.CommandOrchestrator(config("A"))
child = os.fork()
if child:
    os.waitpid(child, 0)
asyncio.run(run(kept, "A"))
"""
    )
    assert place(sys.executable, place.script(code))[0] == 0
    assert place.counts() == {STARTED: 1, "A": 2, STOPPED: 1}


# -- programs that ask by themselves ---------------------------------------------------------------------------------

ASKS = """
from cmdorc_telemetry import TelemetryConfig, TelemetryLevel, hookimpl, instrument

class Bell:
    heard = []
    @hookimpl
    def cmdorc_startup(self, session):
        self.heard.append("begin")
    @hookimpl
    def cmdorc_completed(self, run):
        self.heard.append(run.command_name)
"""


def test_the_own_word_of_a_program_holds(place: Any) -> None:
    code = (
        COMMANDS
        + ASKS
        + """
orchestrator = cmdorc.CommandOrchestrator(config("A"))
instrument(orchestrator, config=TelemetryConfig(enabled=False), plugins=[Bell()])
asyncio.run(run(orchestrator, "A"))
print(Bell.heard)
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "['begin', 'A']\n", "")
    assert place.counts() == {}, "its configuration lowers everything, the begin included"


def test_an_orchestrator_that_instruments_itself_is_recorded_once(place: Any) -> None:
    code = (
        COMMANDS
        + ASKS
        + """
class Own(cmdorc.CommandOrchestrator):
    def __init__(self):
        super().__init__(config("A"))
        instrument(self, plugins=[Bell()])
asyncio.run(run(Own(), "A"))
print(Bell.heard)
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "['begin', 'A']\n", "")
    assert place.counts() == {STARTED: 1, "A": 1}, "nobody shuts it down"


def test_an_orchestrator_with_telemetry_of_its_own_keeps_it_also_where_that_is_off(place: Any) -> None:
    code = (
        COMMANDS
        + """
from cmdorc_telemetry import TelemetryConfig, TelemetryOrchestrator
asyncio.run(run(TelemetryOrchestrator(config("A"), config=TelemetryConfig(enabled=False)), "A"))
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "", "")
    assert place.counts() == {}


def test_a_program_that_only_says_that_it_wants_it_is_recorded_once(place: Any) -> None:
    code = (
        COMMANDS
        + ASKS
        + """
async def main():
    orchestrator = cmdorc.CommandOrchestrator(config("A"))
    first = instrument(orchestrator)
    await run(orchestrator, "A")
    assert instrument(orchestrator, plugins=[Bell()]) is first
    await run(orchestrator, "A")
    await orchestrator.shutdown()
    print(Bell.heard)
asyncio.run(main())
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "['A']\n", "")
    assert place.counts() == {STARTED: 1, "A": 2, STOPPED: 1}


# -- the project's file ----------------------------------------------------------------------------------------------

TOML = '[[command]]\nname = "A"\ncommand = "true"\ntriggers = []\n'
LOADS = (
    COMMANDS
    + """
import dataclasses, os, pathlib, sys
ways = {
    "path": lambda: cmdorc.load_config("cmdorc.toml"),
    "file": lambda: cmdorc.load_config(open("cmdorc.toml", "rb")),
    "two": lambda: cmdorc.load_configs(["other.toml", pathlib.Path("cmdorc.toml")]),
    "moved": lambda: (cmdorc.load_config("cmdorc.toml"), os.chdir("/"))[0],
    "once": lambda: cmdorc.load_configs(paths=map(str, ["cmdorc.toml"])),
    "changed": lambda: dataclasses.replace(cmdorc.load_config("cmdorc.toml"), vars={"a": "b"}),
}
asyncio.run(run(cmdorc.CommandOrchestrator(ways[sys.argv[1]]()), "A"))
"""
)


@pytest.mark.parametrize("way", ["path", "file", "two", "once", "moved", "changed"])
def test_a_projects_no_holds_however_its_file_is_loaded(place: Any, way: str) -> None:
    (place.work / "other.toml").write_text(TOML.replace('"A"', '"B"') + "[telemetry]\nenabled = true\n")
    (place.work / "cmdorc.toml").write_text(f"{TOML}[telemetry]\nenabled = false\n")
    program = place.script(LOADS)
    assert place(sys.executable, "-W", "ignore", program, way) == (0, "", "")
    assert place.counts() == {}
    (place.work / "cmdorc.toml").write_text(TOML)
    assert place(sys.executable, "-W", "ignore", program, way) == (0, "", "")
    assert place.counts() == WHOLE
    (begin,) = [event for event in place.events() if event["event"] == STARTED]
    assert begin["config_name"] == ("other.toml" if way == "two" else "cmdorc.toml")


def test_each_orchestrator_has_the_word_of_its_own_file(place: Any) -> None:
    (place.work / "other.toml").write_text(TOML)
    (place.work / "cmdorc.toml").write_text(f"{TOML}[telemetry]\nenabled = false\n")
    code = (
        COMMANDS
        + """
class Derived(cmdorc.CommandOrchestrator):
    def __init__(self, name):
        super().__init__(runner_config=loaded[name])

loaded = {name: cmdorc.load_config(name) for name in ("other.toml", "cmdorc.toml")}
for name in loaded:
    asyncio.run(run(Derived(name), "A"))
    asyncio.run(run(cmdorc.CommandOrchestrator(loaded[name]), "A"))
"""
    )
    assert place(sys.executable, "-W", "ignore", place.script(code)) == (0, "", "")
    assert place.counts() == dict.fromkeys(WHOLE, 2)
    assert {event["config_name"] for event in place.events() if event["event"] == STARTED} == {"other.toml"}


def test_the_lowest_level_of_several_files_holds_and_a_wrong_table_turns_it_off(place: Any) -> None:
    (place.work / "other.toml").write_text(TOML.replace('"A"', '"B"') + '[telemetry]\nlevel = "off"\n')
    (place.work / "cmdorc.toml").write_text(f'{TOML}[telemetry]\nlevel = "standard"\n')
    program = place.script(LOADS)
    assert place(sys.executable, program, "two") == (0, "", "")
    assert place.counts() == {}
    (place.work / "cmdorc.toml").write_text(f"{TOML}[telemetry]\nlevle = 1\n")
    assert place(sys.executable, program, "path") == (0, "", ""), "and the terminal is the program's"
    assert place.counts() == {}


# -- the program is what it was --------------------------------------------------------------------------------------

LOOK = """
import json, os, sys, __main__
def seen():
    return {
        "argv": sys.argv, "path": sys.path, "environ": {k: v for k, v in os.environ.items() if k != "CMDORC_TELEMETRY"},
        "main": [__main__.__name__, getattr(__main__, "__file__", None), __main__.__spec__ and __main__.__spec__.name],
        "executable": sys.executable, "prefix": sys.prefix, "flags": list(sys.flags), "orig": sys.orig_argv,
        "modules": sorted(name for name in sys.modules if not name.startswith("coverage")),
        "importers": sorted(sys.path_importer_cache),
        "cwd": os.getcwd(), "fds": sorted(os.listdir("/proc/self/fd")), "parent": os.getppid(),
    }
"""


@pytest.mark.parametrize("before", [None, "/somewhere", "/some:/where"])
@pytest.mark.parametrize("way", ["file", "module", "code", "script", "env", "flags"])
def test_it_finds_itself_as_without(place: Any, way: str, before: str | None) -> None:
    place.script(LOOK + "print(json.dumps(seen()))", "look.py")
    code = LOOK + "print(json.dumps(seen()))"
    words: list[object] = {
        "file": [sys.executable, "look.py"],
        "module": [sys.executable, "-m", "look"],
        "code": [sys.executable, "-c", code],
        "script": [place.script(code, "script", shebang=f"#!{sys.executable}")],
        "env": [place.script(code, "script", shebang="#!/usr/bin/env -S python3 -u")],
        "flags": [sys.executable, "-OBX", "dev", "-W", "ignore", "look.py"],
    }[way]
    words += ["--help", "-x", "--", "", "ä b"]
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    extra = {"PATH": path} | ({} if before is None else {"PYTHONPATH": before})
    environ = {key: value for key, value in place.off.items() if not key.startswith("COVERAGE")} | extra
    plain = place(*words, plain=True, env=environ)
    off = place(*words, env=environ)
    on = place(*words, env={**environ, "CMDORC_TELEMETRY": "standard"})
    assert plain[0] == off[0] == on[0] == 0, on[2]
    assert plain[2] == off[2] == on[2]
    without, dull, watched = (json.loads(out) for _, out, _ in (plain, off, on))
    assert without == dull
    assert without == watched


@pytest.mark.parametrize("before", ["", ":", "/a:", ":/a::/b", "relative"])
def test_it_finds_the_path_as_without_whatever_that_was(place: Any, before: str) -> None:
    words = [sys.executable, "-c", "import os, sys; print(os.environ['PYTHONPATH'].split(','), sys.path)"]
    environ = {**place.on, "PYTHONPATH": before}
    plain = place(*words, plain=True, env=environ)
    assert plain[0] == 0
    assert place(*words, env=environ) == plain


def test_what_it_starts_is_not_recorded(place: Any) -> None:
    inner = place.script(ONE, "inner.py")
    code = f"""
import multiprocessing, os, subprocess, sys
def work():
    print(os.environ.get("PYTHONPATH"))
    exec(open({str(inner)!r}).read(), dict())
if __name__ == "__main__":
    subprocess.run([sys.executable, {str(inner)!r}], check=True)
    for how in ("spawn", "forkserver"):
        child = multiprocessing.get_context(how).Process(target=work)
        child.start()
        child.join()
    os.execv(sys.executable, [sys.executable, {str(inner)!r}])
"""
    assert place(sys.executable, place.script(code)) == (0, "None\nNone\n", "")
    assert place.counts() == {}


@pytest.mark.parametrize("code", [0, 1, 2, 77, 125, 127, 255])
@pytest.mark.parametrize("on", [True, False])
def test_its_exit_code_is_its_own(place: Any, code: int, on: bool) -> None:
    words = [sys.executable, "-c", f"import cmdorc, sys; sys.exit({code})"]
    assert place(*words, env=place.on if on else place.off) == (code, "", "")


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "SIGUSR1"])
@pytest.mark.parametrize("on", [True, False])
def test_signals_are_its_own(place: Any, number: str, on: bool) -> None:
    code = "import os, signal, cmdorc\nprint(os.getpid(), flush=True)\nsignal.pause()"
    running = place.begin(sys.executable, "-c", code, env=place.on if on else place.off)
    assert int(running.stdout.readline()) == running.pid, "it is the process that was started"
    running.send_signal(getattr(signal, number))
    _, err = running.communicate(timeout=30)
    assert running.returncode == -getattr(signal, number)
    assert ("KeyboardInterrupt" in err) == (number == "SIGINT")


def test_a_program_that_is_none_of_pythons_finds_its_signals_as_without(place: Any) -> None:
    words = ["grep", "SigIgn", "/proc/self/status"]
    plain = place(*words, plain=True)
    assert place(*words, env=place.off) == plain
    assert plain[0] == 0


def test_a_signal_that_it_blocks_waits_for_it(place: Any) -> None:
    code = (
        COMMANDS
        + """
import os, pathlib, signal, threading

def all_blocked():
    texts = [(path / "status").read_text() for path in pathlib.Path("/proc/self/task").iterdir()]
    masks = [int(text.partition("SigBlk:")[2].split()[0], 16) for text in texts]
    return all(mask >> signal.SIGTERM - 1 & 1 for mask in masks)

async def main():
    await run(cmdorc.CommandOrchestrator(config("A")), "A")
    while "telemetry" not in [thread.name for thread in threading.enumerate()]:
        await asyncio.sleep(0.01)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    while not all_blocked():
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    print(signal.sigwait({signal.SIGTERM}) == signal.SIGTERM)

asyncio.run(main())
"""
    )
    assert place(sys.executable, place.script(code)) == (0, "True\n", "")


def test_a_signal_that_was_ignored_stays_so(place: Any) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert place(sys.executable, "-c", code, preexec_fn=ignore) == (0, "True\n", "")


@pytest.mark.parametrize("on", [True, False])
def test_streams_that_are_closed_stay_so(place: Any, on: bool) -> None:
    environ = place.on if on else place.off
    bare = {key: value for key, value in environ.items() if not key.startswith("COVERAGE")}  # it opens files
    code = "import os, sys; os._exit(7 if [sys.stdin, sys.stdout, sys.stderr] == [None] * 3 else 1)"
    closed = f"exec {sys.executable} -m cmdorc_telemetry exec"
    words = ["bash", "-c", f'{closed} "$@" <&- >&- 2>&-', "bash"]
    assert place(*words, sys.executable, "-c", code, plain=True, env=bare) == (7, "", "")
    assert place(*words, "no-such-program", plain=True, env=bare) == (127, "", "")
    full = ["bash", "-c", f"{closed} no-such-program 2> /dev/full"]
    assert place(*full, plain=True, env=environ) == (127, "", "")


def test_a_reader_that_goes_ends_it_as_without(place: Any) -> None:
    program = place.script("import cmdorc\nwhile True: print('y' * 1000)")
    shell = f'"$@" {sys.executable} {program} 2> errors | head -c 5; exit ${{PIPESTATUS[0]}}'
    plain = place("bash", "-c", shell, "bash", plain=True)
    said = (place.work / "errors").read_text()
    assert "BrokenPipeError" in said
    words = ["bash", "-c", shell, "bash", sys.executable, "-m", "cmdorc_telemetry", "exec"]
    assert place(*words, plain=True) == plain
    assert (place.work / "errors").read_text() == said


def test_standard_input_is_its_own(place: Any) -> None:
    running = place.begin(sys.executable, "-c", "import sys, cmdorc; print(sys.stdin.read()[::-1])")
    assert running.communicate("abc", timeout=30)[0] == "cba\n"


# -- switched off ----------------------------------------------------------------------------------------------------


def test_off_leaves_no_trace(place: Any) -> None:
    code = ONE + "import sys; print([name for name in sys.modules if 'telemetry' in name])"
    assert place(sys.executable, place.script(code), env=place.off) == (0, "[]\n", "")
    assert place(sys.executable, place.script(code), env={**place.on, "DO_NOT_TRACK": "1"}) == (0, "[]\n", "")
    assert not place.home.root.exists()


@pytest.mark.parametrize("telemetry", [True, False, None, "operator"])
def test_the_home_of_a_person_is_looked_at(place: Any, telemetry: Any) -> None:
    """Nothing but a directory says whether anybody ever decided: where there is none, that is all that is done."""
    folder = place.home.root.parent
    environ = {key: value for key, value in place.off.items() if key not in ("CMDORC_HOME", "COVERAGE_PROCESS_START")}
    environ["HOME"] = str(folder)
    place.home = Home(folder / ".cmdorc")
    if telemetry == "operator":
        environ["CMDORC_TELEMETRY"] = "standard"
    elif telemetry is not None:
        agree(place.home)
    if telemetry is False:
        save_decision(place.home, {CORE_SPEC: Grant()})
    words = [sys.executable, "-X", "importtime", "-m", "cmdorc_telemetry", "exec"]
    code, out, err = place(*words, sys.executable, place.script(ONE + "print('ran')"), plain=True, env=environ)
    assert (code, out) == (0, "ran\n")
    assert ("cmdorc_telemetry.situation" in err) == (telemetry is not None)
    assert place("true", env=environ)[0] == (125 if telemetry else 0)
    place.on = {**environ, "CMDORC_HOME": str(place.home.root)}
    assert place.counts() == (WHOLE if telemetry else {})


def test_a_home_that_cannot_be_looked_at_is_told(place: Any) -> None:
    environ = {key: value for key, value in place.off.items() if key != "CMDORC_HOME"} | {"HOME": f"/{'x' * 300}"}
    code, out, err = place(sys.executable, "-c", "print('ran')", env=environ)
    assert (code, out, err[:9], err.count("\n")) == (0, "ran\n", "warning: ", 1)


def test_a_program_that_uses_no_cmdorc_imports_nothing_of_ours(place: Any) -> None:
    code = "import sys; print([name for name in sys.modules if 'telemetry' in name])"
    assert place(sys.executable, "-c", code) == (0, "[]\n", "")
    assert not place.home.root.exists()


def test_whatever_is_wrong_with_the_configuration_the_program_runs(place: Any) -> None:
    place.home.root.mkdir()
    place.home.config.write_text("[telemetry\n")
    code, out, err = place(sys.executable, place.script(ONE + "print('ran')"))
    assert (code, out) == (0, "ran\n")
    assert err.startswith(f"warning: telemetry is off: {place.home.config}: is not valid TOML")
    place.home.config.unlink()
    place.home.telemetry.mkdir()
    place.home.consent.write_text("nonsense = [")
    code, out, err = place(sys.executable, place.script(ONE + "print('ran')"))
    assert (code, out, err[:9], err.count("\n")) == (0, "ran\n", "warning: ", 1)


def test_plugins_that_only_listen_hear_of_it_while_telemetry_is_off(place: Any) -> None:
    place.home.root.mkdir()
    place.home.config.write_text("[telemetry]\nplugins = ['bell']\n")
    info = place.work / "bell-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bell\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cmdorc_telemetry]\nbell = bell\n")
    place.script(
        "from cmdorc_telemetry import hookimpl\n@hookimpl\ndef cmdorc_completed(run): print(run.command_name)",
        "bell.py",
    )
    assert place(sys.executable, place.script(ONE), env={**place.off, "PYTHONPATH": str(place.work)}) == (0, "A\n", "")


def test_a_terminal_stays_the_programs(place: Any) -> None:
    """What telemetry would warn of is not printed there: a plugin that is missing, for example."""
    place.home.root.mkdir()
    place.home.config.write_text("[telemetry]\nplugins = ['nothing-of-that-name']\n")
    assert place(sys.executable, place.script(ONE)) == (0, "", "")
    own = "import logging\nlogging.basicConfig(level='WARNING')\n"
    assert place(sys.executable, place.script(own + ONE)) == (0, "", ""), "nor by what the program logs with"
    assert place.counts() == dict.fromkeys(WHOLE, 2)
    asks = "from cmdorc_telemetry import instrument\ninstrument(cmdorc.CommandOrchestrator(config('B')), plugins=[1])\n"
    code, _, err = place(sys.executable, place.script(own + ONE + asks))
    assert (code, "WARNING:cmdorc_telemetry:plugin 'int'" in err) == (0, True), "a program that asks is told"


def test_job_control_is_the_shells(place: Any) -> None:
    code = """
import os, signal
print(os.getpgrp() == os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("on")
"""
    running = place.begin(sys.executable, "-c", code, start_new_session=True)
    assert running.stdout.readline() == "True\n"
    _, status = os.waitpid(running.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    running.send_signal(signal.SIGCONT)
    assert running.communicate(timeout=30) == ("on\n", "")


def test_help_is_of_exec_before_the_program_and_of_the_program_after_it(place: Any) -> None:
    code, out, _ = place("--help")
    assert (code, "takes the place of this command" in out) == (0, True)
    assert place("--", sys.executable, "-c", "import sys; print(sys.argv)", "--help") == (0, "['-c', '--help']\n", "")
    assert place()[0] == 2
