"""The ids of events that are counted, as they are kept, and the marks that they have."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b

_ASKED = 500
"""Parameters of one statement: SQLite has had a bound of 999."""


def known(db: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Those of ``keys`` that are counted → their marks."""
    found: dict[bytes, int] = {}
    for start in range(0, len(keys), _ASKED):
        some = keys[start : start + _ASKED]
        asked = f"SELECT id, marks FROM counted WHERE id IN ({','.join('?' * len(some))})"
        found.update(db.execute(asked, some).fetchall())
    return found


def lacking(db: sqlite3.Connection, mark: int) -> int:
    """How many of those that are counted lack a mark."""
    row: tuple[int] = db.execute("SELECT count(*) FROM counted WHERE NOT marks & ?", (mark,)).fetchone()
    return row[0]


def key(event_id: str) -> bytes:
    """An id in 16 bytes: those of a UUID that begin with a time lie beside each other. Without one it is a new one."""
    if not event_id:
        return os.urandom(16)
    digits = event_id.replace("-", "")
    try:
        short = bytes.fromhex(digits)
    except ValueError:
        short = b""
    return short if len(short) == 16 else blake2b(event_id.encode(), digest_size=16).digest()
