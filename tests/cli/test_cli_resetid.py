"""``reset-id``: another id and salt, the old id erased, and nothing recorded under it sent any more."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from cmdorc_telemetry import files
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.config import TelemetryLevel
from cmdorc_telemetry.consent import Grant, load_consent, renew, save_decision
from cmdorc_telemetry.erasure import load_owed
from cmdorc_telemetry.errors import ConsentError, StorageError
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.identity import Identity, load_identity
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import FaultServer
from cmdorc_telemetry.types import Gated

from ..model.tracer import SUPPORTED, run_until
from .installs import erasing, identity, reporting

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(answer=erasing) as server:
        yield server


def agree(machine, server: FaultServer, more: str = "") -> Identity:
    """A home that reports to the server, with an event delivered. Its identity."""
    return reporting(machine, f'[telemetry]\nplugins = ["http", "file"]\nendpoint = "{server.endpoint}"\n{more}')


def sent(server: FaultServer) -> list[tuple[str, str]]:
    """What the server saw, in order: ("DELETE", id) and, for each event, ("POST", its id)."""
    seen: list[tuple[str, str]] = []
    for request in server.seen:
        if request.method == "DELETE":
            seen.append(("DELETE", request.path.rpartition("/")[2]))
        elif request.method == "POST":
            seen += [("POST", json.loads(line)["anonymous_install_id"]) for line in request.plain.splitlines()]
    return seen


def check(server: FaultServer) -> Counter[str]:
    """Nothing of an id came once its erasure had been asked for. How many events of each id came."""
    erased: set[str] = set()
    events: Counter[str] = Counter()
    for method, install in sent(server):
        if method == "DELETE":
            erased.add(install)
        else:
            assert install not in erased, "an install that was erased is there again"
            events[install] += 1
    return events


def test_another_id_and_salt_and_the_old_one_erased(machine, server: FaultServer) -> None:
    old = agree(machine, server)
    consent = load_consent(machine.home)
    result = machine("reset-id")
    new = identity(machine.home)
    assert new.install_id != old.install_id
    assert new.salt != old.salt
    assert result.stdout == f"The install id is {new.install_id} now, and the salt is another one.\n"
    assert result.stderr == "http: erased what it held of this install\n"
    assert sent(server)[-1] == ("DELETE", old.install_id)
    assert not machine.home.erasure.exists()
    renewed = load_consent(machine.home)
    assert consent is not None
    assert renewed is not None
    assert renewed.generation != consent.generation
    assert list(renewed.generations) == [renewed.generation]
    assert renewed._replace(generation="", generations={}) == consent._replace(generation="", generations={})
    machine.record()
    machine("flush")
    assert check(server) == {old.install_id: 2, new.install_id: 2}


def test_what_waited_under_the_old_id_is_not_sent_any_more(machine, server: FaultServer) -> None:
    """Not to a destination of the user's own either: it was asked to erase that id, too."""
    with FaultServer(answer=erasing) as team:
        place = f'[telemetry.to.team]\nplugin = "http"\nendpoint = "{team.endpoint}"\naudience = "private"\n'
        old = agree(machine, server, place)
        for _ in range(3):
            machine.record()
        result = machine("reset-id")
        assert "http: 6 events recorded under the old id will not be sent.\n" in result.stdout
        assert "team: 6 events recorded under the old id will not be sent.\n" in result.stdout
        assert set(result.stderr.splitlines()) == {
            "http: erased what it held of this install", "team: erased what it held of this install",
        }  # fmt: skip
        machine.record()
        machine("flush")
        new = identity(machine.home).install_id
        assert check(server) == check(team) == {old.install_id: 2, new: 2}
    with closing(Spool(machine.home.spool)) as spool:
        ledgers = spool.ledger()
    for name in ("http", "team"):
        assert ledgers[name].dropped == {"withdrawn-consent": 6}
        assert ledgers[name].recorded == 10
    assert ledgers["history"].acknowledged == 10  # which keeps its own


def test_what_is_on_this_machine_stays(machine, server: FaultServer) -> None:
    log = machine.folder / "log.jsonl"
    agree(machine, server, f'local_file = "{log}"\n')
    before = log.read_text()
    assert machine("reset-id").stderr == "http: erased what it held of this install\n"
    assert log.read_text() == before
    assert "Tests" in machine("stats").stdout


def test_a_server_that_is_down_is_asked_later(machine, server: FaultServer) -> None:
    old = agree(machine, server)
    server.fail("refused")
    result = machine("reset-id", code=1)
    assert result.stderr.startswith("http: not confirmed: ")
    assert "  telemetry erase --forget  drops even that\n" in result.stderr
    second = identity(machine.home)
    assert machine("reset-id", code=1).stderr.count("http: not confirmed: ") == 1
    assert [each.install_id for each in load_owed(machine.home)] == [old.install_id, second.install_id]
    server.fail(None)
    assert machine("status").stderr == "http: erased what it held of this install\n"
    machine.record()
    machine("flush")
    assert check(server) == {old.install_id: 2, identity(machine.home).install_id: 2}


