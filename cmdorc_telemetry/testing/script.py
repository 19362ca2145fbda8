"""Which fault comes when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Union

from .faults import FAULTS, Fault
from .messages import Request

One = Union[str, Fault, None]  # noqa: UP007 - evaluated, by Python 3.10 too
Faults = Union[One, Iterable[One], Callable[[Request], One]]  # noqa: UP007 - likewise
"""One fault for every request; or one a request, and afterwards none; or what a function says of each request."""


def named(fault: One) -> Fault | None:
    """The fault of that name. Raises ValueError."""
    if fault is None or isinstance(fault, Fault):
        return fault
    if fault not in FAULTS:
        raise ValueError(f"there is no fault {fault!r}; there are {', '.join(FAULTS)}")
    return FAULTS[fault]


class Script:
    """Faults in their order. Safe to ask from several threads."""

    def __init__(self, faults: Faults) -> None:
        self._lock = threading.Lock()
        self._decide: Callable[[Request], One] | None = None
        self._rest: Iterator[One] = iter(())
        self.listen: Fault | None = None
        """The fault that befalls all connections, if it is such a one."""
        if faults is None or isinstance(faults, (str, Fault)):
            fault = named(faults)
            if fault is not None and fault.at == "listen":
                self.listen = fault
            else:
                self._rest = repeat(fault)
        elif callable(faults):
            self._decide = faults
        else:
            self._rest = iter(faults)
        self._next = self._pull()

    def _pull(self) -> Fault | None:
        return self._single(next(self._rest, None))

    def _single(self, fault: One) -> Fault | None:
        found = named(fault)
        if found is not None and (found.at == "listen" or (found.at == "connect" and self._decide)):
            raise ValueError(f"the fault {found.name!r} cannot strike a single request")
        return found

    @property
    def connects(self) -> bool:
        """Whether the next fault is one that strikes when a connection is made."""
        return self._next is not None and self._next.at == "connect"

    def at_connect(self) -> Fault | None:
        """The fault of a new connection, where the next one is for a connection."""
        with self._lock:
            return self._take() if self.connects else None

    def at_request(self, request: Request) -> Fault | None:
        """The fault of a request."""
        if self._decide is not None:
            return self._single(self._decide(request))
        with self._lock:
            return None if self.connects else self._take()

    def _take(self) -> Fault | None:
        taken, self._next = self._next, self._pull()
        return taken
