"""``flush``: sends everything now; ledgers on standard output, reasons on standard error, and an honest exit code."""

from __future__ import annotations

import re

import pytest

from cmdorc_telemetry import NoopReporter, Telemetry, clock
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.spool import Spool

LEDGER = re.compile(r"(\w+): recorded (\d+) = acknowledged (\d+) \+ pending (\d+) \+ dropped (\d+)(?: \(.*\))?")
HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
PICKY = """
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.errors import Rejected

class Picky(TelemetryReporter):
    async def report(self, event, payload):
        raise Rejected("never")

@hookimpl
def telemetry_reporters():
    return [Picky]
"""
SLOW = """
import asyncio
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Slow(TelemetryReporter):
    async def report(self, event, payload):
        await asyncio.sleep(0.3)

@hookimpl
def telemetry_reporters():
    return [Slow]
"""


@pytest.fixture
def jotting(machine):
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    machine.opt_in()
    return machine


def ledgers(text: str) -> dict[str, tuple[int, ...]]:
    found = [LEDGER.fullmatch(line) for line in text.splitlines()]
    assert None not in found
    told = {match[1]: tuple(map(int, match.groups()[1:])) for match in found if match}
    assert all(recorded == acked + pending + dropped for recorded, acked, pending, dropped in told.values())
    return told


def test_off_it_sends_and_writes_nothing(machine) -> None:
    result = machine("flush")
    assert (result.stdout, result.stderr) == ("", "Telemetry is off. Nothing is recorded.\n")
    assert not machine.home.root.exists()


def test_everything_goes_and_the_ledgers_say_so(jotting) -> None:
    jotting.record()
    jotting.record()
    result = jotting("flush")
    assert ledgers(result.stdout) == {"history": (4, 4, 0, 0), "jot": (4, 4, 0, 0)}
    assert result.stderr == ""
    sent = (jotting.work / "jotted.txt").read_text().splitlines()
    assert len(sent) == len(set(sent)) == 4
    assert ledgers(jotting("flush").stdout) == {"history": (4, 4, 0, 0), "jot": (4, 4, 0, 0)}


def test_nothing_to_send_is_a_success(jotting) -> None:
    assert ledgers(jotting("flush").stdout) == {"history": (0, 0, 0, 0), "jot": (0, 0, 0, 0)}


