"""A process of the user's, and the receivers that it sends to; without threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from cmdorc_telemetry import clock, files, hookimpl
from cmdorc_telemetry.capture import Capture, machine_fields
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, View

from .kernel import Body, Kernel

SPEC = load_spec(CORE)
PROPERTIES: dict[str, dict[str, Any]] = {
    "command_completed": {"duration_ms": 5, "state": "success", "final": True, "manual": True, "chain_depth": 0,
                          "concurrent_runs": 1, "timed_out": False, "command_name": "secret"},
    "anomaly_detected": {"metric": "count", "kind": "above", "command_name": "secret"},
}  # fmt: skip
INSTALL = "9e107d9d-372b-4a81-8d5c-0a4f5a0b1c2d"
_CAPTURE = Capture([SPEC], {**machine_fields(), "anonymous_install_id": INSTALL})
_RECORDS = {kind: _CAPTURE.record(kind, properties) for kind, properties in PROPERTIES.items()}


def record(kind: str, number: int, at: float) -> tuple[str, bytes]:
    """The id and the record of an event, always the same: names that are drawn by chance must not depend on it."""
    event_id = f"00000000-0000-7000-8000-{number:012x}"
    *head, _, body = msgspec.json.decode(_RECORDS[kind])
    body |= {"event_id": event_id, "timestamp": clock.iso(at)}
    return event_id, msgspec.json.encode([*head, int(at), body])


OK = ("accepted", "duplicate")


class Receiver:
    """The other end of a destination: answers the next batch as it was told to, and everything after it well."""

    def __init__(self, name: str, arrived: Callable[[str, str, str], None], kernel: Kernel) -> None:
        self.name, self._arrived, self._kernel = name, arrived, kernel
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.answers: Sequence[str] = ()
        self.batch_fault = ""
        self.poison: dict[str, str] = {}
        """Events that it will not take, and what it says of them."""
        self.faults: list[AssertionError] = []
        """What must not have happened."""
        self._since: float | None = None

    def take(self, batch: Batch) -> BatchResult | None:
        now, since = self._kernel.ticks, self._since
        try:
            assert since is None or now - since > PATIENCE, "two processes send at once"
            self._since = now
            return self._answer(batch)
        except AssertionError as fault:  # which a worker takes for a failure of the receiver's
            self.faults.append(fault)
            raise
        finally:
            self._since = None

    def _answer(self, batch: Batch) -> BatchResult | None:
        fault, answers = self.batch_fault, self.answers
        self.batch_fault, self.answers = "", ()
        for event in batch.events:
            body = event.payload
            assert body["event_id"] == event.event_id
            assert self.name in PRIVATE or "command_name" not in body, "a private field was shared"
            self._arrived(self.name, event.event_id, body.get("level", "off"))
        self._kernel.point("report")
        ids = [event.event_id for event in batch.events]
        if fault in ("refused", "too-large"):  # for one of them, and whatever it comes with
            self.poison[ids[0]] = fault
        fault = next((self.poison[event] for event in ids if event in self.poison), fault)
        if len(ids) == 1 and fault == "too-large":
            self.refused.update(ids)
        if fault == "lost answer":
            self.accepted.update(ids)
        if fault:
            raise FAULTS[fault]
        results = [
            EventResult(event, "rejected" if answer == "rejected" else answer)  # type: ignore[arg-type]
            for event, answer in zip(ids, [*answers, *["accepted"] * len(ids)], strict=False)
            if answer != "missing"
        ]
        self.accepted |= {each.event_id for each in results if each.status in OK}
        self.refused |= {each.event_id for each in results if each.status == "rejected"}
        self._kernel.point("report")
        return BatchResult(results=tuple(results), answer={"stats": {}}) if answers else None


FAULTS: dict[str, Exception] = {
    "unreachable": ConnectionError("refused"),
    "lost answer": ConnectionError("reset"),
    "later": RetryLater("busy", 30.0),
    "much later": RetryLater("busy", 1e9),
    "too-large": TooLarge("too large"),
    "refused": Rejected("no such thing"),
    "broken": KeyError("a reporter's own fault"),
}
PRIVATE = ("history", "mine")
PATIENCE = 60.0
"""How long a sender that gives no sign must be left alone at least."""


class Sender(TelemetryReporter):
    """Hands batches over to a receiver."""

    name = "sender"
    receivers: ClassVar[dict[str, Receiver]]

    class Settings(Struct):
        host: str
        """Which receiver."""

    settings: Settings

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise AssertionError("batches are handed over")

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        return self.receivers[self.settings.host].take(batch)


class Senders:
    """The plugin."""

    def __init__(self, receivers: dict[str, Receiver]) -> None:
        self.sender = type("Bound", (Sender,), {"receivers": receivers})

    @hookimpl
    def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
        return [self.sender]


class Process(Body):
    """Pipeline, journal, spool and workers, as ``Recorder`` and ``Delivery`` put them together."""

    def __init__(self, number: int, home: Home, receivers: dict[str, Receiver], injected: bool) -> None:
        super().__init__()
        self.number, self.home = number, home
        self.receivers, self.plugin = receivers, Senders(receivers)
        situation = Situation.read({"CMDORC_HOME": str(home.root)})
        self.pipeline = Pipeline(situation, PluginHost((), (self.plugin,), known=()))
        self.journal = Journal(home.journal, situation.policy().stamp)
        self.spool: Spool | None = None
        self.workers: dict[str, Worker] = {}
        self.injected = injected
        self.source = self.journal.source
        self.lock: FileLock | None = None
        self.over = not situation.policy().record
        """Whether it does nothing any more: its telemetry thread ended, or there never was one."""
        self.pumped = False
        """Whether it imported everything, and narrowed what is stored, when it was asked last."""
        self.registers: dict[str, View] | None = None
        self.abandons: str | None = None

    def __repr__(self) -> str:
        return f"process {self.number}"

    @property
    def own(self) -> str:
        """The name of the destination of a reporter that was injected."""
        return f"code-{self.source}"

    @property
    def generation(self) -> str:
        consent = self.pipeline.situation.consent
        return consent.generation if consent is not None else ""

    def open(self) -> None:
        """As the telemetry thread begins."""
        views = {view.name: view for view in self.pipeline.views()}
        injected = View(name=self.own, identity="injected by code", source=self.source)
        self.registers = views
        if self.injected:
            files.private_dir(self.home.locks)
            self.lock = FileLock(self.home.locks / f"{self.own}.owner")
            self.lock.acquire(wait=False)
        spool = self.pipeline.open_spool()
        if self.injected:
            self.registers = {**views, self.own: injected}
            spool.adopt(injected, self.own)
        files.private_dir(self.home.locks)
        routes = [
            replace(route, trusted=True, make=lambda: self._sender("history"))
            if route.name == "history" else replace(route, trusted=True)
            for route in self.pipeline.routes()
        ]  # fmt: skip
        if self.injected:
            routes.append(
                Destination(self.own, lambda: self._sender("injected"),
                            lambda item: self.pipeline.shared_body(item.row), refresh=self.pipeline.refresh,
                            injected=True, trusted=True, audit=self.pipeline.audit_log(self.own))
            )  # fmt: skip
        self.spool = spool
        self.workers = {route.name: Worker(route, spool, self.home.locks) for route in routes}

    def _sender(self, name: str) -> Sender:
        return self.plugin.sender(Sender.Settings(host=self.own if name == "injected" else name))

    def pump(self) -> None:
        assert self.spool is not None
        if not self.pipeline.pump(self.spool, self.journal):
            self.over = True
        self.pumped = self.pipeline.decision.known

    def send(self, name: str, loop: asyncio.AbstractEventLoop, *, hurry: bool) -> float | None:
        """One batch. Runs in a loop of its own, also where another one of this thread is interrupted."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return loop.run_until_complete(self.workers[name].step(hurry=hurry))
        finally:
            asyncio._set_running_loop(outer)

    def end(self) -> None:
        """As a process ends that nobody kills."""
        if self.spool is not None:
            if self.injected:
                self.abandons = self.own
                self.spool.abandon(self.own, "reporter-gone")
            self.spool.close()
        self.journal.close()
        if self.lock is not None:
            self.lock.release(unlink=True)
