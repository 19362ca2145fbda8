"""When a run counts as over: follows the runs and triggers of one orchestrator and makes lifecycle records of them.

Owns what is remembered between the start of a run and its report. Does not know cmdorc, only the few attributes of
its results: which methods are wrapped, and with what, is decided in ``instrumentation``, which imports this module only
where somebody listens.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from msgspec import Struct, structs

from . import clock
from .chains import Call, Chains, Course
from .errors import told
from .lifecycle import CompletedRun, Session, Trigger, TriggerOutcome

P = ParamSpec("P")
T = TypeVar("T")

MARKS = ("mark_running", "mark_success", "mark_failed", "mark_cancelled")
"""Methods of a result that change its state; all but the first finalise it."""

_log = logging.getLogger("cmdorc_telemetry")


def isolated(function: Callable[P, T]) -> Callable[P, T | None]:
    """Keeps what goes wrong in here away from cmdorc."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception as fault:
            _log.warning("something that cmdorc did could not be observed: %s", told(fault))
            return None

    return call


class TriggerCall:
    """A call of ``trigger`` under way."""

    __slots__ = ("link", "outcome", "runs_started")

    def __init__(self, link: Call | None = None) -> None:
        self.outcome: TriggerOutcome = "nothing"
        """What becomes of it if it starts no run."""
        self.runs_started = 0
        self.link = link
        """Its place in a chain; None where chains are not followed."""


_trigger: ContextVar[TriggerCall | None] = ContextVar("cmdorc_telemetry_trigger", default=None)
"""The innermost call. cmdorc starts runs in the task of their trigger; tasks made there inherit a call that is over."""


class Watch:
    """One observed orchestrator: its session, and its runs that are not reported yet."""

    def __init__(
        self,
        fire: Callable[[str, Struct], None],
        find: Callable[[str], Any],
        describe: Callable[[Watch, float], Session],
        *,
        leads: Callable[[str], bool] | None = None,
    ) -> None:
        """``find`` gives the handle of a run of this orchestrator's by its id, or None; ``describe`` makes the record
        of the session, given the seconds that it has lasted; ``leads`` tells whether an event would start anything, and
        is None where nobody listens to chains."""
        self.fire, self.find, self._describe = fire, find, describe
        self.session_id = str(uuid.uuid4())
        self.started_at, self._began = clock.wall(), clock.monotonic()
        self.chains = Chains(fire, self.session_id, leads) if leads is not None else None
        self.runs: dict[str, Run] = {}
        self.live = 0
        self.stopping = False

    @isolated
    def start(self) -> None:
        """Report the begin of the session."""
        self.fire("cmdorc_startup", self._describe(self, 0.0))

    def stop(self) -> None:
        """Report what is left, abandoned runs included, then the end of the session."""
        for run in list(self.runs.values()):
            run.report(last_chance=True)
        self.live = 0
        if self.chains is not None:
            isolated(self.chains.close)()
        self._end()

    @isolated
    def _end(self) -> None:
        self.fire("cmdorc_shutdown", self._describe(self, clock.monotonic() - self._began))

    def follow(self, result: Any) -> None:
        """Follow a run that is being handed to the executor."""
        if result.run_id in self.runs:
            return
        call = _trigger.get()
        run = self.runs[result.run_id] = Run(self, result)
        self.live += 1
        run.hook()
        if call is not None and result.trigger_event is not None:  # a manual run is started by a callback
            call.runs_started += 1
            if call.link is not None:
                run.join(call.link)

    @contextmanager
    def trigger(self, event: Any, context: Any) -> Iterator[TriggerCall]:
        """Report a call of ``trigger`` when it is over."""
        call, depth = TriggerCall(self._link(event, context)), _depth(event, context) or 0
        token = _trigger.set(call)
        try:
            yield call
        finally:
            with suppress(ValueError):  # a coroutine that is destroyed half-way ends in another context
                _trigger.reset(token)
            self._triggered(event, call, depth)

    @isolated
    def _link(self, event: Any, context: Any) -> Call | None:
        if self.chains is None:
            return None
        before = _trigger.get()
        return self.chains.call(event, context, before.link if before is not None else None)

    @isolated
    def _triggered(self, event: Any, call: TriggerCall, depth: int) -> None:
        if isinstance(event, str):
            trigger = Trigger(
                name=event,
                outcome="ran" if call.runs_started else call.outcome,
                chain_depth=depth,
                runs_started=call.runs_started,
                session_id=self.session_id,
            )
            self.fire("cmdorc_trigger", trigger)
        if call.link is not None:
            call.link.over(refused=call.outcome == "refused" and not call.runs_started)


