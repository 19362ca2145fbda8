"""``exec``: everything that a program does with cmdorc is recorded, and the program is the one that it was."""

from __future__ import annotations

import json
import os
import signal
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cmdorc
import msgspec
import pluggy
import pytest

import cmdorc_telemetry

COMMANDS = """
import asyncio, cmdorc

def config(name):
    return cmdorc.RunnerConfig(commands=[cmdorc.CommandConfig(name=name, command="true", triggers=["go"])])

async def run(orchestrator, name):
    await (await orchestrator.run_command(name)).wait()
"""
"""What programs here begin with."""
ONE = COMMANDS + "asyncio.run(run(cmdorc.CommandOrchestrator(config('A')), 'A'))\n"
STARTED, STOPPED = "orchestrator_started", "orchestrator_stopped"
WHOLE = {STARTED: 1, "A": 1, STOPPED: 1}
"""What one orchestrator with one run is."""


# -- whichever orchestrators it makes --------------------------------------------------------------------------------


def test_a_program_is_recorded(place: Any) -> None:
    assert place(sys.executable, place.script(ONE)) == (0, "", "")
    assert place.counts() == WHOLE


@pytest.mark.parametrize(
    "begin",
    [
        "import cmdorc; Orchestrator = cmdorc.CommandOrchestrator",
        "from cmdorc import CommandOrchestrator as Orchestrator",
        "from cmdorc.command_orchestrator import CommandOrchestrator as Orchestrator",
        "import importlib; Orchestrator = importlib.import_module('cmdorc').CommandOrchestrator",
    ],
)
def test_however_it_comes_by_the_class(place: Any, begin: str) -> None:
    code = COMMANDS.replace("import asyncio, cmdorc", f"{begin}\nimport asyncio, cmdorc")
    assert place(sys.executable, place.script(f"{code}\nasyncio.run(run(Orchestrator(config('A')), 'A'))")) == (
        0,
        "",
        "",
    )
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

async def main():
    made = [cmdorc.CommandOrchestrator(config("A")), cmdorc.CommandOrchestrator(runner_config=config("B")), Late("C"),
            Later(), Plain(config("E")), TelemetryOrchestrator(config("F"))]
    for orchestrator, name in zip(made, "ABCDEF", strict=True):
        await run(orchestrator, name)
    for orchestrator in made:
        await orchestrator.shutdown()

asyncio.run(main())
"""


def test_every_orchestrator_of_a_process_is_recorded_once(place: Any) -> None:
    assert place(sys.executable, place.script(COMMANDS + SEVERAL)) == (0, "", "")
    assert place.counts() == {STARTED: 6, STOPPED: 6, **dict.fromkeys("ABCDEF", 1)}


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
import dataclasses, pathlib, sys
ways = {
    "path": lambda: cmdorc.load_config("cmdorc.toml"),
    "file": lambda: cmdorc.load_config(open("cmdorc.toml", "rb")),
    "two": lambda: cmdorc.load_configs(["other.toml", pathlib.Path("cmdorc.toml")]),
    "changed": lambda: dataclasses.replace(cmdorc.load_config("cmdorc.toml"), vars={"a": "b"}),
}
asyncio.run(run(cmdorc.CommandOrchestrator(ways[sys.argv[1]]()), "A"))
"""
)


@pytest.mark.parametrize("way", ["path", "file", "two", "changed"])
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


def test_what_it_starts_is_not_recorded(place: Any) -> None:
    inner = place.script(ONE, "inner.py")
    code = f"""
import multiprocessing, os, subprocess, sys
def work():
    print(os.environ.get("PYTHONPATH"))
    exec(open({str(inner)!r}).read(), dict())
if __name__ == "__main__":
    subprocess.run([sys.executable, {str(inner)!r}], check=True)
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
"""
    assert place(sys.executable, place.script(code)) == (0, "None\n", "")
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


def test_a_signal_that_was_ignored_stays_so(place: Any) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert place(sys.executable, "-c", code, preexec_fn=ignore) == (0, "True\n", "")


def test_standard_input_is_its_own(place: Any) -> None:
    running = place.begin(sys.executable, "-c", "import sys, cmdorc; print(sys.stdin.read()[::-1])")
    assert running.communicate("abc", timeout=30)[0] == "cba\n"


SITE = "import os, sys\nos.environ['OWN_SITE'] = __name__ + ' ' + os.path.dirname(__file__)\n"


