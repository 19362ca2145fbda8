"""``show-payload``: the stored bytes, why each field is there or is not, and a sample where nothing is stored."""

from __future__ import annotations

import json
import re
import sqlite3
import zlib
from contextlib import closing

import pytest

from cmdorc_telemetry import TelemetryLevel, TelemetryRegistry, clock
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import Grant, load_consent, save_decision
from cmdorc_telemetry.declarations import declarations
from cmdorc_telemetry.spec import keep_policy
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult

NO_ID = "00000000-0000-0000-0000-000000000000"
HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
TWO = HTTP.replace('["http"]', '["http", "jot"]') + (
    '[telemetry.to.mine]\nplugin = "jot"\naudience = "private"\n'
    '[telemetry.to.less]\nplugin = "jot"\nlevel = "minimal"\nevents = ["command_completed", "trigger_fired"]\n'
    '[telemetry.to.less.rename]\nstate = "outcome"\nlevel = "amount"\ncommand_completed = "done"\n'
)
MASKER = """
from cmdorc_telemetry import hookimpl

@hookimpl
def telemetry_anonymize(event):
    return {"python_version": None, "duration_ms": event.fields["duration_ms"] // 1000 * 1000} \\
        if "duration_ms" in event.fields else {"python_version": None}
"""


@pytest.fixture
def stored(machine):
    """A home with destinations of every kind, at STANDARD, and one program's events."""
    machine.plugin("jot")
    machine.config(TWO)
    machine.opt_in("--level", "standard")
    machine.record(trigger=True)
    return machine


def shared_body(machine, event: str) -> bytes:
    spool = Spool(machine.home.spool, reading=True)
    row = spool.newest(event, shared=True)
    spool.close()
    assert row is not None
    assert row.shared is not None
    return row.shared


# -- stored -------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_the_stored_bytes_and_nothing_else(stored) -> None:
    result = stored("show-payload", "command_completed")
    assert result.stdout_bytes == shared_body(stored, "command_completed")
    assert result.stderr == ""
    assert json.loads(result.stdout)["duration_ms"] == 3500


def test_without_a_name_it_is_the_newest_that_is_shared(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "minimal")
    machine.record(trigger=True)  # the triggers come last, and MINIMAL shares nothing of them
    assert json.loads(machine("show-payload").stdout)["event"] == "command_completed"


def test_it_brings_the_history_up_to_date(stored) -> None:
    stored("show-payload")
    assert stored.json("status")["history"]["acknowledged"] == 3
    assert stored.json("stats")["runs"] == 1


def test_what_is_shown_is_what_a_destination_gets(stored) -> None:
    shown = stored("show-payload", "command_completed", "--to", "http").stdout_bytes
    assert shown == shared_body(stored, "command_completed")
    private = json.loads(stored("show-payload", "command_completed", "--to", "mine").stdout)
    assert private["command_name"] == "Tests"
    less = json.loads(stored("show-payload", "command_completed", "--to", "less").stdout)
    assert (less["event"], less["outcome"], less["amount"]) == ("done", "success", "minimal")
    assert not {"state", "level", "chain_depth", "command_name"} & set(less)
    assert json.loads(stored("show-payload", "--to", "history").stdout)["event"] == "trigger_fired"


def test_without_a_name_a_destination_gets_only_what_it_takes(stored) -> None:
    assert json.loads(stored("show-payload", "--to", "less").stdout)["event"] == "done"


def test_it_reads_from_the_spool_what_no_destination_waits_for_any_more(stored) -> None:
    stored("show-payload")
    spool = Spool(stored.home.spool)
    for name in ("http", "mine", "less"):
        while lease := spool.lease(name, clock.wall()):
            spool.settle(lease, {item.seq: EventResult("", "accepted") for item in lease.items}, clock.wall())
    spool.close()
    result = stored("show-payload", "command_completed")
    assert json.loads(result.stdout)["event_id"] == NO_ID
    assert result.stderr == "This is a sample, with placeholder ids: none of it waits to be sent.\n"


