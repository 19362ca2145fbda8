"""The decision: who made it, what it covers, and what remains of it after every layer that can lower it.

``decide`` is pure. Nothing but a person's recorded yes, or an operator's variable where nobody decided, can
raise anything; files, arguments and servers only lower.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from . import clock, files
from .bounds import DEFAULT
from .config import (
    DestinationConfig,
    Home,
    Layer,
    TelemetryLevel,
    home_dir,
    load_layer,
    read_table,
)
from .errors import ConfigError, ConsentError, StorageError

if TYPE_CHECKING:
    from .argument import TelemetryConfig
    from .spec import TelemetrySpec

CORE_SPEC = "cmdorc.core"
DEBUG_DAYS = timedelta(days=30)
_CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "TF_BUILD", "JENKINS_URL",
                 "TEAMCITY_VERSION", "TRAVIS", "APPVEYOR")  # fmt: skip
_FALSE = ("", "0", "false", "no", "off")


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


class Policy(NamedTuple):
    """What is in force for one spec."""

    record: bool = False
    share: TelemetryLevel = TelemetryLevel.OFF
    generation: str = ""
    decided_by: Literal["nobody", "you", "operator"] = "nobody"
    decided_at: str = ""
    limits: tuple[str, ...] = ()
    """What lowered the decision, in words."""
    ignored: tuple[str, ...] = ()
    """What a layer tried and may not do, in words."""

    @property
    def stamp(self) -> str:
        """What a journal segment carries: the decision that it was recorded under, and its program's level."""
        return f"{self.generation}/{self.share.value}"


def truthy(value: str | None) -> bool:
    """Whether a variable such as ``DO_NOT_TRACK`` is set to something that means yes."""
    return value is not None and value.strip().lower() not in _FALSE


def in_ci(environ: Mapping[str, str]) -> bool:
    """Whether this looks like a CI machine."""
    return any(truthy(environ.get(name)) for name in _CI_VARIABLES)


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


def decide(
    consent: Consent | None,
    *,
    user: Layer,
    project: Layer | None = None,
    argument: Layer | None = None,
    environ: Mapping[str, str],
    now: datetime,
    spec: str = CORE_SPEC,
    other: Layer | None = None,
) -> Policy:
    """The policy for ``spec``: the least of the grant, the files, the argument and the environment. Pure.

    Where there is an operator's file beside the user's, ``user`` is the one that says which plugins and destinations
    there are (see :class:`Situation`), and ``other`` is the other one, which only lowers.
    """
    grant = consent.grants.get(spec) if consent is not None else None
    said = environ.get("CMDORC_TELEMETRY")
    wanted, note = _variable(said)
    limits: list[str] = []
    ignored: list[str] = [note] if note else []
    if grant is not None:
        share = grant.share if grant.record else TelemetryLevel.OFF
        policy = Policy(grant.record, share, consent.generation if consent else "", "you", grant.decided_at)
        if share is TelemetryLevel.DEBUG and (grant.debug_expires is None or grant.debug_expires <= now):
            policy = _lowered(policy, TelemetryLevel.STANDARD, "DEBUG consent: expired", limits)
        if wanted is not None:
            policy = _lowered(policy, wanted, "environment: CMDORC_TELEMETRY", limits)
    elif wanted is not None and wanted is not TelemetryLevel.OFF and spec == CORE_SPEC:
        level = min(wanted, TelemetryLevel.STANDARD)
        if wanted is TelemetryLevel.DEBUG:
            ignored.append("CMDORC_TELEMETRY asks for level debug; only a person can grant that")
        policy = Policy(True, level, f"operator-{level.value}", "operator")
    else:
        policy = Policy()
    layers = [("your file", user), ("operator's file", other)]
    if other is not None and consent is None:
        layers = [("operator's file", user), ("your file", other)]
    for name, layer in (*layers, ("project file", project), ("argument", argument)):
        if layer is not None:
            policy = _apply(policy, layer, name, limits, ignored)
            if layer is not user and name != "your file":
                ignored.extend(_wishes(layer, name))
    if truthy(environ.get("DO_NOT_TRACK")):
        policy = _lowered(policy, TelemetryLevel.OFF, "environment: DO_NOT_TRACK", limits)
    return Policy(policy.record, policy.share, policy.generation, policy.decided_by, policy.decided_at,
                  tuple(limits), tuple(ignored))  # fmt: skip


