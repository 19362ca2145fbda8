"""What is called in the place of a function, is of the same kind, and says what became of each call.

Knows nothing of what is made of that: see ``operations``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Observed(Protocol):
    """Who is told of one call."""

    output: Any
    """What it returned."""

    def end(self, error: BaseException | None) -> None:
        """It is over, by ``error`` or without one."""


Call = TypeVar("Call", bound=Observed)
Begin = Callable[[tuple[Any, ...], dict[str, Any]], Call]
"""Arguments of a call → who is told of it."""


class telling(Generic[Call]):  # noqa: N801 - used like a function; a generator would cost twice as much
    """Tells an observer of the end of a block."""

    def __init__(self, observed: Call) -> None:
        self._observed = observed

    def __enter__(self) -> Call:
        return self._observed

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self._observed.end(error)


def instead_of(function: Callable[..., Any], begin: Begin[Call]) -> Callable[..., Any]:
    """What is called in the place of ``function``. The call of a generator lasts until it is exhausted or closed."""
    plain = inspect.isroutine(function) or isinstance(function, functools.partial)
    kind = function if plain else type(function).__call__  # of an object, its call says of what kind it is
    if inspect.iscoroutinefunction(kind):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with telling(begin(args, kwargs)) as call:
                call.output = await function(*args, **kwargs)
                return call.output

        return awaited
    if inspect.isasyncgenfunction(kind):

        async def streamed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with telling(begin(args, kwargs)):
                stream = function(*args, **kwargs)
                step = stream.__anext__()
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await stream.aclose()
                        raise
                    except BaseException as fault:
                        step = stream.athrow(fault)
                    else:
                        step = stream.asend(sent)

        return streamed
    if inspect.isgeneratorfunction(kind):

        def generated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with telling(begin(args, kwargs)) as call:
                call.output = yield from function(*args, **kwargs)
                return call.output

        return generated

    def called(*args: Any, **kwargs: Any) -> Any:
        with telling(begin(args, kwargs)) as call:
            call.output = function(*args, **kwargs)
            return call.output

    return called
