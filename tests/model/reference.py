"""What must be so, whatever happened: a list of events, what was decided when, and a set of events a destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cmdorc_telemetry.types import View

from .world import World

DAY = 86_400.0
KEEP = 30 * DAY
LEVELS = ("off", "minimal", "standard", "debug")
LEAST = {"command_completed": "minimal", "anomaly_detected": "standard"}
"""Kind of event → the least level that shares it."""
LOSSES = ("storage-failed", "journal-full", "corrupt")
"""Reasons that are recorded and dropped at once: there never was an event."""


@dataclass
class Event:
    """One that was captured, or may have been."""

    kind: str
    at: float
    decision: int
    """The index of the decision that it was recorded under: none that came after it."""
    source: str
    sure: bool = False
    """Whether the capture returned True."""
    found: str | None = None
    """The generation of the segment that it was found in."""
    imported: bool = False
    level: str = "debug"
    """At which level it is stored to be shared; ``off`` for not at all. Never rises."""


@dataclass
class Decision:
    """What a person said."""

    generation: str
    level: str | None
    """None where not even recording is allowed; ``off`` for recording alone."""
    destinations: Collection[str]


@dataclass
class Target:
    """A destination."""

    view: View
    limit: str | None = None
    present: bool = True
    removed: bool = False
    """Whether it was ever gone."""
    entered: set[str] = field(default_factory=set)
    """Imported while it was there, with a body for it."""
    accepted: set[str] = field(default_factory=set)
    """Answered to be there."""
    refused: set[str] = field(default_factory=set)
    """Answered that they will never be taken."""
    dropped: Counter[str] = field(default_factory=Counter)
    """As last seen."""
    acknowledged: int = 0


@dataclass
class Step:
    """Who did something since the last look, and what that may have changed beside the events."""

    decision: int | None = None
    """What decision the actor knew of at last."""
    registers: Mapping[str, View] | None = None
    abandons: str | None = None
    owners: Collection[str] = ()
    """Destinations of reporters injected by code whose process lives."""


class Reference:
    """Compares what is on the disk with what may be there. Raises AssertionError."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.decisions: list[Decision] = []
        self.targets: dict[str, Target] = {}
        self.failed = 0
        """Captures that returned False."""
        self.told: dict[str, int] = {}
        self.open: set[str] = set()
        """Segments that lie there."""
        self.given_up: set[str] = set()
        """Segments that went with a no: what they held, and what they told of, is nobody's any more."""
        self.discards = False
        """Whether anybody discarded dead letters."""
        self.latest = 0.0
        """The latest moment that any clock showed."""

    # -- what may be shared ---------------------------------------------------------------------------------------

    def level(self, event: Event, decision: int) -> str:
        """At which level an event may be shared under a decision: the least of all since it was recorded."""
        if decision < event.decision:
            return "off"  # the program knew of a decision that this one does not
        said = [each.level or "off" for each in self.decisions[event.decision : decision + 1]]
        return min(said, key=LEVELS.index)

    def shared(self, event: Event, decision: int) -> bool:
        return LEVELS.index(self.level(event, decision)) >= LEVELS.index(LEAST[event.kind])

    def agreed(self, name: str, event: Event, decision: int) -> bool:
        """Whether a destination was agreed to when an event was recorded, and ever since."""
        return all(name in each.destinations for each in self.decisions[event.decision : decision + 1])

    def wants(self, view: View, event: Event, decision: int) -> bool:
        return (
            (view.audience == "private" or self.shared(event, decision))
            and (view.kinds is None or event.kind in {kind for _, kind in view.kinds})
            and view.source in (None, event.source)
        )

    def receive(self, name: str, event_id: str, level: str, in_force: Collection[int]) -> None:
        """An event arrives at a destination, while these decisions were in force."""
        event, target = self.events.get(event_id), self.targets.get(name)
        assert event is not None, "something that was never captured was sent"
        assert target is not None, "something was sent to a destination that was never there"
        assert event_id in target.entered, "something was sent to a destination that it was not recorded for"
        assert any(self.decisions[each].level for each in in_force), "something was sent without any consent"
        if target.view.audience == "private":
            return
        assert any(
            self.shared(event, each) and level == self.level(event, each)
            and (target.view.source is not None or self.agreed(name, event, each))
            for each in in_force
        ), f"{event} was shared at {level} without consent"  # fmt: skip

    # -- what is on the disk --------------------------------------------------------------------------------------

    def explain(self, world: World, step: Step, now: float) -> None:
        """Go on from ``world``, if what one actor did in a step can have led to it."""
        self.latest = max(self.latest, now)
        self._destinations(world, step)
        refused = step.decision is not None and self.decisions[step.decision].level is None
        self._events(world, step, refused)
        if refused:
            self.given_up |= self.open - world.told.keys()
        self._losses(world)
        for name, target in self.targets.items():
            self._ledger(name, target, world)

    def covered(self, world: World, decision: int) -> None:
        """Whoever imports under a decision leaves nothing stored to be shared that it does not cover."""
        for event_id, level in world.shared.items():
            event = self.events[event_id]
            assert self.shared(event, decision), f"{event} is stored to be shared, and must not be"
            assert LEVELS.index(level) <= LEVELS.index(self.level(event, decision)), f"{event} is stored at {level}"

    def _destinations(self, world: World, step: Step) -> None:
        for name, ledger in world.ledgers.items():
            target = self.targets.get(name)
            if not ledger.removed and (target is None or not target.present):
                view = (step.registers or {}).get(name)
                assert view is not None, f"{name} is there although nobody registered it"
                if target is None:
                    self.targets[name] = Target(view)
                else:
                    target.present, target.view = True, view
            elif ledger.removed and target is not None and target.present:
                replaced = step.registers is not None and name not in step.registers and name not in step.owners
                assert replaced or name == step.abandons, f"{name} is gone although nobody removed it"
                target.present, target.removed = False, True
        for name, target in list(self.targets.items()):
            if name not in world.ledgers:  # a line of a reporter that is gone stays for a day
                assert target.view.source is not None, f"{name} is not in the ledger any more"
                assert not target.present
                del self.targets[name]

    def _events(self, world: World, step: Step, refused: bool) -> None:
        new = []
        for event_id, event in self.events.items():
            if event_id in world.waiting:
                assert not event.imported, "an event that was imported lies in a journal, to be imported again"
                if event.found is None:
                    self._found(event, world.waiting[event_id])
            elif event.sure and not event.imported:
                new.append(event_id)
        assert world.waiting.keys() <= self.events.keys(), "a journal holds what was never captured"
        assert world.stored <= self.events.keys(), "the spool holds what was never captured"
        for event_id in world.stored:
            event, level = self.events[event_id], world.shared.get(event_id, "off")
            assert LEVELS.index(level) <= LEVELS.index(event.level), f"{event} was widened to {level}"
            event.level = level
        for event_id in new:
            event = self.events[event_id]
            event.imported = True
            assert step.decision is not None, "an event is gone from the journals"
            if refused:
                continue
            assert "history" in self.targets, "an event was imported for nobody"
            for target in self.targets.values():
                if target.present and self.wants(target.view, event, step.decision):
                    target.entered.add(event_id)

    def _found(self, event: Event, generation: str) -> None:
        """A process that captures may know of an older decision than the latest, never of one that is yet to come."""
        (index,) = [i for i, each in enumerate(self.decisions) if each.generation == generation]
        assert index <= event.decision, "what was recorded before a decision is taken for recorded under it"
        event.sure, event.found, event.decision = True, generation, index

    def _losses(self, world: World) -> None:
        self.open = set(world.told)
        self.told.update(world.told)
        assert sum(self.told.values()) <= self.failed, f"more losses were told of than there were: {self.told}"
        if (history := self.targets.get("history")) is not None:
            finished = sum(count for name, count in self.told.items() if name not in self.open | self.given_up)
            dropped = sum(world.ledgers["history"].dropped.get(reason, 0) for reason in LOSSES)
            assert finished <= dropped <= sum(self.told.values()), (
                f"losses are not counted, or counted twice: {self.told} told, {dropped} dropped, of {sorted(self.open)}"
            )
            assert history.present

    def _ledger(self, name: str, target: Target, world: World) -> None:
        ledger = world.ledgers[name]
        dropped = Counter(ledger.dropped)
        losses = sum(dropped[reason] for reason in LOSSES)
        given_up = dropped.total() - losses
        assert ledger.recorded == ledger.acknowledged + ledger.pending + dropped.total(), f"{name}: {ledger}"
        assert ledger.recorded == len(target.entered) + losses, f"{name}: {len(target.entered)} entered; {ledger}"
        assert target.acknowledged <= ledger.acknowledged
        assert ledger.acknowledged <= len(target.accepted & target.entered), f"{name}: acknowledged, not accepted"
        assert not target.dropped - dropped, f"{name}: drops were forgotten"
        assert dropped["rejected-by-server"] + dropped["over-size"] <= len(target.refused)
        assert {reason for reason, count in dropped.items() if count} <= self._reasons(target), f"{name}: {ledger}"
        old = sum(self.events[each].at < self.latest - KEEP + 1 for each in target.entered) if dropped["expired"] else 0
        assert dropped["expired"] <= old
        gone = target.entered - world.stored - target.accepted
        assert len(gone) <= given_up, f"{name}: {len(gone)} are neither there nor kept nor dropped; {ledger}"
        assert ledger.pending <= len(target.entered & world.stored)
        target.dropped, target.acknowledged = dropped, ledger.acknowledged

    def _reasons(self, target: Target) -> set[str]:
        """Why events of a destination may be dropped, after what has happened so far."""
        reasons = {*LOSSES, "expired", "rejected-by-server", "over-size"}
        if target.removed:
            reasons |= {"destination-removed", "reporter-gone", "withdrawn-consent"}
        if len(self.decisions) > 1:
            reasons |= {"withdrawn-consent", "before-your-yes"}
        if self.discards:
            reasons.add("discarded")
        return reasons