def _variable(said: str | None) -> tuple[TelemetryLevel | None, str]:
    """What CMDORC_TELEMETRY asks for; what it cannot mean counts as OFF."""
    if said is None or not said.strip():
        return None, ""
    try:
        return TelemetryLevel.parse(said.strip(), "environment", "CMDORC_TELEMETRY"), ""
    except ConfigError as fault:
        return TelemetryLevel.OFF, str(fault)


def _lowered(policy: Policy, level: TelemetryLevel, why: str, limits: list[str]) -> Policy:
    if level is TelemetryLevel.OFF:
        if policy.record:
            limits.append(f"{why} (off)")
        return Policy(False, TelemetryLevel.OFF, policy.generation, policy.decided_by, policy.decided_at)
    if level < policy.share:
        limits.append(f"{why} ({level.value})")
        return Policy(policy.record, level, policy.generation, policy.decided_by, policy.decided_at)
    return policy


def _apply(policy: Policy, layer: Layer, name: str, limits: list[str], ignored: list[str]) -> Policy:
    if layer.enabled is False:
        policy = _lowered(policy, TelemetryLevel.OFF, f"{name}: enabled = false", limits)
    if layer.level is not None:
        if policy.share < layer.level and policy.record and policy.decided_by == "you":
            ignored.append(f"{layer.source or name} asks for level {layer.level.value}; only your own yes can raise it")
        policy = _lowered(policy, layer.level, f"{name}: level", limits)
    return policy


def _wishes(layer: Layer, name: str) -> Iterator[str]:
    for what, entries in (("plugin", layer.plugins), ("destination", [to.name for to in layer.destinations])):
        for entry in entries:
            yield f"{layer.source or name} asks for {what} {entry}; only your own file can"
    if layer.bounds != DEFAULT or layer.sync or layer.background:
        yield f"{layer.source or name} sets bounds, sync or background; only your own file can"


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

    events = sorted(spec.events, key=lambda event: event.version)  # the latest version of an event has the say
    base = {f"*/{name}": spec.declaration(event, name) for event in events[:1] for name in BASE}
    own = {f"{event.name}/{name}": spec.declaration(event, name) for event in events
           for name, prop in event.properties.items() if prop.audience == "shared"}  # fmt: skip
    return {**base, **own}


def allowed_destinations(
    policy: Policy, grant: Grant | None, configured: Collection[DestinationConfig]
) -> tuple[list[DestinationConfig], list[DestinationConfig]]:
    """The configured destinations that may receive something, and those that wait for a yes of their own."""
    if not policy.record:
        return [], []
    allowed, waiting = [], []
    for to in configured:
        shown = policy.decided_by == "operator" or (
            grant is not None and grant.destinations.get(to.name) == to.identity
        )
        if to.audience == "private" or shown:
            allowed.append(to)
        else:
            waiting.append(to)
    return allowed, waiting


def new_grant(
    spec: "TelemetrySpec", share: TelemetryLevel, destinations: Collection[DestinationConfig], now: datetime
) -> Grant:
    """A yes, now, to what ``spec`` declares at ``share`` and to the shared ones of ``destinations``. OFF: local."""
    shown = {to.name: to.identity for to in destinations if to.audience == "shared"}
    expires = now + DEBUG_DAYS if share is TelemetryLevel.DEBUG else None
    return Grant(True, share, clock.iso(now.timestamp()), declarations(spec), shown, expires)


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
