"""A lifecycle record, or somebody's properties, and the spec → checked fields → one journal record. Pure.

Writes every declared field with a valid value, private ones included, whatever the level: the gate decides
what may be shared. Only the hashes of DEBUG are made where a person said yes to them, and nowhere else.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import msgspec

from . import clock
from .config import TelemetryLevel
from .spec import BASE, LEVELS, TelemetrySpec, coerce, own_shape
from .types import CompletedRun, Session, Trigger

_encode = msgspec.json.Encoder().encode
_HASH_LENGTH = 12
_ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64", "i386": "i686"}


def event_id(now: int) -> str:
    """A UUIDv7 (RFC 9562) whose time is ``now``, in whole seconds; the rest is fresh randomness.

    A counter or a cached random part would be cheaper, and would link the events of one process.
    """
    noise = os.urandom(10).hex()
    stamp = f"{now * 1000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{noise[:3]}-{'89ab'[int(noise[3], 16) & 3]}{noise[4:7]}-{noise[7:19]}"


def machine_fields() -> dict[str, str]:
    """The base fields that say on what kind of machine this runs."""
    name = os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", "")
    arch = name.lower()
    return {
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "os": {"win32": "windows"}.get(sys.platform, sys.platform.rstrip("0123456789")),
        "arch": _ARCHITECTURES.get(arch, arch),
    }


class Hasher:
    """HMAC-SHA256 with the local salt, first 12 hex digits; remembers what it hashed, up to a bound."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._known: dict[str, str] = {}

    def __call__(self, item: str) -> str:
        """The hash of ``item``."""
        found = self._known.get(item)
        if found is None:
            if len(self._known) > 1000:
                self._known.clear()
            digest = hmac.digest(self._salt, item.encode("utf-8", "surrogatepass"), "sha256")
            found = self._known[item] = digest.hex()[:_HASH_LENGTH]
        return found


def _text(value: str, most: int) -> str:
    """At most ``most`` characters of ``value``; what UTF-8 cannot hold, such as half a surrogate pair, is a ``?``."""
    return value[:most].encode("utf-8", "replace").decode()


def startup_properties(session: Session, hasher: Hasher | None) -> dict[str, Any]:
    """The own fields of ``orchestrator_started``; with hashes where there is a hasher."""
    policies = Counter(session.retrigger_policies).most_common(1)
    properties: dict[str, Any] = {
        "executor_type": session.executor_type,
        "command_count": session.command_count,
        "has_triggers": session.has_triggers,
        "trigger_count": session.trigger_count,
        "has_wildcard_triggers": any("*" in pattern for pattern in session.trigger_patterns),
    }
    if policies:
        properties["most_common_on_retrigger_policy"] = policies[0][0]
    if session.config_name is not None:
        properties["config_name"] = _text(session.config_name, 200)
    if hasher is not None:
        properties["hashed_trigger_patterns"] = [hasher(pattern) for pattern in session.trigger_patterns[:50]]
    return properties


def completed_properties(run: CompletedRun, hasher: Hasher | None) -> dict[str, Any]:
    """The own fields of ``command_completed``. A run that was abandoned counts as cancelled."""
    properties: dict[str, Any] = {
        "duration_ms": round(run.duration * 1000),
        "state": run.state if run.final else "cancelled",
        "final": run.final,
        "manual": run.manual,
        "chain_depth": len(run.trigger_chain),
        "concurrent_runs": run.concurrent_runs,
        "timed_out": run.timed_out,
        "command_name": _text(run.command_name, 200),
        "run_id": _text(run.run_id, 64),
    }
    if run.trigger_event is not None:
        properties["trigger_event"] = _text(run.trigger_event, 200)
    if hasher is not None:
        properties["hashed_command_name"] = hasher(run.command_name)
        properties["command_arg_count"] = run.arg_count
        if run.cwd is not None:
            properties["hashed_cwd_prefix"] = hasher(cwd_prefix(run.cwd))
    return properties


