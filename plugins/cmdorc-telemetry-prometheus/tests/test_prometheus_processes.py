"""Several processes, at once and one after the other; processes that are killed, stopped and forked."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Any]
COUNT = 'cmdorc_command_completed_total{command_name="A",state="success"}'
SECONDS = 'cmdorc_command_completed_duration_seconds_sum{command_name="A",state="success"}'

PREAMBLE = """
import asyncio, json, os, sys, threading
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_prometheus import PrometheusReporter

def event(who, number):
    event_id = f"{who}-{number:06}"
    body = {"event_id": event_id, "spec": "cmdorc.core@1", "timestamp": "2026-01-02T03:04:05Z", "state": "success",
            "duration_ms": number, "command_name": "A"}
    return BatchEvent(event_id, "command_completed", json.dumps(body).encode(), number)

def batch(who, start, count):
    return Batch(destination="p", events=tuple(event(who, number) for number in range(start, start + count)))

settings = json.loads(sys.argv[1])
to = PrometheusReporter(PrometheusReporter.Settings(**settings))
"""


@pytest.fixture
def start(home: Path, processes: Make) -> Callable[..., subprocess.Popen[str]]:
    """Starts a process with a reporter of these settings, ``to``."""

    def begin(script: str, settings: dict[str, object], *args: object, **more: Any) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = processes(PREAMBLE + script, json.dumps(settings), *args, **more)
        return process

    return begin


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


SEND_FOR_EVER = """
# What the core does: what is not acknowledged comes again, from whoever sends next.
acknowledged = sys.argv[2]
async def main():
    while True:
        with open(acknowledged) as file:
            upto = int(file.read())
        await to.report_batch(batch("k", upto, 7))
        with open(acknowledged + ".new", "w") as file:
            file.write(str(upto + 7))
        os.replace(acknowledged + ".new", acknowledged)
        print(upto, flush=True)
asyncio.run(main())
"""


def test_senders_that_are_killed_count_each_event_once(home: Path, start: Make, series_of: Make, until: Make) -> None:
    acknowledged, textfile = home / "acknowledged", home / "cmdorc.prom"
    acknowledged.write_text("1")
    dice = random.Random()
    for _ in range(8):
        process = start(SEND_FOR_EVER, {"path": str(textfile)}, acknowledged)
        for _ in range(dice.randrange(1, 8)):
            assert said(process)
        signalled = dice.random() * 0.02
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(signalled)
        process.kill()
        process.wait()
    upto = int(acknowledged.read_text())
    # The batch under way may be counted and not acknowledged: it comes again, and is known.
    script = 'asyncio.run(to.report_batch(batch("k", int(sys.argv[2]), 7)))'
    last = start(script, {"path": str(textfile)}, upto)
    assert last.wait(timeout=20) == 0
    assert {path.name for path in home.iterdir()} == {"acknowledged", "cmdorc.prom", "telemetry"} | {
        path.name for path in home.glob("acknowledged.new")}  # fmt: skip
    found = series_of(textfile.read_bytes())
    total = upto + 6
    assert found[COUNT] == total
    assert found[SECONDS] == pytest.approx(total * (total + 1) / 2 / 1000)


def test_processes_that_send_at_once_lose_nothing(home: Path, start: Make, series_of: Make) -> None:
    textfile = home / "cmdorc.prom"
    script = """
async def main():
    for number in range(10):
        result = await to.report_batch(batch(sys.argv[2], number * 5, 5))
        assert {each.status for each in result.results} == {"accepted"}
asyncio.run(main())
"""
    running = [start(script, {"path": str(textfile)}, who) for who in "abc"]
    assert [process.wait(timeout=50) for process in running] == [0, 0, 0]
    assert series_of(textfile.read_bytes())[COUNT] == 150


SERVE = """
who = sys.argv[2]
async def main():
    for line in sys.stdin:
        if line.strip() == "close":
            await to.close()
            print("closed", flush=True)
            continue
        result = await to.report_batch(batch(who, int(line), 1))
        print(result.results[0].status, flush=True)
