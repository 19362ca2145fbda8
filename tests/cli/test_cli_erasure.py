"""An erasure that was not confirmed: what is kept of it, who asks again and when, and how to give it up.

With real servers: the project's own, as a process, and one that fails.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.cli import erase
from cmdorc_telemetry.consent import load_consent
from cmdorc_telemetry.erasure import Owed, load_owed, note
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.testing import Answer, FaultServer, Request
from cmdorc_telemetry_server import SQLiteStore

from .installs import erasing, identity, reporting

pytestmark = pytest.mark.usefixtures("patient")

OFF = {"config.toml", "telemetry/consent.toml"}


class Server:
    """The project's own server, in a process that can be ended and begun again."""

    def __init__(self, store: Path) -> None:
        self.store, self.port = store, 0
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [Path(sys.executable).with_name("cmdorc-telemetry-server"), "serve", "--store", self.store]
        self.process = subprocess.Popen([*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().strip().removesuffix("/v1").rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)

    def installs(self) -> list[str]:
        """Whose events are stored."""

        async def read() -> list[str]:
            return [row.install async for row in SQLiteStore(self.store).export()]

        return asyncio.run(read())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "reports.db")
    yield server
    server.stop()


@pytest.fixture
def failing() -> Iterator[FaultServer]:
    with FaultServer(answer=erasing) as server:
        yield server


def agree(machine, **endpoints: str) -> str:
    """A home that reports to these, with an event delivered to each. The install id."""
    places = "".join(f'[telemetry.to.{name}]\nplugin = "http"\nendpoint = "{url}"\n' for name, url in endpoints.items())
    return reporting(machine, f'[telemetry]\nplugins = ["http"]\n{places}').install_id


def current(home: Home) -> str:
    return identity(home).install_id


def owed(machine) -> dict[str, tuple[str, ...]]:
    return {each.install_id: tuple(each.destinations) for each in load_owed(machine.home)}


def asked(server: FaultServer) -> list[str]:
    """The ids that it was asked to erase."""
    return [request.path.rpartition("/")[2] for request in server.seen if request.method == "DELETE"]


# -- the project's own server -------------------------------------------------------------------------------------


def test_opt_out_leaves_nothing_of_the_install_at_the_server(machine, server: Server) -> None:
    install = agree(machine, http=server.endpoint)
    assert set(server.installs()) == {install}
    assert machine("opt-out").stderr == "http: erased what it held of this install\n"
    assert server.installs() == []
    assert set(machine.files()) == OFF


def test_a_server_that_is_down_is_asked_by_the_next_command(machine, server: Server) -> None:
    install = agree(machine, http=server.endpoint)
    server.stop()
    result = machine("opt-out", code=1)
    assert result.stderr.startswith(f"http: not confirmed: 127.0.0.1:{server.port}: no connection")
    assert result.stderr.endswith("  telemetry erase           asks now\n  telemetry erase --forget  drops even that\n")
    assert owed(machine) == {install: ("http",)}
    assert set(machine.files()) == {*OFF, "telemetry/erasure.toml", "telemetry/erasure.lock"}

    status = machine("status")
    assert "! An erasure is not confirmed yet by http.\n  telemetry erase\n" in status.stdout
    assert status.stderr == ""  # it has just said so
    assert machine.json("status")["to_be_erased"] == {install: ["http"]}
    assert machine("plugins").stderr == "http: not erased yet. telemetry erase says why.\n"
    assert machine("erase", code=1).stderr == result.stderr

    server.start()
    assert set(server.installs()) == {install}
    assert machine("plugins").stderr == "http: erased what it held of this install\n"
    assert server.installs() == []
    assert owed(machine) == machine.json("status")["to_be_erased"] == {}
    assert machine("plugins").stderr == ""
    assert not machine.home.erasure.exists()


