"""The decision that a person made, and the file that keeps it: ``consent.toml``.

What is left of it after everything that can lower it is in ``policy.py``.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from . import clock, files
from .config import (
    DestinationConfig,
    Home,
    TelemetryLevel,
    read_table,
)
from .errors import ConfigError, ConsentError, StorageError

if TYPE_CHECKING:
    from .spec import TelemetrySpec

CORE_SPEC = "cmdorc.core"
DEBUG_DAYS = timedelta(days=30)


class Grant(NamedTuple):
    """What a person said about one spec."""

    record: bool = False
    """Whether events may be written down on this machine."""
    share: TelemetryLevel = TelemetryLevel.OFF
    """How much of them may go to shared destinations."""
    decided_at: str = ""
    fields: Mapping[str, str] = {}
    """``event/property`` (``*/name`` for base fields) → the declaration that was shown."""
    destinations: Mapping[str, str] = {}
    """Name → identity of each shared destination that was shown."""
    debug_expires: datetime | None = None


class Consent(NamedTuple):
    """The file ``consent.toml``: every decision, and what older generations allowed."""

    generation: str = ""
    grants: Mapping[str, Grant] = {}
    generations: Mapping[str, Mapping[str, str]] = {}
    """Generation → spec name → the level that was shared under it."""

    def level_of(self, generation: str, spec: str) -> TelemetryLevel:
        """What ``generation`` allowed to be shared of ``spec``; OFF for one that is not known."""
        return TelemetryLevel(self.generations.get(generation, {}).get(spec, "off"))


def load_consent(home: Home) -> Consent | None:
    """The recorded decision; None where nobody decided. Raises ConsentError: then nothing may be shared."""
    try:
        if not home.consent.exists():
            return None
        table = read_table(home.consent)
        if not table:
            raise ValueError("it is empty")
        if hasattr(os, "geteuid") and home.consent.stat().st_uid != os.geteuid():
            raise ValueError("it belongs to somebody else")
        grants = {name: _grant(entry) for name, entry in table["spec"].items()}
        generations = {key: {spec: TelemetryLevel(level).value for spec, level in levels.items()}
                       for key, levels in table.get("generations", {}).items()}  # fmt: skip
        return Consent(str(table["generation"]), grants, generations)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OSError) as fault:
        raise ConsentError(
            f"{home.consent} cannot be used ({fault}): nothing is recorded or sent. "
            "`cmdorc telemetry opt-out` or `opt-in` writes a new decision"
        ) from fault


def _grant(entry: Mapping[str, Any]) -> Grant:
    record, expires = entry["record"], entry.get("debug_expires")
    if not isinstance(record, bool) or not isinstance(expires, datetime | None):
        raise ValueError("a value of the wrong type")
    if expires is not None and expires.tzinfo is None:
        raise ValueError("debug_expires has no time zone")
    return Grant(record, TelemetryLevel(entry["share"]), str(entry.get("decided_at", "")),
                 dict(entry.get("fields", {})), dict(entry.get("destinations", {})), expires)  # fmt: skip


def save_grant(home: Home, spec: str, grant: Grant) -> Consent:
    """Record a decision, as a new generation. Raises StorageError; a file that cannot be read is replaced."""
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    try:
        with files.FileLock(home.telemetry / "consent.lock"):
            try:
                old = load_consent(home) or Consent()
            except ConsentError:
                old = Consent()
            if files.is_foreign(home.consent):
                files.set_aside(home.consent)
            consent = _decided(old, spec, grant, generation=os.urandom(8).hex())
            files.replace(home.consent, _document(consent).encode())
    except OSError as fault:
        raise StorageError(f"{home.telemetry} cannot be written: {fault.strerror}") from fault
    return consent


def _decided(old: Consent, spec: str, grant: Grant, *, generation: str) -> Consent:
    """``old`` with a new decision. Pure.

    A lesser one lowers what older generations allowed, too, and a no ends it: nothing recorded under them is sent
    again, whatever is decided later.
    """
    most = grant.share if grant.record else TelemetryLevel.OFF
    known = {
        key: {**levels, spec: min(most, TelemetryLevel(levels.get(spec, "off"))).value}
        for key, levels in old.generations.items()
    }
    grants = {**old.grants, spec: grant}
    known[generation] = {name: each.share.value for name, each in grants.items() if each.record}
    left = {key: {name: level for name, level in levels.items() if level != "off"} for key, levels in known.items()}
    return Consent(generation, grants, {key: levels for key, levels in left.items() if levels or key == generation})


def _document(consent: Consent) -> str:
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `cmdorc telemetry`. Change it with opt-in and opt-out."))
    document["generation"] = consent.generation
    document["spec"] = {name: _table(each) for name, each in consent.grants.items()}
    document["generations"] = {key: dict(levels) for key, levels in consent.generations.items()}
    return tomlkit.dumps(document)


def _table(grant: Grant) -> dict[str, Any]:
    table: dict[str, Any] = {"record": grant.record, "share": grant.share.value, "decided_at": grant.decided_at}
    if grant.debug_expires is not None:
        table["debug_expires"] = grant.debug_expires
    return {**table, "destinations": dict(grant.destinations), "fields": dict(grant.fields)}


def waiting_fields(spec: "TelemetrySpec", grant: Grant | None) -> frozenset[str]:
    """The fields of ``spec`` that wait for a yes: declared otherwise than shown, or not shown. ``event/name``."""
    if grant is None:
        return frozenset()
    return frozenset(name for name, text in declarations(spec).items() if grant.fields.get(name) != text)


def declarations(spec: "TelemetrySpec") -> dict[str, str]:
    """Every field of ``spec`` that could be shared → what a person agrees to with it.

    Keys are ``event/name``, and ``*/name`` for base fields: names may hold dots, and no slash.
    """
    from .spec import BASE

    events = sorted(spec.events, key=lambda event: event.major)  # the latest version of an event has the say
    base = {f"*/{name}": spec.declaration(event, name) for event in events[:1] for name in BASE}
    own = {f"{event.name}/{name}": spec.declaration(event, name) for event in events
           for name, prop in event.properties.items() if prop.audience == "shared"}  # fmt: skip
    return {**base, **own}


def new_grant(
    spec: "TelemetrySpec", share: TelemetryLevel, destinations: Collection[DestinationConfig], now: datetime
) -> Grant:
    """A yes, now, to what ``spec`` declares at ``share`` and to the shared ones of ``destinations``. OFF: local."""
    shown = {to.name: to.identity for to in destinations if to.audience == "shared"}
    expires = now + DEBUG_DAYS if share is TelemetryLevel.DEBUG else None
    return Grant(True, share, clock.iso(now.timestamp()), declarations(spec), shown, expires)