def test_events_of_running_programs_have_no_payload_yet(machine) -> None:
    machine.opt_in()
    program = machine.program()
    program.fire("cmdorc_completed", machine.run)
    result = machine("show-payload", "command_completed")
    assert json.loads(result.stdout)["event_id"] == NO_ID
    assert result.stderr.splitlines()[-1] == "1 running process has events that are not imported yet."
    program.close()


# -- nothing to show ----------------------------------------------------------------------------------------------


def test_local_only_shares_nothing(machine) -> None:
    machine.opt_in("--local")
    machine.record()
    result = machine("show-payload", "command_completed", code=1)
    assert result.stdout == ""
    assert result.stderr == (
        "error: command_completed: nothing is shared: telemetry records on this machine only\n"
    )  # fmt: skip


def test_a_level_that_shares_nothing_of_an_event(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "minimal")
    machine.record(trigger=True)
    result = machine("show-payload", "trigger_fired", code=1)
    assert result.stderr == "error: trigger_fired: level minimal shares nothing of it\n"


def test_an_event_that_something_else_holds_back(stored) -> None:
    result = stored("show-payload", "orchestrator_started", "--to", "less", code=1)
    assert result.stderr == "error: orchestrator_started: less gets nothing of it: it is not among its events\n"
    result = stored("show-payload", "trigger_fired", "--to", "less", code=1)
    assert result.stderr == "error: trigger_fired: less gets nothing of it, for its level is minimal\n"


def test_a_destination_that_waits_for_a_yes(stored) -> None:
    with stored.home.config.open("a") as file:
        file.write('[telemetry.to.new]\nplugin = "jot"\n')
    result = stored("show-payload", "--to", "new", code=1)
    assert result.stderr == "error: new gets nothing: it waits for your yes (telemetry review)\n"


def test_a_destination_that_got_a_no(stored, terminal) -> None:
    with stored.home.config.open("a") as file:
        file.write('[telemetry.to.new]\nplugin = "jot"\n')
    asked = terminal("review")
    asked.answer("Share with new, too?", "n\n")
    assert asked.end() == 1
    result = stored("show-payload", "--to", "new", code=1)
    assert result.stderr == "error: new gets nothing: you said no to it\n"


def test_an_event_whose_plugin_is_gone(machine) -> None:
    machine.plugin("shop", SHOP)
    machine.config('[telemetry]\nplugins = ["shop"]\n[telemetry.to.board]\nplugin = "x"\naudience = "private"\n')
    machine.opt_in()
    save_decision(machine.home, {"shop": Grant(True)})
    program = machine.program()
    assert program.track("basket_filled", {"items": 3})
    program.close()
    assert json.loads(machine("show-payload", "--to", "board").stdout)["items"] == 3
    machine("disable", "shop")
    assert machine("show-payload", "--to", "board", code=1).stderr == (
        "error: basket_filled: the plugin that declares it is not there any more\n"
    )


@pytest.mark.parametrize("args", [(), ("--to", "http")])
def test_an_unknown_event(machine, args: tuple[str, ...]) -> None:
    machine.config(HTTP)
    result = machine("show-payload", "comand_completed", *args, code=2)
    assert result.stderr == (
        "error: EVENT: found 'comand_completed'; expected one of orchestrator_started, command_completed, "
        "trigger_fired, orchestrator_stopped, anomaly_detected. Did you mean 'command_completed'?\n"
    )


def test_an_unknown_destination(machine) -> None:
    machine.config(HTTP)
    assert machine("show-payload", "--to", "htpp", code=2).stderr == (
        "error: --to: found 'htpp'; expected one of history, http. Did you mean 'http'?\n"
    )


# -- samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [event.name for event in next(iter(TelemetryRegistry.with_core())).events])
def test_before_opt_in_a_sample_of_every_event(machine, event: str) -> None:
    result = machine("show-payload", event)
    body = json.loads(result.stdout)
    assert (body["event"], body["anonymous_install_id"], body["event_id"]) == (event, NO_ID, NO_ID)
    *more, last = result.stderr.splitlines()
    assert last == "This is a sample, with placeholder ids: telemetry is off."
    nothing = f"Level minimal shares nothing of {event}: this is what level {body['level']} shares."
    assert more == ([] if body["level"] == "minimal" else [nothing])
    assert not machine.home.root.exists()


