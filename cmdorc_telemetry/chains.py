"""Which runs and triggers belong to one chain, and when that chain is over.

A chain is one call of ``trigger`` and all that cmdorc does because of it: the runs that it starts, the triggers by
which cmdorc tells of these runs, and so on. cmdorc's own account of a chain is a list of names, which two chains may
share; here a call is told by the context variables that its tasks inherit, so that each chain is itself.

Knows nothing of cmdorc but the names of its events. Used only where somebody listens to ``cmdorc_chain``.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from . import clock
from .lifecycle import Chain, ChainOutcome, CompletedRun

STARTED = "command_started"
ENDED = ("command_success", "command_failed", "command_cancelled")
"""What cmdorc's own events are called, before a colon and the name of the command."""
_OVER = object()
"""The task of a call that is over."""


class Chains:
    """The chains of one orchestrator that are under way."""

    def __init__(self, fire: Callable[[str, Struct], None], session_id: str, leads: Callable[[str], bool]) -> None:
        """``leads`` tells whether an event would start anything."""
        self.fire, self.session_id, self.leads = fire, session_id, leads
        self.under_way: set[Course] = set()
        self.closed = False

    def call(self, event: object, context: Any, before: Call | None) -> Call:
        """A call of ``trigger`` that begins now, in the course of ``before``'s chain or of a new one.

        ``before`` is the last call in whose tasks this one is made.
        """
        course = before.course if before is not None else None
        if course is not None and course.chains is self and before is not None and before.leads(event, context):
            return Call(event, course, before.cause_of(event))
        return Call(event, Course(self, str(event)))

    def close(self) -> None:
        """The orchestrator is shut down, and its runs are reported: nothing goes on."""
        self.closed = True
        for course in list(self.under_way):
            course.end()


class Call:
    """What a chain must know of one call of ``trigger``."""

    __slots__ = ("_commands", "_event", "_task", "cause", "course")

    def __init__(self, event: object, course: Course, cause: int | None = None) -> None:
        self.course, self._event, self.cause = course, event, cause
        """``cause``: the run that led to it; None where none did."""
        self._task = _task()
        self._commands: dict[str, int | None] = {}
        """Those that it started, and their numbers in the chain."""
        course.open += 1

    def leads(self, event: object, context: Any) -> bool:
        """Whether a call that is made in one of its tasks continues its chain.

        cmdorc's word on a run that this call started does. A callback's own trigger does where it was given the
        chain's context, or is awaited without any while this call is handled; any other begins a chain of its own.
        """
        if self.course.ended or not isinstance(event, str):
            return False
        kind, _, command = event.partition(":")
        history = getattr(context, "history", None)
        if kind == STARTED or kind in ENDED:
            # A run that a callback started by hand comes with a history that is empty.
            return command in self._commands and history != []
        if history is not None:
            return self._event in history
        return self._task is _task()

    def cause_of(self, event: object) -> int | None:
        """The run that led to a call which continues the chain: the one that cmdorc tells of, or this call's own."""
        kind, _, command = str(event).partition(":")
        return self._commands.get(command) if kind == STARTED or kind in ENDED else self.cause

    def starts(self, command: str) -> int | None:
        """A run of ``command`` is started: its number in the chain; None where that is over."""
        index = self._commands[command] = self.course.begin(command, str(self._event), self.cause)
        return index

    def over(self, *, refused: bool) -> None:
        """The call has returned or raised."""
        self._task = _OVER  # a task has a context, and that another call: without an end, in a loop
        if isinstance(self._event, str) and not refused:
            self.course.heard(self._event)
        self.course.leave()


def _task() -> object:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a coroutine that somebody drives by hand, or destroys
        return None


