"""The plugin as it is installed, in the real pipeline: what reaches somebody else's destination, and what cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import uuid
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry import NoopReporter, TelemetryLevel, clock, hookimpl
from cmdorc_telemetry.capture import Capture
from cmdorc_telemetry.cli.deletion import delete
from cmdorc_telemetry.config import load_layer
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import another_identity, ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics, TelemetrySpec
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Ledger, Setup
from cmdorc_telemetry.types import Event as Shared
from cmdorc_telemetry_anonymizer.anonymizer import Narrowing
from cmdorc_telemetry_anonymizer.settings import Rule, Settings

GRANTED = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = datetime(2026, 11, 22, 3, 14, 15, tzinfo=timezone.utc).timestamp()
PROBE = TelemetrySpec(
    meta=Meta(name="probe"),
    events=(
        Event(
            name="probed",
            semantics=Semantics(what="w"),
            properties={
                "size": Property(type="count"),
                "share": Property(type="number", min=0, max=1000),
                "plan": Property(type="enum", members=("free", "pro", "enterprise")),
                "branch": Property(type="hash"),
                "branches": Property(type="hash", max_items=5),
                "who": Property(type="uuid"),
                "tool": Property(type="version"),
                "built": Property(type="timestamp"),
                "word": Property(type="string", pattern="(?s:.*)", max_length=50),
                "gone": Property(type="string", pattern="(?s:.*)", max_length=50),
                "flag": Property(type="bool", level="minimal"),
            },
        ),
    ),
)
VALUES: dict[str, Any] = {
    "size": 48_151_623, "share": 108.421, "plan": "enterprise", "branch": "badc0ffee0dd",
    "branches": ["badc0ffee001", "badc0ffee002"], "who": "c0ffee00-1234-4321-8765-123456789abc", "tool": "7.31.4815",
    "built": "2019-08-07T06:05:04Z", "word": "canary-word", "gone": "canary-gone", "flag": True,
}  # fmt: skip
RULES = """
[telemetry.settings.anonymizer.events.probed]
size = { buckets = [1000, 1000000, 100000000] }
share = { buckets = [100, 200] }
plan = { keep = ["free", "pro"] }
branch = { hash = true }
branches = { hash = true }
who = { hash = true }
tool = { generalise = "minor" }
built = { generalise = "month" }
word = { hash = true }
gone = { remove = true }
"""
HEX = re.compile(r"[0-9a-f]{12}")


class Machine:
    """A home whose user shares everything, with one destination that keeps what it gets."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.got: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.host = PluginHost()

    @hookimpl
    def telemetry_specs(self) -> list[TelemetrySpec]:
        return [PROBE]

    @hookimpl
    def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
        machine = self

        class Keeping(NoopReporter):
            name = "keeping"

            async def report_batch(self, batch: Batch) -> BatchResult | None:
                machine.got += [event.payload for event in batch.events]
                machine.raw += [event.body for event in batch.events]
                return None

        return [Keeping]

    def configure(self, settings: str = "") -> None:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(f'[telemetry]\nplugins = ["anonymizer"]\n[telemetry.to.keeping]\n{settings}')
        destinations = identities(load_layer(self.home.config).destinations)
        grants = {
            spec.meta.name: new_grant(spec, TelemetryLevel.STANDARD, GRANTED) for spec in (load_spec(CORE), PROBE)
        }
        save_decision(self.home, grants, destinations)

    def pipeline(self, *also: object) -> Pipeline:
        self.host = PluginHost(["anonymizer"], [self, *also])
        return Pipeline(Situation.read({"CMDORC_HOME": str(self.home.root)}), self.host)

    def record(self, *events: dict[str, Any], event: str = "probed") -> None:
        """By another process, which is gone."""
        constants = {"python_version": "3.12.4", "anonymous_install_id": ensure_identity(self.home).install_id}
        capture = Capture([PROBE, load_spec(CORE)], constants)
        stamp = Situation.read({"CMDORC_HOME": str(self.home.root)}).policy().stamp
        journal = Journal(self.home.journal, stamp)
        for properties in events:
            assert journal.append(capture.record(event, properties))
        journal.close()

    def shared(self, *events: dict[str, Any], event: str = "probed") -> list[dict[str, Any]]:
        """What reaches the destination of these events."""
        self.record(*events, event=event)
        return self.flush(self.pipeline())

    def flush(self, pipeline: Pipeline) -> list[dict[str, Any]]:
        """What reaches the destination by and by."""
        before = len(self.got)
        delivery = pipeline.delivery()
        assert delivery.flush(20)
        delivery.stop()
        return self.got[before:]

    def setup(self) -> Setup:
        """What the plugin is told when it is configured."""
        user = Situation.read({"CMDORC_HOME": str(self.home.root)}).user
        return Setup(name="anonymizer", settings=user.settings["anonymizer"], where=user.source,
                     folder=self.home.plugins / "anonymizer", specs=(PROBE, load_spec(CORE)))  # fmt: skip

    def show_payload(self) -> subprocess.CompletedProcess[bytes]:
        """What a user sees of the newest run."""
        environ = {**os.environ, "CMDORC_HOME": str(self.home.root), "CI": ""}
        environ.pop("DO_NOT_TRACK", None)
        command = [sys.executable, "-m", "cmdorc_telemetry", "show-payload", "command_completed"]
        return subprocess.run(command, env=environ, capture_output=True, check=True, timeout=50)

    def counted(self) -> list[int]:
        """How many events each value is known of."""
        with closing(sqlite3.connect(self.home.plugins / "anonymizer" / "seen.db")) as db:
            return sorted(length // 8 for (length,) in db.execute("SELECT length(events) FROM seen"))

    def ledger(self) -> Ledger:
        """Of the destination."""
        with closing(self.pipeline().open_spool()) as spool:
            return spool.ledger()["keeping"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 03:14:15 for whoever records."""
    monkeypatch.setattr(clock, "wall", lambda: NOW)


@pytest.mark.usefixtures("still")
def test_named_in_the_configuration_and_done(machine: Machine) -> None:
    machine.configure()
    (got,) = machine.shared({"size": 3})
    assert machine.host.failures == {}
    assert got["python_version"] == "3.12"
    assert got["timestamp"] == "2026-11-22T03:00:00Z"
    hour = datetime(2026, 11, 22, 3, tzinfo=timezone.utc).timestamp()
    assert int(got["event_id"].replace("-", "")[:12], 16) == hour * 1000
    assert got["event_id"][14] == "7"
    assert got["size"] == 3
    assert not machine.home.plugins.exists() or not list(machine.home.plugins.glob("*/seen.db"))


@pytest.mark.usefixtures("still")
def test_nothing_of_a_value_is_left(machine: Machine) -> None:
    machine.configure(RULES)
    (got,) = machine.shared(VALUES)
    assert machine.host.failures == {}
    (body,) = machine.raw
    identity = ensure_identity(machine.home).install_id
    rest = body.replace(identity.encode(), b"")
    for value in ("48151623", "108.4", "enterprise", "badc0ffee", "c0ffee00", "4321-8765", "4815", "7.31.4",
                  "2019-08-07", "06:05", "canary", "3.12.4", "03:14", ":15Z"):  # fmt: skip
        assert value.encode() not in rest, value
    assert f"{int(NOW * 1000):012x}"[-8:] not in got["event_id"].replace("-", "")
    key = (machine.home.plugins / "anonymizer" / "key").read_bytes()
    assert key not in body
    assert got["size"] == 1_000_000
    assert got["share"] == 100
    assert got["plan"] == "other"
    assert HEX.fullmatch(got["branch"])
    assert [bool(HEX.fullmatch(each)) for each in got["branches"]] == [True, True]
    assert HEX.fullmatch(got["word"])
    assert got["tool"] == "7.31"
    assert got["built"] == "2019-08-01T00:00:00Z"
    assert got["flag"] is True
    assert "gone" not in got


@pytest.mark.usefixtures("still")
def test_events_stay_apart_and_come_in_any_number(machine: Machine) -> None:
    machine.configure(RULES)
    got = machine.shared(*[VALUES] * 200)
    assert len({each["event_id"] for each in got}) == 200
    assert len({each["branch"] for each in got}) == 1


def test_the_private_body_keeps_every_detail(machine: Machine) -> None:
    machine.configure(RULES)
    machine.record(VALUES)
    pipeline = machine.pipeline()
    spool = pipeline.open_spool()
    try:
        assert pipeline.pump(spool)
        lease = spool.lease("history", clock.wall())
        assert lease is not None
        (item,) = lease.items
    finally:
        spool.close()
    assert json.loads(item.row.private).items() >= VALUES.items()
    assert item.row.withheld == {"gone": "anonymizer"}


def test_rare_values_leave_when_they_are_no_longer_rare(machine: Machine) -> None:
    machine.configure(
        '[telemetry.settings.anonymizer.events.probed]\nplan = { rare = 3 }\nbranch = { hash = true, rare = 3 }\n'
        "branches = { rare = 2 }\n"
    )  # fmt: skip
    pro = {"plan": "pro", "branch": "badc0ffee0dd", "branches": ["badc0ffee0dd", "badc0ffee0de"]}
    got = machine.shared(pro, pro)
    assert [each["plan"] for each in got] == ["other", "other"]
    assert not any("branch" in each for each in got)
    assert ["branches" in each for each in got] == [False, True]
    got = machine.shared(pro, {"plan": "free", "branches": ["badc0ffee0dd", "badc0ffee0df"]}, {"plan": "enterprise"})
    assert [each["plan"] for each in got] == ["pro", "other", "other"]
    assert got[0]["branch"] not in ("badc0ffee0dd", None)
    assert got[1]["branches"] == ["badc0ffee0dd"]
    assert "branches" not in got[2]


def test_a_new_install_id_has_other_hashes_and_counts_anew(machine: Machine) -> None:
    machine.configure("[telemetry.settings.anonymizer.events.probed]\nword = { hash = true }\nplan = { rare = 2 }\n")
    before = machine.shared({"word": "main", "plan": "pro"}, {"word": "main", "plan": "pro"})
    assert [each["plan"] for each in before] == ["other", "pro"]
    another_identity(machine.home)
    (after,) = machine.shared({"word": "main", "plan": "pro"})
    assert after["anonymous_install_id"] != before[0]["anonymous_install_id"]
    assert after["word"] != before[0]["word"] == before[1]["word"]
    assert after["plan"] == "other"


def test_rules_that_cannot_be_keep_everything_here_until_they_are_corrected(machine: Machine) -> None:
    machine.configure("[telemetry.settings.anonymizer.events.probed]\nflagg = { remove = true }\n")
    assert machine.shared({"flag": True}) == []
    failure = machine.host.failures["anonymizer"]
    assert failure.startswith(
        f"cannot be configured: {machine.home.config}: telemetry.settings.anonymizer.events.probed.flagg: is no "
        "property of probed; expected one that a spec declares. Did you mean 'flag'?"
    )
    assert failure.endswith("(correct its settings)")
    assert "anonymizer" in machine.host.unloaded
    machine.configure("[telemetry.settings.anonymizer.events.probed]\nflag = { remove = true }\n")
    (got,) = machine.shared({"flag": True, "size": 1})
    assert "flag" not in got


def test_without_its_key_nothing_is_shared(machine: Machine) -> None:
    machine.configure(RULES)
    machine.home.telemetry.mkdir(exist_ok=True)
    machine.home.plugins.write_bytes(b"in the way")
    assert machine.shared(VALUES) == []
    assert machine.host.failures["anonymizer"].startswith("raised StorageError: ")


def test_opt_out_takes_the_key_and_the_counts(machine: Machine) -> None:
    machine.configure(RULES + "flag = { rare = 2 }\n")
    machine.shared(VALUES)
    folder = machine.home.plugins / "anonymizer"
    assert {path.name for path in folder.iterdir()} == {"key", "key.lock", "seen.db"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    _, faults = delete(machine.home, [])
    assert faults == []
    assert not machine.home.plugins.exists()


def test_looking_makes_no_files(machine: Machine) -> None:
    machine.configure(RULES)
    machine.pipeline()
    assert machine.host.failures == {}
    assert not machine.home.plugins.exists()


def test_each_host_has_an_anonymizer_of_its_own(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other")
    machine.configure("[telemetry.settings.anonymizer.events.probed]\nsize = { remove = true }\n")
    other.configure("[telemetry.settings.anonymizer.events.probed]\nflag = { remove = true }\n")
    machine.record({"size": 1, "flag": True})
    first = machine.pipeline()
    (second,) = other.shared({"size": 1, "flag": True})
    assert "flag" not in second
    delivery = first.delivery()
    assert delivery.flush(20)
    delivery.stop()
    (got,) = machine.got
    assert "flag" in got
    assert "size" not in got


def test_at_a_level_that_shares_less_there_is_less_to_do(machine: Machine) -> None:
    machine.configure(RULES)
    destinations = identities(load_layer(machine.home.config).destinations)
    grant = new_grant(PROBE, TelemetryLevel.MINIMAL, GRANTED)
    save_decision(machine.home, {"probe": grant}, destinations)
    (got,) = machine.shared(VALUES)
    assert got.keys() & PROBE.events[0].properties.keys() == {"flag"}
    assert machine.host.failures == {}


# -- an event that comes again, and is looked at -----------------------------------------------------------------------


@pytest.mark.usefixtures("still")
def test_what_is_imported_again_is_known_by_its_id(machine: Machine) -> None:
    """The spool is lost after the import, and the journal comes back: who got the events knows each by its id."""
    machine.configure(RULES + "flag = { rare = 2 }\n")
    machine.record(*[VALUES] * 3)
    kept = machine.home.root.parent / "journal"
    shutil.copytree(machine.home.journal, kept)
    first = machine.flush(machine.pipeline())
    counted = machine.counted()
    for path in machine.home.spool.parent.glob(f"{machine.home.spool.name}*"):
        path.unlink()
    shutil.rmtree(machine.home.journal)
    shutil.copytree(kept, machine.home.journal)
    machine.home.journal.chmod(0o700)
    machine.pipeline().open_spool().close()  # a destination that is new begins at the end of the spool
    again = machine.flush(machine.pipeline())
    assert len(first) == 3
    assert [each["event_id"] for each in again] == [each["event_id"] for each in first]
    assert [each["flag"] for each in first[1:]] == [True, True]
    assert "flag" not in first[0]
    assert again == [{**first[0], "flag": True}, *first[1:]], "three events had the value: it is no longer rare"
    assert machine.counted() == counted, "each event counts once"


def test_an_event_whose_acknowledgement_is_lost_comes_again_as_it_was(machine: Machine) -> None:
    machine.configure(RULES)
    machine.record(VALUES, VALUES)
    lost = [True]

    class Losing:
        @hookimpl
        def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
            class Keeping(NoopReporter):
                name = "keeping"

                async def report_batch(self, batch: Batch) -> BatchResult | None:
                    machine.raw += [event.body for event in batch.events]
                    if lost:
                        lost.clear()
                        raise ConnectionError("the answer was lost")
                    ids = [event.event_id for event in batch.events]
                    return BatchResult(results=tuple(EventResult(each, "duplicate") for each in ids))

            return [Keeping]

    machine.telemetry_reporters = Losing().telemetry_reporters  # type: ignore[method-assign]
    machine.flush(machine.pipeline())
    assert lost == []
    assert machine.raw[:2] == machine.raw[2:]
    ledger = machine.ledger()
    assert (ledger.recorded, ledger.acknowledged, ledger.pending) == (2, 2, 0)


def test_what_show_payload_prints_is_what_leaves_and_looking_counts_nothing(machine: Machine) -> None:
    machine.configure("[telemetry.settings.anonymizer.events.command_completed]\nduration_ms = { rare = 3 }\n")
    run = {"duration_ms": 1234, "state": "success", "final": True, "manual": False}
    for number in range(1, 4):
        machine.record(run, event="command_completed")
        printed = {machine.show_payload().stdout for _ in range(3)}
        assert machine.counted() == [number], "three looks and an import"
        machine.flush(machine.pipeline())
        assert printed == {machine.raw[-1]}
        assert (b"1234" in machine.raw[-1]) == (number == 3)


@pytest.mark.usefixtures("still")
def test_a_sample_is_made_coarser_and_nothing_is_remembered_of_it(machine: Machine) -> None:
    """Of nobody, with ids of zeros: it needs no key, makes no file, and counts stay as they are."""
    machine.configure(RULES + "flag = { rare = 2 }\n")
    folder = machine.home.plugins / "anonymizer"
    zeros = "00000000-0000-0000-0000-000000000000"
    setup = machine.setup()
    narrowing = Narrowing(setup.read(Settings), setup)
    fields = {**VALUES, "anonymous_install_id": zeros, "event_id": zeros, "timestamp": "2026-11-22T03:14:15Z"}
    sample = Shared(spec="probe@1", name="probed", fields=fields)
    shown = narrowing(sample)
    assert shown.items() >= {"size": 1_000_000, "timestamp": "2026-11-22T03:00:00Z", "flag": None}.items()
    assert HEX.fullmatch(shown["branch"])
    assert "event_id" not in shown
    assert not folder.exists()
    machine.shared(VALUES, VALUES)
    counted = machine.counted()
    assert narrowing(sample) == shown
    assert machine.counted() == counted == [2]


# -- beside others -----------------------------------------------------------------------------------------------------


class Another:
    """An anonymizer that another plugin has; what it saw."""

    def __init__(self, answer: Mapping[str, Any] | Exception) -> None:
        self.answer, self.saw = answer, dict[str, Any]()

    @hookimpl
    def telemetry_anonymize(self, event: Shared) -> Mapping[str, Any]:
        self.saw = dict(event.fields)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.usefixtures("still")
def test_another_anonymizer_sees_what_this_one_left(machine: Machine) -> None:
    machine.configure(RULES)
    machine.record(VALUES)
    another = Another({"size": None, "share": 108.0})
    (got,) = machine.flush(machine.pipeline(another))
    assert another.saw["timestamp"] == "2026-11-22T03:00:00Z"
    assert another.saw["size"] == 1_000_000
    assert "size" not in got
    assert got["share"] == 108.0


def test_where_one_of_them_fails_nothing_is_shared_and_the_event_is_still_counted_once(machine: Machine) -> None:
    machine.configure("[telemetry.settings.anonymizer.events.probed]\nplan = { rare = 2 }\n")
    machine.record({"plan": "pro", "size": 1})
    pipeline = machine.pipeline(another := Another(ValueError("odd")))
    assert machine.flush(pipeline) == []
    assert another.saw["plan"] == "other"
    with closing(machine.pipeline().open_spool()) as spool:
        assert spool.withheld() == {"anonymizer:Another": 1}
    assert machine.counted() == [1]


@pytest.mark.usefixtures("still")
def test_the_id_follows_a_timestamp_that_another_one_made_coarser(machine: Machine) -> None:
    """Whose author forgot the time in the id: what comes out of this plugin tells no more than the timestamp does."""
    machine.configure()
    narrowing = Narrowing(Settings(), Setup(name="anonymizer", folder=machine.home.plugins / "x", specs=(PROBE,)))
    id_of_its_second = f"{int(NOW * 1000):012x}"
    fields = {"anonymous_install_id": "6f1c2a9e-0000-4000-8000-000000000001", "timestamp": "2026-11-22T00:00:00Z",
              "event_id": f"{id_of_its_second[:8]}-{id_of_its_second[8:]}-7abc-8def-0123456789ab"}  # fmt: skip
    changed = narrowing(Shared(spec="probe@1", name="probed", fields=fields))
    day = int(datetime(2026, 11, 22, tzinfo=timezone.utc).timestamp()) * 1000
    assert changed.keys() == {"event_id"}
    assert changed["event_id"].replace("-", "") == f"{day:012x}7abc8def0123456789ab"


def test_destinations_of_the_users_own_get_what_happened_and_others_what_is_left(machine: Machine) -> None:
    machine.configure('[telemetry.to.mine]\nplugin = "keeping"\naudience = "private"\n' + RULES)
    got = machine.shared(VALUES, VALUES)
    mine, others = [each for each in got if "level" not in each], [each for each in got if "level" in each]
    assert [each["size"] for each in mine] == [VALUES["size"]] * 2
    assert [each["size"] for each in others] == [1_000_000] * 2
    assert {each["event_id"] for each in mine}.isdisjoint(each["event_id"] for each in others)


def test_while_others_count_rare_values_are_left_out_and_nobody_is_given_up(machine: Machine) -> None:
    """However many rules there are, an event waits once: the gate gives up who takes a second."""
    rules = "".join(f"{name} = {{ rare = 2 }}\n" for name in ("size", "plan", "branch", "who", "tool", "branches"))
    machine.configure(f"[telemetry.settings.anonymizer.events.probed]\n{rules}")
    machine.shared(VALUES)
    with closing(sqlite3.connect(machine.home.plugins / "anonymizer" / "seen.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        (got,) = machine.shared(VALUES)
    assert machine.host.failures == {}
    assert got["flag"] is True
    assert got["plan"] == "other"
    assert not got.keys() & {"size", "branch", "who", "tool", "branches"}


def test_events_of_two_specs_that_have_one_name_are_counted_apart(tmp_path: Path) -> None:
    other = msgspec.structs.replace(PROBE, meta=Meta(name="other"))
    rules = Settings(events={"probed": {"plan": Rule(rare=2)}})
    narrowing = Narrowing(rules, Setup(name="anonymizer", folder=tmp_path / "x", specs=(PROBE, other)))

    def plan(spec: str) -> str:
        fields = {"anonymous_install_id": "6f1c2a9e-0000-4000-8000-000000000001", "event_id": str(uuid.uuid4()),
                  "timestamp": "2026-11-22T03:00:00Z", "plan": "pro"}  # fmt: skip
        return str(narrowing(Shared(spec=spec, name="probed", fields=fields)).get("plan", "pro"))

    assert [plan(spec) for spec in ("probe@1", "other@1", "probe@1", "other@1")] == ["other", "other", "pro", "pro"]
