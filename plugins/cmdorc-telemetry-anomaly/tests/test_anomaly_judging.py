"""Episodes: when one begins, that it is told once, and when it is over."""

from __future__ import annotations

from math import inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import CORE, Event, load_spec
from cmdorc_telemetry.spec.metrics import Metric
from cmdorc_telemetry.spec.model import AnomalyDetection, Property, Semantics, Threshold
from cmdorc_telemetry_anomaly.judging import Rule, Verdict, judged, rules_of
from cmdorc_telemetry_anomaly.windows import Statistic
from cmdorc_telemetry_anomaly.wording import message

ABOVE = Rule("duration_ms", Metric("mean", "duration_ms"), "above", 100, 5)
BELOW = ABOVE._replace(kind="below")
AWAITED = Rule("count", Metric("count"), "below", 10, 5)


def event(*thresholds: Threshold, enabled: bool = True) -> Event:
    properties = {
        "duration_ms": Property(type="duration_ms"),
        "amount": Property(type="number", min=-5, max=5),
        "count": Property(type="bool"),
        "sizes": Property(type="count", max_items=3),
        "mail": Property(type="number", min=0, max=1, pii=True),
        "plan": Property(type="enum", members=("free", "pro")),
        "outcome": Property(type="enum", members=("ok", "error", "failed", "unknown")),
    }
    watch = AnomalyDetection(enabled=enabled, thresholds=thresholds, minimum_sample=7)
    return Event(name="e", semantics=Semantics(what="w"), properties=properties, anomaly_detection=watch)


OPEN, CLOSED, BEGINS = Verdict(inf), Verdict(), Verdict(inf, True)


def step(
    rule: Rule, value: float | None, before: bool, sample: int = 9, *, whole: bool = True, rest: float = 0
) -> Verdict:  # fmt: skip
    back = inf if before else None
    return judged(rule, Statistic(value, sample), back, now=1000, margin=0.1, rest=rest, whole=whole)


@pytest.mark.parametrize(
    ("rule", "values", "begins"),
    [
        (ABOVE, [50, 100, 100.1, 150, 101, 99, 91, 100.5, 90, 100.5, None, 101], "..!......!.!"),
        (BELOW, [150, 100, 99.9, 10, 100, 109, 99, 110, 99, None, 99], "..!.....!.!"),
    ],
)  # fmt: skip
def test_one_alert_an_episode(rule: Rule, values: list[float | None], begins: str) -> None:
    is_open, told = False, ""
    for value in values:
        back, begun = step(rule, value, is_open)
        is_open = back is not None
        told += "!" if begun else "."
        assert is_open or not begun
    assert told == begins


def test_an_episode_is_over_when_the_value_stays_back() -> None:
    """Of twenty events one more or less may make all the difference: that is no end, and no other beginning."""
    told, back = [], None
    for now, value in enumerate([101, 50, 50, 101, 50, 50, 50, 101, 50, 95, 50, 50, 50, 50, 50, 101]):
        back, begins = judged(ABOVE, Statistic(value, 9), back, now=now, margin=0.1, rest=4, whole=True)
        told.append((back, begins))
    assert [now for now, (_, begins) in enumerate(told) if begins] == [0, 15]
    assert [back for back, _ in told] == [inf, 1, 1, inf, 4, 4, 4, inf, 8, inf, 10, 10, 10, 10, None, inf]


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(0, 300), max_size=50), margin=st.floats(0, 0.9),
    rule=st.sampled_from([ABOVE, BELOW]), rest=st.integers(0, 5),
)  # fmt: skip
def test_between_two_alerts_the_value_was_back_for_long_enough(
    values: list[float | None], margin: float, rule: Rule, rest: int
) -> None:
    back, since = None, list[float | None]([None])
    for now, value in enumerate(values):
        was = back
        back, begun = judged(rule, Statistic(value, 9), was, now=now, margin=margin, rest=rest, whole=True)
        if begun:
            assert was is None
            assert value is not None
            assert rule.outside(value)
            inside = [each is None or rule.inside(each, margin) for each in since]
            assert None in since or any(all(inside[at : at + rest + 1]) for at in range(len(inside) - rest))
            since.clear()
        elif back is None:
            assert value is None or not rule.outside(value)
        since.append(value)


def test_too_few_events_begin_nothing_and_end_nothing() -> None:
    assert step(ABOVE, 200, False, 4) == CLOSED
    assert step(ABOVE, 200, False, 5) == BEGINS
    assert step(ABOVE, 200, True, 1) == OPEN
    assert step(ABOVE, 50, True, 1) == CLOSED
    assert step(ABOVE, None, True, 0) == CLOSED


def test_events_that_stay_away_are_waited_for_as_long_as_a_window_is() -> None:
    assert step(AWAITED, 0, False, 0, whole=False) == CLOSED
    assert step(AWAITED, 0, False, 0) == BEGINS
    assert step(AWAITED, 9, False, 9) == BEGINS
    assert step(AWAITED, 10, False, 10) == CLOSED


