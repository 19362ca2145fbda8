"""``plugins``, ``enable``, ``disable``: what is installed, what of it is used, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..config import load_layer
from ..errors import ConfigError, nearest
from ..home import Home
from .machine import Machine, log
from .wording import application, command_line, place, plural

if TYPE_CHECKING:
    from .inventory import Plugin, Setting
    from .screen import Cell, Screen


@click.command(short_help="Show plugins, their settings and what they hook into.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def plugins(as_json: bool) -> None:
    """Show plugins: enabled or not, what they hook into, their destinations and settings."""
    from .inventory import inventory

    found = inventory(Machine())
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        from .screen import Screen

        _show(Screen(), found)


def _show(screen: Screen, found: list[Plugin]) -> None:
    enabled = sum(each.state == "enabled" for each in found)
    there = sum(each.state != "not-installed" for each in found)
    screen.line((f"{plural(there, 'plugin')} installed, {enabled} enabled.", "bold"))
    for each in found:
        screen.line()
        state = {"installed": "not enabled", "not-installed": "not installed"}.get(each.state, each.state)
        colour = {"enabled": "cyan", "installed": ""}.get(each.state, "yellow")
        screen.line((each.name, "bold"), "  ", (state, colour), f"  {each.distribution} {each.version}".rstrip())
        if each.error:
            screen.line("  ", ("! ", "yellow"), each.error)
        for what in each.deprecated:
            screen.line("  ", ("! ", "yellow"), what)
        if each.fix:
            screen.line("  ", command_line("enable", each.name) if each.fix == each.name else each.fix)
        rows: list[tuple[str, Cell]] = [("Hooks", _hooks(each.hooks))] if each.hooks else []
        for used in each.destinations:
            rows.append((f"To {used.name}", f"{used.audience}, {place(used.target) or 'here'}"))
            rows.extend([("  !", (used.error, "yellow"))] if used.error else ())
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
    from ..discovery import installed
    from ..plugins import PluginHost
    from .inventory import trouble
    from .userfile import edit, listing

    points = installed()
    there = sorted({point.name for point in points})
    if name not in there:
        raise ConfigError("plugin", name, "is not installed", f"one of {', '.join(there) or 'none: nothing is'}",
                          nearest=nearest(name, there))  # fmt: skip
    what, fix = trouble(next(point for point in points if point.name == name), points)
    if what:
        raise ConfigError("plugin", name, what, fix)
    home = Home.of(application())
    known = name in load_layer(home.config).plugins
    if not known:
        edit(home.config, listing(name, enabled=True))
    click.echo(f"{name} {'was enabled already' if known else 'is enabled'} in {place(home.config)}.")
    _other_file(home)
    PluginHost([name], known=points)  # warns where it is broken
    click.echo("It shares nothing that you did not agree to. Its settings:")
    click.echo(f"  {command_line('plugins')}")


def _other_file(home: Home) -> None:
    """Say so where another file than the user's own is in force."""
    used = Machine().situation.user.source
    if used != home.config:
        log.warning("an operator's file is in force, whose plugins count: %s", place(str(used)))


@click.command(short_help="Disable a plugin.")
@click.argument("name")
def disable(name: str) -> None:
    """Disable a plugin: take NAME out of plugins in your config.toml."""
    from .userfile import edit, listing

    home = Home.of(application())
    enabled = load_layer(home.config).plugins
    if name not in enabled:
        raise ConfigError("plugin", name, "is not enabled", f"one of {', '.join(enabled) or 'none: nothing is'}",
                          nearest=nearest(name, enabled))  # fmt: skip
    edit(home.config, listing(name, enabled=False))
    click.echo(f"{name} is disabled in {place(home.config)}.")
    _other_file(home)
