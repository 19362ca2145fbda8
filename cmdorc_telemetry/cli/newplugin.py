"""``new-plugin``: a plugin's distribution to begin with, which installs and passes its tests as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import get_args

import click

from ..errors import ConfigError
from ..scaffold import KINDS, WHAT, Kind, files, folder


@click.command("new-plugin", short_help="Begin a plugin of your own.")
@click.argument("name")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="reporter", show_default=True,
              help="; ".join(f"{kind}: {WHAT[kind]}" for kind in KINDS) + ".")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(),
              metavar="DIRECTORY", help="Where its folder is made. Default: here.")  # fmt: skip
def new_plugin(name: str, kind: Kind, output: Path) -> None:
    """Write a distribution with a plugin called NAME, its tests, a README and a file for CI."""
    from ..discovery import installed

    root = output / folder(name)
    if os.path.lexists(root):
        raise ConfigError("new-plugin", "NAME", f"{root} is there already; nothing was written", "another name")
    taken = [point for point in installed() if point.name == name]
    if taken:
        raise ConfigError("new-plugin", "NAME", f"{name!r} is the name of {taken[0].distribution}", "another name")
    made = files(name, kind)
    for path, text in made.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    where = str(root) if root.is_absolute() else f"./{root}"
    click.echo(f"{root} has {len(made)} files. To install it, and to see it keep every promise of its kind:")
    click.echo(f"  pip install -e {shlex.quote(f'{where}[test]')}")
    click.echo(f"  pytest {shlex.quote(where)}")
