"""What the operator wants less of: the file, what is served of it, and what it keeps from the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.spec import TelemetryRegistry
from cmdorc_telemetry_server.policy import load_policy

Event = Callable[..., dict[str, Any]]
Serve = Callable[..., Any]

WHOLE = """
level = "standard"
sampling = 0.5
fields = {python_version = false}
[events.trigger_fired]
level = "off"
[events.command_completed]
sampling = 0.1
fields = {concurrent_runs = false, timed_out = false}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "policy.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_becomes_the_document(policy: Callable[[str], Path]) -> None:
    assert load_policy(policy(WHOLE), TelemetryRegistry.with_core()) == {
        "level": "standard",
        "sampling": 0.5,
        "fields": {"python_version": False},
        "events": {
            "trigger_fired": {"level": "off"},
            "command_completed": {"sampling": 0.1, "fields": {"concurrent_runs": False, "timed_out": False}},
        },
    }
    assert load_policy(policy(""), TelemetryRegistry.with_core()) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("levle = 'minimal'", "levle: unknown key; expected one of level, sampling, fields, events. "
                              "Did you mean 'level'?"),
        ("level = 'banana'", "level: found 'banana'; expected one of debug, minimal, off, standard"),
        ("sampling = 2", "sampling: found 2; expected float <= 1.0"),
        ("sampling = nan", "sampling: found nan; expected float"),
        ("fields = ['os']", "fields: found ['os']; expected table"),
        ("fields = {os = 'no'}", "fields.os: found 'no'; expected bool"),
        ("fields = {oss = false}", "fields.oss: no such field is declared"),
        ("fields = {event_id = false}", "fields.event_id: no report can do without it"),
        ("fields = {os = true}", "fields.os: found true; expected false: a policy can only ask for less"),
        ("[events.command_complete]", "events.command_complete: no spec has such an event"),
        ("events = {trigger_fired = 'off'}", "events.trigger_fired: found 'off'; expected table"),
        ("[events.trigger_fired]\nfields = {duration_ms = false}", "events.trigger_fired.fields.duration_ms: no such"),
        ("[events.trigger_fired]\nevents = {}", "events.trigger_fired.events: unknown key"),
        ("level = [", "is no valid TOML"),
        (b"\xff", "is no valid TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(
    command: Callable[..., Any], policy: Callable[[Any], Path], text: str | bytes, said: str
) -> None:
    done = command("serve", "--port", 0, "--policy", policy(text))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"policy.toml: {said}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_policy(tmp_path / "none.toml", TelemetryRegistry.with_core())


def test_the_nearest_name_is_told(policy: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError) as fault:
        load_policy(policy("[events.command_completed]\nfields = {concurent_runs = false}"),
                    TelemetryRegistry.with_core())  # fmt: skip
    assert fault.value.nearest == "concurrent_runs"
    assert "event_id" not in fault.value.expected


def test_fields_and_events_of_further_specs_are_known(policy: Callable[[str], Path], tmp_path: Path) -> None:
    from cmdorc_telemetry.spec import load_spec

    spec = tmp_path / "own.toml"
    spec.write_text('[meta]\nname = "own"\n[[events]]\nname = "asked"\n[events.semantics]\nwhat = "w"\n'
                    '[events.properties.n]\ntype = "count"\nlevel = "minimal"\n')  # fmt: skip
    registry = TelemetryRegistry.with_core()
    registry.register(load_spec(spec), str(spec))
    text = "fields = {n = false}\n[events.asked]\nfields = {n = false}"
    assert load_policy(policy(text), registry)["events"] == {"asked": {"fields": {"n": False}}}


# -- what is served ---------------------------------------------------------------------------------------------------


def test_it_is_served_with_a_mark_that_changes_with_it(process: Serve, policy: Callable[[str], Path]) -> None:
    marks = []
    for text in (WHOLE, 'level = "minimal"', ""):
        server = process("--store", policy("").with_name("store.db"), "--policy", policy(text))
        status, document, headers = server.request("GET", "/v1/policy")
        assert (status, document) == (200, load_policy(policy(text), TelemetryRegistry.with_core()))
        marks.append(headers["ETag"])
        assert marks[-1].startswith('"'), "a strong one"
        status, nothing, headers = server.request("GET", "/v1/policy", If_None_Match=marks[-1])
        assert (status, nothing, headers["ETag"]) == (304, b"", marks[-1])
        server.kill()
    assert len(set(marks)) == 3


