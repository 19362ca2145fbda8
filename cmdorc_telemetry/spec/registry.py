"""The specs that are in force, and where each came from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import SpecError
from .model import Event, TelemetrySpec

if sys.version_info >= (3, 11):  # pragma: no cover - which of the two is there depends on the Python version
    import tomllib
else:  # pragma: no cover - likewise
    import tomli as tomllib

CORE = Path(__file__).with_name("core.telemetry.toml")


def load_spec(path: str | Path) -> TelemetrySpec:
    """The spec in a TOML file. Raises SpecError with file, key, found and expected."""
    from ..decoding import decode

    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise SpecError(path, "", f"cannot be read: {fault}") from None
    except tomllib.TOMLDecodeError as fault:
        raise SpecError(path, "", f"is not valid TOML: {fault}") from None
    return decode(table, TelemetrySpec, path, error=SpecError)


class TelemetryRegistry:
    """Specs by name and version, events by name and version. An event belongs to one spec only."""

    def __init__(self) -> None:
        self._specs: dict[tuple[str, int], TelemetrySpec] = {}
        self._sources: dict[tuple[str, int], str] = {}

    @classmethod
    def with_core(cls) -> TelemetryRegistry:
        """A registry that holds cmdorc's own spec."""
        registry = cls()
        registry.register(load_spec(CORE), "cmdorc-telemetry")
        return registry

    def register(self, spec: TelemetrySpec, source: str) -> None:
        """Add ``spec``, which came from ``source``. Raises SpecError where it, or one of its events, is there."""
        key = (spec.meta.name, spec.meta.version)
        if key in self._specs:
            raise SpecError(source, "meta.name", f"spec {spec.ref} is registered already, by {self._sources[key]}")
        for other in self._specs.values():
            for event in spec.events:
                if other.meta.name != spec.meta.name and other.event(event.name) is not None:
                    first = self._sources[other.meta.name, other.meta.version]
                    raise SpecError(source, "events", f"event {event.name!r} is declared already, by {first}")
        self._specs[key] = spec
        self._sources[key] = source

    def get(self, name: str, version: int | None = None) -> TelemetrySpec | None:
        """The spec of exactly that name; its latest version where none is given."""
        found = [spec for spec in self if spec.meta.name == name and version in (None, spec.meta.version)]
        return max(found, key=lambda spec: spec.meta.version, default=None)

    def find_event(self, name: str, version: int | None = None) -> tuple[TelemetrySpec, Event] | None:
        """The event of that name, in the latest spec that declares it."""
        for spec in sorted(self, key=lambda spec: -spec.meta.version):
            event = spec.event(name, version)
            if event is not None:
                return spec, event
        return None

    def source(self, spec: TelemetrySpec) -> str:
        """Where ``spec`` came from."""
        return self._sources[spec.meta.name, spec.meta.version]

    def __iter__(self) -> Iterator[TelemetrySpec]:
        return iter(list(self._specs.values()))

    def __len__(self) -> int:
        return len(self._specs)