def test_the_sitecustomize_of_the_environment_is_imported_too(place: Any) -> None:
    place.script(SITE, "sitecustomize.py")
    code = COMMANDS + "import os, sys\nprint(os.environ['OWN_SITE'], sys.modules['sitecustomize'].__file__)\n" + ONE
    environ = {**place.on, "PYTHONPATH": str(place.work)}
    done = place(sys.executable, place.script(code), env=environ)
    assert done == (0, f"sitecustomize {place.work} {place.work}/sitecustomize.py\n", "")
    assert place.counts() == WHOLE


def test_a_sitecustomize_that_fails_says_so_as_without(place: Any) -> None:
    place.script("1 / 0", "sitecustomize.py")
    words, environ = [sys.executable, "-c", "print(1)"], {**place.on, "PYTHONPATH": str(place.work)}
    plain = place(*words, plain=True, env=environ)
    assert "Error in sitecustomize" in plain[2]
    assert place(*words, env=environ) == (*plain[:2], plain[2] * 2), "exec itself, and the program"


def test_an_import_of_cmdorc_that_fails_says_so_as_without(place: Any) -> None:
    (place.work / "cmdorc").mkdir()
    place.script("raise ValueError('not today')", "cmdorc/__init__.py")
    words = [sys.executable, "-c", "import cmdorc"]
    plain = place(*words, plain=True)
    assert "ValueError: not today" in plain[2]
    code, out, err = place(*words)
    assert (code, out, err.splitlines()[-1]) == (1, "", "ValueError: not today")
    place.script("__version__ = '99'", "cmdorc/__init__.py")  # one of another shape
    assert place(*words) == (0, "", "")
    (place.work / "cmdorc" / "__init__.py").unlink()
    assert place(*words) == (0, "", ""), "a folder without a file is a package too"


def test_a_cmdorc_that_is_not_there_is_missed_as_without(place: Any) -> None:
    code = "import sys; sys.path[:] = []\ntry:\n import cmdorc\nexcept ImportError as fault: print(fault)"
    assert place(sys.executable, "-c", code) == (0, "No module named 'cmdorc'\n", "")


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-I"], ["-E"], ["-S"], ["-uE"], ["-X", "dev", "-W", "ignore", "-sE"]])
def test_a_python_that_takes_nothing_from_the_environment(place: Any, options: list[str]) -> None:
    code, out, err = place(sys.executable, *options, "-c", "print('ran')")
    assert (code, out) == (125, "")
    assert err.startswith(f"error: {sys.executable} cannot be instrumented: its Python ")
    assert place(sys.executable, *options, "-c", "print('ran')", env=place.off) == (0, "ran\n", ""), "off: as typed"
    script = place.script("print('ran')", "deaf", shebang=f"#!{sys.executable} {options[-1]}")
    assert place(script)[0] == 125
    assert place(script, env=place.off)[:2] == (0, "ran\n")


def test_letters_of_the_program_are_not_pythons(place: Any) -> None:
    for words in (
        ["-cprint(1)", "-I"],
        ["-Wignore", "-c", "print(1)", "-E"],
        ["--check-hash-based-pycs", "never", "-c", "print(1)"],
    ):
        assert place(sys.executable, *words) == (0, "1\n", "")


@pytest.mark.parametrize("on", [True, False])
def test_what_is_not_there_and_what_cannot_be_executed(place: Any, on: bool) -> None:
    environ = place.on if on else place.off
    assert place("no-such-program", env=environ) == (127, "", "error: no-such-program: no such program\n")
    place.script("", "plain")
    assert place("./plain", env=environ) == (126, "", "error: ./plain: Permission denied\n")
    assert place("./none", env=environ)[0] == 127
    place.script("", "bare").chmod(0o755)  # the kernel does not know what to do with it
    assert place("./bare", env=environ)[0] == (125 if on else 126)


def test_programs_that_are_not_pythons(place: Any) -> None:
    code, out, err = place("true")
    assert (code, out) == (125, "")
    assert err == "error: true is no Python program, so nothing in it can be instrumented\n"
    assert place("true", env=place.off) == (0, "", "")
    script = place.script("exec python3 -c ''", "shell", shebang="#!/bin/sh")
    assert "is a script for sh, no Python program: name the program that it starts" in place(script)[2]
    assert "is a script for nobody" in place(place.script("", "nobody", shebang="#!"))[2]
    lost = place.script("", "lost", shebang="#!/nowhere/bin/python3")
    assert place(lost) == (127, "", f"error: {lost}: /nowhere/bin/python3: no such program\n")


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment, with nothing in it: its Python."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def test_an_environment_without_us_says_what_to_do(place: Any, elsewhere: Path) -> None:
    code, out, err = place(elsewhere, "-c", "print('ran')")
    assert (code, out) == (125, "")
    assert err == (
        f"error: {elsewhere} has no cmdorc_telemetry; install it there: "
        f"{elsewhere} -m pip install 'cmdorc-telemetry[cmdorc]'\n"
    )
    assert place(elsewhere, "-c", "print('ran')", env=place.off) == (0, "ran\n", "")


