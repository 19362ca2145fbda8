"""Questions to the history of this machine."""

from .days import CommandDays, Days, command_days
from .newest import newest_bodies
from .runs import CommandRuns, command_runs

__all__ = ["CommandDays", "CommandRuns", "Days", "command_days", "command_runs", "newest_bodies"]
