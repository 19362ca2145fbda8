"""Nothing but a person's own yes, or an operator's variable where nobody decided, can raise anything."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel
from cmdorc_telemetry.config import DestinationConfig, Home, Layer
from cmdorc_telemetry.consent import (
    CORE_SPEC,
    Consent,
    Grant,
    declarations,
    load_consent,
    new_grant,
    save_grant,
    waiting_fields,
)
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, ConsentError, StorageError
from cmdorc_telemetry.policy import Policy, allowed_destinations, decide, in_ci, truthy
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import BASE, CORE, TelemetrySpec, load_spec

OFF, MINIMAL, STANDARD, DEBUG = TelemetryLevel
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
YES = Grant(record=True, share=STANDARD)
NO = Grant()

many = settings(max_examples=250, deadline=None, derandomize=True, database=None)

# -- the decision ------------------------------------------------------------------------------------------------------

levels = st.sampled_from(TelemetryLevel)
grants = st.fixed_dictionaries(
    {
        "record": st.booleans(),
        "share": levels,
        "debug_expires": st.sampled_from([None, NOW - timedelta(days=1), NOW, NOW + timedelta(seconds=1)]),
    }
).map(lambda said: Grant(**said))
layers = st.fixed_dictionaries(
    {
        "enabled": st.sampled_from([None, True, False]),
        "level": st.none() | levels,
        "plugins": st.sampled_from([(), ("http",)]),
        "destinations": st.sampled_from([(), (DestinationConfig("team", "http"),)]),
    }
).map(lambda said: Layer(**said))
VARIABLE: dict[str | None, TelemetryLevel | None] = {
    None: None, "": None, "  ": None, "off": OFF, "minimal": MINIMAL, " Standard ": STANDARD, "debug": DEBUG,
    "DEBUG": DEBUG, "1": OFF, "true": OFF, "on": OFF, "standart": OFF, "\x00": OFF,
}  # fmt: skip
"""What CMDORC_TELEMETRY means; what it cannot mean is off."""
TRACKING: dict[str | None, bool] = {None: True, "": True, "0": True, "false": True, " No ": True, "OFF": True,
                                    "1": False, "true": False, "2": False, "please": False}  # fmt: skip
environs = st.builds(
    lambda level, track: {
        name: value for name, value in (("CMDORC_TELEMETRY", level), ("DO_NOT_TRACK", track)) if value is not None
    },
    st.sampled_from(list(VARIABLE)),
    st.sampled_from(list(TRACKING)),
)
worlds = st.fixed_dictionaries(
    {
        "grant": st.none() | grants,
        "user": layers,
        "other": st.none() | layers,
        "project": st.none() | layers,
        "argument": st.none() | layers,
        "environ": environs,
    }
)
LAYERS = ("user", "other", "project", "argument")


def decided(
    grant: Grant | None = None, *, user: Layer | None = None, environ: Mapping[str, str] | None = None, **rest: Any
) -> Policy:
    consent = None if grant is None else Consent("g1", {CORE_SPEC: grant})
    return decide(consent, user=user or Layer(), environ=environ or {}, now=NOW, **rest)


@many
@given(worlds)
def test_the_policy_is_the_least_of_all_that_have_a_say(world: dict[str, Any]) -> None:
    grant, wanted = world["grant"], VARIABLE[world["environ"].get("CMDORC_TELEMETRY")]
    if grant is not None:
        lasts = grant.debug_expires is not None and grant.debug_expires > NOW
        granted = STANDARD if grant.share is DEBUG and not lasts else grant.share
        record, limits, by, generation = grant.record, [wanted], "you", "g1"
    else:
        granted = min(wanted or OFF, STANDARD)
        record, limits, by, generation = granted is not OFF, [], "operator", f"operator-{granted.value}"
        if not record:
            by, generation = "nobody", ""
    for layer in filter(None, map(world.get, LAYERS)):
        limits += [layer.level, OFF if layer.enabled is False else None]
    limits += [None if TRACKING[world["environ"].get("DO_NOT_TRACK")] else OFF]
    record = record and OFF not in limits
    share = min([granted, *(level for level in limits if level is not None)]) if record else OFF
    policy = decided(**world)
    assert (policy.record, policy.share, policy.decided_by, policy.generation) == (record, share, by, generation)


@many
@given(worlds, st.sampled_from(LAYERS), layers)
def test_no_layer_ever_raises_anything(world: dict[str, Any], name: str, layer: Layer) -> None:
    with_it, without = decided(**{**world, name: layer}), decided(**{**world, name: None})
    assert with_it.share <= without.share
    assert with_it.record <= without.record
    if layer.level is not None:
        assert with_it.share <= layer.level
    if layer.enabled is False or layer.level is OFF:
        assert (with_it.record, with_it.share) == (False, OFF)


@many
@given(worlds)
def test_wishing_changes_nothing(world: dict[str, Any]) -> None:
    wish = Layer(Path("there.toml"), True, DEBUG, ("http",), (DestinationConfig("team", "http"),), asks=True)
    wished = decided(**{**world, "project": wish, "argument": wish})
    silent = decided(**{**world, "project": None, "argument": None})
    assert (wished.record, wished.share, wished.limits) == (silent.record, silent.share, silent.limits)
    assert {"there.toml asks for plugin http; only your own file can"} <= set(wished.ignored)


@many
@given(worlds)
def test_a_persons_no_is_final(world: dict[str, Any]) -> None:
    policy = decided(**{**world, "grant": (world["grant"] or Grant(share=DEBUG))._replace(record=False)})
    assert (policy.record, policy.share, policy.decided_by) == (False, OFF, "you")


@many
@given(worlds)
def test_do_not_track_beats_all(world: dict[str, Any]) -> None:
    policy = decided(**{**world, "environ": {**world["environ"], "DO_NOT_TRACK": "1"}})
    assert (policy.record, policy.share) == (False, OFF)


@many
@given(worlds)
def test_debug_comes_from_a_person_alone_and_ends_by_itself(world: dict[str, Any]) -> None:
    if decided(**world).share is DEBUG:
        grant = world["grant"]
        assert grant.share is DEBUG
        assert grant.debug_expires > NOW


@many
@given(worlds)
def test_without_a_person_and_a_variable_nothing_is_on(world: dict[str, Any]) -> None:
    environ = {name: value for name, value in world["environ"].items() if name != "CMDORC_TELEMETRY"}
    policy = decided(**{**world, "grant": None, "environ": environ})
    assert (policy.record, policy.share, policy.decided_by) == (False, OFF, "nobody")


@pytest.mark.parametrize(("said", "level"), [("minimal", MINIMAL), ("standard", STANDARD), ("debug", STANDARD)])
def test_an_operator_grants_the_core_spec_alone(said: str, level: TelemetryLevel) -> None:
    policy = decided(environ={"CMDORC_TELEMETRY": said})
    assert (policy.record, policy.share, policy.decided_by) == (True, level, "operator")
    theirs = decided(environ={"CMDORC_TELEMETRY": said}, spec="acme.app")
    assert (theirs.record, theirs.decided_by) == (False, "nobody")
    asked = ("CMDORC_TELEMETRY asks for level debug; only a person can grant that",)
    assert policy.ignored == (asked if said == "debug" else ())


def test_a_grant_is_for_one_spec() -> None:
    consent = Consent("g1", {"acme.app": YES})
    assert not decide(consent, user=Layer(), environ={}, now=NOW).record
    assert decide(consent, user=Layer(), environ={}, now=NOW, spec="acme.app").share is STANDARD


def test_recording_for_oneself_shares_nothing_and_stays_on() -> None:
    policy = decided(Grant(record=True), user=Layer(level=MINIMAL), environ={"CMDORC_TELEMETRY": "standard"})
    assert (policy.record, policy.share, policy.limits) == (True, OFF, ())


def test_every_limit_and_every_wish_has_a_name() -> None:
    grant = Grant(True, DEBUG, "2026-11-01T00:00:00Z")
    project = Layer(Path("p.toml"), None, STANDARD, ("bell",), (DestinationConfig("spy", "http"),), sync=True)
    policy = decided(grant, user=Layer(level=MINIMAL), project=project, argument=Layer(enabled=False))
    assert policy.limits == (
        "DEBUG consent: expired (standard)",
        "your file: level (minimal)",
        "argument: enabled = false (off)",
    )
    assert policy.ignored == (
        "p.toml asks for level standard; only your own yes can raise it",
        "p.toml asks for plugin bell; only your own file can",
        "p.toml asks for destination spy; only your own file can",
        "p.toml sets bounds, sync or background; only your own file can",
    )
    assert policy.decided_at == "2026-11-01T00:00:00Z"

    assert decided(YES, user=Layer(level=DEBUG)).ignored == (
        "your file asks for level debug; only your own yes can raise it",
    )
    assert decided(YES, environ={"CMDORC_TELEMETRY": "minimal"}).limits == ("environment: CMDORC_TELEMETRY (minimal)",)
    unknown = decided(YES, environ={"CMDORC_TELEMETRY": "minimum"})
    assert unknown.limits == ("environment: CMDORC_TELEMETRY (off)",)
    assert unknown.ignored == (
        "environment: CMDORC_TELEMETRY: found 'minimum'; expected one of off, minimal, standard, debug. "
        "Did you mean 'minimal'?",
    )
    quiet = decided(YES, user=Layer(enabled=False), environ={"DO_NOT_TRACK": "1"})
    assert quiet.limits == ("your file: enabled = false (off)",)  # what lowers nothing is not named


def test_of_two_files_each_is_called_what_it_is() -> None:
    file = Layer(enabled=True, level=MINIMAL, plugins=("http",))
    mine = decided(YES, user=Layer(level=STANDARD), other=file)
    assert mine.limits == ("operator's file: level (minimal)",)
    assert mine.ignored == ("operator's file asks for plugin http; only your own file can",)
    theirs = decided(user=file._replace(level=None), other=file, environ={"CMDORC_TELEMETRY": "standard"})
    assert theirs.limits == ("your file: level (minimal)",)
    assert theirs.ignored == ()


@pytest.mark.parametrize(("value", "yes"), [(value, not track) for value, track in TRACKING.items()])
def test_what_counts_as_yes(value: str | None, yes: bool) -> None:
    assert truthy(value) is yes


def test_ci_is_recognised() -> None:
    assert in_ci({"CI": "true"})
    assert in_ci({"JENKINS_URL": "https://ci.example/"})
    assert not in_ci({"CI": "false", "PATH": "/bin"})


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def write(home: Home, text: str | bytes) -> None:
    home.telemetry.mkdir(parents=True, exist_ok=True)
    home.consent.write_bytes(text.encode() if isinstance(text, str) else text)


GRANTS = [
    NO,
    Grant(record=True),
    Grant(True, MINIMAL, "2026-11-22T12:00:00Z"),
    Grant(True, STANDARD, "x", {"*/os": '{"a": "b\n"}', "e/$f": "'"}, {"team": "http endpoint=https://ü.example"}),
    Grant(True, DEBUG, "", debug_expires=NOW),
]


@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: f"{grant.record}-{grant.share.value}")
def test_a_decision_is_read_as_it_was_written(grant: Grant, home: Home) -> None:
    assert load_consent(home) is None
    saved = save_grant(home, CORE_SPEC, grant)
    assert load_consent(home) == saved
    assert saved.grants == {CORE_SPEC: grant}
    assert stat.S_IMODE(home.consent.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.telemetry.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert "Written by `cmdorc telemetry`" in home.consent.read_text(encoding="utf-8")


def test_every_decision_is_a_generation_of_its_own(home: Home) -> None:
    shares = [MINIMAL, STANDARD, STANDARD, DEBUG]
    saved = [save_grant(home, CORE_SPEC, YES._replace(share=share)) for share in shares]
    assert len({consent.generation for consent in saved}) == len(shares)
    last = load_consent(home)
    assert last is not None
    assert [last.level_of(consent.generation, CORE_SPEC) for consent in saved] == shares
    assert last.level_of("unknown", CORE_SPEC) is OFF
    assert last.level_of(last.generation, "acme.app") is OFF


@pytest.mark.parametrize("lesser", [YES._replace(share=MINIMAL), Grant(record=True), NO, NO._replace(share=DEBUG)])
def test_a_lesser_decision_holds_for_what_was_recorded_before_it(lesser: Grant, home: Home) -> None:
    """Whatever is decided later: an event recorded before an opt-out is not sent after the next opt-in."""
    save_grant(home, "acme.app", YES)
    first = save_grant(home, CORE_SPEC, YES)
    second = save_grant(home, CORE_SPEC, lesser)
    last = save_grant(home, CORE_SPEC, YES)
    least = lesser.share if lesser.record else OFF
    assert last == load_consent(home)
    assert [last.level_of(each.generation, CORE_SPEC) for each in (first, second, last)] == [least, least, STANDARD]
    assert [last.level_of(each.generation, "acme.app") for each in (first, second, last)] == [STANDARD] * 3


def test_what_no_generation_allows_any_more_is_forgotten(home: Home) -> None:
    for grant in (YES, YES, YES._replace(share=MINIMAL)):
        save_grant(home, CORE_SPEC, grant)
    last = save_grant(home, CORE_SPEC, NO)
    assert last.generations == {last.generation: {}}
    assert last.grants == {CORE_SPEC: NO}


BROKEN = {
    "empty": "",
    "no text": b"\xff\xfe",
    "no TOML": '{"generation": "x"}',
    "something else": "[tool.black]\nline-length = 100",
    "no generation": "[spec]",
    "no spec": "generation = 'x'",
    "spec is no table": "generation = 'x'\nspec = 'cmdorc.core'",
    "grant is no table": "generation = 'x'\n[spec]\n'cmdorc.core' = true",
    "no record": "generation = 'x'\n[spec.'cmdorc.core']\nshare = 'minimal'",
    "no share": "generation = 'x'\n[spec.'cmdorc.core']\nrecord = true",
    **{
        f"{key} = {value}": "generation = 'x'\n[spec.'cmdorc.core']\n"
        + "\n".join(f"{k} = {v}" for k, v in {"record": "true", "share": "'minimal'", key: value}.items())
        for key, value in [
            ("record", "'yes'"), ("record", "1"), ("share", "'all'"), ("share", "2"), ("fields", "'all'"),
            ("fields", "1"), ("destinations", "['http']"), ("debug_expires", "2026-11-22"),
            ("debug_expires", "2026-11-22T12:00:00"), ("debug_expires", "'never'"),
        ]
    },
    **{
        f"generations = {value}": f"generation = 'x'\ngenerations = {value}\n[spec]"
        for value in ("'all'", "['x']", "{x = 'standard'}", "{x = {s = 'all'}}", "{x = {s = 3}}", "{x = {s = []}}")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_turns_everything_off_and_can_be_replaced(name: str, home: Home) -> None:
    write(home, BROKEN[name])
    with pytest.raises(ConsentError, match=f"^{home.consent} cannot be used .*: nothing is recorded or sent"):
        load_consent(home)
    situation = Situation.read({"CMDORC_HOME": str(home.root), "CMDORC_TELEMETRY": "standard"})
    assert situation.policy() == Policy(ignored=(situation.trouble,))
    assert not situation.policy().record
    assert save_grant(home, CORE_SPEC, YES) == load_consent(home)


def test_a_directory_in_place_of_the_file_turns_everything_off(home: Home) -> None:
    home.consent.mkdir(parents=True)
    with pytest.raises(ConsentError, match="it is no file"):
        load_consent(home)
    assert save_grant(home, CORE_SPEC, YES) == load_consent(home)
    (kept,) = home.telemetry.glob("consent.toml.corrupt-*")
    assert kept.is_dir()


def test_somebody_elses_decision_is_not_ours(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    save_grant(home, CORE_SPEC, YES)
    monkeypatch.setattr(os, "geteuid", lambda: home.consent.stat().st_uid + 1, raising=False)
    with pytest.raises(ConsentError, match="it belongs to somebody else"):
        load_consent(home)
    monkeypatch.delattr(os, "geteuid")  # Windows: a home directory is its user's
    assert load_consent(home) is not None


@pytest.mark.parametrize("way", ["", "telemetry"])
def test_a_home_that_cannot_be_written_is_an_error(way: str, home: Home) -> None:
    path = home.root / way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(StorageError, match=r"cannot be created: it, or what leads to it, is no directory"):
        save_grant(home, CORE_SPEC, YES)


def test_decisions_made_at_once_are_all_kept(home: Home) -> None:
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.config import Home, TelemetryLevel
from cmdorc_telemetry.consent import Grant, save_grant
for _ in range(15):
    print(save_grant(Home(Path(sys.argv[1])), sys.argv[2], Grant(True, TelemetryLevel.MINIMAL)).generation)
"""
    specs = ["acme.one", "acme.two"]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(home.root), spec], stdout=subprocess.PIPE, text=True)
        for spec in specs
    ]
    while any(process.poll() is None for process in processes):
        load_consent(home)  # whole at every moment
    made = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    consent = load_consent(home)
    assert consent is not None
    assert set(consent.grants) == set(specs)
    assert set(consent.generations) == {generation for each in made for generation in each}
    assert len(consent.generations) == 30
    for spec, generations in zip(specs, made, strict=True):
        assert {consent.level_of(generation, spec) for generation in generations} == {MINIMAL}