def trigger_properties(trigger: Trigger, hasher: Hasher | None) -> dict[str, Any]:
    """The own fields of ``trigger_fired`` for one trigger alone."""
    properties: dict[str, Any] = {
        "trigger_count": 1,
        "distinct_triggers": 1,
        "runs_started": trigger.runs_started,
        "cycles": int(trigger.outcome == "cycle"),
        "max_chain_depth": trigger.chain_depth,
        "trigger_names": [_text(trigger.name, 200)],
    }
    if hasher is not None:
        properties["hashed_trigger_patterns"] = [hasher(trigger.name)]
    return properties


def cwd_prefix(cwd: str, home: str | None = None) -> str:
    """The first two components of ``cwd`` below the home directory, or below the root."""
    path, base = PurePath(cwd), PurePath(home or os.path.expanduser("~"))
    below = path.relative_to(base) if path.is_relative_to(base) else path.relative_to(path.anchor)
    return "/".join(below.parts[:2])


class SessionStatistics:
    """What a session's end is summed up from: fed with its runs and triggers."""

    def __init__(self) -> None:
        self.runs = self.failed = self.cancelled = self.triggers = self._live = self._most = 0

    def add_run(self, run: CompletedRun) -> None:
        """Count a run that ended."""
        self.runs += 1
        self.failed += run.state == "failed"
        self.cancelled += run.state == "cancelled" or not run.final
        self._live += run.concurrent_runs
        self._most = max(self._most, run.concurrent_runs)

    def properties(self, session: Session) -> dict[str, Any]:
        """The own fields of ``orchestrator_stopped``."""
        return {
            "uptime_s": session.uptime,
            "run_count": self.runs,
            "failed_count": self.failed,
            "cancelled_count": self.cancelled,
            "avg_concurrent_runs": round(self._live / self.runs, 2) if self.runs else 0.0,
            "max_concurrent_runs": self._most,
            "trigger_count": self.triggers,
        }