def test_a_sample_of_what_the_level_shares_nothing_of_says_so(machine) -> None:
    machine.config(HTTP)
    machine.opt_in("--level", "minimal")
    assert machine("show-payload", "anomaly_detected").stderr.splitlines() == [
        "Level minimal shares nothing of anomaly_detected: this is what level standard shares.",
        "This is a sample, with placeholder ids: none of it waits to be sent.",
    ]


def test_a_sample_goes_through_the_anonymizers_and_counts_nowhere(machine) -> None:
    """With the plugin as it is installed: no key is made, no value counted, no version and second told."""
    rules = "fields.os = { rare = 2 }\nfields.python_version = { remove = true }\n"
    machine.config('[telemetry]\nplugins = ["anonymizer", "http"]\nendpoint = "http://127.0.0.1:9/v1"\n'
                   f"[telemetry.settings.anonymizer]\n{rules}")  # fmt: skip
    for args in ((), ("--to", "http")):
        body = json.loads(machine("show-payload", "command_completed", *args).stdout)
        assert body["cmdorc_version"].count(".") == 1
        assert body["timestamp"].endswith(":00:00Z")
        assert (body["event_id"], body["state"]) == (NO_ID, "success")
        assert "python_version" not in body
    private = json.loads(machine("show-payload", "command_completed", "--to", "history").stdout)
    assert private["cmdorc_version"].count(".") == 2
    assert set(machine.files()) == {"config.toml"}


def test_of_a_sample_it_is_said_what_an_anonymizer_takes_out(machine, terminal) -> None:
    machine.plugin("masker", MASKER)
    machine.config('[telemetry]\nplugins = ["masker"]\n')
    gone = "removed, or given a value that its spec does not allow"
    assert row(shown(terminal, "command_completed"), "python_version") == ["python_version", "masker", gone]


@pytest.mark.parametrize(
    ("plugins", "held"),
    [(["masker"], "masker, which anonymizes, holds it back"),
     (["gone"], "plugin 'gone' could not be loaded, and may be an anonymizer")],
)  # fmt: skip
def test_no_sample_of_what_would_not_be_shared(machine, plugins: list[str], held: str) -> None:
    machine.plugin("masker", BROKEN)
    machine.config(f"[telemetry]\nplugins = {plugins}\n")
    assert machine("show-payload", code=1).stderr.splitlines()[-1] == (
        f"error: command_completed: nothing of it is shared: {held}"
    )


def test_no_sample_of_what_has_expired(machine) -> None:
    semantics = '"semantics": {"what": "x"}'
    machine.plugin("shop", SHOP.replace(semantics, f'{semantics}, "expires": "2020-01-01"'))
    machine.config('[telemetry]\nplugins = ["shop"]\n')
    assert machine("show-payload", "basket_filled", code=1).stderr.endswith(
        "error: basket_filled: nothing of it is shared: it has expired\n"
    )


def test_a_sample_has_the_level_of_the_file(machine) -> None:
    assert json.loads(machine("show-payload").stdout)["level"] == "minimal"
    machine.config('[telemetry]\nlevel = "standard"\n')
    body = json.loads(machine("show-payload").stdout)
    assert (body["level"], body["chain_depth"]) == ("standard", 2)
    assert "command_name" not in body
    assert set(machine.files()) == {"config.toml"}


def test_a_sample_for_a_destination(machine) -> None:
    machine.plugin("jot")
    machine.config(TWO + '[telemetry.to.some]\nplugin = "jot"\nlevel = "minimal"\n')
    private = json.loads(machine("show-payload", "--to", "mine").stdout)
    assert (private["command_name"], private["run_id"]) == ("Tests", NO_ID)
    assert not [name for name in private if name.startswith("hashed_")]
    assert json.loads(machine("show-payload", "orchestrator_started", "--to", "history").stdout)["config_name"]
    assert json.loads(machine("show-payload", "--to", "less").stdout)["outcome"] == "success"
    assert json.loads(machine("show-payload", "--to", "http").stdout)["state"] == "success"


