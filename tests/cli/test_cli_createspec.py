"""``create-spec``: asked on a terminal, from a file, from events; all of a spec is written, or nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from cmdorc_telemetry.spec import load_spec
from cmdorc_telemetry.wizard.asking import text_of, value_of
from cmdorc_telemetry.wizard.question import Question

ANSWERS = """
[meta]
name = "acme.shop"
[[events]]
name = "shop.paid"
semantics = { what = "Somebody paid", who = "A customer", why = "Shows what sells" }
properties.plan = { members = ["free", "team"], description = "Which plan" }
"""
ENTER, DOWN, UP, CTRL_C, CTRL_D, CTRL_U = "\r", "\x1b[B", "\x1b[A", "\x03", "\x04", "\x15"
OFFERED = [
    "Version", "Title", "Description", "Domain", "Owners", "Tags", "Stability", "For how many days", "Which share",
    "Watch for anomalies", "Note a provider",
]  # fmt: skip
"""What is asked of a spec behind its name."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that does not say where its cursor is."""
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")


def written(machine: Any) -> list[str]:
    return sorted(path.name for path in machine.work.iterdir())


# -- from a file -------------------------------------------------------------------------------------------------------


def test_a_file_of_answers_becomes_a_spec_that_says_where_it_is(machine: Any) -> None:
    (machine.work / "answers.toml").write_text(ANSWERS)
    done = machine("create-spec", "--answers", "answers.toml")
    assert done.stdout == "acme.shop.telemetry.toml\n"
    assert "spec lint acme.shop.telemetry.toml" in done.stderr
    assert load_spec("acme.shop.telemetry.toml").ref == "acme.shop@1"
    assert written(machine) == ["acme.shop.telemetry.toml", "answers.toml"]
    assert machine("spec", "lint", "--strict", "acme.shop.telemetry.toml").stdout == ""


def test_a_file_that_is_there_is_replaced_by_force_alone(machine: Any) -> None:
    (machine.work / "answers.toml").write_text(ANSWERS)
    (machine.work / "acme.shop.telemetry.toml").write_text("mine")
    for more in ([], ["-o", "acme.shop.telemetry.toml"]):
        done = machine("create-spec", "--answers", "answers.toml", *more, code=2)
        assert "is there already; nothing was written; expected another" in done.stderr
        assert done.stdout == ""
        assert (machine.work / "acme.shop.telemetry.toml").read_text() == "mine"
    machine("create-spec", "--answers", "answers.toml", "--force")
    assert load_spec("acme.shop.telemetry.toml").ref == "acme.shop@1"
    assert written(machine) == ["acme.shop.telemetry.toml", "answers.toml"]


def test_a_link_that_leads_nowhere_is_there_too(machine: Any) -> None:
    (machine.work / "answers.toml").write_text(ANSWERS)
    (machine.work / "acme.shop.telemetry.toml").symlink_to("nowhere")
    machine("create-spec", "--answers", "answers.toml", code=2)
    assert (machine.work / "acme.shop.telemetry.toml").is_symlink()
    assert written(machine) == ["acme.shop.telemetry.toml", "answers.toml"]


