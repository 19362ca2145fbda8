"""``spec lint`` says what is wrong, where, and fails where it should; ``spec export`` writes other forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.exports import EXPORTS

GOOD = """\
[meta]
name = "acme.shop"
owners = ["@acme.shop"]

[[events]]
name = "shop.paid"
semantics = { what = "Somebody paid", who = "A customer", why = "Shows what sells" }

[events.properties.plan]
type = "enum"
members = ["free", "team"]
description = "Which plan"
"""
WARNED = GOOD.replace('description = "Which plan"\n', "")
WRONG = GOOD + '\n[events.properties."user.email"]\ntype = "count"\ndescription = "x"\n'
AT = "events.shop.paid.properties.user.email"
WAIVED = (
    f"{WRONG}\n[[waivers]]\nlint = 'personal-name'\nat = '{AT}'\nreason = 'it is, a: 100%\\u001B\\nnumber'\n".replace(
        "'it is, a: 100%\\u001B\\nnumber'", '"it is, a: 100%\\u001B\\nnumber"'
    )
)
BROKEN = GOOD.replace('"enum"', '"enumm"')


@pytest.fixture
def specs(machine: Any) -> Any:
    for name, text in {"good": GOOD, "warned": WARNED, "wrong": WRONG, "waived": WAIVED, "broken": BROKEN,
                       "toml": GOOD + "\n\n= 3\n"}.items():  # fmt: skip
        machine.project(text, f"{name}.toml")
    return machine


@pytest.mark.parametrize(("args", "code", "shown", "counted"), [
    (["good.toml"], 0, [], "1 file, 0 findings."),
    (["warned.toml"], 0, ["warned.toml: events.shop.paid.properties.plan has no description; expected what a person "
                          "should read before they say yes  [warning: no-description]"], "1 file, 1 finding."),
    (["--strict", "warned.toml"], 1, ["warned.toml: "], "1 file, 1 finding."),
    (["wrong.toml", "good.toml"], 1, [f"wrong.toml: {AT} is called like something personal; expected pii = true and "
                                      "redact = true, or another name  [error: personal-name]"], "2 files, 1 finding."),
    (["--strict", "waived.toml"], 0, [f"waived.toml: {AT} is called like something personal; expected pii = true and "
                                      "redact = true, or another name [waived: personal-name] (waived: it is, a: "
                                      "100%� number)"], "1 file, 0 findings."),
    (["broken.toml", "wrong.toml"], 2, [
        "broken.toml: events[0].properties.plan.type found 'enumm'; expected one of bool, bucket, count, "
        "duration_ms, enum, hash, json, number, string, timestamp, uuid, version. Did you mean 'enum'? "
        "[contradiction: no-spec]",
        "wrong.toml: "], "2 files, 2 findings."),
])  # fmt: skip
def test_findings_are_said_and_counted(specs: Any, args: list[str], code: int, shown: list[str], counted: str) -> None:
    done = specs("spec", "lint", *args, code=code)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert len(lines) == len(shown)
    for line, start in zip(lines, shown, strict=True):
        assert line.startswith(" ".join(start.split())), line
    assert done.stderr == f"{counted}\n"


def test_a_script_gets_an_object_a_line(specs: Any) -> None:
    done = specs("spec", "lint", "--json", "wrong.toml", "waived.toml", "toml.toml", "good.toml", code=2)
    wrong, waived, toml = map(json.loads, done.stdout.splitlines())
    assert wrong == {
        "file": "wrong.toml", "line": 14, "lint": "personal-name", "severity": "error", "at": AT, "waived": "",
        "message": "is called like something personal; expected pii = true and redact = true, or another name",
        "fails": True,
    }  # fmt: skip
    assert (waived["fails"], waived["waived"]) == (False, "it is, a: 100%\x1b\nnumber")
    assert (toml["line"], toml["lint"], toml["at"], toml["fails"]) == (15, "no-spec", "", True)
    assert done.stderr == ""


def test_github_shows_each_where_it_stands(specs: Any) -> None:
    done = specs("spec", "lint", "--github", "wrong.toml", "waived.toml", "warned.toml", "toml.toml", code=2)
    wrong, waived, warned, toml = done.stdout.splitlines()
    assert wrong == (f"::error file=wrong.toml,line=14,title=personal-name::{AT} is called like something personal; "
                     "expected pii = true and redact = true, or another name")  # fmt: skip
    assert waived.startswith("::notice file=waived.toml,line=14,title=personal-name::")
    assert waived.endswith("(waived: it is, a: 100%25\x1b%0Anumber)")
    assert warned.startswith("::warning file=warned.toml,line=9,title=no-description::")
    assert toml.startswith("::error file=toml.toml,line=15,title=no-spec::is not valid TOML: ")
    strict = specs("spec", "lint", "--github", "--strict", "warned.toml", code=1)
    assert strict.stdout.startswith("::error file=warned.toml,line=9,")


def test_a_file_name_cannot_break_an_annotation(specs: Any) -> None:
    specs.project(WRONG, "a,b:c%.toml")
    done = specs("spec", "lint", "--github", "a,b:c%.toml", code=1)
    assert done.stdout.startswith("::error file=a%2Cb%3Ac%25.toml,line=14,")


@pytest.mark.parametrize("listed", [
    [{"meta": {"key": "shop.paid", "version": "1.0.0"}}, {"meta": {"name": "shop.paid", "version": 3}}],
    {"events": [{"name": "shop.paid", "version": 1}]},
])  # fmt: skip
def test_events_are_those_of_the_contracts(specs: Any, listed: Any) -> None:
    specs.project(json.dumps(listed), "events.json")
    specs("spec", "lint", "--strict", "--events", "events.json", "good.toml")
    specs.project(GOOD.replace('"shop.paid"', '"shop.left"'), "left.toml")
    specs.project(GOOD.replace('"shop.paid"', '"shop.paid"\nversion = 2'), "two.toml")
    done = specs("spec", "lint", "--events", "events.json", "left.toml", "two.toml", code=1)
    left, two = done.stdout.splitlines()
    assert "events.shop.left is in no event contract of the list; expected the name of one" in left
    assert "events.shop.paid has version 2; expected one of 1" in two
    assert left.endswith("[error: no-event-contract]")


@pytest.mark.parametrize(("text", "message"), [
    ("{", "error: events.json: is not valid JSON: "),
    ("3", "error: events.json: is no list; expected a list of event contracts, or one under 'events'\n"),
    ("{}", "error: events.json: is no list; expected a list of event contracts, or one under 'events'\n"),
    ('[{"name": "a"}]', "error: events.json: [0]: has no 'key' or 'name' and 'version'; expected both\n"),
    ('[{"name": "a", "version": 1}, 3]', "error: events.json: [1]: has no 'key' or 'name' and 'version'"),
    ('[{"meta": 3}]', "error: events.json: [0]: has no 'key' or 'name' and 'version'"),
    ('[{"name": "a", "version": true}]', "error: events.json: [0]: has no 'key' or 'name' and 'version'"),
    ('[{"name": "a", "version": "x"}]', "error: events.json: [0]: found version 'x'; expected a whole number, or"),
])  # fmt: skip
def test_a_list_that_is_none_is_told(specs: Any, text: str, message: str) -> None:
    specs.project(text, "events.json")
    done = specs("spec", "lint", "--events", "events.json", "good.toml", code=2)
    assert done.stderr.startswith(message)
    assert done.stdout == ""


def test_a_list_that_is_not_there_is_told(specs: Any) -> None:
    done = specs("spec", "lint", "--events", "none.json", "good.toml", code=2)
    assert done.stderr == "error: none.json: cannot be read: No such file or directory\n"


def test_one_form_of_output_at_a_time(specs: Any) -> None:
    assert "contradict" in specs("spec", "lint", "--json", "--github", "good.toml", code=2).stderr


def test_a_file_that_cannot_be_read_is_no_spec(specs: Any) -> None:
    (specs.work / "latin.toml").write_bytes(b"\xe4")
    line = json.loads(specs("spec", "lint", "--json", "latin.toml", code=2).stdout)
    assert (line["line"], line["lint"]) == (1, "no-spec")


def test_the_core_spec_passes(machine: Any) -> None:
    machine("spec", "lint", str(CORE))


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTS)
def test_a_spec_is_exported_to_standard_output(specs: Any, name: str) -> None:
    done = specs("spec", "export", "good.toml", "--format", name)
    assert done.stdout == EXPORTS[name].make(load_spec("good.toml"))
    assert done.stderr == ""


def test_a_format_that_there_is_not_is_told(specs: Any) -> None:
    done = specs("spec", "export", "good.toml", "--format", "sqlit", code=2)
    assert done.stderr.startswith("error: --format: found 'sqlit'; expected one of markdown, toml, contractspec")
    assert done.stderr.endswith("Did you mean 'sqlite'?\n")
    assert specs("spec", "export", "broken.toml", "--format", "toml", code=2).stdout == ""


def test_the_formats_are_listed(machine: Any) -> None:
    lines = machine("spec", "formats").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPORTS)
    assert all(line.endswith(".") for line in lines)