# -- fields and destinations -------------------------------------------------------------------------------------------


def spec_with(**changes: Any) -> TelemetrySpec:
    """A spec with one event, ``paid``, whose property ``amount`` has ``changes``."""
    event = {
        "name": "paid",
        "version": changes.pop("version", 1),
        "semantics": {"what": "x", "why": changes.pop("why", "because")},
        "retention": {"days": changes.pop("days", 30)},
        "properties": {
            "amount": {"type": "number", "min": 0, "max": 10, "level": "standard", **changes},
            "currency": {"type": "enum", "members": ["eur"]},
            "note": {"type": "string", "pattern": ".*", "max_length": 9, "audience": "private"},
        },
    }
    return decode({"meta": {"name": "acme.app"}, "events": [event]}, TelemetrySpec, "test")


def test_a_yes_is_to_every_field_that_could_be_shared() -> None:
    spec = load_spec(CORE)
    names = set(declarations(spec))
    shared = {
        f"{event.name}/{name}"
        for event in spec.events
        for name, prop in event.properties.items()
        if prop.audience == "shared"
    }
    assert names == {f"*/{name}" for name in BASE} | shared
    assert "command_completed/hashed_command_name" in names
    assert "command_completed/command_name" not in names
    assert declarations(TelemetrySpec(meta=spec.meta)) == {}