# -- at the door ------------------------------------------------------------------------------------------------------


def test_a_field_that_is_not_wanted_is_not_stored(serve: Serve, event: Event) -> None:
    server = serve(policy={"fields": {"os": False}, "events": {"command_completed": {"fields": {"state": False}}}})
    sent = [event(), event(level="standard", concurrent_runs=3)]
    assert server.statuses(sent) == ["accepted", "accepted"]
    assert server.statuses(sent) == ["duplicate", "duplicate"]
    wanted = [{name: value for name, value in each.items() if name not in ("os", "state")} for each in sent]
    assert sorted(server.stored(), key=str) == sorted(wanted, key=str)


def test_what_is_above_the_level_is_not_stored(serve: Serve, event: Event) -> None:
    server = serve(policy={"level": "minimal"})
    assert server.statuses([event(level="standard", concurrent_runs=3, timed_out=False)]) == ["accepted"]
    (stored,) = server.stored()
    assert stored["level"] == "minimal"
    assert not stored.keys() & {"concurrent_runs", "timed_out"}


def test_an_event_that_is_not_wanted_is_refused_for_that_reason(serve: Serve, event: Event) -> None:
    server = serve(policy={"events": {"command_completed": {"level": "off"}}})
    other = event(event="orchestrator_started", executor_type="mock", command_count=1, has_triggers=False,
                  duration_ms=None, state=None, final=None, manual=None)  # fmt: skip
    sent = [event(), other]
    status, answer, _ = server.batch(sent)
    assert status == 200
    assert [(each["status"], each.get("reason")) for each in answer["results"]] == [
        ("rejected", "unwanted"), ("accepted", None),
    ]  # fmt: skip
    assert answer["results"][0]["event_id"] == sent[0]["event_id"]
    assert [each["event"] for each in server.stored()] == ["orchestrator_started"]


def test_a_single_event_that_is_not_wanted_is_no_invalid_one(serve: Serve, event: Event) -> None:
    server = serve(policy={"level": "off"})
    status, answer, _ = server.report(event())
    assert (status, answer["results"][0]["reason"]) == (200, "unwanted")
    status, answer, _ = server.report(event(duration_ms="x"))
    assert (status, answer["results"][0]["reason"]) == (422, "invalid")
    assert server.stored() == []


def test_the_share_that_is_wanted_is_stored_with_its_rate_whoever_took_it(serve: Serve, event: Event) -> None:
    server = serve(policy={"sampling": 0.25})
    sent = [event() for _ in range(400)]
    statuses = server.statuses(sent)
    assert 60 < statuses.count("accepted") < 140
    assert statuses.count("rejected") == 400 - statuses.count("accepted")
    stored = server.stored()
    assert {each["sampling_rate"] for each in stored} == {0.25}
    assert server.statuses(stored) == ["duplicate"] * len(stored), (
        "a client that took the share itself loses none of it"
    )


@pytest.mark.parametrize("field", ["duration_ms", "state"])
def test_a_duration_that_is_not_wanted_counts_for_no_percentile(serve: Serve, event: Event, field: str) -> None:
    status, answer, _ = serve(k=1, policy={"fields": {field: False}}).report(event())
    assert (status, answer["results"][0]["status"], answer["stats"]) == (200, "accepted", {})


def test_a_private_server_keeps_from_its_store_what_it_does_not_want(serve: Serve, event: Event) -> None:
    server = serve(accept_private=True, policy={"events": {"command_completed": {"fields": {"command_name": False}}}})
    assert server.statuses([event(level=None, command_name="Tests", run_id="r")]) == ["accepted"]
    (stored,) = server.stored()
    assert (stored["run_id"], "command_name" in stored) == ("r", False)


def test_nothing_of_what_is_not_wanted_is_in_the_file(process: Serve, policy: Callable[[str], Path], event: Event,
                                                      tmp_path: Path) -> None:  # fmt: skip
    store = tmp_path / "store.db"
    server = process("--store", store, "--accept-private", "--policy",
                     policy("[events.command_completed]\nfields = {command_name = false}"))  # fmt: skip
    assert server.statuses([event(level=None, command_name="Canary")]) == ["accepted"]
    server.kill()
    with sqlite3.connect(store) as db:
        assert [json.loads(body)["event"] for (body,) in db.execute("SELECT body FROM event")] == ["command_completed"]
    db.close()
    assert all(b"Canary" not in path.read_bytes() for path in tmp_path.iterdir())
