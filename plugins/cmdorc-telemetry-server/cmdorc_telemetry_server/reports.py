"""What becomes of the events of one request: judged, limited, stored, answered. Knows nothing of HTTP but statuses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.spec import read_wishes
from cmdorc_telemetry.types import EventStatus

from .drops import Drops, parse
from .intake import Intake, Refusal
from .ranks import percentile
from .ratelimit import RateLimit
from .settings import Settings
from .store import Record, Store


class Result(Struct, frozen=True, omit_defaults=True):
    """What became of one event."""

    event_id: str
    """Empty where the line did not say it, or not in the form of a UUID."""
    status: EventStatus
    reason: str | None = None
    detail: str | None = None


class Answer(Struct, frozen=True):
    """The body of the answer to a report. ``results`` has one entry an event, in their order."""

    message: str
    stats: dict[str, int]
    results: list[Result]


class Reports:
    """Takes reports into a store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._k = settings.k
        self._store = store
        wishes = read_wishes(dict(settings.policy))
        self._intake = Intake(settings.registry, accept_private=settings.accept_private, wishes=wishes)
        self._limit = RateLimit(settings.rate_limit)
        self.malformed_drops = 0
        """Headers about drops that could not be read."""

    async def take(self, lines: Sequence[bytes], drops: str | None, now: float) -> tuple[Answer, int]:
        """The answer to ``lines``, and the seconds after which what was limited may come again (0: nothing was).

        ``drops`` is the client's own account of its losses. Raises StoreUnavailable.
        """
        verdicts = [self._intake.judge(line, now) for line in lines]
        numbers = Counter(verdict.install for verdict in verdicts if isinstance(verdict, Record))
        waits = {install: self._limit.take(install, number, clock.monotonic()) for install, number in numbers.items()}
        records = [verdict for verdict in verdicts if isinstance(verdict, Record) and not waits[verdict.install]]
        sender = records[0].install if len(numbers) == 1 and records else None
        flags = iter(await self._store.append(records, self._drops(drops, sender)) if records else ())
        results = []
        for verdict in verdicts:
            if isinstance(verdict, Refusal):
                results.append(Result(verdict.event_id, "rejected", verdict.reason, verdict.detail))
            elif waits[verdict.install]:
                results.append(Result(verdict.event_id, "retry", "rate-limited"))
            else:
                results.append(Result(verdict.event_id, "accepted" if next(flags) else "duplicate"))
        answer = Answer("Thanks!", await self._stats(sender), results)
        return answer, math.ceil(max(waits.values(), default=0.0))

    def _drops(self, header: str | None, sender: str | None) -> Drops | None:
        if header is None or sender is None:
            return None
        found = parse(header)
        if found is None:
            self.malformed_drops += 1
            return None
        return Drops(install=sender, epoch=found[0], counts=found[1]) if found[1] else None

    async def _stats(self, sender: str | None) -> dict[str, int]:
        value = percentile(await self._store.rank(sender), self._k) if sender is not None else None
        return {} if value is None else {"percentile_duration": value}
