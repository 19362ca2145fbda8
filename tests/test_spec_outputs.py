"""``docs/what-we-collect.md`` is what its generator makes of the spec; other specs get pages that are true of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from cmdorc_telemetry.spec import BASE, CORE, LEVELS, Event, Property, TelemetrySpec, load_spec, value_type
from cmdorc_telemetry.spec.exports import EXPORTS
from cmdorc_telemetry.spec.model import Sampling, Semantics
from cmdorc_telemetry.spec.outputs import example, markdown, sampled, values

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "what-we-collect.md"
SPEC = load_spec(CORE)
EVERY_TYPE = msgspec.convert({
    "meta": {"name": "shop.cart"},
    "config": {"default_retention_days": 30, "default_sampling_rate": 0.125},
    "events": [
        {"name": "paid", "semantics": {"what": "A cart was paid."}, "properties": {
            "express": {"type": "bool"}, "items": {"type": "count", "min": 1, "max": 2},
            "took": {"type": "duration_ms", "max": 60000}, "discount": {"type": "number", "min": 0, "max": 1},
            "means": {"type": "enum", "members": ["card", "cash"]}, "total": {"type": "bucket", "edges": [10, 100]},
            "goods": {"type": "hash", "max_items": 3}, "release": {"type": "version"}, "order": {"type": "uuid"},
            "due": {"type": "timestamp"}, "currency": {"type": "string", "pattern": "[A-Z]{3}", "max_length": 3},
            "mail": {"type": "string", "pattern": ".*", "max_length": 80, "pii": True},
        }},
        {"name": "noted", "semantics": {"what": "Somebody wrote a note"}, "properties": {
            "note": {"type": "string", "pattern": ".*", "max_length": 80, "audience": "private"},
        }},
    ],
}, TelemetrySpec)  # fmt: skip


def section(page: str, name: str) -> str:
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def test_the_page_is_what_the_generator_makes() -> None:
    command = [sys.executable, "-m", "cmdorc_telemetry", "spec", "export", str(CORE), "--format", "markdown"]
    assert subprocess.check_output(command) == PAGE.read_bytes(), "run `make docs`"


@pytest.mark.parametrize("spec", [SPEC, EVERY_TYPE], ids=lambda spec: spec.ref)
def test_every_field_is_there_once_shared_or_not(spec: TelemetrySpec) -> None:
    page = EXPORTS["markdown"].make(spec)
    for event in spec.events:
        text = section(page, event.name)
        rows = dict(re.findall(r"^\| `(\w+)` \| (MINIMAL|STANDARD|DEBUG) \|", text, re.MULTILINE))
        kept = re.findall(r"^- `(\w+)` – ", text, re.MULTILINE)
        shared = {name: prop.level.upper() for name, prop in event.properties.items() if prop.shared_at(LEVELS[-1])}
        assert rows == shared
        assert set(kept) == event.properties.keys() - shared.keys()
        assert ("None of it is ever shared." in text) == (not shared)
        assert not shared or f"at most {spec.retention_days(event)} days" in text
    base = re.findall(r"^\| `(\w+)` \|", section(page, "In every event"), re.MULTILINE)
    foreign = {"app_name", "app_version"} if spec.meta.name == "cmdorc.core" else {"cmdorc_version"}
    assert base == [name for name in BASE if name not in foreign]
    assert ("cmdorc" in page) == (spec.meta.name == "cmdorc.core")


def test_the_table_on_top_has_each_field_in_its_column() -> None:
    page = markdown(SPEC)
    for event in SPEC.events:
        (line,) = re.findall(rf"^\| \[`{event.name}`\]\(#{event.name}\) \| (.*) \|$", page, re.MULTILINE)
        columns = [set() if cell == "–" else set(cell.split(", ")) for cell in line.split(" | ")]
        for number, level in enumerate(LEVELS):
            assert columns[number] == {
                name for name, prop in event.properties.items() if prop.shared_at(level) and prop.level == level
            }
        assert columns[3] == {name for name, prop in event.properties.items() if prop.audience == "private"}


@pytest.mark.parametrize("spec", [SPEC, EVERY_TYPE], ids=lambda spec: spec.ref)
def test_examples_are_values_that_the_property_may_have(spec: TelemetrySpec) -> None:
    properties = {**BASE, **{name: prop for event in spec.events for name, prop in event.properties.items()}}
    for name, prop in properties.items():
        if name in BASE or prop.type != "string":
            msgspec.convert(example(name, prop), value_type(prop))


def test_values_are_told_in_words() -> None:
    (paid, _) = EVERY_TYPE.events
    assert {name: values(prop) for name, prop in paid.properties.items()} == {
        "express": "yes or no",
        "items": "whole number, 1 to 2",
        "took": "whole milliseconds, 0 to 60000",
        "discount": "number, 0 to 1",
        "means": "card, cash, other",
        "total": "<10, 10-100, >=100",
        "goods": "up to 3 of: 12 hex digits",
        "release": "version, at most 40 characters",
        "order": "36 characters",
        "due": "UTC, to the second",
        "currency": "text, at most 3 characters",
        "mail": "text, at most 80 characters",
    }


def test_what_is_sampled_is_told() -> None:
    assert "Shared: 12.5% of them" in section(markdown(EVERY_TYPE), "paid").replace("\n", " ")
    assert "Every one is shared" in section(markdown(SPEC), "command_completed")


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (None, ""),
        (Sampling(rate=1, always=("items > 1",)), ""),
        (Sampling(rate=0.0005), "0.05% of them"),
        (Sampling(rate=0.5, always=("items > 1",)), "50% of them, and all where items > 1"),
        (Sampling(rate=1, conditions=("express", "items > 1")), "those where (express) and (items > 1)"),
        (Sampling(rate=0.1, conditions=("express",), always=("items > 1", "took > 9")),
         "10% of those where express, and all where (items > 1) or (took > 9)"),
    ],
)  # fmt: skip
def test_conditions_are_told_too(sampling: Sampling | None, said: str) -> None:
    (paid, _) = EVERY_TYPE.events
    spec = TelemetrySpec(meta=EVERY_TYPE.meta, events=(replace(paid, sampling=sampling),))
    assert sampled(spec, spec.events[0]) == said


def test_a_masked_value_is_told_as_what_is_recorded_of_it() -> None:
    properties = {"mail": Property(type="string", pattern=".*", max_length=9, level="minimal", pii=True)}
    event = Event(name="paid", semantics=Semantics(what="It was"), properties=properties)
    page = markdown(TelemetrySpec(meta=EVERY_TYPE.meta, events=(event,)))
    assert '| `mail` | MINIMAL | [redacted]: that it was there | `"[redacted]"` |' in page
    assert '"mail": "[redacted]"' in page
    assert "at most 9 characters" not in page


def test_a_description_is_a_sentence_of_the_page() -> None:
    meta = replace(EVERY_TYPE.meta, description="How it is used")
    assert "How it is used. This page" in markdown(TelemetrySpec(meta=meta))


def test_hashes_are_explained_where_there_are_any() -> None:
    text = " ".join(section(markdown(SPEC), "Hashes").split())
    hashed = {name for event in SPEC.events for name, prop in event.properties.items() if prop.type == "hash"}
    assert hashed <= set(re.findall(r"`(\w+)`", text))
    assert "HMAC-SHA256" in text
    without = TelemetrySpec(meta=EVERY_TYPE.meta, events=EVERY_TYPE.events[1:])
    assert "## Hashes" not in markdown(without)
    assert "## A whole event" not in markdown(without)
    assert "## Values" in markdown(TelemetrySpec(meta=EVERY_TYPE.meta))
