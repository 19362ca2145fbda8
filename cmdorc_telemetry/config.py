"""Configuration files and variables → checked values. Says what is wanted, not what is allowed (``policy.py``).

Layers: the user's file (``~/.cmdorc/config.toml``), or an operator's where nobody decided; a project's cmdorc
TOML, which can only lower; the environment.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import files, toml
from .bounds import DEFAULT, NAMES, Bounds
from .errors import ConfigError, kind, nearest

if TYPE_CHECKING:
    from .argument import TelemetryConfig


class TelemetryLevel(Enum):
    """How much may be shared. Ordered: OFF < MINIMAL < STANDARD < DEBUG."""

    OFF = "off"
    MINIMAL = "minimal"
    STANDARD = "standard"
    DEBUG = "debug"

    @property
    def rank(self) -> int:
        """0 for OFF to 3 for DEBUG."""
        return _RANKS[self]

    def __lt__(self, other: "TelemetryLevel") -> bool:
        return self.rank < other.rank

    def __le__(self, other: "TelemetryLevel") -> bool:
        return self.rank <= other.rank

    @classmethod
    def parse(cls, value: object, where: object, key: str) -> "TelemetryLevel":
        """The level of that name. Raises ConfigError."""
        if isinstance(value, TelemetryLevel):
            return value
        names = [level.value for level in cls]
        if isinstance(value, str) and value.lower() in names:
            return cls(value.lower())
        close = nearest(value.lower(), names) if isinstance(value, str) else None
        raise ConfigError(where, key, f"found {value!r}", "one of " + ", ".join(names), nearest=close)


_RANKS = {level: rank for rank, level in enumerate(TelemetryLevel)}

ADDRESS = ("endpoint", "url", "path", "host", "port")
"""Keys of a destination that say where it leads."""
_ACCOUNT = ("api_key", "write_key", "project", "tenant", "topic", "channel", "dsn", "webhook", "headers")
"""Keys of a destination that say whose the events are, at a service that has many accounts."""
RESERVED = ("plugin", "audience", "level", "events", "rename", "timeout")
"""Keys of a destination that the core reads itself; all others are its reporter's settings."""