class Course:
    """One chain under way. It is over when nothing is ``open``: neither calls, nor runs that are yet to be reported or
    to be told of by cmdorc."""

    __slots__ = ("_began", "_cancelled", "_causes", "_cut", "_early", "_failed", "_id", "_runs", "_trigger", "_unheard",
                 "chains", "ended", "epoch", "open")  # fmt: skip

    def __init__(self, chains: Chains, trigger: str) -> None:
        self.chains, self._trigger = chains, trigger
        self._began = clock.monotonic()
        self.epoch = clock.wall() - self._began
        """When the monotonic clock was at 0: what its runs are told apart by, whatever is done to the other clock.
        It is not the session's, for the monotonic one stands still while a machine sleeps."""
        self._id = ""
        self._runs = self._failed = self._cancelled = self.open = 0
        self._cut = self.ended = False
        self._causes: dict[str, dict[str, int]] = {}
        """Command → the events that have started it, and the run that led to each of them last."""
        self._unheard: list[str] = []
        """cmdorc's own events of its runs that are still to come, or to be handled."""
        self._early: list[str] = []
        """Commands of the runs whose ends it told of before they were reported."""

    def record(self, outcome: ChainOutcome | None = None) -> Chain:
        """The chain as it stands."""
        return Chain(
            id=self._id,
            trigger=self._trigger,
            outcome=outcome,
            started_at=self.epoch + self._began,
            duration=clock.monotonic() - self._began,
            runs=self._runs,
            failed=self._failed,
            cancelled=self._cancelled,
            session_id=self.chains.session_id,
        )

    def causes(self, command: str, cause: int | None) -> tuple[int, ...]:
        """The runs that led to ``command`` so far, one an event that starts it, ``cause`` first. None where there is no
        ``cause``: what the chain's own trigger starts needs nothing that came before."""
        if cause is None:
            return ()
        found = dict.fromkeys(self._causes.get(command, {}).values())
        return tuple(sorted(found, key=lambda index: index != cause))

    def begin(self, command: str, event: str, cause: int | None) -> int | None:
        """A run of ``command`` is started by ``event``, to which the run ``cause`` of this chain led; None for none."""
        if self.ended or self.chains.closed:
            return None
        if cause is not None:
            self._causes.setdefault(command, {})[event] = cause
        self._runs += 1
        self.open += 1
        self._unheard.append(f"{STARTED}:{command}")
        if self._runs == 1:
            self._id = str(uuid.uuid4())
            self.chains.under_way.add(self)
            self.chains.fire("cmdorc_chain", self.record())
        return self._runs - 1

    def follow(self, handle: Any) -> None:
        """Stay open until cmdorc lets go of the handle of a run: it has told of the run's end then, or never will."""
        cleanup = handle.cleanup

        @functools.wraps(cleanup)
        async def let_go(*args: Any, **kwargs: Any) -> Any:
            mine = vars(handle).pop("cleanup", None) is let_go
            try:
                return await cleanup(*args, **kwargs)
            finally:
                if mine:
                    self.leave()

        self.open += 1
        handle.cleanup = let_go

    def finish(self, run: CompletedRun, *, stopping: bool, started: bool) -> None:
        """A run was reported; ``stopping``: while the orchestrator is shut down. Of one that could not be ``started``
        cmdorc tells nobody."""
        if run.state == "failed":
            self._failed += 1
        elif run.state != "success":
            self._cancelled += 1
            self._cut = self._cut or stopping
        if not started:
            self.heard(f"{STARTED}:{run.command_name}")
        elif run.command_name in self._early:
            self._early.remove(run.command_name)
        else:
            self._unheard.append(f"command_{run.state}:{run.command_name}")
        self.leave()

    def heard(self, event: str) -> None:
        """cmdorc told of a run, and started what that starts."""
        kind, _, command = event.partition(":")
        # A cancel mostly finalises twice, and cmdorc tells of the first state: the name has to do.
        alike = {f"{end}:{command}" for end in ENDED} if kind in ENDED else {event}
        found = next((each for each in self._unheard if each in alike), None)
        if found is not None:
            self._unheard.remove(found)
        elif kind in ENDED:
            self._early.append(command)

    def leave(self) -> None:
        """Something that was open is over."""
        self.open -= 1
        if self.open:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._look()
        else:
            loop.call_soon(self._look)  # what was begun in a task of its own comes first

    def _look(self) -> None:
        if not self.open and self._runs:
            self.end()

    def end(self) -> None:
        """It is over, once."""
        if self.ended:
            return
        self.ended = True
        self.chains.under_way.discard(self)
        self.chains.fire("cmdorc_chain", self.record(self._outcome()))

    def _outcome(self) -> ChainOutcome:
        # What was refused, or came too late, and would have led on.
        if self._cut or any(self.chains.leads(event) for event in self._unheard):
            return "cancelled"
        if self._failed:
            return "failure"
        return "cancelled" if self._cancelled else "success"
