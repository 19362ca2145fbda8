"""The command ``cmdorc``: runs the commands of a cmdorc TOML, instrumented."""

from __future__ import annotations

__version__ = "0.1.0"
