"""``opt-in``: shows, asks, and writes all of it or nothing."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from cmdorc_telemetry import TelemetryLevel, TelemetryRegistry, load_telemetry_config
from cmdorc_telemetry.config import read_table
from cmdorc_telemetry.consent import CORE_SPEC, load_consent
from cmdorc_telemetry.identity import load_identity

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
LOCAL_QUESTION = "Record on this machine only? [y/N] "
QUESTION = "Record, and share this? [y/N] "
DEBUG_QUESTION = "This sends hashed command info — confirm? (expires in 30 days) [y/N] "


def grant(machine):
    consent = load_consent(machine.home)
    assert consent is not None
    return consent.grants[CORE_SPEC]


def test_yes_writes_identity_decision_file_and_cursors(machine) -> None:
    machine.config("# mine\n" + HTTP + "\n[other]\nkept = true  # too\n")
    result = machine("opt-in", "--level", "standard", "--yes")
    assert result.stdout.splitlines()[0] == "Telemetry is on. Level standard."
    assert load_identity(machine.home) is not None
    assert (grant(machine).record, grant(machine).share) == (True, TelemetryLevel.STANDARD)
    assert grant(machine).destinations == {"http": "http endpoint=http://127.0.0.1:9/v1"}
    text = machine.home.config.read_text()
    assert text.startswith("# mine\n")
    assert "kept = true  # too\n" in text
    assert read_table(machine.home.config)["telemetry"] == {
        "plugins": ["http"], "endpoint": "http://127.0.0.1:9/v1", "enabled": True, "level": "standard"
    }  # fmt: skip
    assert stat.S_IMODE(machine.home.config.stat().st_mode) == 0o600
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
        + '[telemetry.to.mine]\nplugin = "jot"\naudience = "private"\n[telemetry.to.board]\nplugin = "prometheus"\n'
    )
    (core,) = TelemetryRegistry.with_core()
    shown = machine("opt-in", "--level", "standard", "--yes").stderr
    for event in core.events:
        for name, prop in event.properties.items():
            assert bool(re.search(rf"^  {name} +{prop.description} \(", shown, re.MULTILINE)) == (
                prop.shared_at("standard")
            ), name
        assert f"\n{event.name}  {event.semantics.what}. {event.semantics.why}. Kept at most 90 days.\n" in shown
    assert "  anonymous_install_id  Random, made at opt-in, deleted at opt-out (uuid)\n" in shown
    assert "How the run ended (success, failed, cancelled, other)\n" in shown
    assert "Never shared: command_name, config_name, message, run_id, trigger_event, trigger_names.\n" in shown
    assert "  http  http://127.0.0.1:9/v1  (shared)\n" in shown
    assert "  mine  jot  (yours, gets everything)\n" in shown
    assert "  board  prometheus  (shared) · plugin prometheus is not installed\n" in shown
    minimal = machine("opt-in", "--level", "minimal", "--yes").stderr
    assert "duration_ms" in minimal
    assert "chain_depth" not in minimal


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
    assert machine("opt-in", "--local", "--yes").stdout.startswith("Telemetry records on this machine only.\n")
    assert (grant(machine).share, grant(machine).destinations) == (TelemetryLevel.OFF, {})
    assert "level" not in read_table(machine.home.config)["telemetry"]
    told = machine.json("status")
    assert [each["state"] for each in told["destinations"]] == ["waits-for-your-yes", "plugin-missing"]
    assert told["limits"] == told["ignored"] == []


def test_what_still_limits_it_is_said(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    shown = machine("opt-in", "--yes").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n! Lowered by environment: DO_NOT_TRACK (off).\n")


def test_a_missing_plugin_is_named_with_the_line_that_helps(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "prometheus"\n')
    assert (
        "! board: plugin prometheus is not installed. Events wait for it.\n"
        "  pip install cmdorc-telemetry-prometheus\n" in machine("opt-in", "--yes").stdout
    )


def test_a_person_decides_about_their_own_file_not_an_operators(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = machine.project(HTTP, "operator.toml")
    monkeypatch.setenv("CMDORC_TELEMETRY_CONFIG", str(operator))
    machine.opt_in()
    assert grant(machine).destinations == {}


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


@pytest.mark.parametrize("answer", ["\n", "n\n", "what?\n", "\x04"])
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


def test_ctrl_c_leaves_everything_as_it_was(machine, terminal) -> None:
    machine.config(HTTP)
    asked = terminal("opt-in", "--level", "standard")
    asked.until(QUESTION)
    os.kill(asked.process.pid, signal.SIGINT)
    assert asked.end() == 1
    assert "Aborted!" in asked.shown
    assert "Traceback" not in asked.shown
    assert machine.files() == {"config.toml": HTTP.encode()}


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


def test_in_ci_nobody_is_asked(machine, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    asked = terminal("opt-in")
    assert asked.end() == 2
    assert "there is no terminal to ask on" in asked.shown


def test_without_any_standard_input(machine) -> None:
    done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "opt-in"], preexec_fn=lambda: os.close(0),
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: opt-in: there is no terminal")


def test_a_plugin_that_cannot_be_used_is_refused(machine) -> None:
    path = machine.config('[telemetry]\nplugins = ["fiel"]\n')
    before = machine.files()
    shown = machine("opt-in", "--yes", code=2).stderr.splitlines()[-1]
    assert shown.startswith(f"error: {path}: telemetry.plugins: 'fiel' is not installed")
    assert "'file'" in shown
    assert machine.files() == before
