"""``status``: the answer first, then who decided, what limits it, and where every event is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cmdorc_telemetry import clock, files
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.config import TelemetryLevel
from cmdorc_telemetry.consent import Grant, load_consent, save_decision
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'


def test_off_says_so_and_makes_no_file(machine) -> None:
    result = machine("status")
    assert result.stdout == (
        "Telemetry is off. Nothing is recorded.\n\n"
        "A sample   telemetry show-payload\n"
        "Switch on  telemetry opt-in\n"
    )  # fmt: skip
    assert result.stderr == ""
    assert machine.json("status")["recording"] is False
    assert not machine.home.root.exists()


def test_on_answers_in_the_first_line_and_says_who_decided(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "standard")
    lines = machine("status").stdout.splitlines()
    assert lines[0] == "Telemetry is on. Level standard."
    assert lines[2].startswith("Decided by  you, ")
    assert lines[2].endswith(f" UTC, {machine.home.consent}")
    assert lines[3] == "Limits      none"
    assert "history      recorded 0 = acknowledged 0 + pending 0 + dropped 0" in lines
    assert "http         recorded 0 = acknowledged 0 + pending 0 + dropped 0" in lines
    assert "Last report  none yet" in lines
    assert "Destination  Reporter  Where                  Audience  Pending  State" in lines
    assert "http         http      http://127.0.0.1:9/v1  shared          0  up to date" in lines
    assert lines[-2:] == ["The bytes  telemetry show-payload", "Stop       telemetry opt-out"]


def test_it_changes_nothing_however_far_the_events_are(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    for _ in range(2):
        before = machine.files()
        machine("status")
        machine("status", "--json")
        assert machine.files() == before
        machine.record()
        machine("stats")


def test_what_is_in_journals_is_shown_apart(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record()
    machine.record()
    running = machine.program()
    running.fire("cmdorc_completed", machine.run)
    shown = machine("status").stdout
    assert "In journals  4 records of programs that ended, not yet imported\n" in shown
    assert "Running      1 process with 1 record, not yet imported\n" in shown
    told = machine.json("status")
    assert (told["segments"], told["records"]) == (2, 4)
    assert (told["segments_of_live_processes"], told["records_of_live_processes"]) == (1, 1)
    running.close()
    machine("stats")
    told = machine.json("status")
    assert (told["segments"], told["segments_of_live_processes"]) == (0, 0)
    assert told["history"]["acknowledged"] == 5
    assert [each["ledger"]["pending"] for each in told["destinations"]] == [5]


def test_a_segment_that_its_process_imported_itself_is_no_news(machine) -> None:
    machine.opt_in()
    running = machine.program()
    running.fire("cmdorc_completed", machine.run)
    assert machine.json("status")["segments_of_live_processes"] == 1
    assert running.flush(10)
    assert machine.json("status")["segments_of_live_processes"] == 0
    running.close()


def test_a_segment_that_goes_this_moment_is_none(machine) -> None:
    machine.opt_in()
    machine.record()
    (machine.home.journal / "gone.seg").symlink_to("nowhere")
    assert machine.json("status")["segments"] == 1


def test_a_spool_that_a_killed_process_left_open_is_read_too(machine) -> None:
    machine.opt_in()
    machine.record()
    code = "from cmdorc_telemetry.cli.machine import Machine; import os, signal\n" \
           "with Machine().spool(): os.kill(os.getpid(), signal.SIGKILL)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=False)
    assert machine.home.spool.with_name("spool.db-wal").stat().st_size > 0
    assert machine.json("status")["history"]["recorded"] == 2


BOUNDS = """
sync = true
background = true
[telemetry.bounds]
journal_segments = 7
journal_mib = 5
spool_events = 1234
spool_mib = 6
keep_days = 1
batch_events = 12
batch_kib = 34
batch_seconds = 56
pause_seconds = 90
"""


def test_what_is_in_use_is_shown_beside_what_may_be(machine) -> None:
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    machine.opt_in()
    machine.record()
    machine("stats")
    machine.record()
    lines = machine("status").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Journal "))
    assert lines[at : at + 6] == [
        "Journal    1 of 1,000 segments, 0.0 of 64 MiB",
        f"Spool      2 of 200,000 events, {lines[at + 1].split()[5]} of 256 MiB, for 30 days at most",
        f"History    {lines[at + 2].split()[1]} of 512 MiB, for 400 days at most",
        f"Audit      0.0 MiB in {machine.home.audit}",
        "Batches    500 events, 1,024 KiB or 5 s at most; pauses of 1 h 0 min at most",
        "A process  2 threads at most, sync off, background sender off",
    ]
    assert float(lines[at + 1].split()[5]) < 1
    machine.config('[telemetry]\nplugins = ["jot"]' + BOUNDS)
    shown = machine("status").stdout
    assert "Journal    1 of 7 segments, 0.0 of 5 MiB\n" in shown
    assert "Spool      2 of 1,234 events, " in shown
    assert " of 6 MiB, for 1 day at most\n" in shown
    assert "Batches    12 events, 34 KiB or 56 s at most; pauses of 1 min 30 s at most\n" in shown
    assert "sync on, background sender on\n" in shown
    told = machine.json("status")["usage"]
    assert told["bounds"]["batch_seconds"] == 56
    assert (told["segments"], told["spool_events"], told["sync"], told["background"]) == (1, 2, True, True)
    assert told["journal_bytes"] == sum(path.stat().st_size for path in machine.home.journal.iterdir())


def test_off_says_nothing_of_what_is_in_use(machine) -> None:
    assert "Spool" not in machine("status").stdout


def test_a_size_is_that_of_what_lies_there(machine) -> None:
    machine.opt_in()
    machine.record()
    (segment,) = machine.home.journal.iterdir()
    with segment.open("ab") as file:
        file.write(b"\n" + b"x" * (3 << 20))
    assert "Journal    1 of 1,000 segments, 3.0 of 64 MiB\n" in machine("status").stdout
    assert machine.json("status")["records"] == 3


def test_what_was_moved_aside_is_named(machine) -> None:
    machine.opt_in()
    machine.home.spool.write_bytes(b"not a database, but long enough to be taken for a broken one " * 100)
    machine.record()
    (segment,) = machine.home.journal.iterdir()
    segment.write_bytes(b"no segment either")
    machine("stats")
    (spool,) = machine.home.telemetry.glob("spool.db.corrupt-*")
    spool.with_name(f"{spool.name}-wal").touch()  # belongs to it
    lines = machine("status").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Moved aside"))
    assert lines[at : at + 2] == [
        f"Moved aside  {machine.home.journal / segment.stem}.corrupt (could not be used)",
        f"             {spool} (could not be used)",
    ]
    assert machine.json("status")["usage"]["moved_aside"] == [
        f"{machine.home.journal / segment.stem}.corrupt",
        str(spool),
    ]


def test_local_only(machine) -> None:
    machine.opt_in("--local")
    shown = machine("status").stdout
    assert shown.startswith("Telemetry records on this machine only.\n")
    assert "No destination: nothing leaves this machine.\n" in shown


def test_withheld_events_are_counted_by_reason(machine) -> None:
    machine.opt_in("--level", "minimal")
    machine.record(trigger=True)
    machine("stats")
    assert "Withheld     level 1 (not shared, not counted above)\n" in machine("status").stdout


# -- layers -------------------------------------------------------------------------------------------------------


def test_an_operator_decides_where_nobody_did(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMDORC_TELEMETRY", "standard")
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is on. Level standard.\n")
    assert "Decided by  the environment, CMDORC_TELEMETRY\n" in shown
    assert not machine.home.root.exists()


def test_do_not_track_is_named(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.config(HTTP)
    machine.opt_in()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert "Limits      environment: DO_NOT_TRACK (off)\n" in shown
    assert machine.json("status")["destinations"][0]["state"] == "off"


@pytest.mark.parametrize("name", ["cmdorc.toml", "config.toml"])
def test_what_a_project_tried_and_may_not_is_named(machine, name: str) -> None:
    machine.opt_in("--level", "minimal")
    machine.project('[telemetry]\nlevel = "standard"\nplugins = ["spy"]\nendpoint = "https://spy.example"\n', name)
    told = [
        f"{name}: telemetry.level = standard raises nothing; only your own yes can",
        f"{name}: telemetry.plugins (spy) is ignored; only your own file enables plugins",
        f"{name}: telemetry.endpoint is ignored; only your own file names destinations",
    ]
    lines = machine("status").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Ignored"))
    assert lines[at : at + 3] == [f"Ignored     {told[0]}", *(f"            {each}" for each in told[1:])]
    assert machine.json("status")["ignored"] == told


def test_on_an_undecided_machine_a_wish_is_named_too(machine) -> None:
    machine.project('[telemetry]\nenabled = true\nlevel = "debug"\n')
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert "Decided by  nobody\n" in shown
    assert "Ignored     cmdorc.toml: telemetry.enabled = true turns nothing on; only your own yes can\n" in shown
    machine.project("[[command]]\nname = 'A'\n")
    machine.config("[telemetry]\nenabled = true\n")
    named = f"{machine.home.config}: telemetry.enabled = true turns nothing on; only your own yes can"
    assert machine.json("status")["ignored"] == [named]


SPEC = """
[meta]
name = "acme.app"
[[events]]
name = "paid"
[events.semantics]
what = "x"
[events.properties.amount]
type = "count"
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SPEC.replace("acme.app", "cmdorc.core"),
         "meta.name: spec cmdorc.core is declared already, by cmdorc"),
        (SPEC.replace("paid", "command_completed"),
         "events: event 'command_completed' is declared already, by cmdorc"),
        (SPEC.replace("count", "conut"), "events[0].properties.amount.type: found 'conut'; expected one of bool, "),
        (SPEC + "[", "is not valid TOML: "),
        (None, "cannot be read: No such file or directory"),
    ],
)  # fmt: skip
def test_a_spec_that_a_project_may_not_add_is_left_out_and_named(machine, text: str | None, why: str) -> None:
    machine.opt_in()
    machine.project('[telemetry]\nspecs = ["ours.telemetry.toml"]\n')
    if text is not None:
        machine.project(text, "ours.telemetry.toml")
    shown = machine("status")
    told = f"cmdorc.toml: telemetry.specs[0]: ours.telemetry.toml: {why}"
    assert shown.stdout.startswith("Telemetry is on. Level minimal.\n")
    assert f"Ignored     {told}" in shown.stdout
    assert shown.stderr == ""
    (named,) = machine.json("status")["ignored"]
    assert named.startswith(told)
    assert named.endswith(". It is left out")


