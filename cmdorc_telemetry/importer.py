"""Takes what journals hold into the spool, through the gate: the segments of programs that are gone, and this one's.

Each step may be the last one of a process. When there is an import, and whether it may be, is for the pipeline to say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from . import clock
from .decision import Decision
from .errors import StorageError, told
from .gate import Gate
from .journal import Journal
from .segment import HEADER, NewerSegment, Orphan, Segment, orphans, read_live
from .situation import Situation
from .spool import Spool
from .types import Gated

log = logging.getLogger("cmdorc_telemetry")


class Importer:
    """The segments in ``directory``, imported as far as the decision of now covers them."""

    def __init__(self, directory: Path, decision: Decision, gate: Gate) -> None:
        self._directory, self._decision, self._gate = directory, decision, gate
        self._own_drops: Mapping[str, int] = {}
        self._newer_told = False

    def discard(self, own: Journal | None) -> None:
        """Delete what was journalled before this process heard of a no: nobody else is left who would."""
        for orphan in orphans(self._directory):
            orphan.discard()
        if own is not None:
            own.discard()

    def take_orphans(self, spool: Spool) -> None:
        """Import every segment whose owner is gone."""
        for orphan in orphans(self._directory):
            try:
                self._take_orphan(spool, orphan)
            except OSError as fault:  # of this file; there are others
                log.debug("import of %s waits: %s", orphan.path.name, told(fault))

    def _take_orphan(self, spool: Spool, orphan: Orphan) -> None:
        before = spool.offset(orphan.path.name)
        if before is None:
            orphan.discard()
            return
        try:
            segment = orphan.read(before)
        except NewerSegment as fault:
            if not self._newer_told:
                log.warning("%s", fault)
            self._newer_told = True
            return
        except StorageError as fault:
            log.warning("%s; it was set aside", fault)
            # How many records it had, nobody knows: one at least, or nobody would have made it.
            spool.take_in(orphan.path.name, Gated(unreadable=1), before=before, after=before, drops={},
                          still_there=orphan.linked)  # fmt: skip
            orphan.set_aside()
            return
        if self._take_in(spool, segment, before, orphan.linked):
            orphan.discard()
            spool.finish(segment.name, clock.wall())

    def take_own(self, spool: Spool, own: Journal, follow: Callable[[Situation], None]) -> None:
        """Import what is new in this process's own segment. ``follow`` lets it record under the decision of now."""
        path, situation = own.path, self._decision.situation
        if path is None:
            follow(situation)
            return
        before = spool.offset(path.name) or 0
        try:
            segment = read_live(path, before)
        except (FileNotFoundError, StorageError):  # deleted or overwritten by hand: go on in a new one
            follow(situation)
            return
        if segment.generation != situation.policy().stamp:
            follow(situation)
        news = segment.offset > max(before, HEADER) or segment.drops != self._own_drops
        if news and self._take_in(spool, segment, before, path.exists):
            self._own_drops = segment.drops

    def _take_in(self, spool: Spool, segment: Segment, before: int, still_there: Callable[[], bool]) -> bool:
        gated = self._gate.gate(segment.records, segment.generation, segment.source)
        return spool.take_in(segment.name, gated, before=before, after=segment.offset, drops=segment.drops,
                             damaged=segment.damaged, slow=segment.slow, source=segment.source,
                             still_there=lambda: still_there() and self._decision.settled)  # fmt: skip
