"""Finds plugins, loads those that were named, and calls them so that none can hurt the host or each other.

pluggy checks names and arguments of hooks; it isolates nothing, so the calls are made here, one
implementation at a time.
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pluggy
from pluggy import PluginManager

from . import hookspecs
from .anonymizers import Anonymizer
from .application import CMDORC, Application
from .config import Layer, is_built_in
from .decoding import unreadable
from .detector import Detector
from .discovery import Installed, installed, remedy
from .errors import ConfigError, PluginError, nearest, told
from .forks import signals
from .home import Home
from .isolation import Isolation
from .listeners import Listener, TimedListener, caught, function_of
from .reporter import TelemetryReporter
from .spec import SpecFile, TelemetryRegistry, TelemetrySpec
from .types import Anomaly, Setup

log = logging.getLogger(hookspecs.PROJECT)

_HOOKS = ("cmdorc_", "telemetry_")
"""How the names of hooks begin."""
_REFUSED = re.compile(r"for hook '(\w+)'")
"""In what pluggy says of a hookimpl with arguments that its hook has not."""


def _listed(function: Callable[[], Any]) -> list[Any]:
    return list(function())  # what it gives is code of somebody else, too


class PluginHost:
    """The plugins of one process: those named in the user's configuration, and objects given by code."""

    def __init__(
        self,
        enabled: Sequence[str] = (),
        objects: Sequence[object] = (),
        *,
        known: Iterable[Installed] | None = None,
        destinations: Iterable[str] = (),
        cache: Path | None = None,
    ) -> None:
        """``cache``: the file in which it is remembered what is installed."""
        self.unloaded: set[str] = set()
        """Enabled plugins that could not be loaded: whatever they were for, they do not do it."""
        self.failures: dict[str, str] = {}
        """Plugin → what is wrong with it, and the fix."""
        self.slow: Counter[str] = Counter()
        """Plugin → calls of its lifecycle hooks that took too long."""
        self._origins: dict[str, str] = {}
        self._isolation = Isolation()
        self._manager = PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._trusted: set[str] = set()
        self._points = None if known is None else list(known)
        points = self._installed(cache) if enabled else []
        expected = set(destinations)
        for point in points:
            if point.name not in enabled:
                self._manager.set_blocked(point.name)
        for name, times in Counter(enabled).items():
            self.unloaded.add(name)
            self._load(name, [point for point in points if point.name == name], points, expected)
            if times > 1:
                self.fail(name, f"is named {times} times in plugins", "name it once")
        for number, plugin in enumerate(objects):
            name = getattr(plugin, "__name__", None) or type(plugin).__name__
            self.add(plugin, f"{name}-{number}" if self._manager.has_plugin(name) else name)

    def _installed(self, cache: Path | None) -> list[Installed]:
        """Every plugin that is installed: looked for once, where anybody asks."""
        if self._points is None:
            self._points = installed(cache)
        return self._points

    def _load(self, name: str, found: Sequence[Installed], points: Sequence[Installed], destinations: set[str]) -> None:
        if not found:
            if name not in destinations:
                self.fail(name, "is not installed", remedy(name, {point.name for point in points}, "plugins"))
            return
        if len(found) > 1:
            owners = ", ".join(str(point) for point in found)
            self.fail(name, f"is offered twice: {owners}", "uninstall one of them")
            return
        self._origins[name] = found[0].origin
        if (refused := hookspecs.incompatible(found[0].api)) is not None:
            self.fail(name, *refused)
            return
        try:
            plugin = found[0].load()
            plugin = plugin() if isinstance(plugin, type) else plugin  # with a state of its own
        except BaseException as fault:
            if not caught(fault):
                raise
            self.fail(name, f"cannot be imported: {type(fault).__name__}: {fault}", "reinstall or upgrade it")
            return
        self.add(plugin, name)

    def add(self, plugin: object, name: str, *, trusted: bool = False) -> None:
        """Register a plugin object. One that breaks the rules of the hooks is reported and left out."""
        self._manager.unblock(name)
        if self._manager.is_registered(plugin) or self._manager.has_plugin(name):
            self.fail(name, "is there already", "give it once")
            return
        try:
            self._manager.register(plugin, name)
            self._check(name)
            for what in self.deprecated(name):
                warnings.warn(f"plugin {name!r} {what}", DeprecationWarning, stacklevel=2)
        except BaseException as fault:
            if not caught(fault):
                raise
            self._manager.unregister(name=name)
            self.fail(name, f"breaks the hook rules: {self._explained(fault)}", "correct the hookimpl")
            return
        self.unloaded.discard(name)
        if trusted:
            self._trusted.add(name)

    def _check(self, name: str) -> None:
        """What pluggy allows and this host does not. Raises PluginError."""
        hooks = self.hooks_of(name)
        if not hooks:
            raise PluginError("it has no function that is marked @hookimpl")
        for hook in hooks:
            for owner, impl in self._impls(hook):
                if owner == name and not (impl.optionalhook or getattr(self._manager.hook, hook).has_spec()):
                    close = nearest(hook, (each for each in vars(hookspecs) if each.startswith(_HOOKS)))
                    raise PluginError(f"there is no hook {hook!r}" + (f": did you mean {close!r}?" if close else ""))
                if owner == name and (impl.wrapper or impl.hookwrapper or inspect.iscoroutinefunction(impl.function)):
                    raise PluginError(f"{hook} is async or a wrapper; hooks are plain functions here")

    def _explained(self, fault: BaseException) -> str:
        """What a hookimpl is refused for; where it is an argument, with those that its hook has."""
        what = " ".join(str(fault).split())
        hook = _REFUSED.search(what)
        spec = getattr(self._manager.hook, hook[1]).spec if hook else None
        return f"{what}; expected {' or '.join(spec.argnames) or 'no argument'}" if spec else what

    def fail(self, name: str, what: str, fix: str, *, logged: str | None = None) -> None:
        """Remember and report a plugin's failure, once. ``logged``: what a log may say, where that is less."""
        if name not in self.failures:
            origin = f" [{self._origins[name]}]" if name in self._origins else ""
            self.failures[name] = f"{what}{origin} ({fix})"
            log.warning("plugin %r %s%s. Fix: %s", name, what if logged is None else logged, origin, fix)

    def names(self) -> list[str]:
        """The plugins that are registered."""
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def _impls(self, hook: str) -> list[tuple[str, pluggy.HookImpl]]:
        """In the order in which they registered; those marked ``tryfirst`` before, ``trylast`` after all others."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        impls = sorted(caller.get_hookimpls(), key=lambda impl: impl.trylast - impl.tryfirst)
        return [(impl.plugin_name, impl) for impl in impls]

    def hooks_of(self, name: str) -> list[str]:
        """The hooks that a registered plugin implements."""
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
        return sorted(caller.name for caller in callers)

    def deprecated(self, name: str) -> list[str]:
        """What a registered plugin uses that will be gone, and what to use instead."""
        used = [each for hook in self.hooks_of(name) for owner, impl in self._impls(hook) if owner == name
                for each in (hook, *(f"{hook}({argument})" for argument in impl.argnames))]  # fmt: skip
        return [f"uses {each}, which is deprecated since {hookspecs.DEPRECATED[each].since}: use "
                f"{hookspecs.DEPRECATED[each].instead}" for each in used if each in hookspecs.DEPRECATED]  # fmt: skip

    def listeners(self, hook: str) -> tuple[Listener, ...]:
        """The lifecycle hookimpls of ``hook``: first those that are trusted, so that what one of the others does cannot
        keep anything from being recorded; else in the order in which they registered."""
        impls = sorted(self._impls(hook), key=lambda each: each[0] not in self._trusted)
        return tuple((Listener if name in self._trusted else TimedListener)(self, name, impl) for name, impl in impls)

    def reporters(self) -> dict[str, type[TelemetryReporter]]:
        """Reporter classes by the name that a destination refers to."""
        return self._classes("telemetry_reporters", TelemetryReporter)

    def detectors(self) -> dict[str, type[Detector]]:
        """Detector classes by name."""
        return self._classes("telemetry_detectors", Detector)

    def configure(self, user: Layer, home: Home, specs: Iterable[TelemetrySpec], kind: type[Setup] = Setup) -> None:
        """Give each plugin its own settings. One that cannot use them is out."""
        for name, impl in self._impls("telemetry_configure"):
            setup = kind(name=name, settings=user.settings.get(name, {}), where=str(user.source or ""),
                         folder=home.plugins / name, specs=tuple(specs))  # fmt: skip
            try:
                self._isolation.ask(name, "telemetry_configure", partial(function_of(impl), setup))
            except PluginError as fault:
                cause = fault.__cause__
                if isinstance(cause, ConfigError):
                    self.fail(name, f"cannot be configured: {cause}", "correct its settings")
                else:
                    self._failed(name, "telemetry_configure", fault)
                self._manager.unregister(name=name)
                self.unloaded.add(name)
        self._claim(user, home)

    def _claim(self, user: Layer, home: Home) -> None:
        """A table of settings that is nobody's: whose it was meant to be does without, and may be an anonymizer."""
        if left := set(user.settings) - set(self.names()):
            there = {*self.detectors(), *(point.name for point in self._installed(home.discovered))}
            for name in sorted(left - there):
                fix = remedy(name, there, f"telemetry.settings.{name} in {user.source}")
                self.fail(name, "has settings, and is not installed", fix)
                self.unloaded.add(name)

    def _classes(self, hook: str, base: type[Any]) -> dict[str, type[Any]]:
        classes: dict[str, type[Any]] = {}
        for name, offered in self._offers(hook):
            for each in offered:
                if not (isinstance(each, type) and issubclass(each, base)):
                    self.fail(name, f"{hook} returned {each!r}", f"return subclasses of {base.__name__}",
                              logged=f"{hook} returned a {type(each).__name__}")  # fmt: skip
                elif (fault := unreadable(cast("Any", each).Settings)) is not None:
                    self.fail(name, f"{hook} returned {each!r}, whose Settings cannot be read: {fault}",
                              "make Settings a msgspec Struct with fields of plain types")  # fmt: skip
                elif is_built_in(key := getattr(each, "name", None) or name) and base is TelemetryReporter:
                    self.fail(name, f"offers {key!r}, which is the name of something that is built in",
                              "give it another name")  # fmt: skip
                elif key in classes:
                    self.fail(name, f"offers {key!r}, which another plugin offers already", "enable only one of them")
                else:
                    classes[key] = each
        return classes

    def specs(self) -> list[tuple[str, TelemetrySpec]]:
        """The specs that plugins bring, with the plugin's name."""
        specs = []
        for name, offered in self._offers("telemetry_specs"):
            for spec in offered:
                if isinstance(spec, TelemetrySpec):
                    specs.append((name, spec))
                else:
                    self.fail(name, f"telemetry_specs returned {spec!r}", "return objects of TelemetrySpec",
                              logged=f"telemetry_specs returned a {type(spec).__name__}")  # fmt: skip
        return specs

    def registry(
        self, application: Application = CMDORC, named: Iterable[SpecFile] = (), added: Iterable[SpecFile] = ()
    ) -> TelemetryRegistry:
        """The application's own specs, those in the ``named`` files, those that plugins bring, and what ``added`` files
        add to them.

        Raises SpecError for the application's own, and for a named file. A conflict is its plugin's failure; an added
        file that conflicts, or is broken, is left out.
        """
        registry = TelemetryRegistry.of(application.specs, application.name)
        registry.read(named)
        for name, spec in self.specs():
            try:
                registry.register(spec, name)
            except ConfigError as fault:
                self.fail(name, str(fault), "report it to its author")
        registry.seal()
        registry.try_reading(added)
        for what in registry.refused:
            log.warning("%s", what)
        return registry

    def _offers(self, hook: str) -> list[tuple[str, list[Any]]]:
        offers = []
        for name, impl in self._impls(hook):
            try:
                offers.append(
                    (name, self._isolation.ask(name, hook, partial(_listed, cast(Callable[[], Any], impl.function))))
                )
            except PluginError as fault:
                self._failed(name, hook, fault)
        return offers

    def announce(self, anomaly: Anomaly) -> None:
        """Tell every plugin of an alert."""
        hook = "telemetry_anomaly"
        with signals(blocked=False):  # a plugin may start a process, which should be ended as any other
            for name, impl in self._impls(hook):
                try:
                    self._isolation.ask(name, hook, partial(function_of(impl), anomaly))
                except PluginError as fault:
                    self._failed(name, hook, fault)

    def _failed(self, name: str, hook: str, fault: PluginError) -> None:
        cause = fault.__cause__
        self.fail(name, f"{hook} {fault}", "report it to its author",
                  logged=None if cause is None else f"{hook} raised {told(cause)}")  # fmt: skip

    def anonymizers(self) -> list[Anonymizer]:
        """The anonymizers, each with its plugin's name, in the order in which they run.

        That is the order of the user's ``plugins``, then of those given by code. One that is named but could not be
        loaded is among the failures.
        """
        return [Anonymizer(name, function_of(impl), self.fail) for name, impl in self._impls("telemetry_anonymize")]
