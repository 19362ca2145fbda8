"""``spec compare``: what became of a spec, for people, for scripts (``--json``) and for CI (``--github``)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ..errors import ConfigError, SpecError, TelemetryError
from .annotations import annotation, line_in
from .wording import clean, plural

if TYPE_CHECKING:
    from ..spec import TelemetrySpec
    from ..spec.changes import Entry
    from ..spec.versions import Step, Version

_FILE = click.Path(path_type=Path)
_SECONDS = 30
"""How long git may take."""


class _Verdict(NamedTuple):
    """What two versions of a spec amount to."""

    old: Version
    new: Version
    entries: list[Entry]
    step: Step | None
    """The step that the version has to take; None where nothing changed."""
    expected: Version
    """The version that this step leads to."""
    enough: bool


@click.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="OLD NEW | FILE --against GIT-REF")
@click.option("--against", metavar="GIT-REF", help="Compare FILE with what it is in a commit, branch or tag.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a change, a line each; the last one sums up.")
@click.option("--github", is_flag=True, help="Annotations for GitHub Actions.")
def compare(files: tuple[Path, ...], against: str | None, as_json: bool, github: bool) -> None:
    """Say what became of a spec: what was added, removed, narrowed, widened, re-meant.

    Of each change: whether it needs a new yes of those who agreed to the old version, and whether it breaks what is
    stored under it. Exit code 1 where the version of the new one is not enough for that, and 2 where one of the two
    cannot be read, or they are not two versions of one spec.
    """
    if as_json and github:
        raise click.UsageError("--json and --github contradict each other.")
    if len(files) != (2 if against is None else 1):
        raise click.UsageError("Expected OLD and NEW, or FILE and --against GIT-REF.")
    from ..spec import load_spec

    new = load_spec(files[-1])
    old = load_spec(files[0]) if against is None else _committed(files[0], against)
    verdict = _judged(old, new, files[-1])
    if as_json:
        _print_json(verdict, files[-1])
    elif github:
        _print_annotations(verdict, files[-1])
    else:
        _print_table(verdict, new.meta.name)
    click.get_current_context().exit(0 if verdict.enough else 1)


def _judged(old: TelemetrySpec, new: TelemetrySpec, path: Path) -> _Verdict:
    """What became of ``old``. Raises SpecError where ``new``, in ``path``, is another spec."""
    from ..spec.changes import changes, step
    from ..spec.versions import raised, reaches

    if old.meta.name != new.meta.name:
        found = f"is the spec {new.meta.name!r}, and the old one {old.meta.name!r}"
        raise SpecError(path, "meta.name", found, "two versions of one spec")
    entries = changes(old, new)
    takes, before, after = step(entries), _version(old), _version(new)
    if isinstance(before, int) and isinstance(after, str):
        before = f"{before}.0.0"
    expected = before if takes is None else raised(before, takes)
    return _Verdict(before, after, entries, takes, expected, reaches(before, after, takes))


def _version(spec: TelemetrySpec) -> Version:
    """Its version as its file has it: where it has none, that is the first."""
    told: Version = spec.meta.version if spec.origin is None else spec.origin["meta"].get("version", 1)
    return told


# -- out of git --------------------------------------------------------------------------------------------------------


def _committed(path: Path, ref: str) -> TelemetrySpec:
    """The spec that ``path`` was in a commit. Raises SpecError, ConfigError, TelemetryError."""
    from ..spec.documents import MOST_BYTES, parse_spec

    real = path.resolve()
    where = f"{ref}:{path}"
    found = _git(real, "rev-parse", "--show-toplevel")
    if found.returncode:
        said = found.stderr.decode(errors="replace").partition("\n")[0].removeprefix("fatal: ")
        raise ConfigError(path, "", f"git says: {said}", "a file in a git repository, or OLD and NEW")
    if _git(real, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").returncode:
        shallow = _git(real, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        hint = "a deeper clone, which this one is not: `git fetch --unshallow`" if shallow else "a commit that is there"
        raise ConfigError("--against", "", f"there is no commit {ref!r}", hint)
    blob = f"{ref}:./{real.name}"
    size = _git(real, "cat-file", "-s", blob)
    if size.returncode:
        raise ConfigError(where, "", f"{path} is not in that commit", "one that has it, or OLD and NEW")
    if int(size.stdout) > MOST_BYTES:
        raise SpecError(where, "", "is larger than 1 MiB")
    return parse_spec(_git(real, "cat-file", "blob", blob).stdout, real.suffix, where)


def _git(path: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    """What git says in the directory of ``path``, whatever repository it was told of by whoever called this."""
    told = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
    environ = {name: value for name, value in os.environ.items() if name not in told}
    # A clone without its blobs would fetch them: nothing here goes over a network, or asks for a password.
    environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603 - a fixed program and arguments that are no options
            ["git", *args], cwd=path.parent, env=environ, capture_output=True, timeout=_SECONDS, check=False,  # noqa: S607
        )  # fmt: skip
    except FileNotFoundError:
        raise TelemetryError("git is not installed, which --against takes: compare OLD and NEW instead") from None
    except subprocess.TimeoutExpired:
        raise TelemetryError(f"git took longer than {_SECONDS} s: compare OLD and NEW instead") from None


# -- what is shown -----------------------------------------------------------------------------------------------------


def _sum(verdict: _Verdict) -> str:
    """Whether the version is enough, in a sentence."""
    if verdict.step is None and verdict.enough:
        return "Nothing changed."
    what = f"The changes take a {verdict.step} step" if verdict.step else "Nothing changed"
    if verdict.enough:
        return f"{what}: from {verdict.old} to {verdict.new} is enough."
    return f"{what}: from {verdict.old} to {verdict.new} is not enough. Expected {verdict.expected} or later."


def _print_table(verdict: _Verdict, name: str) -> None:
    from .screen import HEAD, WAITS, Screen

    screen = Screen()
    screen.line((f"{name} {verdict.old} → {verdict.new}", HEAD))
    for entry in verdict.entries:
        screen.below(10, (entry.at, HEAD), f"  {entry.told}", label=entry.change)
        notes = [*(["needs a new yes"] if entry.asks else []),
                 *([f"breaks what is stored: {entry.breaks}"] if entry.breaks else [])]  # fmt: skip
        for note in notes:
            screen.below(10, (note, WAITS))
    screen.line()
    asking = sum(entry.asks for entry in verdict.entries)
    breaking = sum(bool(entry.breaks) for entry in verdict.entries)
    count = plural(len(verdict.entries), "change")
    screen.line(f"{count}: {asking} to agree to anew, {breaking} that break what is stored. {_sum(verdict)}")


def _print_json(verdict: _Verdict, path: Path) -> None:
    for entry in verdict.entries:
        told = {"file": str(path), "line": line_in(path, entry.at), **entry._asdict(), "step": entry.step}
        click.echo(json.dumps(told, ensure_ascii=False))
    summed = {"old": verdict.old, "new": verdict.new, "step": verdict.step, "expected": verdict.expected,
              "enough": verdict.enough, "asks": any(each.asks for each in verdict.entries),
              "breaks": any(each.breaks for each in verdict.entries)}  # fmt: skip
    click.echo(json.dumps(summed, ensure_ascii=False))


def _print_annotations(verdict: _Verdict, path: Path) -> None:
    """What the version is not enough for as errors, the rest as notices."""
    from ..spec.versions import reaches

    for entry in verdict.entries:
        covered = verdict.enough or reaches(verdict.old, verdict.new, entry.step)
        said = [f"{entry.at} was {entry.change}" + (f": {entry.told}" if entry.told else "")]
        said += ["needs a new yes"] if entry.asks else []
        said += [f"breaks what is stored: {entry.breaks}"] if entry.breaks else []
        click.echo(annotation("notice" if covered else "error", path, line_in(path, entry.at), f"spec {entry.change}",
                              clean("; ".join(said))))  # fmt: skip
    if not verdict.enough:
        click.echo(annotation("error", path, line_in(path, "meta.version"), "spec version", _sum(verdict)))
