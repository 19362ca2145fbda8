"""``exec``: runs a program that knows nothing of telemetry, and has all that it does with cmdorc recorded."""

from __future__ import annotations

import click

from .. import programs


@click.command(
    "exec", short_help="Run a program that knows nothing of telemetry, instrumented.",
    context_settings={"allow_interspersed_args": False},
)  # fmt: skip
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PROGRAM [ARGS]...")
def execute(command: tuple[str, ...]) -> None:
    """Run a Python program, such as cmdorc-tui, and record what every orchestrator does that it makes.

    The program takes the place of this command: its arguments, exit code, signals and terminal are its own. Programs
    that it starts are not instrumented. While telemetry is off, it is run as if you had typed its name.

    \b
    Exit code: that of the program, or
      2    no program was named
      125  it cannot be instrumented: no Python program, or one whose Python
           lacks cmdorc-telemetry or takes nothing from the environment
      126  it cannot be started
      127  there is no such program, or not what its first line names
    """
    programs.run(command)
