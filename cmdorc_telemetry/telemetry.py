"""The composition root: the only file that knows the order of the stages, from a program's events to their delivery.

    instrument or track → capture → journal → pipeline (gate → spool → delivery → destinations)

Cheap to import and to start while telemetry is off: the stages are imported when something is to be recorded.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import NoHome, TelemetryError
from .situation import Situation

if TYPE_CHECKING:
    from .argument import TelemetryConfig
    from .pipeline import Pipeline
    from .plugins import Listener, PluginHost
    from .recorder import Recorder
    from .reporter import TelemetryReporter

log = logging.getLogger("cmdorc_telemetry")

HOOKS = ("cmdorc_startup", "cmdorc_completed", "cmdorc_trigger", "cmdorc_shutdown")


class Telemetry:
    """What a program has: it fires hooks, tracks events, flushes and closes. No method raises or waits."""

    _finalizing = staticmethod(sys.is_finalizing)
    """Kept here for finalizers that come when Python has emptied the modules: too late, but no reason to fail."""

    def __init__(self) -> None:
        self.failures: Mapping[str, str] = {}
        """Plugins that cannot be used → why, and the fix."""
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._recorder: Recorder | None = None

    @classmethod
    def off(cls) -> Telemetry:
        """One that does nothing."""
        return cls()

    @classmethod
    def start(
        cls,
        *,
        config: TelemetryConfig | None = None,
        plugins: Sequence[object] = (),
        reporter: TelemetryReporter | None = None,
        cmdorc_version: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Telemetry:
        """Read the decision and the configuration, and start what they ask for.

        ``config`` can only lower what the user decided. ``plugins`` are plugin objects beside those that the user
        enabled; ``reporter`` gets shared bodies, as long as this process lives. Whatever is wrong with the
        environment is logged, and leaves telemetry off.
        """
        telemetry, environ = cls(), os.environ if environ is None else environ
        try:
            situation = Situation.read(environ, config=config)
            policy = situation.policy()
            if policy.trouble:
                log.warning("%s", policy.trouble)
            if not (policy.record or situation.user.plugins or plugins):
                return telemetry
            telemetry._assemble(situation, plugins, reporter, cmdorc_version)
        except (TelemetryError, OSError, ImportError) as fault:  # some of what is needed is not to be had everywhere
            # Where there is no home nobody can have decided: that is no news, unless an operator did.
            asked = not isinstance(fault, NoHome) or "CMDORC_TELEMETRY" in environ
            log.log(logging.WARNING if asked else logging.DEBUG, "telemetry is off: %s", fault)
            telemetry._assemble_plugins(plugins)
        return telemetry

    def _assemble_plugins(self, plugins: Sequence[object]) -> None:
        """What a program's own plugins are due when nothing else can be had."""
        if plugins:
            from .plugins import PluginHost

            self._listen(PluginHost(objects=plugins))

    def _assemble(
        self, situation: Situation, plugins: Sequence[object], reporter: TelemetryReporter | None, version: str
    ) -> None:
        from .plugins import PluginHost

        user = situation.user
        destinations = [to.plugin for to in user.destinations]
        record = situation.policy().record
        cache = situation.home.discovered if record else None  # off: nothing is written or read there
        host = PluginHost(user.plugins, plugins, destinations=destinations, cache=cache)
        try:
            if record:
                from .recorder import Recorder

                self._recorder = Recorder(situation, host, {"cmdorc_version": version} if version else {}, reporter)
                host.add(self._recorder.collector, "telemetry", trusted=True)
        except TelemetryError as fault:
            log.warning("telemetry is off: %s", fault)
        self._listen(host)

    def _listen(self, host: PluginHost) -> None:
        self.failures = host.failures
        self._listeners = {hook: found for hook in HOOKS if (found := host.listeners(hook))}

    @property
    def listening(self) -> bool:
        """Whether anything would hear a lifecycle hook."""
        return bool(self._listeners)

    @property
    def recording(self) -> bool:
        """Whether events are recorded."""
        return self._recorder is not None

    @property
    def pipeline(self) -> Pipeline | None:
        """The stages behind the journal; None while nothing is recorded."""
        return None if self._recorder is None else self._recorder.pipeline

    def fire(self, hook: str, record: object) -> None:
        """Call every listener of a lifecycle hook, here and now; what one raises is kept from the others."""
        for listener in self._listeners.get(hook, ()):
            try:
                listener(record)
            except Exception:
                if not self._finalizing():
                    raise

    def track(self, event: str, properties: Mapping[str, Any]) -> bool:
        """Record an event that a spec declares. Whether it was recorded: False also while telemetry is off."""
        try:
            return self._recorder is not None and self._recorder.track(event, properties)
        except Exception:
            if not self._finalizing():
                raise
            return False

    def flush(self, timeout: float = 5.0) -> bool:
        """Import and send all there is. Whether nothing waits any more. Blocks up to ``timeout`` seconds."""
        return self._recorder is None or self._recorder.flush(timeout)

    def close(self) -> None:
        """End delivery; one under way gets at most 50 ms. What is left is sent by the next process."""
        if self._recorder is not None:
            self._recorder.close()

    async def aclose(self) -> None:
        """Like ``close``, without holding up the event loop."""
        if self._recorder is not None:
            await self._recorder.aclose()
