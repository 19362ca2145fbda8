"""The lines of the audit: what each says, how it holds on to the one before, how files of them are read.

A destination has two files at most, ``NAME.jsonl`` and the one before it, ``NAME.1.jsonl``. Each line has the digest
of the line before it, across files: what was removed, changed or put elsewhere is found. There is no secret in it, so
nothing keeps somebody from writing all of it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from ..files import read

if TYPE_CHECKING:
    from ..home import Home

UNKNOWN = "unknown"
"""What is said of events that left, where nobody knows whether they arrived."""
SET_ASIDE = "set-aside"
_OLDER = ".1.jsonl"


class Begin(Struct, tag_field="what", tag="begin", frozen=True, kw_only=True):
    """The first line of a file: what left before it."""

    destination: str
    since: float
    """When the first file of this destination was begun. Seconds since the epoch, as all moments."""
    batches: int = 0
    events: int = 0
    bytes: int = 0
    prev: str = ""


class Entered(NamedTuple):
    """What the ledger of a destination had entered by some moment."""

    epoch: str
    """Of the spool."""
    acknowledged: int
    dropped: Mapping[str, int]


class Left(Struct, tag_field="what", tag="left", frozen=True, kw_only=True):
    """A batch is about to leave: written first, and only then sent."""

    batch: int
    """Batches of a destination have the numbers from 1."""
    at: float
    epoch: str
    """Which spool its events came from."""
    acknowledged: int
    """What the ledger of the destination had entered as acknowledged by then."""
    dropped: dict[str, int]
    """Likewise as dropped, by reason."""
    events: dict[str, list[str]]
    """Event name → ids."""
    fields: dict[str, list[str]]
    """Event name → the names of all fields that were in bodies of such events, as they left."""
    bytes: int
    digest: str
    """``sha256:…`` of what the reporter's ``encode`` made of the batch: what is sent, before compression."""
    prev: str = ""

    @property
    def ids(self) -> Iterator[str]:
        """The ids of all its events."""
        for ids in self.events.values():
            yield from ids


class Answer(Struct, tag_field="what", tag="answer", frozen=True, kw_only=True):
    """What became of a batch. Written before the ledger enters it."""

    batch: int
    latest: int
    """The last batch that had left by then: another one, where a stopped process went on too late."""
    at: float
    answer: dict[str, int]
    """Status → how many events."""
    ids: dict[str, list[str]] = {}
    """Status → event ids, for every status but the most frequent one."""
    error: str = ""
    prev: str = ""

    def of(self, left: Left) -> dict[str, list[str]]:
        """Status → ids of the events of ``left``."""
        listed = {each for ids in self.ids.values() for each in ids}
        rest = [each for each in left.ids if each not in listed]
        return {**self.ids, **dict.fromkeys(self.answer.keys() - self.ids.keys(), rest)}


Record = Begin | Left | Answer
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_encode = msgspec.json.Encoder().encode


def encoded(record: Record) -> bytes:
    """The line, without its end."""
    return _encode(record)


def decoded(line: bytes) -> Record | None:
    """What a line says; None for one that says nothing."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def digest(line: bytes) -> str:
    """What the next line says of this one."""
    return hashlib.sha256(line).hexdigest()


class Page(Struct, frozen=True):
    """One file as it is."""

    path: Path
    lines: tuple[bytes, ...]
    torn: bool
    """Whether its end was never written: by a process that was killed, or on a full disk. The next batch mends it."""

    @property
    def is_older(self) -> bool:
        """Whether it is the one before the last."""
        return self.path.name.endswith(_OLDER)

    @property
    def records(self) -> list[Record | None]:
        """What its lines say."""
        return [decoded(line) for line in self.lines]


def older(path: Path) -> Path:
    """The name of the file before the one at ``path``."""
    return path.with_name(f"{path.stem}{_OLDER}")


def page(path: Path) -> Page | None:
    """A file, read; None where there is none. Raises OSError."""
    try:
        *lines, rest = read(path).split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Page(path, tuple(lines), bool(rest))


def pages(folder: Path, name: str) -> list[Page]:
    """The files of a destination, the older one first. Raises OSError."""
    path = folder / f"{name}.jsonl"
    return [found for each in (older(path), path) if (found := page(each)) is not None]


def names(folder: Path) -> list[str]:
    """The destinations that anything ever left for."""
    try:
        return sorted({path.name.split(".")[0] for path in folder.iterdir() if path.suffix == ".jsonl"})
    except (FileNotFoundError, NotADirectoryError):
        return []


class Entry(Struct, frozen=True, kw_only=True):
    """One batch that left, and what became of it."""

    at: float
    """Seconds since the epoch."""
    destination: str
    batch: int
    """Its number: those of a destination begin with 1."""
    events: Mapping[str, int]
    """Event name → how many."""
    event_ids: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    """Event name → names of fields, as they left."""
    bytes: int
    """Before compression."""
    digest: str
    """``sha256:…`` of these bytes."""
    answer: Mapping[str, int]
    """Status → how many events: accepted, duplicate, rejected, retry, set-aside, unknown."""
    error: str = ""
    """What kind of failure it was, if it was one; the words of a receiver are in ``status`` alone."""


def entries(home: Home) -> Iterator[Entry]:
    """Every batch that is still on record, of all destinations, the oldest first. Raises OSError.

    Lines that cannot be read are left out; ``verify`` names them.
    """
    found = [_entries(name, pages(home.audit, name)) for name in names(home.audit)]
    return merge(*found, key=lambda entry: entry.at)


def _entries(name: str, found: list[Page]) -> list[Entry]:
    records = [record for each in found for record in each.records]
    answers = {record.batch: record for record in records if isinstance(record, Answer)}
    return [_entry(name, record, answers.get(record.batch)) for record in records if isinstance(record, Left)]


def _entry(name: str, left: Left, answer: Answer | None) -> Entry:
    ids = tuple(left.ids)
    return Entry(
        at=left.at,
        destination=name,
        batch=left.batch,
        events={event: len(each) for event, each in left.events.items()},
        event_ids=ids,
        fields={event: tuple(fields) for event, fields in left.fields.items()},
        bytes=left.bytes,
        digest=left.digest,
        answer={UNKNOWN: len(ids)} if answer is None else answer.answer,
        error="" if answer is None else answer.error,
    )
