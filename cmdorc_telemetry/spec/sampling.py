"""Which events are shared: a share of them, drawn the same way each time, and conditions on what an event tells.

    share   what an event's values make of its rate: all of it where it is one to share always, none where a condition
            does not hold
    subject whom its draw is for: the event, or the value that it is sampled by, as a keyed digest

Conditions only ever see values that the shared body tells: that an event is shared must give nothing else away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .conditions import Condition, parse
from .model import Event, TelemetrySpec


def sampled(subject: str, rate: float, of: float = 1.0) -> bool:
    """Whether a subject, which is among the share ``of`` of all, is among the share ``rate``: always the same answer.

    What was drawn before, and how, makes no difference to it: the share of those that are left is ``rate`` of all.
    """
    import hashlib  # which takes a start longer than it takes to record

    text = subject if of == 1 else f"{subject} {of!r}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < rate / of * 2**64


class Sampler:
    """The sampling of one event, its conditions parsed."""

    def __init__(self, spec: TelemetrySpec, event: Event) -> None:
        told = event.sampling
        self.rate = spec.sampling_rate(event)
        self._conditions = _parsed(told.conditions) if told else ()
        self._always = _parsed(told.always) if told else ()
        self.by = told.by if told and told.by in event.properties and not event.masks(told.by) else ""
        """The property whose events are shared all or none; one that is never recorded tells nobody apart."""

    @property
    def asks(self) -> bool:
        """Whether it depends on an event's values."""
        return bool(self._conditions or self._always)

    @property
    def some(self) -> bool:
        """Whether it can keep an event from being shared."""
        return self.rate < 1 or bool(self._conditions)

    def share(self, values: Mapping[str, Any]) -> float | None:
        """The share of such events, with what of their values may be told, that is shared; None for none at all."""
        if any(condition.holds(values) for condition in self._always):
            return 1.0
        return self.rate if all(condition.holds(values) for condition in self._conditions) else None

    def subject(self, captured: bytes, event_id: str, key: bytes) -> str:
        """Whom the draw is for: what the captured body is sampled by, or else the event.

        Without ``key``, which never leaves this machine, nobody can find out whether a value is among those drawn;
        where there is none, it is the event.
        """
        if not (self.by and key):
            return event_id
        value = msgspec.json.decode(captured).get(self.by)
        if value is None:
            return event_id
        import hmac

        return hmac.digest(key, msgspec.json.encode(value), "sha256").hex()


def _parsed(texts: tuple[str, ...]) -> tuple[Condition, ...]:
    return tuple(map(parse, texts))
