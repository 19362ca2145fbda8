"""``plugins``, ``enable``, ``disable``: what is installed, what of it is used, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..config import load_layer
from ..errors import ConfigError, nearest
from ..home import Home
from .machine import Machine, log, project_layer
from .wording import application, command_line, place, plural

if TYPE_CHECKING:
    from .inventory import Plugin, Setting
    from .screen import Cell, Screen


@click.command(short_help="Show plugins, their settings and what they hook into.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def plugins(as_json: bool) -> None:
    """Show plugins: enabled or not, what they hook into, their destinations and settings."""
    from .inventory import inventory

    found = inventory(Machine(project=project_layer(None)[0]))
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        from .screen import Screen

        _show(Screen(), found)


def _show(screen: Screen, found: list[Plugin]) -> None:
    states = Counter(each.state for each in found)
    unusable = states["broken"] + states["not-installed"]
    there = plural(len(found) - states["not-installed"], "plugin")
    more = f", {unusable} that cannot be used" if unusable else ""
    screen.below(0, (f"{there} installed, {states['enabled']} enabled{more}.", "bold"))
    for each in found:
        screen.line()
        state = {"installed": "not enabled", "not-installed": "not installed"}.get(each.state, each.state)
        colour = {"enabled": "cyan", "installed": ""}.get(each.state, "yellow")
        screen.below(0, (each.name, "bold"), "  ", (state, colour), f"  {each.distribution} {each.version}".rstrip())
        screen.labelled([("  !", what) for what in (each.error, *each.deprecated) if what])
        if each.asked_in:
            screen.labelled([("  !", f"{place(each.asked_in)} asks for it; only your own file enables plugins")])
        if each.fix:
            screen.line("  ", command_line("enable", each.name) if each.fix == each.name else each.fix)
        rows: list[tuple[str, Cell]] = [("Hooks", _hooks(each.hooks))] if each.hooks else []
        for used in each.destinations:
            rows.append((f"To {used.name}", f"{used.audience}, {place(used.target) or 'here'}"))
            rows.extend([("  !", used.error)] if used.error else ())
            rows.extend(map(_row, used.settings))
        rows.extend(map(_row, each.settings))
        screen.labelled([(f"  {label}", value) for label, value in rows])


def _hooks(names: list[str]) -> str:
    """What a plugin hooks into; those that tell of cmdorc's runs are called by no other application."""
    others = not application().is_cmdorc
    return ", ".join(f"{name} (not called here)" if others and name.startswith("cmdorc_") else name for name in names)


def _row(setting: Setting) -> tuple[str, Cell]:
    return f"  {setting.name}", f"{setting.value}  ({place(setting.source)})" if setting.value else setting.source


@click.command(short_help="Enable an installed plugin.")
@click.argument("name")
def enable(name: str) -> None:
    """Enable an installed plugin: put NAME into plugins in your config.toml."""
    from ..discovery import PUBLISHED, installed, remedy
    from ..plugins import PluginHost
    from .inventory import trouble
    from .userfile import edit, listing

    points = installed()
    there = sorted({point.name for point in points})
    if name not in there:
        fix = f" ({remedy(name, there, '')})" if name in PUBLISHED else ""
        raise _not_one_of(name, f"is not installed{fix}", there)
    what, fix = trouble(next(point for point in points if point.name == name), points)
    if what:
        raise ConfigError("plugin", name, f"{what} ({fix})")
    home = Home.of(application())
    known = name in load_layer(home.config).plugins
    broken = PluginHost([name], known=points).unloaded  # warns of what is wrong with it
    if broken and not known:
        raise ConfigError("plugin", name, "was not enabled: while a plugin cannot be loaded, nothing is shared")
    if not known:
        edit(home.config, listing(name, enabled=True))
    click.echo(f"{name} {'was enabled already' if known else 'is enabled'} in {place(home.config)}.")
    _other_file(home)
    with suppress(ConfigError):  # what is broken is said by whatever else is used
        if needs := Machine(own=True).unplaced.get(name):
            click.echo(f"{needs}.")
    click.echo("It shares nothing that you did not agree to. Its settings:")
    click.echo(f"  {command_line('plugins')}")
    _ask_for_specs()


def _not_one_of(name: str, what: str, names: Sequence[str]) -> ConfigError:
    expected = f"one of {', '.join(names)}" if names else "one that is, and none is"
    return ConfigError("plugin", name, what, expected, nearest=nearest(name, names))


def _ask_for_specs() -> None:
    """Say so where there are events now that wait for a yes, such as those that the plugin brings."""
    from .waiting import waiting

    with suppress(ConfigError):  # another of the user's specs is broken: whatever else is used says so
        if names := [spec.meta.name for spec in waiting(Machine(own=True)).specs]:
            click.echo(f"Nothing of {', '.join(names)} is recorded before your yes:")
            click.echo(f"  {command_line('review')}")


def _other_file(home: Home) -> None:
    """Say so where another file than the user's own is in force."""
    used = Machine().situation.user.source
    if used != home.config:
        log.warning("an operator's file is in force, whose plugins count: %s", place(str(used)))


@click.command(short_help="Disable a plugin.")
@click.argument("name")
def disable(name: str) -> None:
    """Disable a plugin: take NAME out of plugins in your config.toml."""
    from ..plugins import PluginHost
    from .userfile import edit, listing

    home = Home.of(application())
    enabled = load_layer(home.config).plugins
    if name not in enabled:
        raise _not_one_of(name, "is not enabled", enabled)
    host = PluginHost([name])
    edit(home.config, listing(name, enabled=False))
    click.echo(f"{name} is disabled in {place(home.config)}.")
    if name in host.names() and "telemetry_anonymize" in host.hooks_of(name):
        log.warning("what happens from now on is shared without what %s did to it", name)
    _other_file(home)
