"""Operations of any application: one event when they succeed, one when they fail, made by declaration.

What an operation sends is said by an :class:`~cmdorc_telemetry.spec.Outcome`, in a spec or in code: property ← path
into ``input`` (its arguments), ``output`` (its result), ``error``, or ``context`` (the caller's, where there is one).
Nothing here delays or changes the operation: its event is tracked once, when its outcome is known, and what goes wrong
with that is nobody's exception. Nothing is shared between two trackers.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import msgspec

from . import clock
from .calls import Begin, instead_of, telling
from .errors import OperationDenied, OperationError, told
from .spec import Operation, Outcome, Version

log = logging.getLogger("cmdorc_telemetry")

F = TypeVar("F", bound=Callable[..., Any])
Which = Literal["success", "failure"]


class Emitter(Protocol):
    """What an operation needs of a tracker."""

    def emit(self, event: str, version: Version | None, properties: Mapping[str, Any]) -> object:
        """Track an event, the latest version where it is None; properties that it does not declare are left out.

        Never raises, never waits.
        """


class Context(Protocol):
    """What :meth:`OperationRegistry.execute` needs of a caller's context."""

    telemetry: Emitter | None


class Running:
    """One call of an operation: what it was given, what became of it."""

    def __init__(self, emitter: Emitter, operation: Operation) -> None:
        self._emitter, self._operation = emitter, operation
        self._start = clock.monotonic()
        self.told = False
        """Whether its outcome is known."""
        self.input: Any = {}
        """What paths that begin with ``input`` lead into; a context manager may set it."""
        self.output: Any = None
        """Likewise for ``output``."""
        self.context: Any = None
        """Likewise for ``context``."""

    def fail(self, error: object) -> None:
        """It failed, though nothing is raised: ``error`` is what paths that begin with ``error`` lead into."""
        self._tell("failure", error)

    def succeed(self) -> None:
        """It succeeded; harmless where that, or a failure, was told before."""
        self._tell("success", None)

    def end(self, error: BaseException | None) -> None:
        """It is over, by ``error`` or without one."""
        if error is None or isinstance(error, GeneratorExit):  # whoever took from a generator has enough
            self.succeed()
        else:
            self.fail(error)

    def _tell(self, which: Which, error: object) -> None:
        if self.told:
            return
        self.told = True
        outcome = self._operation.success if which == "success" else self._operation.failure
        if outcome is None:
            return
        try:
            self._emit(outcome, which, error)
        except (Exception, SystemExit) as fault:
            log.warning("what became of an operation could not be told: %s", told(fault))

    def _emit(self, outcome: Outcome, which: Which, error: object) -> None:
        duration = round((clock.monotonic() - self._start) * 1000)
        filled: dict[str, Any] = {"duration_ms": duration, "outcome": which}
        if error is not None:
            filled["error_class"] = class_name(error)
        sources = {
            "input": self.input, "output": self.output, "error": error, "context": self.context,
            "name": self._operation.name, **filled,
        }  # fmt: skip
        mapped = {name: value for name, path in outcome.properties.items()
                  if (value := lead(sources, path)) is not None}  # fmt: skip
        self._emitter.emit(outcome.event, outcome.version, {**filled, **mapped})


_entered: ContextVar[tuple[Running, ...]] = ContextVar("cmdorc_telemetry_operations", default=())
"""The operations that this task, or this thread, is within."""


class Tracked:
    """An operation that is tracked: a decorator, and a context manager, synchronous or not.

    It decorates functions, coroutine functions and generators of both kinds: of these the operation lasts until they
    are exhausted or closed. As a context manager it gives a :class:`Running`. One object serves any number of calls.
    """

    def __init__(self, emitter: Emitter, operation: Operation) -> None:
        self._emitter, self._operation = emitter, operation
        self._running: list[Running] = []

    def __call__(self, function: F) -> F:
        """``function``, tracked. Arguments that do not fit it are a failure, too, and raise what they always did."""
        if isinstance(function, staticmethod | classmethod):
            return cast(F, type(function)(self(function.__func__)))
        return cast(F, wraps(function)(instead_of(function, self._begin(function))))

    def _begin(self, function: Callable[..., Any]) -> Begin[Running]:
        try:
            signature = inspect.signature(function)
        except ValueError:  # a function in C may have none
            return lambda args, kwargs: self._new()

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Running:
            running = self._new()
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as fault:
                running.fail(fault)
            else:
                bound.apply_defaults()
                running.input = bound.arguments
            return running

        return begin

    def _new(self) -> Running:
        return Running(self._emitter, self._operation)

    def __enter__(self) -> Running:
        running = self._new()
        self._running.append(running)
        _entered.set((*(each for each in _entered.get() if not each.told), running))
        return running

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        entered = _entered.get()
        # It may be left in another context than it was entered in, which has no other sign of it.
        running = next((each for each in reversed(entered) if each in self._running), self._running[-1])
        self._running.remove(running)
        _entered.set(tuple(each for each in entered if each is not running))
        running.end(error)

    async def __aenter__(self) -> Running:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


