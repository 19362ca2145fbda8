"""Sketches and windows against doing the same with all values in a list."""

from __future__ import annotations

import random
import statistics
from math import inf
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry_anomaly import sketch
from cmdorc_telemetry_anomaly.groups import FORGET_WINDOWS, Groups, is_whole
from cmdorc_telemetry_anomaly.windows import PANES, Observation, Window

LENGTH = 3600.0
VALUE = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-6)
SHARE = st.floats(0.01, 1)


def rank(values: list[float], share: float) -> float:
    """As statistics.quantiles has it with method='inclusive': between two values as far between them."""
    before, between = divmod(share * (len(values) - 1), 1)
    low, high = (sorted(values)[min(int(before) + more, len(values) - 1)] for more in (0, 1))
    return low + between * (high - low)


def sketched(values: list[float]) -> sketch.Ranges:
    ranges: sketch.Ranges = {}
    for value in values:
        sketch.add(ranges, value)
    return ranges


def near(found: float | None, exact: float) -> bool:
    return found is not None and abs(found - exact) <= sketch.ERROR * abs(exact) * 1.0001


def test_the_reference_is_the_usual_quantile() -> None:
    chance = random.Random(3)
    for count in (2, 3, 19, 20, 21, 101):
        values = [chance.lognormvariate(3, 1) for _ in range(count)]
        assert rank(values, 0.95) == pytest.approx(statistics.quantiles(values, n=20, method="inclusive")[-1])


@settings(max_examples=400, deadline=None)
@given(values=st.lists(VALUE, min_size=1, max_size=sketch.MOST_RANGES), share=SHARE, sign=st.sampled_from([1, -1]))
def test_a_quantile_is_right_within_the_error(values: list[float], share: float, sign: int) -> None:
    """Between a negative and a positive value, within that of the greater of them."""
    found, exact = sketch.quantile(sketched(values), share), rank(values, share)
    place = int(share * (len(values) - 1))
    beside = max(map(abs, sorted(values)[place : place + 2]))
    assert found is not None
    assert abs(found - exact) <= sketch.ERROR * beside * 1.0001
    alike = [sign * abs(value) for value in values]
    assert near(sketch.quantile(sketched(alike), share), rank(alike, share))


@settings(max_examples=200, deadline=None)
@given(one=st.lists(VALUE, max_size=50), other=st.lists(VALUE, min_size=1, max_size=50), share=SHARE)
def test_merged_sketches_are_the_sketch_of_all(one: list[float], other: list[float], share: float) -> None:
    assert sketch.merged([sketched(one), sketched(other)]) == sketched([*one, *other])


def test_nothing_has_no_quantile() -> None:
    assert sketch.quantile({}, 0.5) is None


@pytest.mark.parametrize("seed", range(5))
def test_space_is_bounded_and_the_upper_values_stay_right(seed: int) -> None:
    chance = random.Random(seed)
    values = [chance.lognormvariate(6, 1.5) for _ in range(20_000)]
    ranges = sketched(values)
    assert len(ranges) <= sketch.MOST_RANGES
    assert sum(ranges.values()) == len(values)
    for share in (0.9, 0.95, 0.99, 1):
        assert near(sketch.quantile(ranges, share), rank(values, share))


@settings(max_examples=300, deadline=None)
@given(values=st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=60), share=SHARE, most=st.integers(2, 8))
def test_where_there_are_too_many_ranges_only_the_lowest_values_are_overstated(
    values: list[float], share: float, most: int
) -> None:
    """What is right within the error stays so, as long as fewer other ranges lie above it than a sketch may have."""
    exact = rank(values, share)
    lower = sorted(values)[int(share * (len(values) - 1))]
    above = {number for number in sketched(values) if number > next(iter(sketched([lower])))}
    with mock.patch.object(sketch, "MOST_RANGES", most):
        ranges = sketched(values)
    found = sketch.quantile(ranges, share)
    assert found is not None
    assert found >= exact * (1 - sketch.ERROR) * 0.9999, "never understated"
    assert len(above) >= most - 1 or near(found, exact)
    assert len(ranges) <= most
    assert sum(ranges.values()) == len(values)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(-1e-6, 1e-6), min_size=1, max_size=20), share=SHARE)
def test_what_is_tiny_is_right_to_a_millionth(values: list[float], share: float) -> None:
    assert sketch.quantile(sketched(values), share) == pytest.approx(rank(values, share), abs=1.0001e-6)


def test_however_far_apart_values_are_space_is_bounded() -> None:
    ranges = sketched([10 ** (number / 10) for number in range(-60, 400)])
    assert len(ranges) == sketch.MOST_RANGES
    assert sum(ranges.values()) == 460


# -- windows -----------------------------------------------------------------------------------------------------------

SEEN = st.builds(
    Observation,
    at=st.floats(1e9, 1e9 + 5 * LENGTH),
    numbers=st.dictionaries(st.sampled_from(["a", "b"]), VALUE, max_size=2),
    failed=st.sampled_from([True, False, None]),
    sketched=st.just(frozenset("ab")),
)


def in_window(seen: list[Observation], now: float, length: float) -> list[Observation]:
    """Those in the panes that a window has at ``now``, by the definition of a pane."""
    width = length / PANES
    begin = (int(now / width) - PANES + 1) * width
    return [each for each in seen if each.at >= begin]


