"""``exec``: what starts a program is read, and where nothing of it could be recorded, one line says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import OURS, having
from .sources import ONE, WHOLE

# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [["-I"], ["-E"], ["-S"], ["-uE"], ["-X", "dev", "-W", "ignore", "-sE"], ["--check-hash-based-pycs", "never", "-I"]],
)
def test_a_python_that_takes_nothing_from_the_environment(place: Any, options: list[str]) -> None:
    code, out, err = place(sys.executable, *options, "-c", "print('ran')")
    assert (code, out) == (125, "")
    assert err.startswith(f"error: {sys.executable} cannot be instrumented: its Python ")
    assert place(sys.executable, *options, "-c", "print('ran')", env=place.off) == (0, "ran\n", ""), "off: as typed"
    script = place.script("print('ran')", "deaf", shebang=f"#!{sys.executable} {options[-1]}")
    assert place(script)[0] == 125
    assert place(script, env=place.off)[:2] == (0, "ran\n")


def test_letters_of_the_program_are_not_pythons(place: Any) -> None:
    place.script("print(1)", "look.py")
    for words in (
        ["-cprint(1)", "-I"],
        ["-Wignore", "-c", "print(1)", "-E"],
        ["--check-hash-based-pycs", "never", "-c", "print(1)"],
        ["-Bmlook", "-E"],
        ["-m", "look", "-S"],
        ["look.py", "-S"],
    ):
        assert place(sys.executable, *words) == (0, "1\n", "")
    assert place(sys.executable, "-", "-I") == (0, "", ""), "an empty standard input"


@pytest.mark.parametrize("on", [True, False])
def test_what_is_not_there_and_what_cannot_be_executed(place: Any, on: bool) -> None:
    environ = place.on if on else place.off
    assert place("no-such-program", env=environ) == (127, "", "error: no-such-program: no such program\n")
    assert place("./no\nsuch", env=environ) == (127, "", "error: ./no such: no such program\n"), "one line"
    assert place("", env=environ)[0] == 127
    (place.work / "folder").mkdir()
    assert place("./folder", env=environ) == (126, "", "error: ./folder: Permission denied\n")
    place.script("", "lost", shebang="#!/nowhere/bin/python3")
    assert place("./lost", env=environ)[0] == 127
    place.script("", "plain")
    assert place("./plain", env=environ) == (126, "", "error: ./plain: Permission denied\n")
    here = {**environ, "PATH": f"{place.work}:{environ['PATH']}"}
    for name in ("plain", "folder"):
        assert place(name, env=here) == (127, "", f"error: {name}: no such program\n"), "not in this directory"
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


def test_an_environment_without_us_says_what_to_do(place: Any, elsewhere: Path) -> None:
    code, out, err = place(elsewhere, "-c", "print('ran')")
    assert (code, out) == (125, "")
    install = f"uv pip install --python {elsewhere} 'cmdorc-telemetry[cmdorc]'"
    assert err == f"error: {elsewhere} has no cmdorc_telemetry; install it there: {install}\n", "nor has it pip"
    (place.work / "pip").mkdir()
    with having(elsewhere, place.work):
        _, _, err = place(elsewhere, "-c", "print('ran')")
    assert err.endswith(f"install it there: {elsewhere} -m pip install 'cmdorc-telemetry[cmdorc]'\n")
    assert place(elsewhere, "-c", "print('ran')", env=place.off) == (0, "ran\n", "")


def test_an_environment_with_an_old_one_says_what_to_do(place: Any, elsewhere: Path) -> None:
    (place.work / "old" / "cmdorc_telemetry").mkdir(parents=True)
    (place.work / "old" / "pip").mkdir(parents=True)
    place.script("", "old/cmdorc_telemetry/__init__.py")
    with having(elsewhere, place.work / "old"):
        _, _, err = place(elsewhere, "-c", "1")
    assert err.endswith(f"is too old for this; upgrade it: {elsewhere} -m pip install --upgrade cmdorc-telemetry\n")


def test_another_environment_with_us_is_its_own(place: Any, elsewhere: Path) -> None:
    with having(elsewhere, *OURS):
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
    (place.work / "elsewhere").mkdir()
    (place.work / "elsewhere" / "link").symlink_to(script)
    assert place("elsewhere/link", env=environ) == (0, "[]\n", "")
    assert place.counts() == dict.fromkeys(WHOLE, 2)


def test_a_python_file_that_is_not_executable_is_run_by_this_python(place: Any) -> None:
    place.script(ONE + "import sys; print(sys.argv)")
    assert place("program.py", "-x") == (0, "['program.py', '-x']\n", "")
    (place.work / "program.py").chmod(0o755)
    assert place("./program.py") == (0, "['./program.py']\n", ""), "without a first line of its own"
    assert place.counts() == dict.fromkeys(WHOLE, 2)


def test_env_with_variables_in_the_first_line(place: Any) -> None:
    environ = {**place.on, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    for options in ("-S A=1 python3 -B", "-Spython3 -B", "--split-string=python3 -B"):
        script = place.script(ONE, "program", shebang=f"#!/usr/bin/env {options}")
        assert place(script, env=environ) == (0, "", "")
    assert place.counts() == dict.fromkeys(WHOLE, 3)
    assert "is a script for nobody" in place(place.script("", "bare", shebang="#!/usr/bin/env"), env=environ)[2]


def test_first_lines_are_read_as_the_kernel_reads_them(place: Any) -> None:
    folder = place.work / "o'neil"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    environ = {**place.on, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert place(place.script(ONE, "program", shebang=f"#! {folder}/python  -B "), env=environ) == (0, "", "")
    assert place.counts() == WHOLE


@pytest.mark.parametrize("line", ["'''exec' ", "'''exec' '/bin/python", 'exec python "$0"', ""])
def test_scripts_for_sh_that_are_none_of_pythons(place: Any, line: str) -> None:
    script = place.script(line, "shell", shebang="#!/bin/sh")
    assert place(script) == (
        125, "", f"error: {script} is a script for sh, no Python program: name the program that it starts\n"
    )  # fmt: skip


def test_options_behind_the_python_of_a_script_for_sh(place: Any) -> None:
    script = place.script(f"'''exec' {sys.executable} -sE \"$0\" \"$@\"\n' '''\n", "deaf", shebang="#!/bin/sh")
    assert place(script) == (
        125,
        "",
        f"error: {script} cannot be instrumented: its Python ignores the environment (-E)\n",
    )


@pytest.mark.parametrize("option", ["-i", "-", "--ignore-environment"])
def test_an_env_that_hands_nothing_on(place: Any, option: str) -> None:
    script = place.script("", "empty", shebang=f"#!/usr/bin/env -S {option} {sys.executable}")
    told = f"error: {script} cannot be instrumented: its first line empties the environment\n"
    assert place(script) == (125, "", told)


def test_an_env_with_options_that_have_a_value(place: Any) -> None:
    environ = {**place.on, "NONE_OF_IT": "1"}
    line = f"#!/usr/bin/env -S -u NONE_OF_IT -C {place.work} {sys.executable}"
    script = place.script(ONE + "import os; print('NONE_OF_IT' in os.environ)", "program", shebang=line)
    assert place(script, env=environ) == (0, "False\n", "")
    assert place.counts() == WHOLE
    lost = place.script("", "lost", shebang="#!/usr/bin/env -S 'never ends")
    assert "is a script for nobody" in place(lost)[2]


def test_another_environment_may_say_something_when_it_starts(place: Any, elsewhere: Path) -> None:
    with having(elsewhere, *OURS, "import sys; sys.stdout.write('noise')"):
        plain = place(elsewhere, place.script(ONE), plain=True)
        assert "noise" in plain[1]
        assert place(elsewhere, place.script(ONE)) == plain
    assert place.counts() == WHOLE


def test_what_lies_in_this_directory_is_not_what_another_environment_has(place: Any, elsewhere: Path) -> None:
    (place.work / "cmdorc_telemetry" / "preload").mkdir(parents=True)
    place.script("", "cmdorc_telemetry/__init__.py")
    program = Path(sys.executable).with_name("cmdorc-telemetry")  # -m would find it, too
    code, _, err = place(program, "exec", elsewhere, "-c", "1", plain=True)
    assert (code, f"{elsewhere} has no cmdorc_telemetry" in err) == (125, True)
