"""The collector: what it takes, what it says of it, and that it says of each event what a real server would."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import socket
import subprocess
import sys
import tracemalloc
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.spec import load_spec, parse_toml
from cmdorc_telemetry.testing import Collector, Reason
from cmdorc_telemetry.testing.collector import EVENTS, EXPANDED
from cmdorc_telemetry.testing.sources import registry_of
from cmdorc_telemetry.testing.verdicts import WHOLE, Bad, Judge
from cmdorc_telemetry_server.intake import Intake, Refusal

SPEC = """
[meta]
name = "acme.shop"

[[events]]
name = "acme.signup"
semantics = { what = "Somebody signed up" }

[events.properties]
plan = { type = "enum", members = ["free", "team"], required = true, level = "minimal" }
seats = { type = "count", max = 100 }
tags = { type = "enum", members = ["a", "b"], max_items = 3, level = "debug" }
email = { type = "string", pattern = ".*", max_length = 100, pii = true, redact = true }
note = { type = "string", pattern = "[a-z]*", max_length = 100, audience = "private" }

[[events]]
name = "acme.visit"
semantics = { what = "Somebody came" }

[events.properties]
page = { type = "string", pattern = "[a-z]+", max_length = 20, audience = "private" }

[[events]]
name = "acme.left"
version = 2
semantics = { what = "Somebody left, as it is told now" }
properties = { pages = { type = "count" } }

[[events]]
name = "acme.left"
semantics = { what = "Somebody left, as it was told before" }
properties = { page = { type = "count" } }
"""
INSTALL = "01995f6e-0000-4000-8000-000000000000"


def event(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "event": "acme.signup", "spec": "acme.shop@1", "level": "standard", "anonymous_install_id": INSTALL,
        "timestamp": "2026-11-01T00:00:00Z", "event_id": f"01995f6e-0000-7000-8000-{number:012}", "plan": "free",
        **changes,
    }  # fmt: skip


@pytest.fixture
def collector(spec: Path) -> Iterator[Collector]:
    with Collector(spec) as collector:
        yield collector


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def send(collector: Collector, *events: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Status and reason of each, sent as a batch."""
    body = b"\n".join(json.dumps(each).encode() for each in events)
    status, answer = ask(collector.port, "POST", "/v1/report", gzip.compress(body), Content_Encoding="gzip",
                         Content_Type="application/x-ndjson; charset=utf-8")  # fmt: skip
    assert status == 200, answer
    results = json.loads(answer)["results"]
    assert [each["event_id"] for each in results] == [each.get("event_id", "") for each in events]
    return [(each["status"], each.get("reason")) for each in results]


def test_what_is_good_is_kept_once_with_its_own_properties(collector: Collector) -> None:
    sent = send(collector, event(1, seats=3), event(2, plan="team"), event(1, seats=3))
    assert sent == [("accepted", None), ("accepted", None), ("duplicate", None)]
    assert collector.good("acme.signup") == [{"plan": "free", "seats": 3}, {"plan": "team"}]
    first = collector.good()[0]
    assert (first.event, first.spec, first.base["level"]) == ("acme.signup", "acme.shop@1", "standard")
    assert collector.good("acme.visit") == []
    assert collector.bad() == []
    assert collector.counts == {"good": 2, "bad": 0, "duplicate": 1}


def test_of_an_event_the_latest_version_counts(collector: Collector) -> None:
    sent = [{**event(number), "event": "acme.left"} for number in (1, 2)]
    for each, name in zip(sent, ("pages", "page"), strict=True):
        del each["plan"]
        each[name] = 3
    assert [status for status, _ in send(collector, *sent)] == ["accepted", "rejected"]