def test_in_again_while_an_erasure_waits_and_out_again(machine, server: Server) -> None:
    """Two ids are owed at last; neither is ever used again, and one command has both erased."""
    first = agree(machine, http=server.endpoint)
    server.stop()
    machine("opt-out", code=1)
    assert "http: not erased yet" in machine("opt-in", "--yes").stderr
    second = current(machine.home)
    assert second != first
    machine.record()
    server.start()
    assert machine("flush").stderr == "http: erased what it held of this install\n"
    assert set(server.installs()) == {second}
    machine.record()
    server.stop()
    machine("opt-out", code=1)
    assert owed(machine) == {second: ("http",)}
    machine.opt_in()
    third = current(machine.home)
    machine("opt-out", code=1)
    assert owed(machine) == {second: ("http",), third: ("http",)}
    server.start()
    assert machine("erase").stderr == "http: erased what it held of this install\n"
    assert server.installs() == []


# -- one that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("500", r"http: not confirmed: 127.0.0.1:\d+ did not erase this install (500): made to fail"),
        ("301", r"http: not confirmed: 127.0.0.1:\d+ did not erase this install (301)"),
        ("html", r"http: not confirmed: 127.0.0.1:\d+ gave an answer that cannot be read"),
        ("broken-json", r"http: not confirmed: 127.0.0.1:\d+ gave an answer that cannot be read"),
        ("refused", r"http: not confirmed: 127.0.0.1:\d+: no connection"),
        ("reset-on-connect", "http: not confirmed: 127.0.0.1"),
        ("answer-reset", "http: not confirmed: 127.0.0.1"),
        ("hang-after-reading", "http: gave no answer in time"),
    ],
)
def test_what_a_failing_server_did_not_confirm_is_asked_for_again(
    machine, failing: FaultServer, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    install = agree(machine, http=failing.endpoint)
    failing.fail(fault)
    monkeypatch.setattr("cmdorc_telemetry.cli.erasure.ERASE_SECONDS", 0.5 if "hang" in fault else 10.0)
    first = machine("opt-out", code=1).stderr.splitlines()[0]
    assert first.startswith(told.replace("\\d+", str(failing.port)))
    assert owed(machine) == {install: ("http",)}
    failing.fail(None)
    assert machine("plugins").stderr == "http: erased what it held of this install\n"
    assert owed(machine) == {}
    assert set(asked(failing)) == {install}


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_erasure_is_done_with_and_that_is_told(machine, status: int) -> None:
    def answer(request: Request) -> Answer:
        return Answer(status) if request.method == "DELETE" else erasing(request)

    with FaultServer(answer=answer) as server:
        agree(machine, http=server.endpoint)
        assert machine("opt-out").stderr == (
            f"http: 127.0.0.1:{server.port} has nothing of this install, or no way to erase it ({status})\n"
        )
    assert set(machine.files()) == OFF


def test_of_two_servers_the_one_that_is_down_is_asked_again(machine, server: Server, failing: FaultServer) -> None:
    install = agree(machine, here=server.endpoint, there=failing.endpoint)
    failing.fail("refused")
    told = machine("opt-out", code=1).stderr.splitlines()
    assert told[0] == "here: erased what it held of this install"
    assert told[1].startswith("there: not confirmed: ")
    assert server.installs() == []
    assert owed(machine) == {install: ("there",)}
    server.stop()  # and who has confirmed is not asked again
    failing.fail(None)
    assert machine("plugins").stderr == "there: erased what it held of this install\n"
    server.start()


def test_a_batch_under_way_in_another_process_arrives_before_the_server_is_asked(
    machine, failing: FaultServer
) -> None:  # fmt: skip
    """And nothing is sent after that: it would make the install there anew."""
    install = agree(machine, http=failing.endpoint)
    failing.fail("slow-answer")
    before = len(failing.seen)
    program = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE)
    failing.wait_for(lambda server: len(server.seen) > before + 1)
    result = machine("opt-out")
    assert result.stderr.endswith("http: erased what it held of this install\n")
    assert program.stdin is not None
    for _ in range(20):
        program.stdin.write(b"\n")
        program.stdin.flush()
    program.stdin.close()
    assert program.wait(30) == 0
    order = [request.method for request in failing.seen]
    assert order.count("DELETE") == 1
    assert order[-1] == "DELETE"
    assert asked(failing) == [install]


