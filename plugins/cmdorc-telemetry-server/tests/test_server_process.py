"""The command line and the process: what it prints, how it ends, and that an answer outlives a kill."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry_server.cli import main

PROGRAM = [sys.executable, "-c", "from cmdorc_telemetry_server.cli import main; main()"]
Event = Callable[..., dict[str, Any]]
Start = Callable[..., Any]
Command = Callable[..., subprocess.CompletedProcess[str]]

SPEC = """
[meta]
name = "example.app"
version = 3
[[events]]
name = "page_printed"
[events.semantics]
what = "A page was printed"
[events.retention]
days = 2
[events.properties.pages]
type = "count"
level = "minimal"
"""


def test_it_says_where_it_listens_and_ends_cleanly(process: Start, event: Event, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        server = process("--store", tmp_path / "store.db")
        assert server.first_line == f"listening on http://127.0.0.1:{server.port}/v1"
        assert server.report(event())[0] == 200
        server.popen.send_signal(number)  # with a connection open
        assert server.end() == (0, "", "")
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
    assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o600


def test_answers_are_not_held_back(process: Start, tmp_path: Path) -> None:
    server = process("--store", tmp_path / "store.db")
    began = time.perf_counter()
    for _ in range(100):
        server.request("GET", "/v1/policy")
    assert time.perf_counter() - began < 2  # 0.06 s; with Nagle's algorithm 4.4


def test_it_listens_soon(process: Start, tmp_path: Path) -> None:
    began = time.perf_counter()
    process("--store", tmp_path / "store.db")
    assert time.perf_counter() - began < 5  # 0.6 s on an idle machine


def test_what_was_answered_survives_a_kill(process: Start, event: Event, tmp_path: Path) -> None:
    answered: list[str] = []
    for round_ in range(3):
        server = process("--store", tmp_path / "store.db", "--rate-limit", 0)
        clients = [server.another() for _ in range(4)]

        def send(client: Any) -> None:
            with closing(client.connection), contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    batch = [event() for _ in range(3)]
                    if client.batch(batch)[0] == 200:
                        answered.extend(each["event_id"] for each in batch)

        threads = [threading.Thread(target=send, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(answered) < 100 * (round_ + 1):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        server.kill()
        for thread in threads:
            thread.join(20)
    with closing(sqlite3.connect(tmp_path / "store.db")) as con:
        stored = {str(uuid.UUID(bytes=row[0])) for row in con.execute("SELECT id FROM event")}
    assert len(answered) >= 300
    assert set(answered) <= stored


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process's files")
def test_a_full_disk_is_503_until_there_is_room(process: Start, event: Event, tmp_path: Path) -> None:
    server = process("--store", tmp_path / "store.db", "--rate-limit", 0)
    stored = 0
    resource.prlimit(server.popen.pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    for _ in range(1_000):
        status, _, headers = server.batch([event() for _ in range(100)])
        if status != 200:
            break
        stored += 100
    assert (status, headers["Retry-After"]) == (503, "5")
    assert server.request("GET", "/v1/policy")[0] == 200
    resource.prlimit(server.popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server.statuses([event()]) == ["accepted"]
    server.popen.terminate()
    assert server.end()[0] == 0
    with closing(sqlite3.connect(tmp_path / "store.db")) as con:
        assert con.execute("SELECT count(*) FROM event").fetchone() == (stored + 1,)


def test_options_reach_the_server(process: Start, event: Event, tmp_path: Path) -> None:
    spec = tmp_path / "app.toml"
    spec.write_text(SPEC)
    server = process("--store", f"sqlite:///{tmp_path}/s.db", "--k", 1, "--accept-private", "--spec", spec,
                     "--rate-limit", 3)  # fmt: skip
    who = str(uuid.uuid4())
    first = server.report(event(command_name="x", anonymous_install_id=who))[1]
    assert first["stats"] == {"percentile_duration": 50}
    own = {"duration_ms": None, "state": None, "final": None, "manual": None, "anonymous_install_id": who}
    assert server.report(event(**own, event="page_printed", spec="example.app@3", pages=4))[0] == 200
    assert server.report(event(**own, event="page_printed", spec="example.app@3", pages="4"))[0] == 422
    assert [server.report(event(anonymous_install_id=who))[0] for _ in range(2)] == [200, 429]
    assert (tmp_path / "s.db").exists()


def test_rows(process: Start, command: Command, event: Event, tmp_path: Path) -> None:
    store, who = tmp_path / "store.db", str(uuid.uuid4())
    server = process("--store", store, "--accept-private")
    sent = [event(anonymous_install_id=who, duration_ms=number) for number in range(5)]
    sent.append(event(anonymous_install_id=who, command_name="\x9b31mred\x1b[0m", level="standard"))
    sent.sort(key=lambda each: str(each["event_id"]))
    assert server.batch(sent, Telemetry_Drops="epoch=e; expired=7")[0] == 200
    for _ in range(2):  # while it is served, and afterwards
        listed = json.loads(command("rows", "--store", store, "--json").stdout)
        assert [row["body"] for row in listed] == sent
        assert {row["received"][:10] for row in listed} <= {sent[0]["timestamp"][:10], clock.iso(time.time())[:10]}
        done = command("rows", "--store", f"sqlite:///{store}", "--limit", 2)
        lines = done.stdout.splitlines()
        assert (done.returncode, len(lines)) == (0, 3)
        assert lines[0] == "6 events stored, the newest 2 of them here; clients say they dropped 7"
        assert f"{who[:8]}  command_completed" in lines[1]
        assert 'state="success"' in lines[1]
        shown = command("rows", "--store", store).stdout
        assert shown.isascii()
        assert "\x1b" not in shown
        assert r'command_name="\u009b31mred\u001b[0m"' in shown
        server.popen.terminate()
        server.popen.wait(20)
    assert command("rows", "--store", store, "--json", "--limit", 1).stdout.count("\n") == 1


def test_backup_while_it_is_served(process: Start, command: Command, event: Event, tmp_path: Path) -> None:
    store, copy = tmp_path / "store.db", tmp_path / "copy.db"
    server = process("--store", store, "--rate-limit", 0)
    server.batch([event() for _ in range(500)])
    going = True

    def send() -> None:
        client = server.another()
        with closing(client.connection):
            while going:
                assert client.batch([event() for _ in range(20)])[0] == 200

    thread = threading.Thread(target=send)
    thread.start()
    done = command("backup", "--store", store, copy)
    going = False
    thread.join(20)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"backed up to {copy}\n", "")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as con:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (number,) = con.execute("SELECT count(*) FROM event").fetchone()
    assert number >= 500
    assert (number - 500) % 20 == 0
    again = process("--store", copy)
    assert again.report(event())[0] == 200


def test_a_backup_that_fails_leaves_nothing(command: Command, process: Start, event: Event, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    process("--store", store).batch([event() for _ in range(500)])
    limit = ["bash", "-c", 'ulimit -f 64; exec "$@"', "-", *PROGRAM, "backup", "--store", str(store), "copy.db"]
    done = subprocess.run(limit, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: copy.db: the backup failed: ")
    assert not (tmp_path / "copy.db").exists()


def test_purge_and_the_purge_at_start(process: Start, command: Command, event: Event, tmp_path: Path) -> None:
    store, spec = tmp_path / "store.db", tmp_path / "app.toml"
    spec.write_text(SPEC)
    server = process("--store", store, "--spec", spec)
    own = {"duration_ms": None, "state": None, "final": None, "manual": None, "event": "page_printed"}
    server.batch([event(), event(), event(**own, spec="example.app@3"), event(**own, spec="example.app@3")])

    def age(days: int, event_name: str, limit: int) -> None:
        with closing(sqlite3.connect(store)) as con, con:
            con.execute("UPDATE event SET received=received-? WHERE id IN (SELECT id FROM event WHERE event=? LIMIT ?)",
                        (days * 86_400 + 60, event_name, limit))  # fmt: skip

    age(2, "page_printed", 1)
    age(90, "command_completed", 1)
    assert command("purge", "--store", store, "--spec", spec).stdout == "deleted 2 events\n"
    assert command("purge", "--store", store, "--spec", spec).stdout == "deleted 0 events\n"
    age(3, "page_printed", 1)
    server.popen.terminate()
    server.end()
    server = process("--store", store, "--spec", spec)
    deadline = time.monotonic() + 10
    while "page_printed" in command("rows", "--store", store).stdout:
        assert time.monotonic() < deadline
    assert command("rows", "--store", store).stdout.startswith("1 events stored; ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--port", "eighty"], "'eighty' is not a valid integer"),
        (["serve", "--port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["serve", "--k", "0"], "0 is not in the range x>=1"),
        (["serve", "--store", "postgresql://db/telemetry"], "expected sqlite:///PATH"),
        (["serve", "--store", "sqlite://"], "expected sqlite:///PATH"),
        (["serve", "--store", "nowhere/store.db"], "nowhere/store.db: cannot be created or opened: No such file"),
        (["serve", "--spec", "missing.toml"], "missing.toml: cannot be read"),
        (["serve", "--spec", "broken.toml"], "broken.toml: is not valid TOML"),
        (["serve", "--spec", "twice.toml"], "meta.name: spec example.app@3 is registered already, by twice.toml"),
        (["serve", "--host", "256.1.1.1", "--port", "0"], "256.1.1.1:0: cannot listen there"),
        (["serve", "--hots", "x"], "No such option"),
        (["rows"], "cmdorc-telemetry.db: there is no store"),
        (["purge"], "cmdorc-telemetry.db: there is no store"),
        (["backup", "copy.db"], "cmdorc-telemetry.db: there is no store"),
        (["backup"], "Missing argument 'FILE'"),
        (["rows", "--store", "broken.toml"], "broken.toml: cannot be used: file is not a database"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "broken.toml").write_text("not = = toml, and no database either")
    (tmp_path / "twice.toml").write_text(SPEC)
    extra = ["--spec", "twice.toml"] if "twice.toml" in arguments else []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cmdorc-telemetry-server", *arguments, *extra])
    with pytest.raises(SystemExit) as caught:
        main()
    output, errors = capsys.readouterr()
    assert (caught.value.code, output) == (2, "")
    assert errors.startswith("Error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "copy.db").exists()


def test_a_port_in_use(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command("serve", "--port", taken.getsockname()[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot listen there" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_address_that_others_reach_is_warned_about(process: Start, event: Event, tmp_path: Path) -> None:
    server = process("--host", "0.0.0.0", "--store", tmp_path / "store.db")
    assert server.first_line == f"listening on http://0.0.0.0:{server.port}/v1"
    assert server.report(event())[0] == 200
    server.popen.terminate()
    code, output, errors = server.end()
    assert (code, output) == (0, "")
    assert "TLS proxy" in errors
    assert errors.count("\n") == 1


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(process: Start, tmp_path: Path) -> None:
    server = process("--host", "::1", "--store", tmp_path / "store.db")
    assert server.first_line == f"listening on http://[::1]:{server.port}/v1"


def test_help_needs_no_fastapi() -> None:
    script = "import sys; sys.modules['fastapi'] = None; sys.argv = ['x', '--help']\n"
    script += "from cmdorc_telemetry_server.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
    assert os.linesep + "  rows" in done.stdout
