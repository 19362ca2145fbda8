"""Questions to the history of this machine."""

from .runs import CommandRuns, command_runs

__all__ = ["CommandRuns", "command_runs"]
