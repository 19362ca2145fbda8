"""What this machine's files and variables say, read together: the edge between them and ``policy.decide``."""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import clock
from .config import Home, Layer, home_dir, load_layer
from .consent import CORE_SPEC, Consent, load_consent
from .errors import ConfigError, ConsentError
from .policy import Policy, decide

if TYPE_CHECKING:
    from .argument import TelemetryConfig


class Situation(NamedTuple):
    """What this machine's files and variables say, read together."""

    home: Home
    environ: Mapping[str, str]
    user: Layer
    """The file whose plugins and destinations count: the user's, or an operator's where nobody decided."""
    consent: Consent | None
    project: Layer | None = None
    argument: Layer | None = None
    trouble: str = ""
    """Why the consent cannot be used; then nothing is recorded or sent."""
    other: Layer | None = None
    """The other one of these two files, where there are two: it only lowers."""

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config: "TelemetryConfig | None" = None,
        project: Layer | None = None,
    ) -> "Situation":
        """Read it. Raises ConfigError for the user's (or an operator's) file."""
        environ = os.environ if environ is None else environ
        home = Home(home_dir(environ))
        consent, trouble = None, ""
        try:
            consent = load_consent(home)
        except ConsentError as fault:
            trouble = str(fault)
        user = load_layer(home.config)
        operator = environ.get("CMDORC_TELEMETRY_CONFIG")
        other = None
        if operator:
            if not os.path.isfile(operator):
                raise ConfigError("environment", "CMDORC_TELEMETRY_CONFIG", f"{operator!r} is no file", "a TOML file")
            user, other = load_layer(Path(operator)), user
            if consent is not None or trouble:
                user, other = other, user
        argument = Layer.of(config) if config is not None else None
        return cls(home, environ, user, consent, project, argument, trouble, other)

    def again(self) -> "Situation":
        """The same, read anew; a file that cannot be read any more turns everything off."""
        try:
            return Situation.read(self.environ, project=self.project)._replace(argument=self.argument)
        except ConfigError as fault:
            return Situation(self.home, self.environ, Layer(), None, self.project, self.argument, str(fault))

    def policy(self, *, layered: bool = True, spec: str = CORE_SPEC) -> Policy:
        """What is in force now; ``layered`` False leaves out what holds for this program or project alone."""
        if self.trouble:
            return Policy(ignored=(self.trouble,))
        return decide(
            self.consent,
            user=self.user,
            project=self.project if layered else None,
            argument=self.argument if layered else None,
            environ=self.environ,
            now=datetime.fromtimestamp(clock.wall(), timezone.utc),
            spec=spec,
            other=self.other,
        )
