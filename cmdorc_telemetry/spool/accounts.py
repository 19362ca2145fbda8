"""What receivers are told of losses: an account of its own for each install id.

The file's own epoch and its counts go on when an install takes another id. Were a receiver told these, it could tell
that the old id and the new one are the same install.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter

from .destinations import Destinations

_KEY = "account"


class Accounts(Destinations):
    """Keeps which account is open: whose, what it is called, and what had been lost before it."""

    def open_account(self, install_id: str) -> None:
        """From now on receivers are told what was lost since ``install_id`` is this install's. Harmless again."""
        whose = hashlib.blake2b(f"{self.epoch}/{install_id}".encode(), digest_size=8).hexdigest()
        if self._account()[0] == whose:
            return
        with self._write() as db:
            before = self._account()
            if before[0] == whose:
                return
            names = [name for (name,) in db.execute("SELECT name FROM destination")] if before[0] else []
            account = [whose, os.urandom(8).hex(), {name: self.drops(name) for name in names}]
            db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (_KEY, json.dumps(account)))
            # By the mark of a policy that was had under the old id its receiver would know the new one, and so it
            # would by what the policy asks for, such as a share that nobody else was asked for.
            db.execute("UPDATE destination SET policy='{}', policy_at=0")

    def account(self, name: str) -> tuple[str, dict[str, int]]:
        """What the open account is called, and what a destination lost under it, by reason; never less than before."""
        _, called, before = self._account()
        return called, dict(Counter(self.drops(name)) - Counter(before.get(name, {})))

    def drops(self, name: str) -> dict[str, int]:
        """What a destination lost so far, by reason; never less than before, as long as the epoch is the same.

        What journals lost before the destination was there is among it, unless it takes one journal's events only.
        """
        rows = self._ask(
            "SELECT reason, max(n) FROM (SELECT reason, n FROM dropped WHERE destination=? UNION ALL "
            "SELECT reason, n FROM lost WHERE NOT EXISTS "
            "(SELECT 1 FROM destination WHERE name=? AND source IS NOT NULL)) GROUP BY 1",
            (name, name),
        )
        return dict(rows)

    def _account(self) -> tuple[str, str, dict[str, dict[str, int]]]:
        rows = self._ask("SELECT value FROM meta WHERE key=?", (_KEY,))
        whose, called, before = json.loads(rows[0][0]) if rows else ("", "", {})
        return whose, called, before
