"""What this machine's files and variables say, read together: the edge between them and ``policy.decide``."""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import clock, files
from .application import CMDORC, Application
from .config import Layer, load_layer
from .consent import Consent, load_consent
from .errors import ConfigError, ConsentError
from .home import Home
from .policy import Policy, decide

if TYPE_CHECKING:
    from .argument import TelemetryConfig
    from .spec.registry import SpecFile


def config_exposure(path: Path) -> str:
    """Why somebody else may have written a user's file, which could call a destination of theirs the user's own.

    Empty where nobody else can have. Its group may write to it: each user often has a group to themselves.
    """
    try:
        return files.exposure(path, writers=0o002, roots=True)
    except (FileNotFoundError, NotADirectoryError):
        return ""


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
    """Why consent or configuration cannot be used, and the way out; then nothing is recorded or sent."""
    other: Layer | None = None
    """The other one of these two files, where there are two: it only lowers."""

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        application: Application = CMDORC,
        config: "TelemetryConfig | None" = None,
        project: Layer | None = None,
    ) -> "Situation":
        """Read it. Raises ConfigError for the user's (or an operator's) file."""
        environ = os.environ if environ is None else environ
        home = Home.of(application, environ)
        consent, trouble = None, ""
        try:
            consent = load_consent(home)
        except ConsentError as fault:
            trouble = str(fault)
        user = load_layer(home.config)
        says_yes = consent is not None and any(grant.record for grant in consent.grants.values())
        if says_yes and (exposed := config_exposure(home.config)):
            user = Layer(source=home.config)
            trouble = (
                f"{home.config} cannot be used ({exposed}): nothing is recorded or sent until it is yours, and only "
                "you can write to it"
            )
        operator = environ.get(application.config_variable)
        other = None
        if operator:
            if not os.path.isfile(operator):
                raise ConfigError("environment", application.config_variable, f"{operator!r} is no file", "a TOML file")
            user, other = load_layer(Path(operator)), user
            if consent is not None or trouble:
                user, other = other, user
        argument = Layer.of(config) if config is not None else None
        return cls(home, environ, user, consent, project, argument, trouble, other)

    def again(self) -> "Situation":
        """The same, read anew; a file that cannot be read any more turns everything off."""
        try:
            read = Situation.read(self.environ, application=self.application, project=self.project)
            return read._replace(argument=self.argument)
        except ConfigError as fault:
            return Situation(self.home, self.environ, Layer(), None, self.project, self.argument, str(fault))

    @property
    def application(self) -> Application:
        """Whose home it is."""
        return self.home.application

    def policy(self, *, layered: bool = True, spec: str = "") -> Policy:
        """What is in force now; ``layered`` False leaves out what holds for this program or project alone.

        Without a name, for the first spec of the application.
        """
        if self.trouble:
            return Policy(trouble=self.trouble)
        return decide(
            self.consent,
            user=self.user,
            project=self.project if layered else None,
            argument=self.argument if layered else None,
            environ=self.environ,
            now=datetime.fromtimestamp(clock.wall(), timezone.utc),
            spec=spec,
            other=self.other,
            application=self.application,
        )

    def specs(self) -> "tuple[Application, list[SpecFile], list[SpecFile]]":
        """Where specs come from: the application, the user's and an operator's file, and a project or a program."""
        return self.application, _spec_files(self.user, self.other), _spec_files(self.project, self.argument)


def _spec_files(*layers: Layer | None) -> "list[SpecFile]":
    from .spec.registry import SpecFile

    return [SpecFile(path, str(layer.source or "argument"), f"telemetry.specs[{number}]")
            for layer in layers if layer is not None for number, path in enumerate(layer.specs)]  # fmt: skip
