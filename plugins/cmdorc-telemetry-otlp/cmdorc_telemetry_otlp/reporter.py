"""The reporter: settings, and what becomes of a batch.

What events become is in ``spans.py``, ``tally.py`` and ``messages.py``; what is remembered, in ``state.py``.

The official exporters are not used: they wait in a thread of theirs, and drop what could not be sent within a few
tries. Here an event that did not arrive stays in the spool, and comes again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import ClassVar, Literal, NamedTuple

from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.decoding import Secret
from cmdorc_telemetry.errors import Rejected, RetryLater, StorageError, TooLarge
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec
from cmdorc_telemetry.spec.instruments import SECONDS, are_bounds
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Setup

from . import __version__
from .endpoint import check_endpoint, read_headers
from .fields import Facts
from .metrics import Catalogue
from .spans import span_of
from .state import Draft, State

Signal = Literal["traces", "logs", "metrics"]
_ARRIVED: dict[Signal, int] = {"traces": 1, "logs": 2, "metrics": 4}
"""How the state remembers that a signal of an event arrived."""
PROTOBUF = "application/x-protobuf"


class Request(NamedTuple):
    """One request."""

    signal: Signal
    body: bytes
    event_ids: tuple[str, ...] = ()
    """Of whom it is, where it is of events."""


class Plan(NamedTuple):
    """What is to be counted and sent for a batch."""

    batch: Batch
    draft: Draft
    requests: tuple[Request, ...]


class OtlpReporter(PostingReporter):
    """Posts spans, log records and metrics as protobuf to ``{endpoint}/v1/traces`` and so on."""

    name = "otlp"
    agent = f"cmdorc-telemetry-otlp/{__version__}"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of an ``otlp`` destination."""

        endpoint: str
        """Address of the receiver without ``/v1/…``: https, or plain http to this machine."""
        headers: Secret[dict[str, str] | str] = {}
        """Sent along, such as a key; better as ``headers_env``."""
        signals: tuple[Signal, ...] = ("traces", "logs", "metrics")
        """What is sent."""
        compression: Literal["gzip", "none"] = "gzip"
        labels: tuple[str, ...] = ("command_name",)
        """Properties without a declared set of values that become attributes of metrics."""
        most_values: int = 100
        """How many values each of those attributes has; others become ``other``."""
        buckets: tuple[float, ...] = SECONDS
        """Upper bounds of the histograms of durations, in seconds."""

        def __post_init__(self) -> None:
            if fault := check_endpoint(self.endpoint):
                raise ValueError(fault)
            read_headers(self.headers)
            if not self.signals or len(set(self.signals)) < len(self.signals):
                raise ValueError(f"signals: found {list(self.signals)}; expected some of traces, logs and metrics")
            if not 1 <= self.most_values <= 10_000:
                raise ValueError(f"most_values: found {self.most_values}; expected 1 to 10000")
            if not are_bounds(self.buckets):
                raise ValueError(f"buckets: found {list(self.buckets)}; expected numbers above 0 that rise")

        def __repr__(self) -> str:  # headers stay out of logs and tracebacks
            return f"Settings(endpoint={self.endpoint!r})"

    setup: ClassVar[Setup | None] = None
    """What the core gave the plugin to work with; None for a reporter that is given by code."""

    def __init__(self, settings: Settings, *, specs: Sequence[TelemetrySpec] = ()) -> None:
        """``specs`` are those in force, for a reporter that is given by code: cmdorc's own are used in any case."""
        super().__init__(settings, settings.endpoint)
        self._settings = settings
        self._headers = {**read_headers(settings.headers), "Content-Type": PROTOBUF, "Accept": PROTOBUF}
        self._specs = (*specs, *(self.setup.specs if self.setup is not None else ()))
        self._made: Catalogue | None = None
        self._plan: Plan | None = None
        self._folder = Home.of(CMDORC).plugins / self.name if self.setup is None else self.setup.folder

    def state_of(self, destination: str) -> State:
        """What was counted for a destination, and what arrived. Nothing is there before the first batch.

        Each has its own: two that lead to the same receiver may send other signals, or say who they are otherwise.
        """
        name = blake2b(f"{destination}\0{self.endpoint}".encode(), digest_size=6).hexdigest()
        return State(self._folder / f"{name}.db", self._settings.most_values)

    async def report_batch(self, batch: Batch) -> BatchResult:
        """Send a batch. Raises RetryLater, TooLarge or Rejected. What has arrived by then is not sent again."""
        if not batch.events:
            return BatchResult()
        state = self.state_of(batch.destination)
        try:
            async with state.counts.locked():
                plan = self._planned(batch)
                state.commit(plan.draft)
            return await self._send(plan, state)
        except StorageError as fault:
            raise RetryLater(str(fault)) from None
        except (OSError, sqlite3.Error) as fault:
            raise RetryLater(f"{state.path}: {getattr(fault, 'strerror', None) or fault}") from None
        finally:
            self._plan = None

    def encode(self, batch: Batch) -> bytes:
        """The bodies of the requests, one behind the other: what of the batch has not arrived yet, and the series that
        it changes, as they are then. ``report_batch`` sends just these."""
        return b"".join(request.body for request in self._planned(batch).requests)

    # -- what is sent -------------------------------------------------------------------------------------------------

    def _planned(self, batch: Batch) -> Plan:
        """The plan for a batch: the one that its bytes were made of, where they were."""
        if self._plan is None or self._plan.batch is not batch:
            self._plan = self._new_plan(batch)
        return self._plan

    def _new_plan(self, batch: Batch) -> Plan:
        from . import messages

        facts = [Facts(event) for event in batch.events]
        catalogue = self._catalogue() if "metrics" in self._settings.signals else None
        draft = self.state_of(batch.destination).draft(facts, catalogue, clock.wall(), _ARRIVED["metrics"])
        requests: list[Request] = []
        left = [each for each in _left(facts, draft, _ARRIVED["traces"]) if span_of(each) is not None]
        if "traces" in self._settings.signals and left:
            body = messages.traces(left).SerializeToString()
            requests.append(Request("traces", body, tuple(each.event_id for each in left)))
        # The events that traces are made of are spans alone: what they say of runs, the core's own say.
        left = [each for each in _left(facts, draft, _ARRIVED["logs"]) if not each.is_trace]
        if "logs" in self._settings.signals and left:
            body = messages.log_records(left).SerializeToString()
            requests.append(Request("logs", body, tuple(each.event_id for each in left)))
        made = messages.points(draft.families, draft.samples, draft.periods)
        requests += [Request("metrics", each.SerializeToString()) for each in made]
        return Plan(batch, draft, tuple(requests))

    def _catalogue(self) -> Catalogue:
        if self._made is None:
            specs = {spec.ref: spec for spec in self._specs}
            if self.setup is None:
                core = load_spec(CORE)
                specs[core.ref] = core
            self._made = Catalogue(specs.values(), self._settings.labels, self._settings.buckets)
        return self._made

    # -- how it is sent -----------------------------------------------------------------------------------------------

    async def _send(self, plan: Plan, state: State) -> BatchResult:
        refused: dict[str, str] = {}
        told: list[str] = []
        measured = [request for request in plan.requests if request.signal == "metrics"]
        for request in plan.requests:
            if request.signal == "metrics":
                break
            count, said = await self._post(request, len(plan.batch.events))
            if count:
                told.append(f"{request.signal}: {count} of {len(request.event_ids)} not taken: {said}")
                if count >= len(request.event_ids):
                    refused.update(dict.fromkeys(request.event_ids, told[-1]))
            state.arrived(request.event_ids, _ARRIVED[request.signal])
        try:
            for request in measured:
                count, said = await self._post(request, 1)
                if count:
                    told.append(f"metrics: {count} points not taken: {said}")
        except (TooLarge, Rejected) as fault:  # of all that was ever counted: no event is to blame
            told.append(str(fault))
        if "metrics" in self._settings.signals:
            state.arrived((event.event_id for event in plan.batch.events), _ARRIVED["metrics"])
        return BatchResult(
            results=tuple(EventResult(event.event_id, "rejected" if event.event_id in refused else "accepted",
                                      refused.get(event.event_id)) for event in plan.batch.events),
            answer={"message": "; ".join(told)[:500]} if told else None,
        )  # fmt: skip

    async def _post(self, request: Request, events: int) -> tuple[int, str]:
        """Send a request. How many of what it holds were not taken, and why. Raises RetryLater, TooLarge, Rejected."""
        from .answers import judge

        path, headers, body = f"/v1/{request.signal}", self._headers, request.body
        if self._settings.compression == "gzip":
            import gzip

            # Level 1 makes a tenth more than 6, in less than half of the time. No mtime: the same bytes for the same.
            headers, body = {**headers, "Content-Encoding": "gzip"}, gzip.compress(body, 1, mtime=0)
        answer = await self.request("POST", path, headers, body)
        return judge(request.signal, answer, self.endpoint + path, clock.wall(), events=events)


def _left(facts: Sequence[Facts], draft: Draft, signal: int) -> list[Facts]:
    """Those of which a signal has not arrived."""
    return [each for each in facts if not draft.arrived.get(each.event_id, 0) & signal]
