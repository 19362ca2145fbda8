"""What ``plugins`` tells, as data: every plugin that is installed or asked for, and its settings. Writes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, Struct, field

from .. import hookspecs
from ..config import ADDRESS, DETECTOR, DestinationConfig
from ..decoding import decode, secrets
from ..discovery import Installed, installed, remedy
from ..errors import ConfigError
from ..plugins import PluginHost
from ..types import Setup
from .machine import Machine
from .wording import address

_OF_DESTINATIONS = ("level", "events", "rename", "timeout")
"""Keys of every destination that are shown where they are written."""
_SHORT = {("http", "endpoint"): "endpoint", ("file", "path"): "local_file"}
"""Keys of destinations that may be written shorter."""
_ENVIRONMENT = "environment"
_HIDDEN = "(hidden)"


class Setting(Struct):
    """One key, its value as it would be written, and where that comes from."""

    name: str
    value: str
    source: str


class Used(Struct):
    """One destination of a plugin."""

    name: str
    target: str
    audience: str
    settings: list[Setting]
    error: str = ""
    """What is wrong with its settings."""


class Plugin(Struct, kw_only=True):
    """One plugin."""

    name: str
    version: str = ""
    distribution: str = ""
    state: Literal["enabled", "installed", "broken", "not-installed"]
    enabled_in: str = ""
    """The file that names it; empty where none does."""
    asked_in: str = ""
    """A project's file that names it, which enables nothing; empty where none does, or where it is enabled."""
    error: str = ""
    fix: str = ""
    """The name that ``enable`` takes, or a line to copy."""
    hooks: list[str] = field(default_factory=list)
    """Known of those that are enabled: nothing else is imported."""
    destinations: list[Used] = field(default_factory=list)
    api: str = ""
    """The version of the hooks that it was written for; empty where it does not say."""
    deprecated: list[str] = field(default_factory=list)
    """What it uses that will be gone, and what its author should use instead."""
    settings: list[Setting] = field(default_factory=list)
    """Of a plugin that is no destination, or of a reporter that no destination uses yet."""


def inventory(machine: Machine) -> list[Plugin]:
    """Every plugin that is installed, enabled, or what a destination needs, by name."""
    points = installed()
    user = machine.situation.user
    needed = {to.plugin: f"telemetry.to.{to.name}.plugin in {to.where}" for to in machine.pipeline.configured}
    there = {point.name for point in points}
    found = [_installed(machine, point, points) for point in points]
    for name in dict.fromkeys(name for name in (*user.plugins, *needed, *machine.host.unloaded) if name not in there):
        error = machine.host.failures.get(name, "is not installed")
        written = "plugins" if name in user.plugins else f"telemetry.settings.{name} in {user.source}"
        fix = remedy(name, there, needed.get(name, written))
        used, why = _destinations(machine, name, None), error.removesuffix(f" ({fix})")
        found.append(Plugin(name=name, state="not-installed", error=why, fix=fix, destinations=used,
                            enabled_in=_enabled_in(machine, name)))  # fmt: skip
    return sorted(found, key=lambda each: (each.name, each.distribution))


def _enabled_in(machine: Machine, name: str) -> str:
    user = machine.situation.user
    return str(user.source) if name in user.plugins else ""


def _asked_in(machine: Machine, name: str) -> str:
    project = machine.situation.project
    return str(project.source) if project is not None and name in project.plugins else ""


def trouble(point: Installed, points: list[Installed]) -> tuple[str, str]:
    """Why an installed plugin could not be used if it were enabled, and the fix; empty where nothing is known."""
    twins = [each for each in points if each.name == point.name]
    if len(twins) > 1:
        return f"is offered twice: {', '.join(map(str, twins))}", "uninstall one of them"
    return hookspecs.incompatible(point.api) or ("", "")


