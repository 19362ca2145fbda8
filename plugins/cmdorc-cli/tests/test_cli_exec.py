"""``cmdorc telemetry exec`` is the core's, and as quick: it is the program before any other command is imported."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import SCRIPT

LOOK = "import os, sys; print(os.getpid(), sys.argv[1:])"


def test_it_becomes_the_program(project) -> None:
    started = project.start("telemetry", "exec", sys.executable, "-c", LOOK, "--help", "-x")
    out, err = started.communicate(timeout=20)
    assert (out.decode(), err, started.returncode) == (f"{started.pid} ['--help', '-x']\n", b"", 0)


def test_the_program_is_not_kept_waiting_for_a_command_line(project) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "cmdorc_cli", "telemetry", "exec", "true"]
    done = subprocess.run(words, cwd=project.folder, env=project.env, text=True, capture_output=True, check=True)
    assert "cmdorc_telemetry.programs" in done.stderr
    assert not {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()} & {"click", "cmdorc", "msgspec"}


def test_what_is_wrong_is_told_as_by_any_command(project) -> None:
    assert "takes the place of this command" in project.run("telemetry", "exec", "--help").stdout
    assert project.run("telemetry", "exec").returncode == 2
    assert project.run("telemetry", "exec", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7


def test_it_runs_cmdorc_itself_which_is_recorded_once(project) -> None:
    project.env["CMDORC_TELEMETRY"] = "standard"
    project.commands('name = "A"\ncommand = "echo a"', head='[telemetry]\nlevel = "minimal"\n')
    done = project.run("telemetry", "exec", str(SCRIPT), "run", "A", "--flush", "20")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
    said = json.loads(project.run("telemetry", "stats", "--json").stdout)
    assert said["runs"] == 1
