"""The command ``cmdorc``: reads arguments, calls the rest, sets the exit code.

Everything but click is imported when a command needs it: ``list`` and ``--help`` are not to wait for ``run``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import __version__

if TYPE_CHECKING:
    from .project import Project
    from .session import Job

_INTERRUPTED = 130


class _Group(click.Group):
    """Loads the commands of telemetry from the core when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "telemetry"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "telemetry":
            return super().get_command(ctx, cmd_name)
        from cmdorc_telemetry.cli import telemetry

        return telemetry


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cmdorc")
def main() -> None:
    """Run the commands of a cmdorc TOML."""


_config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), metavar="FILE",
    help="The cmdorc TOML; otherwise cmdorc.toml, then config.toml, in this directory.",
)  # fmt: skip
_flush_option = click.option(
    "--flush", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
    help="At the end, wait up to SECONDS until telemetry is sent. Otherwise a later process sends it.",
)  # fmt: skip


def _variables(ctx: click.Context, param: click.Parameter, given: Iterable[str]) -> dict[str, str]:
    variables = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        variables[key] = value
    return variables


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_config_option
@click.option("--var", "variables", multiple=True, callback=_variables, metavar="KEY=VALUE",
              help="A variable for the named commands; repeat for more.")  # fmt: skip
@_flush_option
def run(names: tuple[str, ...], config: Path | None, variables: dict[str, str], flush: float) -> None:
    """Run commands and what they trigger, one NAME after the other until one fails.

    \b
    Exit code: that of the first NAME that failed, or
      2    wrong file, name or variable
      3    refused by its own debounce or concurrency limit
      124  timed out
      126  could not be started
      128+N  ended by signal N; 143 also if it was cancelled; 130 after Ctrl-C
    Commands that a NAME triggers do not change it.
    """

    from .project import Project
    from .session import Run

    project = Project.load(config)
    for name in names:
        project.require(name)
    _conduct(project, [Run(name, variables) for name in names], flush)


@main.command()
@click.argument("event")
@_config_option
@_flush_option
def trigger(event: str, config: Path | None, flush: float) -> None:
    """Fire EVENT, and wait for all that it sets off.

    \b
    Exit code: that of the first command that EVENT started and that failed (see run --help), or
      2    wrong file or variable
      3    nothing was started: no command listens to EVENT, or each refused
    """
    from .project import Project
    from .session import Fire

    project = Project.load(config)
    project.require_listener(event)
    _conduct(project, [Fire(event)], flush)


def _conduct(project: Project, jobs: Sequence[Job], flush: float) -> None:
    import asyncio

    from .session import conduct
    from .telemetry import flush_now, telemetry_config

    try:
        telemetry = telemetry_config(project.path)
        code = asyncio.run(conduct(project, jobs, telemetry))
        if flush:
            flush_now(telemetry, flush)
    except KeyboardInterrupt:  # before or after the session, which has its own ears for it
        code = _INTERRUPTED
    raise SystemExit(code)


@main.command("list")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.")
def list_commands(config: Path | None, as_json: bool) -> None:
    """Show the commands and what triggers them."""
    from .project import Project

    project = Project.load(config)
    click.echo(project.listing_json() if as_json else project.listing())
