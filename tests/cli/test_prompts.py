"""Questions: asked of a person alone, and once; without an answer everything stays as it was, byte for byte.

On terminals of the operating system, with processes of their own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import load_consent, save_decision

LOCAL = "Record on this machine only? [y/N] "
SHARE = "Record, and share this? [y/N] "
DEBUG = "This sends hashed command info — confirm? (expires in 30 days) [y/N] "
FIELD = "Share this field, too? [y/N] "
BOARD = "Share with board, too? [y/N] "
TO_BOARD = '[telemetry]\n[telemetry.to.board]\nplugin = "http"\nendpoint = "http://127.0.0.1:9/v1"\n'


class Question(NamedTuple):
    """One question of a command, and how to get there."""

    args: tuple[str, ...]
    question: str
    before: tuple[tuple[str, str], ...] = ()
    """The questions before it, and what is answered to them."""
    decided: bool = False
    """Whether somebody said yes before, and something was added since."""


QUESTIONS = {
    "opt-in, local": Question(("opt-in",), LOCAL),
    "opt-in --local": Question(("opt-in", "--local"), LOCAL),
    "opt-in, shared": Question(("opt-in",), SHARE, ((LOCAL, "n\n"),)),
    "opt-in --level": Question(("opt-in", "--level", "standard"), SHARE),
    "opt-in --debug": Question(("opt-in", "--debug"), DEBUG, ((SHARE, "y\n"),)),
    "opt-in --debug --yes": Question(("opt-in", "--level", "debug", "--yes"), DEBUG),
    "opt-in, again": Question(("opt-in", "--level", "minimal"), SHARE, decided=True),
    "review, field": Question(("review",), FIELD, decided=True),
    "review, destination": Question(("review",), BOARD, ((FIELD, "y\n"),), decided=True),
    "review, destination after a no": Question(("review",), BOARD, ((FIELD, "n\n"),), decided=True),
}


def prepare(machine, question: Question) -> dict[str, bytes]:
    """What is there before the command runs."""
    if question.decided:
        machine.opt_in("--level", "standard")
        consent = load_consent(machine.home)
        assert consent is not None
        grant = consent.grants[CORE_SPEC]
        fields = {name: text for name, text in grant.fields.items() if name != "command_completed/chain_depth"}
        save_decision(machine.home, {CORE_SPEC: grant._replace(fields=fields)})
        machine.record()
    machine.config(TO_BOARD)
    return machine.files()


def untouched(machine, before: dict[str, bytes]) -> bool:
    """Whether all files are as they were; what is remembered of installed plugins is nobody's decision."""
    memory = str(machine.home.discovered.relative_to(machine.home.root))
    return {**machine.files(), memory: b""} == {**before, memory: b""}


def ask(machine, terminal, question: Question):
    """The command, at a question."""
    asked = terminal(*question.args)
    for earlier, answer in question.before:
        asked.answer(earlier, answer)
    asked.until(question.question)
    return asked


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    ("way", "code"), [("ctrl-c", 1), ("\x04", 1), ("terminate", -signal.SIGTERM)], ids=["ctrl-c", "ctrl-d", "terminate"]
)
def test_without_an_answer_everything_is_as_it_was(machine, terminal, name: str, way: str, code: int) -> None:
    question = QUESTIONS[name]
    before = prepare(machine, question)
    asked = ask(machine, terminal, question)
    if way == "\x04":
        asked.answer(question.question, way)
    else:
        os.kill(asked.process.pid, signal.SIGINT if way == "ctrl-c" else signal.SIGTERM)
    assert asked.end() == code
    assert asked.stdout == b""
    assert "Traceback" not in asked.shown
    assert ("Aborted!" in asked.shown) == (code == 1)
    assert untouched(machine, before)


LAST = ("opt-in --debug", "review, destination")
"""Where there is most to be written after it."""


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGKILL, None], ids=str)
def test_nor_does_the_end_of_a_terminal_change_anything(
    machine, terminal, name: str, sent: signal.Signals | None
) -> None:
    before = prepare(machine, QUESTIONS[name])
    asked = ask(machine, terminal, QUESTIONS[name])
    if sent is None:
        assert asked.hang_up() != 0
    else:
        os.kill(asked.process.pid, sent)
        assert asked.end() == -sent
    assert untouched(machine, before)


@pytest.mark.parametrize("name", LAST)
def test_a_line_that_is_not_ended_is_no_answer(machine, terminal, name: str) -> None:
    before = prepare(machine, QUESTIONS[name])
    asked = ask(machine, terminal, QUESTIONS[name])
    asked.answer(QUESTIONS[name].question, "y\x04\x04")
    assert asked.end() == 1
    assert untouched(machine, before)


