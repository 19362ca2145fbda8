"""Compares the audit with itself and with the ledger: is it whole, and does it account for all that was acknowledged?

Each batch says what the ledger had entered when it left. So what is entered between two batches is what was answered in
between – or nothing, where a process was killed before it could be, and the events leave again; or less, where events
were dropped meanwhile, which is counted too; or more, where an answer could not be written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from .. import clock
from ..files import FileLock
from ..types import Ledger
from .lines import Answer, Begin, Left, Page, Record, digest, names, pages

if TYPE_CHECKING:
    from ..home import Home

Look = Callable[[], tuple[str, Mapping[str, Ledger]]]
"""What the spool says now: its epoch, and the ledger of each destination that is not on this machine by itself."""

_ACCEPTED = ("accepted", "duplicate")
_REJECTED = ("rejected-by-server", "over-size")
"""Reasons for which what was rejected is dropped."""
_BEFORE_THE_SPOOL = ("journal-full", "storage-failed", "corrupt")
"""Reasons for which events are lost that no batch could ever have."""
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.01


class Mismatch(Struct, frozen=True, kw_only=True):
    """Something that is not as it should be."""

    destination: str
    batch: int
    """The batch that it is about, or behind which it is; 0 for before the first."""
    at: float
    """When that batch left; 0 for unknown."""
    what: str

    def __str__(self) -> str:
        where = f"batch {self.batch}" if self.batch else "before its first batch"
        return f"{self.destination}, {where}: {self.what}"


def verify(home: Home, look: Look) -> list[Mismatch]:
    """What is wrong with the audit; nothing where all is right. Raises OSError, and what ``look`` raises."""
    found: list[Mismatch] = []
    acknowledged = {name for name, ledger in look()[1].items() if ledger.acknowledged}
    for name in sorted(acknowledged.union(names(home.audit))):
        with _at_rest(home, name):
            epoch, ledgers = look()
            found += check(name, pages(home.audit, name), epoch, ledgers.get(name))
    return found


@contextmanager
def _at_rest(home: Home, name: str) -> Iterator[None]:
    """Nobody sends to a destination meanwhile; who has a batch under way is waited for, for a while."""
    lock, end = FileLock(home.locks / f"{name}.lock"), clock.monotonic() + _PATIENCE_SECONDS
    with suppress(OSError):  # nobody can write here, or ever sent
        while not lock.acquire(wait=False) and clock.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        lock.release()


def check(name: str, found: Sequence[Page], epoch: str = "", ledger: Ledger | None = None) -> list[Mismatch]:
    """What is wrong with the files of one destination; ``ledger`` is that of now, in the spool of ``epoch``."""
    reading = _Reading(name)
    reading.pages(found)
    if ledger is not None:
        reading.end(epoch, ledger)
    return reading.wrong


class _Reading:
    """Goes once through the audit of a destination, the oldest line first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.wrong: list[Mismatch] = []
        self._sums = [0, 0, 0]
        """Batches, events and bytes that left so far."""
        self._whole = True
        """Whether the first batch there ever was is on record."""
        self._last: Left | None = None
        self._lefts: dict[int, Left] = {}
        self._answers: list[Answer] = []
        """Since the last batch left."""
        self._books: dict[str, _Book] = {}
        """The epoch of a spool → what its ledger entered."""

    def _say(self, what: str) -> None:
        last = self._last
        batch, at = (self._sums[0], 0.0) if last is None else (last.batch, last.at)
        self.wrong.append(Mismatch(destination=self._name, batch=batch, at=at, what=what))

    def pages(self, found: Sequence[Page]) -> None:
        """Read all there is."""
        before: str | None = None
        for page in found:
            for number, (line, record) in enumerate(zip(page.lines, page.records, strict=True), 1):
                if wrong := self._place(record, number, page, before):
                    self._say(f"line {number} of {page.path.name} {wrong}")
                before = digest(line)
                self._take(record)

    def _place(self, record: Record | None, number: int, page: Page, before: str | None) -> str:
        """What is wrong with a line where it stands; nothing mostly."""
        if record is None:
            return "cannot be read"
        if isinstance(record, Begin) != (number == 1):
            return "is not how a file begins" if number == 1 else "begins a file"
        if before is not None and record.prev != before:
            return "does not follow the one before it: something was changed, moved or removed"
        if isinstance(record, Begin):
            return self._place_of_file(record, page, first=before is None)
        return ""

    def _place_of_file(self, begin: Begin, page: Page, *, first: bool) -> str:
        told = [begin.batches, begin.events, begin.bytes]
        if begin.destination != self._name:
            return f"is of {begin.destination}"
        if first and begin.batches and not page.is_older:
            return f"follows batch {begin.batches}, and the file before it is gone"
        return "tells other totals than the file before it" if not first and told != self._sums else ""

    def _take(self, record: Record | None) -> None:
        match record:
            case Begin():
                self._sums = [record.batches, record.events, record.bytes]
                self._whole = self._whole and not (record.batches and not self._lefts)
            case Left():
                self._leave(record)
            case Answer():
                self._answers.append(record)

    def _leave(self, left: Left) -> None:
        self._enter(left.epoch, left.acknowledged, left.dropped)
        events = sum(1 for _ in left.ids)
        self._sums = [left.batch, self._sums[1] + events, self._sums[2] + left.bytes]
        self._last = self._lefts[left.batch] = left

    # -- the audit and the ledger -------------------------------------------------------------------------------------

    def _enter(self, epoch: str, acknowledged: int, dropped: Mapping[str, int]) -> _Book:
        """Compare what a ledger entered with what was answered since it was last heard of."""
        book = self._books.get(epoch)
        if book is None:
            known = self._whole or bool(self._books)  # nothing was entered in this spool before this line
            book = self._books[epoch] = _Book() if known else _Book(acknowledged, _rejected(dropped), _lost(dropped))
        answers, self._answers = self._answers, []
        for wrong in book.enter(acknowledged, dropped, *self._outcomes(epoch, answers)):
            self._say(wrong)
        return book

    def _outcomes(self, epoch: str, answers: Sequence[Answer]) -> tuple[_Outcome, _Outcome]:
        """What was answered of events of one spool; and what may have been, by answers that are late or missing."""
        sure, maybe = _Outcome(), _Outcome()
        for answer in answers:
            left = self._lefts.get(answer.batch)
            if left is not None and left.epoch == epoch:
                (sure if answer.batch == answer.latest else maybe).add(answer.of(left))
        last = self._last
        if last is not None and last.epoch == epoch and all(answer.batch != last.batch for answer in answers):
            maybe.add({"accepted": list(last.ids), "rejected": list(last.ids)})
        return sure, maybe

    def end(self, epoch: str, ledger: Ledger) -> None:
        """Compare with the ledger of now."""
        book = self._enter(epoch, ledger.acknowledged, ledger.dropped)
        if book.stray > ledger.pending:
            lacking = book.stray - ledger.pending
            self._say(f"the ledger knows nothing of {_events(lacking)} that {_was(lacking, 'accepted')}")