def test_a_server_that_is_down_keeps_its_events_pending(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record()
    result = machine("flush", "--timeout", "5", code=1)
    assert ledgers(result.stdout) == {"history": (2, 2, 0, 0), "http": (2, 0, 2, 0)}
    assert re.fullmatch(r"http: 2 pending: 127\.0\.0\.1:9: no connection .*\n", result.stderr)


def test_a_missing_plugin_keeps_them_too_and_is_named(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "prometheus"\n')
    machine.opt_in()
    machine.record()
    result = machine("flush", code=1)
    assert ledgers(result.stdout) == {"board": (2, 0, 2, 0), "history": (2, 2, 0, 0)}
    assert result.stderr == (
        "board: plugin prometheus is not installed, 2 pending: pip install cmdorc-telemetry-prometheus\n"
    )


def test_rejected_events_are_told_apart(machine) -> None:
    machine.plugin("picky", PICKY)
    machine.config('[telemetry]\nplugins = ["picky"]\n')
    machine.opt_in()
    machine.record()
    result = machine("flush", code=1)
    assert ledgers(result.stdout)["picky"] == (2, 0, 2, 0)
    assert result.stderr == "picky: 2 rejected and set aside\n"


def test_too_little_time(machine) -> None:
    machine.plugin("slow", SLOW)
    machine.config('[telemetry]\nplugins = ["slow"]\n')
    machine.opt_in()
    machine.record()
    result = machine("flush", "--timeout", "0.05", code=1)
    assert "slow: 2 pending: there was not enough time\n" in result.stderr


def test_a_sender_that_does_not_end_is_waited_for_and_told(jotting) -> None:
    jotting.home.locks.mkdir()
    lock = FileLock(jotting.home.locks / "jot.lock")
    assert lock.acquire(wait=False)
    result = jotting("flush", "--timeout", "0.3", code=1)
    lock.release()
    assert result.stderr == "flush: not everything was done within 0.3 s\n"


def test_a_destination_that_waits_for_a_yes_is_no_failure(jotting) -> None:
    jotting.config('[telemetry]\nplugins = ["jot"]\n[telemetry.to.jot]\n[telemetry.to.new]\nplugin = "jot"\n')
    jotting.record()
    result = jotting("flush")
    assert result.stderr == "new: waits for your yes: telemetry opt-in\n"
    assert set(ledgers(result.stdout)) == {"history", "jot"}


def test_running_programs_are_reported_apart(jotting) -> None:
    first, second = jotting.program(), jotting.program()
    first.fire("cmdorc_completed", jotting.run)
    assert jotting("flush").stderr == "1 running process has events that are not imported yet.\n"
    second.fire("cmdorc_completed", jotting.run)
    result = jotting("flush")
    assert result.stderr == "2 running processes have events that are not imported yet.\n"
    assert ledgers(result.stdout)["jot"] == (0, 0, 0, 0)
    first.close()
    second.close()
    assert ledgers(jotting("flush").stdout)["jot"] == (2, 2, 0, 0)


def test_the_reporter_of_a_running_program_is_that_programs_matter(jotting) -> None:
    program = Telemetry.start(reporter=NoopReporter())
    program.fire("cmdorc_completed", jotting.run)
    assert program.flush(10)
    assert set(ledgers(jotting("flush").stdout)) == {"history", "jot"}
    program.close()


def test_a_broken_plugin_is_warned_of_once(machine) -> None:
    machine.plugin("crate", "import nothing_of_that_name")
    machine.opt_in("--local")
    machine.config('[telemetry]\nplugins = ["crate"]\n')
    result = machine("flush")
    assert result.stderr.count("warning: plugin 'crate' cannot be imported") == 1


def test_a_spool_that_cannot_be_opened(jotting) -> None:
    jotting.home.spool.unlink()
    jotting.home.spool.mkdir()
    result = jotting("flush", code=1)
    assert result.stdout == ""
    assert re.fullmatch(rf"error: {jotting.home.spool} cannot be .*\n", result.stderr)


def test_a_history_that_another_process_holds(jotting, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmdorc_telemetry.cli import machine as machines

    monkeypatch.setattr(machines, "HISTORY_SECONDS", 0.2)
    jotting.record()
    jotting.home.locks.mkdir()
    lock = FileLock(jotting.home.locks / "history.lock")
    assert lock.acquire(wait=False)
    assert "warning: the history lacks 2 events." in jotting("show-payload").stderr
    lock.release()
    assert jotting("stats").stderr == ""


def test_a_terminal_sees_progress_and_a_pipe_none_of_it(machine, terminal) -> None:
    machine.plugin("slow", SLOW)
    machine.config('[telemetry]\nplugins = ["slow"]\n')
    machine.opt_in()
    machine.record(machine.run, machine.run)
    seen = terminal("flush")
    assert seen.end() == 0
    assert "Sending" in seen.shown
    assert "3/6" in seen.shown  # the history has its three, the slow one none yet
    assert ledgers(seen.stdout.decode()) == {"history": (3, 3, 0, 0), "slow": (3, 3, 0, 0)}
    assert "Sending" not in machine("flush").output


def test_a_pause_after_failures_is_forgotten(jotting) -> None:
    jotting.record()
    jotting("stats")
    spool = Spool(jotting.home.spool)
    spool.postpone("jot", clock.wall() + 600, "503")
    spool.close()
    assert ledgers(jotting("flush").stdout)["jot"] == (2, 2, 0, 0)
