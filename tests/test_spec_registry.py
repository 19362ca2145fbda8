"""Specs by exact name and version; an event belongs to one spec only, and a conflict names both sides."""

from __future__ import annotations

from typing import Any

import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.spec import TelemetryRegistry, TelemetrySpec


def spec(name: str, version: int = 1, *events: str | tuple[str, int]) -> TelemetrySpec:
    pairs = [event if isinstance(event, tuple) else (event, 1) for event in events]
    table: dict[str, Any] = {
        "meta": {"name": name, "version": version},
        "events": [
            {"name": event, "version": number, "semantics": {"what": "x"}, "properties": {}} for event, number in pairs
        ],
    }
    return decode(table, TelemetrySpec, "test")


def registry(*specs: TelemetrySpec) -> TelemetryRegistry:
    made = TelemetryRegistry()
    for each in specs:
        made.register(each, f"plugin of {each.ref}")
    return made


def test_the_core_registry_holds_cmdorcs_own_spec() -> None:
    core = TelemetryRegistry.with_core()
    assert [each.ref for each in core] == ["cmdorc.core@1"]
    assert len(core) == 1
    (found,) = core
    assert core.source(found) == "cmdorc-telemetry"
    assert core.get("cmdorc.core") is found


def test_a_spec_that_is_there_already_names_both_sources() -> None:
    made = registry(spec("acme.app"))
    with pytest.raises(SpecError) as caught:
        made.register(spec("acme.app", 1, "paid"), "another-plugin")
    assert str(caught.value) == (
        "another-plugin: meta.name: spec acme.app@1 is registered already, by plugin of acme.app@1"
    )
    assert len(made) == 1
    assert made.find_event("paid") is None


def test_an_event_of_another_spec_names_both_sources() -> None:
    made = registry(spec("acme.app", 1, "paid"), spec("acme.app", 2, ("paid", 2)), spec("other", 1, "seen"))
    with pytest.raises(SpecError) as caught:
        made.register(spec("copy", 1, "seen", "paid"), "another-plugin")
    assert str(caught.value) in (
        "another-plugin: events: event 'paid' is declared already, by plugin of acme.app@1",
        "another-plugin: events: event 'seen' is declared already, by plugin of other@1",
    )
    assert made.get("copy") is None
    with pytest.raises(SpecError, match=r"event 'paid' is declared already, by plugin of acme.app@1"):
        made.register(spec("copy", 1, ("paid", 7)), "another-plugin")  # other versions of it belong there, too
    made.register(spec("acme.app", 3, "paid"), "acme")


def test_a_spec_is_found_by_its_exact_name_in_its_latest_version() -> None:
    one, three, two, longer = spec("acme.app", 1), spec("acme.app", 3), spec("acme.app", 2), spec("acme.app2", 9)
    made = registry(one, three, two, longer)
    assert made.get("acme.app") is three
    assert made.get("acme.app", 2) is two
    assert made.get("acme.app", 4) is None
    for name in ("acme", "acme.ap", "acme.app3", "Acme.app", "app", ""):
        assert made.get(name) is None
    assert list(made) == [one, three, two, longer]


def test_an_event_is_found_in_the_latest_spec_that_declares_it() -> None:
    one = spec("acme.app", 1, "paid", "refunded")
    two = spec("acme.app", 2, ("paid", 1), ("paid", 2))
    made = registry(one, two, spec("other", 5, "seen"))
    assert made.find_event("paid") == (two, two.event("paid", 2))
    assert made.find_event("paid", 1) == (two, two.event("paid", 1))
    assert made.find_event("refunded") == (one, one.event("refunded"))
    for name in ("pai", "paid.out", "PAID"):
        assert made.find_event(name) is None
    assert made.find_event("paid", 3) is None


def test_specs_may_be_registered_while_they_are_gone_through() -> None:
    made = registry(spec("a"))
    for each in made:
        if each.meta.name == "a":
            made.register(spec("b"), "b")
    assert [each.meta.name for each in made] == ["a", "b"]
