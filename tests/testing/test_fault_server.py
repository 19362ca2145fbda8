"""The fault-injecting server does what its table says: looked at with a plain client of the standard library."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest
import zstandard

from cmdorc_telemetry.testing import (
    FAULTS,
    Answer,
    FaultServer,
    Forward,
    Request,
    names,
    randomly,
    slow,
    status,
    too_large,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
EVENTS = 9
BATCH = b"".join(b'{"event_id":"%d","filler":"%s"}\n' % (number, b"x" * 500) for number in range(EVENTS))
SHORT, LONG = 0.4, 20.0
"""Seconds that a client waits for what should not come, and for what should."""


@contextmanager
def client(server: FaultServer, seconds: float = LONG) -> Iterator[http.client.HTTPConnection]:
    if server.scheme == "https":
        trust = ssl.create_default_context(cafile=str(server.authority))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=seconds, context=trust)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=seconds)  # type: ignore[assignment]
    with closing(connection):
        yield connection


def send(connection: http.client.HTTPConnection, body: bytes = BATCH, **headers: str) -> tuple[int, bytes]:
    """Status and body, of which no more is read than a client should."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/v1/report", body, named)
    response = connection.getresponse()
    if response.length is not None and response.length < 1_000_000:
        return response.status, response.read()
    return response.status, response.read(1_000_000)


def outcome(server: FaultServer, seconds: float = LONG) -> str:
    """What comes of one report: a status, or how it failed."""
    try:
        with client(server, seconds) as connection:
            code, body = send(connection)
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message.replace("self signed", "self-signed")  # older OpenSSL
    except ssl.SSLError:
        return "no TLS"
    except http.client.RemoteDisconnected:
        return "ended"
    except http.client.IncompleteRead:
        return "short"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except http.client.HTTPException:
        return "no HTTP"
    return f"{code} {len(body)}" if len(body) >= 1_000_000 else str(code)


OUTCOMES = {
    "refused": "refused", "black-hole": "timeout", "reset-on-connect": "reset", "hang-before-reading": "timeout",
    "wrong-name": "IP address mismatch, certificate is not valid for '127.0.0.1'.",
    "self-signed": "self-signed certificate", "expired": "certificate has expired", "plain-on-tls-port": "no TLS",
    "hang-mid-request": "timeout", "reset-mid-request": "reset", "hang-after-reading": "timeout",
    "reset-after-reading": "reset", "413": "413", "204": "204", "empty-200": "200", "html": "200", "broken-json": "200",
    "other-shape": "200", "unknown-ids": "200", "partial-results": "200", "some-rejected": "200", "slow-answer": "200",
    "answer-lost": "ended", "answer-reset": "reset", "502-after-commit": "502", "hang-after-commit": "timeout",
    "hang-mid-answer": "timeout", "reset-mid-answer": "reset", "truncated": "short", "wrong-content-encoding": "200",
    "deep-json": "200", "huge-body": "200 1000000", "endless-body": "200 1000000", "endless-chunks": "200 1000000",
    "endless-headers": "no HTTP", "endless-line": "no HTTP",
    **{f"{code}-{kind}": str(code) for code in (429, 503) for kind in ("seconds", "date", "garbage", "huge")},
    **{str(code): str(code) for code in (301, 302, 307, 308, 408, 500, 502)},
}  # fmt: skip
SEEN_RAW = {"drip", "endless-informational"}
"""A simple client would never come back from these."""


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_fault_does_what_it_says_and_then_all_is_well(name: str) -> None:
    fault = FAULTS[name]
    with FaultServer(faults=name, tls=fault.tls) as server:
        assert outcome(server, SHORT if OUTCOMES[name] == "timeout" else LONG) == OUTCOMES[name]
        server.fail(None)
        taken = len(server.receiver.stored)
        if fault.at != "listen":
            server.wait_for(lambda server: server.injected == {name: 1})
        if "nothing taken" in fault.what:
            assert taken == 0
        if "all taken" in fault.what:
            assert taken == EVENTS
        assert outcome(server) == "200"
        assert len(server.receiver.stored) == EVENTS


