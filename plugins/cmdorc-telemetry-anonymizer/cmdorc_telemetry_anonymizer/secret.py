"""The key of this machine's hashes: made when the first is needed, never shown, never sent.

It is the plugin's own: the salt of cmdorc-telemetry is not a plugin's to read. Every hash also depends on the install
id, so that one who gets a new id cannot be recognised by old hashes.
"""

from __future__ import annotations

import hmac
import logging
import os
from functools import partial
from pathlib import Path

from cmdorc_telemetry import files

from .operations import Secret

log = logging.getLogger("cmdorc_telemetry")

_BYTES = 32


class Key:
    """The key in a file of its own, mode 600, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "key"
        self._known: tuple[str, Secret] | None = None

    def of(self, install_id: str) -> Secret:
        """What makes the hashes of one install. Raises OSError, StorageError where there is no key to be had."""
        if self._known is None or self._known[0] != install_id:
            key = hmac.digest(self._ensured(), install_id.encode(), "sha256")
            self._known = install_id, partial(hmac.digest, key, digest="sha256")
        return self._known[1]

    def _ensured(self) -> bytes:
        """The key; made where there is none. Safe between processes.

        Asked for each install: an opt-out deleted the key of the one before.
        """
        files.private_dir(self._folder)
        with files.FileLock(self._folder / "key.lock"):
            return self._read() or self._made()

    def _read(self) -> bytes | None:
        try:
            key = bytes.fromhex(files.read(self._path).decode("ascii"))
            if len(key) != _BYTES:
                raise ValueError(f"it has {len(key)} bytes")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as fault:
            if isinstance(fault, OSError) and not files.is_foreign(self._path):
                raise
            log.warning("%s could not be read and was moved to %s; hashes are others from now on",
                        self._path, files.set_aside(self._path))  # fmt: skip
            return None
        return key

    def _made(self) -> bytes:
        key = os.urandom(_BYTES)
        files.replace(self._path, key.hex().encode())
        return key