BUSY = """
import sys
from cmdorc_telemetry import CompletedRun, Telemetry
from cmdorc_telemetry.application import CMDORC
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
run = CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5)
def work():
    for _ in range(100):
        telemetry.fire("cmdorc_completed", run)
    telemetry.flush(0.4)
while not work() and not __import__("select").select([sys.stdin], [], [], 0)[0]:
    pass
for line in sys.stdin:
    work()
telemetry.close()
"""


# -- who is asked, and who is not -----------------------------------------------------------------------------------


def pending(machine, failing: FaultServer) -> str:
    """A home that opted out while its server was down. The id that is owed."""
    install = agree(machine, http=failing.endpoint)
    failing.fail("refused")
    machine("opt-out", code=1)
    failing.fail(None)
    return install


def test_an_address_that_changed_is_never_told_of_the_id(machine, failing: FaultServer) -> None:
    install = pending(machine, failing)
    with FaultServer(answer=erasing) as another:
        text = machine.home.config.read_text()
        machine.home.config.write_text(text.replace(failing.endpoint, another.endpoint))
        assert machine("erase", code=1).stderr.startswith(
            f"http: is not asked: it leads elsewhere now (it was http endpoint={failing.endpoint})\n"
        )
        assert another.seen == []
    machine.home.config.write_text(text)
    assert machine("erase").stderr == "http: erased what it held of this install\n"
    assert asked(failing) == [install]


