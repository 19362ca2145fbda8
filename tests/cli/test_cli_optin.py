"""``opt-in``: shows, asks, and writes all of it or nothing."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import closing
from datetime import datetime, timedelta, timezone
from importlib import metadata

import pytest

from cmdorc_telemetry import CompletedRun, TelemetryLevel, TelemetryRegistry, load_telemetry_config
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.capture import Hasher, cwd_prefix, machine_fields
from cmdorc_telemetry.cli.machine import Machine as Commands
from cmdorc_telemetry.config import read_table
from cmdorc_telemetry.consent import load_consent
from cmdorc_telemetry.identity import load_identity

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
LOCAL_QUESTION = "Record on this machine only? [y/N] "
QUESTION = "Record, and share this? [y/N] "
DEBUG_QUESTION = "This sends hashed command info — confirm? (expires in 30 days) [y/N] "


def decided(machine):
    consent = load_consent(machine.home)
    assert consent is not None
    return consent


def grant(machine):
    return decided(machine).grants[CORE_SPEC]


def test_yes_writes_identity_decision_file_and_cursors(machine) -> None:
    machine.config("# mine\n" + HTTP + "\n[other]\nkept = true  # too\n").chmod(0o640)
    result = machine("opt-in", "--level", "standard", "--yes")
    assert result.stdout.splitlines()[0] == "Telemetry is on. Level standard."
    assert load_identity(machine.home) is not None
    assert (grant(machine).record, grant(machine).share) == (True, TelemetryLevel.STANDARD)
    assert decided(machine).destinations == {"http": "http endpoint=http://127.0.0.1:9/v1"}
    text = machine.home.config.read_text()
    assert text.startswith("# mine\n")
    assert "kept = true  # too\n" in text
    assert read_table(machine.home.config)["telemetry"] == {
        "plugins": ["http"], "endpoint": "http://127.0.0.1:9/v1", "enabled": True, "level": "standard"
    }  # fmt: skip
    assert stat.S_IMODE(machine.home.config.stat().st_mode) == 0o640
    assert [each["name"] for each in machine.json("status")["destinations"]] == ["http"]
    assert machine.home.spool.exists()


def test_a_home_is_made_for_its_owner_alone(machine) -> None:
    machine.opt_in()
    for folder in (machine.home.root, machine.home.telemetry):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in machine.files():
        assert stat.S_IMODE((machine.home.root / name).stat().st_mode) == 0o600


def test_every_field_and_destination_is_shown(machine) -> None:
    machine.plugin("jot")
    machine.config(
        HTTP.replace('["http"]', '["http", "jot"]')
        + '[telemetry.to.mine]\nplugin = "jot"\naudience = "private"\n[telemetry.to.board]\nplugin = "graphs"\n'
        '[telemetry.to.less]\nplugin = "jot"\nlevel = "minimal"\nevents = ["command_completed", "trigger_fired"]\n'
    )
    (core,) = TelemetryRegistry.with_core()
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    sections = {part.split("  ")[0]: part for part in re.split(r"\n(?=\S)", shown)}
    assert shown.index("Every event  has these fields\n") < shown.index("\ncmdorc core  cmdorc.core, of @cmdorc")
    for event in core.events:
        section = sections[event.name]
        for name, prop in event.properties.items():
            line = rf"^  {name} +\S.*\n      {re.escape(prop.description)} \("
            assert bool(re.search(line, section, re.MULTILINE)) == prop.shared_at("standard"), name
        assert section.startswith(
            f"{event.name}  {event.semantics.what}\n  Why      {event.semantics.why}\n  Kept     at most 90 days\n"
        )
    left = "less (without chain_depth, concurrent_runs, timed_out)"
    assert f"  To       board, {left}, http\n" in sections["command_completed"]
    assert "  To       board, http; not to less\n" in sections["trigger_fired"]
    assert "  To       board, http; not to less\n" in sections["orchestrator_started"]
    assert "How the run ended (success, failed, cancelled, other)\n" in shown
    assert "Never shared: command_name, config_name, message, run_id, trigger_event, trigger_names.\n" in shown
    assert "  http  http://127.0.0.1:9/v1  (shared)\n" in shown
    assert "  mine  jot  (yours, gets everything, names too)\n" in shown
    assert "  board  graphs  (shared · plugin graphs is not installed)\n" in shown
    assert "  less  jot  (shared · only command_completed, trigger_fired · at most level minimal)\n" in shown
    minimal = machine("opt-in", "--level", "minimal", "--yes").stderr
    assert "duration_ms" in minimal
    assert "chain_depth" not in minimal
    assert "trigger_fired  " not in minimal


def values(shown: str) -> dict[str, str]:
    """Field → the value that was shown of it, in the section that it is in last."""
    return dict(re.findall(r"^  (\w+) +(.*)\n      ", shown, re.MULTILINE))


def test_before_anything_was_recorded_the_values_are_of_this_machine_or_a_sample(machine) -> None:
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    found = values(shown)
    assert {name: found[name] for name in machine_fields()} == machine_fields()
    assert found["cmdorc_version"] == metadata.version("cmdorc")
    assert found["anonymous_install_id"] == "made when you say yes"
    assert (found["level"], found["duration_ms"], found["uptime_s"]) == ("standard", "3512", "600-3600")
    assert "app_name" not in found  # which is for others
    assert shown.count("  Here     none yet, a sample\n") == 5


@pytest.mark.parametrize("imported", [True, False])
def test_the_values_are_of_the_newest_events_of_this_machine(machine, terminal, imported: bool) -> None:
    machine.opt_in("--local")
    earlier = CompletedRun(run_id="r", command_name="Old", state="failed", duration=1.0)
    machine.record(
        earlier, CompletedRun(run_id="r", command_name="Lint", state="cancelled", duration=0.217), trigger=True
    )
    if imported:
        machine("stats")
    else:
        with Commands().spool():
            pass
    identity = load_identity(machine.home)
    asked = terminal("opt-in", "--debug")
    asked.answer(QUESTION, "n\n")
    shown = re.sub("\x1b\\[[0-9;]*m", "", asked.before).replace("\r", "")
    asked.end()
    sections = {part.split("  ")[0]: part for part in re.split(r"\n(?=\S)", shown)}
    hashed = Hasher(identity.salt)
    run = values(sections["command_completed"])
    assert "  Here     the newest\n" in sections["command_completed"]
    assert (run["duration_ms"], run["state"]) == ("217", "cancelled")
    assert run["hashed_command_name"] == hashed("Lint")
    assert run["hashed_cwd_prefix"] == hashed(cwd_prefix(os.environ["PWD"]))
    assert values(sections["trigger_fired"])["hashed_trigger_patterns"] == f'["{hashed("go")}"]'
    assert values(sections["orchestrator_started"])["most_common_on_retrigger_policy"] == "–"
    assert re.fullmatch(r'\["[0-9a-f]{12}".*', values(sections["orchestrator_started"])["hashed_trigger_patterns"])
    assert "  Here     none yet, a sample\n" in sections["anomaly_detected"]
    assert values(sections["Every event"])["anonymous_install_id"] == identity.install_id


MASKER = """
from cmdorc_telemetry import hookimpl

