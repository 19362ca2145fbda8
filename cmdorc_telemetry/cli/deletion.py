"""Deletes what is recorded on this machine, file by file, each by its name. What is unknown stays."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..home import Home
from .erasure import FILE
from .wording import plural

_SEGMENTS = (".seg", ".new", ".corrupt")
_UNNAMED = re.compile(
    r"\.(telemetry_(install_id|salt)|(config|consent|erasure)\.toml|plugins\.json|spool\.db\.reserve)\.[0-9a-f]{8}"
)
_EVENT = b'{"event":'
_AUDIT = re.compile(r"[\w-]+(\.\d+)?\.jsonl")


def delete(home: Home, local_files: Iterable[Path], busy: Collection[Path] = ()) -> tuple[list[str], list[str]]:
    """Delete journal, spool, history, audit, what plugins keep, identifiers, salt and ``local_files``.

    Gives what went, and what would not. The locks go, too, but for those of ``busy``, who still send. The note of who
    is to erase this install stays: it is struck out by answers, not by us.
    """
    gone: list[str] = []
    faults: list[str] = []
    gone += [str(path) for path in local_files if _deleted(path, faults)]  # first: the spool knows that they are ours
    segments = [path for path in _inside(home.journal) if path.suffix in _SEGMENTS]
    _several(segments, home.journal, "segment", gone, faults)
    audit = [path for path in _inside(home.audit) if _AUDIT.fullmatch(path.name)]
    _several(audit, home.audit, "file", gone, faults)
    for folder in _folders(home.plugins):
        _several(_inside(folder), folder, "file", gone, faults)
    databases = [path for path in _inside(home.telemetry) for base in (home.spool, home.history) if _is_of(path, base)]
    identity = (home.install_id, home.salt)
    aside = [path for path in _inside(home.root) for base in identity if path != base and _is_of(path, base)]
    aside += [path for path in _inside(home.telemetry) if path.name.startswith(f"{home.erasure.name}.corrupt-")]
    # What somebody was writing who was killed before it had its name.
    unnamed = [path for folder in (home.root, home.telemetry) for path in _inside(folder)]
    aside += [path for path in unnamed if _UNNAMED.fullmatch(path.name)]
    named = [*databases, home.waiting, home.view, *identity, *aside]
    gone += [str(path) for path in named if _deleted(path, faults)]
    locks = [path for path in _inside(home.locks) if path.suffix in (".lock", ".owner") and path not in busy]
    own = [home.telemetry / f"{name}.lock" for name in ("identity", "consent")]
    if not home.erasure.exists():
        own.append(home.telemetry / "erasure.lock")
    locks += [path for path in _inside(home.telemetry) for base in own if _is_of(path, base)]
    for path in [*locks, home.discovered]:
        _deleted(path, faults)
    for folder in (home.journal, home.audit, home.locks, *_folders(home.plugins), home.plugins):
        with suppress(OSError):  # not there, or something else is in it
            folder.rmdir()
    return gone, faults


def _several(paths: list[Path], folder: Path, noun: str, gone: list[str], faults: list[str]) -> None:
    count = sum(_deleted(path, faults) for path in paths)
    if count:
        gone.append(f"{folder} ({plural(count, noun)})")


def local_files(reached: Mapping[str, str], faults: list[str]) -> Iterator[Path]:
    """The files that ``file`` destinations wrote to, ``local_file`` among them, those they rotated to, and the locks.

    Of those in ``reached`` (name → where it leads, or led), whatever the configuration says by now: others were never
    written to, and may be anybody's. Which of them nobody can name any more, and which hold something else than
    events, is told in ``faults``.
    """
    for name, lead in reached.items():
        plugin, _, place = lead.partition(" ")
        key, _, written = place.partition("=")
        if key == "path_env" and plugin == FILE:
            if written not in os.environ:
                faults.append(f"telemetry.to.{name}.path_env: {written!r} is not set. "
                              f"The file of {name!r} stays: nobody knows which it is")  # fmt: skip
            written = os.environ.get(written, "")
        path = Path(os.path.expanduser(written))
        if plugin == FILE and path.is_absolute():
            real = Path(os.path.realpath(path))
            named = [each for each in _inside(real.parent) if each == real or _is_rotated(each, real)]
            ours = [each for each in named if _holds_events(each)]
            faults += [f"{each} holds something else than events, and stays" for each in named if each not in ours]
            yield from ours
            if path.is_symlink() and (real in ours or not real.exists()):
                yield path


def _is_rotated(path: Path, base: Path) -> bool:
    end = path.name[len(base.name) + 1 :]
    return path.name.startswith(f"{base.name}.") and (end.isdecimal() or end == "lock")


def _holds_events(path: Path) -> bool:
    """Whether a file is what a ``file`` destination writes: lines with an event each, or nothing, as in its lock.

    A person may have named a file that held something else, and nothing may ever have been sent to it.
    """
    begin = b""
    with suppress(OSError), open(path, "rb") as file:  # whoever deletes it says what is wrong with it
        begin = file.read(len(_EVENT))
    return _EVENT.startswith(begin)


def _is_of(path: Path, base: Path) -> bool:
    """Whether it is that file, or one that belongs to it: SQLite's, the spool's, what was set aside."""
    return path == base or path.name.startswith((f"{base.name}-", f"{base.name}."))


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    """The directories in ``folder``: of a plugin each."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _deleted(path: Path, faults: list[str]) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as fault:
        faults.append(f"{path} could not be deleted: {fault.strerror}")
        return False
    return True
