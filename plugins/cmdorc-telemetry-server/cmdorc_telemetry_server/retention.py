"""How long events are kept: as their specs say, applied at the start and once a day."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.spec import TelemetryRegistry
from cmdorc_telemetry.spec.model import Config

from .store import Store

_DAY = 86_400
_OTHERWISE = Config().default_retention_days
"""Days that events of a spec are kept which this server no longer knows."""
_log = logging.getLogger(__name__)


async def purge(store: Store, registry: TelemetryRegistry, now: float) -> int:
    """Delete what was kept long enough at ``now``. Returns the number of events. Raises StorageError."""
    days = {(spec.ref, event.name): spec.retention_days(event) for spec in registry for event in spec.events}
    return await store.purge(now, days, _OTHERWISE)


async def keep_purging(store: Store, registry: TelemetryRegistry, now: Callable[[], float]) -> None:
    """Purge now and at every midnight (UTC), until cancelled."""
    while True:
        try:
            await purge(store, registry, now())
        except StorageError as fault:
            _log.error("the daily purge failed, the next is tomorrow: %s", fault)
        await asyncio.sleep(_DAY - now() % _DAY)
