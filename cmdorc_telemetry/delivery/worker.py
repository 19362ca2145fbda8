"""Sends what waits for one destination, batch by batch, and enters what became of each event.

What a destination gets of an event is decided by a function that it is given; sent are only bodies of the gate's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .. import clock, files
from ..audit import SET_ASIDE, UNKNOWN, Entered
from ..bounds import DEFAULT, EXIT_SECONDS, Bounds
from ..errors import Rejected, RetryLater, TooLarge, told
from ..spec import kept_policy
from ..types import Batch, BatchEvent, BatchResult, EventResult, Lease, Leased, Ledger
from .cell import BlockedError
from .outlet import Destination, Outlet
from .pace import Filling, Patience, most_events, pause, pause_asked

log = logging.getLogger("cmdorc_telemetry")

TAKE_OVER_SECONDS = 60.0
"""How long beyond its timeout a sender may hold its lock without a sign before it is taken for a stopped process."""
POLICY_SECONDS = 86400.0
"""How often at most a receiver is asked whether it wants less."""
_STORAGE_SECONDS = 60.0
_BLOCKED_SECONDS = 5.0
_BUSY_SECONDS = (0.1, 5.0)
"""How soon to look again where somebody else sends: first, and at most."""
_FLUSH_FAILURES = 3
_FLUSH_PAUSE = 15.0
_FLUSH_LOOKS = 0.2


class Queue(Protocol):
    """What delivery needs of the spool."""

    epoch: str

    @property
    def gone(self) -> bool: ...
    def state(self, name: str) -> tuple[int, float]: ...
    def mark(self, name: str) -> float: ...
    def backlog(self, name: str, most: int) -> tuple[int, int, float]: ...
    def retry_at(self, name: str) -> float | None: ...
    def lease(self, name: str, now: float, *, count: int = ..., size: int = ...) -> Lease | None: ...
    def settle(
        self, lease: Lease, outcomes: Mapping[int, EventResult], now: float, *,
        pause: Callable[[int], float] = ..., answer: Mapping[str, Any] | None = ...,
    ) -> None: ...  # fmt: skip
    def postpone(self, name: str, until: float, error: str) -> None: ...
    def hurry(self) -> None: ...
    def acknowledged(self, name: str) -> int: ...
    def drops(self, name: str) -> dict[str, int]: ...
    def account(self, name: str) -> tuple[str, dict[str, int]]: ...
    def policy(self, name: str) -> tuple[str, float]: ...
    def ask_policy(self, name: str, now: float) -> None: ...
    def keep_policy(self, name: str, policy: str) -> None: ...
    def ledger(self) -> dict[str, Ledger]: ...
    def abandon(self, name: str, reason: str) -> None: ...
    def close(self) -> None: ...


class Worker:
    """Sends the events of one destination, batch by batch; never raises."""

    def __init__(
        self, destination: Destination, queue: Queue, locks: Path, bounds: Bounds = DEFAULT, *,
        take_over: float = TAKE_OVER_SECONDS,
    ) -> None:  # fmt: skip
        self.destination = destination
        self._queue, self._bounds, self._take_over = queue, bounds, take_over
        self._lock = files.FileLock(locks / f"{destination.name}.lock")
        self._heir = files.FileLock(locks / f"{destination.name}.heir.lock")
        self._outlet = Outlet(destination)
        self._most = bounds.batch_events
        self._failed = 0
        self._patience, self._filling = Patience(bounds.pause_seconds), Filling(bounds)
        self._turn, self._nudged = asyncio.Lock(), asyncio.Event()
        self._ending = self._told = False
        self._busy: tuple[float, float] | None = None
        """The last sign of another sender that holds the lock, and since when it is the last."""
        self._look = _BUSY_SECONDS[0]

    # -- when ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what comes, until ``end``."""
        while not self._ending:
            self._nudged.clear()
            wait = await self.step()
            if wait == 0:
                await asyncio.sleep(0)
                continue
            timer = None if wait is None else asyncio.get_running_loop().call_later(wait, self._nudged.set)
            try:
                await self._nudged.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def nudge(self) -> None:
        """Something may wait."""
        self._nudged.set()

    def end(self) -> None:
        """Let ``run`` end behind the batch that is under way."""
        self._ending = True
        self._nudged.set()

    async def step(self, *, hurry: bool = False) -> float | None:
        """Send one batch. The seconds until there may be more: 0 for at once, None for nothing waiting.

        ``hurry``: also one that is not full, now.
        """
        async with self._turn:
            try:
                return await self._step(hurry)
            except Exception as fault:  # of the disk
                log.debug("delivery to %s waits: %s", self.destination.name, told(fault))
                return _STORAGE_SECONDS

    async def _step(self, hurry: bool) -> float | None:
        if self._outlet.blocked:
            return _BLOCKED_SECONDS
        wait = self._paused()[1] or (0.0 if hurry else self._unfilled())
        if wait != 0:
            return wait
        if not self._may_send():
            self._look = min(self._look * 2, _BUSY_SECONDS[1])
            return self._look / 2
        try:
            failures, wait = self._paused()  # again: who held the lock may have failed
            if wait:
                return wait
            count = most_events(failures, self._most)
            lease = self._queue.lease(
                self.destination.name, clock.wall(), count=count, size=self._bounds.batch_kib << 10
            )
            if lease is None:
                self._filling.over()
                due = self._due()  # never at once: whatever keeps the queue from giving it would be asked without end
                return None if due is None else max(due, _BUSY_SECONDS[0])
            await self._send(lease)
            return 0.0
        finally:
            self._lock.release()
            self._heir.release()

    def _paused(self) -> tuple[int, float]:
        """Failures in a row, and the seconds for which the destination is still left alone."""
        failures, until = self._queue.state(self.destination.name)
        return failures, self._patience.left(until, clock.wall(), clock.monotonic())

    def _due(self) -> float | None:
        """Seconds until an event that was put off is due; None for none."""
        due = self._queue.retry_at(self.destination.name)
        away = 0.0 if due is None else max(due - clock.wall(), 0.0)
        if away > self._bounds.pause_seconds:  # from before the clock was set back
            away = 0.0
        return None if due is None else away

    def _unfilled(self) -> float | None:
        """Seconds for which the next batch may wait for more events; None where none waits."""
        count, size, oldest = self._queue.backlog(self.destination.name, self._bounds.batch_events)
        left = self._filling.left(count, size, oldest, clock.wall(), clock.monotonic()) if count else None
        return min((each for each in (left, self._due()) if each is not None), default=None)

    def _may_send(self) -> bool:
        """One sender at a time; a stopped process does not hold up the others for ever."""
        if self._lock.acquire(wait=False):
            self._busy, self._look = None, _BUSY_SECONDS[0]
            return True
        mark, now = self._queue.mark(self.destination.name), clock.monotonic()
        if self._busy is None or self._busy[0] != mark:
            self._busy = (mark, now)
        # Of all that wait for it, one takes over.
        return now - self._busy[1] > self.destination.timeout + self._take_over and self._heir.acquire(wait=False)

    # -- what ----------------------------------------------------------------------------------------------------------

    async def _send(self, lease: Lease) -> None:
        outcomes: dict[int, EventResult] = {}
        sent: list[tuple[Leased, bytes]] = []
        result = BatchResult()
        try:
            self.destination.refresh()
            if self.destination.heed is not None:
                self.destination.heed(self._queue.policy(lease.destination)[0])
            for item in lease.items:
                body = self.destination.body(item)
                if isinstance(body, bytes):
                    sent.append((item, body))
                else:
                    outcomes[item.seq] = EventResult("", "rejected", body or "withdrawn-consent")
            if sent:
                batch, fields = self._batch(lease, sent)
                result = await self._outlet.send(batch, fields, self._entered)
                _enter(outcomes, sent, batch, result)
                self._outlet.answered(_by_status(outcomes, sent, batch))
        except (TooLarge, Rejected) as fault:
            if len(sent) > 1:  # find the event that is to blame
                self._outlet.answered("retry", fault)
                self._most = max(1, len(sent) // 2)
                return
            large = isinstance(fault, TooLarge)
            self._outlet.answered("rejected" if large else SET_ASIDE, fault)
            reason = "over-size" if large else f"{SET_ASIDE}: {_text(fault)}"
            outcomes[sent[0][0].seq] = EventResult("", "rejected", reason)
        except Exception as fault:
            self._outlet.answered("retry" if isinstance(fault, RetryLater) else UNKNOWN, fault)
            self._postpone(fault)
            return
        if len(sent) > 1 and all(outcomes[item.seq].status == "retry" for item, _ in sent):
            self._postpone(RetryLater("every event of the batch is asked for again"))
            return
        self._most = min(self._most * 2, self._bounds.batch_events)
        self._filling.over()
        self._queue.settle(lease, outcomes, clock.wall(), answer=result.answer,
                           pause=lambda tries: self._pause(tries + 1))  # fmt: skip
        taken = (each.status in ("accepted", "duplicate") or each.reason == "unwanted" for each in outcomes.values())
        if self.destination.heed is not None and any(taken):
            await self._ask_policy()

    async def _ask_policy(self) -> None:
        """Once a day, right behind a batch or in the place of an unwanted one: does the receiver want less, or more?"""
        name, now = self.destination.name, clock.wall()
        known, asked = self._queue.policy(name)
        if 0 <= now - asked < POLICY_SECONDS:
            return
        self._queue.ask_policy(name, now)  # first: nobody asks again today, whatever becomes of it
        try:
            policy = await self._outlet.policy(kept_policy(known).etag)
        except Exception as fault:
            log.debug("the policy of %s is not known: %r", name, fault)
            return
        if policy is not None:
            self._queue.keep_policy(name, policy)

    def _batch(self, lease: Lease, sent: Sequence[tuple[Leased, bytes]]) -> tuple[Batch, dict[str, list[str]]]:
        """The batch and, where there is an audit, event name → the names of fields in its bodies."""
        events: list[BatchEvent] = []
        shapes: set[tuple[str, tuple[str, ...]]] = set()
        for item, body in sent:
            if self.destination.audit is None:
                event_id = _ID.decode(body).event_id
            else:
                payload: dict[str, Any] = msgspec.json.decode(body)
                event_id = payload.get("event_id", "")
                shapes.add((item.row.event, tuple(payload)))
            # Where a renaming took the id away, a number of this machine's own tells the events apart.
            events.append(BatchEvent(event_id or str(item.seq), item.row.event, body, item.seq))
        fields: dict[str, dict[str, None]] = {}
        for event, names in sorted(shapes):
            fields.setdefault(event, {}).update(dict.fromkeys(names))
        epoch, drops = self._queue.account(lease.destination)
        batch = Batch(destination=lease.destination, events=tuple(events), epoch=epoch, drops=drops)
        return batch, {event: list(names) for event, names in fields.items()}

    def _entered(self) -> Entered:
        queue, name = self._queue, self.destination.name
        return Entered(queue.epoch, queue.acknowledged(name), queue.drops(name))

    def _pause(self, failures: int) -> float:
        return pause(failures, random.random(), self._bounds.pause_seconds)

    def _postpone(self, fault: Exception) -> None:
        name = self.destination.name
        wait = self._pause(self._queue.state(name)[0])
        if isinstance(fault, RetryLater):
            wait = pause_asked(fault.after, wait, self._bounds.pause_seconds)
        if isinstance(fault, BlockedError) and not self._told:
            self._told = True
            log.warning("the reporter of %r blocks its thread, and is left alone until that comes back", name)
        text = "no answer in time" if isinstance(fault, asyncio.TimeoutError) else type(fault).__name__
        self._failed += 1
        self._queue.postpone(name, clock.wall() + wait, _text(fault) or text)

    # -- now, and no more ----------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Send until nothing is left that could go now, or sending failed three times."""
        before = self._failed
        while self._failed - before < _FLUSH_FAILURES:
            wait = await self.step(hurry=True)
            if wait is None or wait > _FLUSH_PAUSE or self._outlet.blocked:
                return
            await asyncio.sleep(min(wait, _FLUSH_LOOKS))

    async def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Close the reporter, if there is one; give it so long."""
        await self._outlet.close(seconds)


def _enter(
    outcomes: dict[int, EventResult], sent: Sequence[tuple[Leased, bytes]], batch: Batch, result: BatchResult
) -> None:
    """What the receiver said of each event: nothing at all means accepted, nothing of this one means again."""
    if result.results is None:
        outcomes.update((item.seq, EventResult("", "accepted")) for item, _ in sent)
        return
    by_id = {each.event_id: each for each in result.results}
    again = EventResult("", "retry")
    for (item, _), event in zip(sent, batch.events, strict=True):
        outcomes[item.seq] = by_id.get(event.event_id, again)


def _by_status(
    outcomes: Mapping[int, EventResult], sent: Sequence[tuple[Leased, bytes]], batch: Batch
) -> dict[str, list[str]]:  # fmt: skip
    """Status → ids of events, for the audit."""
    found: dict[str, list[str]] = {}
    for (item, _), event in zip(sent, batch.events, strict=True):
        outcome = outcomes[item.seq]
        aside = outcome.status == "rejected" and (outcome.reason or "").startswith(SET_ASIDE)
        found.setdefault(SET_ASIDE if aside else outcome.status, []).append(event.event_id)
    return found


def _text(fault: Exception) -> str:
    """What ``fault`` says, as far as it can be stored."""
    return str(fault).encode("utf-8", "replace").decode()


class _Id(msgspec.Struct):
    event_id: str = ""


_ID = msgspec.json.Decoder(_Id)
