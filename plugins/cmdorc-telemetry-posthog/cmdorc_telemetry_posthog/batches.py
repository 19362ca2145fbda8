"""A batch as PostHog's capture API wants it. Pure: the same batch is the same bytes, whenever it is sent.

There is no ``sent_at``, which would shift the events' own times, and nothing that the spec does not declare but three
orders to PostHog, each of which makes it keep less.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from cmdorc_telemetry.errors import Rejected, TooLarge
from cmdorc_telemetry.http.bodies import split
from cmdorc_telemetry.types import Batch, BatchEvent

MOST_OF_A_BATCH = 20_000_000
"""Bytes, at which PostHog refuses a request."""
MOST_OF_AN_EVENT = 900 * 1024
"""Bytes. PostHog silently discards an event of a megabyte, and counts what it adds itself."""

_NAMES = {"uuid": "event_id", "event": "event", "distinct_id": "anonymous_install_id", "timestamp": "timestamp"}
"""What every event has: as PostHog calls it → as it is called here."""
_LESS = {
    "$geoip_disable": True,
    # Where it has none, PostHog writes down the address that the request came from.
    "$ip": "0.0.0.0",  # noqa: S104 - nothing is listened at
    "$process_person_profile": False,
}
"""What makes PostHog look up no place, keep no address and make no person."""

_encode = msgspec.json.Encoder().encode


def encoded(batch: Batch, api_key: str, *, historical: bool) -> bytes:
    """The body of a request. Raises TooLarge where PostHog would not take it, Rejected or RetryLater for an event."""
    events = [_event(event) for event in batch.events]
    migration = b'"historical_migration":true,' if historical else b""
    body = b'{"api_key":%b,%b"batch":[%b]}' % (_encode(api_key), migration, b",".join(events))
    if len(body) >= MOST_OF_A_BATCH:
        raise TooLarge(f"PostHog takes no batch of {MOST_OF_A_BATCH} bytes or more; found {len(body)}")
    return body


def _event(event: BatchEvent) -> bytes:
    base, properties = split(event.body, _NAMES)
    try:
        UUID(event.event_id)
    except ValueError:
        raise Rejected("the event has an event_id that is no UUID: PostHog would discard it, and say nothing") from None
    body = _encode({**base, "properties": {**properties, **_LESS}})
    if len(body) >= MOST_OF_AN_EVENT:
        raise TooLarge(f"PostHog keeps no event of {MOST_OF_AN_EVENT} bytes or more; found {len(body)}")
    return body