asyncio.run(main())
"""


EAGER = "from cmdorc_telemetry_prometheus import endpoint\nendpoint.LOOK_SECONDS = 0.01\n" + SERVE
"""One that looks often whether it may serve."""


def tell(process: subprocess.Popen[str], what: object) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    return said(process)


def test_one_serves_for_all_and_the_next_takes_over(port: int, start: Make, until: Make, scrape: Make) -> None:
    settings = {"port": port}
    first, second = start(SERVE, settings, "a"), start(SERVE, settings, "b")
    assert tell(first, 1) == "accepted"
    assert until(lambda: scrape(port).get(COUNT)) == 1
    assert tell(second, 1) == "accepted"
    assert scrape(port)[COUNT] == 2  # served by the first, counted by both
    first.kill()
    assert until(lambda: scrape(port).get(COUNT)) == 2
    assert tell(second, 2) == "accepted"
    assert scrape(port)[COUNT] == 3
    assert tell(second, "close") == "closed"
    until(lambda: not scrape(port))  # the process lives, and serves no more
    third = start(SERVE, settings, "c")
    assert tell(third, 1) == "accepted"
    assert until(lambda: scrape(port).get(COUNT)) == 4


def test_a_child_holds_neither_the_port_nor_the_lock(port: int, start: Make, until: Make, scrape: Make) -> None:
    fork = """
asyncio.run(to.report_batch(batch("a", 1, 1)))
to._endpoint.serving.wait(20)
child = os.fork()
if child:
    print(child, flush=True)
threading.Event().wait(60)
"""
    first = start(fork, {"port": port}, stderr=subprocess.DEVNULL)
    child = int(said(first))
    try:
        assert scrape(port)[COUNT] == 1
        first.kill()
        first.wait()
        assert not scrape(port)
        second = start(SERVE, {"port": port}, "b")
        assert tell(second, 1) == "accepted"
        assert until(lambda: scrape(port).get(COUNT)) == 2
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_port_of_somebody_else_is_told_once_and_counting_goes_on(
    port: int, start: Make, until: Make, scrape: Make
) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", port))
        foreign.listen()
        process = start(EAGER, {"port": port}, "a", stderr=subprocess.PIPE)
        assert tell(process, 1) == "accepted"
        warning = process.stderr.readline()
        assert warning == (f"metrics cannot be served at 127.0.0.1 port {port}: Address already in use. "
                           "They are counted; it is tried again\n")  # fmt: skip
        for number in range(2, 8):  # meanwhile it tries again
            assert tell(process, number) == "accepted"
    assert until(lambda: scrape(port).get(COUNT)) == 7
    process.kill()
    assert process.stderr.read() == ""


def test_a_sender_that_was_stopped_comes_too_late(port: int, start: Make, until: Make, scrape: Make) -> None:
    """It had taken a batch over, was stopped before it counted it, and another sender did so meanwhile."""
    stopped, other = start(SERVE, {"port": port}, "a"), start(SERVE, {"port": port}, "a")
    assert tell(stopped, 1) == "accepted"
    until(lambda: scrape(port))
    stopped.send_signal(signal.SIGSTOP)
    stopped.stdin.write("2\n")
    stopped.stdin.flush()
    assert tell(other, 2) == "accepted"
    stopped.send_signal(signal.SIGCONT)
    assert said(stopped) == "duplicate"
    assert until(lambda: scrape(port).get(COUNT)) == 2


def test_nothing_is_served_after_an_erasure_until_something_is_counted(
    home: Path, port: int, start: Make, until: Make, scrape: Make
) -> None:
    first, waiting = start(EAGER, {"port": port}, "a"), start(EAGER, {"port": port}, "b", stderr=subprocess.PIPE)
    assert tell(first, 1) == "accepted"
    until(lambda: scrape(port))
    assert tell(waiting, 1) == "accepted"

    def erase() -> None:
        erasing = start('assert asyncio.run(to.erase(["install"]))', {"port": port})
        assert erasing.wait(timeout=20) == 0

    erase()
    assert scrape(port) == {}
    assert tell(first, 2) == "accepted"
    assert scrape(port)[COUNT] == 1
    erase()
    assert tell(first, "close") == "closed"
    until(lambda: not (home / "telemetry" / "plugins" / "prometheus").exists())
    erase()  # whoever waits to serve tries meanwhile, finds nothing, and leaves nothing
    waiting.kill()
    assert waiting.stderr.read() == ""
    assert not (home / "telemetry" / "plugins" / "prometheus").exists()


def status(port: int, host: str) -> int:
    """What who asks by that name is answered; with metrics, or without."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics", headers={"Host": host})
    answer = connection.getresponse()
    assert (b"cmdorc" in answer.read()) is (answer.status == 200)
    connection.close()
    return answer.status


