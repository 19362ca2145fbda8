"""The specs that are in force, and where each came from."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SpecError
from .documents import CORE, load_spec
from .model import Event, TelemetrySpec
from .versions import Order, Version, order, same


class TelemetryRegistry:
    """Specs by name and version, events by name and version. An event belongs to one spec only."""

    def __init__(self) -> None:
        self._specs: dict[tuple[str, Order], TelemetrySpec] = {}
        self._sources: dict[tuple[str, Order], str] = {}

    @classmethod
    def with_core(cls) -> TelemetryRegistry:
        """A registry that holds cmdorc's own spec."""
        registry = cls()
        registry.register(load_spec(CORE), "cmdorc-telemetry")
        return registry

    def register(self, spec: TelemetrySpec, source: str) -> None:
        """Add ``spec``, which came from ``source``. Raises SpecError where it, or one of its events, is there."""
        key = (spec.meta.name, order(spec.meta.version))
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
        return iter(list(self._specs.values()))

    def __len__(self) -> int:
        return len(self._specs)
