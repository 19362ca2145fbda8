"""What says which events there are: specs, their files, a registry, or the application that they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union

from ..application import Application
from ..errors import nearest
from ..spec import TelemetryRegistry, TelemetrySpec, Version, load_spec

Source = Union[Application, TelemetryRegistry, TelemetrySpec, str, Path]  # noqa: UP007 - evaluated, by Python 3.10 too


def registry_of(sources: Iterable[Source]) -> TelemetryRegistry:
    """All that ``sources`` say. Raises SpecError, TypeError."""
    registry = TelemetryRegistry()
    for source in sources:
        for spec, where in _specs(source):
            if registry.get(spec.meta.name, spec.meta.version) is None:
                registry.register(spec, where)
    return registry


def _specs(source: Source) -> Iterator[tuple[TelemetrySpec, str]]:
    """Each spec of a source, with the name that messages have for it."""
    match source:
        case Application():
            for each in source.specs:
                yield from _specs(each)
        case TelemetryRegistry():
            for spec in source:
                yield spec, source.source(spec)
        case TelemetrySpec():
            yield source, source.meta.name
        case str() | Path():
            yield load_spec(source), str(source)
        case _:
            raise TypeError(f"found {source!r}; expected a spec, its file, a registry or an application")


def declared(registry: TelemetryRegistry, event: str, version: Version | None = None) -> None:
    """Raises ValueError where no spec of ``registry`` declares that event."""
    if registry.find_event(event, version) is not None:
        return
    known = {each.name: each for spec in registry for each in spec.events}
    if event in known:
        versions = sorted(str(each.version) for spec in registry for each in spec.events if each.name == event)
        raise ValueError(f"no spec declares version {version} of {event!r}; expected {' or '.join(versions)}")
    near = nearest(event, known)
    raise ValueError(f"no spec declares {event!r}" + (f". Did you mean {near!r}?" if near else ""))