def test_a_bound_of_zero_has_no_margin() -> None:
    none = ABOVE._replace(bound=0)
    assert step(none, 0.1, False) == BEGINS
    assert step(none, 0, True) == CLOSED


def test_a_negative_bound_has_its_margin_on_the_right_side() -> None:
    low = ABOVE._replace(bound=-100)
    assert step(low, -99, False) == BEGINS
    assert step(low, -105, True) == OPEN
    assert step(low, -110, True) == CLOSED


def test_the_margin_ends_where_the_values_do() -> None:
    """A tenth above 95 is more than all of 100 %: no episode would ever be over."""
    full = BELOW._replace(bound=95, end=100)
    assert step(full, 94, False) == BEGINS
    assert step(full, 95.4, True) == OPEN
    assert step(full, 95.5, True) == CLOSED
    near = ABOVE._replace(bound=-4.5, end=-5)
    assert step(near, -4.54, True) == OPEN
    assert step(near, -4.55, True) == CLOSED
    assert step(ABOVE._replace(end=0), 91, True) == OPEN, "the bound is nearer to 0 than to nothing else"


@pytest.mark.parametrize(
    ("text", "kind", "end"),
    [
        ("count", "above", 0), ("count", "below", None), ("failure_share", "above", 0), ("failure_share", "below", 1),
        ("duration_ms", "above", 0), ("p95(duration_ms)", "below", None), ("amount", "above", -5),
        ("p95(amount)", "below", 5),
    ],
)  # fmt: skip
def test_where_the_values_of_a_metric_end(text: str, kind: str, end: float | None) -> None:
    counted = Property(type="bool")
    declared = event(Threshold(metric=text, min=0.1, max=0.5))
    properties = {name: prop for name, prop in declared.properties.items() if prop != counted}
    found = {rule.kind: rule.end for rule in rules_of(msgspec.structs.replace(declared, properties=properties))}
    assert found[kind] == end  # type: ignore[index]


def test_events_are_counted_in_wholes() -> None:
    """One run a day is what was asked for: that there is one again ends it, and not two."""
    once, storm = AWAITED._replace(bound=1), Rule("count", Metric("count"), "above", 25, 5, 0)
    assert step(once, 0, True, 0) == OPEN
    assert step(once, 1, True, 1) == CLOSED
    assert step(AWAITED, 10, True, 10) == OPEN
    assert step(AWAITED, 11, True, 11) == CLOSED
    assert step(storm, 24, True, 24) == OPEN
    assert step(storm, 23, True, 23) == CLOSED


def test_a_threshold_is_one_rule_a_bound() -> None:
    both = Threshold(metric="failure_share", min=0.1, max=0.5)
    found = list(rules_of(event(Threshold(metric="duration_ms", max=9), both)))
    assert [(rule.metric, rule.kind, rule.bound, rule.minimum) for rule in found] == [
        (Metric("mean", "duration_ms"), "above", 9, 7), (Metric("failure_share"), "above", 0.5, 7),
        (Metric("failure_share"), "below", 0.1, 7),
    ]  # fmt: skip
    assert len({rule.key for rule in found}) == 3
    assert list(rules_of(event(Threshold(metric="plan", max=9), Threshold(metric="nothing", max=9)))) == []
    assert list(rules_of(event(Threshold(metric="duration_ms", max=9), enabled=False))) == []


def test_of_the_core_spec() -> None:
    spec = load_spec(CORE)
    completed = spec.event("command_completed")
    assert completed is not None
    (rule,) = rules_of(completed)
    assert (rule.text, rule.kind, rule.bound, rule.minimum) == ("duration_ms", "above", 600_000, 20)


@pytest.mark.parametrize(
    ("rule", "value", "group", "text"),
    [
        (ABOVE._replace(bound=600_000), 750_000, "Build",
         "e Build: mean of duration_ms is 12.5 min, above 10 min (24 events in 60 min)"),
        (ABOVE._replace(bound=150), 1900, None,
         "e: mean of duration_ms is 1.9 s, above 150 ms (24 events in 60 min)"),
        (Rule("amount", Metric("mean", "amount"), "above", 20_000, 5), 34567.89, None,
         "e: mean of amount is 34567.9, above 20000 (24 events in 60 min)"),
        (Rule("p95(amount)", Metric("p95", "amount"), "below", 2, 5), 1.23456, None,
         "e: p95 of amount is 1.23, below 2 (24 events in 60 min)"),
        (Rule("failure_share", Metric("failure_share"), "above", 0.05, 5), 0.5, "T",
         "e T: share of failures is 50 %, above 5 % (24 events in 60 min)"),
        (AWAITED, 0, None, "e: number of events is 0, below 10 (24 events in 60 min)"),
    ],
)  # fmt: skip
def test_an_alert_in_words(rule: Rule, value: float, group: str | None, text: str) -> None:
    assert message(event(), rule, value, 24, group, 60) == text
