"""What events add to instruments, and how bodies and labels are read."""

from __future__ import annotations

import time
from math import inf

import pytest

from cmdorc_telemetry.spec.instruments import Reading
from cmdorc_telemetry.tally import OTHER, SUM, Sample, body_of, bound, measured, read, seconds_of, written
from cmdorc_telemetry.types import BatchEvent

from .counting import RUNS, TOOK, Runs, event


def tallied(*events: BatchEvent) -> Runs:
    tally = Runs()
    for each in events:
        tally.count(each)
    return tally


def test_counters_and_histograms_grow() -> None:
    found = tallied(event(name="A", ms=500), event(name="A", ms=1000), event(name="A", ms=5001), event(name="B"))
    a, b = written({"name": "A"}), written({"name": "B"})
    assert found.added == {
        Sample("", "runs", a): 3, Sample("", "runs", b): 1, Sample("", "took", a, SUM): 6.501,
        Sample("", "took", a, "1.0"): 2, Sample("", "took", a, "+Inf"): 1,
    }  # fmt: skip
    assert found.families == {"runs": RUNS, "took": TOOK}


def test_a_gauge_is_what_is_latest() -> None:
    at = "2026-01-02T03:04:0{}Z"
    found = tallied(*(event(load=load, timestamp=at.format(second)) for load, second in ((1, 5), (2, 7), (3, 6))))
    assert found.latest == {Sample("", "load", "[]"): (2, 1767323047)}
    assert tallied(event(load=1, timestamp=at.format(5)), event(load=2, timestamp=at.format(5))).latest == {
        Sample("", "load", "[]"): (2, 1767323045)
    }


def test_values_that_are_none_of_their_type() -> None:
    odd: tuple[object, ...] = ("long", True, None, [1], 2**60, {"a": 1})
    assert tallied(*(event(ms=value, load=value) for value in odd)).added == {Sample("", "runs", "[]"): len(odd)}
    tally, truth, ranges = Runs(), Reading("x", RUNS), Reading("x", TOOK, ranges={"1-5": 5.0, ">=5": inf})
    for value in (True, False, 3, "no", 0.5):
        tally.read(truth, "[]", value, 0)
        tally.read(ranges, "[]", value, 0)
    for value in ("1-5", ">=5", "1-5"):
        tally.read(ranges, "[]", value, 0)
    assert tally.added == {Sample("", "runs", "[]"): 1, Sample("", "took", "[]", "5.0"): 2,
                           Sample("", "took", "[]", "+Inf"): 1}  # fmt: skip


def test_labels_are_members_names_or_other() -> None:
    bodies = ({"state": "ok", "name": "A"}, {"state": "odd"}, {"state": 1, "name": 2}, {"name": ""})
    assert [read(sample.labels) for sample in tallied(*(event(**body) for body in bodies)).added] == [
        {"state": "ok", "name": "A"}, {"state": OTHER}, {},
    ]  # fmt: skip


def test_labels_as_one_text() -> None:
    assert written({"b": 'x"y\n', "a": "ü", "none": ""}) == '[["a","ü"],["b","x\\"y\\n"]]'
    assert read(written({"b": 'x"y\n', "a": "ü"})) == {"a": "ü", "b": 'x"y\n'}
    assert (bound(5), bound(0.1), bound(inf)) == ("5.0", "0.1", "+Inf")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":' * 5000])
def test_what_is_no_body(body: bytes) -> None:
    assert body_of(BatchEvent("x", "run", body)) == {}


def test_a_moment_without_a_zone_is_universal_wherever_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert seconds_of("2026-01-02T03:04:06") == 1767323046
    time.tzset()


def test_moments_and_numbers() -> None:
    assert seconds_of("2026-01-02T03:04:05Z") == seconds_of("2026-01-02T03:04:05") == 1767323045
    assert [seconds_of(each) for each in ("now", "", 5, None, ["2026-01-02T03:04:05Z"])] == [None] * 5
    assert [measured(each) for each in (0, 1.5, -(2**53), 2**53 + 2, True, "1", None)] == [
        0, 1.5, -(2**53), None, None, None, None,
    ]  # fmt: skip
