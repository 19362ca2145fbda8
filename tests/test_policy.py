"""Nothing but a person's own decision, or an operator's variable where nobody decided, can raise anything.

Each world is written down as files and variables and read as programs read it. The reference knows nothing of how the
layers are put together: it says what any of them may at most do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import DestinationConfig, load_layer
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.declarations import identities
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import Policy, allowed_destinations
from cmdorc_telemetry.situation import Situation

OFF, MINIMAL, STANDARD, DEBUG = TelemetryLevel
NOW = datetime.now(timezone.utc)
SOON, PAST, AHEAD = (NOW + timedelta(hours=1), NOW - timedelta(days=1), NOW + timedelta(days=2))
CORE, ACME = CORE_SPEC, "acme.app"

# -- worlds ------------------------------------------------------------------------------------------------------------

TEAM, MINE = "https://team.example/v1", "http://127.0.0.1:9/mine"
SPY = "https://spy.example/v1"
SHOWN = identities([DestinationConfig("team", "http", settings={"endpoint": TEAM})])


class Decision(NamedTuple):
    """What lies in ``consent.toml``, and what it stands for."""

    text: bytes | None
    level: TelemetryLevel | None
    """What it grants of the core spec at most; None for not even recording."""
    is_no: bool = False
    spec: str = CORE


@cache
def decided(spec: str, record: bool, share: TelemetryLevel, at: datetime, expires: datetime | None) -> Decision:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        moment = f"{at:%Y-%m-%dT%H:%M:%SZ}"
        save_decision(home, {spec: Grant(record, share, moment, debug_expires=expires)}, SHOWN)
        text = home.consent.read_bytes()
    level = share
    if share is DEBUG and (expires is None or expires <= NOW):
        level = STANDARD
    yes = record and spec == CORE and at <= NOW
    return Decision(text, level if yes else None, not record and spec == CORE, spec)


DECISIONS = {
    "nobody": lambda: Decision(None, None),
    "no": lambda: decided(CORE, False, OFF, PAST, None),
    "a no that still has a level": lambda: decided(CORE, False, DEBUG, PAST, SOON),
    "recording alone": lambda: decided(CORE, True, OFF, PAST, None),
    "minimal": lambda: decided(CORE, True, MINIMAL, PAST, None),
    "standard": lambda: decided(CORE, True, STANDARD, PAST, None),
    "debug": lambda: decided(CORE, True, DEBUG, PAST, SOON),
    "debug that expired": lambda: decided(CORE, True, DEBUG, PAST, PAST),
    "debug without an end": lambda: decided(CORE, True, DEBUG, PAST, None),
    "in the future": lambda: decided(CORE, True, DEBUG, AHEAD, AHEAD),
    "of another spec": lambda: decided(ACME, True, DEBUG, PAST, SOON),
    "broken": lambda: Decision(b"generation = 3\n", None),
    "something else": lambda: Decision(b"[tool.black]\n", None),
}
levels = st.sampled_from(TelemetryLevel)
enabled = st.sampled_from([None, True, False])
DESTINATIONS = {
    "team": f'[telemetry.to.team]\nplugin = "http"\nendpoint = "{TEAM}"\n',
    "a team elsewhere": f'[telemetry.to.team]\nplugin = "http"\nendpoint = "{SPY}"\n',
    "mine": f'[telemetry.to.mine]\nplugin = "http"\naudience = "private"\nendpoint = "{MINE}"\n',
    "a spy of my own": f'[telemetry.to.spy]\nplugin = "http"\naudience = "private"\nendpoint = "{SPY}"\n',
    "short": f'[telemetry]\nendpoint = "{SPY}"\n',
}


def document(said: dict[str, Any]) -> str:
    """A configuration file."""
    lines = ["[telemetry]"]
    if said["enabled"] is not None:
        lines.append(f"enabled = {str(said['enabled']).lower()}")
    if said["level"] is not None:
        lines.append(f'level = "{said["level"].value}"')
    if said["plugins"]:
        lines.append(f'plugins = ["{said["plugins"]}"]')
    tables = []
    for name in said["destinations"]:
        (lines if name == "short" else tables).append(DESTINATIONS[name].removeprefix("[telemetry]\n"))
    return "\n".join([*lines, *said["more"], *tables]) + "\n"


MORE = ("background = true", "sync = true", "bounds.keep_days = 3650", "settings.masker.off = true",
        "debug_consent_given = true", f"debug_consent_expires = {SOON:%Y-%m-%dT%H:%M:%SZ}")  # fmt: skip
tables = st.fixed_dictionaries(
    {
        "enabled": enabled,
        "level": st.none() | levels,
        "plugins": st.sampled_from(["", "http", "spy"]),
        "destinations": st.lists(st.sampled_from(list(DESTINATIONS)), unique_by=lambda name: DESTINATIONS[name][:20]),
        "more": st.lists(st.sampled_from(MORE), unique=True),
    }
)
arguments = st.builds(
    TelemetryConfig,
    enabled=st.booleans(),
    level=levels,
    endpoint=st.sampled_from([None, SPY]),
    local_file=st.sampled_from([None, Path("spy.jsonl")]),
    plugins=st.sampled_from([(), ("spy",)]),
    destinations=st.sampled_from([(), (DestinationConfig("spy", "http", "private", settings={"endpoint": SPY}),)]),
    debug_consent_given=st.just(True),
    debug_consent_expires=st.just(SOON),
    unsaid=st.sets(st.sampled_from(["enabled", "level"])).map(frozenset),
)
VARIABLE: dict[str | None, TelemetryLevel | None] = {
    None: None, "": None, "  ": None, "off": OFF, "minimal": MINIMAL, " Standard ": STANDARD, "debug": DEBUG,
    "DEBUG": DEBUG, "1": OFF, "true": OFF, "on": OFF, "0": OFF, "standart": OFF, "standard,debug": OFF, "\x00": OFF,
}  # fmt: skip
"""What CMDORC_TELEMETRY means; what it cannot mean is off."""
TRACKING: dict[str | None, bool] = {None: True, "": True, "0": True, "false": True, " No ": True, "OFF": True,
                                    "1": False, "true": False, "2": False, "please": False}  # fmt: skip
CI = {"CI": "true", "GITHUB_ACTIONS": "true", "BUILD_ID": "7"}
worlds = st.fixed_dictionaries(
    {
        "decision": st.sampled_from(list(DECISIONS)),
        "user": st.none() | tables,
        "operator": st.none() | tables,
        "project": st.none() | tables,
        "argument": st.none() | arguments,
        "variable": st.sampled_from(list(VARIABLE)),
        "track": st.sampled_from(list(TRACKING)),
        "ci": st.sets(st.sampled_from(list(CI))),
    }
)
World = dict[str, Any]
many = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


class Outcome(NamedTuple):
    """What a program may do in a world."""

    policy: Policy
    record: bool
    share: TelemetryLevel
    destinations: frozenset[tuple[str, str, str]]
    """Who gets something: name, audience, identity."""
    plugins: frozenset[str]
    means: tuple[Any, ...]
    """Bounds, sync, background, settings of plugins."""


@contextmanager
def situation(world: World) -> Iterator[Situation]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.telemetry.mkdir(0o700, parents=True)
        environ = {"CMDORC_HOME": str(home.root), **{name: CI[name] for name in world["ci"]}}
        if (text := DECISIONS[world["decision"]]().text) is not None:
            home.consent.write_bytes(text)
        if world["user"] is not None:
            home.config.write_text(document(world["user"]))
        if world["operator"] is not None:
            path = Path(folder) / "operator.toml"
            path.write_text(document(world["operator"]))
            environ["CMDORC_TELEMETRY_CONFIG"] = str(path)
        said = {"CMDORC_TELEMETRY": world["variable"], "DO_NOT_TRACK": world["track"]}
        environ |= {name: value for name, value in said.items() if value is not None}
        project = None
        if world["project"] is not None:
            path = Path(folder) / "cmdorc.toml"
            path.write_text(document(world["project"]))
            project = load_layer(path)
        yield Situation.read(environ, config=world["argument"], project=project)


def outcome(world: World, *, spec: str = CORE, layered: bool = True) -> Outcome:
    with situation(world) as found:
        policy, user = found.policy(spec=spec, layered=layered), found.user
        allowed, _ = allowed_destinations(policy, found.consent, user.destinations)
        return Outcome(policy, policy.record, policy.share,
                       frozenset((to.name, to.audience, to.identity) for to in allowed), frozenset(user.plugins),
                       (user.bounds, user.sync, user.background, str(user.settings)))  # fmt: skip


def decision(world: World) -> Decision:
    return DECISIONS[world["decision"]]()


def undecided(world: World) -> bool:
    return decision(world).text is None


def granted(world: World) -> TelemetryLevel | None:
    """The most that anybody who may grant something granted; None for not even recording."""
    wanted = VARIABLE[world["variable"]]
    if undecided(world):
        return None if wanted in (None, OFF) else min(wanted, STANDARD)
    return decision(world).level


# -- nothing is ever raised --------------------------------------------------------------------------------------------


@many
@given(worlds)
def test_nothing_exceeds_what_a_person_or_an_operator_granted(world: World) -> None:
    found, most = outcome(world), granted(world)
    if most is None:
        assert not found.record
    assert found.share <= (most or OFF)
    assert found.record or found.share is OFF
    if not found.record:
        assert not found.destinations


@many
@given(worlds, st.none() | tables, st.none() | arguments)
def test_a_project_or_a_program_changes_nothing_but_to_less(world: World, project: Any, argument: Any) -> None:
    without = outcome({**world, "project": None, "argument": None})
    found = outcome({**world, "project": project, "argument": argument})
    assert found.record <= without.record
    assert found.share <= without.share
    assert found.destinations <= without.destinations
    assert (found.plugins, found.means) == (without.plugins, without.means)
    assert found.policy.decided_by == without.policy.decided_by
    assert found.policy.generation == without.policy.generation


@many
@given(worlds, st.sampled_from(["project", "argument"]), st.data())
def test_of_two_wishes_none_is_granted(world: World, name: str, data: st.DataObject) -> None:
    """Whatever it is changed to: what it may do is no more than without it."""
    values = {"project": tables, "argument": arguments}[name]
    first, second = (outcome({**world, name: data.draw(values)}) for _ in range(2))
    without = outcome({**world, name: None})
    for each in (first, second):
        assert each.record <= without.record
        assert each.share <= without.share
        assert each.destinations <= without.destinations


@many
@given(worlds, st.sampled_from(["operator", "variable"]), st.data())
def test_where_a_person_decided_an_operator_only_lowers(world: World, name: str, data: st.DataObject) -> None:
    assume(not undecided(world))
    value = data.draw(tables if name == "operator" else st.sampled_from(list(VARIABLE)))
    found, without = outcome({**world, name: value}), outcome({**world, name: None})
    assert found.record <= without.record
    assert found.share <= without.share
    assert found.destinations <= without.destinations
    assert (found.plugins, found.means) == (without.plugins, without.means)


@many
@given(worlds, tables)
def test_a_file_of_the_user_turns_nothing_on(world: World, user: Any) -> None:
    """Written by hand, without a decision: ``enabled = true`` included. What it names is the user's own choice."""
    found, without = outcome({**world, "user": user}), outcome({**world, "user": None})
    assert found.record <= without.record
    assert found.share <= without.share