def test_a_spec_of_the_user_that_is_broken_is_a_line_and_nothing_is_recorded(machine) -> None:
    machine.opt_in()
    machine.record()
    path = machine.config('[telemetry]\nspecs = ["ours.telemetry.toml"]\n')
    why = f"{path}: telemetry.specs[0]: {path.parent}/ours.telemetry.toml: cannot be "
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert f"\n! {why}" in shown
    assert "Nothing is recorded or sent until it is right\n" in shown
    assert machine.json("status")["records"] == 2
    assert not machine.program().recording
    assert machine("flush", code=2).stderr.startswith(f"error: {why}")


def test_a_project_may_switch_it_off_for_itself(machine) -> None:
    machine.opt_in()
    path = machine.project("[telemetry]\nenabled = false\n", "other.toml")
    shown = machine("status", "--config", str(path)).stdout
    assert shown.startswith("Telemetry is off in this project. Nothing is recorded here.\n")
    assert "Limits      project file: enabled = false (off)\n" in shown
    assert machine("status").stdout.startswith("Telemetry is on.")
    machine.project("[[command]]\nname = 'A'\n")  # says nothing about telemetry
    assert machine("status").stdout.startswith("Telemetry is on.")


def test_a_project_file_that_is_wrong_counts_as_off_and_is_named(machine) -> None:
    machine.opt_in()
    path = machine.project("[telemetry]\nlevle = 'minimal'\n")
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off in this project.")
    assert "! cmdorc.toml: telemetry.levle: unknown key" in shown
    result = machine("status", "--config", str(path), code=2)
    assert result.stderr.startswith(f"error: {path}: telemetry.levle: unknown key")
    assert result.stderr.endswith("Did you mean 'level'?\n")


