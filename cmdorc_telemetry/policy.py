"""What is in force: the decision after every layer that can lower it.

``decide`` is pure. Nothing but a person's recorded yes, or an operator's variable where nobody decided, can
raise anything; files, arguments and servers only lower.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from .bounds import DEFAULT
from .config import DestinationConfig, Layer, TelemetryLevel
from .consent import CORE_SPEC, Consent, Grant
from .errors import ConfigError

_CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "TF_BUILD", "JENKINS_URL",
                 "TEAMCITY_VERSION", "TRAVIS", "APPVEYOR")  # fmt: skip
_FALSE = ("", "0", "false", "no", "off")


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
