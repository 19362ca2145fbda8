"""Gathers what the page of ``view`` shows. A question that cannot be answered is a sentence there, not the end here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

from .. import __version__, audit, clock
from ..config import is_built_in
from ..errors import StorageError
from ..history import NAME as HISTORY
from ..insights import EventCounts, command_days, event_counts, newest_bodies
from ..types import Ledger
from ..view.facts import Batch, Body, Comparison, Facts, Note, PlaceFacts, Queue, Section, Sent, Withheld
from .collection import events, withheld_fields
from .machine import Machine
from .standing import Standing
from .stats import percentile_told
from .status import decision, state_of, troubles
from .wording import command_line, place, plural

DAYS = 90
"""How far back the charts go."""
_BODIES = 5
_BATCHES = 20
_WELL = ("up-to-date", "pending", "off")
_WHOLE = {
    "consent": ("your consent", "you had not agreed to share it when it was recorded, or do not any more"),
    "level": ("your level", "it shares nothing of such an event"),
    "sampling": ("sampling", "only a part of such events is shared"),
    "undeclared": ("the spec", "it has expired, or who sends does not know it: another project or program added it"),
    "invalid": ("the spec", "a value was not what it declares"),
    "plugin-not-loaded": ("a plugin", "it is enabled, could not be loaded, and may be an anonymizer"),
}
"""Who held a whole event back, and why, by the reason that the gate counts it under."""

Found = TypeVar("Found")


def gather(machine: Machine, standing: Standing) -> Facts:
    """Everything the page shows; ``standing`` is how things are on ``machine``. Writes nothing."""
    now = clock.wall()
    failed: dict[Section, str] = {}

    def answer(section: Section, ask: Callable[[], Found], otherwise: Found) -> Found:
        try:
            return ask()
        except (StorageError, OSError) as fault:
            failed[section] = f"{fault}."
            return otherwise

    if standing.usage is None:
        failed["places"] = "The spool cannot be read. What is wrong with it is said at the top."
    history, runs = machine.home.history, machine.application.is_cmdorc
    values: Mapping[str, bytes] = answer("collected", lambda: newest_bodies(history), {})
    return Facts(
        now=now,
        version=__version__,
        command=command_line(),
        recording=standing.recording,
        recording_elsewhere=standing.recording_elsewhere,
        level=standing.level,
        decided=tuple(_decided(standing)),
        notes=tuple(_notes(standing)),
        places=tuple(_places(standing)),
        unread=tuple(_unread(standing)),
        events=tuple(events(machine, values)),
        queues=answer("queues", lambda: tuple(_queues(machine, standing)), ()),
        withheld=answer("withheld", lambda: tuple(_withheld(machine, standing)), ()),
        sent=answer("sent", lambda: tuple(_sent(machine)), ()),
        alarms=answer("sent", lambda: tuple(_alarms(machine)), ()),
        past=answer("past", lambda: command_days(history, now=now, days=DAYS), None) if runs else None,
        counted=() if runs else answer("past", lambda: _counted(history, now), ()),
        compared=tuple(_compared(standing)),
        failed=failed,
    )


def _counted(history: Path, now: float) -> tuple[EventCounts, ...]:
    return tuple(event_counts(history, now=now, days=DAYS, parts=DAYS))


# -- how things are: as ``status`` says it ----------------------------------------------------------------------------


def _decided(standing: Standing) -> Iterator[tuple[str, str]]:
    if standing.decided_by == "nobody" and not (standing.limits or standing.ignored):
        return
    last = ""
    for label, part in decision(standing):
        last = label or last
        if part != "none":
            yield last, str(part)


def _notes(standing: Standing) -> Iterator[Note]:
    for text, *lines in troubles(standing):
        yield Note(text, tuple(lines))
    for each in standing.destinations:
        if each.state == "plugin-missing":
            yield Note(f"{each.name}: {each.note}. Events wait for it.", (each.fix,))
        if each.unclear:
            yield Note(f"{each.name} asks for what means nothing here: {each.unclear}.")


def _places(standing: Standing) -> Iterator[PlaceFacts]:
    """The history, every destination, and those that are no more."""
    if not (standing.recording_elsewhere or standing.history.recorded):
        return
    yield PlaceFacts(name=HISTORY, whose="here", where="for your own statistics", ledger=standing.history)
    for ledger in standing.detectors:
        yield PlaceFacts(name=ledger.name, whose="here", where="looks for what is unusual", note=ledger.last_error,
                         well=not ledger.failures, ledger=ledger)  # fmt: skip
    for each in standing.destinations:
        state, *more = (part if isinstance(part, str) else part[0] for part in state_of(each))
        more += [f" ({each.note})"] if each.note and each.state != "plugin-missing" else []
        yield PlaceFacts(name=each.name, whose=_whose(each.audience), where=place(each.target), state=state,
                         note="".join(more).lstrip(" ,"), well=each.state in _WELL, ledger=each.ledger)  # fmt: skip
    for ledger in standing.removed:
        yield PlaceFacts(name=ledger.name, whose="gone", ledger=ledger)


def _whose(audience: str) -> Literal["yours", "shared"]:
    return "yours" if audience == "private" else "shared"


def _unread(standing: Standing) -> Iterator[str]:
    if standing.records:
        yield f"{plural(standing.records, 'record')} of programs that ended, not imported yet."
    if live := standing.segments_of_live_processes:
        records = plural(standing.records_of_live_processes, "record")
        yield f"{plural(live, 'running process', 'running processes')} with {records}, not imported yet."


def _compared(standing: Standing) -> Iterator[Comparison]:
    for each in standing.destinations:
        rank = percentile_told(each.ledger.answer)
        if rank is not None:
            yield Comparison(each.name, rank, each.ledger.last_report)


# -- what waits, what left, what did not ------------------------------------------------------------------------------


def _queues(machine: Machine, standing: Standing) -> Iterator[Queue]:
    spool = machine.peek() if standing.recording_elsewhere else None
    if spool is None:
        return
    pipeline, ledgers = machine.pipeline, {each.name: each.ledger for each in standing.destinations}
    with closing(spool):
        for to in pipeline.allowed:
            ledger = ledgers[to.name]
            waiting = ledger.pending - ledger.set_aside
            if waiting:
                rows = [(row, pipeline.body_for(to, row)) for row in spool.next(to.name, _BODIES)]
                bodies = tuple(Body(row.event, row.at, body) for row, body in rows if isinstance(body, bytes))
                yield Queue(name=to.name, waiting=waiting, next_try=ledger.next_try, bodies=bodies)


def _sent(machine: Machine) -> Iterator[Sent]:
    """What the audit has of each destination, the newest batches one by one."""
    audiences = {to.name: to.audience for to in machine.pipeline.configured}
    found: dict[str, list[audit.Entry]] = {}
    for entry in audit.entries(machine.home):
        found.setdefault(entry.destination, []).append(entry)
    for name, each in found.items():
        yield Sent(
            name=name, whose=_whose(audiences[name]) if name in audiences else "gone", batches=len(each),
            events=sum(sum(entry.events.values()) for entry in each), size=sum(entry.bytes for entry in each),
            latest=tuple(_batch(entry) for entry in reversed(each[-_BATCHES:])),
        )  # fmt: skip


def _batch(entry: audit.Entry) -> Batch:
    fields = dict.fromkeys(name for names in entry.fields.values() for name in names)
    answer = ", ".join(f"{count:,} {status}" for status, count in entry.answer.items())
    return Batch(at=entry.at, events=entry.events, fields=tuple(fields), size=entry.bytes, digest=entry.digest,
                 answer=f"{answer} ({entry.error})" if entry.error else answer)  # fmt: skip


def _alarms(machine: Machine) -> Iterator[str]:
    """What is wrong with the audit."""

    def look() -> tuple[str, Mapping[str, Ledger]]:
        spool = machine.peek()
        if spool is None:
            return "", {}
        with closing(spool):
            return spool.epoch, {name: each for name, each in spool.ledger().items() if not is_built_in(name)}

    return map(str, audit.verify(machine.home, look))


def _withheld(machine: Machine, standing: Standing) -> Iterator[Withheld]:
    if not standing.recording_elsewhere:
        return
    yield from withheld_fields(machine)
    for each in standing.destinations:
        if each.asks:
            yield Withheld(by=f"the receiver of {each.name}", why=f"it asks for less: {each.asks}")
    spool = machine.peek()
    if spool is not None:
        with closing(spool):
            anonymized = spool.anonymized()
        for (event, name, plugin), count in anonymized.items():
            why = "removed, or given a value that is not valid; counted among the events that are queued now"
            yield Withheld(what={event: (name,)}, by=f"anonymizer {plugin}", why=why, times=count)
    for reason, count in sorted(standing.withheld.items()):
        by, why = _WHOLE.get(reason, (reason, ""))
        yield Withheld(by=by, why=why, times=count)
