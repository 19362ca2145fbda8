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

from .application import CMDORC, Application
from .errors import NoHome, TelemetryError
from .results import Result
from .situation import Situation

if TYPE_CHECKING:
    from .argument import TelemetryConfig
    from .listeners import Listener
    from .pipeline import Pipeline
    from .plugins import PluginHost
    from .recorder import Recorder
    from .reporter import TelemetryReporter
    from .results import Witness
    from .spec import TelemetryRegistry, Version

log = logging.getLogger("cmdorc_telemetry")

HOOKS = ("cmdorc_startup", "cmdorc_completed", "cmdorc_trigger", "cmdorc_chain", "cmdorc_shutdown")


_WITHHELD = Result.WITHHELD
"""What all of `track` costs while telemetry is off is to hand this back."""


class Telemetry:
    """What a program has: it fires hooks, tracks events, flushes and closes. No method raises or waits."""

    _finalizing = staticmethod(sys.is_finalizing)
    """Kept here for finalizers that come when Python has emptied the modules: too late, but no reason to fail."""

    def __init__(self) -> None:
        self.failures: Mapping[str, str] = {}
        """Plugins that cannot be used → why, and the fix."""
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._recorder: Recorder | None = None
        self._application = CMDORC
        self._situation: Situation | None = None

    @classmethod
    def off(cls) -> Telemetry:
        """One that does nothing."""
        return cls()

    @classmethod
    def start(
        cls,
        application: Application = CMDORC,
        *,
        config: TelemetryConfig | None = None,
        plugins: Sequence[object] = (),
        reporters: Sequence[TelemetryReporter] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Telemetry:
        """Read the decision and the configuration, and start what they ask for.

        ``application`` is what the user decided on, ``config`` can only lower that. ``plugins`` are plugin objects
        beside those that the user enabled; each of ``reporters`` gets shared bodies, as long as this process lives.
        Whatever is wrong with the environment is logged, and leaves telemetry off.
        """
        telemetry, environ = cls(), os.environ if environ is None else environ
        telemetry._application = application
        try:
            situation = telemetry._situation = Situation.read(environ, application=application, config=config)
            policy = situation.policy()
            if policy.trouble:
                log.warning("%s", policy.trouble)
            if not (policy.record or situation.user.plugins or plugins):
                return telemetry
            telemetry._assemble(situation, plugins, reporters)
        except (TelemetryError, OSError, ImportError) as fault:  # some of what is needed is not to be had everywhere
            # Where there is no home nobody can have decided: that is no news, unless an operator did.
            asked = not isinstance(fault, NoHome) or application.variable in environ
            log.log(logging.WARNING if asked else logging.DEBUG, "telemetry is off: %s", fault)
            telemetry._assemble_plugins(plugins)
        return telemetry

    def _assemble_plugins(self, plugins: Sequence[object]) -> None:
        """What a program's own plugins are due when nothing else can be had."""
        if plugins:
            from .plugins import PluginHost

            self._listen(PluginHost(objects=plugins))

    def _assemble(
        self, situation: Situation, plugins: Sequence[object], reporters: Sequence[TelemetryReporter]
    ) -> None:  # fmt: skip
        from .plugins import PluginHost

        user = situation.user
        destinations = [to.plugin for to in user.destinations]
        record = situation.policy().record
        cache = situation.home.discovered if record else None  # off: nothing is written or read there
        host = PluginHost(user.plugins, plugins, destinations=destinations, cache=cache)
        try:
            if record:
                from .recorder import Recorder

                self._recorder = Recorder(situation, host, reporters)
                if situation.application.is_cmdorc:
                    for name, listener in self._recorder.listeners():
                        host.add(listener, name, trusted=True)
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

    def hears(self, hook: str) -> bool:
        """Whether anything would hear this one."""
        return hook in self._listeners

    @property
    def recording(self) -> bool:
        """Whether events are recorded."""
        return self._recorder is not None

    @property
    def registry(self) -> TelemetryRegistry:
        """The specs that are known here. While nothing is recorded they are read anew. Raises SpecError."""
        if self._recorder is not None:
            return self._recorder.registry
        from .plugins import PluginHost

        return PluginHost().registry(*(self._situation.specs() if self._situation else (self._application,)))

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

    def track(
        self, event: str, properties: Mapping[str, Any], *,
        version: Version | None = None, context: Mapping[str, Any] | None = None, witness: Witness | None = None,
    ) -> Result:  # fmt: skip
        """Record an event that a spec declares, in its latest version where none is named; true where it was recorded.

        ``context`` is what the event was tracked in, of which ``context.NAME`` may be declared. ``witness`` is told
        what is wrong with it; what that raises is raised. A ``TelemetryTracker`` does more, and raises nothing else.
        """
        if self._recorder is None:
            return _WITHHELD
        try:
            return self._recorder.track(event, properties, version=version, context=context, witness=witness)
        except Exception:
            if not self._finalizing():
                raise
            return _WITHHELD

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
