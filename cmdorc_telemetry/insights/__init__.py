"""Questions to the history of this machine."""

from .counts import EventCounts, event_counts
from .days import Days, command_days
from .newest import newest_bodies
from .runs import CommandRuns, command_runs

__all__ = ["CommandRuns", "Days", "EventCounts", "command_days", "command_runs", "event_counts", "newest_bodies"]
