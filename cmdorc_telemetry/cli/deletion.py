"""Deletes what is recorded on this machine, file by file, each by its name. What is unknown stays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..config import Home
from ..errors import ConfigError
from .machine import Machine

_SEGMENTS = (".seg", ".new", ".corrupt")


def delete(home: Home, local_files: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Delete journal, spool, history, locks, identifiers, salt and ``local_files``. What went, and what would not."""
    gone: list[str] = []
    faults: list[str] = []
    segments = [path for path in _inside(home.journal) if path.suffix in _SEGMENTS]
    count = sum(_deleted(path, faults) for path in segments)
    if count:
        gone.append(f"{home.journal} ({count} segments)" if count > 1 else f"{home.journal} (1 segment)")
    databases = [path for path in _inside(home.telemetry) for base in (home.spool, home.history) if _is_of(path, base)]
    identity = (home.install_id, home.salt)
    aside = [path for path in _inside(home.root) for base in identity if path != base and _is_of(path, base)]
    named = [*databases, home.waiting, *identity, *aside, *local_files]
    gone += [str(path) for path in named if _deleted(path, faults)]
    locks = [path for path in _inside(home.locks) if path.suffix in (".lock", ".owner")]
    own = (home.telemetry / "identity.lock", home.telemetry / "consent.lock")
    locks += [path for path in _inside(home.telemetry) for base in own if _is_of(path, base)]
    for path in [*locks, home.discovered]:
        _deleted(path, faults)
    for folder in (home.journal, home.locks):
        with suppress(OSError):  # not there, or something else is in it
            folder.rmdir()
    return gone, faults


def local_files(machine: Machine | None) -> Iterator[Path]:
    """The file that ``local_file`` names, those that it was rotated to, and its lock."""
    if machine is None:
        return
    for to in machine.situation.user.destinations:
        try:
            written = to.resolved(machine.situation.environ).get("path") if to.name == "file" else None
        except ConfigError:  # no file was ever written under that name
            written = None
        if isinstance(written, str):
            path = Path(os.path.expanduser(written))
            real = Path(os.path.realpath(path))
            yield from (each for each in _inside(real.parent) if each == real or _is_rotated(each, real))
            if path.is_symlink():
                yield path


def _is_rotated(path: Path, base: Path) -> bool:
    end = path.name[len(base.name) + 1 :]
    return path.name.startswith(f"{base.name}.") and (end.isdecimal() or end == "lock")


def _is_of(path: Path, base: Path) -> bool:
    """Whether it is that file, or one that belongs to it: SQLite's, the spool's, what was set aside."""
    return path == base or path.name.startswith((f"{base.name}-", f"{base.name}."))


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
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