class DestinationConfig(NamedTuple):
    """One ``[telemetry.to.NAME]`` table."""

    name: str
    plugin: str
    audience: str = "shared"
    level: TelemetryLevel | None = None
    events: tuple[str, ...] | None = None
    rename: Mapping[str, str] = {}
    timeout: float = 10.0
    """Seconds that one call of the reporter may take."""
    settings: Mapping[str, Any] = {}
    """As written; ``NAME_env`` not yet replaced."""
    where: str = ""
    """The file, for messages."""

    @property
    def identity(self) -> str:
        """What a person agrees to when they agree to a destination. No key can be read from it, nor any secret."""
        where = (f"{key}={value}" for key, value in sorted(self.settings.items())
                 if key.removesuffix("_env") in ADDRESS)  # fmt: skip
        return " ".join((self.plugin, *where, *self.account))

    @property
    def account(self) -> list[str]:
        """Whose the events are where somebody else's service has many accounts: what says so, and a digest of it.

        Keys to what is the user's own come and go, and nobody has to be asked.
        """
        if self.audience == "private":
            return []
        return [f"{key}={_digest(value)}" for key, value in sorted(self.settings.items()) if key in _ACCOUNT]

    def resolved(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """The reporter's settings, secrets taken from the environment. Raises ConfigError."""
        settings: dict[str, Any] = {}
        for key, value in self.settings.items():
            if key.endswith("_env"):
                where, name = f"telemetry.to.{self.name}.{key}", key.removesuffix("_env")
                if not isinstance(value, str):
                    raise ConfigError(self.where, where, f"found {kind(value)}", "the name of a variable")
                if name in self.settings:
                    raise ConfigError(self.where, where, f"telemetry.to.{self.name}.{name} is there too", "one of them")
                if value not in environ:
                    said = repr(value) if value.isupper() else "what it names"  # which may be the secret itself
                    raise ConfigError(self.where, where, f"{said} is not set", "a set variable")
                settings[name] = environ[value]
            else:
                settings[key] = value
        return settings


def _digest(key: object) -> str:
    """What tells a key from others, and says nothing of it."""
    from hashlib import sha256  # few destinations have one

    text = repr(sorted(key.items()) if isinstance(key, dict) else key)
    return f"sha256:{sha256(text.encode()).hexdigest()[:12]}"


class Layer(NamedTuple):
    """One file's ``[telemetry]`` table, checked. None means that the file says nothing about it."""

    source: Path | None = None
    enabled: bool | None = None
    level: TelemetryLevel | None = None
    plugins: tuple[str, ...] = ()
    destinations: tuple[DestinationConfig, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = {}
    specs: tuple[Path, ...] = ()
    bounds: Bounds = DEFAULT
    sync: bool = False
    background: bool = False
    asks: bool = False
    """Whether the file has a ``[telemetry]`` table at all."""
    debug_consent_given: bool = False
    debug_consent_expires: datetime | None = None
    keys: tuple[str, ...] = ()
    """What it writes, key by key, such as ``telemetry.level`` and ``telemetry.to.team``."""

    @classmethod
    def of(cls, config: "TelemetryConfig | None") -> "Layer":
        """A ``config=`` argument as a layer."""
        if config is None:
            return cls()
        asked = {
            **{name: getattr(config, name) for name in ("plugins", "endpoint", "local_file", "sync", "background")},
            **{f"to.{to.name}": to for to in config.destinations},
            **{f"settings.{name}": True for name in config.settings},
            "bounds": config.bounds != DEFAULT,
        }
        return cls(
            config.source,
            None if "enabled" in config.unsaid else config.enabled,
            None if "level" in config.unsaid else config.level,
            config.plugins,
            config.destinations,
            config.settings,
            config.specs,
            config.bounds,
            config.sync,
            config.background,
            asks=True,
            keys=tuple(f"telemetry.{key}" for key, said in asked.items() if said),
        )


def read_table(path: Path) -> dict[str, Any]:
    """The TOML in ``path``; empty where there is no such file. Raises ConfigError."""
    try:
        return toml.loads(files.read(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as fault:
        raise ConfigError(path, "", f"cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise ConfigError(path, "", f"cannot be read: {fault}") from None
    except ValueError as fault:
        raise ConfigError(path, "", f"is not valid TOML: {fault}") from None
    except RecursionError:
        raise ConfigError(path, "", "is nested too deeply") from None


_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "enabled": (bool, "true or false"),
    "level": (str, "one of off, minimal, standard, debug"),
    "plugins": (list, "a list of names"),
    "specs": (list, "a list of files"),
    "bounds": (dict, "a table [telemetry.bounds]"),
    "sync": (bool, "true or false"),
    "background": (bool, "true or false"),
    "endpoint": (str, "a URL"),
    "local_file": (str, "a path"),
    "to": (dict, "tables [telemetry.to.NAME]"),
    "settings": (dict, "tables [telemetry.settings.PLUGIN]"),
    "debug_consent_given": (bool, "true or false"),
    "debug_consent_expires": (datetime, "a date and time"),
}
_DESTINATION_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "plugin": (str, "the name of a reporter plugin"),
    "audience": (str, "'shared' or 'private'"),
    "level": (str, "one of off, minimal, standard, debug"),
    "events": (list, "a list of event names"),
    "rename": (dict, "a table of names"),
    "timeout": ((int, float), "seconds"),
}
_FOR_EVER = 1e9
"""Seconds. TOML knows whole numbers of any size, and infinity."""
_HISTORY, DETECTOR = "history", "detector-"
"""Destinations that are built in: one of that name, and those whose names begin so."""


def is_built_in(destination: str) -> bool:
    """Whether it is none of a file or of a program: the history, or a detector. It never leaves this machine."""
    return destination == _HISTORY or destination.startswith(DETECTOR)


def load_layer(path: Path) -> Layer:
    """The ``[telemetry]`` table of a file, checked. Raises ConfigError."""
    table = read_table(path).get("telemetry")
    if table is None:
        return Layer(source=path)
    if not isinstance(table, dict):
        raise ConfigError(path, "telemetry", f"found {type(table).__name__}", "a table [telemetry]")
    for key, value in table.items():
        _check(path, "telemetry", key, value, _KEYS, closed=True)
    for key in ("plugins", "specs"):
        _check_names(path, f"telemetry.{key}", table.get(key, []))
    expires = table.get("debug_consent_expires")
    return Layer(
        source=path,
        enabled=table.get("enabled"),
        level=TelemetryLevel.parse(table["level"], path, "telemetry.level") if "level" in table else None,
        plugins=tuple(table.get("plugins", ())),
        destinations=_destinations(path, table),
        settings=_tables(path, "telemetry.settings", table.get("settings", {})),
        specs=tuple(path.parent / expanded(path, "telemetry.specs", name) for name in table.get("specs", ())),
        bounds=_bounds(path, table.get("bounds", {})),
        sync=table.get("sync", False),
        background=table.get("background", False),
        asks=True,
        debug_consent_given=table.get("debug_consent_given", False),
        debug_consent_expires=expires.replace(tzinfo=expires.tzinfo or timezone.utc) if expires else None,
        keys=tuple(_written(table)),
    )


def _written(table: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a ``[telemetry]`` table, and those of its tables."""
    for key, value in table.items():
        yield from (f"telemetry.{key}.{name}" for name in value) if isinstance(value, dict) else (f"telemetry.{key}",)


def _check(
    path: Path, prefix: str, key: str, value: object, keys: Mapping[str, tuple[Any, str]], *, closed: bool
) -> None:
    if key not in keys:
        if closed:
            raise ConfigError(
                path, f"{prefix}.{key}", "unknown key", "one of " + ", ".join(keys), nearest=nearest(key, keys)
            )
        return
    kind, expected = keys[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(path, f"{prefix}.{key}", f"found {value!r}", expected)


def _bounds(path: Path, table: Mapping[str, Any]) -> Bounds:
    for key, value in table.items():
        _check(path, "telemetry.bounds", key, value, dict.fromkeys(NAMES, (int, "a whole number")), closed=True)
        if value < 1:
            raise ConfigError(path, f"telemetry.bounds.{key}", f"found {value}", "1 or more")
    return Bounds(**table)


def _tables(path: Path, key: str, tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    for name, entry in tables.items():
        if not isinstance(entry, dict):
            raise ConfigError(path, f"{key}.{name}", f"found {kind(entry)}", "a table")
    return {name: dict(entry) for name, entry in tables.items()}


def expanded(path: Path, key: str, name: str) -> Path:
    """``name`` as a path, ``~`` replaced. Raises ConfigError."""
    try:
        return Path(name).expanduser()
    except (RuntimeError, ValueError):
        raise ConfigError(path, key, f"found {name!r}", "a path; there is no such user") from None


def _check_names(path: Path, key: str, names: list[object]) -> None:
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise ConfigError(path, f"{key}[{number}]", f"found {name!r}", "a name")


def _destinations(path: Path, table: Mapping[str, Any]) -> tuple[DestinationConfig, ...]:
    """The ``to`` tables, and what the short forms ``endpoint`` and ``local_file`` stand for."""
    tables = _tables(path, "telemetry.to", table.get("to", {}))
    for short, name, key in (("endpoint", "http", "endpoint"), ("local_file", "file", "path")):
        if short in table:
            if key in tables.setdefault(name, {}):
                raise ConfigError(path, f"telemetry.{short}", f"telemetry.to.{name}.{key} is there too", "one of them")
            tables[name][key] = table[short]
        elif not isinstance(value := tables.get(name, {}).get(key, ""), str):
            raise ConfigError(path, f"telemetry.to.{name}.{key}", f"found {value!r}", _KEYS[short][1])
    return tuple(_destination(path, name, entry) for name, entry in tables.items())


def _destination(path: Path, name: str, entry: Mapping[str, Any]) -> DestinationConfig:
    prefix = f"telemetry.to.{name}"
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(path, prefix, f"found the name {name!r}", "letters, digits, - and _ only")
    if is_built_in(name) or name == "detectors" or name.startswith("code-"):
        raise ConfigError(path, prefix, f"found the name {name!r}", "another one: cmdorc-telemetry uses it itself")
    for key, value in entry.items():
        _check(path, prefix, key, value, _DESTINATION_KEYS, closed=False)
    audience = entry.get("audience", "shared")
    if audience not in ("shared", "private"):
        raise ConfigError(path, f"{prefix}.audience", f"found {audience!r}", "'shared' or 'private'",
                          nearest=nearest(audience, ("shared", "private")))  # fmt: skip
    for key in (*ADDRESS, *_ACCOUNT):
        if f"{key}_env" in entry and audience == "shared":
            # Whoever sets a variable, such as a project, would lead a yes elsewhere.
            raise ConfigError(path, f"{prefix}.{key}_env", f"found {entry[f'{key}_env']!r}",
                              f"{key} itself: whom you share with must stand in your file; a variable may hold "
                              "secrets, or say where a destination of your own is (audience = 'private')")  # fmt: skip
    if "events" in entry:
        _check_names(path, f"{prefix}.events", entry["events"])
    for field_name, wanted in entry.get("rename", {}).items():
        if not isinstance(wanted, str):
            raise ConfigError(path, f"{prefix}.rename.{field_name}", f"found {wanted!r}", "a name")
    if not 0 < entry.get("timeout", 1) < _FOR_EVER:
        raise ConfigError(path, f"{prefix}.timeout", f"found {entry['timeout']!r}", "seconds above 0")
    return DestinationConfig(
        name=name,
        plugin=entry.get("plugin", name),
        audience=audience,
        level=TelemetryLevel.parse(entry["level"], path, f"{prefix}.level") if "level" in entry else None,
        events=tuple(entry["events"]) if "events" in entry else None,
        rename=entry.get("rename", {}),
        timeout=float(entry.get("timeout", 10.0)),
        settings={key: value for key, value in entry.items() if key not in RESERVED},
        where=str(path),
    )