def test_what_is_bad_is_bad_for_every_reason_and_shown(collector: Collector) -> None:
    wrong = event(plan="freee", seats="3", seat=3, tags=["a"], email="me@acme.test", note="hello")
    del wrong["timestamp"]
    assert send(collector, wrong) == [("rejected", "invalid")]
    (bad,) = collector.bad("acme.signup")
    assert bad.body == wrong
    found = {reason.property: (reason.reason, reason.found) for reason in bad.reasons if reason.property != "timestamp"}
    assert found == {
        "plan": ("invalid", "freee"), "seats": ("invalid", "3"), "seat": ("undeclared", 3), "tags": ("level", ["a"]),
        "email": ("invalid", "me@acme.test"), "note": ("private", "hello"),
    }  # fmt: skip
    assert Reason("missing", "timestamp", "every event has it") in bad.reasons
    details = {reason.property: reason.detail for reason in bad.reasons}
    assert details["seat"] == "acme.signup declares no such property; did you mean 'seats'?"
    assert details["seats"] == "expected whole number, 0 to 100"
    assert details["email"] == "expected the mask '[redacted]'"
    assert details["tags"] == "is of level debug, and the event of level standard"
    assert collector.good() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event": "acme.sinup"}, ("unknown-event", "acme.shop@1 declares no such event; did you mean 'acme.signup'?")),
        ({"event": "x"}, ("unknown-event", "acme.shop@1 declares no such event")),
        ({"spec": "acme.shop@2"}, ("unknown-spec", "expected one of acme.shop@1, cmdorc.core@1")),
        ({"event": "acme.visit", "plan": "x"}, ("level", "acme.visit is not shared at this level")),
        ({"timestamp": "2026-02-30T00:00:00Z"}, ("invalid", "Expected a moment")),
        ({"level": "all"}, ("invalid", "Invalid enum value 'all' - at `$.level`")),
        ({"event": 3}, ("invalid", "Expected `str`, got `int` - at `$.event`")),
    ],
)
def test_what_is_wrong_with_a_whole_event(
    collector: Collector, changes: dict[str, Any], reason: tuple[str, str]
) -> None:
    ((status, _),) = send(collector, event(**changes))
    assert status == "rejected"
    (bad,) = collector.bad()
    assert [(each.reason, each.detail) for each in bad.reasons] == [reason]


def test_a_line_that_is_no_event(collector: Collector) -> None:
    for line in (b"no json", b'{"event": "\xff"}', b'{"a":' * 5000, b"[1]"):
        assert ask(collector.port, "POST", "/v1/report", line, Content_Type="application/json")[0] == 422
    reasons = [reason.reason for each in collector.bad() for reason in each.reasons]
    assert reasons == ["unreadable", "unreadable", "unreadable", "invalid"]
    assert collector.bad()[0].body == "no json"


def test_a_server_of_ones_own_takes_private_properties(spec: Path) -> None:
    with Collector(spec, accept_private=True) as collector:
        sent = [event(1, note="hello"), event(2, event="acme.visit", plan="free"), event(3, seats=101)]
        assert [status for status, _ in send(collector, *sent)] == ["accepted", "rejected", "rejected"]
        assert collector.good() == [{"plan": "free", "note": "hello"}]


def test_no_more_is_kept_than_asked_for_but_all_is_counted(spec: Path) -> None:
    with Collector(spec, keep=2) as collector:
        send(collector, *(event(number, seats=number) for number in range(1, 6)))
        send(collector, *(event(number, plan=str(number)) for number in range(6, 10)))
        assert [each["seats"] for each in collector.good()] == [4, 5]
        assert [each.body["plan"] for each in collector.bad()] == ["8", "9"]
        assert collector.counts == {"good": 5, "bad": 4, "duplicate": 0}
        assert collector.seen == []
        long = json.dumps(event(plan="x" * 100_000)).encode()
        ask(collector.port, "POST", "/v1/report", long, Content_Type="application/json")
        assert len(collector.bad()[-1].body) == 16_384


def answered(collector: Collector, path: str) -> Any:
    status, body = ask(collector.port, "GET", path)
    assert status == 200
    return json.loads(body)


