"""Episodes: when one begins, that it is told once, and when it is over."""

from __future__ import annotations

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


def step(rule: Rule, value: float | None, before: bool, sample: int = 9, *, whole: bool = True) -> Verdict:
    return judged(rule, Statistic(value, sample), open_before=before, margin=0.1, whole=whole)


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
        is_open, begun = step(rule, value, is_open)
        told += "!" if begun else "."
        assert is_open or not begun
    assert told == begins


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.none() | st.floats(0, 300), max_size=50), margin=st.floats(0, 0.9),
    rule=st.sampled_from([ABOVE, BELOW]),
)  # fmt: skip
def test_between_two_alerts_the_value_was_back(values: list[float | None], margin: float, rule: Rule) -> None:
    is_open, since = False, list[float | None]([None])
    for value in values:
        was = is_open
        is_open, begun = judged(rule, Statistic(value, 9), open_before=was, margin=margin, whole=True)
        if begun:
            assert not was
            assert value is not None
            assert rule.outside(value)
            assert any(each is None or rule.inside(each, margin) for each in since)
            since.clear()
        elif not is_open:
            assert value is None or not rule.outside(value)
        since.append(value)


def test_too_few_events_begin_nothing_and_end_nothing() -> None:
    assert step(ABOVE, 200, False, 4) == Verdict(False)
    assert step(ABOVE, 200, False, 5) == Verdict(True, True)
    assert step(ABOVE, 200, True, 1) == Verdict(True)
    assert step(ABOVE, 50, True, 1) == Verdict(False)
    assert step(ABOVE, None, True, 0) == Verdict(False)


def test_events_that_stay_away_are_waited_for_as_long_as_a_window_is() -> None:
    assert step(AWAITED, 0, False, 0, whole=False) == Verdict(False)
    assert step(AWAITED, 0, False, 0) == Verdict(True, True)
    assert step(AWAITED, 9, False, 9) == Verdict(True, True)
    assert step(AWAITED, 10, False, 10) == Verdict(False)


def test_a_bound_of_zero_has_no_margin() -> None:
    none = ABOVE._replace(bound=0)
    assert step(none, 0.1, False) == Verdict(True, True)
    assert step(none, 0, True) == Verdict(False)


def test_a_negative_bound_has_its_margin_on_the_right_side() -> None:
    low = ABOVE._replace(bound=-100)
    assert step(low, -99, False) == Verdict(True, True)
    assert step(low, -105, True) == Verdict(True)
    assert step(low, -110, True) == Verdict(False)


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