SHOP = """
from cmdorc_telemetry import TelemetrySpec, hookimpl
import msgspec

SPEC = msgspec.convert({
    "meta": {"name": "shop", "version": 1},
    "events": [
        {"name": "basket_filled", "semantics": {"what": "x"}, "properties": {
            "items": {"type": "count", "min": 1, "level": "minimal"},
            "at": {"type": "timestamp"}, "by": {"type": "uuid"}, "hidden": {"type": "bool", "redact": True},
            "tags": {"type": "hash", "max_items": 3}, "size": {"type": "bucket", "edges": [1, 2]},
            "price": {"type": "number", "min": 2, "max": 3}, "with_version": {"type": "version"},
            "took": {"type": "duration_ms"}, "name": {"type": "string", "pattern": ".*", "max_length": 9}}},
        {"name": "basket_dropped", "semantics": {"what": "x"}, "properties": {
            "who": {"type": "string", "pattern": ".*", "max_length": 9, "audience": "private"}}},
    ],
}, TelemetrySpec)

@hookimpl
def telemetry_specs():
    return [SPEC]
"""


def test_a_sample_of_an_event_that_a_plugin_brings(machine) -> None:
    machine.plugin("shop", SHOP)
    machine.config('[telemetry]\nplugins = ["shop"]\nlevel = "standard"\n')
    body = json.loads(machine("show-payload", "basket_filled").stdout)
    assert (body["items"], body["size"], body["price"], body["spec"]) == (1, "<1", 2, "shop@1")
    assert body["hidden"] == "[redacted]"
    private = json.loads(machine("show-payload", "basket_filled", "--to", "history").stdout)
    assert private["hidden"] == "[redacted]"  # as it is recorded


def test_a_sample_of_an_event_that_is_never_shared(machine) -> None:
    machine.plugin("shop", SHOP)
    machine.config('[telemetry]\nplugins = ["shop"]\n')
    assert machine("show-payload", "basket_dropped", code=1).stderr == (
        "error: basket_dropped: no level shares anything of it\n"
    )


def test_a_sample_where_cmdorc_is_not_installed(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmdorc_telemetry.cli import sample

    def version(name: str) -> str:
        raise sample.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sample.metadata, "version", version)
    assert "cmdorc_version" not in json.loads(machine("show-payload").stdout)


# -- on a terminal ------------------------------------------------------------------------------------------------


def shown(terminal, *args: str, columns: int = 140) -> list[str]:
    opened = terminal("show-payload", *args, whole=True, columns=columns)
    assert opened.end() == 0, opened.shown
    return re.sub(r"\x1b\[[0-9;]*m", "", opened.shown).splitlines()


def row(lines: list[str], name: str) -> list[str]:
    (found,) = [line for line in lines if re.match(rf"{name}  ", line)]
    return re.split(r" {2,}", found)


def test_a_terminal_gets_the_body_laid_out_and_every_field_explained(stored, terminal) -> None:
    lines = shown(terminal, "command_completed")
    size = len(shared_body(stored, "command_completed"))
    assert re.fullmatch(
        rf"command_completed  \d+ \w+ \d+ \d\d:\d\d UTC · {size} bytes · to less, http \(shared\)", lines[0]
    )
    assert '  "duration_ms": 3500,' in lines
    assert row(lines, "duration_ms") == ["duration_ms", "minimal", "From running to final, in milliseconds"]
    assert row(lines, "event_id")[1] == "minimal"
    assert row(lines, "hashed_command_name") == ["hashed_command_name", "level", "shared at level debug"]
    assert row(lines, "command_name") == ["command_name", "audience", "private: only for you and what is yours"]
    assert not [line for line in lines if line.startswith(("trigger_event", "app_name"))]
    assert re.fullmatch("sha256 [0-9a-f]{64}", lines[-2])


MANUAL = "Whether a person or a program started it, rather than a trigger"


