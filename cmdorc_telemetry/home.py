"""The home directory of one user's telemetry: where it is, and where in it everything lies.

Makes none of it, and reads none of it.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .application import CMDORC, Application


class Home(NamedTuple):
    """Where everything of one user is. Nothing outside these paths is ever written, but to a destination."""

    root: Path
    application: Application = CMDORC
    """Whose it is."""

    @classmethod
    def of(cls, application: Application, environ: Mapping[str, str] = os.environ) -> "Home":
        """The home of ``application``. Raises ConfigError where there is none."""
        return cls(application.directory(environ), application)

    @property
    def config(self) -> Path:
        """The user's own configuration."""
        return self.root / "config.toml"

    @property
    def install_id(self) -> Path:
        """A random id, made at opt-in."""
        return self.root / "telemetry_install_id"

    @property
    def salt(self) -> Path:
        """The key of all hashes; it never leaves the machine."""
        return self.root / "telemetry_salt"

    @property
    def telemetry(self) -> Path:
        """The directory, mode 700, of all the rest."""
        return self.root / "telemetry"

    @property
    def consent(self) -> Path:
        """The recorded decision."""
        return self.telemetry / "consent.toml"

    @property
    def journal(self) -> Path:
        """The directory of the segments."""
        return self.telemetry / "journal"

    @property
    def spool(self) -> Path:
        """The shared durable queue."""
        return self.telemetry / "spool.db"

    @property
    def history(self) -> Path:
        """What insights read."""
        return self.telemetry / "history.db"

    @property
    def locks(self) -> Path:
        """The directory of the locks that say who sends, and whose reporter lives."""
        return self.telemetry / "locks"

    @property
    def audit(self) -> Path:
        """The directory of what says which batches left: a file a destination."""
        return self.telemetry / "audit"

    @property
    def plugins(self) -> Path:
        """The directory of what plugins keep, in a directory of its own each."""
        return self.telemetry / "plugins"

    @property
    def erasure(self) -> Path:
        """Exists while servers are still to be asked to erase an install."""
        return self.telemetry / "erasure.toml"

    @property
    def view(self) -> Path:
        """The page that ``view`` made last."""
        return self.telemetry / "view.html"

    @property
    def discovered(self) -> Path:
        """Which plugins are installed, as it was last seen."""
        return self.telemetry / "plugins.json"

    @property
    def waiting(self) -> Path:
        """Exists while something waits to be delivered; modified when, or to be, that is no longer to be put off."""
        return self.telemetry / "waiting"
