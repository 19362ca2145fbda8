"""The command ``cmdorc-telemetry``, and ``python -m cmdorc_telemetry``."""

from __future__ import annotations

from .cli import telemetry


def main() -> None:
    """Run a command; ends the process with its exit code."""
    telemetry(prog_name="cmdorc-telemetry")


if __name__ == "__main__":
    main()
