"""Ctrl-C, SIGTERM and their like; a stdout that nobody reads."""

from __future__ import annotations

import signal
import time

import pytest

_HELD = "exec 3> alive; echo up; (sleep 60; true); echo no"
"""Holds ``alive`` open as long as any of its processes lives."""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_cancels_all_and_shuts_down(project, name: str, code: int) -> None:
    alive = project.fifo("alive")
    project.commands(
        f'name = "Long"\ncommand = "{_HELD}"',
        'name = "Never"\ncommand = "echo never"\ntriggers = ["command_failed:Long", "command_cancelled:Long"]',
        'name = "Clean"\ncommand = "echo cleaned"\ntriggers = ["orchestrator_shutdown"]',
    )
    process = project.start("run", "Long")
    with alive.open("rb") as gone:
        assert process.stdout.readline() == b"Long  | up\n"
        process.send_signal(getattr(signal, name))
        assert gone.read() == b""
    assert process.stdout.read() == b"Clean | cleaned\n"
    assert process.stderr.read() == b"cmdorc: stopping; a second signal stops at once\n"
    assert process.wait() == code


def test_the_next_name_is_not_run_after_a_signal(project) -> None:
    project.commands('name = "Long"\ncommand = "echo up; sleep 60"', 'name = "Next"\ncommand = "echo next"')
    process = project.start("run", "Long", "Next")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b""
    assert process.wait() == 130


def test_a_second_signal_kills_at_once(project) -> None:
    alive = project.fifo("alive")
    stubborn = "trap '' TERM; exec 3> alive; echo up; sleep 60; true"
    project.commands(f'name = "Stubborn"\ncommand = "{stubborn}"')
    process = project.start("run", "Stubborn")
    with alive.open("rb") as gone:
        assert process.stdout.readline() == b"up\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"cmdorc: stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert gone.read() == b""
    assert time.monotonic() - began < 2.5  # cmdorc's own patience is 3 s


def test_a_second_signal_ends_it_where_nobody_reads_what_is_written(project, until) -> None:
    project.commands('name = "Yes"\ncommand = "yes"')
    process = project.start("run", "Yes")
    assert process.stdout.read(2) == b"y\n"

    def ended() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    until(ended)
    assert process.wait() in (130, -signal.SIGINT)  # the latter where Python was about to exit already


def test_what_ignores_sigterm_is_killed_in_the_end(project) -> None:
    stubborn = "trap '' TERM; echo up; sleep 60; true"
    project.commands(f'name = "Stubborn"\ncommand = "{stubborn}"')
    process = project.start("run", "Stubborn")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 143


def test_an_ignored_signal_stays_ignored(project) -> None:
    gate = project.fifo("gate")
    project.commands('name = "A"\ncommand = "echo up; read _ < gate; echo down"')
    process = project.start("run", "A", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    gate.write_text("\n")
    assert process.stdout.read() == b"down\n"
    assert process.wait() == 0


def test_a_reader_that_goes_ends_it_quietly(project) -> None:
    project.commands('name = "Yes"\ncommand = "yes"')
    process = project.start("run", "Yes")
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_reader_that_goes_before_a_little_more_comes_ends_it_as_quietly(project) -> None:
    gate = project.fifo("gate")
    project.commands('name = "A"\ncommand = "echo up; read _ < gate; echo more; sleep 60"')
    process = project.start("run", "A")
    assert process.stdout.readline() == b"up\n"
    process.stdout.close()
    gate.write_text("\n")
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_full_disk_ends_it_with_a_line(project) -> None:
    project.commands('name = "Yes"\ncommand = "yes"')
    with open("/dev/full", "wb") as full:
        done = project.run("run", "Yes", capture_output=False, stdout=full, stderr=-1)
    assert (done.returncode, done.stderr) == (1, "cmdorc: stdout cannot be written: No space left on device\n")