def test_an_unchanged_spec_waits_for_nothing() -> None:
    assert waiting_fields(spec_with(), new_grant(spec_with(), STANDARD, [], NOW)) == frozenset()
    assert waiting_fields(spec_with(), new_grant(spec_with(description="in other words"), STANDARD, [], NOW)) == set()
    assert waiting_fields(spec_with(), None) == frozenset()  # an operator's grant covers the shipped spec


@pytest.mark.parametrize(
    "changes",
    [{"max": 11}, {"min": -1}, {"level": "minimal"}, {"pii": True}, {"required": True}, {"max_items": 5},
     {"type": "count"}],
    ids=str,
)  # fmt: skip
def test_a_field_declared_otherwise_waits_alone(changes: dict[str, Any]) -> None:
    grant = new_grant(spec_with(), STANDARD, [], NOW)
    assert waiting_fields(spec_with(**changes), grant) == {"paid/amount"}


@pytest.mark.parametrize("changes", [{"why": "other reasons"}, {"days": 31}], ids=str)
def test_an_event_kept_longer_or_for_another_reason_waits_whole(changes: dict[str, Any]) -> None:
    grant = new_grant(spec_with(), STANDARD, [], NOW)
    assert waiting_fields(spec_with(**changes), grant) == {"paid/amount", "paid/currency"}