@settings(max_examples=300, deadline=None)
@given(seen=st.lists(SEEN, max_size=60), data=st.data())
def test_statistics_are_those_of_the_events_in_the_window(seen: list[Observation], data: st.DataObject) -> None:
    """Events come in any order, and are looked at again and again."""
    window, fed, now = Window(), list[Observation](), 0.0
    for each in seen:
        now = max(now, each.at)
        if each.at >= now - LENGTH:
            window.add(each, LENGTH)
            fed.append(each)
        if data.draw(st.integers(0, 4)) == 0:
            window.trim(now, LENGTH)
    window.trim(now, LENGTH)
    kept = in_window(fed, now, LENGTH)
    assert window.count() == len(kept)
    assert len(window.panes) <= PANES
    decided = [each.failed for each in kept if each.failed is not None]
    share = window.failure_share()
    assert share.sample == len(decided)
    assert share.value == (sum(decided) / len(decided) if decided else None)
    for name in "ab":
        values = [each.numbers[name] for each in kept if name in each.numbers]
        mean, p95 = window.mean(name), window.p95(name)
        assert mean.sample == p95.sample == len(values)
        if values:
            assert mean.value == pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-3)
            assert p95.value == sketch.quantile(sketched(values), 0.95)
        else:
            assert mean.value is None
            assert p95.value is None


def test_of_a_hundred_values_the_ninety_fifth_is_told() -> None:
    window, chance = Window(), random.Random(2)
    for value in chance.sample(range(1, 101), 100):
        window.add(Observation(1e9 + 30 * value, {"a": value}, sketched=frozenset("a")), LENGTH)
    assert near(window.p95("a").value, 95.05)


def test_only_where_a_quantile_is_judged_values_are_sketched() -> None:
    """A threshold that is new in a spec has no values of the time before it."""
    window = Window()
    for number in range(20):
        window.add(
            Observation(1e9 + number, {"a": 5.0, "b": 5.0}, sketched=frozenset("a" if number > 12 else "")), LENGTH
        )
    assert (window.mean("a").sample, window.p95("a").sample) == (20, 7)
    assert (window.mean("b").sample, window.p95("b")) == (20, (None, 0))


def test_a_window_covers_its_length_but_for_a_pane() -> None:
    for offset in range(0, 600, 7):
        now = 1e9 + offset
        window = Window()
        for second in range(0, 4000, 10):
            window.add(Observation(now - second), LENGTH)
        window.trim(now, LENGTH)
        assert LENGTH * 11 / 12 <= window.count() * 10 <= LENGTH + 10


# -- groups ------------------------------------------------------------------------------------------------------------


def test_the_groups_that_were_not_seen_for_longest_make_room() -> None:
    groups = Groups()
    for number in range(20):
        groups.learn(f"g{number}", Observation(1e9 + number), LENGTH, 5)
        groups.learn("often", Observation(1e9 + number), LENGTH, 5)
        groups.learn(None, Observation(1e9 + number), LENGTH, 5)
        assert len(groups.named) <= 5
    assert set(groups.named) == {"often", "g19", "g18", "g17", "g16"}
    assert groups.rest is not None
    assert groups.rest.window.count() == groups.named["often"].window.count() == 20


def test_a_group_is_forgotten_when_it_was_not_seen_for_long() -> None:
    groups = Groups()
    groups.learn("old", Observation(1e9), LENGTH, 5)
    groups.learn(None, Observation(1e9), LENGTH, 5)
    assert groups.trim(1e9 + FORGET_WINDOWS * LENGTH, LENGTH) == {None, "old"}
    assert [name for name, _ in groups.all()] == [None, "old"]
    assert groups.named["old"].window.count() == 0
    assert groups.trim(1e9 + FORGET_WINDOWS * LENGTH + 1, LENGTH) == set()
    assert list(groups.all()) == []


def test_a_group_is_whole_when_it_was_known_for_a_window() -> None:
    groups = Groups()
    groups.learn("g", Observation(1e9 + 100), LENGTH, 5)
    group = groups.named["g"]
    assert not is_whole(group, 1e9 + 100, LENGTH)
    assert not is_whole(group, 1e9 + 100 + LENGTH * 11 / 12 - 300, LENGTH)
    assert is_whole(group, 1e9 + 100 + LENGTH, LENGTH)
    groups.learn("g", Observation(1e9 + 50), LENGTH, 5)
    assert (group.first, group.last) == (1e9 + 50, 1e9 + 100)


@settings(max_examples=100, deadline=None)
@given(seen=st.lists(st.tuples(st.sampled_from(["a", "b", None]), SEEN), max_size=30))
def test_what_is_remembered_survives_being_written_down(seen: list[tuple[str | None, Observation]]) -> None:
    groups = Groups()
    for name, each in seen:
        groups.learn(name, each, LENGTH, 5)
        if name is not None:
            groups.named[name].episodes["above 1 count"] = inf
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(groups), type=Groups) == groups


def test_a_full_memory_is_no_larger_than_it_may_be() -> None:
    """The most groups, each with as many different values as a sketch holds, in every pane."""
    chance, groups = random.Random(1), Groups()
    for number in range(25):  # of 500
        for pane in range(PANES):
            for _ in range(400):
                seen = Observation(1e9 + pane * LENGTH / PANES, {"duration_ms": chance.lognormvariate(6, 5)}, False,
                                   frozenset({"duration_ms"}))  # fmt: skip
                groups.learn(f"command-{number}", seen, LENGTH, 500)
    assert len(msgspec.msgpack.encode(groups)) * 20 < 8 << 20
