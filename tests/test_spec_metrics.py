"""What the metric of a threshold means, and how an event tells of failures."""

from __future__ import annotations

import pytest

from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.metrics import Metric, Outcomes, metric_of, outcomes_of
from cmdorc_telemetry.spec.model import Event, Property, Semantics

SPEC = load_spec(CORE)


def event(**properties: Property) -> Event:
    return Event(name="e", semantics=Semantics(what="w"), properties=properties)


ODD = event(
    duration_ms=Property(type="duration_ms"),
    amount=Property(type="number", min=-5, max=5),
    count=Property(type="bool"),
    sizes=Property(type="count", max_items=3),
    mail=Property(type="number", min=0, max=1, pii=True),
    plan=Property(type="enum", members=("free", "pro")),
    outcomes=Property(type="enum", members=("ok", "error"), max_items=3),
    hidden=Property(type="enum", members=("ok", "error"), redact=True),
    outcome=Property(type="enum", members=("ok", "error", "failed", "unknown")),
)


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("duration_ms", Metric("mean", "duration_ms")), ("mean(duration_ms)", Metric("mean", "duration_ms")),
        ("p95(amount)", Metric("p95", "amount")), ("failure_share", Metric("failure_share")),
        ("count", None), ("sizes", None), ("mail", None), ("p95(mail)", None), ("plan", None), ("p99(amount)", None),
        ("mean(nothing)", None), ("mean()", None), ("", None),
    ],
)  # fmt: skip
def test_what_a_metric_means(text: str, metric: Metric | None) -> None:
    assert metric_of(ODD, text) == metric


def test_an_event_may_have_properties_that_are_called_like_statistics() -> None:
    named = event(count=Property(type="count"), failure_share=Property(type="number", min=0, max=1))
    assert metric_of(named, "count") == Metric("mean", "count")
    assert metric_of(named, "failure_share") == Metric("mean", "failure_share")
    assert metric_of(event(n=Property(type="bool")), "count") == Metric("count")


def test_how_an_event_tells_of_failures() -> None:
    assert outcomes_of(ODD) == Outcomes("outcome", frozenset({"error", "failed"}), frozenset({"ok"}))
    assert outcomes_of(event(state=Property(type="enum", members=("failed", "cancelled")))) is None
    told = {each.name: outcomes_of(each) for each in SPEC.events}
    assert told.pop("command_completed") == Outcomes("state", frozenset({"failed"}), frozenset({"success"}))
    assert set(told.values()) == {None}
    fired = SPEC.event("trigger_fired")
    assert fired is not None
    assert metric_of(fired, "failure_share") is None
