"""The decision that a person made, and the file that keeps it: ``consent.toml``.

What is left of it after everything that can lower it is in ``policy.py``; how what specs declare now compares with it,
in ``declarations.py``.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from . import clock, files
from .config import TelemetryLevel, read_table
from .errors import ConfigError, ConsentError, StorageError
from .home import Home


class Grant(NamedTuple):
    """What a person said about one spec."""

    record: bool = False
    """Whether events may be written down on this machine."""
    share: TelemetryLevel = TelemetryLevel.OFF
    """How much of them may go to shared destinations."""
    decided_at: str = ""
    fields: Mapping[str, str] = {}
    """``event/property`` (``*/name`` for base fields) → the declaration that was shown."""
    declined: Mapping[str, str] = {}
    """Likewise, what got a no when it was asked for alone: withheld, and not asked for again as it is."""
    debug_expires: datetime | None = None

    @property
    def moment(self) -> datetime | None:
        """``decided_at`` as a moment; None where it says nothing. Raises ValueError for something else."""
        if not self.decided_at:
            return None
        moment = datetime.fromisoformat(self.decided_at.replace("Z", "+00:00"))
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc)

    def level(self, now: datetime) -> TelemetryLevel:
        """How much may be shared at that moment: DEBUG ends by itself."""
        if not self.record:
            return TelemetryLevel.OFF
        lasts = self.debug_expires is not None and now < self.debug_expires
        return self.share if lasts else min(self.share, TelemetryLevel.STANDARD)


class Consent(NamedTuple):
    """The file ``consent.toml``: every decision, and what older generations allowed."""

    generation: str = ""
    grants: Mapping[str, Grant] = {}
    generations: Mapping[str, Mapping[str, str]] = {}
    """Generation → spec name → the level that was shared under it."""
    destinations: Mapping[str, str] = {}
    """Name → identity of each shared destination that was shown and agreed to."""
    declined: Mapping[str, str] = {}
    """Likewise, of those that got a no when they were asked for alone."""
    later_fields: Mapping[str, Mapping[str, Collection[str]]] = {}
    """Generation → spec name → the fields that were agreed to after it only."""
    later_destinations: Mapping[str, Collection[str]] = {}
    """Generation → the destinations that were agreed to after it only."""

    def level_of(self, generation: str, spec: str) -> TelemetryLevel:
        """What ``generation`` allowed to be shared of ``spec``; OFF for one that is not known."""
        return TelemetryLevel(self.generations.get(generation, {}).get(spec, "off"))

    def shares(self, generation: str) -> bool:
        """Whether anything recorded under ``generation`` may still go to somebody else."""
        return any(level != "off" for level in self.generations.get(generation, {}).values())

    def lacking(self, generation: str, spec: str) -> frozenset[str]:
        """The fields of ``spec`` that nobody had agreed to under ``generation``: its events go without them."""
        return frozenset(self.later_fields.get(generation, {}).get(spec, ()))

    def asks(self, destination: str, identity: str) -> bool:
        """Whether a destination that was agreed to leads elsewhere, and has no answer yet: a slip can be put right."""
        agreed = self.destinations.get(destination, identity)
        return identity not in (agreed, self.declined.get(destination))

    def reaches(self, generation: str, destination: str) -> bool:
        """Whether what was recorded under ``generation`` may go to a destination that was agreed to since."""
        return destination not in self.later_destinations.get(generation, ())


def load_consent(home: Home) -> Consent | None:
    """The recorded decision; None where nobody decided. Raises ConsentError: then nothing may be shared."""
    path = home.consent
    try:
        try:
            os.lstat(path)  # a link that leads nowhere is a decision that cannot be had
        except (FileNotFoundError, NotADirectoryError):
            return None
        _check_owner(home)
        table = read_table(path)
        if not table:
            raise ValueError("it is empty")
        return _consent(table)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OSError) as fault:
        why = fault.found if isinstance(fault, ConfigError) else getattr(fault, "strerror", fault)
        raise ConsentError(
            f"{path} cannot be used ({why}): nothing is recorded or sent. "
            f"`{home.application.command} opt-out` or `opt-in` writes a new decision"
        ) from fault


def _check_owner(home: Home) -> None:
    """Raises ValueError where somebody else may have written the decision, OSError where nobody can tell."""
    if exposed := files.exposure(home.consent):
        raise ValueError(exposed)
    if exposed := files.exposure(home.telemetry, roots=True):
        raise ValueError(f"of {home.telemetry}: {exposed}")


def _consent(table: Mapping[str, Any]) -> Consent:
    later = table.get("later", {})
    return Consent(
        str(table["generation"]),
        {name: _grant(entry) for name, entry in table["spec"].items()},
        {key: {spec: TelemetryLevel(level).value for spec, level in levels.items()}
         for key, levels in table.get("generations", {}).items()},
        _texts(table.get("destinations", {})),
        _texts(table.get("declined", {})),
        {key: {spec: _names(fields) for spec, fields in specs.items()}
         for key, specs in later.get("fields", {}).items()},
        {key: _names(names) for key, names in later.get("destinations", {}).items()},
    )  # fmt: skip


def _grant(entry: Mapping[str, Any]) -> Grant:
    record, expires = entry["record"], entry.get("debug_expires")
    if not isinstance(record, bool) or not isinstance(expires, datetime | None):
        raise ValueError("a value of the wrong type")
    if expires is not None and expires.tzinfo is None:
        raise ValueError("debug_expires has no time zone")
    grant = Grant(record, TelemetryLevel(entry["share"]), str(entry.get("decided_at", "")),
                  _texts(entry.get("fields", {})), _texts(entry.get("declined", {})), expires)  # fmt: skip
    grant.moment  # noqa: B018 - which is looked at later, and must be one
    return grant


def _texts(table: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(text, str) for text in table.values()):
        raise ValueError("a value of the wrong type")
    return dict(table)


def _names(names: Any) -> tuple[str, ...]:
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("a value of the wrong type")
    return tuple(names)


def save_decision(
    home: Home,
    grants: Mapping[str, Grant],
    destinations: Mapping[str, str] | None = None,
    *,
    declined: Mapping[str, str] | None = None,
    since: str | None = None,
) -> Consent:
    """Record what was decided about some specs, as a new generation; what is not given stays.

    ``since`` is the generation of the decision that this one adds to. Raises StorageError, and ConsentError where
    ``since`` is not the last one any more. Without it, a file that cannot be read is replaced.
    """

    def change(old: Consent) -> Consent:
        if since not in (None, old.generation):
            raise ConsentError("it was decided otherwise in the meantime; nothing was changed")
        return _decided(old, grants, destinations, declined, now=_now())

    return _rewrite(home, change)


def renew(home: Home) -> Consent:
    """A new generation under the same decision: what was recorded before is shared with nobody any more.

    Raises StorageError, and ConsentError where there is no decision to go on with.
    """

    def change(old: Consent) -> Consent:
        if not old.grants:
            raise ConsentError(f"{home.consent} holds no decision")
        nothing = old._replace(generations={}, later_fields={}, later_destinations={})
        return _decided(nothing, {}, None, None, now=_now())

    return _rewrite(home, change)


def _now() -> datetime:
    return datetime.fromtimestamp(clock.wall(), timezone.utc)


def _rewrite(home: Home, change: Callable[[Consent], Consent]) -> Consent:
    """Replace the recorded decision by what ``change`` makes of it, one process at a time."""
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    try:
        if files.exposure(home.telemetry, roots=True):  # or the new decision could not be used either
            os.chmod(home.telemetry, 0o700)
        with files.FileLock(home.telemetry / "consent.lock"):
            try:
                old = load_consent(home) or Consent()
            except ConsentError:
                old = Consent()
            consent = change(old)
            if files.is_foreign(home.consent):
                files.set_aside(home.consent)
            files.replace(home.consent, _document(consent, home.application.command).encode())
    except OSError as fault:
        raise StorageError(f"{home.telemetry} cannot be written: {fault.strerror}") from fault
    return consent


def _decided(
    old: Consent,
    grants: Mapping[str, Grant],
    destinations: Mapping[str, str] | None,
    declined: Mapping[str, str] | None,
    *,
    now: datetime,
) -> Consent:
    """``old`` with a new decision, a new generation.

    A lesser one lowers what older generations allowed, too, as does a yes to DEBUG that has expired, and a no ends it:
    nothing recorded under them is sent again, whatever is decided later. What is agreed to now for the first time is
    not agreed to for what was recorded under them.
    """
    everything = {**old.grants, **grants}
    shares = any(grant.record and grant.share is not TelemetryLevel.OFF for grant in everything.values())
    agreed = (old.destinations if destinations is None else destinations) if shares else {}
    refused = (old.declined if declined is None else declined) if shares else {}
    most = {spec: grant.level(now) for spec, grant in old.grants.items()}
    for spec, grant in grants.items():
        share = grant.share if grant.record else TelemetryLevel.OFF
        most[spec] = min(share, most.get(spec, TelemetryLevel.DEBUG))
    fields = {spec: _news(old.grants.get(spec, Grant()), grant) for spec, grant in grants.items()}
    new = {name for name, identity in agreed.items() if old.destinations.get(name) != identity}
    generations: dict[str, Mapping[str, str]] = {}
    later_fields: dict[str, Mapping[str, Collection[str]]] = {}
    later_destinations: dict[str, Collection[str]] = {}
    for key, levels in old.generations.items():
        least = {spec: min(TelemetryLevel(level), most.get(spec, TelemetryLevel.DEBUG)).value
                 for spec, level in levels.items()}  # fmt: skip
        left = {spec: level for spec, level in least.items() if level != "off"}
        if not left:
            continue
        generations[key] = left
        lacking = {spec: tuple(sorted(old.lacking(key, spec) | fields.get(spec, set()))) for spec in left}
        later_fields[key] = {spec: names for spec, names in lacking.items() if names}
        later_destinations[key] = tuple(sorted({*old.later_destinations.get(key, ()), *new}))
    generation = os.urandom(8).hex()
    generations[generation] = {
        spec: grant.share.value
        for spec, grant in everything.items()
        if grant.record and grant.share is not TelemetryLevel.OFF
    }
    return Consent(generation, everything, generations, agreed, refused, later_fields, later_destinations)


def _news(old: Grant, new: Grant) -> set[str]:
    """The fields that ``new`` agrees to and ``old`` did not."""
    if not new.fields:
        return set()
    from .spec.compare import ASKS, compare_declarations

    return {name for name, text in new.fields.items() if compare_declarations(shown(old, name), text) in ASKS}


def shown(grant: Grant, name: str) -> str | None:
    """What was shown of a field; of one of an earlier version, ``event@2/name``, also when it was the latest."""
    event, _, field = name.partition("/")
    return grant.fields.get(name, grant.fields.get(f"{event.partition('@')[0]}/{field}"))


def _document(consent: Consent, command: str) -> str:
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(f"Written by `{command}`. Change it with opt-in and opt-out."))
    document["generation"] = consent.generation
    # A file that ends too early must not grant more than all of it: what restricts comes first, the grants last.
    document["later"] = {
        "fields": {key: {spec: list(names) for spec, names in specs.items()}
                   for key, specs in consent.later_fields.items()},
        "destinations": {key: list(names) for key, names in consent.later_destinations.items()},
    }  # fmt: skip
    document["declined"] = dict(consent.declined)
    document["destinations"] = dict(consent.destinations)
    document["generations"] = {key: dict(levels) for key, levels in consent.generations.items()}
    document["spec"] = {name: _table(each) for name, each in consent.grants.items()}
    return tomlkit.dumps(document)


def _table(grant: Grant) -> dict[str, Any]:
    table: dict[str, Any] = {"record": grant.record, "share": grant.share.value, "decided_at": grant.decided_at}
    if grant.debug_expires is not None:
        table["debug_expires"] = grant.debug_expires
    return {**table, "fields": dict(grant.fields), "declined": dict(grant.declined)}
