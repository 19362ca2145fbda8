"""``spec``: check, compare and export specs. For people, for scripts (``--json``) and for CI (``--github``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, SpecError
from .wording import plural

if TYPE_CHECKING:
    from ..spec import TelemetrySpec
    from ..spec.lint import Finding

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("spec")
def spec() -> None:
    """Check, compare and export telemetry specs: TOML, or ContractSpec's JSON."""


def _today() -> date:
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
    """Say what is unwise in FILES, or contradicts itself. Exit code 1 where that should not pass."""
    from ..spec import load_spec
    from ..spec.lint import lint as findings_of
    from ..spec.lint import lint_events

    if as_json and github:
        raise click.UsageError("--json and --github contradict each other.")
    known = _contracts(events) if events is not None else None
    failed = False
    shown = 0
    for path in files:
        loaded = load_spec(path)
        findings = findings_of(loaded, _today())
        if known is not None:
            findings += lint_events(loaded, known)
        for finding in findings:
            fails = finding.fails or (strict and not finding.waived)
            failed, shown = failed or fails, shown + (not finding.waived)
            click.echo(_line(path, finding, as_json=as_json, github=github))
    if not (as_json or github):
        click.echo(f"{plural(len(files), 'spec')}, {plural(shown, 'finding')}.", err=True)
    click.get_current_context().exit(1 if failed else 0)


def _line(path: Path, finding: Finding, *, as_json: bool, github: bool) -> str:
    if as_json:
        return json.dumps({"file": str(path), **finding._asdict()}, ensure_ascii=False)
    level = "notice" if finding.waived else "warning" if finding.severity == "warning" else "error"
    waived = f" (waived: {finding.waived})" if finding.waived else ""
    if github:
        line = _line_of(path, finding.at)
        place = f"file={_escaped(str(path))},line={line},title={_escaped(finding.lint)}"
        return f"::{level} {place}::{_escaped(f'{finding.at} {finding.message}{waived}')}"
    severity = "waived" if finding.waived else finding.severity
    return f"{path}: {finding.at} {finding.message}  [{severity}: {finding.lint}]{waived}"


def _escaped(text: str) -> str:
    """As GitHub's workflow commands want it."""
    for char, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(char, code)
    return text


def _line_of(path: Path, at: str) -> int:
    """The line that a path is most likely declared in: where the last of its names that is there stands."""
    lines = path.read_text(encoding="utf-8").splitlines()
    kinds = ("events", "properties", "operations", "workflows", "waivers", "config", "meta")
    found = 1
    for name in _names(at, kinds):
        found = next((number for number, line in enumerate(lines[found - 1 :], found) if name in line), found)
    return found


def _names(at: str, kinds: Sequence[str]) -> Iterator[str]:
    """The names in a path: those of events and properties may hold dots."""
    left = at
    for kind in kinds:
        head, _, tail = left.partition(f"{kind}.")
        if tail and head in ("", *(f"{name}." for name in kinds)):
            left = tail
    yield from (part.rstrip(".") for part in left.split(".properties.") if part)


def _contracts(path: Path) -> list[tuple[str, Any]]:
    """Names and versions in a list of event contracts. Raises SpecError."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise SpecError(path, "", f"is not valid JSON: {fault}") from None
    entries = listed.get("events") if isinstance(listed, dict) else listed
    if not isinstance(entries, list):
        raise SpecError(path, "", f"found {type(listed).__name__}", "a list of event contracts, or one under 'events'")
    return [_contract(path, number, entry) for number, entry in enumerate(entries)]


def _contract(path: Path, number: int, entry: Any) -> tuple[str, Any]:
    from ..spec.versions import check

    meta = entry.get("meta", entry) if isinstance(entry, dict) else {}
    name, version = meta.get("key", meta.get("name")), meta.get("version", 1)
    try:
        if not isinstance(name, str) or not isinstance(version, int | str):
            raise ValueError("found no 'key' or 'name' and 'version'; expected both")
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
    from ..spec.outputs import OUTPUTS

    if form not in OUTPUTS:
        names = list(OUTPUTS)
        raise ConfigError("--format", "", f"found {form!r}", "one of " + ", ".join(names), nearest=nearest(form, names))
    click.echo(OUTPUTS[form](load_spec(file)), nl=False)


def describe(loaded: TelemetrySpec) -> str:
    """A spec in a word."""
    return f"{loaded.ref}: {plural(len(loaded.events), 'event')}"
