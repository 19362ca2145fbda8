"""``create-spec``: a telemetry spec from questions, from a file of answers, or proposed from observed events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, TelemetryError
from .offer import can_ask
from .wording import command_line, plural

if TYPE_CHECKING:
    from ..spec import TelemetrySpec
    from .screen import Screen

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("create-spec")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where to write it. Default: NAME.telemetry.toml in this directory.")  # fmt: skip
@click.option("--from", "events", type=_FILE, metavar="EVENTS.jsonl",
              help="Propose types and bounds of observed events, a JSON object a line; no values are kept.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the spec that is proposed. Default: that of the file.")
@click.option("--answers", type=_FILE, metavar="FILE",
              help="A TOML file with the answers, in the shape of the spec: asks nothing.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def create_spec(output: Path | None, events: Path | None, name: str | None, answers: Path | None, force: bool) -> None:
    """Ask for a telemetry spec, question by question, and write it as TOML with comments."""
    from ..wizard.draft import commented, completed, spec_of
    from .screen import Screen

    if events is not None and answers is not None:
        raise click.UsageError("--from and --answers contradict each other.")
    if name is not None and events is None:
        raise click.UsageError("--name goes with --from.")
    screen = Screen(err=True)
    notes: dict[str, str] = {}
    if events is not None:
        spec, notes = _proposed(events, name, screen)
    elif answers is not None:
        spec = spec_of(completed(_table(answers), answers))
    else:
        spec = spec_of(_asked(screen))
    path = output or Path(f"{spec.meta.name}.telemetry.toml")
    _write(path, commented(spec, notes), force=force)
    click.echo(path)
    _tell(screen, spec, path)


def _table(path: Path) -> dict[str, Any]:
    from ..config import read_table

    return dict(read_table(path))


def _proposed(path: Path, name: str | None, screen: Screen) -> tuple[TelemetrySpec, dict[str, str]]:
    from ..spec.inference import propose

    with path.open("rb") as lines:
        proposal = propose(lines, name or path.stem.partition(".")[0], path)
    skipped = f", {plural(proposal.skipped, 'other line')} left out" if proposal.skipped else ""
    screen.line(f"{plural(proposal.events, 'event')} read{skipped}. Types and bounds were kept, and no values.")
    return proposal.spec, proposal.notes


def _asked(screen: Screen) -> dict[str, Any]:
    """The answers of a person, who has seen them together and agreed."""
    if not can_ask():
        raise ConfigError("create-spec", "", "there is no terminal to ask on; nothing was written", "--answers FILE")
    try:
        from ..wizard.asking import converse
    except ImportError:
        raise TelemetryError("to be asked takes more: pip install 'cmdorc-telemetry[wizard]'") from None
    try:
        return converse(screen.line, summary=lambda given: _summary(screen, given))
    except (KeyboardInterrupt, EOFError):
        screen.line()
        screen.line("Nothing was written.")
        click.get_current_context().exit(1)


def _summary(screen: Screen, given: dict[str, Any]) -> None:
    from ..wizard.draft import spec_of

    spec = spec_of(given)
    screen.line()
    screen.line((spec.meta.title or spec.meta.name, "bold"), f"  {spec.ref}")
    for event in spec.events:
        screen.line()
        screen.line((event.name, "bold"), f"  {event.semantics.what}")
        screen.labelled([(f"  {name}", f"{prop.type}, {prop.level}{', masked' if event.masks(name) else ''}")
                         for name, prop in event.properties.items()])  # fmt: skip
    screen.line()


def _write(path: Path, text: str, *, force: bool) -> None:
    """All of the file, or none of it. Raises ConfigError, OSError."""
    from .. import files

    if path.exists() and not force:
        raise ConfigError(path, "", "is there already; nothing was written", "another --output, or --force")
    files.replace(path, text.encode(), mode=0o644)


def _tell(screen: Screen, spec: TelemetrySpec, path: Path) -> None:
    from datetime import datetime, timezone

    from .. import clock
    from ..spec.lint import lint

    today = datetime.fromtimestamp(clock.wall(), timezone.utc).date()
    findings = lint(spec, today)
    for finding in findings:
        screen.line((f"{finding.severity}: ", "yellow"), f"{finding.at} {finding.message}")
    screen.line()
    screen.labelled([("Check", command_line("spec", "lint", str(path))), ("Export", command_line("spec", "export",
                     str(path), "--format", "markdown"))])  # fmt: skip
