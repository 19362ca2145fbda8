"""``new-plugin``: a plugin's distribution to begin with, which installs and passes its tests as it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import get_args

import click

from ..config import is_built_in
from ..errors import ConfigError, StorageError
from ..scaffold import KINDS, WHAT, Kind, files, folder

_OURS = ("cmdorc", "cli", "telemetry")
"""What would be taken for a part of this project that is no plugin."""


@click.command("new-plugin", short_help="Begin a plugin of your own.")
@click.argument("name")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="reporter", show_default=True,
              help="; ".join(f"{kind}: {WHAT[kind]}" for kind in KINDS) + ".")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(),
              metavar="DIRECTORY", help="Where its folder is made. Default: here.")  # fmt: skip
def new_plugin(name: str, kind: Kind, output: Path) -> None:
    """Write a distribution with a plugin called NAME, its tests, a README and a file for CI."""
    root = output / folder(name)
    if os.path.lexists(root):
        raise ConfigError("new-plugin", "NAME", f"{root} is there already; nothing was written", "another name")
    if owner := _owner(name):
        raise ConfigError("new-plugin", "NAME", f"{name!r} is the name of {owner}", "another name")
    made = files(name, kind)
    _write(root, made)
    where = str(root) if root.is_absolute() else f"./{root}"
    click.echo(f"{root} has {len(made)} files. To install it, and to see it keep every promise of its kind:")
    click.echo(f"  pip install -e {shlex.quote(f'{where}[test]')}")
    click.echo(f"  pytest {shlex.quote(where)}")


def _owner(name: str) -> str:
    """Whose name it is; empty where it is nobody's."""
    from importlib import metadata

    from ..discovery import PUBLISHED, distribution, installed

    if is_built_in(name) or name in _OURS:
        return "something that is built in"
    if name in PUBLISHED:
        return distribution(name)
    if points := [point for point in installed() if point.name == name]:
        return points[0].distribution
    with suppress(metadata.PackageNotFoundError):
        return str(metadata.distribution(folder(name)).metadata["Name"])
    return ""


def _write(root: Path, made: Mapping[str, str]) -> None:
    """All of it or nothing. Raises StorageError."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as draft:
            for path, text in made.items():
                place = Path(draft, root.name, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8", newline="\n")
            Path(draft, root.name).rename(root)
    except OSError as fault:
        raise StorageError(f"{root} cannot be made: {fault.strerror}") from fault