def _installed(machine: Machine, point: Installed, points: list[Installed]) -> Plugin:
    host, name = machine.host, point.name
    plugin = Plugin(name=name, version=point.version, distribution=point.distribution, api=point.api, state="installed",
                    enabled_in=_enabled_in(machine, name))  # fmt: skip
    if not plugin.enabled_in:
        plugin.error, plugin.fix = trouble(point, points)
        plugin.asked_in = _asked_in(machine, name)
        plugin.fix = plugin.fix or name
        plugin.destinations = _destinations(machine, name, None)
        return plugin
    plugin.error = host.failures.get(name, "")
    if name not in host.names():
        plugin.state, plugin.destinations = "broken", _destinations(machine, name, None)
        return plugin
    plugin.state, plugin.hooks = "enabled", host.hooks_of(name)
    plugin.deprecated = host.deprecated(name)
    alone = PluginHost([name], known=points)  # loaded already: asked for what is its own
    reporters, detectors = alone.reporters(), alone.detectors()
    plugin.destinations = [each for key, class_ in reporters.items() for each in _destinations(machine, key, class_)]
    plugin.destinations += [_detector(machine, key, class_) for key, class_ in detectors.items()]
    read = [each.Settings for each in detectors.values()] + _read_by(alone, machine)
    user, key = machine.situation.user, f"telemetry.settings.{name}"
    written, source = user.settings.get(name, {}), f"{user.source} {key}"
    if written and not read and "telemetry_configure" not in plugin.hooks:
        instead = "; a destination has its own, [telemetry.to.NAME]" if reporters else ""
        plugin.error = plugin.error or f"reads no settings: {key} in {user.source} means nothing{instead}"
    if not (written or plugin.destinations):
        read = [*(each.Settings for each in reporters.values()), *read]
    plugin.settings = _settings(read[0] if read else None, written, source)
    return plugin


def _detector(machine: Machine, name: str, class_: Any) -> Used:
    user, fault = machine.situation.user, ""
    try:
        decode(dict(user.settings.get(name, {})), class_.Settings, user.source, key=f"telemetry.settings.{name}")
    except ConfigError as wrong:
        fault = str(wrong)
    return Used(f"{DETECTOR}{name}", "", "private", [], fault)


def _read_by(alone: PluginHost, machine: Machine) -> list[Any]:
    """The Structs that a plugin reads its settings as when it is configured: known by having it configured."""
    read: list[Any] = []

    class Asking(Setup, frozen=True, kw_only=True):
        def read(self, type_: type[Any]) -> Any:
            read.append(type_)
            return Setup.read(self, type_)

    alone.configure(machine.situation.user, machine.home, machine.pipeline.registry, Asking)
    return read


def _destinations(machine: Machine, reporter: str, class_: Any) -> list[Used]:
    return [_used(machine, to, class_) for to in machine.pipeline.configured if to.plugin == reporter]


def _used(machine: Machine, to: DestinationConfig, class_: Any) -> Used:
    settings = [*_reserved(to), *_settings(class_.Settings if class_ else None, to.settings, _source(to))]
    fault, hidden = machine.fault(to), secrets(class_.Settings) if class_ else ()
    made = None if fault else machine.settings(to)
    for each in settings:
        if each.source == "default" and each.name not in hidden and hasattr(made, each.name):
            each.value = _json(getattr(made, each.name))  # it may follow from what is written
        short = _SHORT.get((to.name, each.name))
        if each.source == _source(to) and f"telemetry.{short}" in machine.situation.user.keys:
            each.source = f"{to.where} telemetry.{short}"
        if each.source == _ENVIRONMENT and each.value.removeprefix("$") not in machine.situation.environ:
            each.source = f"{_ENVIRONMENT}, not set"
    return Used(to.name, machine.target(to), to.audience, settings, str(fault) if fault else "")


def _source(to: DestinationConfig) -> str:
    return f"{to.where} telemetry.to.{to.name}"


def _reserved(to: DestinationConfig) -> Iterator[Setting]:
    """What is written of the keys that every destination has."""
    for name in _OF_DESTINATIONS:
        value = getattr(to, name)
        if value != to._field_defaults[name]:
            yield Setting(name, _json(value), _source(to))


def _settings(type_: Any, written: Mapping[str, Any], source: str) -> list[Setting]:
    """The keys of ``type_``, also those that are not written. Where it is not known, little is shown of what is."""
    fields = msgspec.structs.fields(type_) if type_ is not None else ()
    shown = {each.encode_name for each in fields} - secrets(type_) if type_ is not None else set(ADDRESS)
    settings = [_written(key, value, source, shown) for key, value in written.items()]
    known = {each.name for each in settings}
    return settings + [_default(each) for each in fields if each.encode_name not in known]


def _written(key: str, value: Any, source: str, shown: Collection[str]) -> Setting:
    """What may be a secret is hidden: so is what nobody knows, and a variable's name that looks like no such name."""
    if key.endswith("_env"):
        named = isinstance(value, str) and value.isupper()
        return Setting(key.removesuffix("_env"), f"${value}" if named else _HIDDEN, _ENVIRONMENT)
    return Setting(key, address(_json(value)) if key in shown else _HIDDEN, source)


def _default(each: Any) -> Setting:
    if each.default is not NODEFAULT:
        return Setting(each.encode_name, _json(each.default), "default")
    if each.default_factory is not NODEFAULT:
        return Setting(each.encode_name, _json(each.default_factory()), "default")
    return Setting(each.encode_name, "", "required, not set")


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