def test_a_web_page_whose_name_leads_here_gets_nothing(port: int, start: Make, until: Make, scrape: Make) -> None:
    process = start(SERVE, {"port": port}, "a")
    assert tell(process, 1) == "accepted"
    until(lambda: scrape(port))
    assert [status(port, host) for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost", "[::1]:80")] == [200] * 4
    assert [status(port, host) for host in ("evil.example", f"evil.example:{port}", "10.0.0.1", "[", "")] == [403] * 5


def test_what_is_for_other_machines_is_asked_for_by_any_name(
    port: int, start: Make, until: Make, scrape: Make
) -> None:  # fmt: skip
    process = start(SERVE, {"port": port, "host": "0.0.0.0"}, "a")
    assert tell(process, 1) == "accepted"
    until(lambda: scrape(port))
    assert [status(port, host) for host in ("127.0.0.1", "build-7.example")] == [200] * 2


def test_what_cannot_be_read_is_a_failed_scrape_and_not_an_empty_one(
    home: Path, port: int, start: Make, until: Make, scrape: Make
) -> None:
    process = start(SERVE, {"port": port}, "a", stderr=subprocess.PIPE)
    assert tell(process, 1) == "accepted"
    until(lambda: scrape(port))
    (state,) = home.rglob("*.db")
    state.write_bytes(b"no database" * 1000)
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
    process.kill()
    assert process.stderr.read() == ""  # it is the terminal of a program that has other things to say


def test_what_else_is_asked_of_it(port: int, start: Make, until: Make, scrape: Make) -> None:
    process = start(SERVE, {"port": port}, "a")
    assert tell(process, 1) == "accepted"
    until(lambda: scrape(port))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
    request.add_header("Accept", "application/openmetrics-text; version=1.0.0")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.read().endswith(b"# EOF\n")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as idle:  # somebody who says nothing holds up nobody
        assert scrape(port)[COUNT] == 1
        idle.sendall(b"nonsense\r\n\r\n")
        assert b"400" in idle.recv(1000)


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "\u00fc" * 64 + ".example"], ids=["plain", "coded"])
def test_a_host_that_is_none_is_told_once(port: int, start: Make, host: str) -> None:
    process = start(SERVE, {"port": port, "host": host}, "a", stderr=subprocess.PIPE, encoding="utf-8")
    assert tell(process, 1) == "accepted"
    assert process.stderr.readline().startswith("metrics cannot be served at ")
    assert tell(process, 2) == "accepted"
    process.kill()
    assert process.stderr.read() == ""


def test_an_address_of_the_newer_kind(port: int, start: Make, until: Make) -> None:
    process = start(SERVE, {"port": port, "host": "::1"}, "a", stderr=subprocess.PIPE)
    assert tell(process, 1) == "accepted"

    def served() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=5) as answer:
            return COUNT.encode() in answer.read()
        return False

    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:  # a machine without: it says so, and counts
        assert process.stderr.readline().startswith(f"metrics cannot be served at ::1 port {port}: ")
    else:
        until(served)
