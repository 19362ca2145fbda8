"""Which instruments the events of a spec become: kinds, units, bounds, labels. Pure; nothing is counted here.

    event                 counter
    bool                  counter of the events in which it was true
    number                gauge, the latest value
    duration_ms           histogram, in seconds
    count                 histogram; its sum is the total
    bucket                histogram of the declared edges; no sum, for the values themselves are not recorded
    enum                  label of all of them
    a property that somebody lists: a label, too

What has any other type, or is a list, or is masked, becomes nothing: its values have no bound. What instruments and
labels are called is for those to say who tell of them.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Literal, NamedTuple, TypeVar

from .metrics import metric_of
from .model import Event, TelemetrySpec
from .property import Property, bucket_labels
from .versions import order

Kind = Literal["counter", "histogram", "gauge"]
T = TypeVar("T")

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds for durations, where nobody says else: from a quick check to a long build."""
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LABEL_TYPES = ("string", "version", "hash", "uuid")
_UNIT = re.compile(r"(?:(.+)[._])?(ms|s)")


class Family(NamedTuple):
    """One instrument, as somebody calls it, whatever its labels."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    edges: tuple[float, ...] = ()
    """Upper bounds of a histogram, the infinite one excepted."""

    @property
    def measure(self) -> tuple[Kind, str, tuple[float, ...]]:
        """What numbers must have in common to be added up."""
        return self.kind, self.unit, self.edges


class Reading(NamedTuple):
    """How a property of an event becomes a sample of a family."""

    prop: str
    family: Family
    per: int = 1
    """How many of its unit make one of the family's."""
    ranges: Mapping[str, float] = {}
    """For a property of type bucket: the name of the range → the upper bound that stands for it."""


class Instrument(NamedTuple):
    """What a property of an event becomes, before it has a name."""

    prop: str
    word: str
    """The property's name without its unit: lower case, joined by underscores; dots are kept."""
    kind: Kind
    about: str
    unit: Literal["", "s"] = ""
    per: int = 1
    edges: tuple[float, ...] = ()
    ranges: Mapping[str, float] = {}

    def called(self, name: str, told: str, unit: str = "") -> Reading:
        """This, with a name, what is told of it, and what its unit is called."""
        return Reading(self.prop, Family(name, self.kind, told, unit, self.edges), self.per, self.ranges)


class EventMetrics(NamedTuple):
    """All that events of one kind become, with the names that somebody gives it."""

    total: Family
    readings: tuple[Reading, ...]
    enums: Mapping[str, tuple[str, tuple[str, ...]]]
    """Property → its label, and the values that this can have."""
    free: Mapping[str, str]
    """Property with values that nobody declared → its label."""
    last: Family | None = None
    """When there was such an event; None where that is not told."""


def of_each(specs: Iterable[TelemetrySpec], make: Callable[[TelemetrySpec, Event], T]) -> dict[tuple[str, str], T]:
    """What ``make`` makes of each event, by what bodies call its spec, such as ``cmdorc.core@1``, and by its name.

    Of several versions of a spec, and of an event, the latest says what all of them become: it is made once.
    """
    found: dict[tuple[str, str], T] = {}
    latest: dict[tuple[str, str], T] = {}
    for spec in sorted(specs, key=lambda spec: order(spec.meta.version), reverse=True):
        for name in dict.fromkeys(event.name for event in spec.events):
            event, key = spec.event(name), (spec.meta.name, name)
            assert event is not None
            if key not in latest:
                latest[key] = make(spec, event)
            found[spec.ref, name] = latest[key]
    return found


def instruments(event: Event, seconds: Iterable[float] = SECONDS) -> Iterator[Instrument]:
    """What the properties of ``event`` become. ``seconds``: the upper bounds of durations."""
    for name, prop in _plain(event).items():
        word, per = _measure(name, prop)
        told: Instrument = Instrument(name, word, "gauge", prop.description or f"{name} of {event.name}",
                                      "s" if per else "", per or 1)  # fmt: skip
        match prop.type:
            case "bool":
                yield told._replace(kind="counter")
            case "number":
                yield told
            case "duration_ms" | "count":
                usual = seconds if prop.type == "duration_ms" else _COUNTS
                edges = _within(prop, usual, told.per) | {each / told.per for each in _thresholds(event, name)}
                yield told._replace(kind="histogram", edges=tuple(sorted(edges)))
            case "bucket":
                bounds = tuple(edge / told.per for edge in prop.edges)
                ranges = dict(zip(bucket_labels(prop.edges), (*bounds, inf), strict=True))
                yield told._replace(kind="histogram", edges=bounds, ranges=ranges)
            case _:
                continue


def enums(event: Event) -> dict[str, tuple[str, ...]]:
    """The properties of ``event`` that are labels because their values are declared → these values."""
    return {name: prop.members for name, prop in _plain(event).items() if prop.type == "enum"}


def free(event: Event, listed: Iterable[str]) -> list[str]:
    """The properties among ``listed`` that can be labels though nobody declared their values."""
    wanted = frozenset(listed)
    return [name for name, prop in _plain(event).items() if name in wanted and prop.type in _LABEL_TYPES]


def are_bounds(numbers: Sequence[float]) -> bool:
    """Whether these can be the upper bounds of a histogram: finite, above 0, rising."""
    return bool(numbers) and sorted({each for each in numbers if 0 < each < inf}) == list(numbers)


def word(name: str) -> str:
    """A name in lower case, its parts joined by one underscore; dots are kept."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[^a-z0-9.]+", "_", apart).strip("_.") or "unnamed"


def _plain(event: Event) -> dict[str, Property]:
    return {name: prop for name, prop in event.properties.items() if prop.max_items is None and not event.masks(name)}


def _measure(name: str, prop: Property) -> tuple[str, int]:
    """The name without its unit, and how many of that make a second; 0 where it is no time."""
    whole = word(name)
    found = _UNIT.fullmatch(whole)
    if prop.type == "bool" or (found is None and prop.type != "duration_ms"):
        return whole, 0
    per = 1000 if prop.type == "duration_ms" or (found is not None and found[2] == "ms") else 1
    return (found[1] if found is not None and found[1] else whole), per


def _within(prop: Property, usual: Iterable[float], per: int) -> set[float]:
    """The usual bounds as far as values, as they are declared, can lie on both of their sides."""
    low, high = (prop.min or 0) / per, inf if prop.max is None else prop.max / per
    return {edge for edge in usual if low <= edge < high} or {high if high < inf else low}


def _thresholds(event: Event, name: str) -> Iterator[float]:
    """The thresholds of a property: bounds, so that what lies beyond can be counted."""
    for each in event.anomaly_detection.thresholds if event.anomaly_detection else ():
        metric = metric_of(event, each.metric)
        if metric is not None and metric.property == name:
            yield from (bound for bound in (each.min, each.max) if bound is not None)
