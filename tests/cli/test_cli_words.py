"""How values read, how lines and tables look, and what becomes of faults."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cmdorc_telemetry.cli import telemetry
from cmdorc_telemetry.cli.wording import (
    clean,
    command_line,
    duration,
    moment,
    moment_of,
    percent,
    place,
    plural,
    sentence,
)
from cmdorc_telemetry.cli.wording import sparkline as bars


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "–"), (0, "0 ms"), (870.4, "870 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (3500, "3.5 s"),
     (59_949, "59.9 s"), (59_960, "1 min 0 s"), (252_000, "4 min 12 s"), (3_599_700, "1 h 0 min"),
     (5_460_000, "1 h 31 min")],
)  # fmt: skip
def test_durations(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds) == text


def test_moments_have_their_zone() -> None:
    assert moment(1_795_320_480) == "22 Nov 2026 04:08 UTC"
    assert moment_of("2026-11-02T04:08:00Z") == "2 Nov 2026 04:08 UTC"
    assert moment_of("yesterday") == "yesterday"


def test_counts_and_shares() -> None:
    assert [plural(1, "field"), plural(1284, "field"), plural(2, "process", "processes")] == [
        "1 field", "1,284 fields", "2 processes"
    ]  # fmt: skip
    assert [percent(91, 100), percent(0, 0)] == ["91 %", "–"]


def test_bars_go_from_zero_to_the_greatest() -> None:
    assert bars([0, 1, None, 4, 8]) == "▁▂ ▅█"
    assert bars([None, 0]) == " ▁"
    assert bars([]) == ""


def test_places_are_shortened_below_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert [place("/home/ada/x"), place("/home/adam/x"), place("/home/ada")] == ["~/x", "/home/adam/x", "/home/ada"]
    assert place("in /home/ada/x: found /mnt/home/ada/y") == "in ~/x: found /mnt/home/ada/y"


def test_a_sentence_has_one_end() -> None:
    assert [sentence(text) for text in ("It is", "It is.", "Is it?", "It…")] == ["It is.", "It is.", "Is it?", "It…"]


def test_text_of_others_is_one_harmless_line() -> None:
    assert clean("a\nb\t c\x1b[2J\u202e") == "a b c�[2J�"


def test_command_lines_are_as_they_were_typed() -> None:
    @click.group()
    def cmdorc() -> None:
        pass

    @click.command()
    def alone() -> None:
        click.echo(command_line("opt-in"))

    cmdorc.add_command(telemetry)
    assert CliRunner().invoke(alone, []).stdout == "cmdorc telemetry opt-in\n"
    assert "cmdorc telemetry show-payload" in CliRunner().invoke(cmdorc, ["telemetry", "status"]).stdout


def test_the_program_says_its_name_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "--version"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert done.stdout.startswith("cmdorc-telemetry, version ")


def test_a_fault_of_the_disk_is_one_line(machine) -> None:
    machine.home.root.mkdir()
    machine.home.config.mkdir()
    result = machine("opt-out", code=1)
    assert result.stderr.startswith(f"error: {machine.home.config}: cannot be read")


@pytest.mark.parametrize(("number", "said"), [(errno.EIO, "error: [Errno 5] Input/output error\n"), (errno.EPIPE, "")])
def test_a_fault_of_the_system_is_no_traceback(machine, number: int, said: str) -> None:
    @telemetry.command("fails")
    def fails() -> None:
        raise OSError(number, "Input/output error")

    try:
        assert machine("fails", code=1).stderr == said
    finally:
        del telemetry.commands["fails"]


def test_a_reader_that_goes_away_is_no_traceback(machine) -> None:
    done = subprocess.run(f"{sys.executable} -m cmdorc_telemetry plugins --json | true", shell=True,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "Traceback" not in done.stderr


def test_in_80_columns_the_help_says_what_each_command_does_whole() -> None:
    shown = CliRunner().invoke(telemetry, ["--help"], terminal_width=80).output
    listed = shown.partition("Commands:\n")[2].splitlines()
    assert len(listed) == len(telemetry.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)