def test_where_nothing_leaves_the_machine_the_id_is_another_one_still(machine) -> None:
    machine.config("[telemetry]\n")
    machine.opt_in("--local")
    old = identity(machine.home)
    assert machine("reset-id").stderr == ""
    new = identity(machine.home)
    assert new.install_id != old.install_id
    assert new.salt != old.salt
    assert not machine.home.erasure.exists()


def test_for_now_off_is_no_reason_not_to(machine, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    old = agree(machine, server)
    machine.record()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    result = machine("reset-id")
    assert result.stderr == "http: erased what it held of this install\n"
    monkeypatch.delenv("DO_NOT_TRACK")
    machine("flush")
    assert check(server) == {old.install_id: 2}


def test_switched_off_for_now_before_anything_was_sent(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.config("[telemetry]\n")
    machine.opt_in("--local")
    machine.home.spool.unlink()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert machine("reset-id").stdout.startswith("The install id is ")


def test_a_spool_that_cannot_be_read_does_not_stand_in_the_way(machine, server: FaultServer) -> None:
    old = agree(machine, server)
    shutil.rmtree(machine.home.locks)
    machine.home.spool.write_bytes(b"")
    with closing(Spool(machine.home.spool)) as spool:
        spool._db.execute("PRAGMA user_version=999")
    assert machine("reset-id").stdout.startswith("The install id is ")
    assert sent(server)[-1] == ("DELETE", old.install_id)


# -- where there is nothing to reset ------------------------------------------------------------------------------


def test_off_and_without_an_id(machine) -> None:
    result = machine("reset-id")
    assert (result.stdout, result.stderr) == ("", "Telemetry is off, and this install has no id.\n")
    assert machine.files() == {}


def test_off_with_an_id_that_was_left(machine) -> None:
    machine.opt_in()
    save_decision(machine.home, {CORE_SPEC: Grant()})
    assert machine("reset-id").stderr == (
        "Telemetry is off, and this install has still an id.\nTo delete it, and have it erased: telemetry opt-out\n"
    )


def test_under_an_operator_there_is_no_decision_to_renew(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMDORC_TELEMETRY", "minimal")
    machine.record()
    before = machine.home.install_id.read_bytes()
    assert machine("reset-id", code=2).stderr == (
        "error: environment: CMDORC_TELEMETRY: decides here, and what it allowed cannot be taken back; "
        "expected a decision of yours: telemetry opt-in, or telemetry opt-out\n"
    )
    assert machine.home.install_id.read_bytes() == before


def test_a_decision_that_cannot_be_read(machine) -> None:
    machine.opt_in()
    machine.home.consent.write_text("???")
    before = machine.files()
    assert "cannot be used" in machine("reset-id", code=1).stderr
    assert machine.files() == before


def test_nothing_is_renewed_where_nobody_decided(machine) -> None:
    with pytest.raises(ConsentError, match=r"holds no decision$"):
        renew(machine.home)
    assert not machine.home.consent.exists()


def test_another_applications_yes_is_one_to_go_on_with(machine) -> None:
    save_decision(machine.home, {"other.app": Grant(True, TelemetryLevel.MINIMAL)})
    assert machine("reset-id").stdout.startswith("The install id is ")


# -- half-way -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["telemetry_salt", "telemetry_install_id", "consent.toml"])
def test_what_fails_half_way_is_gone_on_with_by_the_next_command(
    machine, server: FaultServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    old = agree(machine, server)
    machine.record()
    replace = files.replace

    def full(path: Any, data: bytes) -> None:
        if path.name == name:
            raise StorageError(f"{path} cannot be written: No space left on device")
        replace(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", full)
        result = machine("reset-id", code=1)
    assert result.stderr.endswith(
        f"{name} cannot be written: No space left on device. "
        "The old id is given up; the next command goes on from here\n"
    )
    machine("erase")
    assert load_identity(machine.home) != old
    machine.record()
    machine("flush")
    assert check(server) == {old.install_id: 2, identity(machine.home).install_id: 2}


def test_what_cannot_be_noted_changes_nothing(machine, server: FaultServer) -> None:
    agree(machine, server)
    before = machine.files()
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"error: {machine.home.erasure} cannot be written: File too large\n")
    for path in ("telemetry_install_id", "telemetry_salt", "telemetry/consent.toml"):
        assert machine.files()[path] == before[path]
    assert not machine.home.erasure.exists()


LIMITED = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
from cmdorc_telemetry.cli import telemetry
try:
    telemetry(["reset-id"])
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


@pytest.mark.skipif(not SUPPORTED, reason="ptrace is Linux's, and the calls are numbered by processor")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.timeout(600)
def test_killed_at_any_moment_nothing_of_an_erased_id_is_ever_sent(machine) -> None:
    """`make model-test` kills at every system call; the suite at some."""
    machine.plugin("server", SERVER)
    machine.config('[telemetry]\nplugins = ["server"]\n')
    machine.opt_in()
    machine.record()
    machine("flush")
    machine.record()
    old = identity(machine.home)
    kept, seen = machine.folder / "kept", machine.work / "seen.txt"
    shutil.copytree(machine.home.root, kept)
    seen_before = seen.read_text()

    def killed_at(call: int) -> tuple[bool, int]:
        shutil.rmtree(machine.home.root)
        shutil.copytree(kept, machine.home.root)
        seen.write_text(seen_before)
        done, calls = run_until(lambda: group(["reset-id"], standalone_mode=False), call)
        noted = old.install_id in [each.install_id for each in load_owed(machine.home)]
        was_asked = f"erase {old.install_id}" in seen.read_text()
        assert noted or was_asked or load_identity(machine.home) == old
        machine("flush")  # which asks, when it has sent what it may
        machine.record()
        machine("flush")
        lines = seen.read_text().splitlines()
        if noted or was_asked:
            assert lines.index(f"erase {old.install_id}") > 0
            after = lines[lines.index(f"erase {old.install_id}") :]
            assert f"event {old.install_id}" not in after
            assert load_identity(machine.home) != old
            assert not load_owed(machine.home)
        assert lines[-1] == f"event {identity(machine.home).install_id}"
        return done, calls

    done, calls = killed_at(-1)
    assert done
    assert calls > 50
    if os.environ.get("MODEL_EVERY_CALL"):
        for call in range(1, calls + 1):
            killed_at(call)
        return
    for call in random.Random(calls).sample(range(1, calls), 6):
        killed_at(call)


SERVER = """
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Server(TelemetryReporter):
    async def report(self, event, payload):
        with open("seen.txt", "a") as file:
            print("event", payload["anonymous_install_id"], file=file)

    async def erase(self, install_ids):
        with open("seen.txt", "a") as file:
            print("erase", *install_ids, file=file)
        return True

@hookimpl
def telemetry_reporters():
    return [Server]
"""


# -- programs that run meanwhile --------------------------------------------------------------------------------------


BUSY = """
import sys, time
from cmdorc_telemetry import CompletedRun, Telemetry
from cmdorc_telemetry.application import CMDORC
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
run = CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5)
print("began", flush=True)
while not __import__("select").select([sys.stdin], [], [], 0.002)[0]:
    telemetry.fire("cmdorc_completed", run)
    telemetry.flush(0.05)
telemetry.flush(5)
telemetry.close()
"""


def test_programs_that_record_all_the_while_never_bring_an_erased_id_back(machine, server: FaultServer) -> None:
    """Two that live long and flush all the time, many that begin and end, and the id reset again and again."""
    agree(machine, server)
    programs = [subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                for _ in range(2)]  # fmt: skip
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == b"began\n"
    ids = [identity(machine.home).install_id]
    for _ in range(5):
        before = len(server.seen)
        machine.record()
        server.wait_for(lambda each, before=before: len(each.seen) > before + 2)  # type: ignore[misc]
        machine("reset-id")
        ids.append(identity(machine.home).install_id)
    began = time.monotonic()
    while not any(method == "POST" and install == ids[-1] for method, install in sent(server)):
        assert time.monotonic() - began < 20, "nobody goes on under the new id"
        time.sleep(0.05)
    for program in programs:
        program.communicate(b"\n", timeout=30)
    events = check(server)
    assert set(events) <= set(ids)
    assert [install for method, install in sent(server) if method == "DELETE"] == ids[:-1]


def test_a_batch_on_its_way_is_waited_for(machine, server: FaultServer) -> None:
    old = agree(machine, server)
    lock = FileLock(machine.home.locks / "http.lock")
    assert lock.acquire(wait=False)
    command = subprocess.Popen([sys.executable, "-m", "cmdorc_telemetry", "reset-id"], stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline().startswith(b"The install id is ")
    time.sleep(0.3)  # it has all reason to ask now
    assert ("DELETE", old.install_id) not in sent(server)
    lock.release()
    command.communicate(timeout=20)
    assert command.returncode == 0
    assert sent(server)[-1] == ("DELETE", old.install_id)


def drops(server: FaultServer) -> list[str]:
    """What batches told of losses, in order."""
    found = [dict(request.headers).get("Telemetry-Drops", "") for request in server.seen if request.method == "POST"]
    return [text for text in found if text]


def test_no_count_of_losses_links_the_new_id_to_the_old_one(machine, server: FaultServer) -> None:
    agree(machine, server)

    def lose(name: str) -> None:
        with closing(Spool(machine.home.spool)) as spool:
            assert spool.take_in(name, Gated(), before=0, after=1, drops={"storage-failed": 7})
        machine.record()
        machine("flush")

    lose("before")
    (old,) = set(drops(server))
    machine("reset-id")
    machine.record()
    machine("flush")
    assert drops(server)[-1] == old, "a batch under the new id told of losses under the old one"
    lose("after")
    new = drops(server)[-1]
    assert old.endswith("; storage-failed=7")
    assert new.endswith("; storage-failed=7")
    assert new.partition(";")[0] != old.partition(";")[0]
