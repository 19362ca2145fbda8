"""Specs as files: TOML, and ContractSpec's JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from .. import files
from ..errors import SpecError
from .model import TelemetrySpec

if sys.version_info >= (3, 11):  # pragma: no cover - which of the two is there depends on the Python version
    import tomllib
else:  # pragma: no cover - likewise
    import tomli as tomllib

CORE = Path(__file__).with_name("core.telemetry.toml")
MOST_BYTES = 1 << 20
"""A spec is written by hand: what is larger is none."""
_MOST_DOTS = 1000
"""In one line: what parses TOML takes minutes for a key of ten thousands of parts."""


def load_spec(path: str | Path) -> TelemetrySpec:
    """The spec in a TOML file, or in a ``.json`` file of ContractSpec's.

    Raises SpecError with file, key, found and expected.
    """
    path = Path(path)
    try:
        data = files.read(path, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise SpecError(path, "", "is larger than 1 MiB")
    except OSError as fault:
        raise SpecError(path, "", f"cannot be read: {fault.strerror}") from None
    except SpecError:
        raise
    except ValueError as fault:  # a name that no file can have
        raise SpecError(path, "", f"cannot be read: {fault}") from None
    return parse_spec(data, path.suffix, path)


def parse_spec(data: bytes, suffix: str, where: object) -> TelemetrySpec:
    """The spec that a file with that ``suffix`` holds. Raises SpecError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise SpecError(where, "", f"cannot be read: {fault}") from None
    return parse_json(text, where) if suffix == ".json" else parse_toml(text, where)


def parse_toml(text: str, where: object) -> TelemetrySpec:
    """The spec in a TOML document. Raises SpecError."""
    from ..decoding import decode

    try:
        table = toml_document(text)
    except tomllib.TOMLDecodeError as fault:
        raise SpecError(where, "", f"is not valid TOML: {fault}") from None
    except ValueError:
        raise SpecError(where, "", "is not valid TOML: there is a number of thousands of digits") from None
    except RecursionError:
        raise SpecError(where, "", "is nested too deeply") from None
    if "origin" in table:
        raise SpecError(where, "origin", "unknown key", "no such key in TOML")
    return decode(table, TelemetrySpec, where, error=SpecError)


def toml_document(text: str) -> dict[str, Any]:
    """A TOML document as it is. Raises ValueError, RecursionError."""
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise RecursionError
    document: dict[str, Any] = tomllib.loads(text)
    return document


def parse_json(text: str, where: object) -> TelemetrySpec:
    """The spec in one of ContractSpec's documents. Raises SpecError."""
    import json

    from . import contractspec

    try:
        document = msgspec.json.decode(text)
        json.loads(text, object_pairs_hook=_once)
    except (msgspec.DecodeError, ValueError, RecursionError) as fault:
        raise SpecError(where, "", f"is not valid JSON: {fault}") from None
    return contractspec.read(document, where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys must be there once each: of others, the last would win silently."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return dict(pairs)


def dump_toml(spec: TelemetrySpec) -> str:
    """``spec`` as a TOML document: what is as it is by default is left out."""
    import tomlkit

    return tomlkit.dumps(toml_table(spec))


def toml_table(spec: TelemetrySpec) -> dict[str, Any]:
    """What a TOML document of ``spec`` holds."""
    table = spec.told()
    table.pop("origin", None)
    for event, told in zip(spec.events, table.get("events", ()), strict=True):
        told["properties"] = {name: told["properties"][name] for name in spec.own_properties(event)}
    return table


def dump_json(spec: TelemetrySpec) -> str:
    """``spec`` as one of ContractSpec's documents."""
    import json

    from . import contractspec

    return json.dumps(contractspec.write(spec), indent=2, ensure_ascii=False, default=str) + "\n"