@many
@given(worlds, tables)
def test_an_operators_file_turns_nothing_on(world: World, operator: Any) -> None:
    found, without = (outcome({**world, "operator": operator}), outcome({**world, "operator": None}))
    assert found.record <= without.record
    assert found.share <= without.share


@many
@given(worlds)
def test_a_person_agreed_to_each_destination_or_calls_it_their_own(world: World) -> None:
    found = outcome(world)
    if found.policy.decided_by == "you":
        own = {} if world["user"] is None else dict(said.split() for said in named(world["user"]))
        for name, audience, identity in found.destinations:
            assert name in own
            assert audience == "private" or SHOWN.get(name) == identity


def named(said: dict[str, Any]) -> list[str]:
    """The destinations of a table, and the audience of each."""
    names = {"team": "team shared", "a team elsewhere": "team shared", "mine": "mine private", "short": "http shared",
             "a spy of my own": "spy private"}  # fmt: skip
    return [names[each] for each in said["destinations"]]


# -- who is final ------------------------------------------------------------------------------------------------------


@many
@given(worlds, st.sampled_from([name for name in DECISIONS if "no" in name.split()]))
def test_a_persons_no_is_final(world: World, no: str) -> None:
    found = outcome({**world, "decision": no})
    assert (found.record, found.share, found.destinations) == (False, OFF, frozenset())
    assert found.policy.decided_by == "you"


