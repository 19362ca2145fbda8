"""Files and variables read together: whose file counts, what is read again, and what somebody else may have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.consent import Grant, load_consent, save_decision
from cmdorc_telemetry.declarations import new_grant
from cmdorc_telemetry.errors import ConfigError, ConsentError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import Policy
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec

OFF, MINIMAL, STANDARD, DEBUG = TelemetryLevel
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
YES = Grant(record=True, share=STANDARD)
NO = Grant()
SOMEBODY = 12345
"""The number of a user who is neither the administrator nor this one."""


@pytest.fixture
def environ(home: Home) -> dict[str, str]:
    home.root.mkdir()
    return {"CMDORC_HOME": str(home.root)}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


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
    save_decision(home, {CORE_SPEC: YES})
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
    save_decision(home, {CORE_SPEC: YES})
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
    save_decision(home, {CORE_SPEC: YES})
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
    save_decision(home, {CORE_SPEC: YES})
    yes = before.again()
    assert (yes.argument, yes.project) == (before.argument, project)
    assert (yes.policy().share, yes.policy(layered=False).share) == (MINIMAL, STANDARD)
    assert yes.policy().generation == yes.consent.generation  # type: ignore[union-attr]
    save_decision(home, {CORE_SPEC: NO})
    assert not yes.again().policy().record


def test_a_file_that_breaks_meanwhile_turns_everything_off(environ: dict[str, str], home: Home) -> None:
    save_decision(home, {CORE_SPEC: YES})
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
    save_decision(home, {CORE_SPEC: new_grant(load_spec(CORE), DEBUG, NOW)})
    situation = Situation.read(environ)
    last = NOW + timedelta(days=30)
    for moment, level in ((last - timedelta(seconds=1), DEBUG), (last, STANDARD)):
        monkeypatch.setattr("cmdorc_telemetry.clock.wall", moment.timestamp)
        assert situation.policy().share is level
    assert situation.policy().limits == ("DEBUG consent: expired (standard)",)


# -- what somebody else may have written -------------------------------------------------------------------------------


def link_to(target: str) -> Callable[[Home], None]:
    def change(home: Home) -> None:
        home.consent.unlink()
        home.consent.symlink_to(target)

    return change


def made(make: Callable[[Path], object]) -> Callable[[Home], None]:
    def change(home: Home) -> None:
        home.consent.unlink()
        make(home.consent)

    return change


DAMAGE: dict[str, tuple[Callable[[Home], object], str]] = {
    "a directory": (made(Path.mkdir), "it is no file"),
    "a pipe": (made(os.mkfifo), "it is no file"),
    "a link to nowhere": (link_to("/nowhere/consent.toml"), "No such file or directory"),
    "a link to itself": (link_to("consent.toml"), "Too many levels of symbolic links"),
    "a link to a device": (link_to("/dev/null"), "it belongs to somebody else|others may write|it is empty"),
    "nothing in it": (lambda home: home.consent.write_bytes(b""), "it is empty"),
    "half of it": (lambda home: os.truncate(home.consent, home.consent.stat().st_size // 2), "is not valid TOML|'"),
    "its first line": (lambda home: os.truncate(home.consent, 20), "it is empty"),
    "noise": (lambda home: home.consent.write_bytes(bytes(range(256))), "cannot be read: 'utf-8' codec"),
    "zeros": (lambda home: home.consent.write_bytes(bytes(512)), "is not valid TOML"),
    "brackets": (lambda home: home.consent.write_text("a = " + "[" * 99_999), "is nested too deeply|is not valid TOML"),
    "a long number": (lambda home: home.consent.write_text("a = 1" + "0" * 9_999), "is not valid TOML"),
    "a moment that is none": (
        lambda home: home.consent.write_text(home.consent.read_text().replace('decided_at = ""', 'decided_at = "now"')),
        "Invalid isoformat string",
    ),
    "a file of somebody else": (lambda home: os.chown(home.consent, SOMEBODY, -1), "it belongs to somebody else"),
    "a file of a group": (lambda home: home.consent.chmod(0o620), "others may write to it: its mode is 620"),
    "a file of everybody": (lambda home: home.consent.chmod(0o666), "others may write to it: its mode is 666"),
    "a directory of a group": (lambda home: home.telemetry.chmod(0o770), "telemetry: others may write .* 770"),
    "a directory of everybody": (lambda home: home.telemetry.chmod(0o1777), "telemetry: others may write .* 1777"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_somebody_may_have_damaged_or_written_turns_everything_off(
    name: str, environ: dict[str, str], home: Home
) -> None:
    damage, why = DAMAGE[name]
    environ["CMDORC_TELEMETRY"] = "standard"  # an operator is not asked instead of a person who cannot be heard
    save_decision(home, {CORE_SPEC: YES})
    running = Situation.read(environ)
    assert running.policy().share is STANDARD
    damage(home)
    for found in (Situation.read(environ), running.again()):
        assert found.policy() == Policy(trouble=found.trouble)
        assert found.trouble.startswith(f"{home.consent} cannot be used (")
        assert found.trouble.endswith("): nothing is recorded or sent. "
                                      "`cmdorc telemetry opt-out` or `opt-in` writes a new decision")  # fmt: skip
    with pytest.raises(ConsentError, match=why):
        load_consent(home)
    assert save_decision(home, {CORE_SPEC: NO}) == load_consent(home)
    assert stat.S_IMODE(home.telemetry.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.consent.stat().st_mode) == 0o600
    again = Situation.read(environ).policy()
    assert (again.record, again.decided_by, again.trouble) == (False, "you", "")


def test_of_a_file_that_ends_too_early_nothing_more_is_granted_than_of_all_of_it(home: Home) -> None:
    """Wherever it was cut off: what restricts comes before what grants."""
    field = {"*/os": "{}"}
    save_decision(home, {CORE_SPEC: YES._replace(share=DEBUG, debug_expires=NOW)}, {"one": "http"})
    save_decision(
        home, {CORE_SPEC: YES._replace(share=DEBUG, debug_expires=NOW, fields=field)}, {"one": "http", "two": "http"}
    )
    whole = save_decision(home, {"acme.app": NO}, {"one": "http", "two": "http", "three": "http"})
    text = home.consent.read_bytes()
    kept = 0
    for length in range(len(text)):
        home.consent.write_bytes(text[:length])
        try:
            consent = load_consent(home)
        except ConsentError:
            continue
        assert consent is not None
        kept += 1
        assert consent.destinations.items() <= whole.destinations.items()
        for spec, grant in consent.grants.items():
            most = whole.grants[spec]
            assert grant.record <= most.record
            assert grant.level(NOW) <= most.level(NOW)
            assert grant.fields.items() <= most.fields.items()
        for generation in whole.generations:
            for spec in whole.grants:
                assert consent.level_of(generation, spec) <= whole.level_of(generation, spec)
                if consent.level_of(generation, spec) is not OFF and spec in consent.grants:
                    assert consent.lacking(generation, spec) >= whole.lacking(generation, spec)
            for name in consent.destinations:
                assert consent.reaches(generation, name) <= whole.reaches(generation, name)
    assert kept  # such a file may well be read


def test_a_decision_may_be_kept_elsewhere(environ: dict[str, str], home: Home, tmp_path: Path) -> None:
    save_decision(home, {CORE_SPEC: YES})
    home.telemetry.rename(tmp_path / "elsewhere")
    home.telemetry.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "consent.toml").rename(tmp_path / "dot-consent.toml")
    home.consent.symlink_to(tmp_path / "dot-consent.toml")
    assert Situation.read(environ).policy().share is STANDARD
    (tmp_path / "dot-consent.toml").chmod(0o622)
    assert "others may write to it: its mode is 622" in Situation.read(environ).trouble


def test_a_folder_of_somebody_else_is_no_place_for_a_decision(environ: dict[str, str], home: Home) -> None:
    save_decision(home, {CORE_SPEC: YES})
    os.chown(home.telemetry, SOMEBODY, -1)
    assert "telemetry: it belongs to somebody else" in Situation.read(environ).trouble


CONFIG: dict[str, tuple[Callable[[Path], object], str]] = {
    "of somebody else": (lambda path: os.chown(path, SOMEBODY, -1), "it belongs to somebody else"),
    "of everybody": (lambda path: path.chmod(0o646), "others may write to it: its mode is 646"),
    "of a group": (lambda path: path.chmod(0o664), ""),
}


@pytest.mark.parametrize("name", CONFIG)
def test_a_file_that_somebody_else_may_have_written_names_nobody(
    name: str, environ: dict[str, str], home: Home
) -> None:
    change, why = CONFIG[name]
    home.config.write_text("[telemetry]\nplugins = ['http']\n[telemetry.to.spy]\nplugin = 'http'\naudience = 'private'")
    change(home.config)
    assert Situation.read(environ).trouble == ""  # nobody decided: nothing to look after
    save_decision(home, {CORE_SPEC: NO})
    assert Situation.read(environ).trouble == ""
    save_decision(home, {CORE_SPEC: YES})
    found = Situation.read(environ)
    until = "until it is yours, and only you can write to it"
    assert found.trouble == (why and f"{home.config} cannot be used ({why}): nothing is recorded or sent {until}")
    assert found.policy().record is not bool(why)
    assert bool(found.user.destinations) is bool(found.user.plugins) is not bool(why)


def test_the_administrator_may_provide_a_file_and_a_folder_but_no_decision(
    environ: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_decision(home, {CORE_SPEC: YES})
    home.config.write_text("[telemetry]")
    os.chown(home.consent, SOMEBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    for path in (home.config, home.telemetry):
        os.chown(path, 0, -1)
    assert Situation.read(environ).policy().share is STANDARD
    os.chown(home.consent, 0, -1)
    assert "consent.toml cannot be used (it belongs to somebody else)" in Situation.read(environ).trouble


def test_a_link_to_a_file_of_somebody_else_is_seen_through(environ: dict[str, str], home: Home, tmp_path: Path) -> None:
    save_decision(home, {CORE_SPEC: YES})
    theirs = tmp_path / "theirs.toml"
    theirs.write_text("[telemetry]")
    home.config.symlink_to(theirs)
    assert Situation.read(environ).trouble == ""
    os.chown(theirs, SOMEBODY, -1)
    assert "it belongs to somebody else" in Situation.read(environ).trouble
    theirs.unlink()
    assert Situation.read(environ).trouble == ""


def test_looking_costs_two_calls_and_none_where_nobody_decided(
    environ: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)

        def counted(
            path: object, *rest: int, name: str = name, real: Callable[..., object] = real, **more: int
        ) -> object:
            calls.append((name, os.path.basename(str(path))))
            return real(path, *rest, **more)

        monkeypatch.setattr(os, name, counted)
    Situation.read(environ)
    assert calls == [("lstat", "consent.toml"), ("open", "config.toml")]
    save_decision(home, {CORE_SPEC: YES})
    home.config.write_text("")
    calls.clear()
    Situation.read(environ)
    assert calls == [
        ("lstat", "consent.toml"), ("stat", "consent.toml"), ("stat", "telemetry"), ("open", "consent.toml"),
        ("open", "config.toml"), ("stat", "config.toml"),
    ]  # fmt: skip
