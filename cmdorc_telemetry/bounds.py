"""How much telemetry may take of a machine: the ``[telemetry.bounds]`` of the user's own file."""

from typing import NamedTuple


class Bounds(NamedTuple):
    """Limits of size, count, age and time. Where one is reached, events are dropped and counted, by reason."""

    segment_kib: int = 1024
    """Size at which a process begins another journal segment."""
    journal_segments: int = 1000
    """Segments that may wait to be imported, of all processes."""
    journal_mib: int = 64
    """Size that all of them may have together."""
    spool_events: int = 200_000
    """Events that may wait in the spool."""
    spool_mib: int = 256
    """Size that the spool may have."""
    keep_days: int = 30
    """Age at which an event that could not be delivered expires."""
    history_mib: int = 512
    """Size that the history of this machine may have; the oldest events make room."""
    batch_events: int = 500
    """Events in one batch."""
    batch_kib: int = 1024
    """Size of one batch before compression."""
    batch_seconds: int = 5
    """How long an event waits for others to share its batch."""
    pause_seconds: int = 3600
    """Longest pause between two tries, and the most that a receiver's Retry-After is honoured for."""


EXIT_SECONDS = 0.05
"""How long the end of a program may wait for a delivery under way: for nobody to choose."""

PATIENCE_SECONDS = 3600.0
"""What has waited for longer is delivered at once, however young the process is."""

NAMES = Bounds._fields

DEFAULT = Bounds()
