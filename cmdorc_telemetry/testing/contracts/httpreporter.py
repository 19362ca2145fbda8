"""What a reporter promises that sends over HTTP: whatever fails on the way, no event is lost, and none leaks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ...delivery.results import checked
from ...errors import Rejected, RetryLater, TooLarge
from ...reporter import TelemetryReporter
from ...types import Batch, BatchEvent
from ..faults import FAULTS
from ..messages import Answer, Receiver, Request
from ..server import FaultServer
from .reporter import ReporterContract

TRANSPORT = tuple(fault.name for fault in FAULTS.values() if not fault.tls and fault.name not in {
    "204", "empty-200", "html", "broken-json", "other-shape", "unknown-ids", "partial-results", "some-rejected",
    "deep-json", "wrong-content-encoding", "huge-body", "endless-body", "endless-chunks",
})  # fmt: skip
"""Faults of connections and statuses: for receivers of which a 200 means that all is well, whatever its body says."""
EVERY = tuple(fault.name for fault in FAULTS.values() if not fault.tls)
"""Also faults of the answers of a telemetry server."""
_TLS = tuple(fault.name for fault in FAULTS.values() if fault.tls)
_PATIENCE_SECONDS = 0.6
_ROUNDS = 40
_TICK = 0.01
_LOOK_SECONDS = 1.5


class HttpReporterContract(ReporterContract):
    """Subclass it, name the plugin, and give the ``settings`` that lead to ``self.endpoint``.

    Where the receiver speaks a protocol of its own: ``answer`` is what it answers, ``received`` the ids it has, and
    ``faults`` are those that it can have.
    """

    server: FaultServer
    """A server on loopback that fails as it is told."""
    faults: Sequence[str] = EVERY

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def settings(self) -> Mapping[str, Any]:
        """The keys of a destination that leads to ``self.endpoint``."""
        return {"endpoint": self.endpoint}

    def answer(self, request: Request) -> Answer:
        """What the receiver answers where nothing goes wrong; by itself what a telemetry server does."""
        return self.receiver(request)

    def received(self) -> Sequence[str]:
        """The ids that the receiver holds."""
        return list(self.receiver.stored)

    # -- what the contract does ---------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """Where to send to."""
        return self.server.endpoint

    @contextmanager
    def prepared(self, folder: Path) -> Iterator[None]:
        """A server, in memory."""
        self.receiver = Receiver()
        with FaultServer(answer=self.answer) as self.server, super().prepared(folder):
            yield

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Nobody listens."""
        self.server.fail("refused")
        try:
            yield
        finally:
            self.server.fail(None)

    def visible(self) -> bytes:
        """Every request, its headers and what is in its body."""
        return b"\n".join(
            b"%b %b\n%b" % (each.path.encode(), str(each.headers.items()).encode(), each.plain)
            for each in self.server.seen
        )

    # -- the promises -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("fault", EVERY)
    def test_whatever_goes_wrong_each_event_arrives_and_none_counts_before(self, fault: str) -> None:
        """What is refused comes again until it is taken; an answer that says nothing is no acknowledgement."""
        if fault in self.faults:
            aside = self.use(lambda reporter: self._settled(reporter, fault), seconds=60)
            assert aside <= self.server.rejected, "it gave up events that the receiver never refused"
            assert set(self.received()) | aside == {event.event_id for event in self.batch_sent.events}

    async def _settled(self, reporter: TelemetryReporter, fault: str) -> set[str]:
        """Send as delivery would, the first time with a fault. The events that were set aside."""
        self.batch_sent = self.batch()
        pending, aside, most = list(self.batch_sent.events), set[str](), len(self.batch_sent.events)
        self.server.fail(fault)
        for _ in range(_ROUNDS):
            if not pending:
                return aside
            before = most
            taken, refused, most = await self._once(reporter, pending[:most], most)
            assert taken <= set(self.received()), "it counts as delivered what has not arrived"
            aside |= refused
            pending = [event for event in pending if event.event_id not in taken | refused]
            if most == before:  # otherwise smaller batches are asked for: they meet the same fault
                self.server.fail(None)
        raise AssertionError(f"{len(pending)} events still wait though all is well again")

    async def _once(
        self, reporter: TelemetryReporter, events: Sequence[BatchEvent], most: int
    ) -> tuple[set[str], set[str], int]:
        """What was taken, what was refused for good, and how many events a batch may have from now on."""
        batch = Batch(destination="contract", events=tuple(events))
        ids = {event.event_id for event in events}
        try:
            result = checked(await asyncio.wait_for(reporter.report_batch(batch), _PATIENCE_SECONDS))
        except (TooLarge, Rejected):
            return set(), ids if len(ids) == 1 else set(), max(1, len(ids) // 2)
        except Exception:
            return set(), set(), most
        if result.results is None:
            return ids, set(), most
        said = {each.event_id: each.status for each in result.results}
        return ({each for each in ids if said.get(each) in ("accepted", "duplicate")},
                {each for each in ids if said.get(each) == "rejected"}, most)  # fmt: skip

    @pytest.mark.parametrize("fault", ["429-seconds", "503-seconds"])
    def test_a_receiver_that_asks_for_a_pause_gets_it(self, fault: str) -> None:
        """It raises RetryLater with what ``Retry-After`` says."""
        self.server.fail(fault)
        with pytest.raises(RetryLater) as raised:
            self.send(self.batch())
        assert raised.value.after == pytest.approx(1, abs=0.5)

    def test_it_goes_nowhere_else(self) -> None:
        """A redirect leads where nobody agreed to send anything: it is not followed."""
        for fault in ("301", "302", "307", "308"):
            self.server.fail(fault)
            with pytest.raises(Exception):  # noqa: B017, PT011 - which one is its own affair
                self.send(self.batch())
        assert not [each.path for each in self.server.seen if "elsewhere" in each.path]

    def test_while_it_waits_for_an_answer_its_loop_goes_on(self) -> None:
        """Nothing blocks: a deadline can only end what awaits."""
        self.server.fail("hang-after-reading")

        async def waiting(reporter: TelemetryReporter) -> float:
            call = asyncio.ensure_future(reporter.report_batch(self.batch()))
            longest, now = 0.0, asyncio.get_running_loop().time
            end = now() + _LOOK_SECONDS
            while now() < end:
                before = now()
                await asyncio.sleep(_TICK)
                longest = max(longest, now() - before)
            call.cancel()
            done, _ = await asyncio.wait([call], timeout=_PATIENCE_SECONDS)
            assert done, "it goes on though it was cancelled"
            return longest

        assert self.use(waiting) < _LOOK_SECONDS / 2
        assert self.server.injected["hang-after-reading"], "it sent nothing"

    def test_it_sends_what_it_said_it_would(self) -> None:
        """What ``encode`` said before is all that is on the wire then, before compression: the bodies of the requests,
        one behind the other. ``show-payload`` prints it, and the audit keeps its digest."""
        batch = self.batch(2)
        said = self.make().encode(batch)
        self.send(batch)
        assert b"".join(request.plain for request in self.server.seen) == said

    @pytest.mark.parametrize("fault", _TLS)
    def test_who_cannot_prove_who_it_is_gets_nothing(self, fault: str, tmp_path: Path) -> None:
        """A certificate that is not to be trusted ends it before anything is said."""
        with self._secure():
            self.server.fail(fault)
            with pytest.raises(Exception):  # noqa: B017, PT011 - likewise
                self.send(self.batch())
            assert self.server.seen == []
            self.server.fail(None)
            self.send(self.batch())
            assert self.received()

    @contextmanager
    def _secure(self) -> Iterator[None]:
        """A server with TLS in the place of the usual one, and a machine that trusts it."""
        usual = self.server
        with ExitStack() as stack:
            stack.callback(setattr, self, "server", usual)
            self.server = stack.enter_context(FaultServer(answer=self.answer, tls=True))
            stack.enter_context(mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(self.server.authority)}))
            self.enable()
            yield
