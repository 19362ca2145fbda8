"""``dead-letters``: what was set aside, the bytes of it, and the two things that can become of it."""

from __future__ import annotations

import json

import pytest

from cmdorc_telemetry.spool import Spool

PICKY = """
import os
from cmdorc_telemetry import TelemetryReporter, hookimpl
from cmdorc_telemetry.errors import Rejected

class Picky(TelemetryReporter):
    class Settings(TelemetryReporter.Settings):
        only: str = "command_completed"

    async def report(self, event, payload):
        if event == self.settings.only and not os.path.exists("tolerant"):
            raise Rejected("never\\x1b[2J that")
        with open("taken.txt", "a") as file:
            print(event, file=file)

@hookimpl
def telemetry_reporters():
    return [Picky]
"""
CONFIG = '[telemetry]\nplugins = ["picky"]\n[telemetry.to.picky]\n[telemetry.to.own]\nplugin = "picky"\n' \
         'audience = "private"\nonly = "nothing"\nrename = { command_name = "name" }\n'  # fmt: skip


@pytest.fixture
def picky(machine):
    """A machine on which one of two events of each program is set aside for ``picky``."""
    machine.plugin("picky", PICKY)
    machine.config(CONFIG)
    machine.opt_in()
    machine.record()
    machine("flush", code=1)
    return machine


def letters(machine) -> list[dict[str, object]]:
    found: list[dict[str, object]] = machine.json("dead-letters")
    return found


def number(machine) -> str:
    (found,) = letters(machine)
    return str(found["seq"])


def ledger(machine, name: str = "picky") -> tuple[int, int, int, int, dict[str, int]]:
    spool = Spool(machine.home.spool, reading=True)
    each = spool.ledger()[name]
    spool.close()
    assert each.recorded == each.acknowledged + each.pending + sum(each.dropped.values())
    return each.recorded, each.acknowledged, each.pending, each.set_aside, dict(each.dropped)


# -- the list ---------------------------------------------------------------------------------------------------------


def test_there_is_nothing_and_nothing_is_written(machine) -> None:
    assert machine("dead-letters").stdout == "No event is set aside.\n"
    assert machine.json("dead-letters") == []
    assert machine("dead-letters", "resend", "--all").stdout == "0 events wait to be sent again.\n"
    assert machine("dead-letters", "discard", "--all").stdout == "0 events discarded.\n"
    assert not machine.home.root.exists()


def test_the_list_says_when_whose_what_and_why(picky) -> None:
    before = picky.files()
    lines = picky("dead-letters").stdout.splitlines()
    assert lines[0] == "1 event is set aside."
    assert lines[2].split() == ["ID", "Time", "Destination", "Event", "Tries", "Why"]
    found = lines[3].split()
    assert found[0] == number(picky)
    assert found[5:8] == ["UTC", "picky", "command_completed"]
    assert found[8].isdigit()
    assert lines[3].endswith("never�[2J that")
    assert lines[5:] == [
        f"The bytes   telemetry dead-letters show {number(picky)}",
        "Send again  telemetry dead-letters resend --all",
        "Drop        telemetry dead-letters discard --all",
    ]
    assert picky.files() == before


def test_a_script_gets_all_of_it(picky) -> None:
    (found,) = letters(picky)
    assert (found["destination"], found["event"], found["spec"]) == ("picky", "command_completed", "cmdorc.core@1")
    assert len(str(found["event_id"])) == 36
    assert picky.json("dead-letters", "--to", "own") == []
    assert picky.json("dead-letters", "--to", "picky") == [found]


def test_a_destination_that_does_not_exist_is_named(picky) -> None:
    result = picky("dead-letters", "--to", "pikky", code=2)
    assert result.stderr == ("error: --to: found 'pikky'; expected one of history, own, picky. Did you mean 'picky'?\n")
    assert "options come after show" in picky("dead-letters", "--to", "picky", "show", "1", code=2).stderr
    assert "options come after show" in picky("dead-letters", "--json", "show", "1", code=2).stderr


# -- one of them ------------------------------------------------------------------------------------------------------


def test_the_bytes_are_those_that_the_destination_would_get(picky) -> None:
    picky("dead-letters", "resend", "--all")
    (picky.work / "tolerant").touch()
    picky.config(CONFIG.replace('only = "nothing"', 'only = "command_completed"'))
    (picky.work / "tolerant").unlink()
    picky.record()
    picky("flush", code=1)
    own = next(each for each in letters(picky) if each["destination"] == "own")
    private = json.loads(picky("dead-letters", "show", str(own["seq"]), "--to", "own").stdout)
    assert private["name"] == "Tests"
    assert private["event_id"] == own["event_id"]
    shared = json.loads(picky("dead-letters", "show", str(own["seq"]), "--to", "picky").stdout)
    assert shared["event_id"] == own["event_id"]
    assert "Tests" not in json.dumps(shared)
    result = picky("dead-letters", "show", str(own["seq"]), code=2)
    assert result.stderr == f"error: --to: {own['seq']} was set aside for several; expected one of own, picky\n"


