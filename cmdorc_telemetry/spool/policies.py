"""What the receiver of each destination asks for less of, as it was last told, and when somebody last asked."""

from __future__ import annotations

from .destinations import Destinations


class Policies(Destinations):
    """Keeps the policy of each destination; what is in it is no matter of the spool."""

    def policy(self, name: str) -> tuple[str, float]:
        """The policy of a destination as it was kept, and when it was last asked for; 0 for never."""
        rows = self._ask("SELECT policy, policy_at FROM destination WHERE name=?", (name,))
        return (str(rows[0][0]), float(rows[0][1])) if rows else ("{}", 0.0)

    def policies(self) -> dict[str, str]:
        """The policies of all destinations there are."""
        return dict(self._ask("SELECT name, policy FROM destination WHERE NOT removed"))

    def ask_policy(self, name: str, now: float) -> None:
        """Somebody asks for it now."""
        with self._write() as db:
            db.execute("UPDATE destination SET policy_at=? WHERE name=?", (now, name))

    def keep_policy(self, name: str, policy: str) -> None:
        """The policy from now on, for all processes."""
        with self._write() as db:
            db.execute("UPDATE destination SET policy=? WHERE name=?", (policy, name))
