"""``review``: what came since the yes waits, is shown beside what was agreed to, and is asked for alone."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import TelemetryLevel
from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.consent import Consent, Grant, load_consent, save_decision
from cmdorc_telemetry.declarations import declarations, new_grant
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry_server import SQLiteStore

NOTHING = "Nothing waits for your answer.\n"
FIELD, FIELDS = "Share this field, too? [y/N] ", "Share these 2 fields, too? [y/N] "
BOARD = "Share with board, too? [y/N] "
SHOP_QUESTION = "Record shop too, and share this? [y/N] "
CHAIN = "command_completed/chain_depth"
SHOP = """
import json
import msgspec
from cmdorc_telemetry import TelemetrySpec, hookimpl

PROPERTIES = json.loads('''{properties}''')
SPEC = msgspec.convert({{
    "meta": {{"name": "shop", "title": "The shop", "owners": ["@shop"]}},
    "events": [{{"name": "paid", "semantics": {{"what": "Somebody paid", "why": "{why}"}}, "properties": PROPERTIES}}],
}}, TelemetrySpec)

@hookimpl
def telemetry_specs():
    return [SPEC]
"""
AMOUNT = {"type": "number", "min": 0, "max": 10, "level": "minimal", "description": "What was paid"}
CARD = {"type": "bool", "level": "minimal", "description": "Whether by card"}


class Shop:
    """A plugin with a spec of its own, that can be upgraded, and a file that its events are shared with."""

    def __init__(self, machine) -> None:
        self.machine, self.arrived = machine, machine.folder / "arrived.jsonl"
        self.destinations = f'[telemetry.to.file]\npath = "{self.arrived}"\n'
        machine.plugin("shop", self._code({"amount": AMOUNT}, "because"))
        self.configure()

    def _code(self, properties: dict[str, Any], why: str) -> str:
        return SHOP.format(properties=json.dumps(properties), why=why)

    def configure(self, more: str = "", plugins: str = '"file", "shop"') -> None:
        self.machine.config(f"[telemetry]\nplugins = [{plugins}]\n{self.destinations}{more}")

    def upgrade(self, why: str = "because", **properties: dict[str, Any]) -> None:
        (self.machine.site / "shop.py").write_text(self._code(properties, why), encoding="utf-8")
        self.machine.forget_modules()

    def pay(self, **properties: Any) -> None:
        program = self.machine.program()
        assert program.track("paid", properties)
        program.close()

    def got(self) -> list[dict[str, Any]]:
        """The own fields of the events that arrived since the last time."""
        self.machine("flush")
        events = [json.loads(line) for line in self.arrived.read_text().splitlines()] if self.arrived.exists() else []
        self.arrived.unlink(missing_ok=True)
        return [{name: event[name] for name in ("amount", "card") if name in event}
                for event in events if event["event"] == "paid"]  # fmt: skip


@pytest.fixture
def shop(machine) -> Shop:
    return Shop(machine)


def said(asked) -> str:
    """What was shown before the last question, without colours, each line as it would be where there is room."""
    return re.sub("\x1b\\[[0-9;]*m", "", asked.before).replace("\r", "")


def decided(machine) -> Consent:
    consent = load_consent(machine.home)
    assert consent is not None
    return consent


def without(machine, *fields: str, level: TelemetryLevel = TelemetryLevel.STANDARD) -> Grant:
    """As if these fields of the core had been declared after the yes."""
    old = decided(machine).grants[CORE_SPEC]
    grant = old._replace(fields={name: text for name, text in old.fields.items() if name not in fields}, share=level)
    save_decision(machine.home, {CORE_SPEC: grant})
    return grant


def troubles(machine) -> list[str]:
    return [line for line in machine("status").stdout.splitlines() if line.startswith(("! ", "  telemetry"))]


# -- nothing to review ------------------------------------------------------------------------------------------------


def test_where_nobody_decided_there_is_nothing(machine) -> None:
    assert machine("review").stdout == f"Telemetry is off. Nothing is recorded.\n{NOTHING}"
    assert not machine.home.root.exists()


def test_after_a_yes_there_is_nothing(machine, shop: Shop) -> None:
    machine.opt_in("--level", "standard")
    before = machine.files()
    result = machine("review")
    assert (result.stdout, result.stderr) == (NOTHING, "")
    assert machine("review", "--yes").stdout == NOTHING
    assert machine.files() == before


def test_where_nothing_is_shared_nothing_is_asked_for(machine, shop: Shop) -> None:
    machine.opt_in("--local")
    shop.upgrade(amount={**AMOUNT, "max": 99}, card=CARD)
    assert machine("review").stdout == NOTHING
    assert machine.json("status")["fields_waiting"] == []
    assert troubles(machine) == ["! 1 destination waits for your yes: file.", "  telemetry opt-in"]


def test_a_decision_that_cannot_be_used_is_no_ground_to_ask_on(machine) -> None:
    machine.opt_in()
    machine.home.consent.write_text("broken")
    assert "cannot be used" in machine("review", "--yes", code=1).stderr
    assert machine.home.consent.read_text() == "broken"
    machine.opt_in()
    assert machine("review").stdout == NOTHING


# -- fields -----------------------------------------------------------------------------------------------------------


def test_a_wider_field_waits_and_everything_else_goes_on(machine, shop: Shop, terminal) -> None:
    machine.opt_in()
    shop.pay(amount=3)
    assert shop.got() == [{"amount": 3.0}]
    generation = decided(machine).generation
    shop.upgrade(amount={**AMOUNT, "max": 99}, card=CARD)
    assert machine.json("status")["fields_waiting"] == ["shop: paid/amount", "shop: paid/card"]
    assert troubles(machine) == [
        "! 2 fields wait for your answer: shop: paid/amount, shop: paid/card. Withheld until then.",
        "  telemetry review",
    ]
    shop.pay(amount=4, card=True)
    assert shop.got() == []  # nothing of its own is left
    machine.record()
    machine("flush")
    assert [json.loads(line)["event"] for line in shop.arrived.read_text().splitlines()] == [
        "orchestrator_started", "command_completed"
    ]  # fmt: skip
    shop.pay(amount=5, card=True)  # not imported before the yes

    asked = terminal("review")
    asked.answer(FIELDS, "y\n")
    assert said(asked) == (
        "paid/amount  wider\n  amount  4.0\n      What was paid (number, 0 to 99)\n      Most  10 → 99\n"
        "paid/card  new\n  card  true\n      Whether by card (yes or no)\n"
        "      Why  because\n      Kept  at most 90 days\n\n"
    )
    assert asked.end() == 0
    assert asked.stdout.startswith(b"Telemetry is on. Level minimal.\n")
    assert machine.json("status")["fields_waiting"] == []
    assert machine("review").stdout == NOTHING
    shop.pay(amount=50, card=False)
    machine.home.telemetry.joinpath("waiting").unlink(missing_ok=True)
    assert shop.got() == [{"amount": 50.0, "card": False}]
    assert decided(machine).lacking(generation, "shop") == {"paid/amount", "paid/card"}


def test_a_no_is_remembered_until_the_field_changes_again(machine, shop: Shop, terminal) -> None:
    machine.opt_in()
    shop.upgrade(amount=AMOUNT, card=CARD)
    asked = terminal("review")
    asked.answer(FIELD, "\n")
    assert asked.end() == 1
    grant = decided(machine).grants["shop"]
    assert (set(grant.declined), "paid/card" in grant.fields) == ({"paid/card"}, False)
    result = machine("review")
    assert result.stdout == NOTHING
    assert "  paid/card  you said no\n" in result.stderr
    assert troubles(machine) == []
    shop.pay(amount=3, card=True)
    assert shop.got() == [{"amount": 3.0}]

    shop.upgrade(amount=AMOUNT, card={**CARD, "required": True})
    assert machine.json("status")["fields_waiting"] == ["shop: paid/card"]
    assert machine("review", "--yes").stdout.startswith("Telemetry is on.")
    grant = decided(machine).grants["shop"]
    assert (grant.declined, "paid/card" in grant.fields) == ({}, True)
    shop.pay(amount=3, card=True)
    assert shop.got() == [{"amount": 3.0, "card": True}]


def test_a_narrower_field_needs_no_answer(machine, shop: Shop) -> None:
    machine.opt_in()
    shop.upgrade(amount={**AMOUNT, "max": 5})
    result = machine("review")
    assert result.stdout == NOTHING
    assert "  paid/amount  narrower. Most: 10 → 5\n" in result.stderr
    assert troubles(machine) == []
    shop.pay(amount=4)
    assert shop.got() == [{"amount": 4.0}]
    shop.upgrade(card=CARD)
    assert "  paid/amount  not shared any more.\n" in machine("review", "--yes").stderr


def test_another_reason_asks_again(machine, shop: Shop) -> None:
    machine.opt_in()
    shop.upgrade(amount=AMOUNT, why="for somebody else")
    result = machine("review", code=2)
    assert "paid/amount  for another reason\n" in result.stderr
    assert "      Why  because → for somebody else\n" in result.stderr


def test_a_base_field_is_asked_for_like_any_other(machine) -> None:
    machine.opt_in()
    without(machine, "*/arch", level=TelemetryLevel.MINIMAL)
    result = machine("review", "--yes")
    assert "*/arch  new\n  arch  " in result.stderr
    assert "*/arch" in decided(machine).grants[CORE_SPEC].fields


def test_how_changes_read(machine, shop: Shop) -> None:
    old = {"amount": {"type": "enum", "members": ["a"], "level": "minimal"},
           "card": {"type": "bucket", "edges": [1, 2], "level": "minimal", "required": True}}  # fmt: skip
    shop.upgrade(**old)
    machine.opt_in()
    shop.upgrade(amount={**old["amount"], "members": ["a", "b"], "max_items": 3},
                 card={**old["card"], "edges": [1, 2.5], "required": False})  # fmt: skip
    shown = machine("review", code=2).stderr
    for line in ("Values  a → a, b", "At most  none → 3", "Ranges  1, 2 → 1, 2.5", "Always there  yes → no"):
        assert f"      {line}\n" in shown
    consent = decided(machine)
    grant = consent.grants["shop"]
    kept = {name: text.replace('"retention_days":90', '"retention_days":9') for name, text in grant.fields.items()}
    save_decision(machine.home, {"shop": grant._replace(fields={**kept, "paid/card": "{}"})})
    shown = machine("review", code=2).stderr
    assert "      Kept  9 days → 90 days\n" in shown
    assert "      Declaration  {} → {" in shown


# -- whole specs ------------------------------------------------------------------------------------------------------


def test_a_new_spec_waits_whole(machine, shop: Shop, terminal) -> None:
    shop.configure(plugins='"file"')
    machine.opt_in()
    shop.configure()
    assert troubles(machine) == [
        "! 1 spec waits for your answer: shop. Nothing of it is recorded until then.",
        "  telemetry review",
    ]
    program = machine.program()
    assert not program.track("paid", {"amount": 1})
    program.close()
    asked = terminal("review")
    asked.answer(SHOP_QUESTION, "y\n")
    assert said(asked).startswith("The shop  shop, of @shop\n")
    assert "  To       file\n" in said(asked)
    assert asked.end() == 0
    grant = decided(machine).grants["shop"]
    assert (grant.record, grant.share, grant.debug_expires) == (True, TelemetryLevel.MINIMAL, None)
    shop.pay(amount=2)
    assert shop.got() == [{"amount": 2.0}]


def test_a_new_spec_is_shown_where_nobody_can_be_asked(machine, shop: Shop) -> None:
    shop.configure(plugins='"file"')
    machine.opt_in()
    shop.configure()
    before = machine.home.consent.read_bytes()
    assert "The shop  shop, of @shop\n" in machine("review", code=2).stderr
    assert machine.home.consent.read_bytes() == before


def test_a_no_to_a_spec_is_final(machine, shop: Shop, terminal) -> None:
    shop.configure(plugins='"file"')
    machine.opt_in()
    shop.configure()
    asked = terminal("review")
    asked.answer(SHOP_QUESTION, "n\n")
    assert asked.end() == 1
    assert decided(machine).grants["shop"].record is False
    assert machine("review").stdout == NOTHING
    shop.upgrade(amount={**AMOUNT, "max": 99})
    assert machine("review").stdout == NOTHING
    assert troubles(machine) == []
    machine.opt_in()
    assert decided(machine).grants["shop"].record is True


def test_a_new_spec_that_shares_nothing_is_asked_for_once_as_what_it_is(machine, shop: Shop, terminal) -> None:
    shop.upgrade(amount={**AMOUNT, "audience": "private"}, card={**CARD, "audience": "private"})
    mine, other = machine.folder / "mine.jsonl", machine.folder / "other.jsonl"
    shop.destinations += f'[telemetry.to.mine]\nplugin = "file"\naudience = "private"\npath = "{mine}"\n'
    shop.destinations += f'[telemetry.to.other]\nplugin = "file"\naudience = "private"\npath = "{other}"\nevents = []\n'
    shop.configure(plugins='"file"')
    machine.opt_in()
    said_by_enable = machine("enable", "shop").stdout
    assert said_by_enable.endswith("Nothing of shop is recorded before your yes:\n  telemetry review\n")
    asked = terminal("review")
    asked.answer("Record shop too, for you and destinations of your own? [y/N] ", "y\n")
    shown = said(asked)
    assert "paid  Somebody paid\n" in shown
    assert "  Why      because\n" in shown
    assert "  To       mine (yours)\n" in shown
    assert "\n  amount\n      What was paid (number, 0 to 10)\n" in shown
    assert "\nNever shared: amount, card.\n" in shown
    assert asked.end() == 0
    assert machine("review").stdout == NOTHING
    assert machine("enable", "shop").stdout == said_by_enable.replace("is enabled", "was enabled already").partition(
        "Nothing of")[0]  # fmt: skip
    shop.pay(amount=2)
    assert shop.got() == []
    assert [json.loads(line)["amount"] for line in mine.read_text().splitlines()] == [2.0]


def test_a_private_spec_that_goes_nowhere_says_so(machine, shop: Shop) -> None:
    shop.upgrade(amount={**AMOUNT, "audience": "private"})
    shop.configure(plugins='"file"')
    machine.opt_in()
    shop.configure()
    assert "  To       nobody: it stays on this machine\n" in machine("review", code=2).stderr


def test_a_new_spec_on_this_machine_only(machine, shop: Shop) -> None:
    shop.configure(plugins='"file"')
    machine.opt_in("--local")
    shop.configure()
    result = machine("review", "--yes")
    assert result.stdout.startswith("Telemetry records on this machine only.\n")
    assert "\n\nRecord shop on this machine only? yes\n\n" in result.stderr
    assert "\n\n\n" not in result.stderr
    grant = decided(machine).grants["shop"]
    assert (grant.record, grant.share, grant.fields) == (True, TelemetryLevel.OFF, {})


def test_a_projects_spec_is_not_this_homes_to_ask_for(machine, shop: Shop) -> None:
    machine.opt_in()
    machine.project('[telemetry]\nspecs = ["own.toml"]\n[[command]]\nname = "a"\ncommand = "true"\ntriggers = []\n')
    (machine.work / "own.toml").write_text(
        '[meta]\nname = "own"\n[[events]]\nname = "done"\n[events.semantics]\nwhat = "x"\n'
        '[events.properties.n]\ntype = "count"\n'
    )
    assert machine.json("status")["specs_waiting"] == []


# -- destinations -----------------------------------------------------------------------------------------------------


def test_a_new_destination_waits_and_begins_with_its_yes(machine, shop: Shop, terminal) -> None:
    machine.opt_in()
    board = machine.folder / "board.jsonl"
    shop.configure(f'[telemetry.to.board]\nplugin = "file"\npath = "{board}"\nevents = ["paid"]\n')
    assert troubles(machine) == ["! 1 destination waits for your yes: board.", "  telemetry review"]
    shop.pay(amount=1)
    assert shop.got() == [{"amount": 1.0}]
    shop.pay(amount=2)  # not imported before the yes
    asked = terminal("review")
    asked.answer(BOARD, "y\n")
    assert said(asked).startswith("board  new destination\n")
    assert "/board.jsonl (shared · only paid)" in " ".join(said(asked).split())
    assert asked.end() == 0
    assert set(decided(machine).destinations) == {"file", "board"}
    shop.pay(amount=3)
    assert sorted(event["amount"] for event in shop.got()) == [2.0, 3.0]
    assert [json.loads(line)["amount"] for line in board.read_text().splitlines()] == [3.0]
    ledgers = {each["name"]: each["ledger"] for each in machine.json("status")["destinations"]}
    assert ledgers["board"]["pending"] == 0
    assert ledgers["board"]["dropped"] == {"before-your-yes": 1}, "and nobody withdrew anything"


def test_a_no_to_a_destination_is_remembered_until_it_leads_elsewhere(machine, shop: Shop, terminal) -> None:
    machine.opt_in()
    shop.configure('[telemetry.to.board]\nplugin = "file"\npath = "/one.jsonl"\n')
    asked = terminal("review")
    asked.answer(BOARD, "n\n")
    assert asked.end() == 1
    assert decided(machine).declined == {"board": "file path=/one.jsonl"}
    states = {each["name"]: each["state"] for each in machine.json("status")["destinations"]}
    assert states["board"] == "declined"
    assert "you said no" in machine("status").stdout
    assert troubles(machine) == []
    result = machine("review")
    assert (result.stdout, "  board  you said no\n" in result.stderr) == (NOTHING, True)
    assert "waits" not in machine("flush").stderr
    shop.configure('[telemetry.to.board]\nplugin = "file"\npath = "/two.jsonl"\n')
    assert machine("review", "--yes").stdout.startswith("Telemetry is on.")
    assert decided(machine).destinations["board"] == "file path=/two.jsonl"


def test_a_destination_that_cannot_be_used_is_not_asked_for(machine, shop: Shop) -> None:
    machine.opt_in()
    shop.configure('[telemetry.to.board]\nplugin = "file"\npath = "not-absolute"\n')
    assert machine("review", "--yes").stdout == NOTHING
    assert "board" not in decided(machine).destinations


def test_a_destination_that_leads_elsewhere_is_shown_with_where_it_led(machine, shop: Shop) -> None:
    machine.opt_in()
    shop.destinations = '[telemetry.to.file]\npath = "/elsewhere.jsonl"\n'
    shop.configure()
    shown = machine("review", code=2).stderr
    assert "file  leads elsewhere now\n" in shown
    assert f"  Was  file path={shop.arrived}\n" in shown
    assert "led before" not in shown
    machine.home.spool.unlink()  # and nobody knows of anything that waits
    assert "led before" not in machine("review", code=2).stderr


# -- debug ------------------------------------------------------------------------------------------------------------

HASH = "command_completed/hashed_command_name"


@pytest.fixture
def debugging(machine) -> datetime:
    """A home with a yes to DEBUG that ends in ten days. When."""
    machine.opt_in("--level", "standard")
    ends = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=10)
    grant = new_grant(load_spec(CORE), TelemetryLevel.DEBUG, datetime.now(timezone.utc))
    save_decision(machine.home, {CORE_SPEC: grant._replace(debug_expires=ends)})
    machine.config('[telemetry]\nenabled = true\nlevel = "debug"\ndebug_consent_given = true\n'
                   f"debug_consent_expires = {ends.isoformat()}\n")  # fmt: skip
    return ends


def test_debug_has_a_question_of_its_own_and_ends_when_it_would(machine, debugging: datetime, terminal) -> None:
    without(machine, HASH, CHAIN, level=TelemetryLevel.DEBUG)
    asked = terminal("review")
    asked.answer(FIELD, "y\n")
    assert "chain_depth" in asked.before
    assert "hashed_command_name" not in asked.before
    until = f"{debugging.day} {debugging:%b %Y %H:%M} UTC"
    asked.answer(f"This sends hashed command info — confirm? (expires {until}) [y/N] ", "y\n")
    assert "hashed_command_name" in asked.before
    assert asked.end() == 0
    grant = decided(machine).grants[CORE_SPEC]
    assert (grant.share, grant.debug_expires) == (TelemetryLevel.DEBUG, debugging)
    assert grant.fields == declarations(load_spec(CORE))


def test_yes_does_not_cover_debug(machine, debugging: datetime) -> None:
    without(machine, HASH, CHAIN, level=TelemetryLevel.DEBUG)
    machine("review", "--yes", code=1)
    grant = decided(machine).grants[CORE_SPEC]
    assert (CHAIN in grant.fields, HASH in grant.fields, grant.declined) == (True, False, {})
    before = machine.files()
    machine("review", "--yes", code=1)
    assert machine.files() == before
    assert machine.json("status")["fields_waiting"] == [HASH]


def test_a_new_spec_under_debug_is_asked_for_in_two_steps(machine, debugging: datetime, terminal) -> None:
    shop = Shop(machine)
    shop.upgrade(amount=AMOUNT, card={**CARD, "level": "debug"})
    asked = terminal("review", "--yes")
    asked.answer("This sends hashed command info — confirm?", "n\n")
    assert "paid/card" in asked.before
    assert asked.end() == 1
    grant = decided(machine).grants["shop"]
    assert (grant.share, grant.debug_expires) == (TelemetryLevel.DEBUG, debugging)
    assert set(grant.declined) == {"paid/card"}
    assert "paid/amount" in grant.fields


# -- all or nothing ---------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_shows_and_changes_nothing(machine) -> None:
    machine.opt_in("--level", "standard")
    without(machine, CHAIN)
    before = machine.files()
    result = machine("review", code=2)
    assert result.stdout == ""
    assert f"{CHAIN}  new\n" in result.stderr
    assert "\n\n\n" not in result.stderr
    assert "\nShare this field, too?\n\n" in result.stderr
    assert result.stderr.endswith(
        "error: review: there is no terminal to ask on; nothing was changed; expected --yes\n"
    )
    assert machine.files() == before


def test_whoever_opted_out_meanwhile_stays_out(machine, terminal) -> None:
    machine.opt_in("--level", "standard")
    without(machine, CHAIN)
    asked = terminal("review")
    asked.until(FIELD)
    machine("opt-out")
    asked.answer(FIELD, "y\n")
    assert asked.end() == 1
    assert "decided otherwise in the meantime; nothing was changed" in asked.shown
    assert decided(machine).grants[CORE_SPEC].record is False
    assert machine("status").stdout.startswith("Telemetry is off.")


def test_where_the_spool_cannot_be_opened_nothing_is_changed(machine) -> None:
    machine.opt_in("--level", "standard")
    without(machine, CHAIN)
    before = machine.home.consent.read_bytes()
    with closing(sqlite3.connect(machine.home.spool)) as db:
        db.execute("PRAGMA user_version=99")
    assert "newer version" in machine("review", "--yes", code=1).stderr
    assert machine.home.consent.read_bytes() == before


# -- end to end -------------------------------------------------------------------------------------------------------


class Server:
    """The project's own server, in a process."""

    def __init__(self, store: Path) -> None:
        self.store = store
        command = [Path(sys.executable).with_name("cmdorc-telemetry-server"), "serve", "--store", store, "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().split()[-1]

    def runs(self) -> list[dict[str, Any]]:
        """The runs that arrived, in the order in which they were recorded."""

        async def read() -> list[Any]:
            return [json.loads(row.body) async for row in SQLiteStore(self.store).export()]

        bodies = [body for body in asyncio.run(read()) if body["event"] == "command_completed"]
        return sorted(bodies, key=lambda body: body["duration_ms"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "reports.db")
    yield server
    server.process.terminate()
    server.process.communicate(timeout=20)


def test_a_field_that_waits_is_not_on_the_wire(machine, server: Server, terminal) -> None:
    def run(seconds: float) -> Any:
        return type(machine.run)(run_id="r", command_name="Tests", state="success", duration=seconds)

    machine.config(f'[telemetry]\nplugins = ["http"]\nendpoint = "{server.endpoint}"\n')
    machine.opt_in("--level", "standard")
    machine.record(run(1))
    machine("flush")
    grant = without(machine, CHAIN)
    machine.record(run(2))
    machine("flush")
    machine.record(run(3))  # a segment that nobody imports before the yes
    running = machine.program()  # and one that is written until after it
    running.fire("cmdorc_completed", run(4))
    asked = terminal("review")
    asked.answer(FIELD, "y\n")
    assert asked.end() == 0
    running.close()
    machine.record(run(5))
    machine("flush")
    runs = server.runs()
    assert [body["duration_ms"] for body in runs] == [1000, 2000, 3000, 4000, 5000]
    assert ["chain_depth" in body for body in runs] == [True, False, False, False, True]
    assert all("concurrent_runs" in body for body in runs)
    after = decided(machine).grants[CORE_SPEC]
    assert (after.share, after.decided_at, after.debug_expires) == (grant.share, grant.decided_at, grant.debug_expires)