COMMANDS = {"opt-in": QUESTIONS["opt-in, local"], "review": QUESTIONS["review, field"]}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("piped", ["stdin", "stderr", "both", "closed stdin"])
def test_where_one_end_is_no_terminal_nobody_is_asked(machine, name: str, piped: str) -> None:
    before = prepare(machine, COMMANDS[name])
    master, slave = os.openpty()
    try:
        os.write(master, b"y\ny\ny\n")
        shell = f'exec "{sys.executable}" -m cmdorc_telemetry {name} ' + {
            "stdin": "< /dev/null", "stderr": "2> said", "both": "< /dev/null 2> said", "closed stdin": "<&-",
        }[piped]  # fmt: skip
        done = subprocess.run(["/bin/sh", "-c", shell], stdin=slave, stderr=slave, stdout=subprocess.PIPE,
                              timeout=30, check=False)  # fmt: skip
        said = Path("said").read_bytes() if "2>" in shell else os.read(master, 1 << 20)
    finally:
        os.close(slave)
        os.close(master)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"there is no terminal to ask on; nothing was changed" in said
    assert b"[y/N]" not in said
    assert untouched(machine, before)


@pytest.mark.parametrize("name", COMMANDS)
def test_in_ci_nobody_is_asked(machine, terminal, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare(machine, COMMANDS[name])
    monkeypatch.setenv("CI", "true")
    asked = terminal(name)
    assert asked.end() == 2
    assert "there is no terminal to ask on" in asked.shown
    assert ("[y/N]" in asked.shown, asked.stdout) == (False, b"")
    assert untouched(machine, before)


@pytest.mark.parametrize("answer", ["", "no", "yess", "y y"])
def test_anything_but_a_clear_yes_is_a_no(machine, terminal, answer: str) -> None:
    machine.config(TO_BOARD)
    asked = terminal("opt-in", "--level", "minimal")
    asked.answer(SHARE, f"{answer}\n")
    assert asked.end() == 1
    assert "Nothing was changed." in asked.shown
    assert set(machine.files()) == {"config.toml"}


@pytest.mark.parametrize("answer", ["Y", " YES "])
def test_a_yes_may_be_written_in_some_ways(machine, terminal, answer: str) -> None:
    asked = terminal("opt-in", "--level", "minimal")
    asked.answer(SHARE, f"{answer}\n")
    assert asked.end() == 0
    assert "[y/N]" not in asked.shown  # nothing was asked twice


def test_debug_is_a_second_question_after_the_fields_were_shown(machine, terminal) -> None:
    asked = terminal("opt-in", "--debug")
    asked.answer(SHARE, "y\n")
    assert all(name in asked.before for name in ("hashed_command_name", "hashed_cwd_prefix", "command_arg_count"))
    assert "confirm?" not in asked.before
    asked.answer(DEBUG, "y\n")
    assert asked.before.strip() == "y"  # nothing else came between
    assert asked.end() == 0
    consent = load_consent(machine.home)
    assert consent is not None
    assert consent.grants[CORE_SPEC].share is TelemetryLevel.DEBUG


@pytest.mark.parametrize("args", [("--debug",), ("--level", "debug"), ()])
def test_yes_never_covers_debug(machine, args: tuple[str, ...]) -> None:
    machine.config(
        '[telemetry]\nlevel = "debug"\ndebug_consent_given = true\ndebug_consent_expires = 2999-01-01T00:00:00Z\n'
    )
    before = machine.files()
    result = machine("opt-in", "--yes", *args, code=2)
    assert result.stdout == ""
    assert "needs a person at a terminal, and --yes is none; nothing was changed" in result.stderr
    assert untouched(machine, before)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("colour", [True, False])
def test_what_is_shown_fits(machine, terminal, columns: int, colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    machine.config(TO_BOARD + 'events = ["command_completed", "trigger_fired"]\nlevel = "minimal"\n')
    asked = terminal("opt-in", "--debug", columns=columns)
    asked.answer(SHARE, "n\n")
    assert asked.end() == 1
    lines = [bare(line) for line in asked.before.split("\r\n")]
    assert max(map(len, lines)) <= columns
    assert colour == ("\x1b[36m" in asked.before)


def bare(line: str) -> str:
    """``line`` without what only changes how it looks."""
    return re.sub("\x1b\\[[0-9;]*m", "", line)