class _Outcome:
    """What became of events, by id."""

    def __init__(self) -> None:
        self.accepted, self.rejected = Counter[str](), Counter[str]()

    def add(self, answer: Mapping[str, Sequence[str]]) -> None:
        """Enter an answer."""
        for status in _ACCEPTED:
            self.accepted |= Counter(answer.get(status, ()))
        self.rejected |= Counter(answer.get("rejected", ()))


class _Book:
    """What the ledger of one spool entered so far."""

    def __init__(self, acknowledged: int = 0, rejected: int = 0, lost: int = 0) -> None:
        self._acknowledged, self._rejected, self._lost = acknowledged, rejected, lost
        self._accepted_only = Counter[str]()
        """Events that were accepted and not entered: their process was killed, or they were dropped meanwhile."""
        self._rejected_only = Counter[str]()
        self._lost_then = lost
        """What was dropped when there were none of these."""

    @property
    def stray(self) -> int:
        """Events that were accepted and not entered, and must still wait: none of them can have been dropped."""
        return max(self._accepted_only.total() - (self._lost - self._lost_then), 0)

    def enter(
        self, acknowledged: int, dropped: Mapping[str, int], sure: _Outcome, maybe: _Outcome
    ) -> Iterator[str]:  # fmt: skip
        """What is wrong with what was entered since."""
        lost, rejected = _lost(dropped), _rejected(dropped)
        if not self._accepted_only:
            self._lost_then = self._lost
        # What went otherwise while it was under way: neither accepted nor rejected.
        gone = (lost - rejected) - (self._lost - self._rejected)
        self._lost = lost
        more, self._acknowledged = acknowledged - self._acknowledged, acknowledged
        yield from _compared(more, sure.accepted, self._accepted_only | maybe.accepted, gone, "acknowledged")
        self._accepted_only = _still(self._accepted_only, sure.accepted, more)
        more, self._rejected = rejected - self._rejected, rejected
        yield from _compared(more, sure.rejected, self._rejected_only | maybe.rejected, gone, "rejected")
        self._rejected_only = _still(self._rejected_only, sure.rejected, more)


def _compared(more: int, sure: Counter[str], maybe: Counter[str], gone: int, what: str) -> Iterator[str]:
    """What is wrong where ``more`` events were entered, ``sure`` ones were answered so, and others ``maybe``."""
    most, least = (sure | maybe).total(), max(sure.total() - gone, 0)
    if more < 0:
        yield f"the ledger has {_events(-more, what)} less than when it left"
    elif more > most:
        yield f"{_events(more - most)} more {_was(more - most, what)} than {_was(more - most, 'answered so')}"
    elif 0 < more < least:
        yield f"{_events(least - more)} less {_was(least - more, what)} than {_was(least - more, 'answered so')}"


def _events(count: int, what: str = "") -> str:
    return f"{count:,} {what} event{'s' * (count != 1)}".replace("  ", " ")


def _was(count: int, what: str) -> str:
    return f"{'was' if count == 1 else 'were'} {what}"


def _still(before: Counter[str], sure: Counter[str], more: int) -> Counter[str]:
    """What was answered and is not entered, now that ``more`` events are."""
    if more <= 0:
        return before | sure
    return before - sure if more <= sure.total() else Counter()


def _rejected(dropped: Mapping[str, int]) -> int:
    return sum(dropped.get(reason, 0) for reason in _REJECTED)


def _lost(dropped: Mapping[str, int]) -> int:
    """Events of the spool that were dropped."""
    return sum(count for reason, count in dropped.items() if reason not in _BEFORE_THE_SPOOL)