def test_it_is_asked_over_http(collector: Collector) -> None:
    send(collector, event(1, seats=3), event(2, plan="x"), event(3, plan="y"), event(4, event="x\x1b[31m"))
    assert answered(collector, "/v1/health") == {"status": "ok"}
    assert answered(collector, "/v1/policy") == {}
    good = answered(collector, "/good?event=acme.signup")
    assert (good["count"], good["good"][0]["properties"]) == (1, {"plan": "free", "seats": 3})
    assert good["good"][0]["base"]["event_id"] == event(1)["event_id"]
    assert answered(collector, "/good?event=acme.visit") == {"count": 0, "good": []}
    assert answered(collector, "/bad")["count"] == 3
    bad = answered(collector, "/bad?event=acme.signup")["bad"]
    assert [each["reasons"][0] for each in bad] == [
        {"reason": "invalid", "property": "plan", "detail": "expected free, team, other", "found": value}
        for value in ("x", "y")
    ]
    assert answered(collector, "/counts") == {
        "good": 1, "bad": 3, "duplicate": 0,
        "events": {"acme.signup": {"good": 1, "bad": 2}, "x\x1b[31m": {"good": 0, "bad": 1}},
        "reasons": [
            {"event": "acme.signup", "property": "plan", "reason": "invalid", "count": 2},
            {"event": "x\x1b[31m", "property": "event", "reason": "unknown-event", "count": 1},
        ],
    }  # fmt: skip
    page = ask(collector.port, "GET", "/")[1].decode()
    assert "1 good, 3 bad, by cmdorc.core@1, acme.shop@1\n" in page
    assert """acme.signup  plan      invalid        2      "y": expected free, team, other\n""" in page
    assert "\x1b" not in page
    assert ask(collector.port, "POST", "/reset") == (200, b'{"message": "Forgotten."}')
    assert answered(collector, "/counts")["bad"] == len(collector.bad()) == len(collector.good()) == 0
    assert send(collector, event(1)) == [("accepted", None)]


def test_the_page_for_people_says_no_more_than_there_is(collector: Collector) -> None:
    def page() -> list[str]:
        with urllib.request.urlopen(collector.address) as answer:
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            return answer.read().decode().splitlines()[:-2]  # type: ignore[no-any-return]

    assert page() == ["0 good, 0 bad, by cmdorc.core@1, acme.shop@1"]
    send(collector, event())
    first = "1 good, 0 bad, by cmdorc.core@1, acme.shop@1"
    assert page() == [first, "", "event        good  bad", "acme.signup  1     0"]


def test_an_install_is_erased(collector: Collector) -> None:
    other = INSTALL.replace("0000", "1111", 1)
    send(collector, event(1), event(2, anonymous_install_id=other), event(3))
    assert ask(collector.port, "DELETE", f"/v1/installs/{INSTALL}") == (200, b'{"message": "Erased.", "deleted": 2}')
    assert [each.base["anonymous_install_id"] for each in collector.good()] == [other]


