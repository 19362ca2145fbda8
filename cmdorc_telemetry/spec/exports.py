"""What is made of a spec for people and other programs: a table, name → function of the spec and what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from .columns import STORES, columns
from .documents import dump_json, dump_toml
from .jsonschema import json_schema
from .model import TelemetrySpec
from .outputs import markdown


class Export(NamedTuple):
    """One form that a spec can be written in."""

    make: Callable[[TelemetrySpec], str]
    about: str
    """What it is for, in one sentence."""


def _json_schema(spec: TelemetrySpec) -> str:
    return json.dumps(json_schema(spec), indent=2, ensure_ascii=False) + "\n"


def _pre_commit(spec: TelemetrySpec) -> str:
    return """\
# For .pre-commit-config.yaml: no commit of a telemetry spec that does not pass.
repos:
  - repo: local
    hooks:
      - id: telemetry-spec
        name: telemetry spec
        entry: cmdorc-telemetry spec lint
        language: python
        additional_dependencies: [cmdorc-telemetry]
        files: \\.telemetry\\.(toml|json)$
"""


def _store(name: str) -> Callable[[TelemetrySpec], str]:
    return partial(columns, name=name)


EXPORTS: Mapping[str, Export] = {
    "markdown": Export(markdown, "The page that says what is collected, and why."),
    "toml": Export(dump_toml, "The spec itself, without comments."),
    "contractspec": Export(dump_json, "ContractSpec's JSON; what that has no words for is in an extension."),
    "json-schema": Export(_json_schema, "What a shared event is valid against: JSON Schema, draft 2020-12."),
    **{name: Export(_store(name), f"Tables for the events: statements for {title}.")
       for name, title in zip(STORES, ("SQLite", "PostgreSQL", "ClickHouse"), strict=True)},
    "pre-commit": Export(_pre_commit, "A hook for pre-commit that lints specs before they are committed."),
}  # fmt: skip
"""Every form by its name."""
