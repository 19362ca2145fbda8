"""The detector on streams of events: groups, time that passes, late events, wrong clocks, restarts; a reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec
from cmdorc_telemetry.spec.model import AnomalyDetection, Config, Event, Meta, Property, Semantics, Threshold
from cmdorc_telemetry.types import Anomaly
from cmdorc_telemetry_anomaly.detector import ThresholdDetector

START = datetime(2026, 11, 22, tzinfo=timezone.utc).timestamp()
MINUTE, HOUR = 60, 3600
REF = "cmdorc.core@1"
Fed = tuple[float, str, int, str]
"""When, which command, how long in ms, how it ended."""


def spec(*thresholds: Threshold, minimum: int = 5, actions: Any = ("alert",), on: bool = True) -> TelemetrySpec:
    properties = {
        "duration_ms": Property(type="duration_ms"),
        "state": Property(type="enum", members=("success", "failed", "cancelled")),
        "command_name": Property(type="string", pattern="(?s:.*)", max_length=200, audience="private"),
    }
    watch = AnomalyDetection(thresholds=thresholds, minimum_sample=minimum, actions=actions)
    event = Event(name="command_completed", semantics=Semantics(what="w"), properties=properties,
                  anomaly_detection=watch)  # fmt: skip
    return TelemetrySpec(meta=Meta(name="cmdorc.core"), events=(event,), config=Config(anomaly_detection=on))


SLOW = Threshold(metric="duration_ms", max=1000)
FAILING = Threshold(metric="failure_share", max=0.5)


def detector(*thresholds: Threshold, minimum: int = 5, **keys: Any) -> ThresholdDetector:
    made = ThresholdDetector(ThresholdDetector.Settings(**keys), wall=lambda: START + 1000 * HOUR)
    made.watch([spec(*thresholds, minimum=minimum)])
    return made


def body(at: float, command: str | None = "Build", duration: Any = 100, state: str = "success") -> dict[str, Any]:
    stamp = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"spec": REF, "timestamp": stamp, "duration_ms": duration, "state": state}
    return fields if command is None else {**fields, "command_name": command}


def feed(
    watching: ThresholdDetector, payloads: Iterable[Mapping[str, Any]], event: str = "command_completed"
) -> list[Anomaly]:
    """As the core does it: judge, learn, and judge again when no more wait."""
    found: list[Anomaly] = []
    for payload in payloads:
        found += watching.score_one(event, payload)
        watching.learn_one(event, payload)
    found += watching.check(START)
    return found


def told(found: Iterable[Anomaly]) -> list[tuple[str, str, str | None]]:
    return [(each.metric, each.kind, each.group) for each in found]


def test_a_command_that_became_slow_is_told_once() -> None:
    watching = detector(SLOW)
    usual = [body(START + minute * MINUTE) for minute in range(60)]
    slow = [body(START + HOUR + minute * MINUTE, duration=3000) for minute in range(60)]
    assert feed(watching, usual) == []
    (found,) = feed(watching, slow)
    assert 1000 < found.value < 3000
    assert found == Anomaly(
        detector="anomaly", spec=REF, event="command_completed", metric="duration_ms", kind="above",
        value=found.value, threshold=1000, sample_count=found.sample_count, group="Build", group_by="command_name",
        actions=("alert",),
        message=found.message,
    )  # fmt: skip
    assert found.message.startswith("command_completed Build: mean of duration_ms is 1.")
    assert feed(watching, [body(START + 2 * HOUR + minute * MINUTE) for minute in range(120)]) == []
    again = [body(START + 5 * HOUR + minute * MINUTE, duration=3000) for minute in range(60)]
    assert told(feed(watching, again)) == [("duration_ms", "above", "Build")]


def test_the_last_event_of_a_burst_is_judged_without_another() -> None:
    """All within a minute, and then nothing for a day."""
    assert told(feed(detector(SLOW), [body(START + second, duration=3000) for second in range(5)])) == [
        ("duration_ms", "above", "Build")
    ]
    assert feed(detector(SLOW), [body(START + second, duration=3000) for second in range(4)]) == []


def test_what_waited_for_long_is_judged_in_its_own_time() -> None:
    """A week of events in one go: the slow hour in the middle is found although it was over long ago."""
    week = [body(START + minute * MINUTE, duration=3000 if 1000 <= minute < 1090 else 100) for minute in range(10_000)]
    assert told(feed(detector(SLOW), week)) == [("duration_ms", "above", "Build")]


def test_commands_are_judged_apart() -> None:
    mixed = [body(START + second * 10, f"c{second % 10}", 3000 if second % 10 == 3 else 10) for second in range(200)]
    assert told(feed(detector(SLOW), mixed)) == [("duration_ms", "above", "c3")]
    assert feed(detector(SLOW, group_by={"command_completed": ""}), mixed) == []
    by_state = detector(SLOW, group_by={"command_completed": "state"})
    (found,) = feed(by_state, [body(START + at, "x", 3000, "failed") for at in range(6)])
    assert (found.group, found.group_by) == ("failed", "state")


def test_events_of_no_command_are_a_group_of_their_own() -> None:
    events = [body(START + second, None, 3000) for second in range(9)]
    (found,) = feed(detector(SLOW), events)
    assert found.group is None
    assert found.message.startswith("command_completed: mean")


def test_the_share_of_failures() -> None:
    states = ["failed", "success", "cancelled", "failed", "cancelled", "failed", "success"]
    watching = detector(FAILING)
    assert feed(watching, [body(START + at, state=state) for at, state in enumerate(states[:6])]) == []
    (found,) = feed(watching, [body(START + 10, state=states[6])])
    assert (found.value, found.sample_count) == (0.6, 5)
    assert found.message == "command_completed Build: share of failures is 60 %, above 50 % (5 events in 60 min)"


def test_what_says_nothing_of_its_end_neither_failed_nor_succeeded() -> None:
    """As another version of the event may have it, or none."""
    watching = detector(FAILING)
    odd: list[Any] = [None, True, ["failed"], 3, "unheard-of"]
    assert feed(watching, [body(START + at, state=state) for at, state in enumerate(odd * 3)]) == []
    (found,) = feed(watching, [body(START + 20 + at, state="failed") for at in range(5)])
    assert (found.value, found.sample_count) == (1, 5)


def test_a_storm_and_a_silence() -> None:
    watching = detector(Threshold(metric="count", max=100, min=10))
    quiet = [body(START + minute * 3 * MINUTE) for minute in range(60)]  # 20 an hour, 3 hours
    assert feed(watching, quiet) == []
    end = START + 3 * HOUR
    assert told(feed(watching, [body(end + second * 5) for second in range(200)])) == [("count", "above", "Build")]
    later = [body(end + 2 * HOUR + minute * MINUTE, "Other") for minute in range(30)]
    assert told(feed(watching, later)) == [("count", "below", "Build")], "that others still come shows that it does not"


def test_what_stays_away_is_missed_as_soon_as_the_window_is_whole() -> None:
    """Nothing left the window by then: that time has passed is enough."""
    watching = detector(Threshold(metric="count", min=3))
    assert feed(watching, [body(START), body(START + 30 * MINUTE, "Other"), body(START + 54 * MINUTE, "Other")]) == []
    assert told(feed(watching, [body(START + 55 * MINUTE, "Other")])) == [("count", "below", "Build")]


def test_other_events_let_time_pass() -> None:
    watching = detector(Threshold(metric="count", min=10))
    feed(watching, [body(START + minute * MINUTE) for minute in range(70)])
    found = feed(watching, [{"timestamp": body(START + 5 * HOUR)["timestamp"]}], "trigger_fired")
    assert told(found) == [("count", "below", "Build")]


def test_an_event_that_comes_late_counts_in_its_own_time() -> None:
    watching = detector(SLOW)
    now = START + 10 * HOUR
    feed(watching, [body(now, duration=10)])
    assert feed(watching, [body(now - 2 * HOUR, duration=3000)] * 20) == [], "that window is over"
    assert told(feed(watching, [body(now - HOUR / 2, duration=3000)] * 20)) == [("duration_ms", "above", "Build")]


def test_values_that_are_no_numbers_are_passed_over() -> None:
    watching = detector(SLOW)
    odd: list[Any] = [None, True, "3000", [3000]]
    assert feed(watching, [body(START + at, duration=value) for at, value in enumerate(odd * 5)]) == []
    assert feed(watching, [{"timestamp": "soon"}, {}, {"timestamp": body(START)["timestamp"], "spec": 3}]) == []
    (found,) = feed(watching, [body(START + 20 + at, duration=3000) for at in range(5)])
    assert found.sample_count == 5


def test_a_clock_that_ran_ahead_is_no_end_of_everything() -> None:
    future = START + 2000 * HOUR
    walls = [future]
    watching = ThresholdDetector(wall=lambda: walls[0])
    watching.watch([spec(SLOW)])
    feed(watching, [body(future)])
    walls[0] = START + HOUR
    found = feed(watching, [body(START + at, duration=3000) for at in range(5)])
    assert told(found) == [("duration_ms", "above", "Build")]
    assert feed(watching, [body(future + at, duration=3000) for at in range(50)]) == [], "that cannot be"


def test_an_event_from_the_future_leaves_what_was_learnt_alone() -> None:
    watching = ThresholdDetector(wall=lambda: START + HOUR)
    watching.watch([spec(SLOW)])
    slow = [body(START + at, duration=3000) for at in range(5)]
    assert feed(watching, [*slow[:4], body(START + 2000 * HOUR)]) == []
    (found,) = feed(watching, slow[4:])
    assert found.sample_count == 5


def test_a_late_event_makes_nobody_known_for_longer() -> None:
    watching = detector(Threshold(metric="count", min=10))
    assert feed(watching, [body(START + 10 * HOUR), body(START), body(START + 10 * HOUR + 1)]) == []


def test_a_restart_at_any_moment_changes_nothing() -> None:
    events = [body(START + minute * MINUTE, duration=3000 if 100 <= minute < 160 else 100) for minute in range(400)]
    whole = feed(detector(SLOW, FAILING), events)
    assert told(whole) == [("duration_ms", "above", "Build")]
    parts: list[Anomaly] = []
    state = b""
    for start in range(0, len(events), 7):
        watching = detector(SLOW, FAILING)
        if state:
            watching.restore(state)
        for payload in events[start : start + 7]:
            parts += watching.score_one("command_completed", payload)
            watching.learn_one("command_completed", payload)
        state = watching.save()
    assert told(parts) == told(whole)


def test_state_of_other_windows_is_left_and_what_is_none_is_refused() -> None:
    watching = detector(SLOW)
    feed(watching, [body(START + at, duration=3000) for at in range(4)])
    longer = detector(SLOW, window_minutes=120)
    longer.restore(watching.save())
    assert feed(longer, [body(START + 4, duration=3000)]) == []
    same = detector(SLOW)
    same.restore(watching.save())
    assert len(feed(same, [body(START + 4, duration=3000)])) == 1
    with pytest.raises(ValueError, match="Expected"):
        detector(SLOW).restore(b"\xa3abc")
    with pytest.raises(ValueError, match="it is of version 9"):
        detector(SLOW).restore(b"\x94\x09\xcb\x40\xac\x20\x00\x00\x00\x00\x00\x00\x80")


def test_a_threshold_that_was_changed_begins_anew() -> None:
    watching = detector(SLOW)
    feed(watching, [body(START + at, duration=3000) for at in range(5)])
    changed = detector(Threshold(metric="duration_ms", max=2000))
    changed.restore(watching.save())
    assert told(changed.check(START)) == [("duration_ms", "above", "Build")]
    gone = detector(FAILING)
    gone.restore(changed.save())
    assert list(gone.check(START)) == []


def test_groups_of_another_property_are_not_waited_for() -> None:
    """Who groups by something else now has no alert that the old groups have no events any more."""
    least = Threshold(metric="count", min=10)
    watching = detector(least)
    feed(watching, [body(START + minute * MINUTE) for minute in range(130)])
    same, other = detector(least), detector(least, group_by={"command_completed": "state"})
    for each in (same, other):
        each.restore(watching.save())
    later = [body(START + 300 * MINUTE + at, "Other") for at in range(20)]
    assert told(feed(same, later)) == [("count", "below", "Build")]
    assert feed(other, later) == []


def test_what_only_another_process_watches_is_kept_for_it_and_forgotten_in_time() -> None:
    watching, stranger = detector(SLOW), ThresholdDetector(wall=lambda: START + 1000 * HOUR)
    feed(watching, [body(START + at, duration=3000) for at in range(4)])
    stranger.restore(watching.save())
    feed(stranger, [body(START + 5)])
    again = detector(SLOW)
    again.restore(stranger.save())
    assert len(feed(again, [body(START + 6, duration=3000)])) == 1
    stranger.restore(watching.save())
    feed(stranger, [body(START + 12 * HOUR)])
    assert b"Build" not in stranger.save()


def test_what_is_kept_fits_and_what_was_seen_last_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry_anomaly.detector.STATE_BYTES", 4000)
    watching = detector(SLOW, groups=500)
    feed(watching, [body(START + at, f"c{at}") for at in range(400)])
    state = watching.save()
    assert len(state) <= 4000
    assert b"c399" in state
    assert watching.save() == state
    feed(watching, [body(START + 400 + at, "c399", 9000) for at in range(9)])
    monkeypatch.setattr("cmdorc_telemetry_anomaly.detector.STATE_BYTES", 10)
    assert len(watching.save()) > 10, "less than nothing cannot be kept; the stages say so"


def test_a_clock_that_ran_ahead_by_less_than_an_hour_blinds_a_short_window_no_longer_than_that() -> None:
    walls = [START + 30 * MINUTE]
    watching = ThresholdDetector(ThresholdDetector.Settings(window_minutes=5), wall=lambda: walls[0])
    watching.watch([spec(SLOW)])
    feed(watching, [body(START + 30 * MINUTE)])
    walls[0] = START + 10
    assert told(feed(watching, [body(START + at, duration=3000) for at in range(5)])) == [
        ("duration_ms", "above", "Build")
    ]


def test_a_window_that_empties_ends_its_episode() -> None:
    """Nothing is said when it is over; when it begins again, that is told."""
    watching = detector(SLOW)
    slow = [body(START + at, duration=3000) for at in range(5)]
    assert len(feed(watching, slow)) == 1
    assert feed(watching, [body(START + 2 * HOUR, "Other")]) == []
    assert len(feed(watching, [body(START + 3 * HOUR + at, duration=3000) for at in range(5)])) == 1


def test_memory_is_bounded_however_many_commands_there_are() -> None:
    watching = detector(SLOW, groups=20)
    feed(watching, [body(START + at, f"c{at}-{'x' * 500}") for at in range(3000)])
    assert len(watching.save()) < 20 * 400


def test_what_is_switched_off_is_not_watched() -> None:
    watching = ThresholdDetector(wall=lambda: START)
    watching.watch([spec(SLOW, on=False)])
    assert feed(watching, [body(START + at, duration=3000) for at in range(50)]) == []
    assert ThresholdDetector().settings.window_minutes == 60


def test_what_is_watched_of_the_core_spec() -> None:
    watching = ThresholdDetector(wall=lambda: START + HOUR)
    watching.watch([load_spec(CORE)])
    found = feed(watching, [body(START + at, duration=700_000) for at in range(20)])
    assert [(each.metric, each.actions, each.sample_count) for each in found] == [("duration_ms", ("log",), 20)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"window_minutes": 0.5}, "window_minutes: found 0.5; expected 1 to 44640"),
        ({"groups": 0}, "groups: found 0; expected 1 to 500"),
        ({"margin": 1}, "margin: found 1; expected 0 or more, and less than 1"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ThresholdDetector.Settings(**keys)


def test_groups_by_what_is_no_property() -> None:
    with pytest.raises(ConfigError) as caught:
        detector(SLOW, group_by={"command_completed": "comand_name"})
    assert str(caught.value) == (
        "telemetry.settings.anomaly.group_by.command_completed: found 'comand_name'; expected a property of the "
        "event, or nothing. Did you mean 'command_name'?"
    )


# -- a reference -------------------------------------------------------------------------------------------------------


def reference(events: list[Fed], now: float, metric: str) -> dict[str, tuple[float, int]]:
    """Command → its statistic at ``now`` and how many events that is made of, computed from all events at once."""
    width = HOUR / 12
    begin = (int(now / width) - 11) * width
    found: dict[str, tuple[float, int]] = {}
    for name in {each[1] for each in events}:
        kept = [each for each in events if each[1] == name and each[0] >= begin]
        values = sorted(each[2] for each in kept)
        if metric == "failure_share":
            values = [each[3] == "failed" for each in kept if each[3] != "cancelled"]
        if metric == "count":
            found[name] = len(kept), len(kept)
        elif values and metric == "p95(duration_ms)":
            before, between = divmod(0.95 * (len(values) - 1), 1)
            low, high = (values[min(int(before) + more, len(values) - 1)] for more in (0, 1))
            found[name] = low + between * (high - low), len(values)
        elif values:
            found[name] = sum(values) / len(values), len(values)
    return found


METRICS = {"count": 6.0, "failure_share": 0.4, "duration_ms": 3000.0, "p95(duration_ms)": 3140.0}
"""None of them is within 2 % of what there may be between two durations."""


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 900), st.sampled_from("ab"), st.sampled_from([10, 100, 5000, 90_000]),
                            st.sampled_from(["success", "failed", "cancelled"])), min_size=1, max_size=80),
    metric=st.sampled_from(sorted(METRICS)),
)  # fmt: skip
def test_episodes_are_those_of_a_reference(gaps: list[Fed], metric: str) -> None:
    """Judged after each event, without a margin: exactly those are in an episode that a naive computation finds."""
    watching = detector(Threshold(metric=metric, max=METRICS[metric]), margin=0)
    at, fed, expected = START, list[Fed](), dict[str, float]()
    for gap, name, duration, state in gaps:
        at += gap
        payload = body(at, name, duration, state)
        begun = [str(each.group) for each in watching.score_one("command_completed", payload)]
        if gap >= MINUTE or not fed:  # as the event comes, before it is learnt
            now = episodes(reference(fed, at, metric), expected, metric, at)
            assert sorted(begun) == sorted(now.keys() - expected.keys())
            expected = now
        else:
            assert begun == []
        watching.learn_one("command_completed", payload)
        fed.append((at, name, duration, state))
        begun = [str(each.group) for each in watching.check(at)]
        now = episodes(reference(fed, at, metric), expected, metric, at)
        assert sorted(begun) == sorted(now.keys() - expected.keys())
        expected = now


def episodes(
    statistics: dict[str, tuple[float, int]], before: dict[str, float], metric: str, now: float
) -> dict[str, float]:  # fmt: skip
    """Command → since when it is back inside. Too few events begin no episode, and end none; nor does a moment."""
    found = {}
    for name, (value, sample) in statistics.items():
        if value > METRICS[metric]:
            if name in before or sample >= 5:
                found[name] = inf
        elif name in before:
            found[name] = min(before[name], now)
    return {name: since for name, since in found.items() if now < since + HOUR / 4}


class Tireless(ThresholdDetector):
    """Judges every group each time, also those that are as they were."""

    def _look(self) -> list[Anomaly]:
        self._quiet.clear()
        return super()._look()


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 2000), st.sampled_from("abc"), st.sampled_from([10, 5000]),
                            st.sampled_from(["success", "failed"]), st.booleans()), min_size=1, max_size=80),
    metric=st.sampled_from(sorted(METRICS)), least=st.booleans(),
)  # fmt: skip
def test_who_is_as_it_was_need_not_be_judged_again(
    gaps: list[tuple[float, str, int, str, bool]], metric: str, *, least: bool
) -> None:
    threshold = Threshold(metric=metric, **{"min" if least else "max": METRICS[metric]})
    lazy, tireless = detector(threshold, minimum=2), Tireless(wall=lambda: START + 1000 * HOUR)
    tireless.watch([spec(threshold, minimum=2)])
    at = START
    for gap, name, duration, state, restart in gaps:
        at += gap
        payload = body(at, name, duration, state)
        assert feed(lazy, [payload]) == feed(tireless, [payload])
        if restart:
            lazy.restore(lazy.save())
            tireless.restore(tireless.save())
    assert lazy._state == tireless._state