def test_what_a_field_is_goes_on_below_on_a_terminal_of_80_columns(stored, terminal) -> None:
    lines = shown(terminal, "command_completed", columns=80)
    number = next(number for number, line in enumerate(lines) if line.startswith("manual  "))
    start = lines[number].index("Whether")
    assert f"{lines[number]} {lines[number + 1][start:]}".endswith("  " + MANUAL)
    assert not lines[number + 1][:start].strip()
    assert all(len(line) <= 80 for line in lines)


def test_a_sample_of_what_a_destination_would_get_withholds_by_level_not_by_a_consent_to_come(
    machine, terminal
) -> None:  # fmt: skip
    machine.config(HTTP)
    machine.opt_in("--local")
    lines = shown(terminal, "command_completed", "--to", "http")
    assert row(lines, "timed_out") == ["timed_out", "level", "shared at level standard"]
    assert not [line for line in lines if line.startswith("app_name")]


def test_a_destination_of_ones_own_has_nothing_withheld(stored, terminal) -> None:
    lines = shown(terminal, "command_completed", "--to", "mine")
    assert lines[0].endswith(" bytes · to mine (private)")
    assert row(lines, "command_name")[1] == "private"
    assert not [line for line in lines if line.startswith("Withheld")]
    assert shown(terminal, "--to", "history")[0].endswith(" bytes · to history (private)")


def test_renamed_fields_are_explained_under_their_new_names(stored, terminal) -> None:
    lines = shown(terminal, "command_completed", "--to", "less")
    assert row(lines, "outcome")[1] == "minimal"
    assert row(lines, "chain_depth")[1:] == ["less", "its level is minimal"]
    assert row(lines, "hashed_command_name")[1:] == ["level", "shared at level debug"]


def test_what_an_anonymizer_did_is_said(machine, terminal) -> None:
    machine.plugin("masker", MASKER)
    machine.config('[telemetry]\nplugins = ["masker", "http"]\nendpoint = "http://127.0.0.1:9/v1"\n')
    machine.opt_in()
    machine.record()
    lines = shown(terminal, "command_completed")
    gone = "removed, or given a value that its spec does not allow"
    assert row(lines, "python_version") == ["python_version", "masker", gone]
    (found,) = [line for line in lines if "replaced by another value" in line]
    assert re.split(r" {2,}", found)[:2] == ["duration_ms", "masker"]


def test_fields_that_wait_for_consent_are_said(stored, terminal) -> None:
    consent = load_consent(stored.home)
    assert consent is not None
    grant = consent.grants[CORE_SPEC]
    fields = {name: text for name, text in grant.fields.items() if name != "command_completed/final"}
    save_decision(stored.home, {CORE_SPEC: grant._replace(fields=fields)})
    stored("stats")
    stored.record()
    assert row(shown(terminal, "command_completed"), "final") == ["final", "consent", "not shown to you yet"]


def test_a_sample_on_a_terminal(machine, terminal) -> None:
    lines = shown(terminal, "command_completed")
    assert re.fullmatch(
        r"command_completed  sample · \d+ bytes · to nobody: no destination is shared with", lines[0]
    )  # fmt: skip
    assert row(lines, "trigger_event")[1] == "audience"
    assert lines[-1] == "This is a sample, with placeholder ids: telemetry is off."


def test_personal_fields_are_withheld_by_the_spec(machine, terminal) -> None:
    machine.plugin("shop", SHOP)
    machine.config('[telemetry]\nplugins = ["shop"]\n')
    assert row(shown(terminal, "basket_filled"), "hidden") == ["hidden", "spec", "marked as personal"]


# -- who withheld it ----------------------------------------------------------------------------------------------


def agree_to(machine, *without: str) -> None:
    """Agree to every field of the core spec but these."""
    consent = load_consent(machine.home)
    assert consent is not None
    grant = consent.grants[CORE_SPEC]
    fields = declarations(next(iter(TelemetryRegistry.with_core())), TelemetryLevel.STANDARD)
    kept = {name: text for name, text in fields.items() if name not in without}
    save_decision(machine.home, {CORE_SPEC: grant._replace(fields=kept)})