def test_the_users_own_file_is_no_project_file(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.config(HTTP)
    machine.opt_in()
    monkeypatch.chdir(machine.home.root)
    assert "Ignored" not in machine("status").stdout


def test_broken_toml_of_the_user(machine) -> None:
    machine.config("[telemetry\n")
    result = machine("status", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {machine.home.config}: is not valid TOML: ")
    assert "line 1" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_decision_of_the_future_waits_for_the_clock(machine) -> None:
    machine.opt_in()
    consent = load_consent(machine.home)
    assert consent is not None
    save_decision(machine.home, {CORE_SPEC: consent.grants[CORE_SPEC]._replace(decided_at="2999-01-01T00:00:00Z")})
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert shown.count("! Your decision is of 2999-01-01T00:00:00Z, which is yet to come: ") == 1
    assert "Decided by  you, 1 Jan 2999 00:00 UTC, " in shown


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o666), lambda path: os.chown(path, 12345, -1)],
                         ids=["mode", "owner"])  # fmt: skip
def test_a_file_that_somebody_else_may_have_written_is_not_used(machine, change) -> None:
    machine.config(HTTP)
    machine.opt_in()
    change(machine.home.config)
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert f"! {machine.home.config} cannot be used (" in shown
    before = machine.files()
    for args in (("opt-in", "--yes"), ("disable", "http")):
        result = machine(*args, code=2)
        assert result.stderr.startswith(f"error: {machine.home.config}: "), args
        assert machine.files() == before
    machine("opt-out", "--local-only")
    assert machine.files()["config.toml"] == before["config.toml"]
    assert "Decided by  you, " in machine("status").stdout


