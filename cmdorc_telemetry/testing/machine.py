"""A sandboxed machine on which one plugin is enabled: what its user, and the telemetry thread, would do with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

import tomlkit

from .. import clock
from ..config import TelemetryLevel, load_layer
from ..consent import save_decision
from ..declarations import identities, new_grant
from ..identity import ensure_identity
from ..journal import Journal
from ..pipeline import Pipeline
from ..plugins import PluginHost
from ..situation import Situation
from ..types import Ledger, Row
from .sandbox import Sandbox

DESTINATION = "contract"
"""The name of the destination that a reporter is tried as."""
_FLUSH_SECONDS = 30.0


class Machine:
    """``load`` gives the plugins anew, as a process that starts would have them."""

    def __init__(self, sandbox: Sandbox, load: Callable[[], PluginHost]) -> None:
        self.home = sandbox.home
        self._load = load
        self.host = PluginHost()
        """The plugins of the pipeline that was made last."""
        self.ears: list[object] = []
        """Plugin objects that are there beside the plugin."""

    def configure(self, table: Mapping[str, Any], level: TelemetryLevel = TelemetryLevel.STANDARD) -> None:
        """Write ``[telemetry]`` into the user's file, and agree to all that is in it."""
        self.write(table)
        registry = self._load().registry(*self.situation().specs())
        destinations = identities(load_layer(self.home.config).destinations)
        now = clock.utcnow()
        save_decision(self.home, {spec.meta.name: new_grant(spec, level, now) for spec in registry}, destinations)

    def write(self, table: Mapping[str, Any]) -> None:
        """Write ``[telemetry]`` into the user's file, and nothing more."""
        self.home.root.mkdir(mode=0o700, exist_ok=True)
        self.home.config.write_text(tomlkit.dumps({"telemetry": table}), encoding="utf-8")
        self.home.config.chmod(0o600)

    def situation(self) -> Situation:
        """What files and variables say now."""
        return Situation.read(os.environ, application=self.home.application)

    def pipeline(self) -> Pipeline:
        """The stages, put together as a process that starts would."""
        self.host = self._load()
        for number, ear in enumerate(self.ears):
            self.host.add(ear, f"ear-{number}")
        return Pipeline(self.situation(), self.host)

    @property
    def install_id(self) -> str:
        """The id that the machine's events have."""
        return ensure_identity(self.home).install_id

    def journal(self, records: Iterable[bytes]) -> None:
        """Leave records behind, as a process that has ended."""
        journal = Journal(self.home.journal, self.situation().policy().stamp)
        for record in records:
            journal.append(record)
        journal.close()

    def rows(self) -> list[Row]:
        """What the gate makes of what lies in the journals; it goes on to nobody."""
        pipeline = self.pipeline()
        with closing(pipeline.open_spool()) as spool:
            pipeline.pump(spool)
            return spool.next("history", 1 << 30)

    def deliver(self) -> dict[str, Ledger]:
        """Send everything that waits, as far as it can be sent. The ledger of every destination."""
        pipeline = self.pipeline()
        delivery = pipeline.delivery()
        try:
            delivery.flush(_FLUSH_SECONDS)
        finally:
            delivery.stop()
        with closing(pipeline.open_spool()) as spool:
            return dict(spool.ledger())
