"""What the events of a spec become: kinds, units, bounds, ranges and labels, before anybody gives them names."""

from __future__ import annotations

from math import inf, nan

import pytest

from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec, parse_toml
from cmdorc_telemetry.spec.instruments import SECONDS, Instrument, are_bounds, enums, free, instruments, of_each, word
from cmdorc_telemetry.spec.model import Event

HEAD = """
[meta]
name = "shop"
version = 2
[[events]]
name = "sold"
semantics = { what = "An order was placed" }
"""
SHOP = f"""{HEAD}
[events.properties]
plan = {{ type = "enum", members = ["free", "team"] }}
plans = {{ type = "enum", members = ["free", "team"], max_items = 2 }}
tenant = {{ type = "string", pattern = ".*", max_length = 9 }}
release = {{ type = "version" }}
mail = {{ type = "string", pattern = ".*", max_length = 9, pii = true }}
at = {{ type = "timestamp" }}
secret = {{ type = "count", redact = true }}
sizes = {{ type = "count", max_items = 3 }}
gift = {{ type = "bool", description = "Whether it is wrapped" }}
"""


def event_of(text: str) -> Event:
    event = parse_toml(text, "shop.toml").event("sold")
    assert event is not None
    return event


def became(property_: str, **more: tuple[float, ...]) -> Instrument:
    """What one property becomes, which is declared like this."""
    (found,) = instruments(event_of(f"{HEAD}[events.properties]\nx = {{ {property_} }}\n"), **more)
    return found


def test_the_core_spec() -> None:
    event = load_spec(CORE).event("command_completed")
    assert event is not None
    assert {each.word: (each.kind, each.unit) for each in instruments(event)} == {
        "duration": ("histogram", "s"), "final": ("counter", ""), "manual": ("counter", ""),
        "chain_depth": ("histogram", ""), "concurrent_runs": ("histogram", ""), "timed_out": ("counter", ""),
        "command_arg_count": ("histogram", ""),
    }  # fmt: skip
    assert enums(event) == {"state": ("success", "failed", "cancelled")}
    assert free(event, ["command_name", "state", "duration_ms", "unheard_of"]) == ["command_name"]


def test_what_has_no_bound_becomes_nothing() -> None:
    event = event_of(SHOP)
    assert [each.prop for each in instruments(event)] == ["gift"]
    assert list(enums(event)) == ["plan"]
    assert free(event, ["tenant", "release", "mail", "at", "secret", "plans", "plan"]) == ["tenant", "release"]


def test_what_is_told_of_it() -> None:
    (gift,) = instruments(event_of(SHOP))
    assert gift == Instrument("gift", "gift", "counter", "Whether it is wrapped")
    assert became('type = "count"').about == "x of sold"


@pytest.mark.parametrize(
    ("declared", "edges"),
    [
        ('type = "duration_ms"', SECONDS),
        ('type = "duration_ms", min = 250, max = 2000', (0.25, 0.5, 1)),  # above the last one there is nothing
        ('type = "duration_ms", max = 2500', (0.05, 0.1, 0.25, 0.5, 1)),
        ('type = "count", min = 1, max = 3', (1, 2)),
        ('type = "count", min = 5000', (5000,)),
        ('type = "count", min = 3, max = 4', (4,)),
    ],
)
def test_bounds_lie_where_values_can(declared: str, edges: tuple[float, ...]) -> None:
    assert became(declared).edges == edges


def test_bounds_that_somebody_asks_for() -> None:
    assert became('type = "duration_ms"', seconds=(1.0, 2.0)).edges == (1.0, 2.0)
    assert 1000 in became('type = "count"', seconds=(1.0, 2.0)).edges


@pytest.mark.parametrize("numbers", [[], [0, 1], [-1], [2, 1], [1, 1], [1, inf], [1, nan]])
def test_what_can_be_no_bounds(numbers: list[float]) -> None:
    assert not are_bounds(numbers)
    assert are_bounds([0.5, 1, 2.5])


def test_thresholds_are_bounds() -> None:
    watched = (
        '[events.properties]\nx = { type = "duration_ms" }\ny = { type = "count" }\n[events.anomaly_detection]\n'
        'thresholds = [{ metric = "x", min = 20, max = 7000 }, { metric = "p95(y)", max = 77 }, { metric = "count", '
        "min = 3 }]\n"
    )
    x, y = instruments(event_of(HEAD + watched))
    assert set(x.edges) == {*SECONDS, 0.02, 7}
    assert x.edges == tuple(sorted(x.edges))
    assert 77 in y.edges
    assert 3 not in y.edges


def test_ranges_stand_for_their_upper_bounds() -> None:
    found = became('type = "bucket", edges = [100, 1000]')
    assert found.edges == (100, 1000)
    assert found.ranges == {"<100": 100, "100-1000": 1000, ">=1000": inf}
    assert became('type = "number", min = 0, max = 1').kind == "gauge"


@pytest.mark.parametrize(
    ("name", "declared", "called", "per"),
    [
        ("took_s", 'type = "duration_ms"', "took", 1000),
        ("took", 'type = "duration_ms"', "took", 1000),
        ("tookMs", 'type = "duration_ms"', "took", 1000),
        ("window_s", 'type = "count"', "window", 1),
        ("load.ms", 'type = "count"', "load", 1000),
        ("wait_s", 'type = "bucket", edges = [1, 2]', "wait", 1),
        ("ms", 'type = "number", min = 0, max = 9', "ms", 1000),
    ],
)
def test_times_are_in_seconds(name: str, declared: str, called: str, per: int) -> None:
    (found,) = instruments(event_of(f'{HEAD}[events.properties]\n"{name}" = {{ {declared} }}\n'))
    assert (found.word, found.unit, found.per) == (called, "s", per)


@pytest.mark.parametrize(("name", "declared"), [("in_s", 'type = "bool"'), ("items", 'type = "count"')])
def test_what_is_no_time(name: str, declared: str) -> None:
    (found,) = instruments(event_of(f"{HEAD}[events.properties]\n{name} = {{ {declared} }}\n"))
    assert (found.word, found.unit, found.per) == (name, "", 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("planName", "plan_name"), ("a.b-c", "a.b_c"), ("A--B$", "a_b"), ("$$", "unnamed"), ("x2Y", "x2_y")],
)
def test_words(name: str, expected: str) -> None:
    assert word(name) == expected


def test_it_gets_a_name_and_is_read_by_that() -> None:
    reading = became('type = "duration_ms", max = 200').called("shop_x_seconds", "How long", "seconds")
    assert reading.prop == "x"
    assert reading.per == 1000
    assert reading.family == ("shop_x_seconds", "histogram", "How long", "seconds", (0.05, 0.1))


def test_of_several_versions_the_latest_is_made_once() -> None:
    one = parse_toml(SHOP.replace("version = 2", 'version = "1.9.0"'), "one.toml")
    two = parse_toml(SHOP.replace("gift", "present") + HEAD[HEAD.index("[[events]]") :].replace(
        'name = "sold"', 'name = "sold"\nversion = 3') + "[events.properties]\n", "two.toml")  # fmt: skip
    other = parse_toml(SHOP.replace('"shop"', '"other"'), "other.toml")
    made = []

    def make(spec: TelemetrySpec, event: Event) -> str:
        made.append((spec.ref, event.name, event.version))
        return f"{spec.ref} {event.version}"

    assert of_each([one, two, other], make) == {
        ("shop@1", "sold"): "shop@2 3", ("shop@2", "sold"): "shop@2 3", ("other@2", "sold"): "other@2 1",
    }  # fmt: skip
    assert len(made) == 2