def test_a_new_field_waits_and_one_that_became_private_does_not() -> None:
    grant = new_grant(spec_with(audience="private"), STANDARD, [], NOW)
    assert waiting_fields(spec_with(), grant) == {"paid/amount"}
    grant = new_grant(spec_with(), STANDARD, [], NOW)
    assert waiting_fields(spec_with(audience="private"), grant) == frozenset()


def test_a_base_field_declared_otherwise_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = new_grant(spec_with(), STANDARD, [], NOW)
    wider = msgspec.structs.replace(BASE["arch"], members=(*BASE["arch"].members, "sparc"))
    monkeypatch.setitem(BASE, "arch", wider)
    assert waiting_fields(spec_with(), grant) == {"*/arch"}


def test_of_two_versions_of_an_event_the_latest_is_declared() -> None:
    (one,), (two,) = spec_with().events, spec_with(version=2, max=11).events
    meta = spec_with().meta
    for events in itertools.permutations((one, two)):
        assert declarations(TelemetrySpec(meta=meta, events=events)) == declarations(spec_with(max=11))


TEAM = DestinationConfig("team", "http", settings={"endpoint": "https://t.example/v1"})
OWN = DestinationConfig("own", "http", "private", settings={"endpoint": "https://o.example/v1"})


def test_a_shared_destination_needs_a_yes_to_exactly_itself() -> None:
    grant = new_grant(spec_with(), STANDARD, [TEAM, OWN], NOW)
    assert grant.destinations == {"team": "http endpoint=https://t.example/v1"}
    policy = Policy(record=True, share=STANDARD, decided_by="you")
    assert allowed_destinations(policy, grant, [TEAM, OWN]) == ([TEAM, OWN], [])
    others = [
        TEAM._replace(settings={"endpoint": "https://elsewhere.example/v1"}),
        TEAM._replace(settings={"endpoint_env": "ENDPOINT"}),
        TEAM._replace(plugin="ftp"),
        TEAM._replace(name="team2"),
    ]
    for other in others:
        assert allowed_destinations(policy, grant, [other, OWN]) == ([OWN], [other])
    harmless = TEAM._replace(timeout=1.0, level=MINIMAL, settings={**TEAM.settings, "token_env": "T"})
    assert allowed_destinations(policy, grant, [harmless]) == ([harmless], [])
    assert allowed_destinations(policy, None, [TEAM, OWN]) == ([OWN], [TEAM])


