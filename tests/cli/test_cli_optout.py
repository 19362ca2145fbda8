"""``opt-out``: sending ends, servers are asked to erase, and what was recorded is deleted, by name."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdorc_telemetry import NoopReporter, Telemetry
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.cli import erase, erasure, optout
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.cli.deletion import local_files
from cmdorc_telemetry.config import read_table
from cmdorc_telemetry.consent import Grant, load_consent, save_decision
from cmdorc_telemetry.erasure import load_owed
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.identity import load_identity, stored_identity

from ..model.tracer import SUPPORTED, run_until

SERVER = """
import asyncio
from msgspec import Struct
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.errors import Rejected, RetryLater

class Server(TelemetryReporter):
    class Settings(Struct):
        erases: str = "yes"
        endpoint: str = ""

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
            case "never":
                raise Rejected("it has no such thing (404)")
            case "sleeps":
                await asyncio.sleep(60)
            case "hangs":
                import time
                time.sleep(5)
        return True

@hookimpl
def telemetry_reporters():
    return [Server]
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, the next command hears the answer."""
    monkeypatch.setattr(erase, "RETRY_SECONDS", 20.0)


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
    assert f"deleted  {machine.home.audit} (1 file)" in lines
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
    home.audit.mkdir()
    for name in ("http.jsonl", "http.1.jsonl", "code-12ab.jsonl", "notes.txt"):
        (home.audit / name).write_bytes(b"")
    for name in ("own/key", "own/seen.db", "own/more/notes.txt", "stray.txt"):
        (home.plugins / name).parent.mkdir(parents=True, exist_ok=True)
        (home.plugins / name).write_bytes(b"")
    written = (".telemetry_salt.0123abcd", ".telemetry_install_id.0123abcd", "telemetry/.erasure.toml.0123abcd",
               "telemetry/.consent.toml.0123abcd", "telemetry/erasure.toml.corrupt-12",
               "telemetry_salt.corrupt-12")  # fmt: skip
    for name in (*written, ".telemetry_salt.mine", "telemetry/.notes.toml.0123abcd"):
        (home.root / name).write_bytes(b"")
    lines = machine("opt-out").stdout.splitlines()
    assert f"deleted  {home.journal} (5 segments)" in lines
    assert f"deleted  {home.telemetry}/spool.db.corrupt-1234" in lines
    assert f"deleted  {home.audit} (3 files)" in lines
    assert f"deleted  {home.plugins / 'own'} (2 files)" in lines
    assert set(machine.files()) == {
        "config.toml", "telemetry/consent.toml", "telemetry/journal/notes.txt", "telemetry/audit/notes.txt",
        ".telemetry_salt.mine", "telemetry/.notes.toml.0123abcd", "telemetry/plugins/own/more/notes.txt",
        "telemetry/plugins/stray.txt",
    }  # fmt: skip


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
    save_decision(machine.home, {"other.app": Grant(True)})
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


def left_over(machine) -> dict[str, tuple[str, ...]]:
    """Ids that are to be erased → the destinations that have not confirmed."""
    return {each.install_id: tuple(each.destinations) for each in load_owed(machine.home)}


KEPT = """\
Kept is only the id that is to be erased, and where. Each telemetry command asks again.
  telemetry erase           asks now
  telemetry erase --forget  drops even that
