"""``view``: one page in the browser with everything that is known of telemetry on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .machine import Machine, config_option, project_layer
from .wording import place

if TYPE_CHECKING:
    from ..view import Facts


@click.command(short_help="Show all of this as one page in your browser.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the page there (mode 600) and open nothing; - for standard output.")  # fmt: skip
@config_option
def view(output: Path | None, config: Path | None) -> None:
    """Show everything about telemetry on this machine, as one page in your browser.

    The page is a file under your telemetry directory that only you can read; its name is all that is printed. It
    loads nothing and sends nothing. opt-out deletes it.
    """
    from ..view import page

    layer, problem = project_layer(config)
    machine = Machine(project=layer)
    machine.bear()
    document = page(_facts(machine, problem)).encode()
    if output is not None and str(output) == "-":
        click.echo(document, nl=False)
    elif output is not None:
        _write(output, document)
        click.echo(f"Written to {place(output)}. It holds names of your own: mode 600.", err=True)
    else:
        _show(machine, document)


def _facts(machine: Machine, problem: str) -> Facts:
    """What is known, after everything that was recorded is imported, where that can be done."""
    from ..errors import StorageError
    from .facts import gather
    from .standing import standing

    if machine.recording:
        try:
            with machine.spool() as spool:
                machine.fill_history(spool)
        except StorageError as fault:
            problem = problem or str(fault)
    return gather(machine, standing(machine, problem))


def _write(path: Path, document: bytes) -> None:
    """Into the place of a file, with mode 600; into what is none, such as a pipe, as it is."""
    from .. import files

    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(document)
    else:
        files.replace(path, document)


def _show(machine: Machine, document: bytes) -> None:
    from .. import files

    path = machine.home.view
    files.private_dir(machine.home.root)
    files.private_dir(machine.home.telemetry)
    files.replace(path, document)
    click.echo(path)
    if not (_has_browser(os.environ) and _open(path)):
        click.echo("No browser could be opened here. Open that file in one, on this machine.", err=True)


def _has_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser of the person who typed this can be expected to appear."""
    from ..policy import in_ci

    if environ.get("BROWSER"):
        return True
    if in_ci(environ) or environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return False
    return sys.platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def _open(path: Path) -> bool:
    import webbrowser

    with _quiet():
        return webbrowser.open(path.as_uri())


@contextmanager
def _quiet() -> Iterator[None]:
    """Whatever a browser that is started says, it does not say it to whoever reads our output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        with suppress(OSError):
            os.close(kept)
            os.close(nowhere)
