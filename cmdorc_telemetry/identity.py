"""The install id and the salt: made at the first opt-in, deleted at opt-out, never global state."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from . import files
from .config import Home
from .errors import StorageError


@dataclass(frozen=True)
class Identity:
    """Who this install is to a server (a random id) and to itself (a key for hashes)."""

    install_id: str
    salt: bytes


def load_identity(home: Home) -> Identity | None:
    """The identity of ``home``, or None where there is none (or only half of one). Raises StorageError."""
    try:
        install_id = str(uuid.UUID(home.install_id.read_text(encoding="ascii").strip()))
        salt = bytes.fromhex(home.salt.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise StorageError(f"{home.install_id} or {home.salt} cannot be read: {fault}") from fault
    return Identity(install_id, salt) if len(salt) >= 16 else None


def ensure_identity(home: Home) -> Identity:
    """The identity of ``home``, made where there is none. Safe between processes. Raises StorageError."""
    found = load_identity(home)
    if found is not None:
        return found
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    try:
        with files.FileLock(home.telemetry / "identity.lock"):
            found = load_identity(home)
            if found is None:
                found = Identity(str(uuid.uuid4()), os.urandom(32))
                files.replace(home.salt, found.salt.hex().encode() + b"\n")
                files.replace(home.install_id, found.install_id.encode() + b"\n")
    except OSError as fault:
        raise StorageError(f"{home.telemetry} cannot be written: {fault.strerror}") from fault
    return found
