"""What the events of a spec become: names, kinds, units, bounds and labels."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec, parse_toml
from cmdorc_telemetry_prometheus.metrics import Catalogue

CORE_SPEC = load_spec(CORE)

SHOP = """
[meta]
name = "acme.shop"
version = 2

[[events]]
name = "order.placed"
semantics = { what = "An order was placed", who = "shop", why = "to know" }
[events.properties]
plan = { type = "enum", members = ["free", "team"] }
loadMs = { type = "duration_ms", max = 2000 }
load_ms = { type = "duration_ms" }
items = { type = "count", min = 1, max = 3 }
score = { type = "number", min = -1, max = 1 }
wait_ms = { type = "bucket", edges = [100, 1000] }
gift = { type = "bool" }
gift_created = { type = "number", min = 0, max = 5 }
le = { type = "enum", members = ["a"] }
secret = { type = "count", redact = true }
mail = { type = "string", pattern = ".*", max_length = 9, pii = true }
tenant = { type = "string", pattern = ".*", max_length = 9, audience = "private" }
tags = { type = "enum", members = ["x"], max_items = 3 }
items_count = { type = "number", min = 0, max = 5 }
"$9lives" = { type = "bool" }
"""


def families(spec: TelemetrySpec, event: str, *labels: str) -> dict[str, tuple[str, tuple[float, ...]]]:
    metrics = Catalogue([spec], labels).find(spec.ref, event)
    assert metrics is not None
    found = [metrics.total, metrics.last, *(reading.family for reading in metrics.readings)]
    return {family.name: (family.kind, family.edges) for family in found}


def test_the_core_spec() -> None:
    found = families(CORE_SPEC, "command_completed")
    assert {name: kind for name, (kind, _) in found.items()} == {
        "cmdorc_command_completed": "counter",
        "cmdorc_command_completed_last_timestamp_seconds": "gauge",
        "cmdorc_command_completed_duration_seconds": "histogram",
        "cmdorc_command_completed_final": "counter",
        "cmdorc_command_completed_manual": "counter",
        "cmdorc_command_completed_chain_depth": "histogram",
        "cmdorc_command_completed_concurrent_runs": "histogram",
        "cmdorc_command_completed_timed_out": "counter",
        "cmdorc_command_completed_command_arg_count": "histogram",
    }
    assert 600 in found["cmdorc_command_completed_duration_seconds"][1]
    stopped = families(CORE_SPEC, "orchestrator_stopped")
    assert stopped["cmdorc_orchestrator_stopped_uptime_seconds"] == ("histogram", (1, 10, 60, 600, 3600, 28800))
    assert stopped["cmdorc_orchestrator_stopped_avg_concurrent_runs"] == ("gauge", ())


def test_labels_are_what_is_declared_and_what_the_destination_lists() -> None:
    metrics = Catalogue([CORE_SPEC], ["command_name"]).find("cmdorc.core@1", "command_completed")
    assert metrics is not None
    assert metrics.enums == {"state": ("state", ("success", "failed", "cancelled"))}
    assert metrics.free == {"command_name": "command_name"}
    without = Catalogue([CORE_SPEC]).find("cmdorc.core@1", "command_completed")
    assert without is not None
    assert without.free == {}


def test_names_units_and_bounds_of_any_spec() -> None:
    spec = parse_toml(SHOP, "shop.toml")
    assert families(spec, "order.placed", "tenant") == {
        "acme_shop_order_placed": ("counter", ()),
        "acme_shop_order_placed_last_timestamp_seconds": ("gauge", ()),
        # two properties whose metrics would be called the same: the second one has a number
        "acme_shop_order_placed_load_seconds": ("histogram", (0.05, 0.1, 0.25, 0.5, 1)),
        "acme_shop_order_placed_load_seconds_2": (
            "histogram", (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
        ),
        "acme_shop_order_placed_items": ("histogram", (1, 2)),
        "acme_shop_order_placed_score": ("gauge", ()),
        "acme_shop_order_placed_wait_seconds": ("histogram", (0.1, 1)),
        "acme_shop_order_placed_gift": ("counter", ()),
        "acme_shop_order_placed_gift_created_2": ("gauge", ()),
        # a series of the histogram of items is called so
        "acme_shop_order_placed_items_count_2": ("gauge", ()),
        "acme_shop_order_placed_9lives": ("counter", ()),
    }  # fmt: skip
    metrics = Catalogue([spec], ["tenant", "mail", "secret"]).find("acme.shop@2", "order.placed")
    assert metrics is not None
    assert metrics.enums == {"plan": ("plan", ("free", "team")), "le": ("le_2", ("a",))}
    assert metrics.free == {"tenant": "tenant"}


def test_the_domain_is_what_metrics_begin_with() -> None:
    spec = parse_toml(SHOP.replace("version = 2", 'version = 2\ndomain = "Store-Front"'), "shop.toml")
    assert "store_front_order_placed" in families(spec, "order.placed")


def test_of_several_versions_of_an_event_the_latest_counts() -> None:
    older = SHOP[SHOP.index("[[events]]") :].replace("gift", "present")
    newer = SHOP.replace('semantics = { what = "An', 'version = 2\nsemantics = { what = "An')
    spec = parse_toml(newer + older, "shop.toml")
    found = families(spec, "order.placed")
    assert "acme_shop_order_placed_gift" in found
    assert "acme_shop_order_placed_present" not in found


def test_of_several_versions_of_a_spec_the_latest_counts_for_all() -> None:
    older = parse_toml(SHOP.replace("version = 2", "version = 1").replace("gift", "present"), "shop.toml")
    catalogue = Catalogue([older, parse_toml(SHOP, "shop.toml")])
    found = catalogue.find("acme.shop@1", "order.placed")
    assert found is not None
    assert found is catalogue.find("acme.shop@2", "order.placed")
    assert {"acme_shop_order_placed_gift"} <= {reading.family.name for reading in found.readings}


@pytest.mark.parametrize(
    ("property_", "name", "per"),
    [
        ('took_s = { type = "duration_ms" }', "took_seconds", 1000),
        ('took = { type = "duration_ms" }', "took_seconds", 1000),
        ('window_s = { type = "count" }', "window_seconds", 1),
        ('wait_ms = { type = "count" }', "wait_seconds", 1000),
        ('ms = { type = "number", min = 0, max = 9 }', "ms_seconds", 1000),
        ('in_s = { type = "bool" }', "in_s", 1),
        ('items = { type = "count" }', "items", 1),
    ],
)
def test_units(property_: str, name: str, per: int) -> None:
    spec = parse_toml(SHOP[: SHOP.index("plan =")] + property_, "shop.toml")
    metrics = Catalogue([spec]).find("acme.shop@2", "order.placed")
    assert metrics is not None
    assert [(each.family.name, each.per) for each in metrics.readings] == [(f"acme_shop_order_placed_{name}", per)]


def test_an_unknown_event() -> None:
    catalogue = Catalogue([CORE_SPEC])
    assert catalogue.find("cmdorc.core@2", "command_completed") is None
    assert catalogue.find("cmdorc.core@1", "nothing") is None


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["planName"], ["plan_name"]),
        (["a.b-c", "a_b_c", "aB.c"], ["a_b_c", "a_b_c_2", "a_b_c_3"]),
        (["$$", "le", "$9"], ["unnamed", "le_2", "_9"]),
        (["job", "Instance", "alertname", "__name__"], ["job_2", "instance_2", "alertname_2", "name"]),
    ],
)
def test_labels_are_such_as_prometheus_allows_and_apart(names: list[str], labels: list[str]) -> None:
    enums = "".join(f'"{name}" = {{ type = "enum", members = ["x"] }}\n' for name in names)
    spec = parse_toml(SHOP[: SHOP.index("plan =")] + enums, "shop.toml")
    metrics = Catalogue([spec]).find("acme.shop@2", "order.placed")
    assert metrics is not None
    assert [label for label, _ in metrics.enums.values()] == labels


def test_the_metrics_of_this_plugin_are_nobody_elses() -> None:
    text = SHOP.replace('name = "acme.shop"', 'name = "cmdorc"').replace('"order.placed"', '"telemetry.events"')
    assert "cmdorc_telemetry_events_2" in families(parse_toml(text, "shop.toml"), "telemetry.events")
