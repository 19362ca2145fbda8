"""Whose yes covers which spec: an operator's variable, and what shares nothing with anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmdorc_telemetry import TelemetryLevel, hookimpl
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.decision import Decision
from cmdorc_telemetry.declarations import covered
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.recording import Recordings
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import Shapes, TelemetryRegistry, TelemetrySpec, parse_toml

from .agreement import agree

OPERATOR = {"CMDORC_TELEMETRY": "standard"}


def declared(audience: str, name: str = "acme.own") -> TelemetrySpec:
    return parse_toml(_text(audience, name), name)


def _text(audience: str, name: str) -> str:
    return f"""
[meta]
name = "{name}"
version = 1
[[events]]
name = "{name}.done"
semantics = {{ what = "Something was done" }}
properties.told = {{ type = "count", audience = "private", level = "debug" }}
properties.more = {{ type = "count", audience = "{audience}", level = "debug" }}
"""


class Bringing:
    """A plugin with a spec."""

    def __init__(self, spec: TelemetrySpec) -> None:
        self._spec = spec

    @hookimpl
    def telemetry_specs(self) -> list[TelemetrySpec]:
        return [self._spec]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def known(situation: Situation, *specs: TelemetrySpec) -> TelemetryRegistry:
    return PluginHost(objects=[Bringing(spec) for spec in specs]).registry(*situation.specs())


def recorded(situation: Situation, registry: TelemetryRegistry) -> set[str]:
    """The specs whose events a program writes down."""
    recordings = Recordings(situation, registry, pytest.fail)
    capture = recordings.now.capture
    recordings.close()
    return {spec.meta.name for spec in registry for event in spec.events if event.name in capture}


@pytest.mark.parametrize(("audience", "extra"), [("private", {"acme.own"}), ("shared", set())])
def test_an_operators_variable_covers_of_a_plugin_what_is_private_as_a_whole(
    root: Path, audience: str, extra: set[str]
) -> None:
    situation = Situation.read({"CMDORC_HOME": str(root), **OPERATOR})
    registry = known(situation, declared(audience))
    assert recorded(situation, registry) == {"cmdorc.core", *extra}
    level = Decision(situation, registry, Shapes(registry)).level_of("operator-standard/standard", "acme.own")
    assert level is None, "it covers no sharing of it in any case"


def test_it_does_not_cover_what_a_project_adds(root: Path, tmp_path: Path) -> None:
    added, named = tmp_path / "added.toml", tmp_path / "named.toml"
    added.write_text(_text("private", "acme.added"))
    named.write_text(_text("private", "acme.named"))
    read = Situation.read({"CMDORC_HOME": str(root), **OPERATOR}, project=Layer(specs=(added,)))
    situation = read._replace(
        user=read.user._replace(specs=(named,))
    )  # an operator's file, which they wrote themselves
    registry = known(situation)
    assert {spec.meta.name for spec in registry} == {"cmdorc.core", "acme.added", "acme.named"}
    assert recorded(situation, registry) == {"cmdorc.core", "acme.named"}


def test_where_the_operator_allows_nothing_nothing_is_covered(root: Path) -> None:
    spec = declared("private")
    for environ in ({}, {"CMDORC_TELEMETRY": "off"}, {**OPERATOR, "DO_NOT_TRACK": "1"}):
        situation = Situation.read({"CMDORC_HOME": str(root), **environ})
        assert not covered(situation, known(situation, spec), spec)


def test_a_person_is_asked_for_each_spec_whatever_it_holds(root: Path) -> None:
    agree(Home(root), TelemetryLevel.STANDARD)
    spec = declared("private")
    for environ in ({}, OPERATOR):
        situation = Situation.read({"CMDORC_HOME": str(root), **environ})
        assert recorded(situation, known(situation, spec)) == {"cmdorc.core"}
    agree(Home(root), TelemetryLevel.OFF, spec=spec)
    situation = Situation.read({"CMDORC_HOME": str(root)})
    assert recorded(situation, known(situation, spec)) == {"cmdorc.core", "acme.own"}
