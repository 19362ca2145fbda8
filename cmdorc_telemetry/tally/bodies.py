"""Bodies, read by those who take nothing for granted that is in them."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import msgspec

from ..types import BatchEvent

_MOST = 2**53
"""What is further from zero is no value that capture takes."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def body_of(event: BatchEvent) -> dict[str, Any]:
    """The body, decoded; empty where it is nothing that the gate lets out."""
    try:
        return _decode(event.body)
    except _UNREADABLE:
        return {}


def seconds_of(timestamp: object) -> float | None:
    """A timestamp as seconds since the epoch; None for what is none."""
    return _seconds(timestamp) if isinstance(timestamp, str) else None


def measured(value: object) -> float | None:
    """``value``, where it is a number that capture takes."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST else None


@lru_cache(maxsize=256)  # most events of a batch are of the same few seconds
def _seconds(timestamp: str) -> float | None:
    try:
        moment = msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


_decode = msgspec.json.Decoder(dict[str, Any]).decode  # made here: two threads must not be the first to use a type
