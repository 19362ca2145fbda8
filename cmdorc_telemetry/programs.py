"""Runs a program that knows nothing of telemetry, and has ``preload`` put into it: what ``exec`` does outside of it.

Owns the reading of launchers, to know which Python runs a program: ``#!`` lines, pip's and uv's scripts for long paths,
the options of Python itself. That Python is asked what it has where it is another one than ours. While telemetry is
off, none of this is done, and nothing imported for it: people wait for their program. Where nobody ever decided
anything, not even what ``typing`` takes is spent.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from .errors import TelemetryError

TYPE_CHECKING = False  # typing takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit codes, those of env, nohup and timeout."""
PRELOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload")
_HEAD_BYTES = 4096
"""Bytes of a file that tell what it is."""
_PYTHON = r"(python|pypy)(\d+(\.\d+)*t?d?)?(\.exe)?"
_VALUED = "cmWX"
"""Options of Python that the rest of their word, or the next one, is the value of."""
_DEAF = {"E": "ignores the environment", "I": "is isolated", "S": "does not import site"}
"""Options with which Python imports nothing of ours."""
_EMPTYING = frozenset({"-", "-i", "--ignore-environment"})
"""Options with which ``env`` hands on nothing of ours."""
_ASK = """
import sys
sys.path[:] = filter(None, sys.path)  # what is installed, not what lies in this directory
import importlib.util, os
spec, pip = map(importlib.util.find_spec, ("cmdorc_telemetry", "pip"))
print()  # whatever was printed before
print(os.path.dirname(spec.origin) if spec and spec.origin else "")
print("pip" if pip else "")
"""
_ASK_SECONDS = 20.0


def run(words: Sequence[str]) -> NoReturn:
    """Replace this process by the program that ``words`` start, or end it."""
    try:
        program, environ = find(words, os.environ), dict(os.environ)
        if _wanted():
            environ = program.injected(environ)
        program.become(environ)
    except ProgramError as fault:
        _say(f"error: {fault}")
        sys.exit(fault.code)


def _wanted() -> bool:
    """Whether anything would hear of what the program does."""
    if _untouched(os.environ):
        return False
    from .situation import Situation

    try:
        situation = Situation.read()
        policy = situation.policy()
    except TelemetryError as fault:
        _say(f"warning: telemetry is off: {fault}")
        return False
    if policy.trouble:
        _say(f"warning: {policy.trouble}")
    return policy.record or bool(situation.user.plugins)


def _untouched(environ: Mapping[str, str]) -> bool:
    """Whether nobody ever decided or configured anything: there is no home, and no variable of ours."""
    if any(name.startswith("CMDORC_") for name in environ):
        return False
    try:
        os.lstat(os.path.expanduser("~/.cmdorc"))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it is there, but cannot be looked at
        return False
    return False


def _say(text: str) -> None:
    from .wording import clean

    try:
        sys.stderr.write(f"{clean(text)}\n")
    except (AttributeError, OSError):  # closed, or full
        return


class ProgramError(TelemetryError):
    """A program that cannot be started, or cannot be instrumented. ``code`` is the exit code that says so."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


class Program:
    """A file that can be started, and the words that it is started with."""

    def __init__(self, path: str, words: Sequence[str]) -> None:
        self.path, self.words = path, words

    def injected(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables with which it instruments what it makes. Raises ProgramError where it would not."""
        interpreter, options = _interpreter(self, environ)
        deaf = next((sign for sign in options if sign in _DEAF), None)
        if deaf is not None:
            raise ProgramError(f"{self.words[0]} cannot be instrumented: its Python {_DEAF[deaf]} (-{deaf})")
        folder = PRELOAD if _is_ours(interpreter) else _asked(interpreter, environ)
        paths = [folder]
        if "PYTHONPATH" in environ:
            paths.append(environ["PYTHONPATH"] or folder)  # twice: it was there, and empty
        return {**environ, "PYTHONPATH": os.pathsep.join(paths)}

    def become(self, environ: Mapping[str, str]) -> NoReturn:
        """Take the place of this process. Raises ProgramError."""
        ignored = {signal.Signals.__members__.get(name) for name in ("SIGPIPE", "SIGXFSZ")}
        for each in filter(None, ignored):  # by Python, and what it starts would ignore them, too
            signal.signal(each, signal.SIG_DFL)
        try:
            os.execve(self.path, [*self.words], environ)  # noqa: S606 - what the user typed
        except OSError as fault:
            lost = isinstance(fault, FileNotFoundError)  # what its first line names is not there
            raise ProgramError(f"{self.path}: {fault.strerror}", NOT_FOUND if lost else NOT_EXECUTABLE) from None


def find(words: Sequence[str], environ: Mapping[str, str]) -> Program:
    """What ``words`` start: as a shell would find it, or a Python file. Raises ProgramError."""
    name = words[0]
    found = _which(name, environ)
    if found and not (found.endswith(".py") and _head(found) != b"#!"):
        return Program(found, words)
    if name.endswith(".py") and os.path.isfile(name):
        return Program(sys.executable, [sys.executable, *words])
    if os.path.dirname(name) and os.path.exists(name):
        raise ProgramError(f"{name}: {os.strerror(errno.EACCES)}", NOT_EXECUTABLE)
    raise ProgramError(f"{name}: no such program", NOT_FOUND)


