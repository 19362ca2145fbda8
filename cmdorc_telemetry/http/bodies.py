"""Bodies for services that have names of their own for what every event has. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import RetryLater

Fields = dict[str, msgspec.Raw]
"""Fields of a body, each value the very bytes that the gate let out."""

_fields = msgspec.json.Decoder(Fields)


def split(body: bytes, names: Mapping[str, str]) -> tuple[Fields, Fields]:
    """The fields that the service calls otherwise, as ``names`` (theirs → ours) say, and all others.

    Raises RetryLater where one of them is not there, as the user's ``rename`` has it: the event waits until it is.
    """
    others = _fields.decode(body)
    missing = [ours for ours in names.values() if ours not in others]
    if missing:
        raise RetryLater(f"it needs {', '.join(missing)}: check the destination's 'rename'")
    return {theirs: others.pop(ours) for theirs, ours in names.items()}, others
