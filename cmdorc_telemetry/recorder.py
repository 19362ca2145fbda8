"""What a recording program has: capture and journal on the caller's thread, delivery behind them.

A program that ends soon gets no further than the journal: what delivers is not even imported for it, and later it is
imported and put together on a thread of its own, so that nobody waits for it.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from . import clock
from .bounds import EXIT_SECONDS
from .capture import Events
from .collector import Collector
from .config import TelemetryLevel
from .errors import StorageError, told
from .forks import on_fork, own_thread, tied
from .injected import Injected
from .journal import Journal
from .overdue import overdue
from .plugins import PluginHost
from .recording import Recording, Recordings
from .reporter import TelemetryReporter
from .results import Result, Witness
from .situation import Situation
from .spec import Version

if TYPE_CHECKING:
    from .delivery import Delivery
    from .pipeline import Pipeline
    from .spool import Spool

log = logging.getLogger("cmdorc_telemetry")

START_SECONDS = 0.5
"""A process that ends sooner starts no thread."""
HAND_OVER_SECONDS = 5.0
"""How often a forked child that must not deliver lets go of what it recorded, so that its parent can."""


class Recorder:
    """Captures and journals; starts delivery when the process has lived for half a second.

    Raises StorageError where the home directory cannot be used.
    """

    def __init__(self, situation: Situation, host: PluginHost, reporters: Iterable[TelemetryReporter] = ()) -> None:
        self._situation, self._host = situation, host
        self.registry = host.registry(*situation.specs())
        self._recordings = Recordings(situation, self.registry, self._dropping)
        self._debug_checked = self._looked = 0
        self.collector = Collector(self)
        self._warned = self._off = self._stopped = self._scheduled = self._started = False
        self._born = clock.monotonic()
        self._pipelines: dict[None, Pipeline] = {}
        self._delivery: Delivery | None = None
        self._launch: threading.Thread | None = None
        self._inherited: tuple[object, ...] = ()
        self._injected = Injected(situation.home, self.journal.source, reporters)
        on_fork(self)
        if situation.user.background:
            atexit.register(self._end)
        if self._injected or overdue(situation.home):
            self._start()

    @property
    def pipeline(self) -> Pipeline:
        """The stages behind the journal; put together when they are first asked for."""
        made = self._pipelines.get(None)
        if made is None:
            from .pipeline import Pipeline

            made = self._pipelines.setdefault(None, Pipeline(self._situation, self._host, self.registry))
        return made

    @cached_property
    def _declared(self) -> Events:
        """All events that are known, also those that have expired, and those that nobody agreed to."""
        return Events(self.registry, date.min)

    @property
    def journal(self) -> Journal:
        """What is written to now."""
        return self._recordings.now.journal

    @property
    def recording(self) -> Recording:
        """What to record with. It has no hasher any more when a yes to DEBUG has expired."""
        now = self._recordings.now
        if now.hasher is not None and (second := int(clock.wall())) != self._debug_checked:
            self._debug_checked = second
            made = self._pipelines.get(None)
            if (made.situation if made else self._situation).policy().share is not TelemetryLevel.DEBUG:
                now.hasher = None
        return now

    def listeners(self) -> Iterator[tuple[str, object]]:
        """The lifecycle plugins of telemetry's own, by name: its events of the core, and what other specs declare."""
        yield "telemetry", self.collector
        if any(spec.operations or spec.workflows for spec in self.registry):
            from .workflows import listeners  # most users have no such spec

            yield from listeners(self)

    def track(
        self, event: str, properties: Mapping[str, Any], now: Recording | None = None, *,
        version: Version | None = None, context: Mapping[str, Any] | None = None, witness: Witness | None = None,
    ) -> Result:  # fmt: skip
        """Capture and journal one event, the latest version where there is none. Raises what the witness raises."""
        now = now or self._recordings.now
        try:
            record = now.capture.record(event, properties, context, version, witness=witness)
        except KeyError:  # nobody declares it, or nobody agreed to who does
            return Result.UNKNOWN if self._declared.find(event, version) is None else Result.WITHHELD
        return Result.CAPTURED if record is not None and self.append(record, now) else Result.WITHHELD

    def append(self, record: bytes, now: Recording | None = None) -> bool:
        """Journal one record with what made it, and see to it that somebody delivers it."""
        made = self._pipelines.get(None)
        if self._off or self._stopped or not (made is None or made.policy.record):
            self._look_again(made)
            return False
        done = (now or self._recordings.now).journal.append(record)
        if not self._started:
            self._schedule()
        elif self._delivery is not None and self._delivery.asleep:
            self._delivery.wake()
        return done

    def _look_again(self, made: Pipeline | None) -> None:
        """After a no, once a second at most: what is recorded after another yes counts again.

        Reporters that code injected ended with the no.
        """
        second = int(clock.wall())
        if self._stopped or second == self._looked:
            return
        self._looked = second
        if self._off:
            self._hand_over()
        ended = made is not None and self._delivery is not None and not self._delivery.running
        if made is not None and ended and made.refresh() and made.policy.record:
            with suppress(StorageError):  # there is no identity to be had for it
                self._recordings.follow(made.situation)
                self._injected.end()
                self._delivery, self._started = None, False

    # -- the start ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Start delivery half a second into the process's life: later by itself where a loop runs here."""
        age = clock.monotonic() - self._born
        if tied():
            if age >= HAND_OVER_SECONDS:
                self._hand_over()
            return
        if age >= START_SECONDS:
            self._start()
            return
        # Where asyncio was never imported, or another thread is half-way through it, no loop runs here.
        running = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
        if self._scheduled or running is None:
            return
        try:
            loop = running()
        except RuntimeError:
            return
        self._scheduled = True  # a loop that ends before that never calls; then a later record does
        loop.call_later(START_SECONDS - age, self._start)

    def _hand_over(self) -> None:
        """Let others import what this process recorded: it must not open the spool itself."""
        self._born = clock.monotonic()
        self._situation = self._situation.again()
        self._off = not self._situation.policy().record
        if not self._off:
            self._recordings.follow(self._situation)

    def _start(self) -> None:
        if self._stopped or self._started or tied() or _ending():
            return
        self._started = True
        atexit.register(self._exit)
        thread = threading.Thread(target=self._deliver, name="telemetry-start", daemon=True)
        try:
            thread.start()
        except RuntimeError as fault:  # at the end of the interpreter: the next process delivers
            log.debug("no telemetry thread: %s", fault)
        else:
            self._launch = thread

    def _deliver(self) -> None:
        """Put together what delivers, and start it. On a thread of its own: there is much to import."""
        with own_thread():
            self._put_together()

    def _put_together(self) -> None:
        try:
            delivery = self.pipeline.delivery(self._pump, open_spool=self._open_spool, on_trouble=self._warn,
                                              also=self._injected.destinations(self.pipeline))  # fmt: skip
        except Exception as fault:
            self._warn(f"telemetry cannot deliver: {told(fault, ours=True)}. Events are kept.")
            return
        self._delivery = delivery
        if not self._stopped:
            delivery.start()
        if self._stopped:  # meanwhile
            delivery.stop(0)

    def _open_spool(self) -> Spool:
        spool = self.pipeline.open_spool()
        if self._delivery is not None and not any(each.injected for each in self._delivery.destinations):
            self._injected.end()
        try:
            self._injected.join(spool)
        except StorageError:
            spool.close()
            raise
        return spool

    def _pump(self, spool: Spool) -> bool:
        recordings = self._recordings
        return self.pipeline.pump(spool, recordings.now.journal, recordings.follow)

    def _delivering(self, timeout: float) -> Delivery | None:
        """What delivers, as soon as it has been started; None where that takes longer than ``timeout`` seconds."""
        if self._launch is not None:
            self._launch.join(timeout)
        return self._delivery

    def _dropping(self, what: str) -> None:
        self._warn(f"{what}. Events are counted as dropped.")

    def _warn(self, what: str) -> None:
        """Say what is wrong with the disk: whatever comes of it, once a process."""
        if not self._warned:
            self._warned = True
            log.warning("%s", what)

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Import and send all there is, also after ``close``. Whether nothing waits any more."""
        deadline = clock.monotonic() + timeout
        if sys.is_finalizing():  # no thread begins or goes on: what one holds, such as an import, it holds for ever
            return False
        if tied():
            self._hand_over()
            return False
        if not self._stopped:
            self._start()
            delivery = self._delivering(timeout)
            return delivery is not None and delivery.flush(max(deadline - clock.monotonic(), 0.001))
        last = self.pipeline.delivery()
        done = last.flush(timeout)
        last.stop()
        return done

    def forked(self) -> None:
        """In a child, what delivers is the parent's, and so is a reporter that code injected."""
        self._inherited += self._delivery, self._launch  # never freed: that would touch the parent's database
        self._delivery = self._launch = None
        self._pipelines = {}
        self._started = self._scheduled = False
        self._born = clock.monotonic()
        self._injected.end()
        self._injected.release()

    def _exit(self) -> None:
        """The interpreter ends. What is recorded later begins a segment of its own: no exit handler is too late."""
        delivery = self._delivering(EXIT_SECONDS if self._injected else 0)
        if delivery is not None:
            delivery.stop(EXIT_SECONDS)
        self._finish()

    def _finish(self) -> None:
        atexit.unregister(self._exit)
        self._recordings.close()
        self._injected.release()
        if self._situation.user.background:
            last_look = _LastLook(self._situation.home.root)
            atexit.unregister(self._end)
            atexit.unregister(last_look)  # one is enough, however many recorders the process had
            atexit.register(last_look, self._situation, self._host)

    def _end(self) -> None:
        """The process ends without a ``close``."""
        self._exit()
        _LastLook(self._situation.home.root)(self._situation, self._host)

    def close(self) -> None:
        """End delivery, wait for it at most 50 ms, and let the journal go."""
        if not self._stopped:
            self._stopped = True
            self._exit()

    async def aclose(self) -> None:
        """Like ``close``, without holding up the event loop."""
        import asyncio

        if not self._stopped:
            self._stopped = True
            deadline = clock.monotonic() + EXIT_SECONDS
            try:
                while not self._ended() and clock.monotonic() < deadline:  # noqa: ASYNC110 - a thread, no task
                    await asyncio.sleep(0.002)
            finally:
                self._finish()

    def _ended(self) -> bool:
        return self._delivery.stop(0) if self._delivery is not None else not self._injected


def _ending() -> bool:
    """Whether the interpreter is about to end: then no thread is started any more, and the next process delivers."""
    return not threading.main_thread().is_alive() or getattr(threading, "_SHUTTING_DOWN", False)


class _LastLook(Struct, frozen=True):
    """Whether a sender is to be left behind for a home: looked at when the process ends."""

    root: Path

    def __call__(self, situation: Situation, host: PluginHost) -> None:
        from .sender import leave_behind

        leave_behind(situation, host)