AS_SOMEBODY = """
import os, sys
from pathlib import Path
from cmdorc_telemetry.cli import telemetry
telemetry(["status"], standalone_mode=False)  # all that it imports, while it may be read
print("---", flush=True)
home = Path(os.environ["CMDORC_HOME"])
for path in (home, *home.rglob("*")):
    os.chown(path, 12345, 12345)
    path.chmod(0o500 if path.is_dir() else 0o400)
os.setegid(12345)
os.seteuid(12345)
telemetry(["status"], standalone_mode=False)
os.seteuid(0)  # what measures coverage writes at the end
os.setegid(0)
"""


def test_a_home_that_cannot_be_written_is_said(machine) -> None:
    machine.opt_in()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = Path(folder) / "home"
        shutil.copytree(machine.home.root, home)
        environ = {**os.environ, "CMDORC_HOME": str(home)}
        done = subprocess.run([sys.executable, "-c", AS_SOMEBODY], cwd=folder, env=environ, capture_output=True,
                              text=True, timeout=30, check=True)  # fmt: skip
    well, _, shown = done.stdout.partition("---\n")
    trouble = f"! {home}/telemetry cannot be written to: what is recorded is dropped, nothing is sent\n"
    assert (trouble in well, trouble in shown) == (False, True)
    assert shown.startswith("Telemetry is on. ")


def test_a_decision_that_cannot_be_read(machine) -> None:
    machine.opt_in()
    machine.home.consent.write_text("generation = 3\n")
    shown = machine("status").stdout
    assert shown.startswith("Telemetry is off. Nothing is recorded.\n")
    assert shown.count(f"! {machine.home.consent} cannot be used") == 1


def test_where_a_decision_cannot_be_used_the_other_commands_say_so_too(machine) -> None:
    machine.opt_in()
    machine.home.consent.chmod(0o666)
    why = (
        f"{machine.home.consent} cannot be used (others may write to it: its mode is 666): nothing is recorded or sent"
    )
    for name in ("flush", "review"):
        assert machine(name, code=1).stderr.startswith(f"error: {why}")
    assert f"Telemetry is off. Nothing is recorded.\n  {why}" in machine("stats").stdout
    machine.opt_in()  # a new decision
    assert machine("status").stdout.startswith("Telemetry is on.")


# -- destinations and plugins -------------------------------------------------------------------------------------


def state(machine, name: str) -> tuple[str, str]:
    (found,) = [each for each in machine.json("status")["destinations"] if each["name"] == name]
    return found["state"], found["note"]


