"""The specs that are in force, and where each came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import SpecError
from .documents import CORE, load_spec
from .model import Event, TelemetrySpec
from .versions import Order, Version, order, same


class SpecFile(NamedTuple):
    """A spec file that a configuration names."""

    path: Path
    where: str
    """The configuration."""
    key: str
    """The key in it."""


class TelemetryRegistry:
    """Specs by name and version, events by name and version. An event belongs to one spec only.

    Versions of one spec may stand side by side. Those that share a ``ref`` are one to whoever only knows the ``ref``:
    what goes through them has the later ones last, and there the last word on an event counts.
    """

    def __init__(self) -> None:
        self._specs: dict[tuple[str, Order], TelemetrySpec] = {}
        self._sources: dict[tuple[str, Order], str] = {}
        self._sealed: frozenset[str] = frozenset()
        self._files: set[str] = set()
        self.refused: list[str] = []
        """Which spec files were left out, and why."""

    @classmethod
    def of(cls, specs: Iterable[Path | TelemetrySpec], owner: str) -> TelemetryRegistry:
        """A registry that holds the specs of ``owner``, which nobody else has another version of. Raises SpecError."""
        registry = cls()
        for each in specs:
            registry.register(load_spec(each) if isinstance(each, Path) else each, owner)
        registry.seal()
        return registry

    @classmethod
    def with_core(cls) -> TelemetryRegistry:
        """A registry that holds cmdorc's own spec."""
        return cls.of([CORE], "cmdorc")

    def is_configured(self, spec: TelemetrySpec) -> bool:
        """Whether whoever configures this machine brought it: it was there before the registry was sealed."""
        return spec.meta.name in self._sealed

    def seal(self) -> None:
        """From now on specs may be added, but no versions of those that are there."""
        self._sealed = frozenset(spec.meta.name for spec in self)

    def read(self, named: Iterable[SpecFile]) -> None:
        """Add the specs of some files, each file once. Raises SpecError."""
        for each in named:
            try:
                spec, real = load_spec(each.path), os.path.realpath(each.path)
                if real not in self._files:
                    self.register(spec, str(each.path))
            except SpecError as fault:
                raise SpecError(each.where, each.key, str(fault)) from None
            self._files.add(real)

    def try_reading(self, named: Iterable[SpecFile]) -> None:
        """Likewise; what is broken, or declares what is declared, is left out and remembered."""
        for each in named:
            try:
                self.read([each])
            except SpecError as fault:
                self.refused.append(f"{fault}. It is left out")

    def register(self, spec: TelemetrySpec, source: str) -> None:
        """Add ``spec``, which came from ``source``. Raises SpecError where it, or one of its events, is there."""
        key = (spec.meta.name, order(spec.meta.version))
        if spec.meta.name in self._sealed:
            first = next(source for (name, _), source in self._sources.items() if name == spec.meta.name)
            raise SpecError(source, "meta.name", f"spec {spec.meta.name} is declared already, by {first}")
        if key in self._specs:
            raise SpecError(source, "meta.name", f"spec {spec.ref} is registered already, by {self._sources[key]}")
        for other in self._specs.values():
            for event in spec.events:
                if other.meta.name != spec.meta.name and other.event(event.name) is not None:
                    first = self._sources[other.meta.name, order(other.meta.version)]
                    raise SpecError(source, "events", f"event {event.name!r} is declared already, by {first}")
        self._specs[key] = spec
        self._sources[key] = source

    def get(self, name: str, version: Version | None = None) -> TelemetrySpec | None:
        """The spec of exactly that name; its latest version where none is given."""
        found = [
            spec for spec in self if spec.meta.name == name and (version is None or same(version, spec.meta.version))
        ]
        return max(found, key=lambda spec: order(spec.meta.version), default=None)

    def find_event(self, name: str, version: Version | None = None) -> tuple[TelemetrySpec, Event] | None:
        """The event of that name, in the latest spec that declares it."""
        for spec in sorted(self, key=lambda spec: order(spec.meta.version), reverse=True):
            event = spec.event(name, version)
            if event is not None:
                return spec, event
        return None

    def source(self, spec: TelemetrySpec) -> str:
        """Where ``spec`` came from."""
        return self._sources[spec.meta.name, order(spec.meta.version)]

    def __iter__(self) -> Iterator[TelemetrySpec]:
        """Every spec, in the order in which their names came; versions of one name from the first to the last."""
        names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in self._specs))}
        return iter([self._specs[key] for key in sorted(self._specs, key=lambda key: (names[key[0]], key[1]))])

    def __len__(self) -> int:
        return len(self._specs)
