"""The counts of one destination: as the core keeps them, and with a lock that says who serves them."""

from __future__ import annotations

from pathlib import Path

from cmdorc_telemetry.tally.counts import Counts


class State(Counts):
    """One file, whoever counts and whoever serves."""

    @property
    def serving_lock(self) -> Path:
        """The file that is locked by whoever serves what is in the state."""
        return self.path.with_name(f"{self.path.name}.serving")
