"""Any spec survives its files: TOML and ContractSpec's JSON, there and back, in both spellings."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from cmdorc_telemetry.spec import TelemetrySpec, dump_json, dump_toml, parse_json, parse_toml
from cmdorc_telemetry.spec.outputs import markdown
from cmdorc_telemetry.spec.versions import plain
from cmdorc_telemetry.wizard.draft import commented

from .strategies import specs

many = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip


@many
@given(specs)
def test_any_spec_survives_toml(spec: TelemetrySpec) -> None:
    text = dump_toml(spec)
    assert parse_toml(text, "x") == spec
    assert dump_toml(parse_toml(text, "x")) == text
    assert parse_toml(commented(spec), "x") == spec


def plainly(spec: TelemetrySpec) -> TelemetrySpec:
    """The versions as that format has them: whole numbers where three say no more."""
    return replace(spec, meta=replace(spec.meta, version=plain(spec.meta.version)),
                   events=tuple(replace(event, version=plain(event.version)) for event in spec.events))  # fmt: skip


@many
@given(specs)
def test_any_spec_survives_json(spec: TelemetrySpec) -> None:
    text = dump_json(spec)
    again = parse_json(text, "x")
    assert replace(again, origin=None) == plainly(spec)
    assert dump_json(again) == text
    assert parse_toml(dump_toml(again), "x") == plainly(spec)
    assert json.loads(text)["meta"]["key"] == spec.meta.name


@many
@given(specs)
def test_any_spec_is_a_page(spec: TelemetrySpec) -> None:
    page = markdown(spec)
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
