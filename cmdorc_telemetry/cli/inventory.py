"""What ``plugins`` tells, as data: every plugin that is installed or asked for, and its settings. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import NODEFAULT, Struct, field

from ..discovery import Installed, installed
from ..plugins import PluginHost
from .machine import Machine, target
from .wording import address

_SECRET = ("token", "key", "secret", "password")


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


class Plugin(Struct, kw_only=True):
    """One plugin."""

    name: str
    version: str = ""
    distribution: str = ""
    state: Literal["enabled", "installed", "broken", "not-installed"]
    error: str = ""
    fix: str = ""
    """The name that ``enable`` takes, or a line to copy."""
    hooks: list[str] = field(default_factory=list)
    destinations: list[Used] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    """Of a plugin that is no destination, or of a reporter that no destination uses yet."""


def inventory(machine: Machine) -> list[Plugin]:
    """Every plugin that is installed, enabled, or what a destination needs, by name."""
    points = installed()
    user = machine.situation.user
    asked = [*user.plugins, *(to.plugin for to in machine.pipeline.configured)]
    there = {point.name for point in points}
    found = [_installed(machine, point, points) for point in points]
    for name in dict.fromkeys(name for name in asked if name not in there):
        error = machine.host.failures.get(name, "is not installed")
        fix = f"pip install cmdorc-telemetry-{name}"
        used = _destinations(machine, name, None)
        found.append(Plugin(name=name, state="not-installed", error=error, fix=fix, destinations=used))
    return sorted(found, key=lambda each: each.name)


def _installed(machine: Machine, point: Installed, points: list[Installed]) -> Plugin:
    host, name = machine.host, point.name
    plugin = Plugin(name=name, version=point.version, distribution=point.distribution, state="installed")
    if name not in machine.situation.user.plugins:
        plugin.fix, plugin.destinations = name, _destinations(machine, name, None)
        return plugin
    plugin.error = host.failures.get(name, "")
    if name not in host.names():
        plugin.state = "broken"
        return plugin
    plugin.state, plugin.hooks = "enabled", host.hooks_of(name)
    alone = PluginHost([name], known=points)  # loaded already: asked for what is its own
    classes: dict[str, Any] = {**alone.reporters(), **alone.detectors()}
    plugin.destinations = [each for key, class_ in classes.items() for each in _destinations(machine, key, class_)]
    written = machine.situation.user.settings.get(name, {})
    if written or not plugin.destinations:
        source = f"{machine.situation.user.source} telemetry.settings.{name}"
        plugin.settings = [
            each for class_ in (*classes.values(), None)[:1] for each in _settings(class_, written, source)
        ]
    return plugin


def _destinations(machine: Machine, reporter: str, class_: Any) -> list[Used]:
    return [
        Used(to.name, target(to), to.audience, _settings(class_, to.settings, f"{to.where} telemetry.to.{to.name}"))
        for to in machine.pipeline.configured if to.plugin == reporter
    ]  # fmt: skip


def _settings(class_: Any, written: Mapping[str, Any], source: str) -> list[Setting]:
    """The keys of ``class_`` that are not written, too; unknown where there is no class."""
    settings = [_written(key, value, source) for key, value in written.items()]
    known = {each.name for each in settings}
    fields = msgspec.structs.fields(class_.Settings) if class_ is not None else ()
    return settings + [_default(each) for each in fields if each.encode_name not in known]


def _written(key: str, value: Any, source: str) -> Setting:
    if key.endswith("_env"):
        return Setting(key.removesuffix("_env"), f"${value}", "environment")
    hidden = any(word in key.lower() for word in _SECRET)
    return Setting(key, "(hidden)" if hidden else address(_json(value)), source)


def _default(each: Any) -> Setting:
    if each.default is not NODEFAULT:
        return Setting(each.encode_name, _json(each.default), "default")
    if each.default_factory is not NODEFAULT:
        return Setting(each.encode_name, _json(each.default_factory()), "default")
    return Setting(each.encode_name, "", "required, not set")


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
