"""What an HTTP answer means for a batch. Pure: no network, and the moment is passed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timezone
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import DeliveryError, Rejected, RetryLater, TooLarge

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a body that is not the JSON it should be."""


class Answer(Struct, frozen=True):
    """An answer as it came. ``body`` is None where it was larger than this client reads."""

    status: int
    body: bytes | None = b""
    headers: Mapping[str, str] = {}


def refusal(answer: Answer, *, count: int, host: str, now: float, hints: Mapping[int, str]) -> DeliveryError:
    """What to raise for an answer to a batch of ``count`` events that is no success.

    TooLarge where smaller batches may be taken, Rejected where the one event never will be, RetryLater for all else.
    ``now`` is in seconds since the epoch. ``hints``: status → what to check; under 0 for those that it does not have.
    """
    status = answer.status
    if status == 413 or (status in (400, 422) and count > 1):
        return TooLarge(f"{host} does not take this batch as a whole ({status}){reason(answer)}")
    if status in (400, 422):
        return Rejected(f"{host} finds the event invalid ({status}){reason(answer)}")
    if status in (408, 429) or status >= 500:
        after = retry_after(answer.headers.get("Retry-After"), _moment(answer.headers.get("Date")) or now)
        return RetryLater(f"{host} is not ready ({status}){reason(answer)}", after)
    if 300 <= status < 400:
        location = printable(answer.headers.get("Location"), 200) or "nowhere"
        return RetryLater(f"{host} redirects to {location} ({status}): nothing is sent there; check 'endpoint'")
    return RetryLater(f"{host} {hints.get(status) or hints[0]} ({status})")


def retry_after(value: str | None, now: float) -> float | None:
    """``Retry-After`` (seconds or an HTTP date) as seconds from ``now``; None where it says nothing usable.

    ``now`` is by the server's own clock where it tells it. How much of it is honoured is for the core to decide.
    """
    text = (value or "").strip()
    if re.fullmatch("[0-9]+", text):
        return float(text)
    moment = _moment(text)
    return moment - now if moment is not None and moment >= now else None


def _moment(text: str | None) -> float | None:
    """An HTTP date as seconds since the epoch; None where it is none."""
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def printable(value: object, limit: int) -> str:
    """A server's text made safe for a terminal, at most ``limit`` characters; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(char for char in value if char.isprintable())[:limit]


def document(answer: Answer) -> dict[str, Any]:
    """The JSON object that a server answers with; an empty one where it answers with something else."""
    try:
        return msgspec.json.decode(answer.body or b"", type=dict[str, Any])
    except UNREADABLE:
        return {}


def reason(answer: Answer) -> str:
    """What the server says is wrong, as ``: text``; empty where it says nothing readable."""
    said = document(answer)
    for name in ("reason", "message", "detail", "error"):
        if text := printable(said.get(name), 200):
            return f": {text}"
    return ""
