"""Asks destinations to delete what they hold of this install, and tells what became of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

from .. import clock
from ..config import DestinationConfig
from ..errors import StorageError, TelemetryError
from ..identity import load_identity
from ..pipeline import make_reporter
from ..policy import Policy, allowed_destinations
from ..reporter import TelemetryReporter
from .machine import Machine

ERASE_SECONDS = 10.0
"""How long all of them together have to answer."""


def erase(machine: Machine) -> Iterator[tuple[str, bool]]:
    """Ask everybody who may have got something. For each: what to tell, and whether it is as it should be."""
    pipeline = machine.pipeline
    try:
        identity = load_identity(machine.home)
    except StorageError as fault:
        yield f"nobody could be asked to erase this install: {fault}", False
        return
    if identity is None:
        return
    trusted = Policy(record=True, decided_by=pipeline.policy.decided_by)
    agreed, _ = allowed_destinations(trusted, pipeline.grant, pipeline.configured)
    told: dict[str, tuple[str, bool]] = {}
    present = [to for to in agreed if to.plugin in pipeline.classes]
    threads = [threading.Thread(target=_ask, args=(machine, to, identity.install_id, told), daemon=True)
               for to in present]  # fmt: skip
    for thread in threads:
        thread.start()
    deadline = clock.monotonic() + ERASE_SECONDS + 0.5
    for thread in threads:
        thread.join(max(deadline - clock.monotonic(), 0))
    for to in agreed:
        if to in present:
            text, good = told.get(to.name, ("gave no answer in time", False))
        else:
            text, good = f"could not be asked: {machine.missing[to.name][0]}", False
        yield f"{to.name}: {text}" + ("" if good else f". The install was {identity.install_id}"), good


def _ask(machine: Machine, to: DestinationConfig, install_id: str, told: dict[str, tuple[str, bool]]) -> None:
    """On a thread for each: what a reporter does may hang in ways that no loop can end."""

    async def ask() -> tuple[str, bool]:
        reporter = make_reporter(machine.pipeline.classes[to.plugin], to, machine.situation.environ)
        try:
            if await asyncio.wait_for(reporter.erase([install_id]), ERASE_SECONDS):
                return "erased what it held of this install", True
        finally:
            await reporter.close()
        if type(reporter).erase is TelemetryReporter.erase:
            return "has no way to erase what it was sent", True
        return "did not confirm that it erased this install", False

    try:
        told[to.name] = asyncio.run(ask())
    except asyncio.TimeoutError:
        pass  # as if it hung
    except TelemetryError as fault:
        told[to.name] = (f"did not erase: {fault}", False)
    except (Exception, SystemExit) as fault:
        told[to.name] = (f"did not erase: {type(fault).__name__}: {fault}", False)
