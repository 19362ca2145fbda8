"""Which plugins are installed: the entry points of every distribution on the path. Imports none of them.

To read the metadata of all distributions takes longer than everything else that telemetry does at start, so what was
found is kept in a file, under a key made of what it was read from.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from . import clock, files, hookspecs
from .errors import StorageError, nearest

PUBLISHED = ("anomaly", "anonymizer", "file", "http", "otlp", "posthog", "prometheus", "segment")
"""The plugins of this project. Nobody is told to install another: anybody could have registered its name."""
_ENVIRONMENTS = 16
"""Of how many Python environments the file remembers what is installed."""
_SETTLED_SECONDS = 2.0
"""What was installed a moment ago may still be being installed: nothing is kept of it yet."""


class Installed(NamedTuple):
    """One entry point of the group, and the distribution that it came with."""

    name: str
    value: str
    distribution: str
    version: str
    api: str = ""
    """The version of the hooks that it was written for, such as ``v1``; empty where it does not say."""

    @property
    def origin(self) -> str:
        """Distribution, version and entry point."""
        return f"{self.distribution} {self.version}, {self.value}"

    def __str__(self) -> str:
        return f"{self.name} ({self.origin})"

    def load(self) -> object:
        """Import what the entry point names, ``module`` or ``module:object``. Raises whatever that raises."""
        module, _, path = self.value.partition("[")[0].strip().partition(":")
        found: object = import_module(module)
        for name in filter(None, path.split(".")):
            found = getattr(found, name)
        return found


class _Kept(msgspec.Struct, array_like=True):
    """What one environment had; the newest is the last of the file's list."""

    key: str
    found: list[Installed]


_decoder = msgspec.json.Decoder(list[_Kept])


def installed(cache: Path | None = None) -> list[Installed]:
    """Every plugin that is installed, by name. ``cache``: the file that what is found may be read from and kept in."""
    if cache is None:
        return _scan()
    key, changed = _key()
    kept = _read(cache)
    for each in kept:
        if each.key == key:
            return each.found
    found = _scan()
    if clock.wall() - changed > _SETTLED_SECONDS:
        kept = [*kept[1 - _ENVIRONMENTS :], _Kept(key, found)]
        with suppress(StorageError):  # then the next process looks again
            files.replace(cache, msgspec.json.encode(kept))
    return found


def distribution(name: str) -> str:
    """What a plugin's distribution is called in this project."""
    return f"cmdorc-telemetry-{name}"


def remedy(name: str, there: Collection[str], where: str) -> str:
    """What to do about a plugin that is not installed; ``where`` it is named, and which plugins are ``there``."""
    if name in PUBLISHED:
        return f"pip install {distribution(name)}"
    close = nearest(name, {*there, *PUBLISHED})
    known = f"did you mean {close!r}?" if close else f"installed are {', '.join(sorted(there)) or 'none'}"
    return f"correct {where}: {known}"


def _scan() -> list[Installed]:
    from importlib import metadata

    found = []
    for point in metadata.entry_points(group=hookspecs.PROJECT):
        about: Any = (point.dist.metadata if point.dist is not None else None) or {}  # a broken installation has none
        name, version = (str(about.get(key, "unknown")) for key in ("Name", "Version"))
        found.append(Installed(point.name, point.value, name, version, _api(point)))
    return sorted(found, key=lambda each: (each.name, each.distribution))


def _api(point: Any) -> str:
    points = point.dist.entry_points if point.dist is not None else ()
    said = (each.value for each in points if (each.group, each.name) == (hookspecs.API_GROUP, point.name))
    return str(next(said, ""))


def _read(cache: Path) -> list[_Kept]:
    try:
        return _decoder.decode(cache.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return []


def _key() -> tuple[str, float]:
    """A digest of every place that metadata is read from, and when the newest of them changed.

    An installation makes its metadata folder anew, also that of a version that was there before.
    """
    seen, changed = [], 0.0
    for place in sys.path:
        seen.append(place or os.getcwd())
        for name, moment in sorted(_metadata_of(place or ".")):
            seen.append(f"{name} {moment}")
            changed = max(changed, moment / 1e9)
    text = "\n".join(seen).encode("utf-8", "surrogateescape")
    return f"{len(text)} {zlib.crc32(text):08x} {zlib.adler32(text):08x}", changed


def _metadata_of(place: str) -> Iterator[tuple[str, int]]:
    """Name and time of change (ns) of each metadata folder in ``place``, or of ``place`` itself if it is a file."""
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    yield entry.name, entry.stat().st_mtime_ns
    except NotADirectoryError:
        yield "", os.stat(place).st_mtime_ns
    except OSError:  # a path that is not there holds nothing
        return