def _valid_base(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` as bodies hold it: an uncommon machine is ``other``; what is no version is left out."""
    valid = {}
    for name, value in base.items():
        with suppress(msgspec.ValidationError):
            valid[name] = coerce(BASE[name], value)
    return valid


class _Compiled:
    """What capture needs to know of one event, made once."""

    def __init__(self, spec: TelemetrySpec, name: str, base: Mapping[str, str]) -> None:
        event = spec.event(name)
        assert event is not None
        self.properties = event.properties
        self.shape = own_shape(event)
        self.head = f',"{spec.ref}","{name}",{event.version},'.encode()
        constants = _encode({"event": name, **base, "spec": spec.ref})[:-1]
        self.base = b"," + constants + b',"timestamp":"'


class Capture:
    """Makes journal records of the events of some specs. ``base``: the constant base fields."""

    def __init__(
        self,
        specs: Iterable[TelemetrySpec],
        base: Mapping[str, str],
        *,
        on_violation: Callable[[str, str, str], None] | None = None,
    ) -> None:
        base = _valid_base(base)
        self._events = {event.name: _Compiled(spec, event.name, base) for spec in specs for event in spec.events}
        self._on_violation = on_violation
        self._stamp = (-1, b"")

    def __contains__(self, event: str) -> bool:
        return event in self._events

    def record(self, event: str, properties: Mapping[str, Any]) -> bytes:
        """The journal record of an event. Fields that are undeclared or invalid are left out and reported.

        Raises KeyError for an event that no spec declares.
        """
        compiled = self._events[event]
        try:
            own = _encode(msgspec.convert(properties, compiled.shape))
        except (ValueError, TypeError):  # some of it is not valid, or nothing that JSON could hold
            own = _encode(self._valid(event, compiled, properties))
        if self._on_violation is not None and not properties.keys() <= compiled.properties.keys():
            for name in properties.keys() - compiled.properties.keys():
                self._on_violation(event, name, "undeclared")
        return self._framed(b'["event"', compiled, own)

    def trigger_record(self, trigger: Trigger, hasher: Hasher | None) -> bytes:
        """The journal record of one trigger, to be folded with others at import."""
        own = {
            "session_id": trigger.session_id,
            "name": _text(trigger.name, 200),
            "outcome": trigger.outcome,
            "chain_depth": trigger.chain_depth,
            "runs_started": trigger.runs_started,
        }
        if hasher is not None:
            own["hash"] = hasher(trigger.name)
        return self._framed(b'["trigger"', self._events["trigger_fired"], _encode({"trigger": own}))

    def _framed(self, kind: bytes, compiled: _Compiled, own: bytes) -> bytes:
        now = int(clock.wall())
        second, stamp = self._stamp
        if now != second:
            stamp = clock.iso(now).encode()
            self._stamp = (now, stamp)
        tail = b'","event_id":"%b"' % event_id(now).encode()
        rest = b"," + own[1:] if len(own) > 2 else b"}"
        return b"%b%b%d%b%b%b%b]" % (kind, compiled.head, now, compiled.base, stamp, tail, rest)

    def _valid(self, event: str, compiled: _Compiled, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The properties that can be made valid, one by one."""
        valid: dict[str, Any] = {}
        for name, value in properties.items():
            if name not in compiled.properties:
                continue
            try:
                coerced = coerce(compiled.properties[name], value)
                _encode(coerced)
                valid[name] = coerced
            except Exception:  # a value may be any object, and raise anything
                if self._on_violation is not None:
                    self._on_violation(event, name, "invalid")
        return valid


def _completed(run: Any) -> CompletedRun:
    return run if isinstance(run, CompletedRun) else CompletedRun.from_result(run)


class TelemetryPayloadBuilder:
    """Payloads as a shared destination gets them at ``level``. Pure: the same input gives the same payload.

    ``base`` holds the constant base fields; ``now`` of each method is seconds since the epoch.
    """

    def __init__(self, spec: TelemetrySpec, level: TelemetryLevel, salt: bytes, base: Mapping[str, Any]) -> None:
        self._spec, self._base = spec, dict(base)
        self._level = None if level is TelemetryLevel.OFF else LEVELS[level.rank - 1]
        self._hasher = Hasher(salt)

    def hash_item(self, item: str) -> str:
        """HMAC-SHA256 of ``item`` with the salt, first 12 hex digits."""
        return self._hasher(item)

    def build_startup_payload(self, session: Session, *, now: float) -> dict[str, Any]:
        """``orchestrator_started``."""
        return self.build_payload("orchestrator_started", startup_properties(session, self._hasher), now=now)

    def build_command_completed_payload(self, run: Any, manual: bool | None = None, *, now: float) -> dict[str, Any]:
        """``command_completed`` of a ``CompletedRun`` or of cmdorc's own result; ``manual`` overrides what it says."""
        run = _completed(run)
        if manual is not None:
            run = msgspec.structs.replace(run, manual=manual)
        return self.build_payload("command_completed", completed_properties(run, self._hasher), now=now)

    def build_trigger_payload(self, trigger: Trigger, *, now: float) -> dict[str, Any]:
        """``trigger_fired`` for one trigger alone; empty where the level shares nothing of it."""
        return self.build_payload("trigger_fired", trigger_properties(trigger, self._hasher), now=now)

    def build_shutdown_payload(self, session: Session, runs: Collection[Any] = (), *, now: float) -> dict[str, Any]:
        """``orchestrator_stopped`` after ``runs``, each a ``CompletedRun`` or cmdorc's own result."""
        statistics = SessionStatistics()
        for run in runs:
            statistics.add_run(_completed(run))
        return self.build_payload("orchestrator_stopped", statistics.properties(session), now=now)

    def build_payload(self, name: str, properties: Mapping[str, Any], *, now: float) -> dict[str, Any]:
        """Any event of the spec, with valid ``properties``; empty where the level shares nothing of it."""
        event = self._spec.event(name)
        if event is None or not event.shared_at(self._level):
            return {}
        own = {key: coerce(event.properties[key], value) for key, value in properties.items()
               if event.properties[key].shared_at(self._level)}  # fmt: skip
        return {"event": name, **self._base, "timestamp": clock.iso(now), "spec": self._spec.ref,
                "level": self._level, **own}  # fmt: skip
