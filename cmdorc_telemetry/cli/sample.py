"""An event as it would look, with placeholder ids: for those who have none yet. Writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any

import msgspec

from .. import clock
from ..application import Application
from ..capture import (
    Hasher,
    SessionStatistics,
    completed_properties,
    machine_fields,
    startup_properties,
    trigger_properties,
)
from ..capture.payloads import TelemetryPayloadBuilder
from ..config import TelemetryLevel
from ..gate import Gate
from ..lifecycle import CompletedRun, Session, Trigger
from ..spec import LEVELS, MASK, Event, Property, TelemetrySpec, bucket_labels, coerce
from .wording import application

NO_ID = "00000000-0000-0000-0000-000000000000"
SESSION = Session(
    id=NO_ID, started_at=0.0, uptime=754.0, command_count=4, has_triggers=True, trigger_count=3,
    trigger_patterns=("changed", "command_success:Lint", "command_success:Tests"), executor_type="local_subprocess",
    retrigger_policies=("cancel_and_restart", "cancel_and_restart", "ignore", "ignore"), config_name="cmdorc.toml",
)  # fmt: skip
RUN = CompletedRun(
    run_id=NO_ID, command_name="Tests", state="success", duration=3.512, manual=False,
    trigger_event="command_success:Lint", trigger_chain=("changed", "command_success:Lint"), arg_count=2, cwd="/",
)  # fmt: skip
_TEXTS = ("…", "example", "a", "A", "0", "en", "en-US", "a1", "A1", "ab12", "AB12", "1.0", "1.0.0", "a-b", "a_b", "a.b",
          "A-B", "A_B", "a/b", "/", "a@b.c", "2000-01-01", "#000000", "")  # fmt: skip
TRIGGER = Trigger(name="changed", outcome="ran", runs_started=1)


def least_level(event: Event, level: TelemetryLevel) -> TelemetryLevel:
    """``level``, or the least above it at which something of ``event`` is shared: there must be one."""
    return next(each for each in TelemetryLevel if level <= each and event.shared_at(LEVELS[each.rank - 1]))


def shared_sample(gate: Gate, spec: TelemetrySpec, event: Event, level: TelemetryLevel) -> tuple[bytes, dict[str, str]]:
    """The body that a shared destination would get at ``level``, which must share something of ``event``; and what an
    anonymizer takes out of it, with its name. Raises PluginError where nothing would be shared.
    """
    builder = TelemetryPayloadBuilder(spec, level, bytes(32), base_fields(application()))
    now = clock.wall()
    builders: dict[str, Callable[[], dict[str, Any]]] = {
        "orchestrator_started": lambda: builder.build_startup_payload(SESSION, now=now),
        "command_completed": lambda: builder.build_command_completed_payload(RUN, now=now),
        "trigger_fired": lambda: builder.build_trigger_payload(TRIGGER, now=now),
        "orchestrator_stopped": lambda: builder.build_shutdown_payload(SESSION, [RUN], now=now),
    }
    if application().is_cmdorc and event.name in builders:
        body = builders[event.name]()
    else:
        body = builder.build_payload(event.name, _placeholders(event), now=now)
    return gate.preview(spec.ref, event.name, event.major, LEVELS[level.rank - 1], body)


def private_sample(spec: TelemetrySpec, event: Event) -> bytes:
    """The body that a destination of the user's own would get."""
    own = {name: value for name, value in sample_properties(event, None).items()
           if event.properties[name].type != "hash"}  # fmt: skip
    base = {"event": event.name, **base_fields(application()), "spec": spec.ref, "timestamp": clock.iso(clock.wall())}
    return msgspec.json.encode({**base, **own})


def sample_properties(event: Event, hasher: Hasher | None) -> dict[str, Any]:
    """Every field of the event's own; hashes of the sample's names where there is a hasher."""
    statistics = SessionStatistics()
    statistics.add_run(RUN)
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "orchestrator_started": lambda: startup_properties(SESSION, hasher),
        "command_completed": lambda: completed_properties(RUN, hasher),
        "trigger_fired": lambda: trigger_properties(TRIGGER, hasher),
        "orchestrator_stopped": lambda: statistics.properties(SESSION),
    }
    make = known.get(event.name, dict) if application().is_cmdorc else dict
    return {**_placeholders(event), **{name: coerce(event.properties[name], value) for name, value in make().items()}}


def constants(of: Application) -> dict[str, str]:
    """The base fields that say what program this is, and on what kind of machine."""
    if of.is_cmdorc:
        with suppress(metadata.PackageNotFoundError):
            of = of._replace(version=metadata.version("cmdorc"))
    return {**of.base, **machine_fields()}


def base_fields(of: Application) -> dict[str, str]:
    """Those that are the same in every event, with ids that are nobody's."""
    return {**constants(of), "anonymous_install_id": NO_ID, "event_id": NO_ID}


def _placeholders(event: Event) -> dict[str, Any]:
    made = {name: MASK if event.masks(name) else _placeholder(prop) for name, prop in event.properties.items()}
    return {name: value for name, value in made.items() if value is not None}


def _placeholder(prop: Property) -> Any:
    """A value that it may have; None for one of no known shape."""
    value: Any = {
        "bool": False, "count": int(prop.min or 0), "duration_ms": int(prop.min or 0), "number": prop.min,
        "enum": next(iter(prop.members), ""), "bucket": bucket_labels(prop.edges)[0] if prop.edges else "",
        "hash": "0" * 12, "version": "0", "uuid": NO_ID, "timestamp": clock.iso(0), "string": _text(prop), "json": None,
    }[prop.type]  # fmt: skip
    return [value] if prop.max_items is not None and value is not None else value


def _text(prop: Property) -> str | None:
    """One of some usual texts that its pattern takes; None where it takes none of them."""
    pattern, most = prop.pattern or "", prop.max_length or 0
    return next((text for text in _TEXTS if len(text) <= most and re.fullmatch(pattern, text)), None)
