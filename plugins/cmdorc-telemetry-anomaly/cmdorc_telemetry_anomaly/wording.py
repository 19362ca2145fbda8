"""An alert in words, for a person."""

from __future__ import annotations

from cmdorc_telemetry.spec import Event

from .judging import Rule


def message(event: Event, rule: Rule, value: float, sample: int, group: str | None, minutes: float) -> str:
    """Such as ``command_completed Build: mean duration_ms is 12 min, above 10 min (24 events in 60 min)``."""
    whose = f"{event.name} {group}" if group is not None else event.name
    about = {"count": "number of events", "failure_share": "share of failures"}.get(rule.metric.statistic)
    about = about or f"{rule.metric.statistic} of {rule.metric.property}"
    seen, bound = shown(event, rule, value), shown(event, rule, rule.bound)
    return f"{whose}: {about} is {seen}, {rule.kind} {bound} ({sample} events in {minutes:g} min)"


def shown(event: Event, rule: Rule, value: float) -> str:
    """A value with its unit."""
    if rule.metric.statistic == "failure_share":
        return f"{100 * value:.3g} %"
    prop = event.properties.get(rule.metric.property or "")
    if prop is None or prop.type != "duration_ms":
        return f"{value:.15g}" if value == int(value) else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} ms"