def test_no_fault_is_forgotten_here_or_in_the_docs() -> None:
    assert OUTCOMES.keys() | SEEN_RAW == FAULTS.keys()
    assert not OUTCOMES.keys() & SEEN_RAW
    section = DOCS.read_text(encoding="utf-8").partition("## A reporter\n")[2]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == [f"| `{fault.name}` | {fault.at} | {fault.what} |" for fault in FAULTS.values()]


def test_with_tls_all_is_well() -> None:
    with FaultServer(tls=True) as server:
        assert [outcome(server), outcome(server)] == ["200", "200"]
        assert server.endpoint == f"https://127.0.0.1:{server.port}/v1"
        authority = server.authority
    assert not authority.exists()
    with pytest.raises(ValueError, match="without TLS"):
        _ = FaultServer().authority


def raw(server: FaultServer, request: bytes, seconds: float = SHORT) -> bytes:
    """What comes back within some seconds, not taken for HTTP."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request)
        connection.settimeout(0.05)
        received, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
            if not data:
                break
            received += data
        return received


POST = b'POST /v1/report HTTP/1.1\r\nContent-Length: 16\r\n\r\n{"event_id":"e"}'


def test_what_a_simple_client_would_wait_for_for_ever(server: FaultServer) -> None:
    server.fail("drip")
    assert b"HTTP/1.1 200 OK".startswith(raw(server, POST))
    assert server.receiver.stored == {"e": b'{"event_id":"e"}'}
    server.fail("endless-informational")
    received = raw(server, POST)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    assert b"200" not in received


def test_a_drip_ends_with_its_answer(server: FaultServer) -> None:
    server.answer = lambda request: Answer(204)
    server.fail("drip")
    assert raw(server, POST, 10.0) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_faults_come_in_their_order_and_then_no_more(server: FaultServer) -> None:
    server.fail(["503-seconds", None, status(418), "reset-on-connect", "answer-lost"])
    assert [outcome(server) for _ in range(7)] == ["503", "200", "418", "reset", "ended", "200", "200"]
    assert server.injected == {"503-seconds": 1, "418": 1, "reset-on-connect": 1, "answer-lost": 1}


def test_a_connection_is_kept_but_not_where_the_next_fault_is_for_a_new_one(server: FaultServer) -> None:
    with client(server) as connection:
        for _ in range(2):
            assert send(connection)[0] == 200
        server.fail([None, "reset-on-connect"])
        assert send(connection)[0] == 200
        assert connection.sock is None  # the answer said that it closes
    assert len({request.peer for request in server.seen}) == 1
    assert [outcome(server), outcome(server)] == ["reset", "200"]


def test_a_kept_connection_ends_where_a_fault_for_a_new_one_came_up_meanwhile(server: FaultServer) -> None:
    with client(server) as connection:
        assert send(connection)[0] == 200
        server.fail(["reset-on-connect"])
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            send(connection)
    assert [outcome(server), outcome(server)] == ["reset", "200"]


def test_a_function_decides(server: FaultServer) -> None:
    def decide(request: Request) -> str | None:
        return "500" if request.headers["x-wish"] == "500" else None

    server.fail(decide)
    with client(server) as connection:
        assert [send(connection, X_Wish=wish)[0] for wish in ("500", "200", "500")] == [500, 200, 500]


def test_names_that_are_no_faults_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="there is no fault 'no-such'; there are refused, black-hole"):
        FaultServer(faults="no-such")
    with pytest.raises(ValueError, match="'refused' cannot strike a single request"):
        FaultServer(faults=["refused"])


def test_what_goes_wrong_in_a_test_s_own_function_ends_the_test() -> None:
    server = FaultServer(faults=lambda request: "expired").start()
    assert outcome(server) == "ended"
    with pytest.raises(ValueError, match="'expired' cannot strike a single request"):
        server.stop()


def test_chance_is_the_same_for_the_same_seed() -> None:
    first, second = (list(islice(randomly(7, 0.5), 200)) for _ in range(2))
    assert first == second
    assert first != list(islice(randomly(8, 0.5), 200))
    assert 60 < sum(each is not None for each in first) < 140
    assert set(islice(randomly(7, 1.0, ["500", "502"]), 50)) == {"500", "502"}


def test_measures_of_ones_own(server: FaultServer) -> None:
    server.fail(too_large(100))
    with client(server) as connection:
        assert send(connection)[0] == 413
        assert send(connection, b'{"event_id":"small"}')[0] == 200
        server.fail(slow(0.2))
        start = time.monotonic()
        assert send(connection)[0] == 200
    assert time.monotonic() - start >= 0.2


def test_retry_after_and_redirects(server: FaultServer) -> None:
    def header(fault: str, name: str, host: str = "127.0.0.1") -> str | None:
        server.fail(fault)
        with client(server) as connection:
            connection.request("POST", "/v1/report", BATCH, {"Host": f"{host}:{server.port}"})
            return connection.getresponse().headers[name]

    assert header("429-seconds", "Retry-After") == "1"
    assert str(header("503-date", "Retry-After")).endswith(" GMT")
    assert header("503-garbage", "Retry-After") == "soon, I hope"
    assert header("429-huge", "Retry-After") == "99999999999"
    assert header("307", "Location") == f"http://localhost:{server.port}/elsewhere"
    assert header("307", "Location", "localhost") == f"http://127.0.0.1:{server.port}/elsewhere"


def results(server: FaultServer, fault: str | None) -> list[tuple[str, str]]:
    server.fail(fault)
    with client(server) as connection:
        answer = json.loads(send(connection, gzip.compress(BATCH), Content_Encoding="gzip")[1])
    return [(each["event_id"], each["status"]) for each in answer["results"]]


def test_results_that_are_not_what_was_sent(server: FaultServer) -> None:
    assert {status for _, status in results(server, "unknown-ids")} == {"accepted"}
    assert server.receiver.stored == {}
    assert results(server, "some-rejected") == [
        *((each, "accepted") for each in "013467"), *((each, "rejected") for each in "258")
    ]  # fmt: skip
    assert server.rejected == set("258")
    assert server.receiver.stored.keys() == set("013467")
    assert results(server, "partial-results") == [
        ("0", "duplicate"), ("3", "duplicate"), ("6", "duplicate"), ("1", "retry"), ("4", "retry"), ("7", "retry")
    ]  # fmt: skip
    assert server.receiver.stored.keys() == set("012345678")
    assert {status for _, status in results(server, None)} == {"duplicate"}
    assert len(server.receiver.received) == 6 + 9 + 9


def test_the_receiver_takes_what_the_protocol_has(server: FaultServer) -> None:
    with client(server) as connection:
        assert send(connection, gzip.compress(BATCH), Content_Encoding="gzip")[0] == 200
        assert send(connection, zstandard.compress(BATCH), Content_Encoding="zstd")[0] == 200
        assert server.receiver.received == [str(number) for number in range(EVENTS)] * 2
        assert server.receiver.stored["3"] == BATCH.splitlines()[3]
        assert send(connection, BATCH, Content_Encoding="br")[0] == 415
        assert send(connection, b'{"event": "without an id"}')[0] == 400
        connection.request("GET", "/v1/policy")
        assert connection.getresponse().status == 404


def test_a_body_in_chunks(server: FaultServer) -> None:
    with client(server) as connection:
        connection.request("POST", "/v1/report", iter([b'{"event', b'_id":"e"}']), encode_chunked=True)
        assert connection.getresponse().status == 200
    trailing = POST.replace(b"Content-Length: 16", b"Transfer-Encoding: chunked").replace(
        b'{"event_id":"e"}', b'10;x=y\r\n{"event_id":"f"}\r\n0\r\nTrailer: x\r\n\r\n'
    )
    assert b" 200 " in raw(server, trailing, 0.2)
    assert server.receiver.received == ["e", "f"]


def test_requests_that_are_none(server: FaultServer) -> None:
    assert raw(server, b"SSH-2.0-OpenSSH_9.9\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"") == b""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(POST[:-3])
    assert outcome(server) == "200"
    assert len(server.seen) == 1


def test_what_is_behind_is_asked_for_real(server: FaultServer) -> None:
    with FaultServer(faults=["answer-lost"], answer=Forward(server.endpoint)) as front:
        assert outcome(front) == "ended"
        assert len(server.receiver.stored) == EVENTS
        assert {status for _, status in results(front, None)} == {"duplicate"}
        server.fail("refused")
        assert outcome(front) == "502"
    assert {request.path for request in server.seen} == {"/v1/report"}


def test_the_port_stays_its_own_whatever_it_does(server: FaultServer) -> None:
    port = server.port
    with client(server) as connection:
        assert send(connection)[0] == 200
        for mode, expected in (("refused", "refused"), ("black-hole", "timeout"), ("refused", "refused")):
            server.fail(mode)
            assert outcome(server, SHORT) == expected
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            send(connection)  # it was hung up
    server.fail("500")
    assert (outcome(server), server.port) == ("500", port)
    assert server.injected == {"500": 1}


def test_what_happens_before_it_is_started_and_after_it_is_stopped() -> None:
    server = FaultServer(faults="500")
    server.fail("refused")
    server.stop()
    server = FaultServer(faults="refused").start()
    assert outcome(server) == "refused"
    server.fail(None)
    server.stopping.set()
    assert raw(server, POST) == b""
    server.stop()
    assert outcome(server) == "refused"


@pytest.mark.parametrize("fault", ["hang-after-reading", slow(60), "drip", "huge-body", "hang-before-reading"])
def test_it_ends_whatever_hangs(server: FaultServer, fault: str) -> None:
    server.fail(fault)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(POST)
        server.wait_for(lambda server: server.injected.total() == 1)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 5
    assert not [thread for thread in threading.enumerate() if "_serve" in thread.name or "_accept" in thread.name]


def test_a_client_that_leaves_ends_what_hangs(server: FaultServer) -> None:
    server.fail("hang-before-reading")
    assert outcome(server, SHORT) == "timeout"
    deadline = time.monotonic() + 10
    while [thread for thread in threading.enumerate() if "_serve" in thread.name]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_in_vain_says_what_there_was(server: FaultServer) -> None:
    assert outcome(server) == "200"
    with pytest.raises(TimeoutError, match=r"1 requests seen, \{\}"):
        server.wait_for(lambda server: bool(server.injected), 0.01)


def test_a_name_service_that_never_answers() -> None:
    found: list[object] = []

    def ask() -> None:
        try:
            socket.getaddrinfo("nobody.test", 80)
        except OSError as fault:
            found.append(fault)

    with names({"telemetry.test": "127.0.0.1"}) as asked:
        assert socket.getaddrinfo("telemetry.test", 80)[0][4] == ("127.0.0.1", 80)
        for known in ("127.0.0.1", b"127.0.0.1", "::1", "localhost", None):
            assert socket.getaddrinfo(known, 80)
        assert not asked.is_set()
        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10)
        assert found == []
    thread.join(10)
    assert isinstance(found[0], socket.gaierror)


PROGRAM = [sys.executable, "-m", "cmdorc_telemetry.testing"]


def test_as_a_process_of_its_own() -> None:
    with FaultServer() as behind:
        process = subprocess.Popen([*PROGRAM, "--fail", "500,502", "--forward", behind.endpoint], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline().removeprefix("listening on http://127.0.0.1:").removesuffix("/v1\n"))

        def say(line: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        there = FaultServer(port=port)  # not started: only its address is of use here
        assert [outcome(there) for _ in range(3)] == ["500", "502", "200"]
        assert say("answer-lost") == "failing: answer-lost\n"
        assert [outcome(there) for _ in range(2)] == ["ended", "ended"]
        assert say("") == "failing: no\n"
        assert say("random=7") == "failing: random=7\n"
        process.stdin.close()
        told = json.loads(process.stdout.read())
        process.stdout.close()
        assert process.wait(20) == 0
    assert told == {"seen": 5, "stored": 0, "injected": {"500": 1, "502": 1, "answer-lost": 2}}
    assert len(behind.receiver.stored) == EVENTS


def test_the_example_in_the_docs() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## A reporter\n")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert first.endswith("the connection broke off, after None")
    assert second.endswith("is not ready (503): made to fail, after 1.0")
    assert "status='duplicate'" in third


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_its_command_line() -> None:
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(FAULTS)
    refused = run("--fail", "no-such")
    assert (refused.returncode, "there is no fault 'no-such'" in refused.stderr) == (2, True)
    with_tls = run("--tls").stdout.splitlines()
    assert with_tls[0].startswith("listening on https://127.0.0.1:")
    assert with_tls[1].endswith("ca.pem")