def test_wrong_questions_say_what_would_be_right(collector: Collector) -> None:
    with pytest.raises(ValueError, match=r"^no spec declares 'acme\.sinup'\. Did you mean 'acme\.signup'\?$"):
        collector.good("acme.sinup")
    asked = {
        ("GET", "/good?event=acme.sinup"): (404, "Did you mean 'acme.signup'?"),
        ("GET", "/bad?evnt=x"): (400, "evnt: expected event=NAME or nothing"),
        ("GET", "/reset"): (405, "expected POST"),
        ("POST", "/v1/installs/x"): (405, "expected DELETE"),
        ("GET", "/goods"): (404, "there are /v1/report, /v1/policy, /v1/health, /good, /bad, /reset, /counts, /"),
    }
    for (method, path), (status, words) in asked.items():
        found, body = ask(collector.port, method, path)
        assert (found, words in json.loads(body)["message"]) == (status, True), body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content_Type": "text/plain"}, 415),
        (b"{}", {"Content_Encoding": "br"}, 415),
        (b"{}", {"Content_Encoding": "gzip"}, 400),
        (b"{}", {"Content_Encoding": "zstd"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-3], {"Content_Encoding": "gzip"}, 400),
        (b"", {}, 400),
        (b"\n \n", {"Content_Type": "application/x-ndjson"}, 400),
        (b"{}\n" * (EVENTS + 1), {"Content_Type": "application/x-ndjson"}, 413),
        (gzip.compress(bytes(EXPANDED + 1), mtime=0), {"Content_Encoding": "gzip"}, 413),
        (bytes((2 << 20) + 1), {}, 413),
    ],
)
def test_bodies_that_are_refused_as_a_whole(
    collector: Collector, body: bytes, headers: dict[str, str], status: int
) -> None:
    try:
        found = ask(collector.port, "POST", "/v1/report", body, **{"Content_Type": "application/json", **headers})[0]
    except (BrokenPipeError, ConnectionResetError):  # it was refused before it was sent
        found = 413
    assert found == status
    assert collector.counts["bad"] == 0


