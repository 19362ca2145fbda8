"""Edits the user's ``config.toml``: whole or not at all; comments, order and unknown tables stay."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from .. import files
from ..config import load_layer
from ..errors import ConfigError
from ..situation import config_exposure

Table = MutableMapping[str, Any]


def edit(path: Path, change: Callable[[Table], None]) -> None:
    """Let ``change`` work on the ``[telemetry]`` table of ``path``; both are made where they are missing.

    Raises ConfigError for a file that is wrong already, or that others may have written; StorageError where it cannot
    be written.
    """
    import tomlkit

    load_layer(path)
    check_owner(path)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    document = tomlkit.parse(text)
    if "telemetry" not in document:
        document["telemetry"] = tomlkit.table()
    change(document["telemetry"])
    edited = tomlkit.dumps(document)
    if edited != text:
        target = path.resolve()  # a link to a file that is kept elsewhere stays one
        files.private_dir(target.parent)
        files.replace(target, edited.encode())


def check_owner(path: Path) -> None:
    """Raise ConfigError where somebody else may have written the user's file: nothing is to come of what is in it."""
    if exposed := config_exposure(path):
        raise ConfigError(path, "", exposed, "a file of your own that only you can write to")


def setting(**values: object) -> Callable[[Table], None]:
    """The change that gives keys these values; None takes a key away."""

    def change(table: Table) -> None:
        for key, value in values.items():
            if value is not None:
                table[key] = value
            elif key in table:
                del table[key]

    return change


def listing(plugin: str, *, enabled: bool) -> Callable[[Table], None]:
    """The change that puts ``plugin`` into ``plugins``, or takes it out."""

    def change(table: Table) -> None:
        if "plugins" not in table:
            table["plugins"] = []
        names = table["plugins"]
        if enabled and plugin not in names:
            names.append(plugin)
        while not enabled and plugin in names:
            names.remove(plugin)

    return change
