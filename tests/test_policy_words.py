"""What limits and ignored wishes are called, one by one; what variables mean; who may get something."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import DestinationConfig, Layer
from cmdorc_telemetry.consent import Consent, Grant
from cmdorc_telemetry.declarations import identities
from cmdorc_telemetry.policy import CI_VARIABLES, Policy, allowed_destinations, decide, in_ci, truthy

OFF, MINIMAL, STANDARD, DEBUG = TelemetryLevel
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
ACME = "acme.app"
TRACKING: dict[str | None, bool] = {None: True, "": True, "0": True, "false": True, " No ": True, "OFF": True,
                                    "1": False, "true": False, "2": False, "please": False}  # fmt: skip
"""Whether DO_NOT_TRACK with that value leaves things as they are."""

YES = Grant(record=True, share=STANDARD)


def policy(grant: Grant | None = None, *, user: Layer | None = None, **rest: Any) -> Policy:
    consent = None if grant is None else Consent("g1", {CORE_SPEC: grant})
    rest = {"environ": {}, "now": NOW, **rest}
    return decide(consent, user=user or Layer(), **rest)


def test_every_limit_and_every_wish_is_a_sentence() -> None:
    grant = Grant(True, DEBUG, "2026-11-01T00:00:00Z")
    keys = ("telemetry.plugins", "telemetry.to.spy", "telemetry.settings.masker", "telemetry.bounds.keep_days",
            "telemetry.sync", "telemetry.level", "telemetry.specs", "telemetry.debug_consent_given")  # fmt: skip
    project = Layer(Path("p.toml"), True, DEBUG, ("bell", "spy"), keys=keys)
    found = policy(grant, user=Layer(level=MINIMAL), project=project, argument=Layer(enabled=False),
                   now=datetime(2026, 11, 22, tzinfo=timezone.utc))  # fmt: skip
    assert found.limits == (
        "DEBUG consent: expired (standard)",
        "your file: level (minimal)",
        "argument: enabled = false (off)",
    )
    assert found.ignored == (
        "p.toml: telemetry.level = debug raises nothing; only your own yes can",
        "p.toml: telemetry.plugins (bell, spy) is ignored; only your own file enables plugins",
        "p.toml: telemetry.to.spy is ignored; only your own file names destinations",
        "p.toml: telemetry.settings.masker is ignored; only your own file sets up plugins",
        "p.toml: telemetry.bounds.keep_days is ignored; only your own file says what telemetry may take",
        "p.toml: telemetry.sync is ignored; only your own file says what telemetry may take",
        "p.toml: telemetry.debug_consent_given is ignored; only your own yes (opt-in --debug) counts",
    )
    assert found.decided_at == "2026-11-01T00:00:00Z"


def test_what_raises_nothing_says_so_and_what_lowers_nothing_says_nothing() -> None:
    mine = Layer(Path("c.toml"), enabled=True, level=DEBUG)
    assert policy(YES, user=mine).ignored == ("c.toml: telemetry.level = debug raises nothing; only your own yes can",)
    assert policy(user=mine).ignored == ("c.toml: telemetry.enabled = true turns nothing on; only your own yes can",)
    assert policy(Grant(), user=mine).ignored == policy(user=mine).ignored
    quiet = policy(YES, user=Layer(enabled=False), environ={"DO_NOT_TRACK": "1"})
    assert quiet.limits == ("your file: enabled = false (off)",)
    local = policy(Grant(record=True), user=Layer(level=MINIMAL), environ={"CMDORC_TELEMETRY": "standard"})
    assert (local.record, local.share, local.limits) == (True, OFF, ())


@pytest.mark.parametrize("said", ["off", "minimal", "minimum"])
def test_a_variable_that_lowers_makes_no_attempt_of_the_users_own_file(said: str) -> None:
    mine = Layer(Path("c.toml"), enabled=True, level=STANDARD)
    found = policy(YES, user=mine, environ={"CMDORC_TELEMETRY": said})
    assert found.share < STANDARD
    assert not [line for line in found.ignored if "c.toml" in line]


def test_the_variable_is_explained() -> None:
    def found(said: str, grant: Grant | None = YES) -> Policy:
        return policy(grant, environ={"CMDORC_TELEMETRY": said})

    assert found("minimal").limits == ("environment: CMDORC_TELEMETRY (minimal)",)
    raised = ("environment: CMDORC_TELEMETRY=debug raises nothing; only your own yes can",)
    assert (found("debug").limits, found("debug").ignored) == ((), raised)
    assert found("minimum").limits == ("environment: CMDORC_TELEMETRY (off)",)
    assert found("minimum").ignored == (
        "environment: CMDORC_TELEMETRY: found 'minimum'; expected one of off, minimal, standard, debug. "
        "Did you mean 'minimal'?",
    )
    operator = found("debug", None)
    assert (operator.share, operator.decided_by, operator.generation) == (STANDARD, "operator", "operator-standard")
    assert operator.ignored == ("environment: CMDORC_TELEMETRY=debug grants standard; only a person can grant more",)
    above = policy(environ={"CMDORC_TELEMETRY": "minimal"}, project=Layer(Path("p"), level=STANDARD)).ignored
    assert above == ("p: telemetry.level = standard raises nothing; only your own yes, or the environment, can",)


def test_of_two_files_each_is_called_what_it_is() -> None:
    file = Layer(Path("op.toml"), True, MINIMAL, ("http",), keys=("telemetry.plugins",))
    mine = policy(YES, user=Layer(level=STANDARD), other=file)
    assert mine.limits == ("operator's file: level (minimal)",)
    assert mine.ignored == ("op.toml: telemetry.plugins (http) is ignored; only your own file enables plugins",)
    theirs = policy(user=file._replace(level=None), other=file, environ={"CMDORC_TELEMETRY": "standard"})
    assert theirs.limits == ("your file: level (minimal)",)
    assert theirs.ignored == ("op.toml: telemetry.plugins (http) is ignored; only the operator's file enables plugins",)


def test_a_decision_may_be_a_little_ahead_of_the_clock() -> None:
    def found(seconds: float, grant: Grant = YES) -> Policy:
        at = "2026-11-22T12:00:00Z"
        return policy(grant._replace(decided_at=at), now=NOW - timedelta(seconds=seconds))

    assert found(60).share is STANDARD
    late = found(61)
    assert (late.record, late.share, late.decided_by, late.limits) == (False, OFF, "you", ())
    assert late.trouble == (
        "Your decision is of 2026-11-22T12:00:00Z, which is yet to come: nothing is recorded or sent until the clock "
        "is right. If it is, `cmdorc telemetry opt-in` writes a new decision"
    )
    assert found(61, Grant()).trouble == ""  # a no is one at any time
    assert policy(YES._replace(decided_at="2026-11-22T12:00:00+02:00")).record


def test_a_decision_that_was_made_about_another_spec_leaves_no_room_for_an_operator() -> None:
    consent = Consent("g1", {ACME: YES})
    rest: dict[str, Any] = {"user": Layer(), "environ": {"CMDORC_TELEMETRY": "standard"}, "now": NOW}
    assert decide(consent, **rest) == Policy()
    assert decide(consent, **rest, spec=ACME).share is STANDARD


# -- variables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "yes"), [(value, not track) for value, track in TRACKING.items()])
def test_what_counts_as_yes(value: str | None, yes: bool) -> None:
    assert truthy(value) is yes


@pytest.mark.parametrize("name", CI_VARIABLES)
def test_ci_is_recognised(name: str) -> None:
    assert in_ci({name: "true"})
    assert in_ci({name: "https://ci.example/"})
    assert in_ci({"CI": "", name: "1"})
    for value in ("", "false", "0"):
        assert not in_ci({name: value, "PATH": "/bin"})


def test_ci_set_to_no_means_that_a_person_is_there() -> None:
    assert not in_ci({"CI": "false", "GITHUB_ACTIONS": "true"})
    assert not in_ci(dict.fromkeys(os.environ.keys() - set(CI_VARIABLES), "1"))
    assert {"CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "CIRCLECI", "BUILDKITE", "TEAMCITY_VERSION"} <= {
        *CI_VARIABLES
    }


# -- destinations ------------------------------------------------------------------------------------------------------

TEAM = DestinationConfig("team", "http", settings={"endpoint": "https://t.example/v1"})
OWN = DestinationConfig("own", "http", "private", settings={"endpoint": "https://o.example/v1"})


def test_a_shared_destination_needs_a_yes_to_exactly_itself() -> None:
    consent = Consent("g1", {CORE_SPEC: YES}, destinations=identities([TEAM, OWN]))
    assert consent.destinations == {"team": "http endpoint=https://t.example/v1"}
    found = Policy(record=True, share=STANDARD, decided_by="you")
    assert allowed_destinations(found, consent, [TEAM, OWN]) == ([TEAM, OWN], [])
    others = [
        TEAM._replace(settings={"endpoint": "https://elsewhere.example/v1"}),
        TEAM._replace(settings={"endpoint_env": "ENDPOINT"}),
        TEAM._replace(plugin="ftp"),
        TEAM._replace(name="team2"),
    ]
    for other in others:
        assert allowed_destinations(found, consent, [other, OWN]) == ([OWN], [other])
    harmless = TEAM._replace(timeout=1.0, level=MINIMAL, settings={**TEAM.settings, "token_env": "T"})
    assert allowed_destinations(found, consent, [harmless]) == ([harmless], [])
    assert allowed_destinations(found, None, [TEAM, OWN]) == ([OWN], [TEAM])


def test_an_operator_covers_all_destinations_and_off_covers_none() -> None:
    operator = Policy(record=True, share=MINIMAL, decided_by="operator")
    assert allowed_destinations(operator, None, [TEAM, OWN]) == ([TEAM, OWN], [])
    consent = Consent("g1", {CORE_SPEC: YES}, destinations=identities([TEAM]))
    assert allowed_destinations(Policy(decided_by="you"), consent, [TEAM, OWN]) == ([], [])
