"""A lifecycle record, or somebody's properties, and the spec → checked fields → one journal record.

``fields`` says what an event of the core holds, ``records`` how it stands in the journal, ``payloads`` how a
shared destination would see it.
"""

from .fields import (
    Hasher,
    SessionStatistics,
    completed_properties,
    cwd_prefix,
    machine_fields,
    startup_properties,
    trigger_properties,
)
from .records import Capture, EventIds

__all__ = [
    "Capture",
    "EventIds",
    "Hasher",
    "SessionStatistics",
    "completed_properties",
    "cwd_prefix",
    "machine_fields",
    "startup_properties",
    "trigger_properties",
]
