"""Every hook: when it is called, with what, and what it may return.

A plugin is any object (mostly a module) with functions of these names marked ``@hookimpl``, offered through
an entry point in the group ``cmdorc_telemetry``. A hookimpl may leave out arguments that it does not need.

Rules for all of them:

* what a hook raises is caught, reported once with the plugin's name, and changes nothing for the others; only a
  KeyboardInterrupt on the program's main thread goes through: it is the user's;
* records are frozen; what a hook returns is checked; a wrong type counts as a failure of that plugin;
* lifecycle hooks (``cmdorc_*``) run on the caller's thread and must return within microseconds: after three
  calls over 5 ms a plugin's lifecycle hooks are switched off for that process. One that never returns holds the
  caller up: nothing can be done about that from inside;
* each of the other hooks runs on a thread of its own, which is given up where it does not come back: after a second
  where it is for each event, else after five. Whoever starts telemetry waits for ``telemetry_specs``, and the
  telemetry thread for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

if TYPE_CHECKING:
    from .detector import Detector
    from .lifecycle import Chain, CompletedRun, Session, Trigger
    from .reporter import TelemetryReporter
    from .spec import TelemetrySpec
    from .types import Anomaly, Event, Setup

PROJECT = "cmdorc_telemetry"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION = 1
"""Raised when a hook's name or arguments change in a way that breaks plugins."""
OLDEST_API_VERSION = 1
"""Plugins that were written for this one still work."""
API_GROUP = f"{PROJECT}.api"
"""The entry-point group in which a distribution says for which version each of its plugins was written, such as ``v1``.
One that says nothing was written for the first."""


class Deprecated(NamedTuple):
    """Something of this page that works for one minor version more."""

    since: str
    """The version of cmdorc-telemetry that deprecated it: with the minor version after the next, it is gone."""
    instead: str
    """What to use in its place."""


DEPRECATED: Mapping[str, Deprecated] = {}
"""A hook, or one of its arguments as ``hook(argument)``. Whoever loads a plugin that uses it is warned."""


def incompatible(api: str) -> tuple[str, str] | None:
    """Why a plugin that was written for ``api`` cannot be used here, and the fix; None where it can."""
    number = int(api[1:] or "0") if api[:1] == "v" and api[1:].isdecimal() else 0
    if api and not number:
        return f"says that it was written for API {api!r}, which is no version", "report it to its author"
    number = number or 1
    if number > API_VERSION:
        return f"was written for API v{number}, and this is v{API_VERSION}", f"pip install --upgrade {_CORE}"
    if number < OLDEST_API_VERSION:
        return f"was written for API v{number}, and this is v{API_VERSION}", "upgrade it, or ask its author to"
    return None


_CORE = "cmdorc-telemetry"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def cmdorc_startup(session: Session) -> None:
    """An orchestrator was instrumented. Called once for each, on the caller's thread.

    Example: ``def cmdorc_startup(session): log.info("%d commands", session.command_count)``
    """


@hookspec
def cmdorc_completed(run: CompletedRun) -> None:
    """A run reached a final state: once for every run, with its last state. Caller's thread.

    Runs abandoned at shutdown come once with ``run.final`` False.

    Example: ``def cmdorc_completed(run): log.info("%s: %s", run.command_name, run.state)``
    """


@hookspec
def cmdorc_trigger(trigger: Trigger) -> None:
    """A trigger event was handled, whatever came of it (see ``trigger.outcome``). Caller's thread."""


@hookspec
def cmdorc_chain(chain: Chain) -> None:
    """A chain of triggers started its first run, or is over: called twice for each, on the caller's thread.

    A chain is one trigger event and all that cmdorc starts because of it. It is over when its last run has ended and no
    trigger that it led to is still being handled: ``chain.outcome`` then says how. Runs name theirs in ``run.chain``.
    A chain that starts no run is none. Chains are followed only where some plugin has this hook.

    Example: ``def cmdorc_chain(chain): log.info("%s: %s", chain.trigger, chain.outcome or "began")``
    """


@hookspec
def cmdorc_shutdown(session: Session) -> None:
    """An orchestrator was shut down. Called once for each, on the caller's thread, after its last run."""


@hookspec
def telemetry_specs() -> Sequence[TelemetrySpec]:  # type: ignore[empty-body]
    """The specs that this plugin's own events belong to. Called once, and the caller waits for it: no event can be
    captured before it is known which there are.

    An event that two specs declare is an error that names both.
    """


@hookspec
def telemetry_configure(setup: Setup) -> None:
    """Called with this plugin's own settings before anything is imported from the journal, so before any event is
    anonymized; again in a forked child, and wherever the stages are put together anew. Reporters and detectors get
    theirs when they are made.

    What it raises, such as the ConfigError of ``setup.read``, takes the plugin out. It may have been an anonymizer:
    nothing is shared until that is mended.

    Example: ``def telemetry_configure(self, setup): self.settings = setup.read(Settings)``
    """


@hookspec
def telemetry_reporters() -> Sequence[type[TelemetryReporter]]:  # type: ignore[empty-body]
    """The reporter classes of this plugin. Called once, at start. Each has a ``Settings`` Struct."""


@hookspec
def telemetry_anonymize(event: Event) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Narrow what would be shared of one event. Called in the gate, which waits for a second at most.

    Return replacements for fields that the event has; None as a value removes the field. A value that the spec does
    not allow withholds its field, and a new field is ignored; both are reported. Where ``event_id``, ``timestamp`` or
    ``anonymous_install_id`` goes that way, or every field of the event's own, nothing of the event is shared; neither
    is where the hook raises, returns no mapping, or takes longer than a second. The plugin is named in each case.
    ``event_id`` may be replaced: events that are given the same id count as one.

    Several run one after the other, in the order of ``plugins`` in the user's configuration (``tryfirst`` and
    ``trylast`` come before and after): each sees what the one before left.

    Example: ``def telemetry_anonymize(event): return {"python_version": None}``
    """


@hookspec
def telemetry_detectors() -> Sequence[type[Detector]]:  # type: ignore[empty-body]
    """The detector classes of this plugin. Called once, at start. Each has a ``Settings`` Struct, the keys of
    ``[telemetry.settings.NAME]``, and is a private destination, ``detector-NAME``."""


@hookspec
def telemetry_anomaly(anomaly: Anomaly) -> None:
    """A detector raised an alert whose actions have ``alert``. Called once an episode, on the detector's thread; again,
    where the process was killed meanwhile.

    Example: ``def telemetry_anomaly(anomaly): subprocess.run(["notify-send", anomaly.message])``
    """
