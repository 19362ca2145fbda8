"""Every command, in the command line of an application that is not cmdorc, for a home of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.cli import group, telemetry
from cmdorc_telemetry.consent import load_consent
from cmdorc_telemetry.spec import parse_toml
from cmdorc_telemetry.testing import FaultServer
from cmdorc_telemetry.testing.faults import status

from ..cli.conftest import Terminal
from .conftest import Acme

SHARE = "Record, and share this? [y/N] "
LOCAL = "Record on this machine only? [y/N] "
CALLED = re.compile(r"cmdorc(?!-telemetry(-http|, version|-server| \d))", re.IGNORECASE)
"""What speaks of cmdorc, and not of the distributions that are called so."""


def says_nothing_of_cmdorc(*texts: str) -> None:
    for text in texts:
        assert not CALLED.search(text), text


@pytest.fixture
def server() -> FaultServer:
    with FaultServer() as made:
        yield made


def shares(acme: Acme, server: FaultServer) -> None:
    acme.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n')


def test_a_spec_without_events_has_none_to_show(acme: Acme) -> None:
    acme.spec_file.write_text('[meta]\nname = "acme.app"\n')
    assert "acme.app: events: it declares none" in acme("show-payload", code=2).output


def test_the_help_speaks_of_the_application(acme: Acme) -> None:
    shown = acme("--help").stdout
    assert shown.startswith("Usage: acme telemetry [OPTIONS] COMMAND [ARGS]...")
    assert "your use of acme." in shown
    says_nothing_of_cmdorc(shown)
    commands = group(acme.application).commands
    own = {"exec", "new-plugin"}
    assert commands.keys() == telemetry.commands.keys() - own, "which are of cmdorc alone"
    for name, command in commands.items():
        says_nothing_of_cmdorc(acme(name, "--help").stdout)
        for part in getattr(command, "commands", ()):
            says_nothing_of_cmdorc(acme(name, part, "--help").stdout)


def test_before_a_decision_nothing_is_made(acme: Acme) -> None:
    shown = acme("status").stdout
    assert shown == ("Telemetry is off. Nothing is recorded.\n\nA sample   acme telemetry show-payload\n"
                     "Switch on  acme telemetry opt-in\n")  # fmt: skip
    sample = acme("show-payload")
    assert list(json.loads(sample.stdout)) == [
        "event", "app_name", "app_version", "python_version", "os", "arch", "anonymous_install_id", "timestamp",
        "event_id", "spec", "level", "plan",
    ]  # fmt: skip
    assert "telemetry is off" in sample.stderr
    assert acme("stats").stdout == (
        "Telemetry is off. Nothing is recorded.\n  acme telemetry opt-in\n\nNo events yet.\n"
    )
    assert acme("flush").stderr == "Telemetry is off. Nothing is recorded.\n"
    assert not acme.home.root.exists()


def test_a_person_is_shown_the_applications_own_fields_and_asked(
    acme: Acme, terminal: Callable[..., Terminal]
) -> None:  # fmt: skip
    asked = terminal(acme, "opt-in", "--level", "standard")
    asked.answer(SHARE, "y\n")
    shown = asked.before
    assert asked.end() == 0
    says_nothing_of_cmdorc(shown, asked.stdout.decode())
    plain = re.sub(r"\x1b\[[0-9;]*m|\r", "", shown)
    fields = dict(re.findall(r"^  (\w+) +(.*)\n      ", plain, re.MULTILINE))
    assert fields["app_name"] == "acme"
    assert fields["app_version"] == "2.4.1"
    assert (fields["plan"], fields["locale"], fields["code"], fields["email"], fields["pages"]) == (
        "free", "en", "–", "[redacted]", "0"
    )  # fmt: skip
    assert {"depth", "who", "rest", "cmdorc_version"}.isdisjoint(fields)
    assert "Never shared: who" in plain
    assert "acme telemetry show-payload" in shown
    assert b"acme telemetry status" in asked.stdout
    consent = load_consent(acme.home)
    assert consent is not None
    assert list(consent.grants) == ["acme.app"]
    assert consent.grants["acme.app"].share.value == "standard"
    assert acme.home.consent.read_text().startswith("# Written by `acme telemetry`.")


VERSIONS = """
[[events]]
name = "acme.page"
version = "2.0.0"
semantics = { what = "A page was shown" }
[events.properties]
pages = { type = "count" }
links = { type = "count" }
"""


def test_every_version_of_an_event_is_shown_before_a_yes_to_it(acme: Acme) -> None:
    acme.spec_file.write_text(acme.spec_file.read_text().replace("pages = ", "older = ") + VERSIONS)
    shown = acme("opt-in", "--level", "standard", "--yes").stderr
    _, earlier, latest = re.split(r"^acme\.page(?=@1  A page|  A page)", shown, flags=re.MULTILINE)
    assert [re.findall(r"^  (\w+) +0$", part, re.MULTILINE) for part in (earlier, latest)] == [
        ["older"], ["pages", "links"]
    ]  # fmt: skip
    consent = load_consent(acme.home)
    assert consent is not None
    agreed = {key for key in consent.grants["acme.app"].fields if key.startswith("acme.page")}
    assert agreed == {"acme.page@1/older", "acme.page/pages", "acme.page/links"}
    page = acme("view", "-o", "-").stdout
    assert page.count("acme.page@1</code></h3>") == 1
    fields = page.partition("acme.page@1</code></h3>")[2]
    assert fields.index("older") < fields.index("may be shared") < fields.index("links")
    acme.spec_file.write_text(acme.spec_file.read_text().replace("older = ", "oldest = "))
    fields = acme("view", "-o", "-").stdout.partition("acme.page@1</code></h3>")[2]
    assert fields.index("oldest") < fields.index("waits for you") < fields.index("links")
    assert "acme.page@1/oldest" in acme("review", "--yes").stderr


def test_alone_it_stays_on_this_machine(acme: Acme, terminal: Callable[..., Terminal]) -> None:
    asked = terminal(acme, "opt-in", "--local")
    asked.answer(LOCAL, "y\n")
    assert "statistics of your use of acme." in asked.before
    assert asked.end() == 0
    acme.record()
    assert acme("status").stdout.startswith("Telemetry records on this machine only.")
    first = acme("show-payload", "--to", "history")
    assert json.loads(first.stdout)["who"] == "Ann"
    again = acme("show-payload", "--to", "history", "acme.signup")  # the spool has no more use for it
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert "sample" in acme("show-payload", "--to", "history", "acme.page").stderr
    acme.record()
    assert acme("show-payload", code=1).stderr == (
        "error: acme.signup: nothing is shared: telemetry records on this machine only\n"
    )


def test_debug_is_asked_for_apart_and_says_what_it_is(acme: Acme, terminal: Callable[..., Terminal]) -> None:
    asked = terminal(acme, "opt-in", "--debug")
    asked.answer(SHARE, "y\n")
    asked.answer("This sends what is declared for level debug — confirm? (expires in 30 days) [y/N] ", "y\n")
    assert asked.end() == 0
    assert json.loads(acme("show-payload").stdout)["depth"] == 0


def test_what_is_recorded_is_shared_shown_counted_and_audited(acme: Acme, server: FaultServer) -> None:
    shares(acme, server)
    acme.opt_in("--level", "standard")
    acme.record("team", "free")
    status = acme("status").stdout
    assert "~/.acme/telemetry/consent.toml" in status
    assert acme("flush").stdout == ("history: recorded 2 = acknowledged 2 + pending 0 + dropped 0\n"
                                    "http: recorded 2 = acknowledged 2 + pending 0 + dropped 0\n")  # fmt: skip
    assert "acme.signup  2" in re.sub(" +", "  ", acme("stats").stdout)
    assert acme.json("stats")["events"][0]["name"] == "acme.signup"
    audit = acme("audit")
    assert "acme.signup" in audit.stdout
    got = [
        json.loads(line) for request in server.seen if request.method == "POST" for line in request.plain.splitlines()
    ]
    assert {body["plan"] for body in got} == {"team", "free"}
    for body in got:
        assert (body["app_name"], body["app_version"], body["spec"]) == ("acme", "2.4.1", "acme.app@1")
        assert {"who", "cmdorc_version"}.isdisjoint(body)
    says_nothing_of_cmdorc(status, audit.stdout, audit.stderr, *map(json.dumps, got))


def test_the_newest_event_is_shown_as_it_is_sent(acme: Acme, server: FaultServer) -> None:
    shares(acme, server)
    acme.opt_in("--level", "minimal")
    acme.record("team")
    body = json.loads(acme("show-payload", "--to", "http").stdout)
    assert (body["plan"], body["level"]) == ("team", "minimal")
    assert {"duration_ms", "locale", "who"}.isdisjoint(body)
    assert "pages" in json.loads(acme("show-payload", "acme.page").stdout)
    assert acme("show-payload", "command_completed", code=2).stderr == (
        "error: EVENT: found 'command_completed'; expected one of acme.signup, acme.page\n"
    )


def test_the_page_tells_what_is_true_of_any_event(acme: Acme, server: FaultServer) -> None:
    shares(acme, server)
    assert "Nothing now." in acme("view", "-o", "-").stdout
    acme.opt_in("--level", "standard")
    acme.record("team", "free")
    page = acme("view", "-o", "-").stdout
    assert "2 events in the last 90 days" in page
    assert "Day by day" in page
    assert "2 kinds of events" in page
    assert 'value="acme telemetry opt-out"' in page
    for word in ("Slowest", "Flakiest", "No runs yet", "Compared"):
        assert word not in page
    says_nothing_of_cmdorc(re.sub(r"Made .* by cmdorc-telemetry \S+,", "", page))


def test_what_is_new_is_reviewed(acme: Acme, terminal: Callable[..., Terminal]) -> None:
    acme.opt_in("--level", "standard")
    text = acme.spec_file.read_text()
    new = '[events.properties]\ntheme = { type = "count" }\nplan'
    acme.spec_file.write_text(text.replace("[events.properties]\nplan", new, 1))
    assert acme.json("status")["fields_waiting"] == ["acme.signup/theme"]
    assert "  acme telemetry review\n" in acme("status").stdout
    asked = terminal(acme, "review")
    asked.answer("Share this field, too? [y/N] ", "y\n")
    assert asked.end() == 0
    assert "acme.signup/theme" in asked.before
    assert acme.json("status")["fields_waiting"] == []


def test_another_id_and_no_more(acme: Acme, server: FaultServer) -> None:
    shares(acme, server)
    acme.opt_in()
    acme.record()
    assert acme("flush").exit_code == 0
    first = acme.home.install_id.read_text()
    server.fail("refused")
    shown = acme("reset-id", code=1)
    assert acme.home.install_id.read_text() != first
    assert "acme telemetry erase" in shown.stderr
    assert acme.home.erasure.read_text().startswith(
        "# Ids that are still to be erased, and by whom. `acme telemetry erase`"
    )
    says_nothing_of_cmdorc(shown.stdout, shown.stderr, acme.home.erasure.read_text())
    server.fail(None)
    assert acme("erase").stdout == "Nothing is left to be erased.\n"
    assert [request.method for request in server.seen].count("DELETE") >= 1
    gone = acme("opt-out")
    assert gone.stdout.startswith("Telemetry is off. Nothing is recorded.\n")
    assert not acme.home.install_id.exists()
    assert not acme.home.spool.exists()
    assert not acme.start().track(acme.event, {"plan": "free"})
    says_nothing_of_cmdorc(gone.stdout, gone.stderr)


def test_plugins_are_enabled_in_its_own_file(acme: Acme) -> None:
    acme("enable", "http")
    assert 'plugins = ["http"]' in acme.home.config.read_text()
    assert "acme telemetry enable file" in acme("plugins").stdout
    acme("disable", "http")
    assert "plugins = []" in acme.home.config.read_text()


def test_dead_letters_are_its_own(acme: Acme, server: FaultServer) -> None:
    shares(acme, server)
    acme.opt_in()
    acme.record("team", "free", "team")
    server.fail(status(422))
    assert "acme telemetry dead-letters" in acme("flush", code=1).stderr
    shown = acme("dead-letters").stdout
    assert "acme.signup" in shown
    assert "acme telemetry dead-letters resend --all" in shown
    says_nothing_of_cmdorc(shown)


def test_specs_are_checked_and_made_by_its_commands(acme: Acme) -> None:
    assert acme("spec", "lint", str(acme.spec_file)).exit_code == 0
    (acme.folder / "work" / "seen.jsonl").write_text('{"event": "acme.sold", "count": 3}\n')
    shown = acme("create-spec", "--from", "seen.jsonl", "--name", "acme.more")
    text = (acme.folder / "work" / "acme.more.telemetry.toml").read_text()
    parse_toml(text, "acme.more")
    assert "# Checked by: acme telemetry spec lint FILE" in text
    says_nothing_of_cmdorc(text, shown.stderr)


# -- an application without a command line -----------------------------------------------------------------------------


def module(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cmdorc_telemetry", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [("--application", "acme:APP"), ("--application=acme:APP",)])
def test_whoever_has_no_command_line_has_these_nevertheless(acme: Acme, words: tuple[str, ...]) -> None:
    code, shown, _ = module(*words, "status")
    assert code == 0
    assert shown.endswith("Switch on  python -m cmdorc_telemetry --application acme:APP opt-in\n")
    acme.home.telemetry.mkdir(parents=True, mode=0o700)
    acme.home.consent.write_text("half a deci")
    assert "`python -m cmdorc_telemetry --application acme:APP opt-out` or `opt-in`" in module(*words, "status")[1]


@pytest.mark.parametrize(
    ("where", "why"),
    [("", "Empty module name"), ("nowhere:APP", "No module named 'nowhere'"),
     ("acme", "has no attribute 'APPLICATION'"),
     ("acme:APPS", "has no attribute 'APPS'"), ("acme:main", "found Group; expected an Application")],
)  # fmt: skip
def test_an_application_that_is_none(acme: Acme, where: str, why: str) -> None:
    code, shown, said = module("--application", where) if where else module("--application")
    assert (code, shown) == (2, "")
    assert why in said


# -- what is broken ----------------------------------------------------------------------------------------------------


def test_a_spec_that_is_broken_leaves_nothing_on_but_the_no(acme: Acme) -> None:
    acme.opt_in()
    acme.record()
    whole = acme.spec_file.read_text()
    acme.spec_file.write_text("[meta\n")
    assert not acme.start().recording
    assert acme("status", code=2).stderr.startswith(f"error: {acme.spec_file}: is not valid TOML")
    assert acme.process("opt-out").returncode == 1
    assert load_consent(acme.home) is not None
    acme.spec_file.write_text(whole)
    assert acme.json("status")["recording"] is False
    assert not acme.home.spool.exists()


def test_a_broken_spec_of_the_user_is_a_line_and_the_rest_is_there(acme: Acme) -> None:
    acme.opt_in()
    acme.record()
    acme.config('[telemetry]\nspecs = ["more.toml"]\n')
    (acme.home.root / "more.toml").write_text("[meta\n")
    assert not acme.start().recording
    shown = acme("status").stdout
    assert shown.startswith("Telemetry is off.")
    assert "! ~/.acme/config.toml: telemetry.specs[0]: ~/.acme/more.toml: is not valid TOML" in shown
    assert "Nothing is recorded or sent until it is right" in shown
    assert acme.json("status")["recording"] is False
    assert "Nothing is recorded or sent until it is right" in acme("view", "-o", "-").stdout
    assert acme("flush", code=2).stderr.startswith("error: ~/.acme/config.toml: telemetry.specs[0]")


PROJECTS = """
[meta]
name = "team.own"
[[events]]
name = "team.done"
semantics = { what = "Something of the team's" }
properties.count = { type = "count", level = "minimal" }
"""


def test_what_a_project_adds_is_agreed_to_where_it_is_named(acme: Acme) -> None:
    from cmdorc_telemetry import load_telemetry_config

    work = acme.folder / "work"
    (work / "team.toml").write_text(PROJECTS)
    (work / "acme.toml").write_text('[telemetry]\nspecs = ["team.toml"]\n')
    acme.opt_in("--level", "standard")
    config = load_telemetry_config(work / "acme.toml")
    program = acme.start(config=config)
    assert not program.track("team.done", {"count": 1})
    program.close()
    assert acme("review").stdout == "Nothing waits for your answer.\n"
    shown = acme("review", "--yes", "--config", "acme.toml")
    assert "team.done" in shown.stderr
    program = acme.start(config=config)
    assert program.track("team.done", {"count": 1})
    assert program.flush()
    program.close()
    assert [body["event"] for body in acme.stored()] == ["team.done"]


def test_nobody_finds_a_file_that_the_application_does_not_look_for(acme: Acme) -> None:
    for name in ("cmdorc.toml", "config.toml", "acme.toml"):
        (acme.folder / "work" / name).write_text("[telemetry]\nenabled = false\n")
    acme.opt_in()
    assert acme.json("status")["recording"] is True
    assert acme.json("status", "--config", "acme.toml")["recording"] is False
    init = acme.folder / "site" / "acme" / "__init__.py"
    init.write_text(init.read_text().replace('"2.4.1", ', '"2.4.1", project_files=("acme.toml",), '))
    assert json.loads(acme.process("status", "--json").stdout)["recording"] is False


def test_it_says_where_its_home_is(acme: Acme, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACME_TELEMETRY_HOME", f"{tmp_path}/elsewhere")
    acme.opt_in()
    assert (tmp_path / "elsewhere" / "config.toml").exists()
    assert str(acme.home.root) == f"{tmp_path}/elsewhere"


def test_the_page_about_applications_is_right(acme: Acme) -> None:
    page = (Path(__file__).parents[2] / "docs" / "applications.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    acme.opt_in()
    main = click.Group("acme")
    names = {"__file__": str(acme.spec_file), "main": main}
    exec(code, names)
    shown = CliRunner().invoke(main, ["telemetry", "stats"], prog_name="acme").stdout
    assert shown.startswith("Last 30 days  1 event, from this machine only\n")
    assert [body["plan"] for body in acme.stored()] == ["team"]
    for name in re.findall(r"`(ACME_\w+|CMDORC_\w+)", page):
        app = acme.application if name.startswith("ACME") else CMDORC
        assert name in (app.variable, app.config_variable, app.home_variable)
