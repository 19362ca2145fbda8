"""Operations of any application: one event when they succeed, one when they fail, made by declaration.

What an operation sends is said by an :class:`~cmdorc_telemetry.spec.Outcome`, in a spec or in code: property ← path
into ``input`` (its arguments), ``output`` (its result) or ``error``. Nothing here delays or changes the operation: its
event is tracked when its outcome is known, and what goes wrong with that is nobody's exception. No global state.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import msgspec

from . import clock
from .errors import OperationDenied, OperationError
from .spec import Operation, Outcome, Version

F = TypeVar("F", bound=Callable[..., Any])
Which = Literal["success", "failure"]
FILLED = ("duration_ms", "outcome", "error_class")
"""Properties that are filled by themselves where the event declares them."""


class Emitter(Protocol):
    """What an operation needs of a tracker."""

    def emit(self, event: str, version: Version | None, properties: Mapping[str, Any]) -> object:
        """Track an event; properties that it does not declare are left out. Never raises, never waits."""


class Context(Protocol):
    """What :meth:`OperationRegistry.execute` needs of a caller's context."""

    telemetry: Emitter | None


class Running:
    """One call of an operation: what it was given, what became of it."""

    def __init__(self, emitter: Emitter, operation: Operation) -> None:
        self._emitter, self._operation = emitter, operation
        self._start = clock.monotonic()
        self._told = False
        self.input: Any = {}
        """What paths that begin with ``input`` lead into; a context manager may set it."""
        self.output: Any = None
        """Likewise for ``output``."""

    def fail(self, error: object) -> None:
        """It failed, though nothing is raised: ``error`` is what paths that begin with ``error`` lead into."""
        self._tell("failure", error)

    def succeed(self) -> None:
        """It succeeded; harmless where that, or a failure, was told before."""
        self._tell("success", None)

    def _tell(self, which: Which, error: object) -> None:
        if self._told:
            return
        self._told = True
        outcome = self._operation.success if which == "success" else self._operation.failure
        if outcome is None:
            return
        duration = round((clock.monotonic() - self._start) * 1000)
        filled: dict[str, Any] = {"duration_ms": duration, "outcome": which}
        if error is not None:
            filled["error_class"] = class_name(error)
        sources = {
            "input": self.input, "output": self.output, "error": error, "name": self._operation.name, **filled
        }  # fmt: skip
        mapped = {name: value for name, path in outcome.properties.items()
                  if (value := lead(sources, path)) is not None}  # fmt: skip
        self._emitter.emit(outcome.event, outcome.version, {**filled, **mapped})


class Tracked:
    """An operation that is tracked: a decorator for functions and coroutine functions, and a context manager.

    As a context manager, synchronous or not, it gives a :class:`Running`; one object serves one call at a time there.
    """

    def __init__(self, emitter: Emitter, operation: Operation) -> None:
        self._emitter, self._operation = emitter, operation
        self._running: list[Running] = []

    def __call__(self, function: F) -> F:
        """``function``, tracked. Arguments that do not fit it are a failure, too, and raise what they always did."""
        signature = inspect.signature(function)

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Running:
            running = Running(self._emitter, self._operation)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as fault:
                running.fail(fault)
            else:
                bound.apply_defaults()
                running.input = bound.arguments
            return running

        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with _telling(begin(args, kwargs)) as running:
                    running.output = await function(*args, **kwargs)
                    return running.output

            return cast(F, awaited)

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with _telling(begin(args, kwargs)) as running:
                running.output = function(*args, **kwargs)
                return running.output

        return cast(F, called)

    def __enter__(self) -> Running:
        running = Running(self._emitter, self._operation)
        self._running.append(running)
        return running

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        _end(self._running.pop(), error)

    async def __aenter__(self) -> Running:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


class _telling:  # noqa: N801 - used like a function; a generator would cost twice as much
    def __init__(self, running: Running) -> None:
        self._running = running

    def __enter__(self) -> Running:
        return self._running

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        _end(self._running, error)


def _end(running: Running, error: BaseException | None) -> None:
    if error is None:
        running.succeed()
    else:
        running.fail(error)


def class_name(error: object) -> str:
    """What an error is called: its class, or what a mapping says in ``class`` or ``code``."""
    if isinstance(error, Mapping):
        return str(error.get("class", error.get("code", "error")))
    return type(error).__name__


def lead(sources: Mapping[str, Any], path: str) -> Any:
    """What ``path`` leads to, by keys, attributes and places in lists; None for nothing. Never raises."""
    first, *steps = path.split(".")
    value = sources.get(first)
    for step in steps:
        if first == "error" and step == "class" and not isinstance(value, Mapping):
            value = class_name(value)
        elif first == "error" and step == "message" and isinstance(value, BaseException):
            value = str(value)
        else:
            value = _step(value, step)
    return value


def _step(value: Any, step: str) -> Any:
    try:
        if isinstance(value, Mapping):
            return value.get(step)
        if isinstance(value, list | tuple) and step.isdecimal():
            return value[int(step)]
        return None if step.startswith("_") else getattr(value, step, None)
    except Exception:  # a property of somebody else's object, or a mapping of theirs
        return None


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
        with _telling(running):
            running.input = args
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