def test_a_destination_whose_plugin_is_not_there(machine) -> None:
    machine.config('[telemetry]\nplugins = ["http"]\n[telemetry.to.board]\nplugin = "graphs"\nport = 9\n')
    machine.opt_in()
    assert state(machine, "board") == ("plugin-missing", "plugin graphs is not installed")
    shown = machine("status").stdout
    assert "! board: plugin graphs is not installed. Events wait for it.\n" in shown
    assert f"  correct telemetry.to.board.plugin in {machine.home.config}: installed are anomaly, " in shown


def test_a_destination_whose_plugin_is_not_enabled_or_broken(machine) -> None:
    machine.plugin("crate", "raise RuntimeError('no\\nway')")
    machine.config("[telemetry.to.crate]\n")
    machine.opt_in()
    assert state(machine, "crate") == ("plugin-missing", "plugin crate is not enabled")
    assert "\n  telemetry enable crate\n" in machine("status").stdout
    machine.config('[telemetry]\nplugins = ["crate"]\n[telemetry.to.crate]\n')
    assert state(machine, "crate") == ("plugin-missing", "plugin crate is broken, or has no reporter crate")
    shown = machine("status").stdout
    assert "! Plugin 'crate' cannot be imported: RuntimeError: no way" in shown
    assert "! Nothing is shared: plugin" not in shown
    assert machine("status").stderr == ""


def test_a_plugin_that_may_be_an_anonymizer_and_is_not_there(machine) -> None:
    machine.opt_in()
    machine.config('[telemetry]\nplugins = ["masker"]\n')
    shown = machine("status").stdout
    assert "! Nothing is shared: plugin 'masker' could not be loaded, and may be an anonymizer. " in shown
    assert "What happens until that is mended stays on this machine: it is not shared later, either.\n" in shown
    assert "! Plugin 'masker' is not installed" in shown


def test_while_nothing_may_be_shared_no_destination_is_called_up_to_date(machine) -> None:
    machine.plugin("jot")
    both = '[telemetry.to.jot]\n[telemetry.to.mine]\nplugin = "jot"\naudience = "private"\n'
    machine.config(f'[telemetry]\nplugins = ["jot"]\n{both}')
    machine.opt_in()
    machine.config(f'[telemetry]\nplugins = ["jot", "masker"]\n{both}')
    machine.record()
    machine("flush")
    assert [state(machine, name)[0] for name in ("jot", "mine")] == ["blocked", "up-to-date"]
    shown = machine("status").stdout
    assert "  gets nothing\n" in shown
    assert "Withheld     plugin-not-loaded 2 (not shared, not counted above)" in shown
    machine.config(f'[telemetry]\nplugins = ["jot"]\n{both}')  # and what happened meanwhile is not shared later
    machine("flush")
    assert [each["ledger"]["acknowledged"] for each in machine.json("status")["destinations"]] == [0, 2]


def test_how_much_waits_for_where_a_destination_led_is_told_before_the_yes(machine, terminal) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record()
    machine("show-payload")  # imported
    machine.config(HTTP.replace("127.0.0.1:9", "127.0.0.1:10"))
    told = ("http: 2 events wait for where it led before. A yes, or a no, drops them; "
            "where it leads there again, nothing is lost.")  # fmt: skip
    assert f"! {told}\n" in machine("status").stdout
    machine.record()
    asked = terminal("review")
    asked.answer("Share with http, too? [y/N] ", "y\n")
    assert told.replace("2", "4") in " ".join(asked.before.split())
    assert asked.end() == 0
    found = machine.json("status")["destinations"][0]
    assert (found["state"], found["ledger"]["dropped"]) == ("up-to-date", {"destination-changed": 4})
    assert "led before" not in machine("status").stdout


