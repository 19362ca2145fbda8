"""What a receiver asks for less of: ``status`` shows it, and ``show-payload --to`` what it leaves."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from cmdorc_telemetry.spool import Spool

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
OWN = HTTP + '[telemetry.to.own]\nplugin = "http"\nendpoint = "http://127.0.0.1:8/v1"\naudience = "private"\n'


@pytest.fixture
def asked(machine):
    """A home whose receivers ask for less: ``asked("http", {"level": "minimal"})``."""
    machine.config(OWN)
    machine.opt_in("--level", "standard")
    machine.record(trigger=True)
    machine("show-payload")  # with that, there is a spool

    def ask(name: str, document: Any) -> None:
        with closing(Spool(machine.home.spool)) as spool:
            spool.keep_policy(name, json.dumps({"document": document}))

    machine.ask = ask
    return machine


def test_status_shows_what_a_receiver_asks_for(asked) -> None:
    asked.ask("http", {"level": "minimal", "events": {"trigger_fired": {"level": "off"}}, "sampling": "half"})
    shown = asked("status").stdout
    assert "\nhttp asks for less: level minimal, no trigger_fired.\n" in shown
    assert "\n! http asks for what means nothing here: sampling.\n" in shown
    told = {each["name"]: (each["asks"], each["unclear"]) for each in asked.json("status")["destinations"]}
    assert told == {"http": ("level minimal, no trigger_fired", "sampling"), "own": ("", "")}


def test_status_does_not_show_what_makes_no_difference(asked) -> None:
    asked.ask("http", {"level": "standard", "sampling": 1, "fields": {"os": True}, "unknown": 1})
    asked.ask("own", {"level": "standard"})
    shown = asked("status").stdout
    assert "http asks for" not in shown
    assert "\nown asks for less: level standard.\n" in shown


def test_what_a_receiver_wrote_cannot_talk_to_the_terminal(asked) -> None:
    asked.ask("http", {"fields": {"\x1b[2J": 5}, "events": {"\x1b]0;x\x07": {}}})
    shown = asked("status").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "means nothing here: events.]0;x, fields.[2J." in shown


def test_show_payload_shows_what_it_leaves(asked) -> None:
    asked.ask("http", {"fields": {"os": False}, "events": {"command_completed": {"level": "minimal"}}})
    body = json.loads(asked("show-payload", "command_completed", "--to", "http").stdout)
    assert (body["level"], "os" in body, "timed_out" in body) == ("minimal", False, False)
    assert json.loads(asked("show-payload", "command_completed").stdout)["os"], "what was agreed to is as it was"


@pytest.mark.parametrize("name", ["http", "own"])
def test_show_payload_tells_who_withheld_it(asked, terminal, name: str) -> None:
    asked.ask(name, {"fields": {"os": False, "nobody_has_it": False},
                     "events": {"command_completed": {"fields": {"timed_out": False}}}})  # fmt: skip
    shown = terminal("show-payload", "command_completed", "--to", name, whole=True)
    assert shown.end() == 0
    rows = [line.split(None, 2) for line in shown.shown.splitlines()]
    told = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert told["os"] == ["receiver", "it asks for less"]
    assert told["timed_out"] == ["receiver", "it asks for less"]
    assert "nobody_has_it" not in told


@pytest.mark.parametrize("event", ["command_completed", "orchestrator_stopped"])  # stored, and a sample
def test_show_payload_says_where_the_receiver_wants_nothing(asked, event: str) -> None:
    asked.ask("http", {"level": "off"})
    said = asked("show-payload", event, "--to", "http", code=1).stderr
    assert f"{event}: http gets nothing of it, for it asks for less: no events at all" in said


def test_a_sample_is_what_the_receiver_wants_of_those_it_gets(asked) -> None:
    asked.ask("http", {"sampling": 0, "fields": {"os": False}})
    body = json.loads(asked("show-payload", "orchestrator_stopped", "--to", "http").stdout)
    assert "run_count" in body
    assert "os" not in body
