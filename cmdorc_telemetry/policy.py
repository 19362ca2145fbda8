"""What is in force: the decision after every layer that can lower it.

``decide`` is pure. Nothing but a person's recorded yes, or an operator's variable where nobody decided, can
raise anything; files, arguments and servers only lower.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from .application import CMDORC, Application
from .config import DestinationConfig, Layer, TelemetryLevel
from .consent import Consent
from .errors import ConfigError

CI_VARIABLES = (
    # what several systems set
    "CI", "BUILD_ID", "BUILD_NUMBER", "CI_APP_ID", "CI_BUILD_ID", "CI_BUILD_NUMBER", "CI_NAME",
    "CONTINUOUS_INTEGRATION", "RUN_ID",
    # what one system sets
    "AC_APPCIRCLE", "AGOLA_GIT_REF", "ALPIC_HOST", "APPCENTER_BUILD_ID", "APPVEYOR", "BITBUCKET_COMMIT", "BITRISE_IO",
    "BUDDY_WORKSPACE_ID", "BUILDER_OUTPUT", "BUILDKITE", "CF_BUILD_ID", "CF_PAGES", "CIRCLECI", "CIRRUS_CI",
    "CI_XCODE_PROJECT", "CM_BUILD_ID", "CODEBUILD_BUILD_ARN", "DRONE", "DSARI", "EARTHLY_CI", "EAS_BUILD",
    "GERRIT_PROJECT", "GITEA_ACTIONS", "GITHUB_ACTIONS", "GITLAB_CI", "GO_PIPELINE_LABEL", "HARNESS_BUILD_ID",
    "HUDSON_URL", "JENKINS_URL", "LAYERCI", "MAGNUM", "NETLIFY", "NEVERCODE", "NOW_BUILDER", "PROW_JOB_ID",
    "RELEASE_BUILD_ID", "RENDER", "SAILCI", "SCREWDRIVER", "SEMAPHORE", "STRIDER", "TASK_ID", "TEAMCITY_VERSION",
    "TF_BUILD", "TRAVIS", "VELA", "VERCEL", "WORKERS_CI", "XCS", "bamboo_planKey",
)  # fmt: skip
"""Each of these says that no person is there to be asked; ``CI`` may also say that one is."""
_FALSE = ("", "0", "false", "no", "off")
_CLOCK_SKEW = timedelta(minutes=1)
"""By how much a decision may be ahead of the clock: another machine's, with the same home, may be fast."""


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
    trouble: str = ""
    """Why a decision cannot be used, in words, and the way out; then nothing is recorded or sent."""
    cap: TelemetryLevel = TelemetryLevel.DEBUG
    """The most that files, argument and environment allow, whatever was decided about a spec."""

    @property
    def stamp(self) -> str:
        """What a journal segment carries: the decision that it was recorded under, and its program's cap."""
        return f"{self.generation}/{self.cap.value}"


def truthy(value: str | None) -> bool:
    """Whether a variable such as ``DO_NOT_TRACK`` is set to something that means yes."""
    return value is not None and value.strip().lower() not in _FALSE


def in_ci(environ: Mapping[str, str]) -> bool:
    """Whether this looks like a CI machine. ``CI=false`` says that it is none, whatever else is set."""
    denied = environ.get("CI", "").strip() and not truthy(environ.get("CI"))
    return not denied and any(truthy(environ.get(name)) for name in CI_VARIABLES)


def decide(
    consent: Consent | None,
    *,
    user: Layer,
    project: Layer | None = None,
    argument: Layer | None = None,
    environ: Mapping[str, str],
    now: datetime,
    spec: str = "",
    other: Layer | None = None,
    application: Application = CMDORC,
) -> Policy:
    """The policy for ``spec``: the least of the grant, the files, the argument and the environment. Pure.

    Without a name it is the first spec of ``application``, which an operator's variable covers where nobody decided.
    Where there is an operator's file beside the user's, ``user`` is the one that says which plugins and destinations
    there are (see :class:`Situation`), and ``other`` is the other one, which only lowers.
    """
    limits: list[str] = []
    ignored: list[str] = []
    variable = application.variable
    wanted, note = _variable(environ.get(variable), variable)
    if note:
        ignored.append(note)
    policy = granted = _granted(consent, wanted, now, spec, application, limits, ignored)
    if wanted is not None and granted.decided_by == "you" and not granted.trouble:
        if granted.share < wanted:
            ignored.append(f"environment: {variable}={wanted.value} raises nothing; only your own yes can")
        policy = _lowered(granted, wanted, f"environment: {variable}", limits)
    yours, operators = ("your file", user), ("operator's file", other)
    if other is not None and consent is None:
        yours, operators = ("your file", other), ("operator's file", user)
    for name, layer in (yours, operators, ("project file", project), ("argument", argument)):
        if layer is not None:
            policy = _lowered_by(layer, policy, name, limits)
            ignored += _raises(layer, granted, name)
            if layer is not user:
                ignored += _wishes(layer, name, "your own" if user is yours[1] else "the operator's")
    if truthy(environ.get("DO_NOT_TRACK")):
        policy = _lowered(policy, TelemetryLevel.OFF, "environment: DO_NOT_TRACK", limits)
    return policy._replace(limits=tuple(limits), ignored=tuple(ignored))


