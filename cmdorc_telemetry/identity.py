"""The install id and the salt: made at the first opt-in, deleted at opt-out, never global state."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from . import files
from .erasure import load_owed
from .errors import StorageError
from .home import Home

log = logging.getLogger("cmdorc_telemetry")


class Identity(NamedTuple):
    """Who this install is to a server (a random id) and to itself (a key for hashes)."""

    install_id: str
    salt: bytes


def load_identity(home: Home) -> Identity | None:
    """The identity of ``home``, or None where there is none, only half of one, or one that was given up.

    Raises StorageError.
    """
    stored = stored_identity(home)
    given_up = stored is not None and any(owed.install_id == stored.install_id for owed in load_owed(home))
    return None if given_up else stored


def stored_identity(home: Home) -> Identity | None:
    """What the files of an identity hold, also where it was given up and they are not gone yet. Likewise."""
    try:
        install_id, salt = _install_id(home.install_id), _salt(home.salt)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise StorageError(f"{home.install_id} or {home.salt} cannot be read: {fault}") from fault
    return Identity(install_id, salt) if len(salt) >= 16 else None


def _install_id(path: Path) -> str:
    return str(uuid.UUID(files.read(path).decode("ascii").strip()))


def _salt(path: Path) -> bytes:
    return bytes.fromhex(files.read(path).decode("ascii").strip())


def ensure_identity(home: Home) -> Identity:
    """The identity of ``home``, made where there is none. Safe between processes. Raises StorageError.

    What stands there and is none is moved aside: to nobody is a random number dearer than a program that records.
    """
    with suppress(StorageError):
        found = load_identity(home)
        if found is not None:
            return found
    with _alone(home):
        _make_way(home)
        return load_identity(home) or _made(home)


def another_identity(home: Home) -> Identity:
    """A new identity, in place of what there is. Safe between processes. Raises StorageError."""
    with _alone(home):
        _make_way(home)
        return _made(home)


def drop_identity(home: Home, given_up: Collection[str]) -> None:
    """Delete the files of an identity whose id is among ``given_up``. Safe between processes. Raises StorageError."""
    if _has(home, given_up):
        with _alone(home):
            if _has(home, given_up):  # still
                home.install_id.unlink()
                home.salt.unlink()


def _has(home: Home, ids: Collection[str]) -> bool:
    with suppress(StorageError):  # it is none
        stored = stored_identity(home)
        return stored is not None and stored.install_id in ids
    return False


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    try:
        with files.FileLock(home.telemetry / "identity.lock"):
            yield
    except OSError as fault:
        raise StorageError(f"{home.telemetry} cannot be written: {fault.strerror}") from fault


def _made(home: Home) -> Identity:
    new = Identity(str(uuid.uuid4()), os.urandom(32))
    files.replace(home.salt, new.salt.hex().encode() + b"\n")
    files.replace(home.install_id, new.install_id.encode() + b"\n")
    return new


def _make_way(home: Home) -> None:
    """Move aside what can never be read as what it should be; what cannot be read just now stays."""
    parts: dict[Path, Callable[[Path], object]] = {home.install_id: _install_id, home.salt: _salt}
    moved = []
    for path, read in parts.items():
        try:
            read(path)
        except (OSError, ValueError) as fault:
            if isinstance(fault, ValueError) or files.is_foreign(path):
                moved.append(f"{path} to {files.set_aside(path)}")
    if moved:
        log.warning("this install's identity could not be read and is made anew; moved were %s", ", ".join(moved))
