"""Reporters that code gave to a process: a destination each, for as long as that process lives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import StorageError
from .files import FileLock, own_dir
from .reporter import TelemetryReporter
from .types import View

if TYPE_CHECKING:
    from .delivery import Destination
    from .home import Home
    from .pipeline import Pipeline
    from .spool import Spool


class Injected:
    """True while there are any. Holds the locks that say that their process lives; raises StorageError without them.

    ``source`` is what the process's events are known by: they get no others.
    """

    def __init__(self, home: Home, source: str, reporters: Iterable[TelemetryReporter]) -> None:
        self._source = source
        self._reporters = {f"code-{source}-{number}" if number > 1 else f"code-{source}": reporter
                           for number, reporter in enumerate(reporters, 1)}  # fmt: skip
        self._owners: list[FileLock] = []
        for name in self._reporters:
            self._own(home, name)

    def __bool__(self) -> bool:
        return bool(self._reporters)

    def _own(self, home: Home, name: str) -> None:
        own_dir(home.locks)
        self._owners.append(FileLock(home.locks / f"{name}.owner"))
        try:
            self._owners[-1].acquire(wait=False)
        except OSError as fault:
            raise StorageError(f"{home.locks} cannot be written: {fault.strerror}") from fault

    def destinations(self, pipeline: Pipeline) -> list[Destination]:
        """Where shared bodies go to, as any destination of somebody else's gets them."""
        from .delivery import Destination

        def destination(name: str, reporter: TelemetryReporter) -> Destination:
            return Destination(name, lambda: reporter, lambda item: pipeline.shared_body(item.row),
                               refresh=pipeline.ask, injected=True, audit=pipeline.audit_log(name))  # fmt: skip

        return [destination(name, reporter) for name, reporter in self._reporters.items()]

    def join(self, spool: Spool) -> None:
        """Let a spool know them. Raises StorageError."""
        for name in self._reporters:
            spool.adopt(View(name=name, identity="injected by code", source=self._source), name)

    def end(self) -> None:
        """They are closed, or a parent's: there is no way back."""
        self._reporters = {}

    def release(self) -> None:
        """Let the locks go; in a forked child the parent keeps them."""
        owners, self._owners = self._owners, []
        for owner in owners:
            owner.release(unlink=True)
