"""What receivers are told of losses: an account of its own for each install id.

The file's own epoch and its counts go on when an install takes another id. Were a receiver told these, it could tell
that the old id and the new one are the same install.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter

from .leases import Leases

_KEY = "account"


class Accounts(Leases):
    """Keeps which account is open: whose, what it is called, and what had been lost before it."""

    def open_account(self, install_id: str) -> None:
        """From now on receivers are told what was lost since ``install_id`` is this install's; harmless again."""
        whose = hashlib.blake2b(f"{self.epoch}/{install_id}".encode(), digest_size=8).hexdigest()
        if self._account() is not None and self._account()[0] == whose:  # type: ignore[index]
            return
        with self._write() as db:
            self._open(db, whose)

    def _open(self, db: sqlite3.Connection, whose: str) -> None:
        known = db.execute("SELECT value FROM meta WHERE key=?", (_KEY,)).fetchone()
        if known is not None and json.loads(known[0])[0] == whose:
            return
        names = [name for (name,) in db.execute("SELECT name FROM destination")] if known is not None else []
        before = {name: self.drops(name) for name in names}
        db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (_KEY, json.dumps([whose, os.urandom(8).hex(), before])))
        # Its mark would be known again, too.
        db.execute("UPDATE destination SET policy=json_remove(policy, '$.etag'), policy_at=0 WHERE json_valid(policy)")

    def account(self, name: str) -> tuple[str, dict[str, int]]:
        """What the open account is called, and what a destination lost under it, by reason; never less than before."""
        found = self._account()
        if found is None:
            return "", {}
        _, called, before = found
        return called, dict(Counter(self.drops(name)) - Counter(before.get(name, {})))

    def _account(self) -> tuple[str, str, dict[str, dict[str, int]]] | None:
        rows = self._ask("SELECT value FROM meta WHERE key=?", (_KEY,))
        return tuple(json.loads(rows[0][0])) if rows else None
