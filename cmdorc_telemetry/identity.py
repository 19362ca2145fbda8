"""The install id and the salt: made at the first opt-in, deleted at opt-out, never global state."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import files
from .config import Home
from .errors import StorageError

log = logging.getLogger("cmdorc_telemetry")


class Identity(NamedTuple):
    """Who this install is to a server (a random id) and to itself (a key for hashes)."""

    install_id: str
    salt: bytes


def load_identity(home: Home) -> Identity | None:
    """The identity of ``home``, or None where there is none (or only half of one). Raises StorageError."""
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
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    try:
        with files.FileLock(home.telemetry / "identity.lock"):
            _make_way(home)
            found = load_identity(home)
            if found is None:
                found = Identity(str(uuid.uuid4()), os.urandom(32))
                files.replace(home.salt, found.salt.hex().encode() + b"\n")
                files.replace(home.install_id, found.install_id.encode() + b"\n")
    except OSError as fault:
        raise StorageError(f"{home.telemetry} cannot be written: {fault.strerror}") from fault
    return found


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