@many
@given(
    worlds, st.sampled_from([value for value, tracks in TRACKING.items() if not tracks]), st.sampled_from([CORE, ACME])
)
def test_do_not_track_beats_all(world: World, value: str, spec: str) -> None:
    found = outcome({**world, "track": value}, spec=spec)
    assert (found.record, found.share, found.destinations) == (False, OFF, frozenset())


@many
@given(worlds, st.sampled_from([value for value, level in VARIABLE.items() if level is DEBUG]))
def test_an_operator_never_gets_debug(world: World, value: str) -> None:
    assert outcome({**world, "decision": "nobody", "variable": value}).share < DEBUG
    if outcome({**world, "variable": value}).share is DEBUG:
        assert world["decision"] == "debug"


@many
@given(worlds)
def test_an_operators_grant_covers_the_core_spec_alone(world: World) -> None:
    found = outcome(world, spec=ACME)
    assert found.record <= (world["decision"] == "of another spec")
    assert found.policy.decided_by != "operator"


@many
@given(worlds, st.sampled_from(["broken", "something else", "in the future"]))
def test_what_cannot_be_used_turns_everything_off_and_says_why(world: World, bad: str) -> None:
    found = outcome({**world, "decision": bad})
    assert (found.record, found.share, found.destinations) == (False, OFF, frozenset())
    assert "nothing is recorded or sent" in found.policy.trouble


