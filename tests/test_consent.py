"""What a person decided is kept as it was said, for the fields and destinations that were shown."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import DestinationConfig
from cmdorc_telemetry.consent import Grant, load_consent, save_decision
from cmdorc_telemetry.declarations import declarations, differences, identities, new_grant, unanswered, waiting_fields
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConsentError, StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import Policy
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import BASE, CORE, TelemetrySpec, load_spec

OFF, MINIMAL, STANDARD, DEBUG = TelemetryLevel
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
YES = Grant(record=True, share=STANDARD)
NO = Grant()

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
    Grant(
        True,
        STANDARD,
        "2026-11-22T12:00:00+02:00",
        {"*/os": '{"a": "b\n"}', "e/$f": "'"},
        {"e/f": "{}"},
    ),
    Grant(True, DEBUG, "", debug_expires=NOW),
]


@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: f"{grant.record}-{grant.share.value}")
def test_a_decision_is_read_as_it_was_written(grant: Grant, home: Home) -> None:
    assert load_consent(home) is None
    saved = save_decision(home, {CORE_SPEC: grant})
    assert load_consent(home) == saved
    assert saved.grants == {CORE_SPEC: grant}
    assert stat.S_IMODE(home.consent.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.telemetry.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert "Written by `cmdorc telemetry`" in home.consent.read_text(encoding="utf-8")


def test_every_decision_is_a_generation_of_its_own(home: Home) -> None:
    shares = [MINIMAL, STANDARD, STANDARD, DEBUG]
    saved = [save_decision(home, {CORE_SPEC: YES._replace(share=share)}) for share in shares]
    assert len({consent.generation for consent in saved}) == len(shares)
    last = load_consent(home)
    assert last is not None
    assert [last.level_of(consent.generation, CORE_SPEC) for consent in saved] == shares
    assert last.level_of("unknown", CORE_SPEC) is OFF
    assert last.level_of(last.generation, "acme.app") is OFF


@pytest.mark.parametrize("lesser", [YES._replace(share=MINIMAL), Grant(record=True), NO, NO._replace(share=DEBUG)])
def test_a_lesser_decision_holds_for_what_was_recorded_before_it(lesser: Grant, home: Home) -> None:
    """Whatever is decided later: an event recorded before an opt-out is not sent after the next opt-in."""
    save_decision(home, {"acme.app": YES})
    first = save_decision(home, {CORE_SPEC: YES})
    second = save_decision(home, {CORE_SPEC: lesser})
    last = save_decision(home, {CORE_SPEC: YES})
    least = lesser.share if lesser.record else OFF
    assert last == load_consent(home)
    assert [last.level_of(each.generation, CORE_SPEC) for each in (first, second, last)] == [least, least, STANDARD]
    assert [last.level_of(each.generation, "acme.app") for each in (first, second, last)] == [STANDARD] * 3


def test_what_no_generation_allows_any_more_is_forgotten(home: Home) -> None:
    for grant in (YES, YES, YES._replace(share=MINIMAL)):
        save_decision(home, {CORE_SPEC: grant})
    last = save_decision(home, {CORE_SPEC: NO})
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
            ("fields", "1"), ("fields", "{x = 1}"), ("declined", "['http']"), ("debug_expires", "2026-11-22"),
            ("debug_expires", "2026-11-22T12:00:00"), ("debug_expires", "'never'"),
        ]
    },
    **{
        f"generations = {value}": f"generation = 'x'\ngenerations = {value}\n[spec]"
        for value in ("'all'", "['x']", "{x = 'standard'}", "{x = {s = 'all'}}", "{x = {s = 3}}", "{x = {s = []}}")
    },
    **{
        line: f"generation = 'x'\n{line}\n[spec]"
        for line in ("destinations = ['http']", "destinations = {http = 1}", "declined = 'http'", "later = 1",
                     "later.fields = {x = {s = 'all'}}", "later.fields = {x = {s = [1]}}",
                     "later.destinations = {x = 'http'}")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_turns_everything_off_and_can_be_replaced(name: str, home: Home) -> None:
    write(home, BROKEN[name])
    with pytest.raises(ConsentError, match=f"^{home.consent} cannot be used .*: nothing is recorded or sent"):
        load_consent(home)
    situation = Situation.read({"CMDORC_HOME": str(home.root), "CMDORC_TELEMETRY": "standard"})
    assert situation.policy() == Policy(trouble=situation.trouble)
    assert not situation.policy().record
    assert save_decision(home, {CORE_SPEC: YES}) == load_consent(home)


def test_a_directory_in_place_of_the_file_turns_everything_off(home: Home) -> None:
    home.consent.mkdir(parents=True)
    with pytest.raises(ConsentError, match="it is no file"):
        load_consent(home)
    assert save_decision(home, {CORE_SPEC: YES}) == load_consent(home)
    (kept,) = home.telemetry.glob("consent.toml.corrupt-*")
    assert kept.is_dir()


def test_somebody_elses_decision_is_not_ours(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    save_decision(home, {CORE_SPEC: YES})
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
        save_decision(home, {CORE_SPEC: YES})


def test_decisions_made_at_once_are_all_kept(home: Home) -> None:
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.config import TelemetryLevel
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.consent import Grant, save_decision
for _ in range(15):
    print(save_decision(Home(Path(sys.argv[1])), {sys.argv[2]: Grant(True, TelemetryLevel.MINIMAL)}).generation)
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
    assert waiting_fields(spec_with(), new_grant(spec_with(), STANDARD, NOW)) == frozenset()
    assert waiting_fields(spec_with(), new_grant(spec_with(description="in other words"), STANDARD, NOW)) == set()
    assert waiting_fields(spec_with(), None) == frozenset()  # an operator's grant covers the shipped spec


@pytest.mark.parametrize(
    "changes",
    [{"max": 11}, {"min": -1}, {"level": "minimal"}, {"max_items": 5}, {"type": "count"}],
    ids=str,
)
def test_a_field_declared_wider_waits_alone(changes: dict[str, Any]) -> None:
    grant = new_grant(spec_with(), STANDARD, NOW)
    wider = spec_with(**changes)
    assert differences(wider, grant) == {"paid/amount": "widened"}
    assert waiting_fields(wider, grant) == unanswered(wider, grant, STANDARD) == {"paid/amount"}


@pytest.mark.parametrize(
    "changes", [{"max": 9}, {"min": 1}, {"level": "debug"}, {"pii": True}, {"required": True}], ids=str
)
def test_a_field_declared_narrower_needs_no_answer(changes: dict[str, Any]) -> None:
    grant = new_grant(spec_with(), STANDARD, NOW)
    assert differences(spec_with(**changes), grant) == {"paid/amount": "narrowed"}
    assert waiting_fields(spec_with(**changes), grant) == frozenset()


def test_a_yes_is_to_what_its_level_shares() -> None:
    spec = load_spec(CORE)
    assert new_grant(spec, OFF, NOW).fields == {}
    assert "command_completed/chain_depth" not in new_grant(spec, MINIMAL, NOW).fields
    debug = new_grant(spec, DEBUG, NOW)
    assert debug.fields == declarations(spec)
    grant = new_grant(spec, MINIMAL, NOW)
    assert "command_completed/chain_depth" in waiting_fields(spec, grant)  # fails closed
    assert unanswered(spec, grant, MINIMAL) == frozenset()  # and nobody is asked for it
    assert unanswered(spec, grant, STANDARD) > {"command_completed/chain_depth"}


def test_what_got_a_no_is_not_asked_for_until_it_is_declared_otherwise() -> None:
    wider = spec_with(max=11)
    grant = new_grant(spec_with(), STANDARD, NOW)._replace(declined={"paid/amount": declarations(wider)["paid/amount"]})
    assert waiting_fields(wider, grant) == {"paid/amount"}
    assert unanswered(wider, grant, STANDARD) == frozenset()
    assert unanswered(spec_with(max=12), grant, STANDARD) == {"paid/amount"}
    assert unanswered(wider, None, STANDARD) == frozenset()


@pytest.mark.parametrize(
    ("grant", "level"),
    [
        (NO._replace(share=DEBUG), OFF),
        (YES, STANDARD),
        (YES._replace(share=MINIMAL, debug_expires=NOW), MINIMAL),
        (YES._replace(share=DEBUG), STANDARD),
        (YES._replace(share=DEBUG, debug_expires=NOW), STANDARD),
        (YES._replace(share=DEBUG, debug_expires=NOW + timedelta(seconds=1)), DEBUG),
    ],
)
def test_a_grant_is_worth_its_level_and_debug_ends(grant: Grant, level: TelemetryLevel) -> None:
    assert grant.level(NOW) is level


@pytest.mark.parametrize("changes", [{"why": "other reasons"}, {"days": 31}], ids=str)
def test_an_event_kept_longer_or_for_another_reason_waits_whole(changes: dict[str, Any]) -> None:
    grant = new_grant(spec_with(), STANDARD, NOW)
    assert waiting_fields(spec_with(**changes), grant) == {"paid/amount", "paid/currency"}


def test_a_new_field_waits_and_one_that_became_private_does_not() -> None:
    grant = new_grant(spec_with(audience="private"), STANDARD, NOW)
    assert waiting_fields(spec_with(), grant) == {"paid/amount"}
    grant = new_grant(spec_with(), STANDARD, NOW)
    assert waiting_fields(spec_with(audience="private"), grant) == frozenset()
    assert differences(spec_with(audience="private"), grant) == {"paid/amount": "removed"}
    assert differences(spec_with(), None) == {}


def test_a_base_field_declared_otherwise_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = new_grant(spec_with(), STANDARD, NOW)
    wider = msgspec.structs.replace(BASE["arch"], members=(*BASE["arch"].members, "sparc"))
    monkeypatch.setitem(BASE, "arch", wider)
    assert waiting_fields(spec_with(), grant) == {"*/arch"}


def test_of_two_versions_of_an_event_the_latest_is_declared() -> None:
    (one,), (two,) = spec_with().events, spec_with(version=2, max=11).events
    meta = spec_with().meta
    for events in itertools.permutations((one, two)):
        latest, declared = declarations(spec_with(max=11)), declarations(TelemetrySpec(meta=meta, events=events))
        assert declared == {**latest, "paid@1/amount": declarations(spec_with())["paid/amount"]}


def test_what_an_earlier_version_no_longer_says_is_not_declared() -> None:
    (one,), (two,) = spec_with().events, spec_with(version=2).events
    left = msgspec.structs.replace(two, properties={"currency": two.properties["currency"]})
    assert "paid/amount" not in declarations(TelemetrySpec(meta=spec_with().meta, events=(left, one)))


# -- what was recorded before ------------------------------------------------------------------------------------------


def test_a_field_agreed_to_later_is_not_agreed_to_for_what_was_recorded_before(home: Home) -> None:
    spec, wider = spec_with(), spec_with(max=11)
    first = save_decision(home, {"acme.app": new_grant(spec, STANDARD, NOW)})
    second = save_decision(home, {"acme.app": new_grant(wider, STANDARD, NOW)})
    third = save_decision(home, {CORE_SPEC: YES})
    assert third == load_consent(home)
    assert third.lacking(first.generation, "acme.app") == {"paid/amount"}
    assert third.lacking(second.generation, "acme.app") == third.lacking("unknown", "acme.app") == frozenset()
    assert third.lacking(first.generation, CORE_SPEC) == frozenset()
    again = save_decision(home, {"acme.app": new_grant(spec, STANDARD, NOW)})  # narrower: nothing new is agreed to
    assert again.later_fields == {key: third.later_fields.get(key, {}) for key in again.later_fields}
    fewer = save_decision(home, {"acme.app": new_grant(spec, MINIMAL, NOW)})
    assert set(fewer.later_fields) == {first.generation, second.generation, third.generation, again.generation}


def test_a_destination_agreed_to_later_gets_nothing_that_was_recorded_before(home: Home) -> None:
    first = save_decision(home, {CORE_SPEC: YES}, {"team": "http"})
    kept = save_decision(home, {CORE_SPEC: YES})
    second = save_decision(home, {CORE_SPEC: YES}, {"team": "http", "board": "http"})
    moved = save_decision(home, {CORE_SPEC: YES}, {"team": "elsewhere", "board": "http"})
    assert kept.destinations == {"team": "http"}
    assert moved == load_consent(home)
    reached = {
        name: [moved.reaches(each.generation, name) for each in (first, kept, second, moved)]
        for name in ("team", "board", "mine")
    }
    assert reached == {
        "team": [False, False, False, True],
        "board": [False, False, True, True],
        "mine": [True, True, True, True],
    }


def test_where_nothing_is_shared_no_destination_is_agreed_to(home: Home) -> None:
    save_decision(home, {CORE_SPEC: YES}, {"team": "http"}, declined={"board": "http"})
    other = save_decision(home, {"acme.app": YES})
    assert (other.destinations, other.declined) == ({"team": "http"}, {"board": "http"})
    assert save_decision(home, {CORE_SPEC: NO}).destinations == {"team": "http"}  # the other spec is shared still
    none = save_decision(home, {"acme.app": Grant(record=True)})
    assert (none.destinations, none.declined) == ({}, {})
    again = save_decision(home, {CORE_SPEC: YES}, {"team": "http"})
    assert not again.reaches(other.generation, "team") or again.level_of(other.generation, CORE_SPEC) is OFF


def test_an_addition_is_to_the_decision_that_was_shown_alone(home: Home) -> None:
    shown = save_decision(home, {CORE_SPEC: YES})
    save_decision(home, {CORE_SPEC: NO})
    before = home.consent.read_bytes()
    with pytest.raises(ConsentError, match="decided otherwise in the meantime; nothing was changed"):
        save_decision(home, {CORE_SPEC: YES}, since=shown.generation)
    assert home.consent.read_bytes() == before
    write(home, "broken")
    with pytest.raises(ConsentError, match="decided otherwise"):
        save_decision(home, {CORE_SPEC: YES}, since=shown.generation)
    assert home.consent.read_bytes() == b"broken"


def test_a_file_of_an_earlier_form_shares_with_nobody(home: Home) -> None:
    grant = (
        "[spec.'cmdorc.core']\nrecord = true\nshare = 'standard'\n[spec.'cmdorc.core'.destinations]\nteam = 'http'\n"
    )
    write(home, f"generation = 'x'\n{grant}[generations.x]\n'cmdorc.core' = 'standard'\n")
    consent = load_consent(home)
    assert consent is not None
    assert consent.destinations == {}
    assert consent.level_of("x", CORE_SPEC) is STANDARD


def test_of_all_destinations_the_shared_ones_need_a_yes() -> None:
    to = DestinationConfig("team", "http", settings={"endpoint": "https://t.example"})
    assert identities([to, DestinationConfig("mine", "http", "private")]) == {"team": "http endpoint=https://t.example"}


def test_a_yes_to_debug_lasts_thirty_days() -> None:
    assert new_grant(spec_with(), DEBUG, NOW).debug_expires == NOW + timedelta(days=30)
    grant = new_grant(spec_with(), STANDARD, NOW)
    assert (grant.record, grant.share, grant.decided_at) == (True, STANDARD, "2026-11-22T12:00:00Z")
    assert grant.debug_expires is None


def test_a_folder_in_which_no_lock_can_be_had_is_an_error(home: Home) -> None:
    for name in ("consent.lock", "consent.lock.lock"):
        (home.telemetry / name).mkdir(parents=True)
    with pytest.raises(StorageError, match="telemetry cannot be written: Is a directory"):
        save_decision(home, {CORE_SPEC: YES})


def test_a_directory_in_place_of_the_file_makes_room_for_a_new_decision(home: Home) -> None:
    home.consent.mkdir(parents=True)
    saved = save_decision(home, {CORE_SPEC: YES})
    assert load_consent(home) == saved
    assert [path.is_dir() for path in home.telemetry.glob("consent.toml.corrupt-*")] == [True]