def _which(name: str, environ: Mapping[str, str]) -> str:
    """The file that ``name`` starts; empty where there is none."""
    folders = [""] if os.path.dirname(name) else os.get_exec_path(environ)
    for path in (os.path.join(folder, name) for folder in folders):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _interpreter(program: Program, environ: Mapping[str, str]) -> tuple[str, str]:
    """The Python that runs ``program``, and the letters of its options. Raises ProgramError."""
    if _is_python(program.path):
        return program.path, _letters(program.words[1:])
    first, _, rest = _head(program.path, _HEAD_BYTES).partition(b"\n")
    if first[:2] != b"#!":
        raise ProgramError(f"{program.words[0]} is no Python program, so nothing in it can be instrumented")
    runs, *options = os.fsdecode(first[2:]).split(maxsplit=1) or [""]  # as the kernel does
    if os.path.basename(runs) == "env":
        runs, *options = _behind_env(program, options)
    elif packed := _packed(os.fsdecode(rest.partition(b"\n")[0]), program.path):
        runs, *options = packed
    if not _is_python(runs):
        raise ProgramError(
            f"{program.words[0]} is a script for {os.path.basename(runs) or 'nobody'}, no Python program: name the "
            "program that it starts"
        )
    found = _which(runs, environ)
    if not found:
        raise ProgramError(f"{program.words[0]}: {runs}: no such program", NOT_FOUND)
    return found, _letters(options)


def _head(path: str, size: int = 2) -> bytes:
    """What a file begins with; nothing where it cannot be read: then it is a program of another kind."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _is_python(path: str) -> bool:
    import re

    return re.fullmatch(_PYTHON, os.path.basename(path)) is not None


def _split(text: str) -> list[str]:
    """The words of a line, as a shell has them; none where a quote never ends."""
    from shlex import split

    try:
        return split(text)
    except ValueError:
        return []


def _behind_env(program: Program, options: Sequence[str]) -> list[str]:
    """The program that ``env`` starts, and its options. Raises ProgramError."""
    words = [word for each in options for word in _split(each.removeprefix("-S").removeprefix("--split-string="))]
    while words and (words[0].startswith("-") or "=" in words[0]):
        word = words.pop(0)
        if word in _EMPTYING:
            raise ProgramError(f"{program.words[0]} cannot be instrumented: its first line empties the environment")
        if word in ("-u", "-C"):
            del words[:1]
    return words or [""]


def _packed(line: str, path: str) -> list[str]:
    """The Python, and its options, of a script for ``sh`` that it reads as a string: pip, and uv, make one where a path
    is long.

    Empty for any other script.
    """
    import re

    if not line.startswith("'''exec' "):
        return []
    beside = re.search(r"""\$0"\)"\)"/'?([\w.]+)'?""", line)  # a script of uv's that can be moved
    if beside is not None:
        return [os.path.join(os.path.dirname(os.path.realpath(path)), beside[1])]
    return _split(line.removeprefix("'''exec' "))


def _letters(words: Sequence[str]) -> str:
    """The letters of the options that Python is started with, up to what it is to run."""
    letters, rest = "", iter(words)
    for word in rest:
        if word == "--check-hash-based-pycs":
            next(rest, None)
        if word.startswith("--"):
            continue
        if not word.startswith("-") or word == "-":
            break
        for place, letter in enumerate(word[1:], 2):
            if letter in _VALUED:
                if letter in "cm":
                    return letters
                if not word[place:]:
                    next(rest, None)
                break
            letters += letter
    return letters


def _is_ours(interpreter: str) -> bool:
    """Whether it is the Python that runs here, of the same environment."""
    mine = sys.executable
    try:
        return os.path.samefile(interpreter, mine) and os.path.samefile(
            os.path.dirname(interpreter), os.path.dirname(mine)
        )
    except OSError:
        return False


def _asked(interpreter: str, environ: Mapping[str, str]) -> str:
    """What another Python has to inject. Raises ProgramError where it has nothing."""
    import subprocess

    try:
        said = subprocess.run(  # noqa: S603 - the Python of what the user named
            [interpreter, "-c", _ASK], env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_ASK_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as fault:
        raise ProgramError(f"{interpreter} cannot be asked what it has: {fault}") from None
    package, pip = ["", "", *said.stdout.splitlines()][-2:]
    from shlex import quote

    python = quote(interpreter)  # an environment that uv made has no pip
    install = f"{python} -m pip install" if pip else f"uv pip install --python {python}"
    if not package:
        raise ProgramError(
            f"{interpreter} has no cmdorc_telemetry; install it there: {install} 'cmdorc-telemetry[cmdorc]'"
        )
    folder = os.path.join(package, os.path.basename(PRELOAD))
    if not os.path.isdir(folder):
        raise ProgramError(
            f"the cmdorc_telemetry of {interpreter} is too old for this; upgrade it: {install} --upgrade "
            "cmdorc-telemetry"
        )
    return folder