"""
OFF = {"config.toml", "telemetry/consent.toml"}
OWING = {*OFF, "telemetry/erasure.toml", "telemetry/erasure.lock"}


def test_what_did_not_confirm_is_told_and_kept_and_all_else_is_deleted(machine) -> None:
    install = serve(machine, "no", "raises", "later", "yes", "never")
    result = machine("opt-out", code=1)
    assert (
        result.stderr
        == (
            "s0: did not confirm that it erased this install\n"
            "s1: not confirmed: SystemExit: bye bye\n"
            "s2: not confirmed: come back\n"
            "s3: erased what it held of this install\n"
            "s4: it has no such thing (404)\n"
        )
        + KEPT
    )
    assert left_over(machine) == {install: ("s0", "s1", "s2")}
    assert set(machine.files()) == OWING
    assert stat.S_IMODE(machine.home.erasure.stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["sleeps", "hangs"])
def test_a_server_that_does_not_answer_is_left_behind(machine, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    install = serve(machine, how)
    monkeypatch.setattr(erasure, "ERASE_SECONDS", 0.1)
    result = machine("opt-out", code=1)
    assert result.stderr == f"s0: gave no answer in time\n{KEPT}"
    assert left_over(machine) == {install: ("s0",)}
    assert set(machine.files()) == OWING


def test_a_reporter_that_cannot_erase_says_so(machine) -> None:
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    machine.opt_in()
    identity = load_identity(machine.home)
    assert identity is not None
    told = f"jot: has no way to erase what it was sent: whoever runs it may, by the id {identity.install_id}\n"
    assert machine("opt-out").stderr == told


def test_a_destination_whose_plugin_is_gone_cannot_be_asked(machine) -> None:
    install = serve(machine, "yes")
    (info,) = machine.site.glob("server-*")
    info.rename(machine.site / "gone")
    result = machine("opt-out", code=1)
    assert result.stderr.startswith("s0: cannot be asked: plugin server is not installed: ")
    assert result.stderr.endswith(f"\n{KEPT}")
    assert left_over(machine) == {install: ("s0",)}
    (machine.site / "gone").rename(info)
    assert machine("plugins").stderr == "s0: erased what it held of this install\n"
    assert (machine.work / "erased.txt").read_text() == f"{install}\n"


def test_a_plugin_that_was_disabled_is_asked_still(machine) -> None:
    install = serve(machine, "yes")
    machine("disable", "server")
    assert machine("opt-out").stderr == "s0: erased what it held of this install\n"
    assert (machine.work / "erased.txt").read_text() == f"{install}\n"
    assert set(machine.files()) == OFF


def test_a_plugin_that_is_listed_and_broken_cannot_be_asked(machine) -> None:
    serve(machine, "yes")
    machine.forget_modules()
    (machine.site / "server.py").write_text("raise RuntimeError")
    told = machine("opt-out", code=1).stderr
    assert told.count("RuntimeError") == 1
    assert "s0: cannot be asked: plugin server is broken, or has no reporter server: telemetry plugins\n" in told


def test_a_destination_that_is_gone_from_the_configuration_is_named_and_where_it_led(machine) -> None:
    install = serve(machine, "yes", "yes")
    machine.config('[telemetry]\nplugins = ["server"]\n[telemetry.to.s1]\nplugin = "server"\nerases = "yes"\n')
    result = machine("opt-out", code=1)
    assert result.stderr == (
        f"s0: cannot be asked: it is not in {machine.home.config} any more (it was server)\n"
        f"s1: erased what it held of this install\n{KEPT}"
    )
    assert left_over(machine) == {install: ("s0",)}


def test_a_destination_that_took_nothing_of_this_id_is_not_asked_for_long(machine) -> None:
    """Removed before the id was made: what is kept of it in the spool is of another time."""
    serve(machine, "yes", "yes")
    machine.config('[telemetry]\nplugins = ["server"]\n[telemetry.to.s1]\nplugin = "server"\nerases = "yes"\n')
    machine.opt_in()
    soon = time.time() + 5
    os.utime(machine.home.install_id, (soon, soon))
    assert machine("opt-out").stderr == "s1: erased what it held of this install\n"


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
    assert result.stderr.startswith("error: nobody can be asked to erase this install: ")
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


def test_nor_is_a_server_asked_that_somebody_took_over_sending_to(machine, monkeypatch) -> None:
    serve(machine, "yes")
    monkeypatch.setattr(optout, "SENDING_SECONDS", 0.05)
    monkeypatch.setattr(optout, "_TELL_SECONDS", 0.02)
    monkeypatch.setattr(erasure, "ERASE_SECONDS", 0.2)
    lock = FileLock(machine.home.locks / "s0.heir.lock")
    assert lock.acquire(wait=False)
    assert "s0: is not asked yet: a batch is still on its way" in machine("opt-out", code=1).stderr
    assert not (machine.work / "erased.txt").exists()
    lock.release()
    assert machine("erase").stdout == "Nothing is left to be erased.\n"


def test_a_history_that_a_suspended_program_may_write_once_more_is_told_of(machine, monkeypatch) -> None:
    machine.opt_in("--local")
    machine.record()
    machine("flush")
    monkeypatch.setattr(optout, "SENDING_SECONDS", 0.05)
    lock = FileLock(machine.home.locks / "history.lock")
    assert lock.acquire(wait=False)
    result = machine("opt-out", code=1)
    assert f"error: {machine.home.history} may be written once more" in result.stderr
    lock.release()
    machine("opt-out")
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


def test_who_still_sends_is_not_asked_before_that_is_over(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make the install there anew. Its lock stays: the next command has to find it."""
    install = serve(machine, "yes")
    monkeypatch.setattr(optout, "SENDING_SECONDS", 0.05)
    monkeypatch.setattr(optout, "_TELL_SECONDS", 0.02)
    monkeypatch.setattr(erasure, "ERASE_SECONDS", 0.2)
    lock = FileLock(machine.home.locks / "s0.lock")
    assert lock.acquire(wait=False)
    result = machine("opt-out", code=1)
    assert result.stderr == (
        "A batch is on its way: waiting until it has arrived.\n"
        f"s0: is not asked yet: a batch is still on its way to it\n{KEPT}"
    )
    assert set(machine.files()) == {*OWING, "telemetry/locks/s0.lock"}
    assert not (machine.work / "erased.txt").exists()
    machine("erase", code=1)
    assert not (machine.work / "erased.txt").exists()
    lock.release()
    assert machine("erase").stdout == "Nothing is left to be erased.\n"
    assert (machine.work / "erased.txt").read_text() == f"{install}\n"


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
    program = Telemetry.start(reporters=[NoopReporter()])
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
        (target.parent / name).write_text("" if name.endswith("lock") else '{"event":"e"}\n')
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
    assert result.stderr == ""
    assert "deleted  ~/events.jsonl\n" in result.stdout
    assert not (machine.folder / "events.jsonl").exists()
    assert "deleted  ~/home/telemetry_salt\n" in result.stdout


