"""The console script ``cmdorc``, and ``python -m cmdorc_cli``."""

from __future__ import annotations

import sys

_EXEC = ["telemetry", "exec"]


def main() -> None:
    """Run a command; ends the process with its exit code."""
    if sys.argv[1:3] == _EXEC and sys.argv[3:] and not sys.argv[3].startswith("-"):
        from cmdorc_telemetry.programs import run  # alone: people wait for the program that they named

        run(sys.argv[3:])
    from .cli import main as commands

    commands()


if __name__ == "__main__":
    main()
