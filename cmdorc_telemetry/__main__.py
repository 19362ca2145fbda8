"""The command ``cmdorc-telemetry``, and ``python -m cmdorc_telemetry``: the telemetry commands of cmdorc.

Those of another application, which has no command line of its own: ``--application module:attribute``, first of all.
"""

from __future__ import annotations

import sys

from . import programs

TYPE_CHECKING = False  # typing takes longer than what `exec` does before it becomes the program
if TYPE_CHECKING:
    from .application import Application

_OPTION = "--application"


def main() -> None:
    """Run a command; ends the process with its exit code."""
    if sys.argv[1:2] == ["exec"] and sys.argv[2:] and not sys.argv[2].startswith("-"):
        programs.run(sys.argv[2:])  # without all the other commands, which take longer than many a program
    import click

    from .cli import group, telemetry

    option, _, where = (sys.argv[1] if len(sys.argv) > 1 else "").partition("=")
    if option != _OPTION:
        telemetry(prog_name="cmdorc-telemetry")
    words = sys.argv[2:]
    if not where and words:
        where, *words = words
    name = f"python -m cmdorc_telemetry {_OPTION} {where}"
    try:
        application = _found(where)._replace(command=name)
    except click.UsageError as fault:
        fault.show()
        sys.exit(fault.exit_code)
    group(application)(words, prog_name=name)


def _found(where: str) -> Application:
    """The application of that name. Raises UsageError."""
    from importlib import import_module

    import click

    from .application import Application

    module, _, attribute = where.partition(":")
    try:
        found = getattr(import_module(module), attribute or "APPLICATION")
    except (ImportError, AttributeError, ValueError) as fault:
        raise click.UsageError(f"{_OPTION} {where}: {fault}; expected module:attribute") from None
    if not isinstance(found, Application):
        raise click.UsageError(f"{_OPTION} {where}: found {type(found).__name__}; expected an Application")
    return found


if __name__ == "__main__":
    main()