def test_a_field_that_was_agreed_to_later_is_said(stored, terminal) -> None:
    agree_to(stored, "command_completed/final")
    stored("stats")
    stored.record()
    stored("stats")
    agree_to(stored)
    assert row(shown(terminal, "command_completed"), "final") == [
        "final", "consent", "recorded before you agreed to it",
    ]  # fmt: skip


def wish(machine, name: str, document: dict[str, object]) -> None:
    """Have the receiver of a destination ask for less."""
    machine("show-payload")
    spool = Spool(machine.home.spool)
    spool.ask_policy(name, clock.wall())
    spool.keep_policy(name, keep_policy(document))
    spool.close()


def test_a_field_that_its_receiver_does_not_want_is_said(stored, terminal) -> None:
    unwanted = {"events": {"command_completed": {"fields": {"manual": False}}}}
    wish(stored, "http", unwanted)
    wish(stored, "mine", unwanted)
    for name in ("http", "mine"):
        lines = shown(terminal, "command_completed", "--to", name)
        assert row(lines, "manual") == ["manual", "receiver", "it asks for less"]
    assert row(shown(terminal, "command_completed"), "manual")[1] == "minimal"
    wish(stored, "http", {"level": "minimal"})
    lines = shown(terminal, "command_completed", "--to", "http")
    assert row(lines, "chain_depth") == ["chain_depth", "receiver", "it asks for less"]


def why(machine, *args: str) -> str:
    return str(machine("show-payload", *args, code=1).stderr).splitlines()[-1].removeprefix("error: ")


def test_nothing_for_an_id_that_was_given_up(stored) -> None:
    stored("show-payload")
    stored.home.install_id.write_text("9e107d9d-372b-4a81-8d5c-0a4f5a0b1c2d\n")
    assert why(stored, "command_completed") == (
        "command_completed: nothing of it leaves: it was recorded under an id that was given up"
    )