@many
@given(worlds)
def test_ci_decides_nothing(world: World) -> None:
    """It only says that there is nobody to ask."""
    assert outcome({**world, "ci": set(CI)})[1:] == outcome({**world, "ci": set()})[1:]


# -- and nothing is lowered without a reason ---------------------------------------------------------------------------


def said_by(table: Any, name: str) -> Any:
    if isinstance(table, TelemetryConfig):
        return None if name in table.unsaid else getattr(table, name)
    return table[name] if table is not None else None


@many
@given(worlds)
def test_what_is_in_force_is_the_least_of_all_that_was_said(world: World) -> None:
    said = [world[name] for name in ("user", "operator", "project", "argument")]
    limits = [said_by(each, "level") for each in said]
    limits += [OFF for each in said if said_by(each, "enabled") is False]
    limits += [VARIABLE[world["variable"]], None if TRACKING[world["track"]] else OFF]
    most = granted(world)
    least = min([most or OFF, *(level for level in limits if level is not None)])
    found = outcome(world)
    assert found.record == (most is not None and OFF not in limits)
    assert found.share is (least if found.record else OFF)
    lowered = most is not None and (found.share, found.record) != (most, True)
    assert bool(found.policy.limits) == lowered or "expired" in found.policy.limits[0]


@many
@given(worlds)
def test_without_the_project_its_word_and_the_programs_do_not_count(world: World) -> None:
    assert outcome(world, layered=False)[1:] == outcome({**world, "project": None, "argument": None})[1:]


@many
@given(worlds, tables)
def test_every_wish_of_a_project_is_named_with_its_file_its_key_and_who_could(world: World, project: Any) -> None:
    policy = outcome({**world, "project": project}).policy
    if policy.trouble and world["decision"] != "in the future":
        return
    told = [text.partition("cmdorc.toml: ")[2] for text in policy.ignored if "cmdorc.toml: " in text]
    assert len(told) == len(set(told))
    keys = [line.partition(" =")[0].removesuffix(".off") for line in project["more"]]
    keys += ["plugins"] * bool(project["plugins"])
    keys += ["endpoint" if name == "short" else f"to.{DESTINATIONS[name].split('.to.')[1].split(']')[0]}"
             for name in project["destinations"]]  # fmt: skip
    for key in keys:
        (text,) = [text for text in told if text.startswith((f"telemetry.{key} ", f"telemetry.{key}."))]
        assert "is ignored; only " in text
    most = granted(world)
    if project["enabled"] and most is None and not policy.trouble:
        assert "telemetry.enabled = true turns nothing on; only your own yes can" in told
    if project["level"] is not None and most is not None and project["level"] > most:
        assert any(
            text.startswith(f"telemetry.level = {project['level'].value} raises nothing; only ") for text in told
        )