@pytest.mark.parametrize("audience", ["shared", "private"])
def test_a_file_of_another_name_is_deleted_like_the_local_file(machine, audience: str) -> None:
    target = machine.folder / "mine.jsonl"
    machine.config(
        '[telemetry]\nplugins = ["file"]\n[telemetry.to.mine]\nplugin = "file"\n'
        f'path = "{target}"\naudience = "{audience}"\n'
    )
    machine.opt_in()
    machine.record()
    machine("flush")
    assert target.exists()
    assert f"deleted  {target}\n" in machine("opt-out", "--local-only").stdout
    assert list(machine.folder.glob("mine*")) == []


def test_a_file_that_a_variable_named_is_told_of_where_it_names_none(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    target = machine.folder / "mine.jsonl"
    monkeypatch.setenv("WHERE", str(target))
    machine.config(
        '[telemetry]\nplugins = ["file"]\n'
        '[telemetry.to.mine]\nplugin = "file"\naudience = "private"\npath_env = "WHERE"\n'
    )
    machine.opt_in()
    machine.record()
    machine("flush")
    monkeypatch.delenv("WHERE")
    result = machine("opt-out", code=1)
    assert "telemetry.to.mine.path_env: 'WHERE' is not set" in result.stderr
    assert result.stderr.endswith("The file of 'mine' stays: nobody knows which it is\n")
    assert target.exists()


def test_a_file_destination_without_a_file(machine) -> None:
    machine.config('[telemetry]\n[telemetry.to.mine]\nplugin = "file"\n')
    machine.opt_in()
    assert machine("opt-out").stderr == ""


def test_an_id_that_was_never_made_is_nobodys_to_erase(machine) -> None:
    serve(machine, "yes")
    machine.home.install_id.unlink()
    assert machine("opt-out").stderr == ""
    assert not (machine.work / "erased.txt").exists()


def test_a_file_that_was_never_agreed_to_is_somebody_elses(machine) -> None:
    target = machine.folder / "thesis.txt"
    target.write_text("a thesis")
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{target}"\n')
    machine("opt-out")
    machine.config("")
    machine.opt_in()
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{target}"\n')
    machine("opt-out")
    assert target.read_text() == "a thesis"


def test_a_file_that_holds_something_else_stays_although_it_was_agreed_to(machine) -> None:
    target = machine.folder / "thesis.txt"
    target.write_text("a thesis")
    (machine.folder / "thesis.txt.1").write_text("its first draft")
    (machine.folder / "thesis.txt.lock").write_text("of another program")
    (machine.work / "link.jsonl").symlink_to(target)
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{machine.work}/link.jsonl"\n')
    machine.opt_in()
    result = machine("opt-out", code=1)
    assert f"error: {target} holds something else than events, and stays\n" in result.stderr
    assert sorted(path.name for path in machine.folder.glob("thesis*")) == [
        "thesis.txt", "thesis.txt.1", "thesis.txt.lock",
    ]  # fmt: skip
    assert (machine.work / "link.jsonl").read_text() == "a thesis"


@pytest.mark.parametrize("audience", ["shared", "private"])
def test_the_file_before_goes_too_where_another_one_was_named_since(machine, audience: str) -> None:
    for name in ("one", "two"):
        machine.config(f'[telemetry]\nplugins = ["file"]\n[telemetry.to.file]\naudience = "{audience}"\n'
                       f'path = "{machine.folder}/{name}.jsonl"\n')  # fmt: skip
        machine("opt-in", "--yes") if name == "one" else machine("review", "--yes")
        machine.record()
        machine("flush")
    assert len(list(machine.folder.glob("*.jsonl"))) == 2
    shown = machine("opt-out")
    assert shown.stderr == ""
    assert f"deleted  {machine.folder}/one.jsonl\n" in shown.stdout
    assert list(machine.folder.glob("*.jsonl*")) == []
    assert set(machine.files()) == OFF


def test_what_is_private_by_now_and_what_was_agreed_to_both_go(machine) -> None:
    text = '[telemetry]\nplugins = ["file"]\n[telemetry.to.file]\npath = "{}/{}.jsonl"\naudience = "{}"\n'
    machine.config(text.format(machine.folder, "one", "shared"))
    machine.opt_in()
    machine.record()
    machine("flush")
    machine.config(text.format(machine.folder, "two", "private"))
    machine.record()
    machine("flush")
    assert len(list(machine.folder.glob("*.jsonl"))) == 2
    assert machine("opt-out").stderr == ""
    assert list(machine.folder.glob("*.jsonl*")) == []


def test_a_file_that_a_variable_names_goes(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", str(machine.folder / "mine.jsonl"))
    machine.config('[telemetry]\nplugins = ["file"]\n[telemetry.to.mine]\nplugin = "file"\naudience = "private"\n'
                   'path_env = "WHERE"\n')  # fmt: skip
    machine.opt_in()
    machine.record()
    machine("flush")
    machine.config("[telemetry\n")  # whatever has become of it
    assert f"deleted  {machine.folder}/mine.jsonl\n" in machine("opt-out", code=1).stdout


def test_no_file_of_the_folder_that_one_happens_to_be_in(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.work / "own.jsonl").write_text('{"event":"e"}\n')
    assert list(local_files({"file": "file path=own.jsonl", "none": "file"}, [])) == []


def metrics(machine) -> Path:
    """A home that counts for the node exporter. The file."""
    target = machine.folder / "a.prom"
    machine.config('[telemetry]\nplugins = ["prometheus"]\n[telemetry.to.prometheus]\naudience = "private"\n'
                   f'path = "{target}"\n')  # fmt: skip
    machine.opt_in()
    machine.record()
    machine("flush")
    assert target.exists()
    return target


def another_port(machine) -> None:
    with machine.home.config.open("a") as file:
        file.write("port = 19888\n")


def no_table(machine) -> None:
    machine.config('[telemetry]\nplugins = ["prometheus"]\n')


def disabled(machine) -> None:
    machine("disable", "prometheus")


def forgotten(machine) -> None:
    machine.config("[telemetry]\n")


@pytest.mark.parametrize("options", [(), ("--local-only",)])
@pytest.mark.parametrize("change", [another_port, no_table, disabled, forgotten])
def test_what_a_reporter_wrote_on_this_machine_goes_whatever_the_configuration_says_by_now(
    machine, change: Callable[..., None], options: tuple[str, ...]
) -> None:  # fmt: skip
    target = metrics(machine)
    change(machine)
    assert machine("opt-out", *options).stderr == "prometheus: erased what it held of this install\n"
    assert not target.exists()
    assert set(machine.files()) == OFF


def test_nor_does_it_stay_where_something_was_recorded_since(machine) -> None:
    target = metrics(machine)
    machine.config(machine.home.config.read_text().replace("a.prom", "b.prom"))
    machine.record()
    machine("flush")
    told = machine("opt-out").stderr
    assert told == ("prometheus: erased what it held of this install\n"
                    f"prometheus (prometheus path={target}): erased what it held of this install\n")  # fmt: skip
    assert list(machine.folder.glob("*.prom")) == []
    assert set(machine.files()) == OFF


def test_where_it_leads_there_again_it_is_asked_once(machine) -> None:
    target = metrics(machine)
    for old, new in (("a.prom", "b.prom"), ("b.prom", "a.prom")):
        machine.config(machine.home.config.read_text().replace(old, new))
        machine.record()
        machine("flush")
    other = target.with_name("b.prom")
    told = machine("opt-out").stderr
    assert told == ("prometheus: erased what it held of this install\n"
                    f"prometheus (prometheus path={other}): erased what it held of this install\n")  # fmt: skip


def test_what_led_to_somebody_else_before_is_named(machine) -> None:
    machine.plugin("server", SERVER)
    for place in ("https://one.example", "https://two.example"):
        machine.config('[telemetry]\nplugins = ["server"]\n[telemetry.to.s]\nplugin = "server"\naudience = "private"\n'
                       f'endpoint = "{place}"\n')  # fmt: skip
        machine.opt_in()
        machine.record()
        machine("flush")
    told = machine("opt-out", code=1).stderr
    lead = "server endpoint=https://one.example"
    assert told == ("s: erased what it held of this install\n"
                    f"s ({lead}): is not asked: it leads elsewhere now (it was {lead})\n{KEPT}")  # fmt: skip


def test_who_wrote_a_file_is_told_all_that_said_where(machine) -> None:
    code = SERVER.replace("endpoint: str", "port: int = 0\n        path: str")
    machine.plugin("server", code.replace("print(*install_ids", "print(self.settings.port, self.settings.path"))
    machine.config('[telemetry]\nplugins = ["server"]\n[telemetry.to.s]\nplugin = "server"\npath = "/x y"\nport = 8\n')
    machine.opt_in()
    machine.config("[telemetry]\n")
    assert machine("opt-out").stderr == "s: erased what it held of this install\n"
    assert (machine.work / "erased.txt").read_text() == "8 /x y\n"


def test_a_file_that_nobody_is_there_to_delete_is_named(machine) -> None:
    target = machine.folder / "kept by.txt"
    machine.plugin("server", SERVER.replace("endpoint: str", "path: str"))
    machine.config(f'[telemetry]\nplugins = ["server"]\n[telemetry.to.s]\nplugin = "server"\npath = "{target}"\n')
    machine.opt_in()
    machine.config("[telemetry]\n")
    (info,) = machine.site.glob("server-*")
    info.rename(machine.site / "gone")
    told = machine("opt-out", code=1).stderr
    assert told == ("s: cannot be asked: plugin server is not there, or broken: telemetry plugins. "
                    f"Delete {target} yourself\n{KEPT}")  # fmt: skip


def test_a_place_that_is_more_than_a_file_of_this_machine_is_named_and_not_asked(machine) -> None:
    code = SERVER.replace("endpoint: str", "host: str = ''\n        path: str")
    machine.plugin("server", code)
    text = '[telemetry]\nplugins = ["server"]\n[telemetry.to.s]\nplugin = "server"\npath = "/x"\nhost = "{}"\n'
    machine.config(text.format("far.example"))
    machine.opt_in()
    machine.config(text.format("other.example"))
    told = machine("opt-out", code=1).stderr
    assert told == ("s: is not asked: it leads elsewhere now (it was server host=far.example path=/x). "
                    f"Delete /x yourself\n{KEPT}")  # fmt: skip
    assert not (machine.work / "erased.txt").exists()


def test_a_path_of_another_plugin_is_none_of_ours(machine) -> None:
    target = machine.folder / "thesis.txt"
    target.write_text("a thesis")
    machine.plugin("server", SERVER.replace("endpoint: str", "path: str"))
    machine.config(f'[telemetry]\nplugins = ["server"]\n[telemetry.to.file]\nplugin = "server"\npath = "{target}"\n')
    machine.opt_in()
    assert machine("opt-out").stderr == "file: erased what it held of this install\n"
    assert target.read_text() == "a thesis"


def test_a_local_file_that_is_none(machine) -> None:
    machine.config('[telemetry]\nplugins = ["file"]\nlocal_file = "/dev/null"\n')
    machine("opt-out", "--local-only")
    assert Path("/dev/null").exists()
    machine.config('[telemetry]\nplugins = ["file"]\n[telemetry.to.file]\naudience = "private"\npath_env = "NOT_SET"\n')
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
    assert "It is left as it is; no server can be asked to erase anything until it is right" in result.stderr
    assert machine.files()["config.toml"] == b"[telemetry\n"
    assert set(machine.files()) == {"config.toml", "telemetry/consent.toml"}


def test_where_the_configuration_is_wrong_servers_are_asked_when_it_is_right(machine) -> None:
    install = serve(machine, "yes")
    text = machine.home.config.read_text()
    machine.home.config.write_text("[telemetry\n")
    machine("opt-out", code=1)
    assert left_over(machine) == {install: ("s0",)}
    assert set(machine.files()) == OWING
    assert machine("status", code=2).stderr.count("\n") == 1  # says what is wrong once
    machine.home.config.write_text(text)
    assert machine("status").stderr == "s0: erased what it held of this install\n"


def test_a_decision_that_cannot_be_read_is_replaced(machine) -> None:
    machine.opt_in()
    machine.home.consent.write_text("???")
    machine("opt-out")
    consent = load_consent(machine.home)
    assert consent is not None
    assert not consent.grants[CORE_SPEC].record


def test_without_the_decision_the_spool_knows_who_was_agreed_to(machine) -> None:
    serve(machine, "yes")
    machine.home.consent.write_text("???")
    assert machine("opt-out").stderr == "s0: erased what it held of this install\n"


def test_without_the_spool_the_decision_knows_who_was_agreed_to(machine) -> None:
    serve(machine, "yes")
    machine.home.spool.write_text("???")
    assert machine("opt-out").stderr == "s0: erased what it held of this install\n"


def test_what_an_operator_allowed_is_erased_too(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.plugin("server", SERVER)
    machine.config('[telemetry]\nplugins = ["server"]\n')
    with monkeypatch.context() as patch:
        patch.setenv("CMDORC_TELEMETRY", "minimal")
        machine.record()
        machine("flush")
    assert (machine.work / "sent.txt").exists()
    assert machine("opt-out").stderr == "server: erased what it held of this install\n"


def test_a_note_that_cannot_be_written_ends_it_before_anything_changed(machine) -> None:
    serve(machine, "yes")
    before = machine.files()
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {machine.home.erasure} cannot be written: File too large\n"
    for name in (
        "config.toml",
        "telemetry_install_id",
        "telemetry_salt",
        "telemetry/consent.toml",
        "telemetry/spool.db",
    ):
        assert machine.files()[name] == before[name]
    assert not (machine.work / "erased.txt").exists()


LIMITED = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
from cmdorc_telemetry.cli import telemetry
try:
    telemetry(["opt-out"])
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


def test_a_note_that_cannot_be_read_makes_way(machine) -> None:
    serve(machine, "yes")
    machine.home.erasure.write_text("???")
    result = machine("opt-out")
    assert result.stderr.startswith(f"warning: {machine.home.erasure} was moved to {machine.home.erasure}.corrupt-")
    assert result.stderr.endswith("s0: erased what it held of this install\n")
    assert set(machine.files()) == OFF


# -- cut short ----------------------------------------------------------------------------------------------------


class Running:
    """``opt-out`` in a process of its own, with a server that was told to let it wait."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cmdorc_telemetry", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupted_when(self, reached: Callable[[], bool]) -> tuple[int, str, str]:
        """Ctrl-C as soon as it got so far: the exit code, and what it wrote."""
        deadline = time.monotonic() + 20
        while not reached():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=20)
        return self.process.returncode, output, errors


def test_ctrl_c_while_servers_are_asked_leaves_the_no_and_the_note(machine) -> None:
    install = serve(machine, "yes", "sleeps")
    asked = machine.work / "erased.txt"
    code, output, errors = Running("opt-out").interrupted_when(
        lambda: asked.exists() and len(asked.read_text().split()) == 2 and left_over(machine) == {install: ("s1",)}
    )
    assert code == 130
    assert output.startswith("Telemetry is off. Nothing is recorded.\ndeleted  ")
    assert errors.startswith("Interrupted.\nKept is only the id")
    assert left_over(machine) == {install: ("s1",)}
    assert set(machine.files()) == OWING


def test_ctrl_c_while_a_batch_is_waited_for_deletes_still_and_asks_later(machine) -> None:
    install = serve(machine, "yes")
    lock = FileLock(machine.home.locks / "s0.lock")
    assert lock.acquire(wait=False)
    running = Running("opt-out")
    assert running.process.stderr is not None
    assert running.process.stderr.readline() == "A batch is on its way: waiting until it has arrived.\n"
    code, output, errors = running.interrupted_when(lambda: True)
    lock.release()
    assert code == 130
    assert output.startswith("Telemetry is off. Nothing is recorded.\ndeleted  ")
    assert errors.startswith("Interrupted.\n")
    assert left_over(machine) == {install: ("s0",)}
    assert set(machine.files()) == {*OWING, "telemetry/locks/s0.lock"}
    assert not (machine.work / "erased.txt").exists()


def test_ctrl_c_where_nobody_is_to_be_asked(machine) -> None:
    serve(machine, "yes")
    with FileLock(machine.home.locks / "s0.lock"):
        running = Running("opt-out", "--local-only")
        assert running.process.stderr is not None
        assert running.process.stderr.readline() == "A batch is on its way: waiting until it has arrived.\n"
        code, _, errors = running.interrupted_when(lambda: True)
    assert (code, errors) == (130, "Interrupted.\n")
    assert left_over(machine) == {}


@pytest.mark.skipif(not SUPPORTED, reason="ptrace is Linux's, and the calls are numbered by processor")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_can_be_run_again_or_the_note_is_there(
    machine, capfd: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """`make model-test` kills at every system call; the suite at some."""
    serve(machine, "yes")
    machine.record()
    kept = machine.folder / "kept"
    shutil.copytree(machine.home.root, kept)
    asked = machine.work / "erased.txt"

    def killed_at(call: int) -> tuple[bool, int]:
        shutil.rmtree(machine.home.root)
        shutil.copytree(kept, machine.home.root)
        asked.unlink(missing_ok=True)
        identity = load_identity(machine.home)
        assert identity is not None
        install = identity.install_id
        done, calls = run_until(lambda: group(["opt-out"], standalone_mode=False), call)
        told = asked.exists() and install in asked.read_text()
        stored = stored_identity(machine.home)
        assert told or install in left_over(machine) or (stored is not None and stored.install_id == install)
        if told:  # only when nothing is sent any more
            consent = load_consent(machine.home)
            assert consent is not None
            assert not consent.grants[CORE_SPEC].record
        machine("opt-out")
        assert install in asked.read_text()
        assert set(machine.files()) == OFF
        return done, calls

    done, calls = killed_at(-1)
    assert done
    assert calls > 50
    if os.environ.get("MODEL_EVERY_CALL"):
        assert killed_at(calls + 1)[0]
        for call in range(1, calls):
            killed_at(call)
        return
    for call in random.Random(calls).sample(range(1, calls), 8):
        killed_at(call)


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