def class_name(error: object) -> str:
    """What an error is called: its class, or what a mapping says in ``class`` or ``code``. Never raises."""
    try:
        if not isinstance(error, Mapping):
            return type(error).__name__
        return str(error.get("class", error.get("code", "error")))
    except (Exception, SystemExit):  # a mapping of somebody else's
        return "error"


def lead(sources: Mapping[str, Any], path: str) -> Any:
    """What ``path`` leads to, by keys, attributes and places in lists; None for nothing. Never raises."""
    first, *steps = path.split(".")
    value = sources.get(first)
    for step in steps:
        try:
            value = _of_error(value, step) if first == "error" else _step(value, step)
        except (Exception, SystemExit):  # a property of somebody else's object, or a mapping of theirs
            return None
    return value


def _of_error(error: Any, step: str) -> Any:
    if step == "class" and not isinstance(error, Mapping):
        return class_name(error)
    return str(error) if step == "message" and isinstance(error, BaseException) else _step(error, step)


def _step(value: Any, step: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list | tuple) and step.isdecimal():
        return value[int(step)]
    return None if step.startswith("_") else getattr(value, step, None)


# -- by name -----------------------------------------------------------------------------------------------------------


class _Registered(NamedTuple):
    operation: Operation
    handler: Callable[..., Any]
    input: Any
    output: Any
    allow: Callable[[Any, Any], bool] | None


class OperationRegistry:
    """Operations by name, with what they take and give: ``execute`` checks both, and tells a context's telemetry."""

    def __init__(self) -> None:
        self._registered: dict[str, _Registered] = {}

    def register(
        self, operation: Operation, handler: Callable[..., Any], *,
        input: Any = None, output: Any = None, allow: Callable[[Any, Any], bool] | None = None,
    ) -> None:  # fmt: skip
        """Add an operation. Raises OperationError where one of that name is there.

        ``handler`` is called with the arguments and the context; it may be a coroutine function. ``input`` and
        ``output`` are types that msgspec checks arguments and result against; ``allow(arguments, context)`` says
        whether the caller may.
        """
        if operation.name in self._registered:
            raise OperationError(f"operation {operation.name!r} is registered already")
        self._registered[operation.name] = _Registered(operation, handler, input, output, allow)

    async def execute(self, name: str, args: Any, ctx: Context) -> Any:
        """Run an operation. What is wrong with arguments, permission or result is a failure like the handler's own.

        Raises OperationError for a name that is not registered and for arguments or a result that do not fit,
        OperationDenied where the caller may not, and whatever the handler raises.
        """
        found = self._registered.get(name)
        if found is None:
            raise OperationError(f"operation {name!r} is not registered")
        telemetry = getattr(ctx, "telemetry", None)
        running = Running(telemetry if telemetry is not None else _Nobody(), found.operation)
        with telling(running):
            running.input, running.context = args, ctx
            running.input = _checked(found.input, args, f"{name}: what it was given")
            if found.allow is not None and not found.allow(running.input, ctx):
                raise OperationDenied(f"operation {name!r} is not allowed here")
            result = found.handler(running.input, ctx)
            result = await result if isinstance(result, Awaitable) else result
            running.output = _checked(found.output, result, f"{name}: what came of it")
            return running.output


class _Nobody:
    def emit(self, event: str, version: Version | None, properties: Mapping[str, Any]) -> None:
        pass


def _checked(type_: Any, value: Any, what: str) -> Any:
    if type_ is None:
        return value
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as fault:
        raise OperationError(f"{what} is wrong: {fault}") from fault


def spec_operation(name: str, success: str | Outcome | None, failure: str | Outcome | None) -> Operation:
    """An operation as code declares it: an event's name stands for one whose properties fill themselves."""

    def outcome(told: str | Outcome | None) -> Outcome | None:
        return Outcome(event=told) if isinstance(told, str) else told

    return Operation(name=name, success=outcome(success), failure=outcome(failure))
