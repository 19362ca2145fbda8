"""What the metric of a threshold means: a statistic of an event over a window, for whoever judges or charts it.

    PROPERTY, mean(PROPERTY)     the mean of a property that is a number
    p95(PROPERTY)                the 95th percentile of its values: 95 of 100 are below
    failure_share                failed / (succeeded + failed), of events that an enum tells this of
    count                        how many events there were

A property that is called like one of the last two is meant itself.
"""

import re
from typing import Literal, NamedTuple

from .model import Event

Statistic = Literal["count", "failure_share", "mean", "p95"]
NUMBERS = ("count", "duration_ms", "number")
"""The types of what is a number."""

_FAILED, _SUCCEEDED = frozenset({"failed", "failure", "error"}), frozenset({"success", "succeeded", "ok"})
_CALL = re.compile(r"(?P<statistic>mean|p95)\((?P<property>.+)\)")


class Outcomes(NamedTuple):
    """The property that tells how something ended, and by which of its values."""

    property: str
    failed: frozenset[str]
    succeeded: frozenset[str]


class Metric(NamedTuple):
    """What is judged."""

    statistic: Statistic
    property: str | None = None
    """Whose values are judged; None where it is the events that count."""


def outcomes_of(event: Event) -> Outcomes | None:
    """How ``event`` tells of failures; None where it does not. Some ends, such as ``cancelled``, are neither."""
    for name, prop in event.properties.items():
        members = frozenset(prop.members)
        if prop.max_items is None and members & _FAILED and members & _SUCCEEDED and not event.masks(name):
            return Outcomes(name, members & _FAILED, members & _SUCCEEDED)
    return None


def metric_of(event: Event, text: str) -> Metric | None:
    """What ``text`` means for ``event``; None where it means nothing, or what is no number."""
    name, statistic = text, "mean"
    if text not in event.properties:
        if text == "count":
            return Metric("count")
        if text == "failure_share":
            return Metric("failure_share") if outcomes_of(event) else None
        if call := _CALL.fullmatch(text):
            name, statistic = call["property"], call["statistic"]
    prop = event.properties.get(name)
    if prop is None or prop.type not in NUMBERS or prop.max_items is not None or event.masks(name):
        return None
    return Metric("p95" if statistic == "p95" else "mean", name)