@contextmanager
def having(python: Path, *folders: object) -> Iterator[None]:
    """Let an environment have what is in these folders."""
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages" / "having.pth"
    site.write_text("\n".join(map(str, folders)))
    yield
    site.unlink()


def test_an_environment_with_an_old_one_says_what_to_do(place: Any, elsewhere: Path) -> None:
    (place.work / "old" / "cmdorc_telemetry").mkdir(parents=True)
    place.script("", "old/cmdorc_telemetry/__init__.py")
    with having(elsewhere, place.work / "old"):
        _, _, err = place(elsewhere, "-c", "1")
    assert err.endswith(f"is too old for this; upgrade it: {elsewhere} -m pip install --upgrade cmdorc-telemetry\n")


def test_another_environment_with_us_is_its_own(place: Any, elsewhere: Path) -> None:
    modules = (cmdorc, cmdorc_telemetry, msgspec, pluggy)
    with having(elsewhere, *(Path(str(module.__file__)).parents[1] for module in modules)):
        program = place.script(ONE + "import sys; print(sys.prefix)")
        assert place(elsewhere, program) == (0, f"{elsewhere.parents[1]}\n", "")
    assert place.counts() == WHOLE


def test_a_python_that_cannot_be_asked(place: Any) -> None:
    broken = place.work / "python3"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    assert "cannot be asked what it has" in place(broken, "-c", "1")[2]


# -- launchers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "second",
    [
        "'''exec' {python} \"$0\" \"$@\"",
        '\'\'\'exec\' "{python}" "$0" "$@"',
        '\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")"/\'python\' "$0" "$@"',
    ],
    ids=["pip", "quoted", "uv"],
)
def test_scripts_that_begin_as_one_for_sh(place: Any, second: str) -> None:
    (place.work / "python").symlink_to(sys.executable)
    second = second.format(python=sys.executable)
    code = f"{second}\n' '''\n{ONE}import sys; print(sys.argv[1:])"
    script = place.script(code, "program", shebang="#!/bin/sh")
    environ = {**place.on, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert place(script, "a b", env=environ) == (0, "['a b']\n", "")
    assert place.counts() == WHOLE


def test_a_python_file_that_is_not_executable_is_run_by_this_python(place: Any) -> None:
    place.script(ONE + "import sys; print(sys.argv)")
    assert place("program.py", "-x") == (0, "['program.py', '-x']\n", "")
    (place.work / "program.py").chmod(0o755)
    assert place("./program.py") == (0, "['./program.py']\n", ""), "without a first line of its own"
    assert place.counts() == dict.fromkeys(WHOLE, 2)


def test_env_with_variables_in_the_first_line(place: Any) -> None:
    environ = {**place.on, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    script = place.script(ONE, "program", shebang="#!/usr/bin/env -S A=1 python3 -B")
    assert place(script, env=environ) == (0, "", "")
    assert place.counts() == WHOLE
    assert "is a script for nobody" in place(place.script("", "bare", shebang="#!/usr/bin/env"), env=environ)[2]


# -- switched off ----------------------------------------------------------------------------------------------------


def test_off_leaves_no_trace(place: Any) -> None:
    code = ONE + "import sys; print([name for name in sys.modules if 'telemetry' in name])"
    assert place(sys.executable, place.script(code), env=place.off) == (0, "[]\n", "")
    assert place(sys.executable, place.script(code), env={**place.on, "DO_NOT_TRACK": "1"}) == (0, "[]\n", "")
    assert not place.home.root.exists()


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
    """What telemetry would warn of is not printed there: a plugin that is missing, a home that cannot be used."""
    place.home.root.mkdir()
    place.home.config.write_text("[telemetry]\nplugins = ['nothing-of-that-name']\n")
    assert place(sys.executable, place.script(ONE)) == (0, "", "")
    assert place.counts() == WHOLE


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
