"""What a plugin promises that listens to what an orchestrator does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from ...lifecycle import Chain, CompletedRun, Session, Trigger
from ...listeners import SLOW_CALLS, SLOW_SECONDS, TimedListener
from ...plugins import PluginHost
from ...telemetry import HOOKS, Telemetry
from ...types import Anomaly
from ..orchestrators import run
from .plugin import PluginContract

COMMANDS = {"Tests": ("true", ["changed"]), "Deploy": ("exit 3", ["command_success:Tests"])}
"""Two runs for each event ``changed``; the second one fails."""
_RECORDS: Mapping[str, tuple[Any, ...]] = {
    "cmdorc_startup": (Session(id="s", started_at=0.0, command_count=2),),
    "cmdorc_completed": tuple(
        CompletedRun(run_id=f"r{state}", command_name=name, state=state, cwd=None)
        for state in ("success", "failed", "cancelled", "running") for name in ("Tests", "Übung\n🎉", "")
    ),
    "cmdorc_trigger": tuple(Trigger(name="t", outcome=outcome) for outcome in ("ran", "nothing", "cycle", "refused")),
    "cmdorc_chain": tuple(
        Chain(id="c", trigger="t", outcome=outcome) for outcome in (None, "success", "failure", "cancelled")
    ),
    "cmdorc_shutdown": (Session(id="s", started_at=0.0, uptime=1.0),),
}  # fmt: skip
_ANOMALIES = (
    Anomaly(detector="d", event="e", metric="count", kind="below", value=0, threshold=0, sample_count=0),
    Anomaly(detector="d", event="command_completed", metric="p95(duration_ms)", kind="above", value=1e12, threshold=9.5,
            sample_count=20, group="Übung\n🎉", group_by="command_name", message="it is slow"),
)  # fmt: skip


class LifecycleContract(PluginContract):
    """Subclass it and name the plugin."""

    share = None

    def heard(self) -> int | None:
        """How many runs it heard of since the test began; None where nobody could tell."""
        return None

    def enable(self) -> None:
        """Enabled, and nothing agreed to: a user's own plugins run whether or not telemetry is on."""
        self.machine.write(self.table(self.settings()))

    # -- what the contract does ---------------------------------------------------------------------------------------

    def configured(self) -> PluginHost:
        """The plugin, as a program has it."""
        host = self.load()
        host.configure(self.machine.situation().user, self.machine.home, self.specs())
        return host

    def program(self) -> Telemetry:
        """A real orchestrator, in which something happens, and which ends."""
        return asyncio.run(run(COMMANDS, "changed", "nothing_of_that_name"))

    # -- the promises -------------------------------------------------------------------------------------------------

    def test_it_listens(self) -> None:
        """It has at least one lifecycle hook, or the hook for alerts."""
        assert set(self.load().hooks_of(self.plugin)) & {*HOOKS, "telemetry_anomaly"}

    def test_in_a_program_it_does_no_harm(self) -> None:
        """It raises nothing, whatever comes of a run."""
        assert self.program().failures == {}

    def test_it_hears_of_every_run(self) -> None:
        """Each run once, where ``heard`` says how many it has heard of."""
        before = self.heard()
        self.program()
        assert before is None or (self.heard() or 0) - before == 2

    def test_it_takes_whatever_a_program_may_do(self) -> None:
        """Runs that were abandoned, names of any kind, chains that failed, alerts of detectors that say little."""
        host = self.configured()
        for hook, records in _RECORDS.items():
            for listener in host.listeners(hook):
                for record in records:
                    listener(record)
        for anomaly in _ANOMALIES:
            host.announce(anomaly)
        assert host.failures == {}

    def test_it_holds_nobody_up(self) -> None:
        """Lifecycle hooks run on the caller's thread: slow work belongs into a thread of its own."""
        host = self.configured()
        for _ in range(5):  # three slow calls switch it off
            for hook, records in _RECORDS.items():
                for listener in host.listeners(hook):
                    assert isinstance(listener, TimedListener)
                    listener(records[0])
        assert host.slow[self.plugin] < SLOW_CALLS, f"its hooks take more than {SLOW_SECONDS * 1000:g} ms"

    def test_standard_output_stays_the_programs(self) -> None:
        """Other programs read it. What the user enabled the plugin to see or hear goes to standard error."""
        with redirect_stdout(StringIO()) as words:
            self.program()
        assert words.getvalue() == ""
