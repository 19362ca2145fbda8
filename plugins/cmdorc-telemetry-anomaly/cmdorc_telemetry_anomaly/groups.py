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
    episodes: set[str] = field(default_factory=set)
    """The keys of the rules that are broken now."""


class Groups(Struct, array_like=True):
    """All groups of one kind of event. ``None`` is the group of those that have no name."""

    named: dict[str, Group] = field(default_factory=dict)
    rest: Group | None = None

    def learn(self, name: str | None, seen: Observation, length: float, most: int) -> None:
        """Take in an event of a group. Where there are too many, the one that was not seen for longest goes."""
        group = self.rest if name is None else self.named.get(name)
        if group is None:
            group = Group(seen.at, seen.at)
            if name is None:
                self.rest = group
            else:
                self._make_room(most)
                self.named[name] = group
        group.first, group.last = min(group.first, seen.at), max(group.last, seen.at)
        group.window.add(seen, length)

    def _make_room(self, most: int) -> None:
        while len(self.named) >= most:
            del self.named[min(self.named, key=lambda name: self.named[name].last)]

    def trim(self, now: float, length: float) -> None:
        """Let go of what is too old at ``now``."""
        for name, group in list(self.all()):
            group.window.trim(now, length)
            if group.last < now - FORGET_WINDOWS * length:
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
