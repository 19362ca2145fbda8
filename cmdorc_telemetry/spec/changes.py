"""What became of a spec from one version to another: what was added, removed, narrowed, widened, re-meant. Pure.

Whether a change needs new consent is asked of the function that consent itself asks (``compare.py``), whether stored
events still fit of ``stored.py``. What has the say on an event is its latest version, as it has for consent and for
whoever reads what is stored: a body names its spec and its event, and no version of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from . import compare
from .compare import ASKS, Change
from .model import Event, Sampling, TelemetrySpec
from .property import LEVELS, Part, Property
from .stored import broken
from .versions import Step, same

Kind = Change | Literal["reworded"]
"""``reworded``: it says the same in other words."""
_MOST = LEVELS[-1]
"""Who agrees to anything is asked for what is shared at that level, or below."""


class Entry(NamedTuple):
    """One change."""

    change: Kind
    at: str
    """The path of what changed, such as ``events.paid.properties.amount``."""
    told: str
    """What it was and what it is, in words."""
    asks: bool = False
    """Whether nobody who agreed to the old version has agreed to it."""
    breaks: str = ""
    """Why what is stored under the old version does not fit the new one; empty where all of it does."""

    @property
    def step(self) -> Step:
        """The step of the version that it takes, at least."""
        return "major" if self.breaks else "patch" if self.change == "reworded" else "minor"


def changes(old: TelemetrySpec, new: TelemetrySpec) -> list[Entry]:
    """Everything that two versions of one spec say otherwise, in the order of the new one."""
    found: dict[tuple[Kind, str, str], Entry] = {}
    for entry in _changes(old, new):  # what a group or the context says, all of its events say
        first = found.setdefault((entry.change, entry.at, entry.told), entry)
        if first is not entry:
            found[entry.change, entry.at, entry.told] = first._replace(
                asks=first.asks or entry.asks, breaks=first.breaks or entry.breaks
            )
    return list(found.values())


def step(found: list[Entry]) -> Step | None:
    """The largest step that some changes take; None where there are none."""
    steps = {entry.step for entry in found}
    order: tuple[Step, ...] = ("major", "minor", "patch")
    return next((each for each in order if each in steps), None)


def _changes(old: TelemetrySpec, new: TelemetrySpec) -> Iterator[Entry]:
    yield from _words("meta", old.meta, new.meta, leave=("name", "version"))
    asked = _asked(old, new)
    for name in dict.fromkeys(event.name for event in (*new.events, *old.events)):
        found = list(_event_changes(name, old, new))
        if name in asked and not any(entry.asks for entry in found):  # an earlier version of it asks
            found[0] = found[0]._replace(asks=True)
        yield from found
    for part in ("operations", "workflows"):
        yield from _named(part, {each.name: each for each in getattr(old, part)},
                          {each.name: each for each in getattr(new, part)})  # fmt: skip
    yield from _idle_groups(old, new)
    yield from _idle_context(old, new)
    for key in ("anomaly_detection", "check_interval_ms", "providers"):
        yield from _other(f"config.{key}", getattr(old.config, key), getattr(new.config, key))
    if old.waivers != new.waivers:
        yield Entry("reworded", "waivers", "waivers")


def _asked(old: TelemetrySpec, new: TelemetrySpec) -> set[str]:
    """The events of ``new`` that have a field which nobody agreed to who agreed to ``old``."""
    before, after = (spec.declared(lambda prop: prop.shared_at(_MOST)) for spec in (old, new))
    fields = {name for name, text in after.items() if compare.compare_declarations(before.get(name), text) in ASKS}
    return {name.partition("/")[0].partition("@")[0] for name in fields}


# -- events ------------------------------------------------------------------------------------------------------------


def _event_changes(name: str, old: TelemetrySpec, new: TelemetrySpec) -> Iterator[Entry]:
    """What became of an event of that name, in all of its versions."""
    before, after = old.event(name), new.event(name)
    if before is None:
        assert after is not None
        yield Entry("added", _place(new, after), _version(after), asks=after.shared_at(_MOST))
        return
    if after is None:
        yield Entry("removed", f"events.{name}", _version(before), breaks="stored events are of it")
        return
    yield from _Pair(old, before, new, after).entries()
    majors = {event.major: event for event in new.events if event.name == name}
    for event in (each for each in old.events if each.name == name):
        other = majors.pop(event.major, None)
        if other is None:
            yield Entry("removed", f"events.{name}", _version(event), breaks="stored events are of it")
        elif (event, other) != (before, after):
            for entry in _Pair(old, event, new, other).entries():
                yield entry._replace(asks=False)  # what consent asks of an earlier version is told of all of them
    for event in majors.values():
        yield Entry("added", _place(new, event), _version(event))


def _version(event: Event) -> str:
    return f"version {event.version}"


def _place(spec: TelemetrySpec, event: Event) -> str:
    """The path of an event: by its number where its name alone would not tell."""
    if sum(each.name == event.name for each in spec.events) == 1:
        return f"events.{event.name}"
    return f"events[{spec.events.index(event)}]"


class _Pair:
    """An event in two versions of its spec."""

    def __init__(self, old_spec: TelemetrySpec, old: Event, new_spec: TelemetrySpec, new: Event) -> None:
        self.old_spec, self.old, self.new_spec, self.new = old_spec, old, new_spec, new
        self.at = _place(new_spec, new)
        self._asked = any(prop.shared_at(_MOST) and new.properties[name].shared_at(_MOST)
                          for name, prop in old.properties.items() if name in new.properties)  # fmt: skip
        """Whether there is a field that somebody has agreed to, and for which they read what the event says."""

    def entries(self) -> Iterator[Entry]:
        """Everything that became of it."""
        old, new, at = self.old, self.new, self.at
        if old.semantics.why != new.semantics.why:
            yield Entry("re-meant", f"{at}.semantics.why", _told("why", old.semantics.why, new.semantics.why),
                        asks=self._asked)  # fmt: skip
        for key in ("what", "who"):
            yield from _other(f"{at}.semantics.{key}", getattr(old.semantics, key), getattr(new.semantics, key))
        yield from _other(f"{at}.privacy", old.privacy, new.privacy)
        yield from self._retention()
        yield from self._sampling()
        yield from _other(f"{at}.anomaly_detection", old.anomaly_detection, new.anomaly_detection)
        yield from _other(f"{at}.rank", old.rank, new.rank)
        yield from _ends(at, old, new)
        yield from _words(at, old, new, only=("tags", "deprecated", "replaced_by", "groups"))
        if not same(old.version, new.version):
            yield Entry("re-meant", f"{at}.version", _told("version", old.version, new.version))
        for name in dict.fromkeys((*new.properties, *old.properties)):
            yield from self._property(name)

    def _retention(self) -> Iterator[Entry]:
        before, after = self.old_spec.retention_days(self.old), self.new_spec.retention_days(self.new)
        own = self.old.retention is not None or self.new.retention is not None
        at = f"{self.at}.retention" if own else "config.default_retention_days"
        if before != after:
            change: Change = "narrowed" if after < before else "widened"
            asks = self._asked and change in ASKS
            yield Entry(change, at, _told("days", before, after), asks=asks)
        policies = [each.retention.policy if each.retention else "delete" for each in (self.old, self.new)]
        if policies[0] != policies[1]:
            yield Entry("widened" if policies[1] == "archive" else "narrowed", at, _told("policy", *policies))

    def _sampling(self) -> Iterator[Entry]:
        own = self.old.sampling is not None or self.new.sampling is not None
        at = f"{self.at}.sampling" if own else "config.default_sampling_rate"
        before, after = (spec.sampling_rate(event) for spec, event in
                         ((self.old_spec, self.old), (self.new_spec, self.new)))  # fmt: skip
        if before != after:
            yield Entry("narrowed" if after < before else "widened", at, _told("rate", before, after))
        old, new = (event.sampling or Sampling(rate=1) for event in (self.old, self.new))
        yield from _conditions(at, "conditions", old.conditions, new.conditions, more_is="narrowed")
        yield from _conditions(at, "always", old.always, new.always, more_is="widened")
        yield from _other(f"{at}.by", old.by, new.by)

    def _property(self, name: str) -> Iterator[Entry]:
        before, after = self.old.properties.get(name), self.new.properties.get(name)
        at = self._place_of(name)
        breaks = broken(self.old, self.new, name)
        if before is None:
            assert after is not None
            yield Entry("added", at, after.type, asks=after.shared_at(_MOST), breaks=breaks)
            return
        if after is None:
            yield Entry("removed", at, before.type, breaks=breaks)
            return
        found = [each for each in compare.differences(self.old_spec.declaration(self.old, name),
                                                      self.new_spec.declaration(self.new, name))
                 if each.name not in ("why", "retention_days")]  # fmt: skip
        change = compare.worst(found)
        if change is not None:
            asks = after.shared_at(_MOST) and (change in ASKS or not before.shared_at(_MOST))
            told = "; ".join(_told(each.name, each.old, each.new) for each in found)
            yield Entry(change, at, told, asks=asks, breaks=breaks)
        yield from _ends(at, before, after)
        yield from _words(at, before, after, only=("description", "deprecated", "replaced_by"))

    def _place_of(self, name: str) -> str:
        """Where a property is declared: with its event, in a group that the event has and had, or in the context."""
        short = name.removeprefix("context.")
        if short != name and (short in self.new_spec.context or short in self.old_spec.context):
            return f"context.{short}"
        for group in self.new.groups:
            members = {*self.new_spec.groups[group], *self.old_spec.groups.get(group, ())}
            if group in self.old.groups and name in members:
                return f"groups.{group}.{name}"
        return f"{self.at}.properties.{name}"


# -- the rest of a spec ------------------------------------------------------------------------------------------------


def _idle_groups(old: TelemetrySpec, new: TelemetrySpec) -> Iterator[Entry]:
    """Groups that no event has: what became of others is told with their events."""
    used = {group for event in (*old.events, *new.events) for group in event.groups}
    yield from _named("groups", {name: group for name, group in old.groups.items() if name not in used},
                      {name: group for name, group in new.groups.items() if name not in used})  # fmt: skip


def _idle_context(old: TelemetrySpec, new: TelemetrySpec) -> Iterator[Entry]:
    """The context of a spec that has no events in one of the two versions."""
    if not (old.events and new.events):
        yield from _named("context", old.context, new.context)


def _named(at: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Entry]:
    for name in dict.fromkeys((*new, *old)):
        if name not in old:
            yield Entry("added", f"{at}.{name}", "")
        elif name not in new:
            yield Entry("removed", f"{at}.{name}", "")
        elif old[name] != new[name]:
            yield Entry("re-meant", f"{at}.{name}", "")


def _other(at: str, old: Any, new: Any) -> Iterator[Entry]:
    """A value that is another one, of which there is neither more nor less."""
    if old == new:
        return
    nothing = (None, "", ())
    change: Kind = "added" if old in nothing else "removed" if new in nothing else "re-meant"
    scalars = isinstance(old, str | int | float) and isinstance(new, str | int | float)
    yield Entry(change, at, _told(at.rpartition(".")[2], old, new) if scalars else "")


def _conditions(at: str, key: str, old: tuple[str, ...], new: tuple[str, ...], *, more_is: Change) -> Iterator[Entry]:
    if set(old) == set(new):
        return
    less_is: Change = "widened" if more_is == "narrowed" else "narrowed"
    change = more_is if set(old) < set(new) else less_is if set(new) < set(old) else "re-meant"
    yield Entry(change, f"{at}.{key}", _told(key, old, new))


def _ends(at: str, old: Event | Property, new: Event | Property) -> Iterator[Entry]:
    """When it is no longer recorded."""
    if old.expires != new.expires:
        sooner = new.expires is not None and (old.expires is None or new.expires < old.expires)
        yield Entry("narrowed" if sooner else "widened", f"{at}.expires", _told("expires", old.expires, new.expires))


def _words(
    at: str, old: Part, new: Part, *, only: tuple[str, ...] = (), leave: tuple[str, ...] = ()
) -> Iterator[Entry]:  # fmt: skip
    """Which keys say the same in other words."""
    names = [name for name in only or old.__struct_fields__ if name not in leave
             and getattr(old, name) != getattr(new, name)]  # fmt: skip
    if names:
        yield Entry("reworded", at, ", ".join(names))


def _told(name: str, old: Any, new: Any) -> str:
    if isinstance(old, tuple) and isinstance(new, tuple):
        parts = [*(f"+{_shown(each)}" for each in new if each not in old),
                 *(f"−{_shown(each)}" for each in old if each not in new)]  # fmt: skip
        return f"{name} {' '.join(parts)}"
    return f"{name} {_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)
