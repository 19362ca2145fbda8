"""``audit``: what left this machine, for people and for scripts, and whether it is the whole truth."""

from __future__ import annotations

import json
import re

import pytest

CONFIG = (
    '[telemetry]\nplugins = ["jot"]\n[telemetry.to.far]\nplugin = "jot"\n'
    '[telemetry.to.mine]\nplugin = "jot"\naudience = "private"\n'
)
HOSTILE = """
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Jot(TelemetryReporter):
    async def report(self, event, payload):
        raise ValueError(f"{payload}")

@hookimpl
def telemetry_reporters():
    return [Jot]
"""


@pytest.fixture
def sent(machine):
    """A home from which the events of one program left for two destinations."""
    machine.plugin("jot")
    machine.config(CONFIG)
    machine.opt_in("--level", "standard")
    machine.record()
    machine("flush")
    return machine


def lines(machine, *args: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in machine("audit", "--json", *args).stdout.splitlines()]


def test_nothing_left(machine) -> None:
    machine.config(CONFIG)
    assert machine("audit").stdout == "Nothing left this machine.\n"
    assert machine("audit", "--json").stdout == ""
    assert machine("audit", "--verify").stdout == "Nothing left this machine.\n"
    assert set(machine.files()) == {"config.toml"}


def test_an_unknown_destination_is_named(machine) -> None:
    assert machine("audit", "--to", "far", code=2).stderr == (
        "error: --to: found 'far'; expected none: nothing ever left this machine\n"
    )
    machine.config('[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n')
    assert machine("audit", "--to", "htpp", code=2).stderr == (
        "error: --to: found 'htpp'; expected one of http. Did you mean 'http'?\n"
    )


def test_people_see_when_for_whom_how_much_which_fields_and_what_came_of_it(sent) -> None:
    shown = sent("audit").stdout.splitlines()
    assert shown[0] == "2 batches left this machine."
    assert re.split(" {2,}", shown[2]) == ["Left", "For", "Batch", "Events", "Bytes", "Answer"]
    when, name, batch, events, size, answer = re.split(" {2,}", shown[3])
    assert re.fullmatch(r"\d+ \w+ \d+ \d\d:\d\d UTC", when)
    assert name in ("far", "mine")
    assert (batch, events, answer) == ("1", "orchestrator_started 1, command_completed 1", "accepted 2")
    assert int(size.replace(",", "")) > 500
    (fields,) = [line for line in shown if line.startswith("command_completed  ")]
    assert {"duration_ms", "event_id", "command_name"} <= set(re.split(", | {2,}", fields))
    assert shown[-2:] == [
        "Is it true?           telemetry audit --verify",
        f"Where                 {sent.home.audit}",
    ]


def test_only_one_destination_and_only_the_last(sent) -> None:
    sent.record()
    sent("flush")
    shown = sent("audit", "--to", "far", "--last", "1").stdout.splitlines()
    assert shown[0] == "2 batches left this machine. The last one:"
    assert re.split(" {2,}", shown[3])[1:3] == ["far", "2"]
    assert not shown[4]
    assert "command_name" not in "\n".join(shown)
    assert [line["batch"] for line in lines(sent, "--last", "2")] == [2, 2]
    for _ in range(10):
        sent.record()
        sent("flush")
    assert sent("audit").stdout.startswith("24 batches left this machine. The last 20:\n")
    assert len(lines(sent)) == 24


def test_a_script_gets_an_object_a_line(sent) -> None:
    first, second = lines(sent)
    assert {first["destination"], second["destination"]} == {"far", "mine"}
    assert set(first) == {
        "at", "destination", "batch", "events", "event_ids", "fields", "bytes", "digest", "answer", "error",
    }  # fmt: skip
    assert first["event_ids"] == second["event_ids"]
    assert first["answer"] == {"accepted": 2}


def test_what_left_and_was_not_taken_says_so_without_what_it_was(machine) -> None:
    machine.plugin("jot", HOSTILE)
    machine.config(CONFIG)
    machine.opt_in()
    machine.record()
    machine("flush", code=1)
    shown = machine("audit").stdout
    assert "unknown 2 (the reporter failed: ValueError)" in shown
    assert b"Tests" not in b"".join(path.read_bytes() for path in machine.home.audit.iterdir())
    machine("audit", "--verify")


@pytest.mark.parametrize("columns", [60, 90])
def test_wide_rows_are_wrapped_between_words_on_a_terminal(sent, terminal, columns) -> None:
    opened = terminal("audit", whole=True, columns=columns)
    assert opened.end() == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", opened.shown).splitlines()
    start = next(number for number, line in enumerate(shown) if line.startswith("command_completed  "))
    assert all(len(line) <= columns for line in shown if not line.startswith("Where"))
    assert f"Where                 {sent.home.audit}" in shown
    assert shown[start + 1].startswith(" " * len("orchestrator_started  "))


# -- is it true? ------------------------------------------------------------------------------------------------------


def test_a_whole_audit(sent) -> None:
    assert sent("audit", "--verify").stdout == (
        "The audit is whole. It accounts for everything that the ledger has as acknowledged.\n"
    )
    assert sent("audit", "--verify", "--json").stdout == ""
    sent.home.spool.unlink()
    assert sent("audit", "--verify").stdout == "The audit is whole. There is no ledger to compare it with.\n"


def test_one_that_was_tampered_with_ends_with_1_and_names_the_batch(sent) -> None:
    path = sent.home.audit / "far.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"sha256:', b'"sha256:0'))
    result = sent("audit", "--verify", code=1)
    first, _, wrong = result.stdout.splitlines()
    assert first == "The audit does not add up: 1 mismatch."
    assert re.fullmatch(
        r"! far, batch 1: line 3 of far.jsonl does not follow the one before it: "
        r"something was changed, moved or removed \(left \d+ \w+ \d+ \d\d:\d\d UTC\)", wrong,
    )  # fmt: skip
    (found,) = map(json.loads, sent("audit", "--verify", "--json", code=1).stdout.splitlines())
    assert (found["destination"], found["batch"]) == ("far", 1)
    sent("audit", "--verify", "--to", "mine")
    path.unlink()
    assert "! far, before its first batch: 2 events more were acknowledged" in sent("audit", "--verify", code=1).stdout
