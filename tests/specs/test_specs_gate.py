"""Whatever the gate lets out of any event of any spec is valid against the exported schema, and holds nothing else."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.capture import Capture
from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.spec import BASE, LEVELS, MASK, Level, Shapes, TelemetrySpec
from cmdorc_telemetry.spec.jsonschema import json_schema

from .strategies import INSTALL, specs, tracked

endless = specs.map(lambda spec: spec.in_force(date.max)).filter(lambda spec: len(spec.events) > 0)
"""Specs of which nothing expires."""
many = settings(max_examples=40, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
MACHINE = {"app_version": "1.2", "python_version": "3.12", "os": "linux", "arch": "x86_64",
           "anonymous_install_id": INSTALL}  # fmt: skip


def valid(schema: dict[str, Any], body: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(body))


@many
@given(endless, st.sampled_from(LEVELS), st.data())
def test_what_is_let_out_is_valid_and_declared(spec: TelemetrySpec, level: Level, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(spec.events))
    public, own = (json.loads(json.dumps(json_schema(spec, private=private))) for private in (False, True))
    jsonschema.Draft202012Validator.check_schema(public)
    told = data.draw(tracked(event))
    context = {name.partition(".")[2]: told.pop(name) for name in list(told) if name.startswith("context.")}
    record = Capture([spec], MACHINE).record(event.name, told, context, event.version)
    if record is None:  # it lacked what it requires, or that was wrong
        assert any(prop.required for prop in event.properties.values())
        return
    (row,) = Gate(Shapes([spec]), lambda generation, name: level).gate([record], "g", "test").rows
    body = json.loads(row.private)
    assert body.keys() <= {*BASE, *event.properties}
    assert valid(own, body), body
    for name in event.properties:
        if event.masks(name):
            assert body.get(name, MASK) == MASK
    if row.shared is None:
        return
    shared = json.loads(row.shared)
    assert valid(public, shared), shared
    allowed = {name for name, prop in event.properties.items() if prop.shared_at(level)}
    assert shared.keys() <= {*BASE, *allowed}
    assert not valid(public, {**shared, "undeclared!": 1})
    assert {name for name in allowed if event.properties[name].required} <= shared.keys()
