"""What ``status`` tells, as data: decision, limits, destinations with their ledgers, what is where. Writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from .. import clock
from ..config import DestinationConfig, TelemetryLevel, is_built_in
from ..decision import level_name
from ..erasure import Owed, load_owed
from ..errors import StorageError
from ..history import NAME as HISTORY
from ..spec import LEVELS, Level
from ..types import Ledger
from .machine import Machine, Unread
from .usage import Usage, records, usage
from .waiting import declined, waiting

State = Literal[
    "up-to-date", "pending", "waiting", "set-aside", "waits-for-your-yes", "declined", "plugin-missing",
    "misconfigured", "off", "blocked", "removed",
]  # fmt: skip


class Place(Struct, kw_only=True):
    """One destination."""

    name: str
    plugin: str
    target: str
    audience: str
    state: State
    note: str = ""
    """What went wrong last, or what is wrong with its settings."""
    fix: str = ""
    """A line to copy."""
    asks: str = ""
    """What its receiver wants less of."""
    unclear: str = ""
    """What its receiver asks for that cannot be understood: it means nothing."""
    ledger: Ledger


class Standing(Struct, kw_only=True):
    """Everything that ``status`` says."""

    recording: bool
    """Here: with what the project's file lowers."""
    recording_elsewhere: bool
    """On this machine, without it."""
    level: str
    decided_by: str
    decided_at: str
    decided_in: str
    config: str
    limits: tuple[str, ...]
    ignored: tuple[str, ...]
    destinations: list[Place]
    history: Ledger
    detectors: list[Ledger]
    removed: list[Ledger]
    """Destinations that are no more."""
    segments: int = 0
    """Journal segments of processes that are gone, not imported yet."""
    records: int = 0
    """What they hold."""
    segments_of_live_processes: int = 0
    records_of_live_processes: int = 0
    usage: Usage | None = None
    """None where the spool cannot be read."""
    slow: int = 0
    """Captures that took over 10 ms."""
    withheld: dict[str, int] = field(default_factory=dict)
    """Events that were not shared, by reason."""
    last_report: float = 0.0
    """Seconds since the epoch; 0 for none yet."""
    broken_plugins: dict[str, str] = field(default_factory=dict)
    fields_waiting: list[str] = field(default_factory=list)
    specs_waiting: list[str] = field(default_factory=list)
    to_be_erased: dict[str, list[str]] = field(default_factory=dict)
    """Ids that were given up → the destinations that have not confirmed yet that they are erased."""
    problems: list[str] = field(default_factory=list)


