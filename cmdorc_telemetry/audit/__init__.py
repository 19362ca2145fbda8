"""What left this machine: a local log of every batch, written before it is sent. Nothing is sent that is not in it.

``lines`` knows what is in it and reads it, ``log`` writes it, ``check`` compares it with the ledger. It holds ids of
events and names of fields, and no value of any other field. What stays on this machine is not in it.
"""

from __future__ import annotations

from .check import Mismatch, verify
from .lines import SET_ASIDE, UNKNOWN, Entered, Entry, entries, names
from .log import AuditLog, tidy

__all__ = ["SET_ASIDE", "UNKNOWN", "AuditLog", "Entered", "Entry", "Mismatch", "entries", "names", "tidy", "verify"]
