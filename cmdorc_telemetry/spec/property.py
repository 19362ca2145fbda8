"""A property of an event: its type, its bounds, the least level that may share it, and who may see it."""

# Annotations are evaluated here: msgspec would have to evaluate them one by one each time a spec is loaded.

import re
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

ValueType = Literal[
    "bool", "count", "duration_ms", "number", "enum", "bucket", "hash", "version", "uuid", "timestamp", "string", "json"
]
Level = Literal["minimal", "standard", "debug"]
LEVELS: tuple[Level, ...] = ("minimal", "standard", "debug")

_BOUNDS: dict[str, tuple[str, ...]] = {
    "count": ("min", "max"),
    "duration_ms": ("min", "max"),
    "number": ("min", "max"),
    "enum": ("members",),
    "bucket": ("edges",),
    "string": ("pattern", "max_length"),
}
_LONGEST = 1 << 20
"""No string or list of an event is longer: msgspec could not check all that TOML can write."""
NAME = re.compile(r"[A-Za-z$_][A-Za-z0-9$_.\-]{0,99}")
WORD = r"[A-Za-z0-9][A-Za-z0-9._+\-]*"


MASK = "[redacted]"
"""What stands for a value that is not to be seen: no value of any other type, and of no property that is not masked."""


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all parts of a spec have in common."""

    def told(self) -> dict[str, Any]:
        """What it says beyond its defaults, as plain dicts, lists and values."""
        defaults = ((each.name, each.default if each.default is not NODEFAULT else _made(each.default_factory))
                    for each in fields(self))  # fmt: skip
        return {name: _plain(value) for name, default in defaults if (value := getattr(self, name)) != default}


def _made(factory: Any) -> Any:
    return NODEFAULT if factory is NODEFAULT else factory()


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.told()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


class Property(Part, frozen=True, kw_only=True):
    """One field of an event. With ``max_items`` it is a list of its type.

    ``json`` is a value of unknown shape: it is declared, and always withheld. Parts of it are taken where properties
    are declared by their path, such as ``balance.amount``.
    """

    type: ValueType
    description: str = ""
    required: bool = False
    pii: bool = False
    redact: bool = False
    level: Level = "standard"
    """The least level that may share it."""
    audience: Literal["shared", "private"] = "shared"
    min: float | None = None
    max: float | None = None
    members: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    pattern: str | None = None
    max_length: int | None = None
    max_items: int | None = None
    expires: date | None = None
    """The first day on which it is no longer recorded."""
    deprecated: str = ""
    """Why it should no longer be used; empty where it should."""
    replaced_by: str = ""
    """The property to use instead."""

    def __post_init__(self) -> None:
        allowed = _BOUNDS.get(self.type, ())
        for name in ("min", "max", "members", "edges", "pattern", "max_length"):
            if getattr(self, name) not in (None, ()) and name not in allowed:
                raise ValueError(f"type {self.type!r} takes no {name!r}")
        for name in ("max_length", "max_items"):
            if (most := getattr(self, name)) is not None and most < 1:
                raise ValueError(f"found {name} {most}; expected 1 or more")
            if most is not None and most > _LONGEST:
                raise ValueError(f"found {name} {most}; expected {_LONGEST} at most")
        for bound in (self.min, self.max, *self.edges):
            if bound is not None and not isfinite(bound):
                raise ValueError(f"found the bound {bound}; expected a finite number")
        if self.type == "enum" and not self.members:
            raise ValueError("type 'enum' needs 'members'")
        if self.type == "bucket" and (not self.edges or sorted(set(self.edges)) != list(self.edges)):
            raise ValueError(f"found edges {list(self.edges)}; type 'bucket' needs 'edges' that rise")
        if self.type == "number" and (self.min is None or self.max is None):
            raise ValueError("type 'number' needs 'min' and 'max'")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        if self.replaced_by and not (self.deprecated or self.expires):
            raise ValueError(f"found 'replaced_by' {self.replaced_by!r}; expected 'deprecated' or 'expires' beside it")
        if self.type == "string":
            if self.pattern is None or self.max_length is None:
                raise ValueError("type 'string' needs 'pattern' and 'max_length': free text can hold anything")
            try:
                re.compile(self.pattern)
                re.compile(rf"\A(?:{self.pattern})\Z")
            except (re.error, OverflowError, RecursionError) as fault:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression: {fault}") from None

    @property
    def masked(self) -> bool:
        """Whether its value is never recorded, only that there was one: ``pii`` is, but in what is the user's own."""
        return self.redact or (self.pii and self.audience == "shared")

    def shared_at(self, level: Level | None) -> bool:
        """Whether a destination of somebody else's may get it at ``level`` (None: nothing may be shared)."""
        return (
            level is not None
            and self.audience == "shared"
            and self.type != "json"
            and LEVELS.index(self.level) <= LEVELS.index(level)
        )


def bucket_labels(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The names of the ranges between ``edges``, such as ``<1``, ``1-10``, ``>=10``."""
    names = [f"{edge:.15g}" for edge in edges]
    return (f"<{names[0]}", *(f"{low}-{high}" for low, high in pairwise(names)), f">={names[-1]}")


BASE: dict[str, Property] = {
    "event": Property(type="string", pattern=NAME.pattern, max_length=100, level="minimal",
                      description="Name of the event"),
    "cmdorc_version": Property(type="version", level="minimal", description="Version of cmdorc"),
    "app_name": Property(type="string", pattern=WORD, max_length=64, level="minimal",
                         description="Name of the application"),
    "app_version": Property(type="version", level="minimal", description="Version of the application"),
    "python_version": Property(type="version", level="minimal", description="Python, major.minor"),
    "os": Property(type="enum", members=("linux", "darwin", "windows", "freebsd"), level="minimal",
                   description="Operating system"),
    "arch": Property(type="enum", members=("x86_64", "arm64", "i686", "armv7l", "ppc64le", "riscv64", "s390x"),
                     level="minimal", description="Processor architecture"),
    "anonymous_install_id": Property(type="uuid", level="minimal",
                                     description="Random, made at opt-in, deleted at opt-out"),
    "timestamp": Property(type="timestamp", level="minimal", description="UTC, whole seconds"),
    "event_id": Property(type="uuid", level="minimal", description="Random; lets a server count an event once"),
    "spec": Property(type="string", pattern=WORD + r"@[0-9]{1,6}", max_length=120, level="minimal",
                     description="The spec that declares the event"),
    "level": Property(type="enum", members=LEVELS, level="minimal", description="The level it was shared at"),
    "sampling_rate": Property(type="number", min=0, max=1, level="minimal",
                              description="The share of such events that is sent, where below 1"),
}  # fmt: skip
"""The fields that every event has beside its own."""
