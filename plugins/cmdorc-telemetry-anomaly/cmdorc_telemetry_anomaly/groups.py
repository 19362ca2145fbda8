"""The windows and episodes of one kind of event, by group: what the detector remembers. Bounded, pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from .windows import PANES, Observation, Window, first_pane

FORGET_WINDOWS = 10
"""A group that was not seen for so many windows is gone for good: nobody misses it any more."""


class Group(Struct, array_like=True):
    """What is remembered of one group."""

    first: float
    """When it was first seen, in seconds since the epoch."""
    last: float
    window: Window = field(default_factory=Window)
    episodes: dict[str, float] = field(default_factory=dict)
    """The keys of the rules that are broken now, and since when their values are back inside; if not: infinity."""


class Groups(Struct, array_like=True):
    """All groups of one kind of event. ``None`` is the group of those that have no name."""

    named: dict[str, Group] = field(default_factory=dict)
    rest: Group | None = None
    by: str = ""
    """The property that names are values of: those of another one say nothing."""

    def learn(self, name: str | None, seen: Observation, length: float, most: int) -> None:
        """Take in an event of a group. Where there are too many, the one that was not seen for longest goes."""
        group = self.rest if name is None else self.named.get(name)
        if group is None:
            group = Group(seen.at, seen.at)
            if name is None:
                self.rest = group
            else:
                self.make_room(most)
                self.named[name] = group
        group.first, group.last = min(group.first, seen.at), max(group.last, seen.at)
        group.window.add(seen, length)

    def make_room(self, most: int) -> None:
        """Know of fewer than ``most`` groups that have names. Those that were not seen for longest go."""
        while len(self.named) >= most:
            self.forget(min(self.named, key=lambda name: self.named[name].last))

    def trim(self, now: float, length: float) -> set[str | None]:
        """Let go of what is too old at ``now``. The groups that are others for it, by name."""
        changed = set()
        for name, group in list(self.all()):
            if group.window.trim(now, length):
                changed.add(name)
            if group.last < now - FORGET_WINDOWS * length:
                self.forget(name)
        return changed

    def forget(self, name: str | None) -> None:
        """Know nothing of a group any more."""
        if name is None:
            self.rest = None
        else:
            del self.named[name]

    def all(self) -> Iterator[tuple[str | None, Group]]:
        """Every group, by name."""
        if self.rest is not None:
            yield None, self.rest
        yield from self.named.items()


def is_whole(group: Group, now: float, length: float) -> bool:
    """Whether a group was known for as long as its window is at ``now``."""
    return group.first <= first_pane(now, length) * length / PANES
