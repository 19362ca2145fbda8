"""What is in force on this machine, followed while a program runs, and what it covers of what was recorded before.

    the level of then → its program's → now; the fields that were agreed to then, and are now

Pure but for the files that it looks at: consent and configuration, read again where they were written since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from .config import DestinationConfig, TelemetryLevel
from .consent import Consent
from .declarations import declarations, waiting_fields
from .policy import Policy
from .situation import Situation
from .spec import Level, Shapes, TelemetryRegistry, lower, project

Stamp = tuple[int, int, int, int] | None
"""What a file is known by, with the time that nobody can set back; None for one that is not there."""


def level_name(level: TelemetryLevel) -> Level | None:
    """A level as specs name it; None for OFF."""
    return None if level is TelemetryLevel.OFF else level.value


class Decision:
    """What may be shared of what. ``registry`` are the specs that are known here, ``shapes`` what they are made to."""

    def __init__(self, situation: Situation, registry: TelemetryRegistry, shapes: Shapes) -> None:
        self.situation = situation
        self._registry, self._shapes = registry, shapes
        operator = situation.environ.get(situation.application.config_variable)
        self._files = [situation.home.consent, situation.home.config, *([Path(operator)] if operator else [])]
        self._seen: list[Stamp] = []  # whatever was decided since `situation` was read counts
        self._withheld: dict[str, frozenset[str]] = {}
        self._hidden: dict[tuple[str, str, str], frozenset[str]] = {}
        self._decide()

    def _decide(self) -> None:
        self._levels: dict[tuple[str, str, bool], Level | None] = {}
        self.policy = self.situation.policy(layered=False)
        self._digest = self._digested()

    def _stamps(self) -> list[Stamp]:
        return [_stamp(path) for path in self._files]

    def refresh(self) -> bool:
        """Read the decision again where it was written since. Whether it was."""
        seen, self._seen = self._seen, self._stamps()
        changed = seen != self._seen
        if changed:
            self.situation = self.situation.again()
            self._withheld.clear()
            self._hidden.clear()
        self._decide()  # also because a consent to DEBUG may have expired
        return changed

    @property
    def settled(self) -> bool:
        """Whether the decision that was read last is still the one in force."""
        return self._seen == self._stamps() and self._digest == self._digested()

    @property
    def trouble(self) -> str:
        """Why the decision cannot be used, which may pass; empty where it can."""
        return next((policy.trouble for policy in self._policies().values() if policy.trouble), "")

    @property
    def known(self) -> bool:
        """Whether anybody decided anything, as far as can be read."""
        return not self.trouble and self.policy.decided_by != "nobody"

    @property
    def refused(self) -> bool:
        """Whether a person said no, to everything."""
        consent = self.situation.consent
        return consent is not None and not self.trouble and not any(each.record for each in consent.grants.values())

    def undecided(self, waiting: Iterable[DestinationConfig]) -> list[str]:
        """Of destinations that wait for a yes, those that were agreed to where they led before."""
        consent = self.situation.consent
        return [to.name for to in waiting if consent is not None and consent.asks(to.name, to.identity)]

    # -- the least of then and now ------------------------------------------------------------------------------------

    def level_of(self, stamped: str, spec: str, *, lasting: bool = False) -> Level | None:
        """At which level something recorded under a stamp may be shared: the least of then, its program's, and now.

        ``lasting`` leaves out what lowers for this process alone: its environment.
        """
        key = (stamped, spec, lasting)
        if key not in self._levels:
            self._levels[key] = self._level_of(stamped, spec, self._now(spec, lasting))
        return self._levels[key]

    def _now(self, spec: str, lasting: bool) -> Policy:
        first = spec == self.situation.application.spec
        policy = self.policy if first else self.situation.policy(layered=False, spec=spec)
        if lasting and policy.decided_by == "you":
            return self.situation._replace(environ={}).policy(layered=False, spec=spec)
        return policy

    def _level_of(self, stamped: str, spec: str, now: Policy) -> Level | None:
        generation, _, cap = stamped.partition("/")
        consent = self.situation.consent
        if not now.record or cap not in [level.value for level in TelemetryLevel]:
            return None
        if now.decided_by == "you" and consent is not None:
            then = consent.level_of(generation, spec)
        else:
            then = now.share if generation == now.generation else TelemetryLevel.OFF
        return lower(lower(level_name(then), level_name(now.share)), level_name(TelemetryLevel(cap)))

    def hidden(self, spec: str, event: str, stamped: str) -> frozenset[str]:
        """The fields of an event that nobody agreed to, now or when it was recorded: it goes without them.

        ``event@2`` is an earlier version than the latest, and has what it does not declare otherwise in common with it.
        """
        key = (spec, event, stamped)
        if key not in self._hidden:
            split = [name.partition("/") for name in self._waiting(spec) | self._lacking(spec, stamped)]
            hidden = {last for first, _, last in split if first in ("*", event)}
            latest, _, version = event.partition("@")
            if version:
                otherwise = self._declared(spec)
                hidden |= {last for first, _, last in split if first == latest and f"{event}/{last}" not in otherwise}
            self._hidden[key] = frozenset(hidden)
        return self._hidden[key]

    def _declared(self, ref: str) -> frozenset[str]:
        return frozenset().union(*(declarations(spec) for spec in self._registry if spec.ref == ref))

    def _waiting(self, ref: str) -> frozenset[str]:
        """Of a spec, the fields that nobody agreed to as they are declared now."""
        if ref not in self._withheld:
            consent, by_person = self.situation.consent, self.policy.decided_by == "you"
            specs = [spec for spec in self._registry if spec.ref == ref]
            self._withheld[ref] = frozenset().union(
                *(waiting_fields(spec, consent.grants.get(spec.meta.name)) for spec in specs if consent and by_person)
            )
        return self._withheld[ref]

    def _lacking(self, ref: str, stamped: str) -> frozenset[str]:
        """Of a spec, the fields that were agreed to only after what is stamped so was recorded."""
        consent = self.situation.consent
        return frozenset() if consent is None else consent.lacking(stamped.partition("/")[0], ref.partition("@")[0])

    # -- what is stored -----------------------------------------------------------------------------------------------

    @property
    def judge(self) -> str:
        """What tells those apart who know of other specs, or of other fields in them."""
        return _digest((self._declares, [(spec.ref, sorted(self._waiting(spec.ref))) for spec in self._registry]))

    @cached_property
    def _declares(self) -> str:
        """Another one for each change of what a spec declares: what is stored may have to shrink with it."""
        return _digest([(spec.ref, sorted(declarations(spec).items())) for spec in self._registry])

    @property
    def digest(self) -> str:
        """Another one for each decision that covers more or less of what is stored."""
        return self._digest

    def _digested(self) -> str:
        consent = self.situation.consent or Consent()
        now = [(name, policy.record, policy.share.value, policy.generation)
               for name, policy in self._policies().items()]  # fmt: skip
        return _digest((now, consent.generations, consent.later_fields))

    def _policies(self) -> dict[str, Policy]:
        """What is lastingly in force now for each spec that was decided on."""
        consent = self.situation.consent or Consent()
        return {name: self._now(name, True) for name in sorted({self.situation.application.spec, *consent.grants})}

    def cover_of(self, spec: str, event: str, stamped: str, version: int = 1) -> Callable[[bytes], bytes | None] | None:
        """What may lastingly be shared of the stored bodies of such events; None for nothing."""
        level = self.level_of(stamped, spec.partition("@")[0], lasting=True)
        if level is None:
            return None
        if self._shapes.event(spec, event, version) is None:  # whoever knows it says what is covered of it
            return lambda body: body
        hidden = self.hidden(spec, self._shapes.label(spec, event, version), stamped)
        return lambda body: project(
            self._shapes, spec, event, body, level=level, withheld=hidden, version=version, anew=True
        )  # fmt: skip


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()
