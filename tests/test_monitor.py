"""Thresholds are judged on single values that were captured, from the sample on that there must be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Result, TelemetryAnomalyMonitor, ThresholdAnomaly, clock, monitor
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.monitor import Crossing, crossings
from cmdorc_telemetry.spec import MASK, Event
from cmdorc_telemetry.spec.model import Threshold

from .acme import Acme


def event(*thresholds: dict[str, Any], name: str = "run", sample: int = 1, **rules: Any) -> Event:
    """An event that is judged by ``thresholds``."""
    table = {"name": name, "semantics": {"what": "x"}, "properties": {},
             "anomaly_detection": {"thresholds": list(thresholds), "minimum_sample": sample, **rules}}  # fmt: skip
    return decode(table, Event, "x")


SLOW = {"metric": "ms", "max": 1000}


def test_a_value_beyond_its_bound_is_an_anomaly_and_the_bound_itself_is_none() -> None:
    both = event({"metric": "ms", "min": 10, "max": 1000})
    seen: list[ThresholdAnomaly] = []
    judge = TelemetryAnomalyMonitor(seen.append)
    for value in (10, 500, 1000, 10.0, 1000.0):
        assert judge.observe(both, {"ms": value}) == []
    for value in (9.999, 1000.001):
        judge.observe(both, {"ms": value})
    assert [(each.value, each.bound, each.limit, each.sample_count) for each in seen] == [
        (9.999, "min", 10, 6), (1000.001, "max", 1000, 7),
    ]  # fmt: skip


def test_an_anomaly_says_what_was_found_where_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall", lambda: 1000.5)
    (found,) = TelemetryAnomalyMonitor().observe(
        event(SLOW, actions=["alert", "trigger_regen"]), {"ms": 3000, "a": "b"}
    )
    assert found == ThresholdAnomaly("run", 1, "ms", 3000, "max", 1000, 1000.5, 1, ("alert", "trigger_regen"))
    assert str(found) == "run: ms is 3000, above 1000 (event 1)"


def test_nothing_is_judged_before_there_is_a_sample() -> None:
    judge, rules = TelemetryAnomalyMonitor(), event(SLOW, sample=3)
    assert [len(judge.observe(rules, {"ms": 2000})) for _ in range(5)] == [0, 0, 1, 1, 1]
    judge.reset()
    assert [len(judge.observe(rules, {"ms": 2000})) for _ in range(4)] == [0, 0, 1, 1]


def test_events_and_versions_are_counted_apart() -> None:
    judge = TelemetryAnomalyMonitor()
    one, other = event(SLOW, sample=2), event(SLOW, sample=2, name="other")
    assert [bool(judge.observe(each, {"ms": 2000})) for each in (one, other, one, other)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"ms": {"value": 2000}}, [2000]), ({"ms.value": 2000}, [2000]), ({"ms": {"other": 2000}}, []), ({}, []),
        ({"ms": "2000"}, []), ({"ms": True}, []), ({"ms": None}, []), ({"ms": [2000]}, []), ({"ms": MASK}, []),
        ({"ms": float("nan")}, []), ({"ms": float("inf")}, [float("inf")]), ({"ms": {"value": True}}, []),
        ({"ms": 2**60}, [2**60]),
    ],
)  # fmt: skip
def test_only_numbers_are_judged(values: dict[str, Any], found: list[float]) -> None:
    for threshold in (Threshold(metric="ms", max=1000), Threshold(metric="ms", min=3, max=1000)):
        assert [each.value for each in crossings([threshold], values)] == found


def test_each_threshold_is_judged() -> None:
    rules = event(SLOW, {"metric": "ms", "max": 1500}, {"metric": "left", "min": 1}, {"metric": "left", "max": 5})
    found = TelemetryAnomalyMonitor().observe(rules, {"ms": 2000, "left": 0})
    assert [(each.metric, each.limit) for each in found] == [("ms", 1000), ("ms", 1500), ("left", 1)]


def test_judging_is_pure_and_needs_no_monitor() -> None:
    (found,) = crossings([Threshold(metric="p95", min=5)], {"p95": 4.5})
    assert found == Crossing("p95", 4.5, "min", 5)


@pytest.mark.parametrize("rules", [{"enabled": False}, {"thresholds": []}])
def test_what_is_not_to_be_judged_is_not(rules: dict[str, Any]) -> None:
    made = decode({"name": "run", "semantics": {"what": "x"}, "properties": {},
                   "anomaly_detection": {"thresholds": [SLOW], "minimum_sample": 1, **rules}}, Event, "x")  # fmt: skip
    assert TelemetryAnomalyMonitor().observe(made, {"ms": 2000}) == []
    bare = decode({"name": "run", "semantics": {"what": "x"}, "properties": {}}, Event, "x")
    assert TelemetryAnomalyMonitor().observe(bare, {"ms": 2000}) == []


@pytest.mark.parametrize("fault", [RuntimeError("hunter2"), SystemExit(3)])
def test_what_on_anomaly_raises_is_logged_and_the_next_is_told(
    caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    heard = []

    def broken(anomaly: ThresholdAnomaly) -> None:
        heard.append(anomaly.limit)
        raise fault

    judge = TelemetryAnomalyMonitor(broken)
    assert len(judge.observe(event(SLOW, {"metric": "ms", "max": 1500}), {"ms": 2000})) == 2
    assert heard == [1000, 1500]
    assert caplog.text.count("on_anomaly failed") == 2
    assert "hunter2" not in caplog.text


def test_an_anomaly_is_logged_where_its_spec_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cmdorc_telemetry"):
        TelemetryAnomalyMonitor().observe(event(SLOW, actions=["alert"]), {"ms": 2000})
        assert caplog.messages == []
        TelemetryAnomalyMonitor().observe(event(SLOW, actions=["log"]), {"ms": 2000})
    assert caplog.messages == ["run: ms is above 1000 (event 1)"], "what it is may be private"


def test_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "MOST_EVENTS", 3)
    judge = TelemetryAnomalyMonitor()
    first = event(SLOW, sample=2, name="first")
    judge.observe(first, {})
    for number in range(3):
        judge.observe(event(SLOW, name=f"other{number}"), {})
    assert len(judge._counts) == 3
    assert judge.observe(first, {"ms": 2000}) == [], "it begins anew"
    assert judge.observe(first, {"ms": 2000})


# -- fed by a tracker --------------------------------------------------------------------------------------------------

SPEC = """
[meta]
name = "acme.app"
[[events]]
name = "step"
semantics = { what = "A step" }
[events.properties]
ms = { type = "duration_ms", required = true }
"load.value" = { type = "count" }
age = { type = "count", pii = true, redact = true }
own = { type = "count", audience = "private" }
[events.anomaly_detection]
minimum_sample = 2
thresholds = [
  { metric = "ms", max = 1500 }, { metric = "load", max = 5 }, { metric = "age", min = 1 }, { metric = "own", max = 1 },
  { metric = "undeclared", max = 1 },
]
"""


def test_a_tracker_shows_the_monitor_what_was_captured(tmp_path: Path) -> None:
    acme, seen = Acme(tmp_path, SPEC), list[ThresholdAnomaly]()
    tracker = acme.tracker(anomaly_monitor=TelemetryAnomalyMonitor(seen.append))
    high = {"ms": 3000, "load": {"value": 7}, "age": 0, "own": 9, "undeclared": 9}
    assert tracker.track_now("step", 1, high) is Result.CAPTURED
    assert seen == [], "one is no sample of two"
    assert tracker.track_now("step", 1, {**high, "ms": "3000"}) is Result.WITHHELD
    assert seen == [], "what was not captured is neither counted nor judged"
    assert tracker.track_now("step", 1, high) is Result.CAPTURED
    assert [(each.metric, each.value, each.sample_count) for each in seen] == [
        ("ms", 3000, 2), ("load", 7, 2), ("own", 9, 2),
    ], "what is masked or undeclared is not judged"  # fmt: skip
    tracker.close()
    assert tracker.track_now("step", 1, high) is Result.WITHHELD
    assert len(seen) == 3, "what is not recorded is not seen"


def test_an_event_without_thresholds_is_not_counted(tmp_path: Path) -> None:
    judge = TelemetryAnomalyMonitor()
    tracker = Acme(tmp_path).tracker(anomaly_monitor=judge)
    assert tracker.track_now("acme.secret", 1, {"count": 5}) is Result.CAPTURED
    assert judge._counts == {}
    assert tracker.track_now("acme.signup", 1, {"plan": "free"}) is Result.CAPTURED
    assert judge._counts == {("acme.signup", 1): 1}
    tracker.close()


def test_a_spec_may_have_it_off_for_all_of_its_events(tmp_path: Path) -> None:
    acme, seen = Acme(tmp_path, SPEC + "[config]\nanomaly_detection = false\n"), list[ThresholdAnomaly]()
    tracker = acme.tracker(anomaly_monitor=TelemetryAnomalyMonitor(seen.append))
    for _ in range(3):
        assert tracker.track_now("step", 1, {"ms": 3000}) is Result.CAPTURED
    tracker.close()
    assert seen == []


def test_a_broken_on_anomaly_is_kept_from_the_caller(tmp_path: Path) -> None:
    def broken(anomaly: ThresholdAnomaly) -> None:
        raise SystemExit

    acme = Acme(tmp_path, SPEC.replace("minimum_sample = 2", "minimum_sample = 1"))
    tracker = acme.tracker(anomaly_monitor=TelemetryAnomalyMonitor(broken))
    assert tracker.track_now("step", 1, {"ms": 3000}) is Result.CAPTURED
    tracker.close()
    assert len(acme.frames()) == 1