@isolated
def _depth(event: Any, context: Any) -> int:
    """How many events came before this one in its chain. Startup and shutdown bring themselves along as history."""
    before = set(context.history) if context is not None else set()
    return len(before) - (event in before and event not in context.seen)


class Run:
    """One run between ``start_run`` and its report.

    A cancel mostly finalises twice, FAILED and then CANCELLED: nothing is reported while a hold is on. A result gets
    its last attributes just after the mark that finalises it: the report comes one loop tick later.
    """

    __slots__ = ("began", "causes", "concurrent", "course", "ended", "holds", "hooks", "index", "result", "started",
                 "watch")  # fmt: skip

    def __init__(self, watch: Watch, result: Any) -> None:
        self.watch, self.result = watch, result
        self.hooks: dict[str, tuple[object, object]] = {}
        self.holds = self.concurrent = 0
        self.began: float | None = None
        self.ended: float | None = None
        self.course: Course | None = None
        """The chain that it is part of."""
        self.index = 0
        self.causes: tuple[int, ...] = ()
        self.started = True
        """Unless its executor says otherwise."""

    @isolated
    def join(self, link: Call) -> None:
        """Be part of the chain of the call that starts it."""
        index = link.starts(self.result.command_name)
        if index is not None:
            self.course, self.index = link.course, index
            self.causes = link.course.causes(self.result.command_name, link.cause)
            link.course.follow(self.watch.find(self.result.run_id))

    def hook(self) -> None:
        for name in MARKS:
            hook, before = _marking(self, name, getattr(self.result, name)), vars(self.result).get(name)
            setattr(self.result, name, hook)
            self.hooks[name] = hook, before

    def unhook(self) -> None:
        """Leave the result as it was, but for what others have set since."""
        attributes = vars(self.result)
        for name, (hook, before) in self.hooks.items():
            if attributes.get(name) is hook:
                del attributes[name]
                if before is not None:
                    attributes[name] = before
        self.hooks.clear()  # they refer to this run

    @isolated
    def marked(self, name: str) -> None:
        now = clock.monotonic()
        if name == "mark_running":
            self.began = now
            return
        if self.ended is None:
            self.watch.live -= 1
        self.ended, self.concurrent = now, self.watch.live + 1
        self.settle()

    @isolated
    def settle(self) -> None:
        if self.ended is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.report()
        else:
            loop.call_soon(self.report)

    @isolated
    def report(self, *, last_chance: bool = False) -> None:
        result, watch = self.result, self.watch
        if watch.runs.get(result.run_id) is not self or (self.holds and not last_chance):
            return
        del watch.runs[result.run_id]
        self.unhook()
        if self.ended is None:
            self.ended, self.concurrent = clock.monotonic(), watch.live
        course = self.course
        epoch = course.epoch if course is not None else clock.wall() - clock.monotonic()
        run = structs.replace(
            CompletedRun.from_result(result),
            started_at=epoch + self.began if self.began is not None else None,
            duration=self.ended - self.began if self.began is not None else 0.0,
            concurrent_runs=self.concurrent,
            session_id=watch.session_id,
            chain=course.record() if course is not None else None,
            chain_index=self.index,
            chain_causes=self.causes,
        )
        watch.fire("cmdorc_completed", run)
        if course is not None:
            course.finish(run, stopping=watch.stopping, started=self.started)


def _marking(run: Run, name: str, mark: Callable[..., None]) -> Callable[..., None]:
    # A plain function, since a deep copy of a live result must not copy what its hooks refer to.
    def marking(*args: Any, **kwargs: Any) -> None:
        try:
            mark(*args, **kwargs)
        finally:
            run.marked(name)

    return marking


class Watches:
    """The observed orchestrators that share one executor."""

    def __init__(self) -> None:
        self._watches: WeakSet[Watch] = WeakSet()  # an executor may outlive many orchestrators

    def add(self, watch: Watch) -> None:
        self._watches.add(watch)

    @isolated
    def follow(self, result: Any) -> None:
        """Let the orchestrator that a run belongs to follow it."""
        for watch in self._watches:
            if watch.find(result.run_id) is not None:
                watch.follow(result)

    @isolated
    def unstarted(self, result: Any) -> None:
        """A run that is followed could not be started."""
        for watch in self._watches:
            if (run := watch.runs.get(result.run_id)) is not None:
                run.started = False

    @contextmanager
    def held(self, result: Any = None) -> Iterator[None]:
        """Hold the report of one run, or of all, while what may finalise it twice is in flight."""
        runs = [run for watch in self._watches for run in watch.runs.values() if result is None or run.result is result]
        for run in runs:
            run.holds += 1
        try:
            yield
        finally:
            for run in runs:
                run.holds -= 1
                run.settle()
