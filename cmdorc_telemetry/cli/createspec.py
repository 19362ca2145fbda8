"""``create-spec``: a telemetry spec from questions, from a file of answers, or proposed from observed events."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, TelemetryError
from .specs import today
from .wording import command_line, plural

if TYPE_CHECKING:
    from ..spec import TelemetrySpec
    from .screen import Screen

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("create-spec")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write it. Default: NAME.telemetry.toml in this directory.")  # fmt: skip
@click.option("--from", "events", type=_FILE, metavar="EVENTS.jsonl",
              help="Propose the types and bounds of observed events, and none of their values.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the spec that is proposed. Default: that of the file.")
@click.option("--answers", type=_FILE, metavar="FILE",
              help="A TOML file with the answers, in the shape of a spec: asks nothing.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def create_spec(output: Path | None, events: Path | None, name: str | None, answers: Path | None, force: bool) -> None:
    """Ask for a telemetry spec, and write it as TOML with comments."""
    from ..wizard.draft import commented, spec_of
    from .screen import Screen

    if events is not None and answers is not None:
        raise click.UsageError("--from and --answers contradict each other.")
    if name is not None and events is None:
        raise click.UsageError("--name goes with --from.")
    screen = Screen(err=True)
    if output is not None and (fault := _taken(output, force=force)):
        raise ConfigError("--output", "", *fault)
    notes: dict[str, str] = {}
    if events is not None:
        spec, notes = _proposed(events, name, screen)
    elif answers is not None:
        spec = spec_of(_read(answers))
    else:
        spec = spec_of(_asked(screen, output, force=force))
    path = output or _place(spec.meta.name)
    _write(path, commented(spec, notes, check=command_line("spec", "lint")), force=force)
    click.echo(path)
    _tell(screen, spec, path)


def _place(name: str) -> Path:
    return Path(f"{name}.telemetry.toml")


def _taken(path: Path, *, force: bool) -> tuple[str, str] | None:
    """Why a spec cannot be written to ``path``, and what would be right; None where it can be."""
    if not force and os.path.lexists(path):
        return f"{path} is there already; nothing was written", "another name, or --force"
    if path.suffix == ".json":
        named = f"one such as {path.with_suffix('')}.telemetry.toml"
        return f"{path} is called like JSON, and TOML is written; nothing was", named
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}; nothing was written", "one that is there"
    return None


def _read(path: Path) -> dict[str, Any]:
    from ..config import read_table
    from ..wizard.answers import completed

    return completed(read_table(path), path)


def _proposed(path: Path, name: str | None, screen: Screen) -> tuple[TelemetrySpec, dict[str, str]]:
    from ..spec.inference import propose
    from ..wizard.checks import is_word

    if name is None:
        name = re.sub(r"[^A-Za-z0-9.]+", "_", path.stem).strip("._")[:100] or "events"
    if fault := is_word(name):
        raise ConfigError("--name", "", fault)
    with path.open("rb") as lines:
        proposal = propose(lines, name, path)
    skipped = f", {plural(proposal.skipped, 'other line')} left out" if proposal.skipped else ""
    screen.line(f"{plural(proposal.events, 'event')} read{skipped}. Types and bounds were kept, and no values.")
    return proposal.spec, proposal.notes


def _asked(screen: Screen, output: Path | None, *, force: bool) -> dict[str, Any]:
    """The answers of a person, who has seen them together and agreed."""
    from .offer import can_ask

    if not can_ask():
        raise ConfigError("create-spec", "", "there is no terminal to ask on; nothing was written", "--answers FILE")
    try:
        from ..wizard.asking import Terminal, converse
    except ModuleNotFoundError as fault:
        missing = f"{fault.name} is not installed, which asking takes"
        raise TelemetryError(f"{missing}: pip install 'cmdorc-telemetry[wizard]', or use --answers FILE") from None

    def is_free(name: str) -> str:
        fault = _taken(output or _place(name), force=force)
        return "; expected ".join(fault) if fault else ""

    try:
        terminal = Terminal(screen.line, screen.console.width)
        return converse(terminal, lambda given: _summary(screen, given), {"meta.name": is_free})
    except (KeyboardInterrupt, EOFError):
        screen.line()
        screen.line("Nothing was written.")
        click.get_current_context().exit(1)


def _summary(screen: Screen, given: dict[str, Any]) -> None:
    """What comes of the answers, and what the lint has to say of it."""
    from ..spec.outputs import values
    from ..wizard.draft import spec_of

    spec = spec_of(given)
    screen.line()
    screen.line((spec.meta.title, "bold"), f"  {spec.ref}, {', '.join(spec.meta.owners)}")
    for event in spec.events:
        days, share = spec.retention_days(event), spec.sampling_rate(event)
        screen.line()
        screen.line((event.name, "bold"), f"  {event.semantics.what}")
        screen.line(f"  {100 * share:g} % are sent, kept for {plural(days, 'day')}", (", watched", "") if
                    event.anomaly_detection else "")  # fmt: skip
        screen.labelled([(f"  {name}", f"{values(prop)}, {prop.level}{', masked' if event.masks(name) else ''}")
                         for name, prop in event.properties.items()])  # fmt: skip
    _findings(screen, spec)
    screen.line()


def _write(path: Path, text: str, *, force: bool) -> None:
    """All of the file, or none of it. Raises ConfigError, StorageError."""
    from .. import files

    try:
        files.publish(path, text.encode(), force=force)
    except FileExistsError:
        raise ConfigError(path, "", "is there already; nothing was written", "another --output, or --force") from None


def _findings(screen: Screen, spec: TelemetrySpec) -> None:
    from ..spec.lint import lint

    found = [each for each in lint(spec, today()) if not each.waived]
    if found:
        screen.line()
    for finding in found:
        screen.line((f"{finding.severity}: ", "yellow"), f"{finding.at} {finding.message}")


def _tell(screen: Screen, spec: TelemetrySpec, path: Path) -> None:
    _findings(screen, spec)
    screen.line()
    screen.labelled([("Check", command_line("spec", "lint", str(path))), ("Export", command_line("spec", "export",
                     str(path), "--format", "json-schema"))])  # fmt: skip
