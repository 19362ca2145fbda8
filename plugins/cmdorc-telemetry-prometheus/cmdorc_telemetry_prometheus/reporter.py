"""The reporter: settings, and what becomes of a batch. What is counted is in ``tally.py``, and kept by ``state.py``.

An event counts once it is in the state and, where there is one, in the textfile; only then is it acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec
from cmdorc_telemetry.spec.instruments import SECONDS, are_bounds
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult, EventResult, Setup

from .metrics import Catalogue
from .state import State
from .tally import Tally
from .textfile import Textfile

if TYPE_CHECKING:
    from .endpoint import Endpoint

HOST, PORT = "127.0.0.1", 19464
_CLOSE_SECONDS = 0.04


class PrometheusReporter(TelemetryReporter):
    """Counts events, and shows the counts to Prometheus: at an address, in a file for the node exporter, or both."""

    name = "prometheus"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """The keys of a ``prometheus`` destination."""

        host: str = HOST
        """The address of this machine that is listened at."""
        port: int | None = None
        """Of the address that Prometheus scrapes; where neither this nor ``path`` is given, 19464. None for no address:
        a file is all that was asked for.
        """
        path: str | None = None
        """The file for the node exporter's textfile collector: absolute, or beginning with ``~``."""
        labels: tuple[str, ...] = ("command_name",)
        """Properties without a declared set of values that become labels, where events have them."""
        most_values: int = 100
        """How many values each of those labels has; others become ``other``."""
        buckets: tuple[float, ...] = SECONDS
        """Upper bounds of the histograms of durations, in seconds."""

        def __post_init__(self) -> None:
            if not self.host or "\0" in self.host:
                raise ValueError(f"host: found {self.host!r}; expected an address of this machine, such as '{HOST}'")
            if self.port is not None and not 1 <= self.port <= 65535:
                raise ValueError(f"port: found {self.port}; expected 1 to 65535")
            if self.path is not None and ("\0" in self.path or not Path(self.path).expanduser().is_absolute()):
                raise ValueError(f"path: found {self.path!r}; expected an absolute path, or one that begins with '~/'")
            if self.path is not None and not self.path.endswith(".prom"):
                raise ValueError(f"path: found {self.path!r}; expected a name that ends with .prom: no other is read")
            if not 1 <= self.most_values <= 10_000:
                raise ValueError(f"most_values: found {self.most_values}; expected 1 to 10000")
            if not are_bounds(self.buckets):
                raise ValueError(f"buckets: found {list(self.buckets)}; expected numbers above 0 that rise")
            if self.port is None and self.path is None:  # whoever asks where it leads reads it here
                msgspec.structs.force_setattr(self, "port", PORT)

    setup: ClassVar[Setup | None] = None
    """What the core gave the plugin to work with; None for a reporter that is given by code."""

    def __init__(self, settings: Settings | None = None, *, specs: Sequence[TelemetrySpec] = ()) -> None:
        """``specs`` are those in force, for a reporter that is given by code: cmdorc's own are used in any case."""
        super().__init__(settings)
        self._settings: PrometheusReporter.Settings = self.settings  # type: ignore[assignment]
        self._specs = (*specs, *(self.setup.specs if self.setup is not None else ()))
        self._made: Catalogue | None = None
        self._endpoint: Endpoint | None = None
        self._textfile = Textfile(Path(self._settings.path).expanduser()) if self._settings.path else None
        self.state = state_of(self._settings, None if self.setup is None else self.setup.folder)
        """Where the counts are. Nothing is there before the first batch."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        """Count one event. Raises RetryLater where that cannot be kept."""
        body = msgspec.json.encode({"event": event, **payload})
        event_id = str(payload.get("event_id", ""))
        await self.report_batch(Batch(destination="prometheus", events=(BatchEvent(event_id, event, body),)))

    async def report_batch(self, batch: Batch) -> BatchResult:
        """Count a batch, all of it or nothing. Raises RetryLater where that cannot be kept, or not be written out.

        Events that are counted already, because an acknowledgement was lost, are duplicates.
        """
        async with self.state.locked():
            draft = self.state.draft(batch.events, partial(Tally, self._catalogue()), clock.wall())
            draft.tally.close(batch.drops, batch.epoch)
            self.state.commit(draft)
            if self._textfile is not None:  # also for duplicates: it may be here that it failed the last time
                from .exposition import text

                self._textfile.write(text(self.state.read()))
        self._serve()
        return BatchResult(
            results=tuple(EventResult(event.event_id, "accepted" if new else "duplicate")
                          for event, new in zip(batch.events, draft.fresh, strict=True))
        )  # fmt: skip

    def encode(self, batch: Batch) -> bytes:
        """What the batch adds to the metrics: of what Prometheus gets to read, its share."""
        from .exposition import additions

        tally = Tally(self._catalogue())
        for event in batch.events:
            tally.count(event)
        tally.close({})
        return additions(tally)

    async def erase(self, install_ids: Sequence[str]) -> bool:
        """Delete the counts, and the textfile, whatever installs they are of."""
        try:
            if self.state.path.parent.exists():  # opting out deletes what is there before anybody is asked
                await self._forget()
            if self._textfile is not None:  # afterwards: before, somebody could write it once more
                self._textfile.remove()
        except (RetryLater, OSError):
            return False
        return True

    async def close(self) -> None:
        """Serve no more. Another process that has counted something takes over."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close(_CLOSE_SECONDS)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _forget(self) -> None:
        async with self.state.locked():
            self.state.delete()
        for path in (self.state.lock_path, self.state.serving_lock):
            lock = FileLock(path)
            if lock.acquire(wait=False):  # else somebody serves, and finds nothing there any more
                lock.release(unlink=True)
        with suppress(OSError):  # there are others
            self.state.path.parent.rmdir()

    def _serve(self) -> None:
        if self._endpoint is None and self._settings.port is not None:
            from .endpoint import Endpoint

            endpoint = Endpoint(self._settings.host, self._settings.port, self.state)
            with suppress(RuntimeError):  # no thread can be had now: with the next batch, maybe
                endpoint.start()
                self._endpoint = endpoint

    def _catalogue(self) -> Catalogue:
        if self._made is None:
            specs = {spec.ref: spec for spec in self._specs}
            if self.setup is None:
                core = load_spec(CORE)
                specs[core.ref] = core
            self._made = Catalogue(specs.values(), self._settings.labels, self._settings.buckets)
        return self._made


def state_of(settings: PrometheusReporter.Settings, folder: Path | None = None) -> State:
    """Where, in a folder, a destination with these settings counts: what leads elsewhere counts for itself."""
    lead = f"{settings.host}\0{settings.port}\0{settings.path}"
    name = blake2b(lead.encode(), digest_size=6).hexdigest()
    where = folder or Home.of(CMDORC).plugins / PrometheusReporter.name
    return State(where / f"{name}.db", settings.most_values)
