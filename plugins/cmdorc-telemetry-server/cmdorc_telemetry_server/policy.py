"""What an operator wants less of: the file that says it, checked against the specs.

What it means for an event is decided in the core (``Rule.narrow``): clients read the same document.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, nearest
from cmdorc_telemetry.spec import BASE, FIXED, TelemetryRegistry


class _Rule(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is wanted at most of an event; a key that is not there asks for nothing."""

    level: Literal["off", "minimal", "standard", "debug"] | None = None
    sampling: Annotated[float, Meta(ge=0, le=1)] | None = None
    fields: dict[str, bool] = field(default_factory=dict)


class _File(_Rule, forbid_unknown_fields=True, omit_defaults=True):
    """What is wanted at most of all events, and of some of them beside that."""

    events: dict[str, _Rule] = field(default_factory=dict)


def load_policy(path: Path, registry: TelemetryRegistry) -> dict[str, Any]:
    """The policy document in a TOML file, as ``GET /v1/policy`` serves it. Raises ConfigError."""
    try:
        table = msgspec.toml.decode(path.read_bytes())
    except OSError as fault:
        raise ConfigError(path, "", f"cannot be read: {fault.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(path, "", f"is no valid TOML: {fault}") from None
    policy = decode(table, _File, path)
    declared = {event.name: event.properties for spec in registry for event in spec.events}
    _check(policy, path, "fields", {name for properties in declared.values() for name in properties})
    for name, rule in policy.events.items():
        if name not in declared:
            raise _unknown(path, f"events.{name}", "no spec has such an event", declared)
        _check(rule, path, f"events.{name}.fields", declared[name])
    document: dict[str, Any] = msgspec.to_builtins(policy)
    return document


def _check(rule: _Rule, path: Path, key: str, own: Collection[str]) -> None:
    """Raises ConfigError for a field that is not declared or must be there, and for one that is asked for."""
    for name, wanted in rule.fields.items():
        if name in FIXED:
            raise ConfigError(path, f"{key}.{name}", "no report can do without it")
        if name not in own and name not in BASE:
            raise _unknown(path, f"{key}.{name}", "no such field is declared", {*own, *BASE} - FIXED)
        if wanted:
            raise ConfigError(path, f"{key}.{name}", "found true", "false: a policy can only ask for less")


def _unknown(path: Path, key: str, found: str, known: Collection[str]) -> ConfigError:
    names = sorted(known)
    return ConfigError(path, key, found, f"one of {', '.join(names)}", nearest=nearest(key.rpartition(".")[2], names))