@hookimpl
def telemetry_anonymize(event):
    if event.name == "trigger_fired":
        raise ValueError("no")
    assert event.fields["anonymous_install_id"].strip("0-") == ""
    return {"cmdorc_version": "0", "python_version": None, "state": "other"} if "state" in event.fields else {}
"""


def test_the_values_are_those_that_anonymizers_leave(machine) -> None:
    machine.plugin("masker", MASKER)
    machine.config('[telemetry]\nplugins = ["masker"]\n')
    machine.opt_in("--local")
    for here in ("none yet, a sample", "the newest"):
        shown = machine("opt-in", "--level", "standard", "--yes").stderr
        sections = {part.split("  ")[0]: part for part in re.split(r"\n(?=\S)", shown)}
        base, run = values(sections["Every event"]), values(sections["command_completed"])
        assert (base["cmdorc_version"], base["python_version"]) == ("0", "– (masker takes it out)")
        assert run["state"] == "other"
        assert f"  Here     {here}\n" in sections["command_completed"]
        assert "  To       nobody: masker, which anonymizes, holds it back\n" in sections["trigger_fired"]
        assert values(sections["trigger_fired"])["trigger_count"] == "–"
        machine.record(trigger=True)
        machine("stats")


def test_an_earlier_version_of_an_event_has_values_of_its_own(machine) -> None:
    machine.plugin("masker", MASKER)
    machine.plugin("shop", SHOP)
    machine.config('[telemetry]\nplugins = ["masker", "shop"]\n')
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    assert re.search(r"\npaid@1  .*\n.*\n.*\n  To       nobody yet\n", shown)


def test_a_newest_event_that_its_spec_no_longer_allows_is_none(machine) -> None:
    machine.plugin("masker", MASKER)
    machine.config('[telemetry]\nplugins = ["masker"]\n')
    machine.opt_in("--local")
    machine.record()
    machine("stats")
    with closing(sqlite3.connect(machine.home.history)) as db:
        db.execute("UPDATE event SET body=CAST(replace(CAST(body AS TEXT), '3500', '-1') AS BLOB)")
        db.commit()
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    assert values(shown)["duration_ms"] == "3512"


def test_an_event_that_waits_is_not_newer_for_it(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "standard")
    machine.record()
    machine("stats")
    with closing(sqlite3.connect(machine.home.spool)) as db:
        db.execute(
            "UPDATE event SET private=replace(replace(private, '\"timestamp\":\"2', '\"timestamp\":\"1'), '3500', '1')"
        )
        db.commit()
    assert values(machine("opt-in", "--level", "standard", "--yes").stderr)["duration_ms"] == "3500"
    machine.home.history.unlink()
    assert values(machine("opt-in", "--level", "standard", "--yes").stderr)["duration_ms"] == "1"


def test_what_cannot_be_read_is_no_reason_not_to_ask(machine) -> None:
    machine.opt_in("--local")
    machine.record()
    machine("stats")
    machine.home.history.write_bytes(b"no database" * 999)
    machine.home.install_id.write_text("no id")
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    assert values(shown)["anonymous_install_id"] == "made when you say yes"
    assert shown.count("  Here     none yet, a sample\n") == 5


SHOP = """
import msgspec
from cmdorc_telemetry import TelemetrySpec, hookimpl