def test_an_operator_covers_all_destinations_and_off_covers_none() -> None:
    operator = Policy(record=True, share=MINIMAL, decided_by="operator")
    assert allowed_destinations(operator, None, [TEAM, OWN]) == ([TEAM, OWN], [])
    grant = new_grant(spec_with(), STANDARD, [TEAM], NOW)
    assert allowed_destinations(Policy(decided_by="you"), grant, [TEAM, OWN]) == ([], [])


def test_a_yes_to_debug_lasts_thirty_days() -> None:
    assert new_grant(spec_with(), DEBUG, [], NOW).debug_expires == NOW + timedelta(days=30)
    grant = new_grant(spec_with(), STANDARD, [], NOW)
    assert (grant.record, grant.share, grant.decided_at) == (True, STANDARD, "2026-11-22T12:00:00Z")
    assert grant.debug_expires is None


# -- files and variables read together ---------------------------------------------------------------------------------


@pytest.fixture
def environ(home: Home) -> dict[str, str]:
    home.root.mkdir()
    return {"CMDORC_HOME": str(home.root)}


def operators_file(environ: dict[str, str], text: str) -> Path:
    path = Path(environ["CMDORC_HOME"]).with_name("operator.toml")
    path.write_text(f"[telemetry]\n{text}\n")
    environ["CMDORC_TELEMETRY_CONFIG"] = str(path)
    return path