def test_on_a_terminal_it_is_laid_out(picky, terminal) -> None:
    shown = terminal("dead-letters", "show", number(picky), whole=True)
    assert shown.end() == 0
    assert "to picky (shared)" in shown.shown
    assert "sha256 " in shown.shown


def test_what_it_would_not_get_any_more_is_not_shown(picky) -> None:
    found = number(picky)
    picky.config(CONFIG.replace("[telemetry.to.own]", 'events = ["orchestrator_started"]\n[telemetry.to.own]'))
    picky.config(CONFIG + "[telemetry.settings]\n")
    picky("opt-in", "--local", "--yes")
    result = picky("dead-letters", "show", found, code=2)
    assert "is not set aside" in result.stderr  # it was dropped with the consent


def test_an_id_that_is_none(picky) -> None:
    wrong = str(int(number(picky)) + 100)
    expected = f"error: ID: {wrong} is not set aside; expected one that `telemetry dead-letters` lists\n"
    assert picky("dead-letters", "show", wrong, code=2).stderr == expected
    assert picky("dead-letters", "discard", "--yes", wrong, code=2).stderr == expected
    result = picky("dead-letters", "resend", number(picky), wrong, "--to", "own", code=2)
    assert f"{number(picky)} is not set aside for own;" in result.stderr
    assert ledger(picky) == (2, 1, 1, 1, {})


# -- what becomes of them ---------------------------------------------------------------------------------------------


def test_sent_again_they_arrive_once(picky) -> None:
    (picky.work / "tolerant").touch()
    result = picky("dead-letters", "resend", number(picky))
    assert result.stdout == "1 event waits to be sent again.\n  telemetry flush  sends them now.\n"
    assert ledger(picky) == (2, 1, 1, 0, {})
    picky("flush")
    assert ledger(picky) == (2, 2, 0, 0, {})
    taken = (picky.work / "taken.txt").read_text().split()
    assert sorted(taken).count("command_completed") == 2  # one of them for ``own``
    assert letters(picky) == []


def test_sent_again_and_rejected_again_they_are_set_aside_again(picky) -> None:
    (before,) = letters(picky)
    picky("dead-letters", "resend", "--all", "--to", "picky")
    picky("flush", code=1)
    (after,) = letters(picky)
    assert after["event_id"] == before["event_id"]
    assert int(str(after["tries"])) > int(str(before["tries"]))


def test_discarded_they_are_counted(picky) -> None:
    result = picky("dead-letters", "discard", "--all", "--yes")
    assert result.stdout == "1 event discarded.\n"
    assert ledger(picky) == (2, 1, 0, 0, {"discarded": 1})
    assert picky("flush").stdout.count("dropped 1 (discarded 1)") == 1


def test_one_of_several(picky) -> None:
    picky.record()
    picky("flush", code=1)
    first, second = (str(each["seq"]) for each in letters(picky))
    picky("dead-letters", "discard", "--yes", first)
    assert number(picky) == second


@pytest.mark.parametrize("command", ["resend", "discard"])
def test_which_has_to_be_said(picky, command: str) -> None:
    for args in ((), (number(picky), "--all")):
        result = picky("dead-letters", command, *args, code=2)
        assert "name events by their ID, or say --all" in result.stderr
    assert ledger(picky) == (2, 1, 1, 1, {})


def test_without_a_terminal_discard_wants_a_yes(picky) -> None:
    result = picky("dead-letters", "discard", "--all", code=2)
    assert result.stderr == ("error: discard: there is no terminal to ask on; nothing was discarded; expected --yes\n")
    assert ledger(picky) == (2, 1, 1, 1, {})


@pytest.mark.parametrize(("answer", "code", "left"), [("\n", 1, 1), ("n\n", 1, 1), ("y\n", 0, 0)])
def test_on_a_terminal_it_asks_and_the_default_is_no(picky, terminal, answer: str, code: int, left: int) -> None:
    shown = terminal("dead-letters", "discard", "--all")
    shown.answer("Discard 1 event for good? [y/N] ", answer)
    assert shown.end() == code
    assert ("Nothing was discarded." in shown.shown) == (left == 1)
    assert len(letters(picky)) == left


def test_hints_name_the_group_as_it_was_typed(picky, terminal) -> None:
    shown = terminal("dead-letters", whole=True)
    assert shown.end() == 0
    assert "cmdorc-telemetry dead-letters resend --all" in shown.shown
