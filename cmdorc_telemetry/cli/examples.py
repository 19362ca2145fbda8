"""This machine's own value of each field, for whoever has to decide about it. Reads alone; samples what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .. import clock
from ..capture import Hasher, cwd_prefix
from ..decision import level_name
from ..errors import PluginError, StorageError
from ..identity import load_identity
from ..insights import newest_bodies
from ..spec import BASE
from .sample import base_fields, constants, sample_properties

if TYPE_CHECKING:
    from ..config import TelemetryLevel
    from ..gate import Gate
    from ..spec import Event, TelemetrySpec
    from .machine import Machine

_MOST = 60
"""Characters of a value that are shown."""


class Example(NamedTuple):
    """An event as it would look here."""

    values: Mapping[str, str]
    """Field → its value."""
    own: bool = False
    """Whether it is one that was recorded here, not a sample."""
    trouble: str = ""
    """Why nothing of such an event is shared."""


class Examples:
    """Values of a machine as ``level`` shares them, for as long as a person is asked."""

    def __init__(self, of: Machine, level: TelemetryLevel) -> None:
        self._machine, self._level = of, level_name(level)
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

    @cached_property
    def _gate(self) -> Gate | None:
        """What changes values, or keeps them back; None where nothing does."""
        pipeline = self._machine.pipeline
        return pipeline.gate() if pipeline.anonymizers or pipeline.blocked() else None

    def _shared(self, spec: TelemetrySpec, event: Event, made: Mapping[str, Any]) -> Example:
        """Values of an event, as anonymizers leave them. Raises ValidationError where its spec does not allow them."""
        texts = {name: _text(made.get(name)) for name in (*BASE, *event.properties)}
        if self._gate is None or self._level is None or not event.shared_at(self._level):
            return Example(texts)
        own = {name: value for name, value in made.items() if value is not None}
        body = {"timestamp": clock.iso(clock.wall()), **own, **base_fields(self._machine.application),
                "event": event.name, "spec": spec.ref, "level": self._level}  # fmt: skip
        try:
            shared, taken = self._gate.preview(spec.ref, event.name, event.major, self._level, body)
        except PluginError as fault:
            return Example(dict.fromkeys(texts, _text(None)), trouble=str(fault))
        left = {name: _text(value) for name, value in json.loads(shared).items()}
        return Example({**texts, **left, **{name: f"– ({by} takes it out)" for name, by in taken.items()}})

    def base(self) -> Mapping[str, str]:
        """The fields that every event has."""
        found = self._machine.pipeline.registry.find_event(self._machine.usual_event)
        assert found is not None
        newest = max(self._recorded.values(), key=lambda body: str(body["timestamp"]), default={})
        made = {
            **sample_properties(found[1], self._hasher),
            "event": self._machine.usual_event,
            "spec": f"{self._machine.application.spec}@1",
            **{name: newest[name] for name in BASE if name in newest},
            **constants(self._machine.application),
            "timestamp": clock.iso(clock.wall()),
            "level": self._level,
        }
        return {
            **self._shared(*found, made).values,
            "event_id": "another one for each event",
            "anonymous_install_id": self._identity.install_id if self._identity else "made when you say yes",
        }

    def of(self, spec: TelemetrySpec, event: Event) -> Example:
        """The own fields of an event."""
        recorded = self._recorded.get(event.name, {})
        made = sample_properties(event, self._hasher)
        if str(recorded.get("spec")).startswith(f"{spec.meta.name}@"):
            hashes = {name: made[name] for name, prop in event.properties.items() if prop.type == "hash"}
            with suppress(msgspec.ValidationError):  # its spec was another one then
                return self._shared(spec, event, {**hashes, **self._hashed(recorded), **recorded})._replace(own=True)
        return self._shared(spec, event, made)

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