def test_a_fresh_machine_is_off(environ: dict[str, str], home: Home) -> None:
    situation = Situation.read(environ)
    assert situation == Situation(home, environ, Layer(source=home.config), None)
    assert situation.policy() == Policy()
    assert list(home.root.iterdir()) == []


def test_the_environment_of_the_process_is_read_where_none_is_given(
    environ: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMDORC_HOME", environ["CMDORC_HOME"])
    assert Situation.read().home == home


def test_asking_in_files_and_code_never_turns_anything_on(environ: dict[str, str], home: Home) -> None:
    home.config.write_text("[telemetry]\nenabled = true\nlevel = 'standard'\nendpoint = 'https://t.example'")
    config = TelemetryConfig(enabled=True, level=STANDARD)
    project = Layer(enabled=True, level=STANDARD, asks=True)
    assert not Situation.read(environ, config=config, project=project).policy().record


def test_what_holds_for_one_program_or_project_can_be_left_out(environ: dict[str, str], home: Home) -> None:
    save_grant(home, CORE_SPEC, YES)
    situation = Situation.read(environ, config=TelemetryConfig(enabled=True), project=Layer(level=MINIMAL))
    assert situation.policy().share is MINIMAL
    assert situation.policy(layered=False).share is STANDARD
    assert situation.policy(spec="acme.app").record is False


@pytest.mark.parametrize(
    ("config", "share"),
    [
        (TelemetryConfig(enabled=True, level=MINIMAL), MINIMAL),
        (TelemetryConfig(enabled=True, level=STANDARD), STANDARD),
        (TelemetryConfig(level=STANDARD), OFF),
    ],
)
def test_an_argument_lowers_for_its_program_alone(
    config: TelemetryConfig, share: TelemetryLevel, environ: dict[str, str], home: Home
) -> None:
    save_grant(home, CORE_SPEC, YES)
    situation = Situation.read(environ, config=config)
    for each in (situation, situation.again()):
        assert each.policy().share is share
        assert each.policy().record is config.enabled
        assert each.policy(layered=False).share is STANDARD


def test_an_operators_file_counts_where_nobody_decided(environ: dict[str, str], home: Home) -> None:
    home.config.write_text("[telemetry]\nplugins = ['mine']")
    path = operators_file(environ, "plugins = ['theirs']\nlevel = 'minimal'")
    environ["CMDORC_TELEMETRY"] = "standard"
    situation = Situation.read(environ)
    assert (situation.user.source, situation.user.plugins) == (path, ("theirs",))
    assert situation.policy().share is MINIMAL
    assert situation.policy().limits == ("operator's file: level (minimal)",)

    home.config.write_text("[telemetry]\nenabled = false")
    assert situation.again().policy().limits[-1] == "your file: enabled = false (off)"
    assert not situation.again().policy().record


@pytest.mark.parametrize("project", [None, Layer(level=STANDARD)])
def test_an_operators_file_only_lowers_where_a_person_decided(
    project: Layer | None, environ: dict[str, str], home: Home
) -> None:
    save_grant(home, CORE_SPEC, YES)
    home.config.write_text("[telemetry]\nplugins = ['mine']")
    operators_file(environ, "plugins = ['theirs']\nlevel = 'minimal'")
    situation = Situation.read(environ, project=project)
    assert situation.user.plugins == ("mine",)
    for layered in (True, False):
        assert situation.policy(layered=layered).share is MINIMAL
        assert situation.policy(layered=layered).limits == ("operator's file: level (minimal)",)
    operators_file(environ, "enabled = false")
    assert not situation.again().policy().record


def test_an_operators_file_that_is_not_there_is_an_error(environ: dict[str, str]) -> None:
    environ["CMDORC_TELEMETRY_CONFIG"] = "/no/such.toml"
    with pytest.raises(ConfigError) as caught:
        Situation.read(environ)
    assert str(caught.value) == (
        "environment: CMDORC_TELEMETRY_CONFIG: '/no/such.toml' is no file; expected a TOML file"
    )


def test_a_decision_is_seen_by_those_who_read_again(environ: dict[str, str], home: Home) -> None:
    project = Layer(level=MINIMAL)
    before = Situation.read(environ, config=TelemetryConfig(enabled=True, level=STANDARD), project=project)
    save_grant(home, CORE_SPEC, YES)
    yes = before.again()
    assert (yes.argument, yes.project) == (before.argument, project)
    assert (yes.policy().share, yes.policy(layered=False).share) == (MINIMAL, STANDARD)
    assert yes.policy().generation == yes.consent.generation  # type: ignore[union-attr]
    save_grant(home, CORE_SPEC, NO)
    assert not yes.again().policy().record


def test_a_file_that_breaks_meanwhile_turns_everything_off(environ: dict[str, str], home: Home) -> None:
    save_grant(home, CORE_SPEC, YES)
    situation = Situation.read(environ)
    home.config.write_text("[telemetry")
    again = situation.again()
    assert (again.policy().record, again.policy(layered=False).record) == (False, False)
    assert "is not valid TOML" in again.trouble
    home.config.unlink()
    assert again.again().policy().share is STANDARD


def test_a_yes_to_debug_ends_in_a_running_process(
    environ: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_grant(home, CORE_SPEC, new_grant(spec_with(), DEBUG, [], NOW))
    situation = Situation.read(environ)
    last = NOW + timedelta(days=30)
    for moment, level in ((last - timedelta(seconds=1), DEBUG), (last, STANDARD)):
        monkeypatch.setattr("cmdorc_telemetry.clock.wall", moment.timestamp)
        assert situation.policy().share is level
    assert situation.policy().limits == ("DEBUG consent: expired (standard)",)


def test_a_folder_in_which_no_lock_can_be_had_is_an_error(home: Home) -> None:
    for name in ("consent.lock", "consent.lock.lock"):
        (home.telemetry / name).mkdir(parents=True)
    with pytest.raises(StorageError, match="telemetry cannot be written: Is a directory"):
        save_grant(home, CORE_SPEC, YES)


def test_a_directory_in_place_of_the_file_makes_room_for_a_new_decision(home: Home) -> None:
    home.consent.mkdir(parents=True)
    saved = save_grant(home, CORE_SPEC, YES)
    assert load_consent(home) == saved
    assert [path.is_dir() for path in home.telemetry.glob("consent.toml.corrupt-*")] == [True]
