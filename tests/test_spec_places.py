"""Every path that a finding names is found in its file, on the line where it stands."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from cmdorc_telemetry.spec import CORE, dump_json, load_spec, parse_toml
from cmdorc_telemetry.spec.lint import lint
from cmdorc_telemetry.spec.places import line_of

TOML = '''\
# events.paid
meta.name = "acme"
meta.description = """
[events]
name = "paid" """
context = { "user.id" = { type = "bool" } }

[groups.money]
amount = { type = "bool" }

[[ events ]]
name = 'a.b'
properties = {}
[[events]]
name = "a"
groups = ["money"]
[events.semantics]
what = 'x # ] "'
[events."properties"]
'b.c'.type = "bool"
b = { type = "bool",
 } # }
[events.properties."c\\u0064"] # [x]
type = "enum"
members = [
  "one", # ]
  """two ]
""", \'\'\'
]\'\'\',
]
[events.anomaly_detection]
minimum_sample = 3
[[events.anomaly_detection.thresholds]]
metric = "a"
[[events.anomaly_detection.thresholds]]
metric = "b"

[[operations]]
name = "pay"
success = { event = "a" }

[[waivers]]
lint = "x"
'''.replace('type = "bool",\n }', 'type = "bool" }')


@pytest.mark.parametrize(("at", "stands"), [
    ("meta", "meta.name"), ("meta.description", "meta.description"), ("events.a.b", "[[ events ]]"),
    ("events.a", "[[events]]"), ("events.a.properties.b.c", "'b.c'.type"), ("events.a.properties.b", "b = {"),
    ("events.a.properties.cd", '[events."properties"]'), ("events.a.semantics", "[events.semantics]"),
    ("events.a.semantics.what", "what ="), ("events.a.anomaly_detection.thresholds[1]", 'metric = "b"'),
    ("events.a.anomaly_detection.thresholds[0].metric", 'metric = "a"'), ("events[1].properties.cd.members", "members"),
    ("operations.pay.success.plan", "success ="), ("waivers[0]", "[[waivers]]"), ("waivers[0].lint", "lint ="),
    ("events.a.properties.amount", "amount ="), ("events.a.properties.context.user.id", "context ="),
    ("events.a.properties.unknown", '[events."properties"]'), ("events.a.b.properties.x", "properties = {}"),
    ("meta.name.first", "meta.name"), ("", "# events.paid"), ("nothing", "# events.paid"),
])  # fmt: skip
def test_a_path_stands_where_it_is_declared(at: str, stands: str) -> None:
    lines = TOML.splitlines()
    found = line_of(TOML, at, form="toml")
    expected = next(number for number, line in enumerate(lines, 1) if line.startswith(stands))
    if at == "events.a.anomaly_detection.thresholds[1]":
        expected -= 1
    if at.endswith("cd"):
        expected = next(number for number, line in enumerate(lines, 1) if "u0064" in line)
    assert (found, lines[found - 1]) == (expected, lines[expected - 1])


def test_a_file_may_end_without_a_line_end() -> None:
    assert line_of("\n[a]\nb = 1", "a.b", form="toml") == 3


def test_what_looks_like_a_table_inside_of_a_list_is_none() -> None:
    text = '[a]\nlist = [\n["b"],\n]\nafter = 1\n[b]\n'
    assert [line_of(text, at, form="toml") for at in ("a.after", "b")] == [5, 6]


def test_everything_in_the_core_spec_is_found() -> None:
    text = Path(CORE).read_text(encoding="utf-8")
    lines = text.splitlines()
    for event in load_spec(CORE).events:
        assert lines[line_of(text, f"events.{event.name}", form="toml")] == f'name = "{event.name}"'
        for name in event.properties:
            line = line_of(text, f"events.{event.name}.properties.{name}", form="toml")
            assert lines[line - 1] == f"[events.properties.{name}]"
            assert event.name in "\n".join(lines[:line])


def test_in_json_too() -> None:
    spec = parse_toml(
        '[meta]\nname="acme"\n[[events]]\nname="a"\nsemantics={what="{[,:\\""}\nproperties={}\n'
        '[[events]]\nname="a.b"\nsemantics={what="x"}\n'
        'properties.x={type="duration_ms"}\nproperties.email={type="count"}\n'
        'anomaly_detection={thresholds=[{metric="x",max=1}]}\n', "x",
    )  # fmt: skip
    text = dump_json(spec)
    lines = text.splitlines()
    for at, stands in {
        "meta": '"meta": {', "events.a.b.properties.x": '"x": {', "events.a.b.properties.email": '"email": {',
        "events.a.b.anomaly_detection": '"anomalyDetection": {', "events[1].semantics.what": '"what": "x"',
        "events.a.semantics.what": '"what": "{[,:', "events.a.b.anomaly_detection.thresholds[0].max": '"max": 1',
    }.items():  # fmt: skip
        assert lines[line_of(text, at, form="json") - 1].strip().startswith(stands), at
    assert lines[line_of(text, "events.a.b", form="json")].strip().startswith('"key": "a.b"')
    found = [finding for finding in lint(spec, date(2026, 7, 1)) if finding.lint == "personal-name"]
    assert lines[line_of(text, found[0].at, form="json") - 1].strip() == '"email": {'
    assert line_of("[\n1,\n[2,\n3]]", "[1][1]", form="json") == 4
    assert line_of(json.dumps(json.loads(text)), "events.a", form="json") == 1
