"""A batch as Segment's Tracking API wants it. Pure: the same batch is the same bytes, whenever it is sent.

There is no ``sentAt``, which would shift the events' own times, and no ``context``: Segment adds an address to it only
where it is asked to.
"""

from __future__ import annotations

import msgspec

from cmdorc_telemetry.errors import Rejected, TooLarge
from cmdorc_telemetry.http.bodies import split
from cmdorc_telemetry.types import Batch, BatchEvent

MOST_OF_A_BATCH = 500_000
"""Bytes, at which Segment refuses a request."""
MOST_OF_AN_EVENT = 32_000
"""Bytes, at which it refuses an event."""
MOST_EVENTS = 2_500
"""Of one request. What is beyond Segment discards, and says nothing."""

_NAMES = {"messageId": "event_id", "event": "event", "anonymousId": "anonymous_install_id", "timestamp": "timestamp"}
"""What every event has: as Segment calls it → as it is called here."""
_LONGEST_ID = 100

_encode = msgspec.json.Encoder().encode


def encoded(batch: Batch) -> bytes:
    """The body of a request. Raises TooLarge where Segment would not take it, Rejected or RetryLater for an event."""
    if len(batch.events) > MOST_EVENTS:
        raise TooLarge(f"Segment takes {MOST_EVENTS} events at once; found {len(batch.events)}")
    body = b'{"batch":[%b]}' % b",".join([_event(event) for event in batch.events])
    if len(body) >= MOST_OF_A_BATCH:
        raise TooLarge(f"Segment takes no batch of {MOST_OF_A_BATCH} bytes or more; found {len(body)}")
    return body


def _event(event: BatchEvent) -> bytes:
    base, properties = split(event.body, _NAMES)
    if len(event.event_id) >= _LONGEST_ID:
        raise Rejected(f"the event has an event_id of {_LONGEST_ID} characters or more")
    body = _encode({"type": "track", **base, "properties": properties})
    if len(body) >= MOST_OF_AN_EVENT:
        raise TooLarge(f"Segment takes no event of {MOST_OF_AN_EVENT} bytes or more; found {len(body)}")
    return body