@pytest.mark.parametrize(("args", "message"), [
    (["--answers", "answers.toml", "--from", "answers.toml"], "--from and --answers contradict each other."),
    (["--answers", "answers.toml", "--name", "x"], "--name goes with --from."),
    (["--answers", "answers.toml", "-o", "acme.json"],
     "error: --output: acme.json is called like JSON, and TOML is written; nothing was; expected one such as "
     "acme.telemetry.toml\n"),
    (["--answers", "answers.toml", "-o", "no/where.toml"],
     "error: --output: there is no directory no; nothing was written; expected one that is there\n"),
    (["--answers", "wrong.toml"],
     "error: wrong.toml: meta.name: '' is no name; expected at most 100 letters, digits and . _ + -\n"),
    (["--from", "answers.toml"], "error: answers.toml: holds no events (6 other lines)"),
    (["--from", "answers.toml", "--name", "a b"], "error: --name: 'a b' is no name; expected at most 100 letters"),
    ([], "error: create-spec: there is no terminal to ask on; nothing was written; expected --answers FILE\n"),
])  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_written(machine: Any, args: list[str], message: str) -> None:
    (machine.work / "answers.toml").write_text(ANSWERS)
    (machine.work / "wrong.toml").write_text("")
    done = machine("create-spec", *args, code=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert written(machine) == ["answers.toml", "wrong.toml"]


def test_a_place_that_cannot_be_written(machine: Any) -> None:
    (machine.work / "answers.toml").write_text(ANSWERS)
    long = "x" * 300
    done = machine("create-spec", "--answers", "answers.toml", "-o", long, code=1)
    assert "cannot be written" in done.stderr
    assert written(machine) == ["answers.toml"]


# -- from events -------------------------------------------------------------------------------------------------------


def test_observed_events_become_a_proposal_without_a_value(machine: Any) -> None:
    events = [
        {"event": "shop.paid", "plan": f"SECRET{number % 3}", "amount": number, "email": "jane@doe.example"}
        for number in range(30)
    ]
    lines = "\n".join(map(json.dumps, events)) + "\nno event\n"
    (machine.work / "my events.log.jsonl").write_text(lines)
    done = machine("create-spec", "--from", "my events.log.jsonl")
    assert done.stdout == "my_events.log.telemetry.toml\n"
    assert "30 events read, 1 other line left out. Types and bounds were kept, and no values." in done.stderr
    assert "error: meta has no owners" in done.stderr
    text = (machine.work / "my_events.log.telemetry.toml").read_text()
    assert "SECRET" not in text
    assert "jane" not in text
    assert "# There were 3 different texts: an enum of them would be safer." in text
    assert "# It is called like something personal: it is masked." in text
    assert 'what = "" # A person has to write this' in text
    (event,) = load_spec("my_events.log.telemetry.toml").events
    assert {name: prop.type for name, prop in event.properties.items()} == {
        "amount": "count", "email": "string", "plan": "string"
    }  # fmt: skip
    machine("create-spec", "--from", "my events.log.jsonl", "--name", "acme", "-o", "x.toml")
    assert load_spec("x.toml").meta.name == "acme"


# -- on a terminal -----------------------------------------------------------------------------------------------------


def begun(terminal: Callable[..., Any], *args: str, **options: Any) -> Any:
    """A wizard that was told the name of the spec, and for the rest of it what it offers."""
    screen = terminal("create-spec", *args, **options)
    screen.answer("Name of the spec", f"acme.shop{ENTER}")
    for question in OFFERED:
        screen.answer(question, ENTER)
    return screen


def told(screen: Any) -> Any:
    """An event with one property."""
    screen.answer("Name of the event", f"shop.paid{ENTER}")
    screen.answer("Version of the event", ENTER)
    screen.answer("What happened", f"Somebody paid{ENTER}")
    screen.answer("Who causes it", ENTER)
    screen.answer("Why is it", ENTER)
    screen.answer("found nothing; expected a text", f"Shows what sells{ENTER}")
    for question in ("Privacy", "Kept for"):
        screen.answer(question, ENTER)
    screen.answer("Name of the property", f"plan{ENTER}")
    screen.answer("Type", ENTER)
    screen.answer("Its words", f"free, team{ENTER}")
    for question in ("From which level", "Is it personal", "Does every event"):
        screen.answer(question, ENTER)
    screen.answer("What is it?", f"Which plan{ENTER}")
    screen.answer("Another property?", f"{DOWN}{ENTER}")
    for question in ("Which share", "Tags of the event", "Another event?"):
        screen.answer(question, ENTER)
    return screen


@pytest.mark.parametrize("columns", [100, 60])
def test_a_spec_is_asked_for_shown_and_written(machine: Any, terminal: Callable[..., Any], columns: int) -> None:
    screen = told(begun(terminal, columns=columns))
    screen.answer("Write it?", ENTER)
    summary = screen.before
    assert screen.end() == 0
    assert screen.stdout == b"acme.shop.telemetry.toml\n"
    for part in ("acme.shop@1", "Somebody paid", "free, team, other, standard", "30 days"):
        assert part in summary
    assert machine("spec", "lint", "--strict", "acme.shop.telemetry.toml").stdout == ""
    spec = load_spec("acme.shop.telemetry.toml")
    assert (spec.meta.owners, spec.config.default_retention_days) == (("@acme.shop",), 30)
    assert spec.events[0].properties["plan"].members == ("free", "team")


def test_a_wrong_answer_is_told_before_the_next_question(machine: Any, terminal: Callable[..., Any]) -> None:
    screen = terminal("create-spec")
    screen.answer("Name of the spec", "a b")
    screen.until("is no name; expected at most 100 letters")
    screen.answer("expected", f"{ENTER}{CTRL_U}acme{ENTER}")
    screen.answer("Version", f"{CTRL_U}1.x{ENTER}")
    screen.until("found version '1.x'; expected a whole number")
    screen.answer("expected", f"{CTRL_U}2{ENTER}")
    for question in OFFERED[1:7]:
        screen.answer(question, ENTER)
    screen.answer("For how many days", f"{CTRL_U}x{ENTER}")
    screen.until("found 'x'; expected a number")
    screen.answer("expected", f"{CTRL_U}0{ENTER}")
    screen.answer("whole number, 1 to 1,000,000,000", CTRL_C)
    assert screen.end() == 1
    assert screen.stdout == b""
    assert written(machine) == []


def test_on_a_narrow_terminal_what_would_be_right_is_said(machine: Any, terminal: Callable[..., Any]) -> None:
    screen = terminal("create-spec", columns=60)
    screen.answer("Name of the spec", f"a b{ENTER}")
    screen.until("expected at most 100 letters, digits and . _ + -")
    assert "is no name" not in screen.shown
    screen.answer("expected", CTRL_C)
    assert screen.end() == 1


def test_who_goes_back_finds_what_was_answered_and_may_answer_otherwise(
    machine: Any, terminal: Callable[..., Any]
) -> None:
    screen = terminal("create-spec")
    screen.answer("Name of the spec", f"acme.shop{ENTER}")
    screen.answer("Version", f"{CTRL_U}7{ENTER}")
    screen.answer("Title", ENTER)
    screen.answer("Description", f"a < b, and b <{ENTER}")  # a text may end so, too
    screen.answer("Domain", f"{CTRL_U}<{ENTER}")
    screen.answer("Description", f"{CTRL_U}{ENTER}")
    screen.answer("Domain", f"<{ENTER}")  # behind what is offered
    screen.answer("Description", f"<{ENTER}")
    screen.answer("Title", f"<{ENTER}")
    screen.answer("Version", f"<{ENTER}")
    screen.answer("Name of the spec", f"{CTRL_U}bank{ENTER}")
    for question in ("Version", "Title", "Description", "Domain", "Owners", "Tags"):
        screen.answer(question, ENTER)
    screen.answer("Stability", "<")
    screen.answer("Tags", f"a, b{ENTER}")
    screen.answer("Stability", f"{UP}{ENTER}")  # the way back is the last of the choices
    screen.answer("Tags", ENTER)
    for question in OFFERED[6:]:
        screen.answer(question, ENTER)
    told(screen)
    screen.answer("Write it?", f"{DOWN}{ENTER}")
    screen.answer("Another event?", ENTER)
    screen.answer("Write it?", ENTER)
    assert screen.end() == 0
    assert screen.stdout == b"bank.telemetry.toml\n"
    meta = load_spec("bank.telemetry.toml").meta
    assert (meta.version, meta.title, meta.domain, meta.tags) == (7, "bank", "bank", ("a", "b"))


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
@pytest.mark.parametrize("where", ["Name of the spec", "Stability", "Write it?"])
def test_who_ends_it_has_nothing_written(machine: Any, terminal: Callable[..., Any], key: str, where: str) -> None:
    screen = told(begun(terminal)) if where == "Write it?" else terminal("create-spec")
    if where == "Stability":
        screen.answer("Name of the spec", f"acme.shop{ENTER}")
        for question in OFFERED[:6]:
            screen.answer(question, ENTER)
    screen.answer(where, key)
    assert screen.end() == 1
    assert "Nothing was written." in screen.shown
    assert screen.stdout == b""
    assert written(machine) == []


def test_a_name_whose_file_is_there_is_told_at_once(machine: Any, terminal: Callable[..., Any]) -> None:
    (machine.work / "acme.telemetry.toml").write_text("mine")
    screen = terminal("create-spec")
    screen.answer("Name of the spec", f"acme{ENTER}")
    screen.until("is there already; nothing was written; expected another name")
    screen.answer("expected", CTRL_C)
    assert screen.end() == 1
    assert (machine.work / "acme.telemetry.toml").read_text() == "mine"


def test_without_the_extra_it_says_what_to_install(machine: Any, terminal: Callable[..., Any]) -> None:
    code = "import sys; sys.modules['questionary'] = None\nfrom cmdorc_telemetry.cli import telemetry\ntelemetry()"
    screen = terminal(python=("-c", code, "create-spec"))
    assert screen.end() == 1
    assert "pip install 'cmdorc-telemetry[wizard]', or use --answers FILE" in screen.shown
    assert written(machine) == []


# -- lines of text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "text", "value"), [
    ("text", " a ", "a"), ("names", "a, b,", ["a", "b"]), ("names", "", []),
    ("conditions", "a in [1, 2]", ["a in [1, 2]"]),
    ("conditions", " ", []), ("number", "", None), ("number", "3", 3), ("number", "0.5", 0.5), ("number", "1e3", 1000),
    ("numbers", "1, 2.5", [1, 2.5]), ("version", "3", 3), ("version", "1.2.0", "1.2.0"),
    ("table", '{"a": [1]}', {"a": [1]}), ("table", "", {}),
])  # fmt: skip
def test_a_line_is_read_as_it_is_shown(kind: Any, text: str, value: Any) -> None:
    question = Question("x", "X", kind=kind)
    assert value_of(question, text) == value
    assert value_of(question, text_of(value)) == value


@pytest.mark.parametrize(("kind", "text", "message"), [
    ("number", "x", "found 'x'; expected a number"),
    ("number", "inf", "found 'inf'; expected a number"),
    ("number", "nan", "found 'nan'; expected a number"),
    ("numbers", "1, b", "found 'b'; expected a number"),
    ("table", "{", "found '{'; expected a JSON object, such as {\"region\": \"eu\"}"),
])  # fmt: skip
def test_a_line_that_is_none_is_told(kind: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        value_of(Question("x", "X", kind=kind), text)
