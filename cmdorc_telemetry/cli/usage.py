"""What telemetry takes of this machine, beside what it may: for ``status``. Writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from ..history import KEEP_DAYS
from ..segment import segments
from .machine import Machine

if TYPE_CHECKING:
    from ..spool import Spool


class Usage(Struct, kw_only=True):
    """What is in use now; ``bounds`` has what may be."""

    segments: int
    """Journal segments, of live processes too."""
    journal_bytes: int
    spool_events: int
    spool_bytes: int
    history_bytes: int
    history_days: int = KEEP_DAYS
    audit: str
    """The directory of what says which batches left."""
    audit_bytes: int
    threads: int
    """At most, in a process that delivers: one for telemetry, and one a reporter."""
    bounds: dict[str, int]
    """As in ``[telemetry.bounds]``."""
    sync: bool
    background: bool
    moved_aside: list[str] = field(default_factory=list)
    """Files that were damaged, or none of ours, and are not read any more."""


def usage(machine: Machine, spool: Spool | None) -> Usage:
    """What is in use on ``machine``."""
    user, pipeline = machine.situation.user, machine.pipeline
    sizes = [_size(path) for path in segments(machine.home.journal)]
    events, size = spool.size() if spool is not None else (0, 0)
    return Usage(
        segments=len(sizes),
        journal_bytes=sum(sizes),
        spool_events=events,
        spool_bytes=size,
        history_bytes=_size(machine.home.history),
        audit=str(machine.home.audit),
        audit_bytes=sum(_size(path) for path in machine.home.audit.glob("*.jsonl")),
        threads=len(pipeline.routes()),  # the history is one of them, and needs none of its own
        bounds=user.bounds._asdict(),
        sync=user.sync,
        background=user.background,
        moved_aside=[str(path) for path in _moved_aside(machine)],
    )


def records(segments: Iterable[tuple[Path, int]]) -> int:
    """How many records there are behind what was read of segments."""
    count = 0
    for path, read in segments:
        with suppress(OSError), path.open("rb") as file:  # imported this moment
            file.seek(read)
            while data := file.read(1 << 20):
                count += data.count(b"\n")
    return count


def _size(path: Path) -> int:
    with suppress(OSError):  # imported this moment
        return os.stat(path).st_size
    return 0


def _moved_aside(machine: Machine) -> list[Path]:
    home = machine.home
    folders = (home.root, home.telemetry, *home.plugins.glob("*"))
    found = [path for folder in folders for path in folder.glob("*.corrupt-*")]
    found = [path for path in found if not path.name.endswith("-wal")]  # which belongs to another one
    return sorted([*found, *home.journal.glob("*.corrupt")])
