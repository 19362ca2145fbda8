"""Whether a process that has just begun should deliver at once: what it may look at is cheap, and opens nothing."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

from . import clock
from .bounds import PATIENCE_SECONDS
from .home import Home
from .segment import segments

MANY_SEGMENTS = 50
"""If more wait to be imported, processes that end soon follow each other closely: somebody has to do it."""


def overdue(home: Home) -> bool:
    """Whether something has waited for too long, in the spool or in segments, or there are many segments."""
    now = clock.wall()
    if _modified(home.waiting) <= now:
        return True
    moments = [_modified(path) for path in segments(home.journal)]
    return len(moments) > MANY_SEGMENTS or min(moments, default=inf) < now - PATIENCE_SECONDS


def _modified(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return inf
