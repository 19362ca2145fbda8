"""What specs declare now, and what a person was shown when they decided: what a yes covers, and what waits for one.

The decision itself, and its file, are in ``consent.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from . import clock
from .config import DestinationConfig, TelemetryLevel
from .consent import Grant, shown

if TYPE_CHECKING:
    from .situation import Situation
    from .spec import TelemetryRegistry, TelemetrySpec
    from .spec.compare import Change

DEBUG_DAYS = timedelta(days=30)


def differences(spec: TelemetrySpec, grant: Grant | None) -> Mapping[str, Change]:
    """What became of the fields of ``spec`` since ``grant``, and of those that nobody was asked for: ``event/name``."""
    if grant is None:
        return {}
    from .spec.compare import compare_declarations

    declared = declarations(spec)
    compared = {name: compare_declarations(shown(grant, name), declared.get(name))
                for name in {**declared, **grant.fields}}  # fmt: skip
    return {name: change for name, change in compared.items() if change is not None}


def waiting_fields(spec: TelemetrySpec, grant: Grant | None) -> frozenset[str]:
    """The fields of ``spec`` that nobody agreed to as they are declared: not shown, or less. ``event/name``."""
    from .spec.compare import ASKS

    return frozenset(name for name, change in differences(spec, grant).items() if change in ASKS)


def unanswered(spec: TelemetrySpec, grant: Grant | None, level: TelemetryLevel) -> frozenset[str]:
    """Of the waiting fields, those to ask a person for: ``level`` would share them, and nobody has said no yet."""
    if grant is None:
        return frozenset()
    shared = declarations(spec, level)
    return frozenset(name for name in waiting_fields(spec, grant) & shared.keys()
                     if grant.declined.get(name) != shared[name])  # fmt: skip


def declarations(spec: TelemetrySpec, level: TelemetryLevel | None = None) -> dict[str, str]:
    """The fields of ``spec`` that could be shared, or are at ``level`` → what a person agrees to with each.

    Keys are ``event/name``, and ``*/name`` for base fields: names may hold dots, and no slash. What an earlier version
    of an event declares otherwise than the latest is ``event@2/name``.
    """
    from .spec import BASE

    if level is TelemetryLevel.OFF:
        return {}
    base = {f"*/{name}": spec.declaration(event, name) for event in spec.events[:1] for name in BASE}
    if level is None:
        return {**base, **spec.declared(lambda prop: prop.audience == "shared")}
    return {**base, **spec.declared(lambda prop: prop.shared_at(level.value))}


def new_grant(spec: TelemetrySpec, share: TelemetryLevel, now: datetime) -> Grant:
    """A yes, now, to what ``spec`` declares at ``share``. OFF: to recording on this machine only."""
    expires = now + DEBUG_DAYS if share is TelemetryLevel.DEBUG else None
    return Grant(True, share, clock.iso(now.timestamp()), declarations(spec, share), debug_expires=expires)


def covered(situation: Situation, registry: TelemetryRegistry, spec: TelemetrySpec) -> bool:
    """Whether the events of ``spec`` may be written down here: by a decision on it alone, since each has its own.

    An operator's variable covers, beside the application's own, what shares nothing with anybody: a spec of which every
    property is private, as some plugins bring. What a project or a program adds is theirs, and nobody's decision.
    """
    if situation.policy(spec=spec.meta.name).record:
        return True
    policy = situation.policy()
    brought = policy.decided_by == "operator" and registry.is_configured(spec)
    return brought and policy.record and not declares_shared(spec)


def declares_shared(spec: TelemetrySpec) -> bool:
    """Whether ``spec`` declares any property that might be shared, beside what every event has."""
    return bool(spec.declared(lambda prop: prop.audience == "shared"))


def identities(destinations: Collection[DestinationConfig]) -> dict[str, str]:
    """What a person agrees to with the shared ones of ``destinations``: name → identity."""
    return {to.name: to.identity for to in destinations if to.audience == "shared"}
