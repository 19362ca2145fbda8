"""For reporters that count what they get: what events add to instruments, and a file that adds each event once.

Nothing of the core imports it. ``counts.py`` is imported by itself, with SQLite.
"""

from .bodies import body_of, measured, seconds_of
from .tally import OTHER, SUM, Label, Sample, Tally, bound, read, written

__all__ = ["OTHER", "SUM", "Label", "Sample", "Tally", "body_of", "bound", "measured", "read", "seconds_of", "written"]
