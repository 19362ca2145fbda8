"""Where the counts are on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The directory in which everything of one user is."""
    said = os.environ.get("CMDORC_HOME")
    return Path(said) if said else Path.home() / ".cmdorc"


def folder() -> Path:
    """The directory of the states, where nobody says another: what this plugin keeps, for the user alone."""
    return home() / "telemetry" / "plugins" / "prometheus"


def serving_lock(state: Path) -> Path:
    """The lock that says who serves what is in a state."""
    return state.with_name(f"{state.name}.serving")
