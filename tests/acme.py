"""An application that has nothing to do with cmdorc, its user who agreed to its spec, and what it recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from cmdorc_telemetry import Telemetry, TelemetryLevel, TelemetryReporter, TelemetryTracker
from cmdorc_telemetry.application import Application
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.segment import parse, segments
from cmdorc_telemetry.spec import TelemetrySpec, parse_toml

from .agreement import agree

SPEC = """
[meta]
name = "acme.app"

[context.user_id]
type = "string"
pattern = "[a-z0-9-]+"
max_length = 40
pii = true
redact = true

[context.tenant]
type = "string"
pattern = "[a-z]+"
max_length = 40
audience = "private"

[[events]]
name = "acme.signup"
version = 1
semantics = { what = "Somebody signed up" }
anomaly_detection = { minimum_sample = 1, thresholds = [{ metric = "seconds", max = 900 }] }

[events.properties]
plan = { type = "enum", members = ["free", "pro"], required = true }
seconds = { type = "count", max = 1000 }
share = { type = "number", min = 0, max = 1 }
steps = { type = "string", pattern = "[a-z]+", max_length = 10, max_items = 3 }
at = { type = "timestamp" }
order = { type = "uuid" }
email = { type = "string", pattern = ".*", max_length = 100, pii = true, redact = true }
anything = { type = "json" }
hidden = { type = "json", pii = true, redact = true }
who = { type = "string", pattern = ".*", max_length = 10, pii = true, redact = true }
"who.team" = { type = "string", pattern = "[a-z]+", max_length = 10 }
"balance.amount" = { type = "count" }
"balance.held.since" = { type = "timestamp" }

[[events]]
name = "acme.secret"
privacy = "sensitive"
semantics = { what = "Nobody's business" }

[events.properties]
count = { type = "count" }
note = { type = "string", pattern = ".*", max_length = 10, audience = "private" }
"""


class Frame(NamedTuple):
    """One event as the journal holds it."""

    spec: str
    event: str
    version: int
    body: dict[str, Any]

    @property
    def own(self) -> dict[str, Any]:
        """What is not the same for all events."""
        base = {"event", "app_name", "app_version", "python_version", "os", "arch", "anonymous_install_id", "timestamp",
                "event_id", "spec"}  # fmt: skip
        return {name: value for name, value in self.body.items() if name not in base}


class Acme:
    """An installation of it. ``text`` is its spec."""

    def __init__(self, root: Path, text: str = SPEC, *, level: TelemetryLevel | None = TelemetryLevel.STANDARD) -> None:
        self.spec: TelemetrySpec = parse_toml(text, "acme.telemetry.toml")
        self.application = Application("acme", "2.4.1", (self.spec,), home=root / "acme")
        self.environ = {"HOME": str(root)}
        self.home = Home.of(self.application, self.environ)
        if level is not None:
            agree(self.home, level, spec=self.spec)

    def telemetry(self, *reporters: TelemetryReporter) -> Telemetry:
        return Telemetry.start(self.application, reporters=reporters, environ=self.environ)

    def tracker(self, *reporters: TelemetryReporter, **options: Any) -> TelemetryTracker:
        return TelemetryTracker.start(self.application, providers=reporters, environ=self.environ, **options)

    def frames(self) -> list[Frame]:
        """All events that are in journals, in the order of each."""
        records = [record for path in segments(self.home.journal)
                   for record in parse(path.name, path.read_bytes(), live=True).records]  # fmt: skip
        return [Frame(*json.loads(record)[1:4], json.loads(record)[5]) for record in records]


class Keeper(TelemetryReporter):
    """A provider that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[dict[str, Any]] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.got.append(payload)
