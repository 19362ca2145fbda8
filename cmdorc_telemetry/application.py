"""Whose telemetry it is: a program, what it declares, and what its places are called. cmdorc is one among others.

Owns names alone: of the home directory, of variables, of the command. What is at these places is not known here.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import files, toml
from .errors import ConfigError, NoHome

if TYPE_CHECKING:
    import click

    from .spec import TelemetrySpec

CORE_SPEC = "cmdorc.core"
"""The name of cmdorc's own spec."""
_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
_VERSION_SIGNS = _SIGNS - {"_"} | {"!"}


class _Fields(NamedTuple):
    name: str
    version: str = ""
    specs: "tuple[Path | TelemetrySpec, ...]" = ()
    home: Path | None = None
    command: str = ""
    project_files: tuple[str, ...] = ()


class Application(_Fields):
    """A program whose users decide on its telemetry, apart from that of any other.

    ``name`` and ``version`` stand in its events. ``specs`` are files of its own package, or specs; by the name of the
    first one its users decide. ``home`` is where everything of one user is, ``~/.NAME`` where it is None. ``command``
    is what its users type for its telemetry commands, ``NAME telemetry`` where it is empty. ``project_files`` are
    names that commands look for in the directory they are run in, where the program hands such a file to ``start``.

    Raises ConfigError.
    """

    def __new__(
        cls, name: str, version: str = "", specs: "tuple[str | Path | TelemetrySpec, ...]" = (),
        home: str | Path | None = None, command: str = "", project_files: tuple[str, ...] = (),
    ) -> "Application":  # fmt: skip
        """Check what would be found out too late."""
        if not (name[:1].isalpha() and len(name) <= 64 and _SIGNS.issuperset(name)):
            raise ConfigError("Application", "name", f"found {name!r}",
                              "a letter, then at most 63 letters, digits and . _ + -")  # fmt: skip
        if name != "cmdorc" and name.lower() == "cmdorc":  # its variables would be cmdorc's
            raise ConfigError("Application", "name", f"found {name!r}", "a name that is not cmdorc's")
        if version != "" and not _is_version(version):
            raise ConfigError("Application", "version", f"found {version!r}",
                              "a digit, then at most 39 letters, digits and . + ! -")  # fmt: skip
        if not specs or isinstance(specs, str | Path):
            raise ConfigError("Application", "specs", f"found {specs!r}", "a tuple of specs, or of their files")
        for number, each in enumerate(specs):
            if not isinstance(each, str | Path) and not hasattr(each, "meta"):
                raise ConfigError("Application", f"specs[{number}]", f"found {each!r}", "a spec, or its file")
        return super().__new__(
            cls, name, version, tuple(Path(each) if isinstance(each, str) else each for each in specs),
            None if home is None else Path(home), command or f"{name} telemetry", tuple(project_files),
        )  # fmt: skip

    @property
    def is_cmdorc(self) -> bool:
        """Whether it is cmdorc, whose runs and triggers are events."""
        return self.name == "cmdorc"

    @cached_property
    def spec(self) -> str:
        """The name of its first spec, on which all the rest depends. Raises SpecError."""
        if self.is_cmdorc:
            return CORE_SPEC
        first = self.specs[0]
        if not isinstance(first, Path):
            return first.meta.name
        try:
            return str(toml.loads(files.read(first).decode())["meta"]["name"])  # off costs no more than that
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # another format, or broken
            from .spec import load_spec

            return load_spec(first).meta.name

    @property
    def base(self) -> dict[str, str]:
        """The base fields that say what program an event is of."""
        if self.is_cmdorc:
            return {"cmdorc_version": self.version} if self.version else {}
        return {"app_name": self.name, **({"app_version": self.version} if self.version else {})}

    @property
    def foreign_fields(self) -> frozenset[str]:
        """The base fields that no event of it has."""
        return frozenset({"app_name", "app_version"} if self.is_cmdorc else {"cmdorc_version"})

    # -- places -----------------------------------------------------------------------------------------------------

    @property
    def variable(self) -> str:
        """The environment's variable for the level, and the beginning of the others."""
        return "".join(sign if sign.isalnum() else "_" for sign in self.name.upper()) + "_TELEMETRY"

    @property
    def config_variable(self) -> str:
        """The variable that names an operator's configuration."""
        return f"{self.variable}_CONFIG"

    @property
    def home_variable(self) -> str:
        """The variable that names the home."""
        return "CMDORC_HOME" if self.is_cmdorc else f"{self.variable}_HOME"

    def directory(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The home: what a variable says, else ``home``, else ``~/.NAME``. Raises ConfigError where there is none.

        Nor is one that depends on the directory: then whoever makes a project could bring a decision with it.
        """
        if said := environ.get(self.home_variable):
            if not os.path.isabs(said):
                raise ConfigError("environment", self.home_variable, f"found {said!r}", "an absolute path")
            return Path(said)
        try:
            home = Path.home() / f".{self.name}" if self.home is None else self.home.expanduser()
        except RuntimeError:
            expected = f"HOME or {self.home_variable} to be set"
            raise NoHome("environment", "HOME", "no home directory", expected) from None
        if not home.is_absolute():
            raise ConfigError("Application", "home", f"found {str(home)!r}", "an absolute path")
        return home

    # -- commands ---------------------------------------------------------------------------------------------------

    def commands(self) -> "click.Group":
        """The command group ``telemetry`` of its home, to be mounted in its own command line."""
        cli = import_module(".cli", __package__)  # by name: the command line stands above all that knows applications
        group: click.Group = cli.group(self)
        return group


def _is_version(version: object) -> bool:
    """Whether it can stand in an event."""
    return (
        isinstance(version, str) and version[:1] in tuple("0123456789") and len(version) <= 40
        and _VERSION_SIGNS.issuperset(version)
    )  # fmt: skip


CMDORC = Application(
    "cmdorc",
    specs=(Path(__file__).with_name("spec") / "core.telemetry.toml",),
    project_files=("cmdorc.toml", "config.toml"),
)
"""cmdorc, of a version that whoever runs it knows: ``CMDORC._replace(version=…)``."""
