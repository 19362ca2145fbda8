"""A segment: one append-only file of records, its format, and reading those of processes that are gone.

    header   512 bytes: magic, then JSON (generation, source), padded with spaces, a newline at byte 255;
             JSON of the drop counts, padded likewise, a newline at byte 511
    records  newline, CRC-32 as eight hex digits, a space, JSON

The newline comes first, so that a reader finds its feet again behind a record that a full disk cut short.
A lock on the open file, not a process id, says whether the owner lives. Knows nothing of what records mean.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct, json

from . import clock, files
from .errors import StorageError

MAGIC = b"cmdorc-telemetry journal 1 "
_NEWER = re.compile(rb"cmdorc-telemetry journal (?!1 )\d+ ")
COUNTS = 256
"""Where in the header the counts are; the part before them is as long."""
_SLOW = "slow"
HEADER = 2 * COUNTS
SWEEP_SECONDS = 60.0
"""How old a ``.new`` file must be to be taken for one whose owner is dead."""


class NewerSegment(StorageError):
    """A segment of a later version: left for the program that wrote it."""


class Segment(Struct):
    """A segment as read: what its header says, and the records behind an offset."""

    name: str
    generation: str
    source: str
    """The journal that wrote it: the same for all segments of one process's journal."""
    drops: dict[str, int] = {}
    """Cumulative losses of that segment's owner while it was open, by reason."""
    damaged: int = 0
    """Records among those read that were cut short or overwritten."""
    slow: int = 0
    """Appends of its owner's, cumulative, that took over 10 ms."""
    records: list[bytes] = []
    offset: int = HEADER
    """Where to go on reading."""


def header(generation: str, source: str, drops: dict[str, int]) -> bytes:
    """What a segment begins with: exactly ``HEADER`` bytes."""
    first = MAGIC + json.encode({"generation": generation, "source": source})
    return first.ljust(COUNTS - 1) + b"\n" + counts(drops)


def counts(drops: dict[str, int], slow: int = 0) -> bytes:
    """The second half of a header."""
    return json.encode({**drops, _SLOW: slow} if slow else drops).ljust(COUNTS - 1) + b"\n"


def _told(text: bytes) -> dict[str, int]:
    """The counts in a header; none where they cannot be read, for the records matter more."""
    try:
        told = json.decode(text)
    except ValueError:
        return {}
    if not isinstance(told, dict):
        return {}
    return {reason: count for reason, count in told.items() if type(count) is int and 0 <= count < 1 << 53}


def frame(record: bytes) -> bytes:
    """The bytes that stand for ``record``, which holds no newline."""
    return b"\n%08x %b" % (zlib.crc32(record), record)


def parse(name: str, data: bytes, offset: int = HEADER, *, live: bool = False) -> Segment:
    """The records of a segment from ``offset`` on. Damaged ones are skipped and counted.

    ``live``: the owner may be writing; a last record that is not whole is left for the next time.
    What a damaged header leads is of no known generation, so that nobody else ever gets it.
    Raises StorageError where ``data`` is no segment, NewerSegment where a later version made it.
    """
    drops = _told(data[COUNTS:HEADER])
    slow = drops.pop(_SLOW, 0)
    segment, fault = Segment(name, "", "", drops, slow=slow, offset=offset), ""
    try:
        if not data.startswith(MAGIC) or len(data) < HEADER:
            raise ValueError("no header")
        head = json.decode(data[len(MAGIC) : COUNTS])
        segment.generation, segment.source = str(head["generation"]), str(head["source"])
    except (ValueError, KeyError, TypeError) as found:
        fault = str(found)
        if _NEWER.match(data):
            raise NewerSegment(f"{name} was written by a newer version: upgrade this one") from None
    position = max(offset, HEADER)
    while position < len(data):
        end = data.find(b"\n", position + 1)
        last = end == -1
        end = len(data) if last else end
        text = data[position + 1 : end]
        if len(text) > 9 and text[:8] == b"%08x" % zlib.crc32(text[9:]):
            segment.records.append(text[9:])
        elif last and live:
            break
        elif not last and text:
            # A torn tail of a dead owner is no loss: its append never returned.
            segment.damaged += 1
        position = end
    if fault and not segment.records:
        raise StorageError(f"{name} is no journal segment: {fault}")
    segment.offset = position
    return segment


def read_live(path: Path, offset: int) -> Segment:
    """This process's own segment, from ``offset`` on. Raises OSError, StorageError."""
    with path.open("rb") as file:
        return parse(path.name, _from(file, offset), offset, live=True)


def _from(file: BinaryIO, offset: int) -> bytes:
    """Header and everything from ``offset`` on; what was read before is blanked, not read again."""
    head = file.read(HEADER)
    file.seek(max(offset, HEADER))
    return head.ljust(max(offset, HEADER)) + file.read() if len(head) == HEADER else head


class Orphan:
    """A segment whose owner is gone, locked by us for as long as ``orphans`` is not asked for the next."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd

    def read(self, offset: int) -> Segment:
        """The records from ``offset`` on. Raises StorageError."""
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise StorageError(f"{self.path.name} is no journal segment: it is no file")
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            return parse(self.path.name, _from(file, offset), offset)

    def linked(self) -> bool:
        """Whether the file still has its name: asked again inside the import's transaction."""
        return os.fstat(self._fd).st_nlink > 0

    def discard(self) -> None:
        """Unlink the file, under the lock."""
        self.path.unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Keep a file that is no segment, under a name that nobody reads."""
        os.replace(self.path, self.path.with_suffix(".corrupt"))


def orphans(directory: Path) -> Iterator[Orphan]:
    """Every segment whose lock can be had; each is unlocked when the next is asked for."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        path = directory / name
        if not name.endswith((".seg", ".new")):
            continue
        try:
            if name.endswith(".new") and clock.wall() - os.stat(path).st_mtime < SWEEP_SECONDS:
                continue  # its owner is about to lock it
            # Whoever opens a pipe would wait for a writer.
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            if files.is_foreign(path):  # a name that comes only once, so nothing else can have taken it
                with suppress(OSError):
                    os.replace(path, path.with_suffix(".corrupt"))
            continue
        pid, locked = os.getpid(), False
        try:
            locked = files.lock_fd(fd, wait=False)
            if not locked or os.fstat(fd).st_nlink == 0:
                continue
            if name.endswith(".new"):  # its owner died before it wrote a record
                with suppress(OSError):
                    path.unlink()
                continue
            yield Orphan(path, fd)
        finally:
            if locked and pid == os.getpid():  # a child that was forked meanwhile would keep it
                files.unlock_fd(fd)
            os.close(fd)


def segments(directory: Path) -> list[Path]:
    """The segments that lie in ``directory``, imported or not."""
    try:
        return [directory / name for name in os.listdir(directory) if name.endswith(".seg")]
    except OSError:
        return []
