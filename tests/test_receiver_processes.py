"""A receiver asks for less, with a real server and real clients: what arrives is less from then on, and never more."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spec import kept_policy, read_wishes
from cmdorc_telemetry.spool import Spool

from .agreement import agree

BIN = Path(sys.executable).parent

PROGRAM = """
import sys
from cmdorc_telemetry import Telemetry
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.delivery import worker
from cmdorc_telemetry.lifecycle import CompletedRun, Trigger

worker.POLICY_SECONDS = float(sys.argv[1])
telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
for line in sys.stdin:
    for _ in range(int(line)):
        run = CompletedRun(run_id="r", command_name="c", state="success", duration=0.005, concurrent_runs=2)
        telemetry.fire("cmdorc_completed", run)
    telemetry.fire("cmdorc_trigger", Trigger(name="go", outcome="ran", runs_started=1))
    print(telemetry.flush(20), flush=True)
telemetry.close()
"""


class Server:
    """The real server, started again with another policy on the same port and store."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self, policy: str = "") -> str:
        """Its endpoint."""
        self.end()
        path = self._folder / "policy.toml"
        path.write_text(policy)
        command = [BIN / "cmdorc-telemetry-server", "serve", "--port", self._port, "--store", self._folder / "r.db"]
        self._process = subprocess.Popen([*command, "--policy", path], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        endpoint = self._process.stdout.readline().split()[-1]
        self._port = endpoint.rpartition(":")[2].partition("/")[0]
        return endpoint

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=20)
            self._process = None

    def stored(self) -> list[dict[str, Any]]:
        """The bodies of runs, in the order of their arrival."""
        command = [BIN / "cmdorc-telemetry-server", "rows", "--store", self._folder / "r.db", "--json"]
        done = subprocess.run([*command, "--limit", "10000"], check=True, stdout=subprocess.PIPE, text=True)
        return [row["body"] for row in json.loads(done.stdout)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.end()


class Client:
    """A program that records, in rounds, and sends each of them."""

    def __init__(self, seconds: float) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(seconds)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip

    def record(self, runs: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(runs, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "True\n"

    def end(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


def ledger(home: Home) -> Any:
    with closing(Spool(home.spool, reading=True)) as spool:
        found = spool.ledger()["http"]
    assert found.recorded == found.acknowledged + found.pending + sum(found.dropped.values())
    return found


def rest(bodies: list[dict[str, Any]]) -> set[tuple[str, str, bool, float]]:
    return {(each["event"], each["level"], "concurrent_runs" in each, each.get("sampling_rate", 1)) for each in bodies}


def test_a_policy_set_while_a_client_runs_lowers_what_arrives(home: Home, server: Server) -> None:
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{server.start()}"\n')
    agree(home)
    client = Client(0)
    client.record(10)
    whole = {("command_completed", "standard", True, 1), ("trigger_fired", "standard", False, 1)}
    assert rest(server.stored()) == whole
    assert len(server.stored()) == 11
    server.start('level = "debug"\n[events.command_completed]\nsampling = 1.0\n')  # who asks for more
    client.record(10)
    client.record(10)
    assert rest(server.stored()) == whole
    assert len(server.stored()) == 33
    assert ledger(home).dropped == {}
    server.start('[events.trigger_fired]\nlevel = "off"\n[events.command_completed]\nsampling = 0.5\n'
                 "fields = {concurrent_runs = false}\n")  # fmt: skip
    client.record(1)  # of this, the door takes no more than is wanted; behind it, the client hears what that is
    client.end()
    before = server.stored()[33:]
    assert rest(before) <= {("command_completed", "standard", False, 0.5)}
    server.start()  # no door any more, but a client that has asked today
    client = Client(1e6)
    client.record(60)
    client.end()
    new = server.stored()[33 + len(before) :]
    assert rest(new) == {("command_completed", "standard", False, 0.5)}
    assert 10 < len(new) < 50
    found = ledger(home)
    assert (found.pending, found.dropped) == (0, {"unwanted": 63 - len(before) - len(new)})


def test_a_server_that_wants_nothing_is_left_alone_until_it_does(home: Home, server: Server) -> None:
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{server.start("sampling = 0")}"\n')
    agree(home)
    client = Client(0)
    client.record(5)
    client.record(5)
    assert server.stored() == []
    assert ledger(home).dropped == {"unwanted": 12}
    server.start()
    client.record(5)  # nothing of it is sent, but the server is asked in its place
    client.record(5)
    client.end()
    assert len(server.stored()) == 6
    assert ledger(home).dropped == {"unwanted": 18}


def test_a_server_that_is_down_changes_nothing(home: Home, server: Server) -> None:
    endpoint = server.start("[fields]\nos = false")
    home.config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n')
    agree(home)
    client = Client(0)
    client.record(2)
    server.end()
    with closing(Spool(home.spool, reading=True)) as spool:
        known = spool.policy("http")[0]
    assert read_wishes(kept_policy(known).document).words() == "no os"
    assert server.start().startswith("http://127.0.0.1:")
    client.end()
    client = Client(1e6)
    client.record(2)
    client.end()
    assert ["os" in each for each in server.stored()] == [False] * 6


class Odd(BaseHTTPRequestHandler):
    """Takes every report; says something strange of its policy."""

    protocol_version = "HTTP/1.1"
    status, policy, headers_sent = 200, b"", {}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b'{"message": "Thanks!"}', {})

    def do_GET(self) -> None:
        self._answer(self.status, self.policy, self.headers_sent)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, policy: bytes, headers: Mapping[str, str]) -> str:
        handler = type("Handler", (Odd,), {"status": status, "policy": policy, "headers_sent": headers})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


LARGE = json.dumps({"level": "off", "fields": {f"field_{number}": False for number in range(8000)}}).encode()


@pytest.mark.parametrize(
    ("status", "policy", "headers", "words", "unclear"),
    [
        pytest.param(404, b"{}", {}, "", "", id="none"),
        pytest.param(500, b'{"level": "off"}', {}, "", "", id="broken"),
        pytest.param(302, b'{"level": "off"}', {"Location": "/elsewhere"}, "", "", id="elsewhere"),
        pytest.param(200, b"<html>", {}, "", "", id="no-json"),
        pytest.param(200, b'["level"]', {}, "", "", id="no-table"),
        pytest.param(200, b'{"level":"off","x":' * 200_000, {}, "", "", id="deep"),
        pytest.param(200, b'{"level": "off"' + b" " * 2_000_000 + b"}", {}, "", "", id="huge"),
        pytest.param(200, b'{"level": "off"}', {"Content-Length": "17"}, "", "", id="cut-off"),
        pytest.param(200, LARGE, {}, "", "all of it", id="large"),
        pytest.param(200, b'{"level": "all", "sampling": 7, "fields": {"\\u001b[2J": 1, "os": false}}', {"ETag": "x"},
                     "no os", "level, sampling, fields.[2J", id="hostile"),
        pytest.param(200, b'{"level": "debug", "sampling": 1, "fields": {"os": true}}', {}, "", "", id="more"),
    ],
)  # fmt: skip
def test_a_strange_policy_harms_nothing(
    home: Home, odd: Callable[..., str], status: int, policy: bytes, headers: dict[str, str], words: str, unclear: str
) -> None:
    endpoint = odd(status, policy, headers)
    home.config.write_text(
        f'[telemetry]\nplugins = ["http"]\n[telemetry.to.http]\nendpoint = "{endpoint}"\ntimeout = 1\n'
    )
    agree(home)
    client = Client(0)
    client.record(2)
    client.record(2)
    client.end()
    found = ledger(home)
    assert (found.recorded, found.acknowledged, found.failures) == (6, 6, 0)
    with closing(Spool(home.spool, reading=True)) as spool:
        wishes = read_wishes(kept_policy(spool.policy("http")[0]).document)
    assert (wishes.words(), wishes.unclear()) == (words, unclear)
