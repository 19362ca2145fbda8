"""What a program records with, under one generation of the decision: the identity of then, and a journal.

A record is never written under another generation than the one whose identity is in it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from . import journal
from .capture import Capture, Hasher, SessionStatistics, machine_fields
from .config import TelemetryLevel
from .declarations import covered
from .identity import ensure_identity
from .situation import Situation
from .spec import TelemetryRegistry


class Recording(Struct):
    """Capture and journal that belong together."""

    generation: str
    capture: Capture
    journal: journal.Journal
    hasher: Hasher | None
    """What makes the hashes of DEBUG; None where nobody said yes to them, or that yes has expired."""
    sessions: dict[str, SessionStatistics] = field(default_factory=dict)
    """What sessions are summed up from: what was counted under another generation tells nothing under this one."""


class Recordings:
    """The recording that is on, and those before: a generation has its own, and who holds an earlier one ends well.

    Raises StorageError where the home directory cannot be used.
    """

    def __init__(
        self, situation: Situation, registry: TelemetryRegistry, on_trouble: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._registry, self._on_trouble = registry, on_trouble
        self._former: list[Recording] = []
        self.now = self._begun(situation)

    def _begun(self, situation: Situation) -> Recording:
        """The identity is read after the decision: one that was given up was so before the decision was renewed."""
        home, policy, user = situation.home, situation.policy(), situation.user
        identity = ensure_identity(home)
        agreed = [spec for spec in self._registry if covered(situation, self._registry, spec)]
        return Recording(
            policy.generation,
            Capture(agreed, {**situation.application.base, **machine_fields(),
                             "anonymous_install_id": identity.install_id}),
            journal.Journal(home.journal, policy.stamp, bounds=user.bounds, sync=user.sync,
                            on_trouble=self._on_trouble),
            Hasher(identity.salt) if policy.share is TelemetryLevel.DEBUG else None,
        )  # fmt: skip

    def follow(self, situation: Situation) -> None:
        """Record under the decision of now. Raises StorageError where there is no identity to be had for it."""
        policy, before = situation.policy(), self.now
        if policy.generation == before.generation:
            before.journal.rotate(policy.stamp)
            return
        new = self._begun(situation)
        new.journal.source = before.journal.source  # an injected reporter gets the events of that one
        self.now = new
        # Another thread may be about to write to the journal of before, which stays what it was for it.
        before.journal.rotate()
        self._former.append(before)

    def close(self) -> None:
        """Let every journal go."""
        for each in (*self._former, self.now):
            each.journal.close()