def standing(machine: Machine, problem: str = "") -> Standing:
    """How things are on ``machine``; ``problem`` is something wrong that is known already."""
    situation, pipeline = machine.situation, machine.pipeline
    policy = situation.policy()
    problems = [text for text in (problem, policy.trouble) if text]
    ledgers: Mapping[str, Ledger] = {}
    withheld: dict[str, int] = {}
    slow = 0
    segments, used = Unread([], []), None
    try:
        spool = machine.peek()
        try:
            segments = machine.segments(spool)
            if spool is not None:
                ledgers, withheld, slow = spool.ledger(), spool.withheld(), spool.slow()
                pipeline.heed(spool.policies())
            used = usage(machine, spool)
        finally:
            if spool is not None:
                spool.close()
    except StorageError as fault:
        problems.append(str(fault))
    owed: tuple[Owed, ...] = ()
    try:
        owed = load_owed(machine.home)
    except StorageError as fault:
        problems.append(str(fault))
    if pipeline.policy.record and machine.home.telemetry.exists() and not _writable(machine.home.telemetry):
        problems.append(f"{machine.home.telemetry} cannot be written to: what is recorded is dropped, nothing is sent")
    if pipeline.policy.record:
        problems += [f"{text}." for text in machine.unplaced.values()]
    blocked = pipeline.blocked()
    if blocked and pipeline.policy.record:
        problems.append(f"Nothing is shared: {blocked}. What happens until that is mended stays on this machine: "
                        "it is not shared later, either.")  # fmt: skip
    now = clock.wall()
    places = [_place(machine, to, ledgers.get(to.name), now) for to in pipeline.configured]
    known = {place.name for place in places}
    there = [ledger for ledger in ledgers.values() if not ledger.removed]
    places += [_unconfigured(each) for each in there if not is_built_in(each.name) and each.name not in known]
    asked = waiting(machine)
    return Standing(
        recording=policy.record,
        recording_elsewhere=pipeline.policy.record,
        level=policy.share.value,
        decided_by=policy.decided_by,
        decided_at=policy.decided_at,
        decided_in={"you": str(machine.home.consent), "operator": machine.application.variable}.get(
            policy.decided_by, ""
        ),
        config=str(situation.user.source),
        limits=policy.limits,
        ignored=(*policy.ignored, *pipeline.registry.refused),
        destinations=places,
        history=ledgers.get(HISTORY, Ledger(name=HISTORY)),
        detectors=[ledger for ledger in there if is_built_in(ledger.name) and ledger.name != HISTORY],
        removed=[ledger for ledger in ledgers.values() if ledger.removed],
        segments=len(segments.left),
        records=records(segments.left),
        segments_of_live_processes=len(segments.live),
        records_of_live_processes=records(segments.live),
        usage=used,
        withheld=withheld,
        slow=slow,
        last_report=max((each.last_report for name, each in ledgers.items() if not is_built_in(name)), default=0.0),
        broken_plugins=dict(machine.host.failures),
        fields_waiting=asked.names(machine.application.spec),
        specs_waiting=[spec.meta.name for spec in asked.specs],
        to_be_erased={each.install_id: sorted(each.destinations) for each in owed},
        problems=problems,
    )


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _place(machine: Machine, to: DestinationConfig, ledger: Ledger | None, now: float) -> Place:
    ledger = ledger or Ledger(name=to.name)
    pipeline = machine.pipeline
    state: State = "up-to-date"
    note = fix = ""
    if to.name in machine.missing:
        state = "plugin-missing"
        note, fix = machine.missing[to.name]
    elif fault := machine.fault(to):
        state, note = "misconfigured", str(fault)
    elif not pipeline.policy.record:
        state = "off"
    elif to in pipeline.waiting:
        consent = machine.situation.consent
        state = "declined" if consent is not None and declined(consent, to) else "waits-for-your-yes"
    elif ledger.pending > ledger.set_aside:
        state, note = ("waiting", ledger.last_error) if ledger.next_try > now else ("pending", ledger.last_error)
    elif ledger.pending:
        state = "set-aside"
    elif to.audience == "shared" and pipeline.blocked():
        state = "blocked"
    wishes = pipeline.wishes(to.name)
    return Place(name=to.name, plugin=to.plugin, target=machine.target(to), audience=to.audience, state=state,
                 note=note, fix=fix, asks=wishes.words(_level(machine, to)), unclear=wishes.unclear(),
                 ledger=ledger)  # fmt: skip


def _level(machine: Machine, to: DestinationConfig) -> Level | None:
    """What a destination gets at most, whatever its receiver asks for."""
    if to.audience == "private":
        return LEVELS[-1]
    return level_name(min(machine.pipeline.policy.share, to.level or TelemetryLevel.DEBUG))


def _unconfigured(ledger: Ledger) -> Place:
    """The reporter of a program that runs now, given by code; or what was taken out of the configuration, and goes
    with the next program that records."""
    if not ledger.name.startswith("code-"):
        return Place(name=ledger.name, plugin="", target="", audience="", state="removed", ledger=ledger)
    return Place(name=ledger.name, plugin="", target="a running program", audience="shared",
                 state="pending" if ledger.pending else "up-to-date", ledger=ledger)  # fmt: skip
