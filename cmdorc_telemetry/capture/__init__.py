"""A lifecycle record, or somebody's properties, and the spec → checked fields → one journal record.

``fields`` says what an event of the core holds, ``checks`` what may be recorded of any event, ``records`` how it
stands in the journal, ``payloads`` how a shared destination would see it.
"""

from .checks import Check, Declared, Events, no_such_event
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
    "Check",
    "Declared",
    "EventIds",
    "Events",
    "Hasher",
    "SessionStatistics",
    "completed_properties",
    "cwd_prefix",
    "machine_fields",
    "no_such_event",
    "startup_properties",
    "trigger_properties",
]
