"""This machine's own value of each field, for whoever has to decide about it. Reads alone; samples what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import clock
from ..capture import Hasher, cwd_prefix
from ..errors import StorageError
from ..identity import load_identity
from ..insights import newest_bodies
from ..spec import BASE
from .sample import constants, sample_properties

if TYPE_CHECKING:
    from ..config import TelemetryLevel
    from ..spec import Event, TelemetrySpec
    from .machine import Machine

_MOST = 60
"""Characters of a value that are shown."""


class Example(NamedTuple):
    """An event as it would look here."""

    values: Mapping[str, str]
    """Field → its value."""
    own: bool
    """Whether it is one that was recorded here, not a sample."""


class Examples:
    """Values of a machine, for as long as a person is asked."""

    def __init__(self, of: Machine) -> None:
        self._machine = of
        try:
            self._identity = load_identity(of.home)
        except StorageError:  # a yes makes it anew
            self._identity = None
        # Where there is no key yet, a hash looks as it will, and is another one.
        self._hasher = Hasher(self._identity.salt if self._identity else os.urandom(32))

    @cached_property
    def _recorded(self) -> dict[str, dict[str, Any]]:
        """Event → the newest one that was recorded, with every captured field."""
        bodies: list[bytes] = []
        try:
            bodies += newest_bodies(self._machine.home.history).values()
            spool = self._machine.peek()
            if spool is not None:
                with closing(spool):
                    names = [event.name for spec in self._machine.pipeline.registry for event in spec.events]
                    bodies += [row.private for name in names if (row := spool.newest(name)) is not None]
        except StorageError:  # whatever is wrong with them, `status` says
            pass
        decoded = sorted(map(json.loads, bodies), key=lambda body: str(body["timestamp"]))
        return {body["event"]: body for body in decoded}

    def base(self, level: TelemetryLevel) -> dict[str, str]:
        """The fields that every event has."""
        newest = max(self._recorded.values(), key=lambda body: str(body["timestamp"]), default={})
        made = {
            "event": self._machine.usual_event,
            "event_id": "another one for each event",
            "spec": f"{self._machine.application.spec}@1",
            **newest,
            **constants(self._machine.application),
            "anonymous_install_id": self._identity.install_id if self._identity else "made when you say yes",
            "timestamp": clock.iso(clock.wall()),
            "level": level.value,
        }
        return {name: _text(made.get(name)) for name in BASE}

    def of(self, spec: TelemetrySpec, event: Event) -> Example:
        """The own fields of an event."""
        recorded = self._recorded.get(event.name, {})
        made = sample_properties(event, self._hasher)
        own = str(recorded.get("spec")).startswith(f"{spec.meta.name}@")
        if own:
            hashes = {name: made[name] for name, prop in event.properties.items() if prop.type == "hash"}
            made = {**hashes, **self._hashed(recorded), **recorded}
        return Example({name: _text(made.get(name)) for name in event.properties}, own)

    def _hashed(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The hashes that an event would have, of the names that it has for this machine alone."""
        hashes: dict[str, Any] = {"hashed_cwd_prefix": self._hasher(cwd_prefix(os.environ.get("PWD", "/")))}
        if "command_name" in recorded:
            hashes["hashed_command_name"] = self._hasher(recorded["command_name"])
        if "trigger_names" in recorded:
            hashes["hashed_trigger_patterns"] = [self._hasher(name) for name in recorded["trigger_names"]]
        return hashes


def _text(value: object) -> str:
    """A value as it is written, not too long; a dash for none."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