def test_what_was_taken_out_of_the_file_is_not_called_a_running_program(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record()
    machine("show-payload")
    machine.config("[telemetry]\n")
    (found,) = machine.json("status")["destinations"]
    assert (found["name"], found["target"], found["state"]) == ("http", "", "removed")
    assert "not in your file any more" in machine("status").stdout


def test_settings_that_are_wrong(machine) -> None:
    machine.opt_in()
    machine.config(HTTP.replace("127.0.0.1:9", "t.example"))
    found, note = state(machine, "http")
    assert found == "misconfigured"
    assert "expected https://" in note
    shown = machine("status").stdout
    assert re.search(r" cannot be used\n", shown), "the table stays narrow"
    assert f"\n! http: {note}.\n" in shown


def test_a_new_shared_destination_waits_for_its_own_yes(machine) -> None:
    machine.opt_in()
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    assert state(machine, "jot")[0] == "waits-for-your-yes"
    shown = machine("status").stdout
    assert "! 1 destination waits for your yes: jot.\n  telemetry review\n" in shown


def test_new_fields_wait_for_an_answer(machine) -> None:
    machine.opt_in()
    consent = load_consent(machine.home)
    assert consent is not None
    grant = consent.grants[CORE_SPEC]
    fields = dict(grant.fields)
    del fields["command_completed/final"]
    save_decision(machine.home, {CORE_SPEC: grant._replace(fields=fields)})
    assert (
        "! 1 field waits for your answer: command_completed/final. Withheld until then.\n  telemetry review\n"
        in machine("status").stdout
    )
    save_decision(machine.home, {CORE_SPEC: grant._replace(fields={})})
    told = machine.json("status")["fields_waiting"]
    assert f"! {len(told)} fields wait for your answer: {', '.join(told[:5])} and {len(told) - 5} more." in (
        machine("status").stdout
    )


def test_a_destination_that_is_down_waits_and_says_why(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.record()
    machine("flush", "--timeout", "5", code=1)
    found = machine.json("status")["destinations"][0]
    assert found["ledger"]["pending"] == 2
    assert "no connection" in found["note"]
    spool = Spool(machine.home.spool)
    spool.postpone("http", clock.wall() + 1000, "503")
    spool.close()
    failures = found["ledger"]["failures"] + 1
    shown = machine("status").stdout
    assert re.search(rf"waiting after {failures} failures, next try .* UTC\n\n! http: 503.\n", shown)


def test_events_that_were_set_aside(machine) -> None:
    machine.plugin("jot")
    machine.config('[telemetry]\nplugins = ["jot"]\n')
    machine.opt_in()
    machine.record()
    machine("stats")
    spool = Spool(machine.home.spool)
    lease = spool.lease("jot", clock.wall(), count=1)
    assert lease is not None
    spool.settle(lease, {lease.items[0].seq: EventResult("", "rejected", "set-aside: no")}, clock.wall())
    shown = machine("status").stdout
    assert "waits to be sent, 1 set aside\n" in shown
    assert "! 1 event was rejected and set aside.\n  telemetry dead-letters\n" in shown
    lease = spool.lease("jot", clock.wall())
    assert lease is not None
    spool.settle(lease, {item.seq: EventResult("", "accepted") for item in lease.items}, clock.wall())
    spool.close()
    shown = machine("status").stdout
    assert "set aside to be looked at\n" in shown
    assert "Last report  none yet" not in shown


def test_a_reporter_that_code_injected_is_shown(machine) -> None:
    from cmdorc_telemetry import NoopReporter, Telemetry

    machine.opt_in()
    program = Telemetry.start(reporters=[NoopReporter()])
    program.fire("cmdorc_completed", machine.run)
    assert program.flush(10)
    (found,) = machine.json("status")["destinations"]
    assert (found["target"], found["state"], found["ledger"]["acknowledged"]) == ("a running program", "up-to-date", 1)
    program.close()


WATCH = """
from msgspec import Struct
from cmdorc_telemetry import hookimpl
from cmdorc_telemetry.detector import Detector

class Watch(Detector):
    class Settings(Struct, forbid_unknown_fields=True):
        step: int = 1

    def score_one(self, event, payload):
        return ()

    def learn_one(self, event, payload):
        pass

@hookimpl
def telemetry_detectors():
    return [Watch]
"""


def test_a_detector_is_shown_beside_the_history_and_is_nobodys_destination(machine) -> None:
    machine.plugin("watch", WATCH)
    machine.config('[telemetry]\nplugins = ["watch"]\n')
    machine.opt_in()
    machine.record()
    machine("flush")
    told = machine.json("status")
    assert told["destinations"] == []
    ((detector,),) = [told["detectors"]]
    assert (detector["name"], detector["recorded"], detector["acknowledged"]) == ("detector-watch", 2, 2)
    assert "detector-watch  recorded 2 = acknowledged 2 + pending 0 + dropped 0" in machine("status").stdout
    assert machine("audit", "--verify").exit_code == 0
    assert "looks for what is unusual" in machine("view", "--output", "-").stdout


def test_a_detector_whose_settings_are_wrong_says_why(machine) -> None:
    machine.plugin("watch", WATCH)
    machine.config('[telemetry]\nplugins = ["watch"]\n[telemetry.settings.watch]\nstep = "two"\n')
    machine.opt_in()
    machine.record()
    machine("flush", "--timeout", "1", code=1)
    shown = machine("status").stdout
    assert "detector-watch cannot learn: " in shown
    assert "telemetry.settings.watch.step: found 'two'; expected int. Events wait for it.\n" in shown
    machine.config('[telemetry]\nplugins = ["watch"]\n[telemetry.settings.watch]\nstpe = 2\n')
    machine("flush", "--timeout", "1", code=1)
    assert "Did you mean 'step'? Events wait for it.\n" in machine("status").stdout


def test_destinations_that_are_no_more_are_kept_for_scripts(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    machine.config("[telemetry]\n")
    machine("stats")
    told = machine.json("status")
    assert [each["name"] for each in told["removed"]] == ["http"]
    assert told["destinations"] == []


@pytest.mark.parametrize(
    ("table", "where"),
    [("", "127.0.0.1:19464"),
     ('host = "::1"', "[::1]:19464"),
     ('host = "0.0.0.0"\nport = 9000\npath = "/m.prom"', "/m.prom 0.0.0.0:9000"),
     ('path = "/m.prom"', "/m.prom"),
     ("port = 0", "")],
)  # fmt: skip
def test_an_address_that_nobody_wrote_is_one_that_a_person_is_shown(machine, table: str, where: str) -> None:
    table = f"[telemetry.to.prometheus]\n{table}\n" if table else ""
    machine.config(f'[telemetry]\nplugins = ["prometheus"]\n{table}')
    (place,) = machine.json("status")["destinations"]
    assert place["target"] == where
    (plugin,) = [each for each in machine.json("plugins") if each["name"] == "prometheus"]
    (used,) = plugin["destinations"]
    assert used["target"] == where
    if where:
        assert f"  prometheus  {where}  (shared)\n" in machine("opt-in", "--yes").stderr
    if not table:
        assert {"name": "port", "value": "19464", "source": "default"} in used["settings"]


def test_a_host_alone_is_an_address(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "graphs"\nhost = "graphs.example"\n')
    (place,) = machine.json("status")["destinations"]
    assert place["target"] == "graphs.example"


def test_a_target_taken_from_the_environment_is_not_spelt_out(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "https://secret.example/v1")
    machine.config(
        '[telemetry]\nplugins = ["http"]\n[telemetry.to.http]\naudience = "private"\nendpoint_env = "SOMEWHERE"\n'
    )
    machine.opt_in()
    shown = machine("status").stdout
    assert "$SOMEWHERE" in shown
    assert "secret" not in shown


def test_a_spool_that_cannot_be_read(machine) -> None:
    machine.opt_in()
    machine.home.spool.write_bytes(b"not a database, but long enough to be taken for a broken one " * 100)
    shown = machine("status").stdout
    assert f"! {machine.home.spool} cannot be " in shown
    assert shown.startswith("Telemetry is on.")
    assert not machine.home.spool.with_name("spool.db.suspect").exists()


# -- how it looks -------------------------------------------------------------------------------------------------


def test_a_pipe_gets_no_colour_and_no_wrapping(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    machine.config(HTTP)
    machine.opt_in()
    shown = machine("status").stdout
    assert "\x1b" not in shown
    assert "http         recorded 0 = acknowledged 0 + pending 0 + dropped 0\n" in shown
    assert "http         http      http://127.0.0.1:9/v1  shared          0  up to date\n" in shown


def test_a_terminal_gets_colour_unless_it_asks_for_none(machine, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.config(HTTP)
    machine.opt_in()
    coloured = terminal("status", whole=True)
    assert coloured.end() == 0
    assert "\x1b[36mup to date\x1b[0m" in coloured.shown
    monkeypatch.setenv("NO_COLOR", "1")
    plain = terminal("status", whole=True)
    assert plain.end() == 0
    assert "\x1b[3" not in plain.shown
    assert "up to date" in plain.shown


def test_what_is_wrong_goes_on_below_on_a_terminal_and_no_word_is_broken(
    machine, terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    machine.opt_in()
    machine.config(HTTP.replace("127.0.0.1:9", "t.example"))
    narrow = terminal("status", columns=80, whole=True)
    assert narrow.end() == 0
    lines = narrow.shown.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("! http:"))
    said = lines[first : lines.index("", first)]
    assert len(said) > 1
    assert all(line.startswith("  ") for line in said[1:])
    assert " ".join(line.strip() for line in said) == f"! http: {state(machine, 'http')[1]}."


def test_a_narrow_terminal_gets_rows_stacked(machine, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    machine.config("[telemetry.to.board]\nplugin = 'x'\n")
    machine.opt_in()
    narrow = terminal("status", columns=60, whole=True)
    assert narrow.end() == 0
    lines = [line.replace("\x1b[2m", "").replace("\x1b[0m", "") for line in narrow.shown.splitlines()]
    at = lines.index("board        recorded 0")
    assert lines[at + 1 : at + 4] == [" " * 13 + each for each in ("= acknowledged 0", "+ pending 0", "+ dropped 0")]
    at = lines.index("board")
    assert lines[at : at + 5] == [
        "board", "  Reporter  x", "  Audience  shared", "  Pending   0", "  State     plugin missing"
    ]  # fmt: skip


def test_an_output_that_is_not_unicode(machine) -> None:
    machine.opt_in()
    machine.project('[telemetry]\nplugins = ["Grün…"]\n')
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "status"], env=environ, capture_output=True,
                          check=True)  # fmt: skip
    assert b"telemetry.plugins (Gr?n~) is ignored;" in done.stdout


def test_what_others_wrote_cannot_talk_to_the_terminal(machine) -> None:
    machine.opt_in()
    machine.project('[telemetry]\nplugins = ["\\u001b[2Jx\\ny"]\n')
    shown = machine("status").stdout
    assert "\x1b" not in shown
    assert "telemetry.plugins (�[2Jx y) is ignored;" in shown


def test_help_comes_without_what_is_heavy(machine) -> None:
    code = (
        "import sys\nbefore, sys.argv = set(sys.modules), ['x', '--help']\n"
        "from cmdorc_telemetry.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'rich', 'tomlkit', 'sqlite3', 'asyncio', 'msgspec', 'pluggy'}\n"
        "print(sorted(heavy & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: cmdorc-telemetry ")
    assert done.stdout.splitlines()[-1] == "[]"
    assert not machine.home.root.exists()


def test_json_names_everything(machine) -> None:
    machine.config(HTTP)
    machine.opt_in()
    told = machine.json("status")
    assert json.loads(json.dumps(told)) == told
    assert (told["recording"], told["level"], told["decided_by"]) == (True, "minimal", "you")
    assert Path(told["config"]) == machine.home.config
    assert told["destinations"][0]["target"] == "http://127.0.0.1:9/v1"


def test_where_locks_fail_nobody_can_tell_who_lives(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.opt_in()
    machine.record()

    def no_locks(fd: int, *, wait: bool = True) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "lock_fd", no_locks)
    told = machine.json("status")
    assert (told["segments"], told["segments_of_live_processes"]) == (0, 0)


def test_nobody_and_no_password_of_an_address_is_shown(machine) -> None:
    machine.config(
        '[telemetry]\nplugins = ["http"]\nendpoint = "https://anna:hunter2@t.example/v1"\n'
        '[telemetry.to.hook]\nplugin = "hook"\nurl = "https://t.example/x?key=hunter2#y"\ntoken = "hunter2"\n'
    )
    machine("opt-in", "--level", "minimal", "--yes", code=2)
    save_decision(machine.home, {CORE_SPEC: Grant(True, TelemetryLevel.MINIMAL)})
    for words in (["status"], ["status", "--json"], ["plugins"], ["plugins", "--json"], ["view", "-o", "-"]):
        result = machine(*words)
        assert "hunter2" not in result.stdout + result.stderr, words
        assert "anna" not in result.stdout + result.stderr, words
    assert "https://…@t.example/v1 " in machine("status").stdout
    assert "https://t.example/x?…#y " in machine("status").stdout