def test_nor_is_the_one_that_a_variable_leads_to_now(
    machine, failing: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("WHERE", failing.endpoint)
    machine.config(
        '[telemetry]\nplugins = ["http"]\n[telemetry.to.http]\naudience = "private"\nendpoint_env = "WHERE"\n'
    )
    machine.opt_in()
    machine.record()
    machine("flush")
    failing.fail("refused")
    machine("opt-out", code=1)
    with FaultServer(answer=erasing) as another:
        monkeypatch.setenv("WHERE", another.endpoint)
        assert "it leads elsewhere now" in machine("erase", code=1).stderr
        monkeypatch.delenv("WHERE")
        assert "it leads elsewhere now" in machine("erase", code=1).stderr
        assert another.seen == []
    failing.fail(None)
    monkeypatch.setenv("WHERE", failing.endpoint)
    assert machine("erase").stderr == "http: erased what it held of this install\n"


def test_a_variable_that_is_not_set_while_it_is_noted(machine, failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows where it led: it is asked where it leads when it is set again, as it would be sent to."""
    monkeypatch.setenv("WHERE", failing.endpoint)
    machine.config(
        '[telemetry]\nplugins = ["http"]\n[telemetry.to.http]\naudience = "private"\nendpoint_env = "WHERE"\n'
    )
    machine.opt_in()
    machine.record()
    monkeypatch.delenv("WHERE")
    assert "http: not confirmed: " in machine("opt-out", code=1).stderr
    monkeypatch.setenv("WHERE", failing.endpoint)
    assert machine("erase").stderr == "http: erased what it held of this install\n"


def test_while_tracking_is_not_wanted_the_erasure_goes_on(
    machine, failing: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    install = pending(machine, failing)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert machine("plugins").stderr == "http: erased what it held of this install\n"
    assert asked(failing) == [install]


def test_a_program_asks_nobody(machine, failing: FaultServer) -> None:
    install = pending(machine, failing)
    seen = len(failing.seen)
    program = Telemetry.start(CMDORC._replace(version="0.12.0"))
    program.fire("cmdorc_completed", machine.run)
    assert program.flush(1)
    program.close()
    assert len(failing.seen) == seen
    assert owed(machine) == {install: ("http",)}


def test_help_asks_nobody(machine, failing: FaultServer) -> None:
    pending(machine, failing)
    machine("--help")
    assert asked(failing) == []


# -- the command that asks besides ------------------------------------------------------------------------------------


def test_a_server_that_hangs_does_not_hold_up_what_a_command_is_asked_for(machine, failing: FaultServer) -> None:
    """Its output is complete before anybody is asked; then it is patient for a while, unless Ctrl-C says otherwise."""
    install = pending(machine, failing)
    failing.fail("hang-after-reading")
    seen = len(failing.seen)
    process = subprocess.Popen(
        [sys.executable, "-c", PATIENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    shown = ""
    while not shown.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, shown
        shown += line
    assert json.loads(shown)["to_be_erased"] == {install: ["http"]}
    failing.wait_for(lambda server: len(server.seen) > seen)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
    assert owed(machine) == {install: ("http",)}


PATIENT = """
from cmdorc_telemetry.cli import erase, telemetry
erase.RETRY_SECONDS = 100
telemetry(["status", "--json"])
"""


def test_a_reporter_that_blocks_is_left_behind(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.plugin("stuck", STUCK)
    machine.config('[telemetry]\nplugins = ["stuck"]\n')
    monkeypatch.setattr(erase, "RETRY_SECONDS", 0.1)
    note(machine.home, Owed("00000000-0000-4000-8000-000000000001", "", "", {"stuck": "stuck"}))
    assert machine("plugins").stderr == "stuck: not erased yet. telemetry erase says why.\n"


STUCK = """
import time
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Stuck(TelemetryReporter):
    async def report(self, event, payload):
        pass

    async def erase(self, install_ids):
        time.sleep(5)

@hookimpl
def telemetry_reporters():
    return [Stuck]
"""


def test_what_is_wrong_with_plugins_is_not_said_twice(machine) -> None:
    machine.plugin("broken", "import nothing_of_the_kind")
    machine.config('[telemetry]\nplugins = ["broken"]\n')
    note(machine.home, Owed("00000000-0000-4000-8000-000000000001", "", "", {"gone": "gone"}))
    command = [sys.executable, "-m", "cmdorc_telemetry", "review"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.count("nothing_of_the_kind") == 1
    assert done.stderr.endswith("\ngone: not erased yet. cmdorc-telemetry erase says why.\n")


# -- giving it up -----------------------------------------------------------------------------------------------------


def test_an_erasure_is_given_up(machine, failing: FaultServer) -> None:
    pending(machine, failing)
    assert machine("erase", "--forget").stdout == "Dropped. Nobody is asked any more.\n"
    assert set(machine.files()) - {"telemetry/plugins.json"} == OFF
    assert machine("erase", "--forget").stdout == machine("erase").stdout == "Nothing is left to be erased.\n"
    assert asked(failing) == []


def test_local_only_gives_up_what_waits_too(machine, failing: FaultServer) -> None:
    pending(machine, failing)
    assert machine("opt-out", "--local-only").stderr == ""
    assert set(machine.files()) == OFF
    assert asked(failing) == []


@pytest.mark.parametrize("text", ["???", "", "install = 1", "[[install]]\nid = 1\n", "[[install]]\nid = 'x'\n",
                                  "install = [{id = 'x', generation = 1, since = '', destinations = {}}]"])  # fmt: skip
def test_a_note_that_cannot_be_read_is_told_and_can_be_given_up(machine, text: str) -> None:
    """Until then nothing is recorded: nobody can tell whether the id is still anybody's."""
    machine.opt_in()
    machine.home.erasure.write_text(text)
    told = f"{machine.home.erasure} cannot be used ("
    assert told in machine("status").stdout
    assert f"error: {told}" in machine("erase", code=1).stderr
    machine.record()
    assert not machine.home.journal.exists()
    assert machine("erase", "--forget").stdout == "Dropped. Nobody is asked any more.\n"
    machine.record()
    assert machine.home.journal.exists()


# -- what was cut short -----------------------------------------------------------------------------------------------


def test_an_id_that_was_given_up_under_a_decision_that_stands_is_done_with_first(machine, failing: FaultServer) -> None:
    """As a kill right behind the note leaves it: what waits under that id is sent no more, and then it is erased."""
    install = agree(machine, http=failing.endpoint)
    machine.record()
    consent = load_consent(machine.home)
    assert consent is not None
    note(machine.home, Owed(install, consent.generation, "", {"http": f"http endpoint={failing.endpoint}"}))
    seen = len(failing.seen)
    assert "http: erased what it held of this install\n" in machine("flush").stderr
    renewed = load_consent(machine.home)
    assert renewed is not None
    assert renewed.generation != consent.generation
    assert renewed.grants == consent.grants
    machine("flush")
    assert [request.method for request in failing.seen[seen:]] == ["DELETE"]
    assert machine.home.spool.exists()
    machine.record()
    machine("flush")
    assert current(machine.home) != install
    asked = [request.method for request in failing.seen[seen + 1 :] if request.method != "GET"]
    assert asked == ["POST"]
    assert install.encode() not in failing.seen[-2].plain


def test_under_an_operator_it_takes_another_opt_out(machine, failing, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{failing.endpoint}"\n')
    note(machine.home, Owed(str(ensure_identity(machine.home).install_id), "", "",
                            {"http": f"http endpoint={failing.endpoint}"}))  # fmt: skip
    monkeypatch.setenv("CMDORC_TELEMETRY", "minimal")
    assert machine("erase", code=1).stderr.startswith(
        "http: is not asked yet: the opt-out was cut short, and has to be run again\n"
    )
    assert failing.seen == []
    assert machine("opt-out").stderr == "http: erased what it held of this install\n"


def test_where_the_decision_cannot_be_renewed_nobody_is_asked_yet(machine, failing: FaultServer) -> None:
    install = agree(machine, http=failing.endpoint)
    consent = load_consent(machine.home)
    assert consent is not None
    note(machine.home, Owed(install, consent.generation, "", {"http": f"http endpoint={failing.endpoint}"}))
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"http: is not asked yet: {machine.home.consent} cannot be written: File too large\n")
    assert asked(failing) == []


LIMITED = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
from cmdorc_telemetry.cli import telemetry
try:
    telemetry(["erase"])
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


def test_a_decision_that_cannot_be_read_sends_nothing_so_that_all_can_be_asked(machine, failing: FaultServer) -> None:
    pending(machine, failing)
    machine.home.consent.write_text("???")
    assert machine("erase").stderr == "http: erased what it held of this install\n"


def test_two_commands_at_once_ask_and_neither_loses_what_the_other_notes(machine, failing: FaultServer) -> None:
    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{failing.endpoint}"\n')
    where = {"http": f"http endpoint={failing.endpoint}"}
    for number in range(8):
        note(machine.home, Owed(f"00000000-0000-4000-8000-{number:012}", "", "", where))
    failing.fail("slow-answer")
    command: Callable[[], Any] = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-m", "cmdorc_telemetry", "erase"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    running = [command(), command()]
    failing.wait_for(lambda server: len(asked(server)) >= 1)
    note(machine.home, Owed("00000000-0000-4000-8000-999999999999", "", "", {"gone": "gone"}))
    for each in running:
        each.communicate(timeout=30)
    assert owed(machine) == {"00000000-0000-4000-8000-999999999999": ("gone",)}


def test_a_lock_that_nobody_holds_stays_where_it_is(machine, failing: FaultServer) -> None:
    pending(machine, failing)
    machine.home.locks.mkdir()
    with FileLock(machine.home.locks / "http.lock"):
        pass
    assert machine("erase").stderr == "http: erased what it held of this install\n"
