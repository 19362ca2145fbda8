"""``view``: where the page goes, what is printed, and that it says what is so whatever cannot be read."""

from __future__ import annotations

import html
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.spool import Spool

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
MASKER = """
from cmdorc_telemetry import hookimpl

@hookimpl
def telemetry_anonymize(event):
    return {"state": None, "manual": None}
"""
BREW = """
from cmdorc_telemetry import TelemetrySpec, hookimpl
import msgspec

SPEC = {"meta": {"name": "brew"}, "events": [{"name": "brewed", "semantics": {"what": "Tea was made"}, "properties": {
    "by_whom": {"type": "hash", "pii": True, "description": "Who made it"}, "cups": {"type": "count"}}}]}

@hookimpl
def telemetry_specs():
    return [msgspec.convert(SPEC, TelemetrySpec)]
"""
VIEW = [sys.executable, "-m", "cmdorc_telemetry", "view"]
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION", "SSH_TTY")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _SCREENS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def page(machine):
    """What somebody reads: the text of the page, tags apart."""

    def read(*args: str) -> str:
        text = machine("view", "--output", "-", *args).stdout
        body = text[text.index("<body>") :]
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())

    return read


# -- where it goes ----------------------------------------------------------------------------------------------------


def test_without_a_screen_it_says_where_the_page_is(machine) -> None:
    result = machine("view")
    path = Path(result.stdout.removesuffix("\n"))
    assert path == machine.home.telemetry / "view.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>\n")
    assert result.stderr == "No browser could be opened here. Open that file in one, on this machine.\n"


def test_a_named_file_is_private_and_nothing_is_printed(machine) -> None:
    target = machine.work / "page.html"
    target.write_text("older")
    target.chmod(0o644)
    result = machine("view", "--output", "page.html")
    assert result.stdout == ""
    assert result.stderr == "Written to page.html. It holds names of your own: mode 600.\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>\n")
    assert not machine.home.root.exists()


def test_standard_output_gets_the_page_alone(machine) -> None:
    result = machine("view", "-o", "-")
    assert result.stdout.startswith("<!doctype html>\n")
    assert result.stdout.endswith("</html>\n")
    assert result.stderr == ""
    assert not machine.home.root.exists()


def test_a_link_stays_one_and_what_is_no_file_is_not_replaced(machine) -> None:
    (machine.work / "link").symlink_to("target")
    machine("view", "-o", "link")
    assert (machine.work / "link").is_symlink()
    assert (machine.work / "target").stat().st_size > 1000
    machine("view", "-o", os.devnull)
    assert not Path(os.devnull).is_file()


