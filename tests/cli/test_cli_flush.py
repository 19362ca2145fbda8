"""``flush``: sends everything now; ledgers on standard output, reasons on standard error, and an honest exit code."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from cmdorc_telemetry import NoopReporter, Telemetry, clock
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.spool import Spool

DEADLINE = 20.0
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


@pytest.fixture
def silent() -> Iterator[str]:
    """The endpoint of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


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
    machine.config('[telemetry.to.board]\nplugin = "graphs"\n')
    machine.opt_in()
    machine.record()
    result = machine("flush", code=1)
    assert ledgers(result.stdout) == {"board": (2, 0, 2, 0), "history": (2, 2, 0, 0)}
    fix = f"correct telemetry.to.board.plugin in {machine.home.config}: installed are "
    assert result.stderr.startswith(f"board: plugin graphs is not installed, 2 pending: {fix}")
    assert len(result.stderr.splitlines()) == 1


def test_rejected_events_are_told_apart(machine) -> None:
    machine.plugin("picky", PICKY)
    machine.config('[telemetry]\nplugins = ["picky"]\n')
    machine.opt_in()
    machine.record()
    result = machine("flush", code=1)
    assert ledgers(result.stdout)["picky"] == (2, 0, 2, 0)
    assert result.stderr == "picky: 2 rejected and set aside: telemetry dead-letters\n"


def test_too_little_time(machine) -> None:
    machine.plugin("slow", SLOW.replace("0.3", "30"))
    machine.config('[telemetry]\nplugins = ["slow"]\n')
    machine.opt_in()
    machine.record()
    machine("stats")  # imports them
    result = machine("flush", "--timeout", "0.05", code=1)
    assert "slow: 2 pending: there was not enough time\n" in result.stderr


AGAIN = """
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.types import BatchResult, EventResult

class Again(TelemetryReporter):
    async def report_batch(self, batch):
        return BatchResult(results=[
            EventResult(each.event_id, "retry") if each.event == "command_completed"
            else EventResult(each.event_id, "rejected", "set-aside: no") for each in batch.events
        ])

    async def report(self, event, payload):
        pass

@hookimpl
def telemetry_reporters():
    return [Again]
"""
"""A reporter whose receiver wants some events later, and will never take the others."""


@pytest.fixture
def again(machine):
    machine.plugin("again", AGAIN)
    machine.config('[telemetry]\nplugins = ["again"]\n')
    machine.opt_in()
    machine.record()
    return machine


def test_what_waits_and_what_was_set_aside_are_told_apart(again) -> None:
    assert again("flush", "--timeout", "1", code=1).stderr == (
        "again: 1 pending: there was not enough time; 1 rejected and set aside: telemetry dead-letters\n"
    )


def test_what_a_receiver_wants_again_much_later_is_not_waited_for(again) -> None:
    again("stats")
    spool = Spool(again.home.spool)
    for _ in range(14):  # after which pauses are long
        lease = spool.lease("again", clock.wall())
        assert lease is not None
        spool.settle(lease, {}, clock.wall())
    spool.close()
    began = time.monotonic()
    result = again("flush", "--timeout", "30", code=1)
    assert time.monotonic() - began < 25
    assert "to be sent again later, says its receiver" in result.stderr


@pytest.mark.parametrize("events", [0, 1])
def test_another_process_that_sends_is_waited_for_and_told(jotting, events: int) -> None:
    if events:
        jotting.record()
    jotting.home.locks.mkdir()
    lock = FileLock(jotting.home.locks / "jot.lock")
    assert lock.acquire(wait=False)
    result = jotting("flush", "--timeout", "0.3", code=1)
    lock.release()
    pending = "2 pending: " if events else ""
    assert result.stderr == f"jot: {pending}another process is sending to it\n"
    assert ledgers(jotting("flush").stdout)["jot"] == (2 * events, 2 * events, 0, 0)


def test_a_reporter_that_stands_still_is_not_taken_for_another_process(machine) -> None:
    machine.plugin(
        "stuck", SLOW.replace("await asyncio.sleep(0.3)", "import time; time.sleep(1.5)").replace("Slow", "Stuck")
    )
    machine.config('[telemetry]\nplugins = ["stuck"]\n')
    machine.opt_in()
    machine.record()
    assert machine("flush", "--timeout", "0.5", code=1).stderr == "stuck: 2 pending: there was not enough time\n"


@pytest.mark.parametrize("whole", [True, False])
def test_a_server_that_never_answers_costs_no_more_than_was_given(machine, silent: str, terminal, whole: bool) -> None:
    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{silent}"\n')
    machine.opt_in()
    machine.record()
    program = "import time\nfrom cmdorc_telemetry.cli import telemetry\n" \
              "began = time.monotonic()\ntry: telemetry(['flush', '--timeout', '1'])\n" \
              "except SystemExit as end: print(end.code, time.monotonic() - began, flush=True)\n"  # fmt: skip
    if whole:
        seen = terminal(python=("-c", program))
        seen.end()
        told = seen.stdout.decode()
    else:
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    code, took = told.splitlines()[-1].split()
    assert code == "1"
    assert 1 <= float(took) < 1.5  # 100 ms, and room for a slow machine


def test_ctrl_c_ends_it_and_loses_nothing(machine, silent: str, terminal) -> None:
    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{silent}"\n')
    machine.opt_in()
    machine.record()
    seen = terminal("flush")
    seen.until("2/4")  # the history has its two
    began = time.monotonic()
    seen.process.send_signal(signal.SIGINT)
    assert seen.end() == 130
    assert time.monotonic() - began < 3
    assert "Interrupted. Nothing is lost: 2 events wait." in seen.shown
    assert ledgers(seen.stdout.decode()) == {"history": (2, 2, 0, 0), "http": (2, 0, 2, 0)}


def test_ctrl_c_without_a_terminal(machine, silent: str) -> None:
    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{silent}"\n')
    machine.opt_in()
    machine.record()
    process = subprocess.Popen([sys.executable, "-m", "cmdorc_telemetry", "flush"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    end = time.monotonic() + DEADLINE
    while not (machine.home.locks / "http.lock").exists():  # it is about to send
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert re.fullmatch(r"Interrupted. Nothing is lost: [24] events wait.\n", said)  # the history may have had its own
    assert ledgers(shown)["http"] == (2, 0, 2, 0)


def test_a_destination_that_waits_for_a_yes_is_no_failure(jotting) -> None:
    jotting.config('[telemetry]\nplugins = ["jot"]\n[telemetry.to.jot]\n[telemetry.to.new]\nplugin = "jot"\n')
    jotting.record()
    result = jotting("flush")
    assert result.stderr == "new: waits for your yes: telemetry review\n"
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
    program = Telemetry.start(reporters=[NoopReporter()])
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
    with closing(sqlite3.connect(jotting.home.spool)) as db:
        db.execute("PRAGMA user_version=99")
    result = jotting("flush", code=1)
    assert result.stdout == ""
    assert re.fullmatch(rf"error: {jotting.home.spool} was made by a newer version .*\n", result.stderr)


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
