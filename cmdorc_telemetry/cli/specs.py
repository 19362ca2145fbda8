"""``spec``: check, compare and export specs. For people, for scripts (``--json``) and for CI (``--github``)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, SpecError
from .annotations import Level, annotation, line_in
from .comparison import compare
from .wording import clean, plural

if TYPE_CHECKING:
    from ..spec.lint import Finding
    from ..spec.versions import Version

_FILE = click.Path(path_type=Path)
NO_SPEC = "no-spec"
"""What a file is called that cannot be loaded, beside the names of the lints."""


@click.group("spec")
def spec() -> None:
    """Check, compare and export telemetry specs.

    They are TOML files, or ContractSpec's JSON.
    """


spec.add_command(compare)


def today() -> date:
    """The day, UTC."""
    from .. import clock

    return datetime.fromtimestamp(clock.wall(), timezone.utc).date()


# -- lint --------------------------------------------------------------------------------------------------------------


@spec.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--events", type=_FILE, metavar="FILE",
              help="A JSON list of event contracts: names and versions must be those of one.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding, a line each.")
@click.option("--github", is_flag=True, help="Annotations for GitHub Actions.")
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
def lint(files: Sequence[Path], events: Path | None, as_json: bool, github: bool, strict: bool) -> None:
    """Say what is unwise in FILES, or contradicts itself.

    Exit code 1 where that should not pass, and 2 where one of FILES is no spec at all.
    """
    if as_json and github:
        raise click.UsageError("--json and --github contradict each other.")
    known = _contracts(events) if events is not None else None
    code = shown = 0
    for path in files:
        for finding in _findings(path, known):
            fails = finding.fails or (strict and not finding.waived)
            code = max(code, 2 if finding.lint == NO_SPEC else int(fails))
            shown += not finding.waived
            click.echo(_line(path, finding, fails=fails, as_json=as_json, github=github))
    if not (as_json or github):
        click.echo(f"{plural(len(files), 'file')}, {plural(shown, 'finding')}.", err=True)
    click.get_current_context().exit(code)


def _findings(path: Path, known: Sequence[tuple[str, Version]] | None) -> list[Finding]:
    """What is to be said of one file: that it is no spec, too."""
    from ..spec import load_spec
    from ..spec.lint import Finding, lint_events
    from ..spec.lint import lint as findings_of

    try:
        loaded = load_spec(path)
    except SpecError as fault:
        expected = f"; expected {fault.expected}" if fault.expected else ""
        nearest = f". Did you mean {fault.nearest!r}?" if fault.nearest else ""
        return [Finding(NO_SPEC, "contradiction", fault.key, f"{fault.found}{expected}{nearest}")]
    return findings_of(loaded, today()) + (lint_events(loaded, known) if known is not None else [])


def _line(path: Path, finding: Finding, *, fails: bool, as_json: bool, github: bool) -> str:
    """A finding as it is shown."""
    said = f"{finding.at} {finding.message}".strip()
    waived = f" (waived: {finding.waived})" if finding.waived else ""
    if as_json:
        told = {"file": str(path), "line": _line_number(path, finding), **finding._asdict(), "fails": fails}
        return json.dumps(told, ensure_ascii=False)
    if github:
        level: Level = "notice" if finding.waived else "error" if fails else "warning"
        return annotation(level, path, _line_number(path, finding), finding.lint, f"{said}{waived}")
    severity = "waived" if finding.waived else finding.severity
    return clean(f"{path}: {said}  [{severity}: {finding.lint}]{waived}")


def _line_number(path: Path, finding: Finding) -> int:
    """The line that a finding is about; 1 where it is about none."""
    if told := re.search(r"\bline (\d+)", finding.message) if finding.lint == NO_SPEC else None:
        return int(told[1])
    return line_in(path, finding.at)


def _contracts(path: Path) -> list[tuple[str, Version]]:
    """Names and versions in a list of event contracts. Raises SpecError."""
    from .. import files

    try:
        listed = json.loads(files.read(path))
    except OSError as fault:
        raise SpecError(path, "", f"cannot be read: {fault.strerror}") from None
    except (ValueError, RecursionError) as fault:
        raise SpecError(path, "", f"is not valid JSON: {fault}") from None
    entries = listed.get("events") if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise SpecError(path, "", "is no list", "a list of event contracts, or one under 'events'")
    return [_contract(path, number, entry) for number, entry in enumerate(entries)]


def _contract(path: Path, number: int, entry: Any) -> tuple[str, Version]:
    """One contract, in either spelling: ``name`` or ``key``, beside the rest or in ``meta``."""
    from ..spec.versions import check

    meta = entry.get("meta", entry) if isinstance(entry, dict) else None
    name, version = (meta.get("key", meta.get("name")), meta.get("version")) if isinstance(meta, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(version, int | str) or isinstance(version, bool):
        raise SpecError(path, f"[{number}]", "has no 'key' or 'name' and 'version'", "both")
    try:
        check(version)
    except ValueError as fault:
        raise SpecError(path, f"[{number}]", str(fault)) from None
    return name, version


# -- export ------------------------------------------------------------------------------------------------------------


@spec.command()
@click.argument("file", type=_FILE)
@click.option("--format", "form", required=True, metavar="FORMAT", help="One of those that `spec formats` lists.")
def export(file: Path, form: str) -> None:
    """Write FILE in another FORMAT to standard output."""
    from ..errors import nearest
    from ..spec import load_spec
    from ..spec.exports import EXPORTS

    if form not in EXPORTS:
        names = list(EXPORTS)
        raise ConfigError("--format", "", f"found {form!r}", "one of " + ", ".join(names), nearest=nearest(form, names))
    click.echo(EXPORTS[form].make(load_spec(file)).encode(), nl=False)


@spec.command()
def formats() -> None:
    """List the formats of `spec export`."""
    from ..spec.exports import EXPORTS
    from .screen import Screen

    Screen().labelled([(name, each.about) for name, each in EXPORTS.items()])
