"""``opt-out``: sending ends, servers are asked to erase, and what was recorded is deleted, by name."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cmdorc_telemetry import NoopReporter, Telemetry
from cmdorc_telemetry.cli import erasure, optout
from cmdorc_telemetry.config import read_table
from cmdorc_telemetry.consent import CORE_SPEC, Grant, load_consent, save_grant
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.identity import load_identity

SERVER = """
import asyncio
from msgspec import Struct
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.errors import RetryLater

class Server(TelemetryReporter):
    class Settings(Struct):
        erases: str = "yes"

    async def report(self, event, payload):
        with open("sent.txt", "a") as file:
            print(event, file=file)

    async def erase(self, install_ids):
        with open("erased.txt", "a") as file:
            print(*install_ids, file=file)
        match self.settings.erases:
            case "no":
                return False
            case "raises":
                raise SystemExit("bye\\nbye")
            case "later":
                raise RetryLater("come back")
            case "sleeps":
                await asyncio.sleep(60)
            case "hangs":
                import time
                time.sleep(60)
        return True

@hookimpl
def telemetry_reporters():
    return [Server]
"""


def serve(machine, *settings: str) -> str:
    """A home that is opted in to a server for each of ``settings``, with an event delivered. The install id."""
    machine.plugin("server", SERVER)
    places = "".join(
        f'[telemetry.to.s{number}]\nplugin = "server"\nerases = "{each}"\n' for number, each in enumerate(settings)
    )
    machine.config(f'[telemetry]\nplugins = ["server"]\n{places}')
    machine.opt_in()
    machine.record()
    machine("flush")
    identity = load_identity(machine.home)
    assert identity is not None
    return identity.install_id


def test_everything_goes_but_configuration_and_decision(machine) -> None:
    install = serve(machine, "yes")
    machine.record()
    result = machine("opt-out")
    assert result.stderr == "s0: erased what it held of this install\n"
    assert (machine.work / "erased.txt").read_text() == f"{install}\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "Telemetry is off. Nothing is recorded."
    root = machine.home.root
    assert f"deleted  {machine.home.journal} (1 segment)" in lines
    for name in ("telemetry/spool.db", "telemetry/history.db", "telemetry_install_id", "telemetry_salt"):
        assert f"deleted  {root / name}" in lines
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}
    assert sorted(path.name for path in machine.home.telemetry.iterdir()) == ["consent.toml"]
    assert read_table(machine.home.config)["telemetry"]["enabled"] is False
    consent = load_consent(machine.home)
    assert consent is not None
    assert not consent.grants[CORE_SPEC].record
    assert consent.grants[CORE_SPEC].decided_at
    assert machine("status").stdout.startswith("Telemetry is off. Nothing is recorded.\n")


def test_every_file_beside_the_databases_goes_and_what_is_unknown_stays(machine) -> None:
    machine.opt_in()
    machine.record()
    machine.record()
    home = machine.home
    for name in ("spool.db-wal", "spool.db-shm", "spool.db.corrupt-1234", "spool.db.suspect", "history.db-wal"):
        (home.telemetry / name).write_bytes(b"")
    for name in ("x.seg", "x.corrupt", "x.new", "notes.txt"):
        (home.journal / name).write_bytes(b"")
    home.locks.mkdir()
    (home.locks / "code-1.owner").write_bytes(b"")
    lines = machine("opt-out").stdout.splitlines()
    assert f"deleted  {home.journal} (5 segments)" in lines
    assert f"deleted  {home.telemetry}/spool.db.corrupt-1234" in lines
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml", "telemetry/journal/notes.txt"}


def test_where_nobody_decided_the_no_is_recorded(machine) -> None:
    result = machine("opt-out")
    assert result.stdout == "Telemetry is off. Nothing is recorded.\nThere was nothing to delete.\n"
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}
    assert machine.json("status")["decided_by"] == "you"
    assert machine("opt-out").stdout == result.stdout


def test_debug_leaves_a_file_that_can_be_read(machine) -> None:
    machine.config(
        '[telemetry]\nlevel = "debug"\ndebug_consent_given = true\ndebug_consent_expires = 2020-01-01T00:00:00Z\n'
    )
    machine("opt-out")
    assert read_table(machine.home.config) == {"telemetry": {"enabled": False}}


def test_other_specs_are_opted_out_of_too(machine) -> None:
    save_grant(machine.home, "other.app", Grant(True))
    machine("opt-out")
    consent = load_consent(machine.home)
    assert consent is not None
    assert {name: each.record for name, each in consent.grants.items()} == {CORE_SPEC: False, "other.app": False}


# -- servers ------------------------------------------------------------------------------------------------------


def test_local_only_asks_nobody(machine) -> None:
    serve(machine, "yes")
    assert machine("opt-out", "--local-only").stderr == ""
    assert not (machine.work / "erased.txt").exists()
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


def test_what_did_not_confirm_is_told_with_the_id_and_all_is_deleted_still(machine) -> None:
    install = serve(machine, "no", "raises", "later", "yes")
    result = machine("opt-out", code=1)
    assert result.stderr.splitlines() == [
        f"s0: did not confirm that it erased this install. The install was {install}",
        f"s1: did not erase: SystemExit: bye bye. The install was {install}",
        f"s2: did not erase: come back. The install was {install}",
        "s3: erased what it held of this install",
    ]
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


@pytest.mark.parametrize("how", ["sleeps", "hangs"])
def test_a_server_that_does_not_answer_is_left_behind(machine, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    install = serve(machine, how)
    monkeypatch.setattr(erasure, "ERASE_SECONDS", 0.1)
    result = machine("opt-out", code=1)
    assert result.stderr == f"s0: gave no answer in time. The install was {install}\n"
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


def test_a_reporter_that_cannot_erase_says_so(machine) -> None:
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    machine.opt_in()
    assert machine("opt-out").stderr == "jot: has no way to erase what it was sent\n"


def test_a_destination_whose_plugin_is_gone_cannot_be_asked(machine) -> None:
    install = serve(machine, "yes")
    text = machine.home.config.read_text()
    machine.home.config.write_text(text.replace('plugins = ["server"]', "plugins = []"))
    result = machine("opt-out", code=1)
    assert result.stderr == (
        f"s0: could not be asked: plugin server is not enabled. The install was {install}\n"
    )  # fmt: skip


def test_nobody_is_told_of_this_install_who_was_not_agreed_to(machine) -> None:
    serve(machine, "yes")
    with machine.home.config.open("a") as file:
        file.write('[telemetry.to.new]\nplugin = "server"\n')
    assert machine("opt-out").stderr == "s0: erased what it held of this install\n"


def test_while_switched_off_for_now_who_was_agreed_to_is_asked(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(machine, "yes")
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert machine("opt-out").stderr == "s0: erased what it held of this install\n"


def test_an_install_id_that_cannot_be_read(machine) -> None:
    serve(machine, "yes")
    machine.home.install_id.write_text("???")
    result = machine("opt-out", code=1)
    assert result.stderr.startswith("nobody could be asked to erase this install: ")
    assert not machine.home.install_id.exists()


# -- sending ends first -------------------------------------------------------------------------------------------


def test_a_batch_on_its_way_is_waited_for(machine) -> None:
    serve(machine, "yes")
    lock = FileLock(machine.home.locks / "s0.lock")
    assert lock.acquire(wait=False)
    order: list[str] = []

    def arrive() -> None:
        while True:  # a sender looks at the decision before each batch: it must find the no
            consent = load_consent(machine.home)
            if consent is not None and not consent.grants[CORE_SPEC].record:
                break
            time.sleep(0.01)
        order.append("said no")
        end = time.monotonic() + 0.3  # all that while the batch is on its way
        while time.monotonic() < end and not (machine.work / "erased.txt").exists():
            time.sleep(0.01)
        order.append("asked" if (machine.work / "erased.txt").exists() else "arrived")
        lock.release()

    sender = threading.Thread(target=arrive)
    sender.start()
    machine("opt-out")
    sender.join()
    assert order == ["said no", "arrived"]
    assert (machine.work / "erased.txt").exists()


def test_a_sender_that_does_not_end_does_not_stop_it(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(machine, "yes")
    monkeypatch.setattr(optout, "SENDING_SECONDS", 0.05)
    lock = FileLock(machine.home.locks / "s0.lock")
    assert lock.acquire(wait=False)
    machine("opt-out")
    lock.release()
    assert (machine.work / "erased.txt").exists()


def test_a_running_program_stops(machine) -> None:
    serve(machine, "yes")
    sent = (machine.work / "sent.txt").read_text()
    program = machine.program()
    program.fire("cmdorc_completed", machine.run)
    machine("opt-out")
    assert program.flush(5) is False
    program.fire("cmdorc_completed", machine.run)
    program.close()
    assert (machine.work / "sent.txt").read_text() == sent
    assert machine.json("status")["segments"] == 0


def test_a_program_with_a_reporter_of_its_own_stops(machine) -> None:
    machine.opt_in()
    program = Telemetry.start(reporter=NoopReporter())
    program.fire("cmdorc_completed", machine.run)
    assert program.flush(10)
    machine("opt-out")
    program.close()
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


# -- the local file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugins", ['["file"]', "[]"])
def test_the_local_file_and_what_it_rotated_to_are_deleted(machine, plugins: str) -> None:
    target = machine.folder / "elsewhere" / "events.jsonl"
    target.parent.mkdir()
    (machine.work / "link.jsonl").symlink_to(target)
    machine.config(f'[telemetry]\nplugins = {plugins}\nlocal_file = "{machine.work}/link.jsonl"\n')
    machine.opt_in()
    machine.record()
    for name in ("events.jsonl", "events.jsonl.1", "events.jsonl.12", "events.jsonl.lock", "events.jsonl.bak", "other"):
        (target.parent / name).write_text("{}\n")
    result = machine("opt-out", "--local-only")
    assert f"deleted  {target}.12\n" in result.stdout
    assert f"deleted  {machine.work}/link.jsonl\n" in result.stdout
    assert sorted(path.name for path in target.parent.iterdir()) == ["events.jsonl.bak", "other"]
    assert not (machine.work / "link.jsonl").is_symlink()


def test_a_local_file_below_the_home_directory(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(machine.folder))
    machine.config('[telemetry]\nplugins = ["file"]\nlocal_file = "~/events.jsonl"\n')
    machine.opt_in()
    machine.record()
    machine("flush")
    assert (machine.folder / "events.jsonl").exists()
    result = machine("opt-out")
    assert result.stderr == "file: erased what it held of this install\n"
    assert not (machine.folder / "events.jsonl").exists()
    assert "deleted  ~/home/telemetry_salt\n" in result.stdout


def test_a_local_file_that_is_none(machine) -> None:
    machine.config('[telemetry]\nplugins = ["file"]\nlocal_file = "/dev/null"\n')
    machine("opt-out", "--local-only")
    assert Path("/dev/null").exists()
    machine.config('[telemetry]\nplugins = ["file"]\n[telemetry.to.file]\npath_env = "NOT_SET"\n')
    machine("opt-out", "--local-only")
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{machine.folder}/no/such/folder"\n')
    machine("opt-out", "--local-only")


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_configuration_that_cannot_be_read_does_not_stand_in_the_way(machine) -> None:
    machine.opt_in()
    machine.record()
    machine.home.config.write_text("[telemetry\n")
    result = machine("opt-out", code=1)
    assert result.stderr.startswith(f"error: {machine.home.config}: is not valid TOML")
    assert result.stderr.endswith("It is left as it is; no server was asked to erase anything\n")
    assert machine.files()["config.toml"] == b"[telemetry\n"
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


def test_a_decision_that_cannot_be_read_is_replaced(machine) -> None:
    machine.opt_in()
    machine.home.consent.write_text("???")
    machine("opt-out")
    consent = load_consent(machine.home)
    assert consent is not None
    assert not consent.grants[CORE_SPEC].record


def test_a_configuration_that_cannot_be_written(machine) -> None:
    machine.opt_in()
    machine.home.config.unlink()
    machine.home.config.symlink_to("/proc/nothing/config.toml")
    result = machine("opt-out", code=1)
    assert result.stderr == "error: /proc/nothing cannot be created: No such file or directory\n"
    assert not machine.home.install_id.exists()


def test_what_cannot_be_deleted_is_told(machine) -> None:
    machine.opt_in()
    machine.home.install_id.unlink()
    machine.home.install_id.mkdir()
    result = machine("opt-out", "--local-only", code=1)
    assert result.stderr == f"error: {machine.home.install_id} could not be deleted: Is a directory\n"
    assert not machine.home.salt.exists()
    assert os.listdir(machine.home.telemetry) == ["consent.toml"]
