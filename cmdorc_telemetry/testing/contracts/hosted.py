"""What a reporter promises that posts JSON to a service of others, which has names of its own for what events have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ...decoding import secrets
from ...errors import Rejected, RetryLater, TooLarge
from ...reporter import TelemetryReporter
from ...types import Batch, BatchEvent
from ..machine import DESTINATION
from ..messages import Answer
from .httpreporter import HttpReporterContract

NEEDED = ("event_id", "anonymous_install_id", "timestamp")
"""What tells events, installs and moments apart. A user's ``rename`` may take it away."""
_RAW = b'"x1":1.0,"x2":1e3,"x3":"\\u00fc \xc3\xbc","x4":[ 1, 2],"x5":12345678901234567890'
"""Fields that anybody who reads them and writes them anew would write otherwise."""


class HostedContract(HttpReporterContract):
    """Subclass it like :class:`HttpReporterContract`, and say what the service documents: ``documented``.

    ``answer`` best does to each request what the service does, also where it throws something away and says nothing.
    """

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def documented(self, payloads: Sequence[dict[str, Any]]) -> Any:
        """The JSON of a request for events with these bodies: all that the service is told."""
        raise NotImplementedError("say what a request for some events looks like")

    # -- the promises -------------------------------------------------------------------------------------------------

    def test_a_request_is_as_documented_and_nothing_is_added(self) -> None:
        """Every field that the gate let out is there once, under the service's name or its own, and no other is."""
        batch = self.batch(2)
        sent = json.loads(self.make().encode(batch))
        assert sent == self.documented([event.payload for event in batch.events])

    def test_values_leave_as_the_gate_let_them_out(self) -> None:
        """Byte for byte: what was shown as ``1.0`` is not sent as ``1``."""
        (event, *_) = self.batch().events
        body = event.body.removesuffix(b"}") + b"," + _RAW + b"}"
        sent = self.make().encode(Batch(destination=DESTINATION, events=(BatchEvent(event.event_id, "e", body),)))
        missing = [field.decode() for field in _fields(_RAW) if field not in sent]
        assert missing == []

    @pytest.mark.parametrize("name", NEEDED)
    def test_what_rename_took_away_is_waited_for(self, name: str) -> None:
        """Without it the service would count the event twice, for nobody, or at another time."""
        (event, *_) = self.batch().events
        body = json.dumps({key: value for key, value in event.payload.items() if key != name}).encode()
        with pytest.raises(RetryLater, match=f"{name}.*rename"):
            self.send(Batch(destination=DESTINATION, events=(BatchEvent(event.event_id, event.event, body),)))
        assert self.server.seen == []

    @pytest.mark.parametrize("code", [401, 403, 404, 405, 402, 302, 204])
    def test_a_wrong_setting_loses_nothing_and_is_named(self, code: int) -> None:
        """The key, the address: it says which to check, and repeats no secret."""
        settings = self.settings()
        hidden = secrets(self.reporter_class().Settings)
        kept = [str(value) for key, value in settings.items() if key in hidden]
        self.server.answer = lambda request: Answer(code, b"{}")
        for batch in (self.batch(2), Batch(destination=DESTINATION, events=self.batch().events[:1])):
            with pytest.raises(RetryLater) as raised:
                self.send(batch)
            said = str(raised.value)
            assert f"({code})" in said
            assert [key for key in settings if f"'{key}'" in said], f"no setting to check in {said!r}"
            assert not [secret for secret in kept if secret in said]

    def test_an_event_that_is_refused_costs_no_other(self) -> None:
        """400 for a batch asks for smaller ones, until the one at fault is alone: that alone is given up."""
        events = self.batch(2).events
        refused = events[len(events) // 2].event_id
        name = refused.encode()
        self.server.answer = lambda request: Answer(400) if name in request.plain else self.answer(request)
        aside = self.use(lambda reporter: _given_up(reporter, events))
        assert aside == {refused}
        assert set(self.received()) == {event.event_id for event in events} - {refused}


async def _given_up(reporter: TelemetryReporter, events: Sequence[BatchEvent]) -> set[str]:
    """What delivery would set aside of some events."""
    try:
        await asyncio.wait_for(reporter.report_batch(Batch(destination=DESTINATION, events=tuple(events))), 5)
        return set()
    except Rejected:
        if len(events) == 1:
            return {events[0].event_id}
    except TooLarge:
        if len(events) == 1:  # it would be dropped for a reason that is not the true one
            raise
    half = len(events) // 2
    return await _given_up(reporter, events[:half]) | await _given_up(reporter, events[half:])


def _fields(raw: bytes) -> list[bytes]:
    """The single fields of a body, as they are written."""
    found = msgspec.json.decode(b"{%b}" % raw, type=dict[str, msgspec.Raw])
    return [b'"%b":%b' % (name.encode(), bytes(value)) for name, value in found.items()]
