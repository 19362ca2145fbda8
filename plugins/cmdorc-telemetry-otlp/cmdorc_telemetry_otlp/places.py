"""Where this plugin keeps what it counted, for a reporter that is given by code."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """The directory of the states, where nobody says another: for the user alone."""
    said = os.environ.get("CMDORC_HOME")
    return (Path(said) if said else Path.home() / ".cmdorc") / "telemetry" / "plugins" / "otlp"
