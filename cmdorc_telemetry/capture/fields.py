"""The properties of telemetry's own events, made of lifecycle records. Pure; valid by the way they are made.

The hashes of DEBUG are made where a hasher is given, that is where a person said yes to them, and nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import PurePath
from typing import Any

from ..lifecycle import CompletedRun, Session, Trigger

_HASH_LENGTH = 12
_ARCHITECTURES = {"amd64": "x86_64", "aarch64": "arm64", "i386": "i686"}


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
            import hmac

            digest = hmac.digest(self._salt, item.encode("utf-8", "surrogatepass"), "sha256")
            found = self._known[item] = digest.hex()[:_HASH_LENGTH]
        return found


def bounded(value: str, most: int) -> str:
    """At most ``most`` characters of ``value``; what UTF-8 cannot hold, such as half a surrogate pair, is a ``?``."""
    if value.isascii() and len(value) <= most:
        return value
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
        properties["config_name"] = bounded(session.config_name, 200)
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
        "command_name": bounded(run.command_name, 200),
        "run_id": bounded(run.run_id, 64),
    }
    if run.trigger_event is not None:
        properties["trigger_event"] = bounded(run.trigger_event, 200)
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
        "trigger_names": [bounded(trigger.name, 200)],
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
        self.triggers = 0
        self._runs: dict[tuple[str, bool, int], int] = {}
        """State, whether it was final, and live runs → how many ended so."""

    def add_run(self, run: CompletedRun) -> None:
        """Count a run that ended."""
        end = (run.state, run.final, run.concurrent_runs)
        self._runs[end] = self._runs.get(end, 0) + 1

    def properties(self, session: Session) -> dict[str, Any]:
        """The own fields of ``orchestrator_stopped``."""
        runs = self._runs.items()
        count = sum(self._runs.values())
        live = sum(concurrent * number for (_, _, concurrent), number in runs)
        return {
            "uptime_s": session.uptime,
            "run_count": count,
            "failed_count": sum(number for (state, _, _), number in runs if state == "failed"),
            "cancelled_count": sum(number for (state, final, _), number in runs if state == "cancelled" or not final),
            "avg_concurrent_runs": round(live / count, 2) if count else 0.0,
            "max_concurrent_runs": max((concurrent for _, _, concurrent in self._runs), default=0),
            "trigger_count": self.triggers,
        }
