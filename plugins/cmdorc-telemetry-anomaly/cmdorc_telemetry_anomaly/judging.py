"""Whether a statistic leaves the range that a threshold gives it, and when that begins and ends. Pure.

An episode begins where the bound is crossed with enough events to say so, and is told once. It ends where the value is
back inside by a margin and stays there, so that one that trembles around the bound is one episode; or where there is
nothing to judge any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, inf
from typing import Literal, NamedTuple

from cmdorc_telemetry.spec import Event
from cmdorc_telemetry.spec.metrics import Metric, metric_of

from .windows import Statistic, Window


class Rule(NamedTuple):
    """One bound of one threshold."""

    text: str
    """The metric, as it is written."""
    metric: Metric
    kind: Literal["above", "below"]
    bound: float
    minimum: int
    """How many events it takes to begin an episode."""
    end: float | None = None
    """The last value that there can be on the inner side of the bound; None where there is none."""

    @property
    def key(self) -> str:
        """What its episodes are remembered by: another bound has its own."""
        return f"{self.kind} {self.bound:.15g} {self.text}"

    @property
    def awaits(self) -> bool:
        """Whether it judges that events stay away: then there is no least number of them."""
        return self.metric.statistic == "count" and self.kind == "below"

    def statistic(self, window: Window) -> Statistic:
        """The value that it judges."""
        match self.metric.statistic, self.metric.property:
            case "failure_share", _:
                return window.failure_share()
            case "mean", str(name):
                return window.mean(name)
            case "p95", str(name):
                return window.p95(name)
        count = window.count()
        return Statistic(float(count), count)

    def outside(self, value: float) -> bool:
        """Whether a value is beyond the bound."""
        return value > self.bound if self.kind == "above" else value < self.bound

    def inside(self, value: float, margin: float) -> bool:
        """Whether a value is back, by ``margin``: a share of the bound, or of what is left behind it, if that is less.

        Events are counted in wholes.
        """
        spare = min(abs(self.bound), inf if self.end is None else abs(self.bound - self.end)) * margin
        if self.metric.statistic == "count":
            spare = floor(spare)
        return value <= self.bound - spare if self.kind == "above" else value >= self.bound + spare


class Verdict(NamedTuple):
    """What becomes of an episode."""

    back: float | None = None
    """Since when the value of an open one is back inside; never yet: infinity. None where none is open."""
    begins: bool = False


def judged(
    rule: Rule, seen: Statistic, back: float | None, *, now: float, margin: float, rest: float, whole: bool
) -> Verdict:  # fmt: skip
    """Whether there is an episode now, and whether it begins. ``back`` is what was found the last time.

    It is over after it was inside for ``rest`` seconds: with few events, one more or less can move a value far.
    ``whole``: the group was watched for as long as a window is.
    """
    if seen.value is None:
        return Verdict()
    if back is not None:
        if not rule.inside(seen.value, margin):
            return Verdict(inf)
        back = min(back, now)
        return Verdict(back) if now < back + rest else Verdict()
    enough = whole if rule.awaits else seen.sample >= rule.minimum
    begins = enough and rule.outside(seen.value)
    return Verdict(inf, True) if begins else Verdict()


def rules_of(event: Event) -> Iterator[Rule]:
    """The bounds of an event's thresholds; what means nothing for the event is left out."""
    watch = event.anomaly_detection
    if watch is None or not watch.enabled:
        return
    for each in watch.thresholds:
        metric = metric_of(event, each.metric)
        if metric is None:
            continue
        lowest, highest = _ends(event, metric)
        if each.max is not None:
            yield Rule(each.metric, metric, "above", each.max, watch.minimum_sample, lowest)
        if each.min is not None:
            yield Rule(each.metric, metric, "below", each.min, watch.minimum_sample, highest)


def _ends(event: Event, metric: Metric) -> tuple[float | None, float | None]:
    """Between which values a statistic is; None where there is no end."""
    if metric.property is None:
        return 0, 1 if metric.statistic == "failure_share" else None
    prop = event.properties[metric.property]
    return 0 if prop.type != "number" and prop.min is None else prop.min, prop.max