def test_a_body_that_would_grow_without_end_is_not_let_grow(collector: Collector) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(150)) + packer.flush()
    tracemalloc.start()
    try:
        headers = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
        assert ask(collector.port, "POST", "/v1/report", bomb, **headers)[0] == 413
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Content-Length: x", b"400"),
        ("Content-Length: -1", b"400"),
        ("Transfer-Encoding: chunked\r\n\r\nx\r\n", b"400"),
        ("Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", b"413"),
    ],
)
def test_lengths_that_cannot_be(collector: Collector, header: str, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
        connection.sendall(f"POST /v1/report HTTP/1.1\r\n{header}\r\n\r\n".encode())
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 " + status)


def test_an_address_that_is_none(collector: Collector) -> None:
    with socket.create_connection(("127.0.0.1", collector.port), timeout=20) as connection:
        connection.sendall(b"GET http://[x HTTP/1.1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


def test_it_fails_like_any_other_server_where_it_is_told_to(spec: Path) -> None:
    with Collector(spec, faults=["503-seconds", "answer-lost"]) as collector:
        sent = json.dumps(event()).encode()
        assert ask(collector.port, "POST", "/v1/report", sent, Content_Type="application/json")[0] == 503
        with pytest.raises(http.client.RemoteDisconnected):
            ask(collector.port, "POST", "/v1/report", sent, Content_Type="application/json")
        assert send(collector, event()) == [("duplicate", None)]


def test_waiting_for_what_is_to_come(collector: Collector) -> None:
    body = json.dumps(event()).encode()
    late = subprocess.Popen([sys.executable, "-c", (
        "import sys, urllib.request as u; "
        f"u.urlopen(u.Request({collector.endpoint!r} + '/report', {body!r}, {{'Content-Type': 'application/json'}}))"
    )])  # fmt: skip
    collector.wait_for(lambda _: bool(collector.good("acme.signup")), 300)  # in vain, this test would take too long
    assert late.wait(20) == 0


def test_specs_are_files_or_specs(spec: Path) -> None:
    with Collector(load_spec(spec), str(spec)) as collector:
        assert send(collector, event()) == [("accepted", None)]
    with pytest.raises(TypeError, match="found 3; expected a spec, its file, a registry or an application"):
        Collector(3)  # type: ignore[arg-type]


NAMES = ["event", "spec", "level", "event_id", "anonymous_install_id", "timestamp", "os", "plan", "seats", "tags",
         "email", "note", "page", "pages", "x", "app_version"]  # fmt: skip
VALUES = st.sampled_from([
    None, True, 0, 3, 3.0, 3.5, 101, -1, 2**60, "", "free", "other", "team", "a", ["a"], ["a", "x"], ["a"] * 4, {},
    "[redacted]", "acme.signup", "acme.visit", "acme.left", "cmdorc.core@1", "minimal", "debug", INSTALL,
    "2026-02-30T00:00:00Z", "0001-01-01T00:00:00Z", "1.0", "linux", "hello",
])  # fmt: skip
LINES = st.builds(
    lambda changes, gone: json.dumps({
        name: value for name, value in {**event(), **changes}.items() if name not in gone
    }).encode(),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), st.sets(st.sampled_from(NAMES), max_size=2),
) | st.binary(max_size=30)  # fmt: skip


REGISTRY = registry_of([CMDORC, parse_toml(SPEC, "shop.telemetry.toml")])
BOTH = {private: (Judge(REGISTRY, private=private), Intake(REGISTRY, accept_private=private)) for private in (0, 1)}


@settings(max_examples=600, deadline=None)
@given(line=LINES, private=st.sampled_from((0, 1)))
def test_it_says_of_each_event_what_a_real_server_does(line: bytes, private: int) -> None:
    judge, intake = BOTH[private]
    ours, theirs = judge(line), intake.judge(line, 1.8e9)
    assert isinstance(ours, Bad) == isinstance(theirs, Refusal), (ours, theirs)
    if isinstance(ours, Bad) and isinstance(theirs, Refusal):
        assert theirs.reason == (ours.reasons[0].reason if ours.reasons[0].reason in WHOLE else "invalid")


# -- as a process ------------------------------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-m", "cmdorc_telemetry.testing"]


def started(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([*PROGRAM, "collector", *arguments], text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline().removeprefix("listening on http://127.0.0.1:").removesuffix("/v1\n"))


@pytest.mark.parametrize(("bad", "code"), [(False, 0), (True, 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_when_told_to_and_fails_where_something_was_bad(
    spec: Path, bad: bool, code: int, number: signal.Signals
) -> None:
    process, port = started("--fail-on-bad", str(spec))
    for sent in (event(plan="x"), *([event(plan="y")] if bad else [])):
        ask(port, "POST", "/v1/report", json.dumps(sent).encode(), Content_Type="application/json")
        if sent["plan"] == "x":
            ask(port, "POST", "/reset")
    process.send_signal(number)
    told, complaint = process.communicate(timeout=20)
    assert json.loads(told) == {"good": 0, "bad": int(bad), "duplicate": 0}
    assert ('"y": expected free, team, other' in complaint) is bad
    assert "Traceback" not in complaint
    assert process.returncode == code


def test_bad_events_alone_do_not_fail_it(spec: Path) -> None:
    process, port = started(str(spec))
    ask(port, "POST", "/v1/report", b"{}", Content_Type="application/json")
    process.terminate()
    assert process.communicate(timeout=20)[1].startswith("0 good, 1 bad, by cmdorc.core@1, acme.shop@1\n")
    assert process.returncode == 0


def test_what_is_wrong_with_its_command_line(spec: Path) -> None:
    def complaint(*arguments: str) -> str:
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              check=False, timeout=20)  # fmt: skip
        assert done.returncode == 2
        return done.stderr.splitlines()[-1]

    missing = spec.with_name("nowhere.toml")
    assert complaint("collector", str(missing)) == f"Error: {missing}: cannot be read: No such file or directory"
    spec.write_text(SPEC.replace('"count"', '"coutn"'), encoding="utf-8")
    assert complaint("collector", str(spec)).startswith(
        f"Error: {spec}: events[0].properties.seats.type: found 'coutn'"
    )
    assert complaint("collector", "--fail", "no-such").startswith("Error: there is no fault 'no-such'")
    assert complaint("--port", "1", "collector") == "Error: options of collector go behind it; found port before"
    with Collector() as collector:
        taken = f"Error: port {collector.port} of 127.0.0.1 cannot be had: Address already in use"
        assert complaint("collector", "--port", str(collector.port)) == taken
        assert complaint("--port", str(collector.port)) == taken