def _granted(
    consent: Consent | None, wanted: TelemetryLevel | None, now: datetime, spec: str, application: Application,
    limits: list[str], ignored: list[str],
) -> Policy:  # fmt: skip
    """What a person decided; or what the operator's variable grants where nobody decided anything."""
    if consent is None:
        if wanted in (None, TelemetryLevel.OFF) or spec not in ("", application.spec):
            return Policy()
        if wanted is TelemetryLevel.DEBUG:
            said = f"environment: {application.variable}=debug"
            ignored.append(f"{said} grants standard; only a person can grant more")
        level = min(wanted, TelemetryLevel.STANDARD)
        return Policy(True, level, f"operator-{level.value}", "operator", cap=level)
    grant = consent.grants.get(spec or application.spec)
    if grant is None:
        return Policy()
    policy = Policy(grant.record, grant.level(now), consent.generation, "you", grant.decided_at)
    if grant.record and policy.share < grant.share:
        limits.append(f"DEBUG consent: expired ({policy.share.value})")
    if grant.record and (moment := grant.moment) is not None and moment > now + _CLOCK_SKEW:
        trouble = (
            f"Your decision is of {grant.decided_at}, which is yet to come: nothing is recorded or sent until the "
            f"clock is right. If it is, `{application.command} opt-in` writes a new decision"
        )
        return policy._replace(record=False, share=TelemetryLevel.OFF, trouble=trouble)
    return policy


def _variable(said: str | None, name: str) -> tuple[TelemetryLevel | None, str]:
    """What the variable of that name asks for; what it cannot mean counts as OFF."""
    if said is None or not said.strip():
        return None, ""
    try:
        return TelemetryLevel.parse(said.strip(), "environment", name), ""
    except ConfigError as fault:
        return TelemetryLevel.OFF, str(fault)


def _lowered(policy: Policy, level: TelemetryLevel, why: str, limits: list[str]) -> Policy:
    if level is TelemetryLevel.OFF:
        if policy.record:
            limits.append(f"{why} (off)")
        return policy._replace(record=False, share=TelemetryLevel.OFF, cap=level)
    if level < policy.share:
        limits.append(f"{why} ({level.value})")
    return policy._replace(share=min(policy.share, level), cap=min(policy.cap, level))


def _lowered_by(layer: Layer, policy: Policy, name: str, limits: list[str]) -> Policy:
    if layer.enabled is False:
        policy = _lowered(policy, TelemetryLevel.OFF, f"{name}: enabled = false", limits)
    if layer.level is not None:
        policy = _lowered(policy, layer.level, f"{name}: level", limits)
    return policy


# -- what was tried ----------------------------------------------------------------------------------------------------


def _raises(layer: Layer, granted: Policy, name: str) -> Iterator[str]:
    """What a file or an argument would raise, if it could."""
    where = layer.source or name
    if granted.record and layer.level is not None and granted.share < layer.level:
        whose = "only your own yes can" if granted.decided_by == "you" else "only your own yes, or the environment, can"
        yield f"{where}: telemetry.level = {layer.level.value} raises nothing; {whose}"
    if layer.enabled and not granted.record and not granted.trouble:
        yield f"{where}: telemetry.enabled = true turns nothing on; only your own yes can"


_MEANT = {
    "plugins": "enables plugins",
    "endpoint": "names destinations",
    "local_file": "names destinations",
    "to": "names destinations",
    "settings": "sets up plugins",
    "bounds": "says what telemetry may take",
    "sync": "says what telemetry may take",
    "background": "says what telemetry may take",
}
"""Key → what it does, in a file where it counts."""


def _wishes(layer: Layer, name: str, whose: str) -> Iterator[str]:
    """What a file or an argument asks for that only one file may say."""
    where = layer.source or name
    for key in layer.keys:
        kind = key.split(".")[1]
        if kind in _MEANT:
            asked = f"{key} ({', '.join(layer.plugins)})" if kind == "plugins" else key
            yield f"{where}: {asked} is ignored; only {whose} file {_MEANT[kind]}"
        elif kind.startswith("debug_consent"):
            yield f"{where}: {key} is ignored; only your own yes (opt-in --debug) counts"


def allowed_destinations(
    policy: Policy, consent: Consent | None, configured: Collection[DestinationConfig]
) -> tuple[list[DestinationConfig], list[DestinationConfig]]:
    """The configured destinations that may receive something, and those that wait for a yes of their own."""
    if not policy.record:
        return [], []
    allowed, waiting = [], []
    for to in configured:
        shown = policy.decided_by == "operator" or (
            consent is not None and consent.destinations.get(to.name) == to.identity
        )
        if to.audience == "private" or shown:
            allowed.append(to)
        else:
            waiting.append(to)
    return allowed, waiting
