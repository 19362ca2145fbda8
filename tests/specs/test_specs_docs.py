"""``docs/specs.md`` has every key, type, lint and format, and nothing else; its examples are what it says they are."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import NODEFAULT
from msgspec.structs import fields

from cmdorc_telemetry.spec import conditions, parse_toml
from cmdorc_telemetry.spec.changes import Kind
from cmdorc_telemetry.spec.compare import Change
from cmdorc_telemetry.spec.exports import EXPORTS
from cmdorc_telemetry.spec.lint import LINTS, lint
from cmdorc_telemetry.spec.model import (
    AnomalyDetection,
    Config,
    Event,
    Meta,
    Operation,
    Outcome,
    Provider,
    Retention,
    Sampling,
    Semantics,
    TelemetrySpec,
    Threshold,
    Waiver,
    Workflow,
)
from cmdorc_telemetry.spec.property import Property, ValueType

PAGE = (Path(__file__).parents[2] / "docs" / "specs.md").read_text(encoding="utf-8")
PARTS: dict[str, Any] = {
    "The file": TelemetrySpec, "`meta`": Meta, "`events`": Event, "`semantics`": Semantics, "Properties": Property,
    "`retention`": Retention, "`sampling`": Sampling, "`anomaly_detection`": AnomalyDetection,
    "`thresholds`": Threshold, "`operations`": Operation, "`workflows`": Workflow, "Outcomes": Outcome,
    "`config`": Config, "`providers`": Provider, "`waivers`": Waiver,
}  # fmt: skip
NOT_WRITTEN = ("origin",)
"""What no file says."""


def section(title: str) -> str:
    """What stands below a heading."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the table that begins with ``head``."""
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} |"))
    made = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        made.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return made


def test_there_is_a_section_for_each_part() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(PARTS)


@pytest.mark.parametrize("title", PARTS)
def test_every_key_is_explained_and_no_other(title: str) -> None:
    part = PARTS[title]
    told = {row[0].strip("`"): row[1:] for row in rows(section(title), "key")}
    assert set(told) == set(part.__struct_fields__) - set(NOT_WRITTEN)
    for each in fields(part):
        if each.name in NOT_WRITTEN:
            continue
        about, default = told[each.name]
        assert about
        if each.required:
            assert default == "", each.name
        elif default.startswith("`") and default != "`config`":
            actual = each.default if each.default is not NODEFAULT else each.default_factory()
            shown = ", ".join(map(str, actual)) if isinstance(actual, tuple) else str(actual)
            assert default.strip("`") == (shown.lower() if isinstance(actual, bool) else shown), each.name


def test_every_type_is_explained() -> None:
    assert [row[0].strip("`") for row in rows(section("Properties"), "type")] == list(get_args(ValueType))


def test_every_lint_is_listed() -> None:
    told = [(row[0].strip("`"), row[1], row[2]) for row in rows(section("The lint"), "lint")]
    assert told == [(name, row.severity, row.about) for name, row in LINTS.items()]


def test_every_format_is_listed() -> None:
    told = [(row[0].strip("`"), row[1]) for row in rows(section("Formats"), "format")]
    assert told == [(name, each.about) for name, each in EXPORTS.items()]


def test_every_kind_of_change_is_explained() -> None:
    told = [row[0].strip("`") for row in rows(section("What a change means"), "change")]
    assert set(told) == {*get_args(Change), "reworded"}
    assert "reworded" in str(Kind)


def test_the_grammar_is_the_parsers() -> None:
    grammar = re.findall(r"^    (\w+ +=.*)$", conditions.__doc__ or "", re.MULTILINE)
    assert len(grammar) == 7
    assert "\n".join(grammar) in section("`sampling`")
    assert f"at most {conditions.MAX_LENGTH} characters, and {conditions.MAX_DEPTH} levels" in section("`sampling`")


def test_the_example_is_a_spec_without_a_finding() -> None:
    example, *_ = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    spec = parse_toml(example, "docs/specs.md")
    assert lint(spec, date(2026, 7, 1)) == []
    assert spec.events[0].masks("email")
    assert conditions.parse("timed_out and duration_ms > 1500").holds({"timed_out": True, "duration_ms": 2000})
