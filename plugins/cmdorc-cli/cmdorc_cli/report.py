"""What this program says, all of it on stderr: stdout belongs to the commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .chains import Chain
    from .executor import LiveExecutor


def say(text: str) -> None:
    """One line (or more) on stderr."""
    click.echo(f"cmdorc: {text}", err=True)


class Problem(click.ClickException):
    """What was asked for cannot be done as it was asked: exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it as a line of ours."""
        say(self.message)


class Unheard(Problem):
    """Nothing was started, since nothing listens: exit code 3."""

    exit_code = 3


def summarise(executor: LiveExecutor, chains: Iterable[Chain]) -> None:
    """A line for every run that did not succeed or not even start; what shutdown cancelled is left out."""
    for run_id, result in executor.started.items():
        why = executor.fault(run_id)
        if why:
            origin = f", triggered by {result.trigger_event}" if result.trigger_event else ""
            say(f"{result.command_name} {why}{origin}")
        if result.output_write_error:
            say(f"{result.command_name}: {result.output_write_error}")
    for chain in chains:
        for refusal in chain.refused:
            if refusal.direct or not refusal.by_policy:
                say(f"{refusal.command} was not started: {refusal.why}")