@hookimpl
def telemetry_specs():
    return [msgspec.convert({
        "meta": {"name": "shop", "title": "The shop", "owners": ["@shop", "@till"]},
        "config": {"default_sampling_rate": 0.25, "default_retention_days": 1},
        "events": [
            {"name": "paid", "semantics": {"what": "Somebody paid"}, "properties": {
                "duration_ms": {"type": "count", "level": "minimal"}}},
            {"name": "paid", "version": 2, "semantics": {"what": "Somebody paid"}, "properties": {
                "amount": {"type": "count", "level": "minimal"}}},
        ],
    }, TelemetrySpec)]
"""


def test_a_yes_is_to_every_spec_of_this_home(machine) -> None:
    machine.plugin("shop", SHOP)
    spec = '[meta]\nname = "till"\n[[events]]\nname = "opened"\nsemantics = {what = "It opened"}\n'
    spec += '[events.properties.n]\ntype = "count"\nlevel = "debug"\n'
    machine.config('[telemetry]\nplugins = ["shop"]\nspecs = ["till.toml"]\n')
    (machine.home.root / "till.toml").write_text(spec)
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    assert (
        "The shop  shop, of @shop, @till\n\npaid@1  Somebody paid\n  Kept     at most 1 day\n  Sampled  25% of them\n"
        "  To       nobody yet\n  Here     none yet, a sample\n\n  duration_ms  0\n      whole number, 0 or more\n\n"
        "paid  Somebody paid\n  Kept     at most 1 day\n  Sampled  25% of them\n"
        "  To       nobody yet\n  Here     none yet, a sample\n\n  amount  0\n      whole number, 0 or more\n" in shown
    )
    assert "\ntill  till\n\n  Level standard shares nothing of it.\n\n" in shown
    assert "opened  It opened" not in shown
    consent = decided(machine)
    assert set(consent.grants) == {CORE_SPEC, "shop", "till"}
    assert {(each.record, each.share) for each in consent.grants.values()} == {(True, TelemetryLevel.STANDARD)}
    assert "paid/amount" in consent.grants["shop"].fields
    assert "paid@1/duration_ms" in consent.grants["shop"].fields
    machine("disable", "shop")
    machine.opt_in("--level", "minimal")
    assert decided(machine).grants["shop"].share is TelemetryLevel.MINIMAL  # no more than to what was shown
    program = machine.program()
    assert program.track("opened", {"n": 1})
    program.close()


def test_without_a_destination_it_says_that_nothing_leaves(machine) -> None:
    assert "  nobody yet: no destination is configured, everything stays here\n" in machine("opt-in", "--yes").stderr


@pytest.mark.parametrize(
    ("config", "level"),
    [
        ("", "minimal"),
        ('[telemetry]\nlevel = "standard"\n', "standard"),
        ('[telemetry]\nlevel = "off"\n', "minimal"),
    ],
)
def test_the_level_is_what_the_file_says_or_minimal(machine, config: str, level: str) -> None:
    machine.config(config)
    machine.opt_in()
    assert grant(machine).share.value == level
    assert machine.json("status")["level"] == level


def test_local_shares_with_nobody(machine) -> None:
    machine.config(HTTP + 'level = "standard"\nlocal_file = "/nowhere/x.jsonl"\n')
    shown = machine("opt-in", "--local", "--yes").stdout
    assert shown.startswith("Telemetry records on this machine only.\n")
    assert "\nThe bytes  telemetry show-payload --to history\n" in shown
    assert "\nThe bytes  telemetry show-payload --to history\n" in machine("status").stdout
    assert "telemetry show-payload --to history" in machine("view", "--output", "-").stdout
    machine.record()
    assert machine("show-payload", "--to", "history").stdout
    assert (grant(machine).share, decided(machine).destinations) == (TelemetryLevel.OFF, {})
    assert "level" not in read_table(machine.home.config)["telemetry"]
    told = machine.json("status")
    assert [each["state"] for each in told["destinations"]] == ["waits-for-your-yes", "plugin-missing"]
    assert told["limits"] == told["ignored"] == []


def test_what_still_limits_it_is_said(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    shown = machine("opt-in", "--yes").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n\n! Lowered by environment: DO_NOT_TRACK (off).\n")


def test_a_reporter_that_was_not_told_where_to_is_named_with_the_key_that_it_needs(machine) -> None:
    machine.config('[telemetry]\nplugins = ["file", "posthog"]\n')
    needs = f"file has no destination: set path in [telemetry.to.file] of {machine.home.config}"
    shown = machine("opt-in", "--yes").stderr
    assert f"\n  {needs}.\n" in shown
    assert "\n  posthog has no destination: set endpoint and api_key in [telemetry.to.posthog] of " in shown
    assert "  nobody yet: no destination is configured, everything stays here\n" in shown
    assert f"! {needs}.\n" in machine("status").stdout
    assert machine("show-payload", "--to", "file", code=2).stderr == f"error: --to: {needs}\n"


def test_a_missing_plugin_is_named_with_the_line_that_helps(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "graphs"\n')
    assert (
        "! board: plugin graphs is not installed. Events wait for it.\n"
        f"  correct telemetry.to.board.plugin in {machine.home.config}: installed are anomaly, "
        in machine("opt-in", "--yes").stdout
    )


def test_a_person_decides_about_their_own_file_not_an_operators(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = machine.project(HTTP, "operator.toml")
    monkeypatch.setenv("CMDORC_TELEMETRY_CONFIG", str(operator))
    machine.opt_in()
    assert decided(machine).destinations == {}


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "error: opt-in: there is no terminal to ask on; nothing was changed; expected --yes\n"),
        (("--local",), "error: opt-in: there is no terminal to ask on; nothing was changed; expected --yes\n"),
        (("--debug", "--yes"), "error: level debug: needs a person at a terminal, and --yes is none; "
                               "nothing was changed\n"),
        (("--level", "debug", "--yes"), "error: level debug: needs a person at a terminal, and --yes is none; "
                                        "nothing was changed\n"),
    ],
)  # fmt: skip
def test_without_a_terminal(machine, args: tuple[str, ...], said: str) -> None:
    result = machine("opt-in", *args, code=2)
    assert (result.stdout, result.stderr) == ("", said)
    assert not machine.home.root.exists()


@pytest.mark.parametrize(
    "args", [("--debug", "--level", "minimal"), ("--local", "--debug"), ("--local", "--level", "minimal")]
)
def test_contradictions(machine, args: tuple[str, ...]) -> None:
    assert machine("opt-in", "--yes", *args, code=2).stdout == ""
    assert not machine.home.root.exists()


def test_an_unknown_level(machine) -> None:
    assert "'standrad' is not one of 'minimal', 'standard', 'debug'" in (
        machine("opt-in", "--level", "standrad", code=2).stderr
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[telemetry\n", "is not valid TOML"),
        ('[telemetry]\nplugns = ["http"]\n', "telemetry.plugns: unknown key"),
        (HTTP.replace("127.0.0.1:9", "t.example"), "expected https://"),
        ('[telemetry]\nplugins = ["http"]\n[telemetry.to.http]\nendpiont = "https://t"\n', "endpiont: unknown key"),
    ],
)
def test_wrong_configuration(machine, config: str, said: str) -> None:
    path = machine.config(config)
    result = machine("opt-in", "--yes", code=2)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"error: {path}: ")
    assert said in result.stderr
    assert machine.files() == {"config.toml": config.encode()}


# -- all or nothing -----------------------------------------------------------------------------------------------


def test_where_the_spool_cannot_be_opened_nothing_is_changed(machine) -> None:
    path = machine.config(HTTP)
    machine.home.telemetry.mkdir()
    with closing(sqlite3.connect(machine.home.spool)) as db:
        db.execute("PRAGMA user_version=99")
    result = machine("opt-in", "--yes", code=1)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"error: {machine.home.spool} was made by a newer version")
    assert {"config.toml"} <= set(machine.files()) <= {
        "config.toml", "telemetry/consent.lock", "telemetry/identity.lock", "telemetry/plugins.json",
        "telemetry/spool.db", "telemetry/spool.db.lock",
    }  # fmt: skip
    assert path.read_text() == HTTP


def test_where_a_later_write_fails_an_earlier_decision_is_back(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--local")
    before = machine.files()
    with closing(sqlite3.connect(machine.home.spool)) as db:
        db.execute("PRAGMA user_version=99")
    machine("opt-in", "--level", "standard", "--yes", code=1)
    machine.home.spool.unlink()
    after = machine.files()
    for name in ("config.toml", "telemetry/consent.toml", "telemetry_install_id", "telemetry_salt"):
        assert after[name] == before[name]
    assert machine.json("status")["level"] == "off"


def test_where_nothing_can_be_written_nothing_is_left(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = machine.folder / "file"
    blocked.write_text("")
    monkeypatch.setenv("CMDORC_HOME", str(blocked / "home"))
    result = machine("opt-in", "--yes", code=1)
    assert result.stderr.splitlines()[-1].startswith(f"error: {blocked}/home")
    assert "is no directory" in result.stderr
    assert blocked.read_text() == ""


def test_where_the_last_step_fails_a_new_home_is_taken_away_again(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMDORC_TELEMETRY_CONFIG", str(machine.folder / "no-such-file"))  # read after all was written
    result = machine("opt-in", "--yes", code=2)
    assert "is no file" in result.stderr
    assert not machine.home.root.exists()


def test_what_else_is_in_a_home_stays_when_it_fails(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.home.root.mkdir()
    (machine.home.root / "notes").write_text("mine")
    monkeypatch.setenv("CMDORC_TELEMETRY_CONFIG", str(machine.folder / "no-such-file"))
    machine("opt-in", "--yes", code=2)
    assert machine.files() == {"notes": b"mine"}


# -- asking -------------------------------------------------------------------------------------------------------


def test_local_is_offered_first(machine, terminal) -> None:
    machine.config(HTTP)
    asked = terminal("opt-in")
    asked.answer(LOCAL_QUESTION, "y\n")
    assert asked.end() == 0
    assert asked.stdout.startswith(b"Telemetry records on this machine only.\n")
    assert grant(machine).share is TelemetryLevel.OFF


def test_then_sharing_with_what_it_means(machine, terminal) -> None:
    machine.config(HTTP)
    asked = terminal("opt-in")
    asked.answer(LOCAL_QUESTION, "n\n")
    asked.answer(QUESTION, "yes\n")
    assert "at level" in asked.before
    assert "duration_ms" in asked.before
    assert asked.end() == 0
    assert asked.stdout.startswith(b"Telemetry is on. Level minimal.\n")
    assert grant(machine).share is TelemetryLevel.MINIMAL


@pytest.mark.parametrize("answer", ["\n", "n\n", "what?\n"])
def test_anything_but_a_yes_is_a_no(machine, terminal, answer: str) -> None:
    asked = terminal("opt-in", "--level", "standard")
    asked.answer(QUESTION, answer)
    assert asked.end() == 1
    assert "Nothing was changed." in asked.shown
    assert asked.stdout == b""
    assert not machine.home.root.exists()


def test_a_no_to_recording_here_only(machine, terminal) -> None:
    asked = terminal("opt-in", "--local")
    asked.answer(LOCAL_QUESTION, "n\n")
    assert asked.end() == 1
    assert not machine.home.root.exists()


def test_debug_has_a_question_of_its_own(machine, terminal) -> None:
    asked = terminal("opt-in", "--debug")
    asked.answer(QUESTION, "y\n")
    assert "hashed_command_name" in asked.before
    asked.answer(DEBUG_QUESTION, "y\n")
    assert asked.end() == 0
    assert asked.stdout.startswith(b"Telemetry is on. Level debug.\n")
    expires = grant(machine).debug_expires
    assert expires is not None
    assert abs(expires - datetime.now(timezone.utc) - timedelta(days=30)) < timedelta(minutes=1)
    config = load_telemetry_config(machine.home.config)
    assert (config.level, config.debug_consent_given) == (TelemetryLevel.DEBUG, True)
    assert config.debug_consent_expires == expires
    machine.opt_in("--level", "minimal")
    assert read_table(machine.home.config)["telemetry"] == {"enabled": True, "level": "minimal"}


@pytest.mark.parametrize("answer", ["\n", "n\n"])
def test_yes_does_not_cover_debug(machine, terminal, answer: str) -> None:
    asked = terminal("opt-in", "--level", "debug", "--yes")
    asked.answer(DEBUG_QUESTION, answer)
    assert QUESTION not in asked.before
    assert asked.end() == 1
    assert not machine.home.root.exists()


def test_a_plugin_that_cannot_be_used_is_refused(machine) -> None:
    path = machine.config('[telemetry]\nplugins = ["fiel"]\n')
    before = machine.files()
    shown = machine("opt-in", "--yes", code=2).stderr.splitlines()[-1]
    assert shown.startswith(f"error: {path}: telemetry.plugins: 'fiel' is not installed")
    assert "'file'" in shown
    assert machine.files() == before