def test_nothing_of_what_was_recorded_before_anything_was_shared(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "x"\naudience = "private"\n')
    machine.opt_in("--local")
    machine.record()
    machine("stats")
    machine.opt_in("--level", "minimal")
    assert why(machine, "command_completed") == (
        "command_completed: nothing of it is shared: when it was recorded, nothing was"
    )


def test_nothing_of_what_was_recorded_before_a_destination_got_a_yes(stored) -> None:
    stored("show-payload")
    with stored.home.config.open("a") as file:
        file.write('[telemetry.to.new]\nplugin = "jot"\n')
    stored.opt_in("--level", "standard")
    assert why(stored, "command_completed", "--to", "new") == (
        "command_completed: new gets nothing of it: it was recorded before you agreed to new"
    )


def test_nothing_of_what_its_spec_does_not_allow_any_more(stored) -> None:
    stored("show-payload")
    with closing(sqlite3.connect(stored.home.spool)) as db, db:
        old, new = '"duration_ms":3500', '"duration_ms":-350'
        db.execute("UPDATE event SET shared=CAST(replace(CAST(shared AS TEXT), ?, ?) AS BLOB)", (old, new))
    assert why(stored, "command_completed", "--to", "less") == (
        "command_completed: nothing of it is shared: its spec has changed since, and does not allow what it holds"
    )


def test_nothing_that_its_receiver_does_not_want(stored) -> None:
    wish(stored, "http", {"events": {"command_completed": {"level": "off"}, "orchestrator_stopped": {"level": "off"}}})
    for event in ("command_completed", "orchestrator_stopped"):  # one is stored, of the other there is a sample
        assert why(stored, event, "--to", "http") == (
            f"{event}: http gets nothing of it, for it asks for less: no command_completed, no orchestrator_stopped"
        )


RARE = SHOP.replace('"name": "basket_filled",', '"name": "basket_filled", "sampling": {"rate": 0},')
BROKEN = """
from cmdorc_telemetry import hookimpl

@hookimpl
def telemetry_anonymize(event):
    raise ValueError("no")
"""


def test_nothing_where_sampling_says_so(machine) -> None:
    assert RARE != SHOP
    machine.plugin("shop", RARE)
    machine.config('[telemetry]\nplugins = ["shop"]\n[telemetry.to.board]\nplugin = "x"\naudience = "private"\n')
    machine.opt_in()
    save_decision(machine.home, {"shop": Grant(True, TelemetryLevel.STANDARD)})
    program = machine.program()
    assert program.track("basket_filled", {"items": 3})
    program.close()
    assert why(machine, "basket_filled") == (
        "basket_filled: nothing of it is shared: sampling shares 0 % of such events, and not this one"
    )


CHOSEN = SHOP.replace(
    '"name": "basket_filled",', '"name": "basket_filled", "sampling": {"rate": 1, "conditions": ["items > 5"]},'
)


@pytest.mark.parametrize(
    ("items", "held"),
    [(3, "sampling shares only those that meet its conditions, and not this one"),
     (6, "masker, which anonymizes, held it back")],
)  # fmt: skip
def test_nothing_where_a_condition_does_not_hold(machine, items: int, held: str) -> None:
    assert CHOSEN != SHOP
    machine.plugin("shop", CHOSEN)
    machine.plugin("masker", BROKEN)
    machine.config('[telemetry]\nplugins = ["shop", "masker"]\n[telemetry.to.board]\nplugin = "x"\n'
                   'audience = "private"\n')  # fmt: skip
    machine.opt_in()
    save_decision(machine.home, {"shop": Grant(True, TelemetryLevel.STANDARD)})
    program = machine.program()
    assert program.track("basket_filled", {"items": items})
    program.close()
    assert why(machine, "basket_filled") == f"basket_filled: nothing of it is shared: {held}"


@pytest.mark.parametrize(
    ("plugins", "held"),
    [(["masker"], "masker, which anonymizes, held it back"),
     (["gone"], "plugin 'gone' could not be loaded, and may be an anonymizer")],
)  # fmt: skip
def test_nothing_where_an_anonymizer_fails_or_is_missing(machine, plugins: list[str], held: str) -> None:
    machine.plugin("masker", BROKEN)
    board = '[telemetry.to.board]\nplugin = "x"\naudience = "private"\n'
    machine.config(board)
    machine.opt_in()
    machine.config(f"[telemetry]\nplugins = {plugins}\n{board}")
    machine.record()
    assert why(machine, "command_completed") == f"command_completed: nothing of it is shared: {held}"


def test_nothing_where_a_value_is_not_what_it_may_be(machine) -> None:
    machine.config('[telemetry.to.board]\nplugin = "x"\naudience = "private"\n')
    machine.opt_in()
    machine.record()
    (segment,) = machine.home.journal.iterdir()
    lines = segment.read_bytes().split(b"\n")
    changed = [_changed(line) for line in lines]
    assert changed != lines
    segment.write_bytes(b"\n".join(changed))
    assert why(machine, "command_completed") == (
        "command_completed: nothing of it is shared: a value in it is not what its spec allows"
    )


def _changed(line: bytes) -> bytes:
    """The same frame, with a duration that is none."""
    record = line[9:].replace(b'"duration_ms":3500', b'"duration_ms":-350')
    return b"%08x %s" % (zlib.crc32(record), record) if record != line[9:] else line


def test_a_reporter_that_is_not_there_or_cannot_encode_is_told(machine) -> None:
    machine.plugin("own", CANNOT)
    machine.config('[telemetry]\nplugins = ["own"]\n[telemetry.to.board]\nplugin = "x"\naudience = "private"\n')
    machine.opt_in()
    machine.record()
    result = machine("show-payload", "command_completed", "--to", "board")
    assert result.stderr == "The reporter of board is not there: this is the body that it would be given.\n"
    assert why(machine, "command_completed", "--to", "own") == "the reporter of own cannot encode it: ValueError: no"


CANNOT = """
from cmdorc_telemetry import TelemetryReporter, hookimpl

class Own(TelemetryReporter):
    name = "own"

    def encode(self, batch):
        raise ValueError("no")

    async def report(self, event, payload): ...

@hookimpl
def telemetry_reporters():
    return [Own]
"""