def test_a_browser_is_given_the_file_and_says_nothing_on_our_output(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = machine.folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "opening $1"\necho "$1" > {machine.folder}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    done = subprocess.run(VIEW, capture_output=True, text=True, check=True)
    assert done.stdout == f"{machine.home.view}\n"
    assert done.stderr == ""
    assert (machine.folder / "opened").read_text() == f"{machine.home.view.as_uri()}\n"


@pytest.mark.parametrize("browser", ["/nowhere/browser", "/nowhere/browser %s", "false %s"])
def test_a_browser_that_does_not_open_is_said(machine, monkeypatch: pytest.MonkeyPatch, browser: str) -> None:
    monkeypatch.setenv("BROWSER", browser)
    monkeypatch.setenv("PATH", "/nowhere")
    done = subprocess.run(VIEW, capture_output=True, text=True, check=True)
    assert done.stdout == f"{machine.home.view}\n"
    assert "Open that file" in done.stderr


@pytest.mark.parametrize(
    ("environ", "opens"),
    [({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True), ({"BROWSER": "b"}, True),
     ({"DISPLAY": ":0", "SSH_CONNECTION": "a b"}, False), ({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, False),
     ({"DISPLAY": ":0", "CI": "true"}, False)],
)  # fmt: skip
def test_a_browser_is_opened_where_somebody_would_see_it(environ: dict[str, str], opens: bool) -> None:
    from cmdorc_telemetry.cli.view import _has_browser

    assert _has_browser(environ) is (
        opens or (sys.platform in ("darwin", "win32") and not environ.keys() & set(_SCREENS))
    )


def test_opt_out_deletes_it(machine) -> None:
    machine.opt_in("--local")
    machine("view")
    assert machine.home.view.exists()
    assert str(machine.home.view) in machine("opt-out").stdout
    assert not machine.home.view.exists()


# -- what it says -----------------------------------------------------------------------------------------------------


def test_off_there_is_what_a_yes_would_mean_and_no_chart(machine, page) -> None:
    text = page()
    assert "Telemetry is off. Nothing is recorded. telemetry opt-in" in text
    assert "What could be collected, and why Nothing now." in text
    assert "hashed_command_name Name of the command, hashed" in text
    for absent in ("Where every event is", "Your history", "Nothing waits", "<svg"):
        assert absent not in text


def test_new_it_says_what_will_come(machine, page) -> None:
    machine.opt_in("--local")
    assert "Telemetry records on this machine only." in page()
    assert "No runs yet. Charts appear after 20 runs." in page()
    machine.record()
    text = page()
    assert "1 run of 1 command in the last 14 days" in text
    assert "Charts appear after 20 runs. No comparison yet: needs an answer from the server." in text
    assert "<figure" not in machine("view", "-o", "-").stdout


def test_a_project_may_switch_it_off_for_itself(machine, page) -> None:
    machine.opt_in("--local")
    machine.record()
    machine.project("[telemetry]\nenabled = false\n")
    text = page()
    assert "off here Telemetry is off in this project." in text
    assert "project file: enabled = false (off)" in text
    assert "Where every event is" in text


def test_what_waits_is_there_byte_for_byte(machine, page) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "standard")
    machine.record()
    found = re.findall(r"<pre><code>(.*?)</code></pre>", machine("view", "-o", "-").stdout)
    bodies = [html.unescape(text) for text in found]
    assert [json.loads(body)["event"] for body in bodies] == ["orchestrator_started", "command_completed"]
    newest = machine("show-payload", "command_completed", "--to", "http").stdout.rstrip("\n")
    assert newest in bodies
    assert "2 events wait." in page()


def test_names_that_would_not_show_are_written_as_json_has_them(machine) -> None:
    machine.config(HTTP + 'level = "standard"\n[telemetry.to.http]\naudience = "private"\n')
    machine.opt_in()
    machine.record(type(machine.run)(run_id="r", command_name="a\u202eb", state="success", duration=1))
    assert "a\\u202eb" in html.unescape(machine("view", "-o", "-").stdout)
    assert "\u202e" not in machine("view", "-o", "-").stdout


def test_more_than_a_few_that_wait_are_counted(machine, page) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record(*[machine.run] * 9)
    text = page()
    assert "10 events wait." in text
    assert "5 more events. The newest: telemetry show-payload --to http" in text


def test_who_withheld_what(machine, page) -> None:
    machine.plugin("masker", MASKER)
    machine.config(HTTP.replace('"http"', '"http", "masker"'))
    machine.opt_in("--level", "minimal")
    machine.record(trigger=True)
    page()
    with closing(Spool(machine.home.spool)) as spool:
        spool.keep_policy("http", json.dumps({"document": {"level": "off", "sampling": "half"}}))
    text = page()
    assert "the receiver of http it asks for less: no events at all" in text
    assert "http asks for what means nothing here: sampling." in text
    assert "the spec private: for you, and destinations of your own orchestrator_started: config_name" in text
    assert "your level shared only at a higher one orchestrator_started: trigger_count" in text
    assert re.search(r"anonymizer masker removed, or .* command_completed: (state|manual) 1 event", text)
    assert "your level it shares nothing of such an event whole events 1 event" in text


def test_shared_is_only_what_somebody_else_gets(machine) -> None:
    def told(field: str) -> list[list[str]]:
        text = machine("view", "-o", "-").stdout
        shown = re.findall(rf"<code>{field}</code></th>(.*?)</tr>", text)
        return [re.findall(r'data-label="(?:Goes to|State)">(?:<\w+[^>]*>)*(.*?)<', each) for each in shown]

    mine = '[telemetry.to.mine]\nplugin = "http"\nendpoint = "http://127.0.0.1:8/v1"\naudience = "private"\n'
    machine.config('[telemetry]\nplugins = ["http"]\n')
    machine.opt_in("--level", "standard")
    machine.record()
    assert told("timed_out") == [["only this machine", "may be shared"]]
    assert ["only this machine", "only at debug"] in told("hashed_command_name")
    assert set(re.findall(r"(\d+) of \d+ fields shared", machine("view", "-o", "-").stdout)) == {"0"}
    machine.config(HTTP + mine)
    assert told("timed_out") == [["mine", "may be shared"]]  # nobody said yes to http
    machine.opt_in("--level", "standard")
    assert told("timed_out") == [["mine, http", "shared"]]
    with closing(Spool(machine.home.spool)) as spool:
        spool.keep_policy("http", json.dumps({"document": {"fields": {"timed_out": False}}}))
    assert told("timed_out") == [["mine", "may be shared"]]


def test_what_a_receiver_does_not_want_does_not_go_there(machine) -> None:
    mine = 'plugin = "http"\nendpoint = "http://127.0.0.1:8/v1"\naudience = "private"\nevents = ["command_completed"]\n'
    machine.config(f"{HTTP}[telemetry.to.mine]\n{mine}")
    machine.opt_in("--level", "standard")
    machine.record()

    def goes(field: str) -> list[str]:
        text = machine("view", "-o", "-").stdout
        return re.findall(rf"<code>{field}</code></th>.*?data-label=\"Goes to\"><bdi>(.*?)</bdi>", text)

    assert goes("timed_out") == ["mine, http"]
    assert goes("command_name") == ["mine", "only this machine"]
    assert goes("run_count") == ["http"]
    with closing(Spool(machine.home.spool)) as spool:
        spool.keep_policy("http", json.dumps({"document": {"level": "minimal", "fields": {"os": False}}}))
    assert goes("timed_out") == ["mine"]
    assert goes("os") == ["mine"]
    assert goes("arch") == ["mine, http"]


def test_everything_that_needs_a_look_is_said(machine, page) -> None:
    machine.opt_in()
    machine.config('[telemetry]\nplugins = ["gone"]\nendpoint = "http://127.0.0.1:9/v1"\n')
    machine.record()
    text = page()
    assert "http: plugin http is not enabled. Events wait for it. telemetry enable http" in text
    assert "Plugin 'gone'" in text
    assert "things need a look" in text


def lose(machine, page, database: str) -> None:
    """Delete a database of a home that was shown once; nothing makes it again."""
    machine.opt_in("--local")
    machine.record()
    page()
    machine.config("[telemetry]\nenabled = false\n")
    for path in machine.home.telemetry.glob(f"{database}*"):
        path.unlink()


def test_a_spool_that_cannot_be_read_is_a_sentence(machine, page) -> None:
    lose(machine, page, "spool.db")
    machine.home.spool.mkdir()
    text = page()
    assert "not known The spool cannot be read." in text
    assert "Your history" in text


def test_a_history_that_cannot_be_read_is_a_sentence(machine, page) -> None:
    lose(machine, page, "history.db")
    machine.home.history.write_bytes(b"no database" * 100)
    text = page()
    assert text.count("history.db cannot be read: file is not a database.") == 2


def test_a_spool_that_cannot_be_made_is_said_on_the_page(machine, page) -> None:
    machine.opt_in("--local")
    machine.record()
    for path in machine.home.telemetry.glob("spool.db*"):
        path.unlink()
    (machine.home.telemetry / "spool.db.lock").mkdir()
    (machine.home.telemetry / "spool.db.lock.lock").mkdir()
    text = page()
    assert "1 thing needs a look" in text
    assert "spool.db cannot be opened" in text
    assert "2 records of programs that ended, not imported yet." in text


def test_an_audit_that_cannot_be_read_is_a_sentence(machine, page) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.home.audit.mkdir(mode=0o700)
    (machine.home.audit / "http.jsonl").mkdir()
    assert "What left this machine not known" in page()


def test_what_left_is_there_batch_by_batch(machine, page) -> None:
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{machine.work}/out.jsonl"\n')
    machine.opt_in()
    machine.record()
    machine("flush")
    text = page()
    assert "verified It matched the ledger when this page was made." in text
    assert re.search(r"file +shared fields only 1 2 [\d.]+ (bytes|kB) ", text)
    assert "1 batch " in text
    machine.config("")
    assert "not configured any more" in page()


def test_a_batch_that_was_taken_out_is_on_top(machine, page) -> None:
    machine.config(f'[telemetry]\nplugins = ["file"]\nlocal_file = "{machine.work}/out.jsonl"\n')
    machine.opt_in()
    machine.record()
    machine("flush")
    path = machine.home.audit / "file.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    text = page()
    assert text.index("The audit and the ledger do not agree") < text.index("Telemetry is on")
    assert "does not match It differs from the ledger" in text
    assert "telemetry audit --verify" in text


def test_what_a_running_program_has_is_said(machine, page) -> None:
    machine.opt_in("--local")
    program = machine.program()
    program.fire("cmdorc_completed", machine.run)
    assert "1 running process with 1 record, not imported yet." in page()
    program.close()


def test_fields_of_other_specs_are_there_and_personal_ones_are_never_shared(machine, page) -> None:
    machine.plugin("brew", BREW)
    machine.config(HTTP.replace('"http"', '"http", "brew"'))
    machine.opt_in("--level", "standard")
    text = page()
    assert "brewed" in text
    assert re.search(r"by_whom Who made it .* never shared", text)
    assert text.count("Every event") == 1
    assert re.search(r"the spec marked as personal brewed: by_whom", text)


def test_a_run_of_no_known_duration_is_counted(machine, page) -> None:
    machine.opt_in("--local")
    machine.record()
    page()
    with closing(sqlite3.connect(machine.home.history)) as db:
        db.execute("UPDATE event SET duration_ms=NULL")
        db.commit()
    assert "Tests 1 100 % – –" in page()


def test_many_commands_are_listed_as_far_as_a_page_goes(machine, page) -> None:
    machine.opt_in("--local")
    kind = type(machine.run)
    machine.record(*[kind(run_id="r", command_name=f"C{number}", state="success", duration=1) for number in range(25)])
    assert "5 more commands: telemetry stats --days 14" in page()


def test_a_yes_that_was_changed_since_waits(machine, page) -> None:
    machine.opt_in("--level", "standard")
    machine.record()
    text = machine.home.consent.read_text()
    machine.home.consent.write_text(re.sub(r'"command_completed/final" = .*\n', "", text))
    assert "final False for a run abandoned at shutdown (yes or no) true nobody yet waits for you" in page()
