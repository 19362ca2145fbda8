"""Which span an event is: the end of a run, or of a chain of triggers. Pure.

Ids are made of what the body says, so that the same event is the same span however often it is sent, and a run knows
the spans of those that led to it without having seen them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from .fields import CORE, TRACES, Facts, number

_MILLISECOND, _SECOND = 10**6, 10**9
_UUID = 36


class Context(NamedTuple):
    """Which span of which trace."""

    trace: bytes
    span: bytes


class Span(NamedTuple):
    """One span."""

    context: Context
    name: str
    chain: bool
    """Whether it is a chain's rather than a run's."""
    start: int
    """Nanoseconds since the epoch."""
    end: int
    attributes: Mapping[str, Any]
    failed: bool
    parent: bytes | None = None
    links: tuple[bytes, ...] = ()
    """Other spans of the same trace that led to it."""


def span_of(facts: Facts) -> Span | None:
    """The span that an event is; None where it is none, or a body without what makes one.

    Runs of chains are told by events of their own; a run that was started by hand is a trace of one span.
    """
    match facts.kind:
        case (spec, "traces.chain_ended") if spec == TRACES and (trace := _trace(facts)):
            name = f"RUN {facts.body.get('trigger', '')}".strip()
            return _span(facts, Context(trace, _id(trace, "chain")), name, chain=True)
        case (spec, "traces.run_ended") if spec == TRACES and (trace := _trace(facts)):
            causes = [each for each in _list(facts.body.get("causes")) if number(each) is not None]
            before = [_id(trace, f"run {cause}") for cause in causes]
            context = Context(trace, _id(trace, f"run {facts.body.get('index')}"))
            parent = before[0] if before else _id(trace, "chain")
            return _span(facts, context, _name(facts, "step"), parent=parent, links=tuple(before[1:]))
        case (spec, "command_completed") if spec == CORE and (manual := context_of(facts)):
            return _span(facts, manual, _name(facts, "command_name"))
    return None


def context_of(facts: Facts) -> Context | None:
    """The span of a run that was started by hand; None for any other event of the core."""
    run_id = facts.body.get("run_id")
    if facts.kind != (CORE, "command_completed") or facts.body.get("manual") is not True or not isinstance(run_id, str):
        return None
    trace = sha256(f"{facts.body.get('anonymous_install_id')} run {run_id}".encode("utf-8", "replace")).digest()[:16]
    return Context(trace, _id(trace, "run 0"))


def _trace(facts: Facts) -> bytes | None:
    text = facts.body.get("workflow_id")
    try:
        return uuid.UUID(text).bytes if isinstance(text, str) and len(text) == _UUID else None
    except ValueError:
        return None


def _id(trace: bytes, what: str) -> bytes:
    return sha256(trace + what.encode()).digest()[:8]


def _name(facts: Facts, field: str) -> str:
    return str(facts.body.get(field) or "RUN")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _span(facts: Facts, context: Context, name: str, *, chain: bool = False, parent: bytes | None = None,
          links: tuple[bytes, ...] = ()) -> Span:  # fmt: skip
    lasted = max(number(facts.body.get("duration_ms")) or 0, 0) * _MILLISECOND
    began = number(facts.body.get("started"))
    start = max(facts.seconds * _SECOND - lasted, 0) if began is None else max(began, 0) * _MILLISECOND
    return Span(
        context=context, name=name, chain=chain, start=start, end=start + lasted, attributes=facts.attributes(),
        failed=facts.error is not None, parent=parent, links=links,
    )  # fmt: skip
