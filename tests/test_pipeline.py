"""What the pipeline decides and moves: whose events go where, at which level, from which files, and what waits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import Struct

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel, clock, hookimpl
from cmdorc_telemetry.capture import Capture, completed_properties, machine_fields
from cmdorc_telemetry.config import DestinationConfig, load_layer
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.destinations import make_reporter
from cmdorc_telemetry.errors import ConfigError, ConsentError, PluginError
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import NoopReporter
from cmdorc_telemetry.segment import Orphan, Segment, read_live
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import CORE, load_spec
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics, TelemetrySpec
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult, Leased, Row, View

from .agreement import agree

LEVEL = TelemetryLevel
SPEC = load_spec(CORE)
REF = SPEC.ref
NOW = datetime.now(timezone.utc)
FAR = '[telemetry]\n[telemetry.to.far]\nplugin = "plain"\n'


class Plain(NoopReporter):
    """Needs no settings."""


class Needy(NoopReporter):
    """Needs a setting."""

    class Settings(Struct):
        port: int


def spec_of(name: str, *events: str) -> TelemetrySpec:
    count = Property(type="count", required=True, level="minimal")
    each = (Event(name=event, semantics=Semantics(what="w"), properties={"n": count}) for event in events)
    return TelemetrySpec(meta=Meta(name=name), events=tuple(each))


def plugin(**answers: Any) -> ModuleType:
    """A plugin whose hooks return these values."""
    made = ModuleType("made")
    for hook, answer in answers.items():
        namespace: dict[str, Any] = {"answer": answer}
        exec(f"def {hook}(): return answer", namespace)  # pluggy looks at the arguments
        setattr(made, hook, hookimpl(namespace[hook]))
    return made


def carriers(**classes: type[NoopReporter]) -> ModuleType:
    return plugin(telemetry_reporters=[type(name, (class_,), {"name": name}) for name, class_ in classes.items()])


class Machine:
    """A home directory, and pipelines of it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.environ: dict[str, str] = {"CMDORC_HOME": str(root)}
        self.serial = 0
        self._spools: list[Spool] = []

    def write(self, text: str) -> None:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(text)

    def agree(self, level: LEVEL = LEVEL.STANDARD, *, spec: TelemetrySpec = SPEC) -> None:
        agree(self.home, level, spec=spec)

    def destinations(self) -> tuple[DestinationConfig, ...]:
        return load_layer(self.home.config).destinations

    def pipeline(
        self, *plugins: object, enabled: tuple[str, ...] = (), config: TelemetryConfig | None = None
    ) -> Pipeline:
        situation = Situation.read(self.environ, config=config)
        return Pipeline(situation, PluginHost(enabled, plugins, known=()))

    def far(self, *plugins: object) -> Pipeline:
        """One that somebody agreed to, with ``plugins`` and one shared destination, far."""
        self.write(FAR)
        self.agree()
        return self.pipeline(*plugins, carriers(plain=Plain))

    def imported(self, pipeline: Pipeline) -> Spool:
        """Its spool, with one event."""
        spool = self.open(pipeline)
        self.orphan(pipeline)
        pipeline.pump(spool)
        return spool

    def open(self, pipeline: Pipeline) -> Spool:
        self._spools.append(pipeline.open_spool())
        return self._spools[-1]

    def journal(self, pipeline: Pipeline) -> Journal:
        return Journal(self.home.journal, pipeline.situation.policy().stamp)

    def record(self, name: str = "secret") -> bytes:
        """A run whose duration in milliseconds says which one it is."""
        self.serial += 1
        run = CompletedRun(run_id="r", command_name=name, state="success", duration=self.serial / 1000)
        constants = {**machine_fields(), "anonymous_install_id": ensure_identity(self.home).install_id}
        return Capture([SPEC], constants).record("command_completed", completed_properties(run, None))

    def orphan(self, pipeline: Pipeline, count: int = 1) -> Path:
        """A segment of a process that is gone."""
        journal = self.journal(pipeline)
        for _ in range(count):
            assert journal.append(self.record())
        assert journal.path is not None
        path = journal.path
        journal.close()
        return path

    def close(self) -> None:
        for spool in self._spools:
            spool.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "cmdorc_telemetry")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def segments(machine: Machine) -> list[str]:
    return sorted(path.name for path in machine.home.journal.glob("*.seg"))


def pending(spool: Spool, name: str = "history") -> int:
    return spool.ledger()[name].pending


def send(pipeline: Pipeline, spool: Spool, name: str) -> list[Any]:
    """What a destination would get of all that waits for it: None where it gets nothing."""
    (route,) = [route for route in pipeline.routes() if route.name == name]
    lease = spool.lease(name, clock.wall())
    bodies = [route.body(item) for item in lease.items] if lease else []
    return [None if body is None else json.loads(body) for body in bodies]


# -- what there is -----------------------------------------------------------------------------------------------------


def test_specs_of_plugins_are_in_force_and_a_clashing_one_is_reported(
    machine: Machine, warnings: Callable[[], list[str]]
) -> None:
    good, clashing = spec_of("app.good", "thing_done"), spec_of("app.bad", "command_completed")
    good_plugin, bad_plugin = plugin(telemetry_specs=[good]), plugin(telemetry_specs=[clashing])
    good_plugin.__name__, bad_plugin.__name__ = "good", "bad"
    pipeline = machine.pipeline(good_plugin, bad_plugin)
    assert [spec.ref for spec in pipeline.registry] == [REF, "app.good@1"]
    assert pipeline.shapes.event("app.good@1", "thing_done") is not None
    assert list(pipeline.host.failures) == ["bad"]
    (warning,) = warnings()
    assert "'command_completed' is declared already, by cmdorc" in warning


def test_a_listed_reporter_without_settings_is_a_destination_of_its_own_name(machine: Machine) -> None:
    machine.write('[telemetry]\nplugins = ["plain", "needy", "served"]\n[telemetry.to.mine]\nplugin = "served"\n')
    machine.agree()
    pipeline = machine.pipeline(carriers(plain=Plain, needy=Needy, served=Plain, unlisted=Plain))
    assert [(to.name, to.plugin) for to in pipeline.configured] == [("mine", "served"), ("plain", "plain")]
    assert pipeline.configured[1].where == str(machine.home.config)


def test_what_to_do_about_a_reporter_that_is_not_there(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "pigeon_dist-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-dist\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cmdorc_telemetry]\npigeon = pigeon\n")
    monkeypatch.syspath_prepend(info.parent)
    machine.write('[telemetry]\n[telemetry.to.roof]\nplugin = "pigeon"\n[telemetry.to.sea]\nplugin = "bottle"\n'
                  '[telemetry.to.here]\nplugin = "plain"\n')  # fmt: skip
    assert machine.pipeline(carriers(plain=Plain)).missing() == {
        "roof": f'add "pigeon" to plugins in {machine.home.config}',
        "sea": f"correct telemetry.to.sea.plugin in {machine.home.config}: did you mean 'otlp'?",
    }
    machine.write("")
    assert machine.pipeline().missing() == {}


def test_what_is_missing_may_have_been_an_anonymizer_and_blocks_everything_shared(machine: Machine) -> None:
    machine.write('[telemetry]\nplugins = ["plain", "bottle", "mask"]\n[telemetry.to.sea]\nplugin = "bottle"\n')
    machine.agree()
    harmless = machine.pipeline(carriers(plain=Plain), enabled=("bottle",))
    assert harmless.blocked() is None
    pipeline = machine.pipeline(carriers(plain=Plain), enabled=("bottle", "mask"))
    assert pipeline.blocked() == "plugin 'mask' could not be loaded, and may be an anonymizer"
    spool = machine.open(pipeline)
    machine.orphan(pipeline)
    assert pipeline.pump(spool)
    assert (pending(spool), pending(spool, "sea"), spool.withheld()) == (1, 0, {"plugin-not-loaded": 1})
    machine.orphan(harmless)
    assert harmless.pump(spool)
    assert (pending(spool), pending(spool, "sea")) == (2, 1)


def test_an_anonymizer_has_its_say(machine: Machine) -> None:
    class Mask:
        @hookimpl
        def telemetry_anonymize(self, event: object) -> Mapping[str, Any]:
            return {"os": None}

    pipeline = machine.far(Mask())
    spool = machine.imported(pipeline)
    (body,) = send(pipeline, spool, "far")
    assert "os" not in body
    assert "arch" in body
    for anonymizer in pipeline.anonymizers:
        anonymizer.close()


def test_an_anonymizer_that_adds_something_is_named(machine: Machine) -> None:
    class Adding:
        @hookimpl
        def telemetry_anonymize(self, event: object) -> Mapping[str, Any]:
            return {"os": None, "secret": 1}

    pipeline = machine.far(Adding())
    spool = machine.imported(pipeline)
    assert pipeline.host.failures["Adding"].startswith("returned 'secret', which is not its to set: that is ignored")
    assert stored(spool).withheld == {"os": "Adding"}
    assert pipeline.anonymizers[0].name == "Adding"
    pipeline.anonymizers[0].close()


# -- the decision ------------------------------------------------------------------------------------------------------


def test_what_waits_goes_on_waiting_while_the_decision_cannot_be_read(machine: Machine) -> None:
    pipeline = machine.far()
    spool = machine.open(pipeline)
    machine.orphan(pipeline)
    assert pipeline.pump(spool)
    pipeline.ask()
    text = machine.home.consent.read_text()
    machine.home.consent.write_text("half a deci")
    before, row = spool.ledger(), stored(spool)
    machine.home.journal.joinpath("later.seg").touch()
    assert pipeline.pump(spool)  # which may pass
    with pytest.raises(ConsentError, match="cannot be used"):
        pipeline.ask()
    assert (spool.ledger(), stored(spool)) == (before, row)
    assert segments(machine) == ["later.seg"]
    machine.home.consent.write_text(text)
    pipeline.ask()
    assert len(send(pipeline, spool, "far")) == 1


def test_nothing_is_sent_while_nobody_can_tell_which_id_was_given_up(machine: Machine) -> None:
    pipeline = machine.far()
    spool = machine.open(pipeline)
    machine.orphan(pipeline)
    assert pipeline.pump(spool)
    machine.home.install_id.unlink()
    machine.home.salt.unlink()
    machine.home.erasure.write_text("half an entr")
    later = machine.far()
    with pytest.raises(ConsentError, match=r"erasure\.toml cannot be used"):
        later.ask()
    machine.home.erasure.unlink()
    later.ask()
    assert len(send(later, spool, "far")) == 1


def test_a_destination_that_was_never_shown_gets_nothing(machine: Machine) -> None:
    machine.write('[telemetry]\n[telemetry.to.shown]\nplugin = "plain"\n')
    machine.agree()
    machine.write('[telemetry]\n[telemetry.to.shown]\nplugin = "plain"\n[telemetry.to.new]\nplugin = "plain"\n'
                  '[telemetry.to.mine]\nplugin = "plain"\naudience = "private"\n')  # fmt: skip
    pipeline = machine.pipeline(carriers(plain=Plain))
    assert [to.name for to in pipeline.waiting] == ["new"]
    assert [view.name for view in pipeline.views()] == ["history", "shown", "mine"]
    assert [route.name for route in pipeline.routes()] == ["history", "shown", "mine"]
    spool = machine.imported(pipeline)
    assert set(spool.ledger()) == {"history", "shown", "mine"}
    (new,) = pipeline.waiting
    assert pipeline.body_for(new, stored(spool)) is None


def test_what_waits_for_a_destination_goes_with_its_consent(machine: Machine) -> None:
    pipeline = machine.far()
    machine.orphan(pipeline)
    pipeline.pump(machine.open(pipeline))
    save_decision(machine.home, {"cmdorc.core": new_grant(SPEC, LEVEL.STANDARD, NOW)}, {})
    ledger = machine.open(machine.pipeline(carriers(plain=Plain))).ledger()["far"]
    assert (ledger.removed, dict(ledger.dropped)) == (True, {"withdrawn-consent": 1})


def stored(spool: Spool) -> Row:
    row = spool.newest()
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("then", "cap", "now", "level"),
    [
        ("standard", "standard", "standard", "standard"),
        ("minimal", "debug", "standard", "minimal"),  # the decision that it was recorded under
        ("standard", "minimal", "standard", "minimal"),  # its program's
        ("standard", "standard", "minimal", "minimal"),  # today's
        ("standard", "off", "standard", None),
        ("off", "standard", "standard", None),
        ("standard", "standard", "off", None),
        ("standard", "nonsense", "standard", None),
        ("standard", "", "standard", None),
    ],
)
def test_a_level_is_the_least_of_then_its_programs_and_now(
    machine: Machine, then: str, cap: str, now: str, level: str | None
) -> None:
    machine.agree(LEVEL(then))
    generation = machine.pipeline().policy.generation
    machine.agree(LEVEL(now))
    pipeline = machine.pipeline()
    assert pipeline.level_of(f"{generation}/{cap}", "cmdorc.core") == level
    assert pipeline.level_of(f"{generation}/{cap}", "cmdorc.core") == level  # as remembered


def test_what_was_recorded_under_no_known_decision_or_for_another_spec_is_not_shared(machine: Machine) -> None:
    machine.agree()
    pipeline = machine.pipeline()
    generation = pipeline.policy.generation
    assert pipeline.level_of("stranger/standard", "cmdorc.core") is None
    assert pipeline.level_of(generation, "cmdorc.core") is None
    assert pipeline.level_of(f"{generation}/standard", "app.other") is None
    machine.agree(LEVEL.MINIMAL, spec=spec_of("app.other", "x"))
    pipeline.refresh()
    assert pipeline.level_of(f"{pipeline.policy.generation}/standard", "app.other") == "minimal"
    assert pipeline.level_of(f"{pipeline.policy.generation}/standard", "cmdorc.core") == "standard"


def test_an_operators_decision_holds_for_what_was_recorded_under_it(machine: Machine) -> None:
    machine.environ["CMDORC_TELEMETRY"] = "minimal"
    pipeline = machine.pipeline()
    assert pipeline.policy.generation == "operator-minimal"
    assert pipeline.level_of("operator-minimal/standard", "cmdorc.core") == "minimal"
    assert pipeline.level_of("operator-standard/standard", "cmdorc.core") is None
    assert pipeline.level_of("operator-minimal/standard", "app.other") is None


def test_a_decision_written_meanwhile_is_read_again(machine: Machine) -> None:
    machine.write(FAR)
    machine.agree()
    config = TelemetryConfig(enabled=True, level=LEVEL.MINIMAL)
    pipeline = machine.pipeline(carriers(plain=Plain), config=config)
    old = f"{pipeline.policy.generation}/standard"
    assert pipeline.level_of(old, "cmdorc.core") == "standard"  # what caps this program alone is in the stamp
    assert pipeline.refresh()  # whatever was decided while it was put together
    assert not pipeline.refresh()
    machine.agree(LEVEL.MINIMAL)
    assert pipeline.refresh()
    assert pipeline.level_of(old, "cmdorc.core") == "minimal"
    save_decision(machine.home, {"cmdorc.core": Grant()})
    assert pipeline.refresh()
    assert (pipeline.policy.record, pipeline.allowed, pipeline.routes()[0].body(leased())) == (False, [], None)
    machine.home.consent.unlink()
    assert pipeline.refresh()
    assert not pipeline.refresh()
    assert pipeline.situation.argument is not None  # what the program asked for still holds


def leased() -> Leased:
    row = Row(
        spec=REF, event="command_completed", version=1, at=0, generation="g", source="s", private=b"{}", shared=None
    )
    return Leased(1, row)


def test_a_consent_to_debug_ends_by_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.agree(LEVEL.DEBUG)
    pipeline = machine.pipeline()
    assert pipeline.refresh()  # whatever was decided while it was put together
    stamped = f"{pipeline.policy.generation}/debug"
    assert pipeline.level_of(stamped, "cmdorc.core") == "debug"
    after = (NOW + timedelta(days=31)).timestamp()
    monkeypatch.setattr(clock, "wall", lambda: after)
    assert not pipeline.refresh()
    assert pipeline.level_of(stamped, "cmdorc.core") == "standard"


# -- import ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(machine: Machine) -> tuple[Pipeline, Spool]:
    """A pipeline with one shared destination, and its spool."""
    pipeline = machine.far()
    return pipeline, machine.open(pipeline)


Ready = tuple[Pipeline, Spool]


def test_what_processes_that_are_gone_left_is_imported_once(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    path = machine.orphan(pipeline, 3)
    data = path.read_bytes()
    assert pipeline.pump(spool)
    assert spool.offset(path.name) is None
    assert segments(machine) == []
    path.write_bytes(data)  # a copy comes back, as from a backup
    assert pipeline.pump(spool)
    assert segments(machine) == []
    assert pending(spool) == pending(spool, "far") == 3


def test_a_file_that_is_no_segment_is_set_aside(
    machine: Machine, ready: Ready, warnings: Callable[[], list[str]]
) -> None:
    pipeline, spool = ready
    machine.orphan(pipeline)
    foreign = machine.home.journal / "a.seg"
    foreign.write_bytes(b"not ours")
    assert pipeline.pump(spool)
    assert pipeline.pump(spool)
    assert [path.name for path in machine.home.journal.iterdir()] == ["a.corrupt"]
    assert pending(spool) == 1
    assert [ledger.dropped for ledger in spool.ledger().values()] == [{"corrupt": 1}] * 2, "at least one event"
    (warning,) = warnings()
    assert warning.startswith("a.seg is no journal segment")
    assert warning.endswith("it was set aside")


def test_one_file_that_cannot_be_read_does_not_stop_the_others(
    machine: Machine, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, spool = ready
    bad, good = sorted([machine.orphan(pipeline), machine.orphan(pipeline)])
    read = Orphan.read

    def failing(orphan: Orphan, offset: int) -> Segment:
        if orphan.path == bad:
            raise OSError(5, "Input/output error")
        return read(orphan, offset)

    with monkeypatch.context() as patch:
        patch.setattr(Orphan, "read", failing)
        assert pipeline.pump(spool)
    assert segments(machine) == [bad.name]
    assert pending(spool) == 1
    assert pipeline.pump(spool)
    assert (segments(machine), pending(spool)) == ([], 2)
    assert not good.exists()


def test_a_file_that_somebody_deletes_meanwhile_is_not_imported(
    machine: Machine, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, spool = ready
    machine.orphan(pipeline)
    read = Orphan.read

    def deleted(orphan: Orphan, offset: int) -> Segment:
        segment = read(orphan, offset)
        orphan.path.unlink()
        return segment

    monkeypatch.setattr(Orphan, "read", deleted)
    assert pipeline.pump(spool)
    assert pending(spool) == 0
    assert spool.oldest() is None


def test_the_own_segment_is_imported_as_it_grows(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    own = machine.journal(pipeline)
    assert pipeline.pump(spool, own)  # nothing is there yet
    found = []
    for _ in range(3):
        own.append(machine.record())
        assert pipeline.pump(spool, own)
        assert pipeline.pump(spool, own)
        found.append(pending(spool))
    assert found == [1, 2, 3]
    assert own.path is not None
    assert own.path.exists()
    own.close()
    pipeline.pump(spool)
    assert (pending(spool), segments(machine)) == (3, [])


def test_losses_of_the_own_segment_are_counted_without_an_event(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    own = machine.journal(pipeline)
    own.append(machine.record())
    pipeline.pump(spool, own)
    own._count("storage-failed")  # what it does where the disk is full
    pipeline.pump(spool, own)
    pipeline.pump(spool, own)
    assert spool.drops("history") == {"storage-failed": 1}
    own.close()


def test_the_own_segment_deleted_or_overwritten_by_hand(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    own = machine.journal(pipeline)
    for harm in (Path.unlink, lambda path: path.write_bytes(b"not ours")):
        own.append(machine.record())
        assert own.path is not None
        old = own.path
        harm(old)
        assert pipeline.pump(spool, own)
        assert own.path not in (None, old)
        own.append(machine.record())
        assert pipeline.pump(spool, own)
    assert pending(spool) == 2
    own.close()


def test_a_new_decision_begins_a_new_segment(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    own = machine.journal(pipeline)
    own.append(machine.record())
    first = own.path
    machine.agree(LEVEL.MINIMAL)
    assert pipeline.pump(spool, own)
    own.append(machine.record())
    assert own.path != first
    assert pipeline.pump(spool, own)
    assert pipeline.pump(spool, own)
    bodies = send(pipeline, spool, "far")
    assert [body["level"] for body in bodies] == ["minimal", "minimal"]
    assert stored(spool).generation == pipeline.policy.stamp
    own.close()


def test_the_first_segment_of_a_process_is_of_the_decision_of_now(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    own = machine.journal(pipeline)
    machine.agree(LEVEL.MINIMAL)
    assert pipeline.pump(spool, own)
    assert own.append(machine.record())
    assert own.path is not None
    assert read_live(own.path, 0).generation == pipeline.policy.stamp
    own.close()


def test_what_was_gated_under_a_decision_that_is_no_more_is_gated_again(
    machine: Machine, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    pipeline, spool = ready
    machine.orphan(pipeline)
    gated = Gate.gate

    def meanwhile(*given: Any) -> Any:
        found = gated(*given)
        machine.agree(LEVEL.MINIMAL)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Gate, "gate", meanwhile)
        pipeline.pump(spool)
    assert spool.newest() is None
    pipeline.pump(spool)
    assert json.loads(stored(spool).shared or b"")["level"] == "minimal"


def test_a_field_without_consent_is_not_shared(machine: Machine) -> None:
    machine.write(FAR)
    grant = new_grant(SPEC, LEVEL.STANDARD, NOW)
    fields = {name: text for name, text in grant.fields.items() if name != "command_completed/chain_depth"}
    save_decision(machine.home, {"cmdorc.core": grant._replace(fields=fields)}, identities(machine.destinations()))
    pipeline = machine.pipeline(carriers(plain=Plain))
    spool = machine.imported(pipeline)
    (body,) = send(pipeline, spool, "far")
    assert "chain_depth" not in body
    assert "concurrent_runs" in body
    machine.orphan(pipeline)  # recorded before the yes, and imported after it
    machine.agree()
    pipeline.refresh()
    machine.orphan(pipeline)
    pipeline.pump(spool)
    bodies = send(pipeline, spool, "far")
    assert sorted("chain_depth" in body for body in bodies) == [False, False, True]
    assert all("concurrent_runs" in body for body in bodies)


def test_a_destination_gets_nothing_that_was_recorded_before_its_yes(machine: Machine) -> None:
    machine.write(FAR)
    machine.agree()
    before = machine.pipeline(carriers(plain=Plain))
    machine.orphan(before)
    machine.write('[telemetry]\n[telemetry.to.far]\nplugin = "plain"\n[telemetry.to.new]\nplugin = "plain"\n')
    machine.agree()
    pipeline = machine.pipeline(carriers(plain=Plain))
    spool = machine.imported(pipeline)
    assert len(send(pipeline, spool, "far")) == 2
    rows = [item.row for item in spool.lease("new", 0.0).items]
    bodies = [pipeline.body_for(pipeline.allowed[1], row) for row in rows]
    assert [body for body in bodies if not isinstance(body, bytes)] == ["before-your-yes"]
    assert len(bodies) == 2


ELSEWHERE = '[telemetry]\n[telemetry.to.far]\nplugin = "plain"\nendpoint = "https://elsewhere.example"\n'


def moved(machine: Machine) -> Pipeline:
    """One event waits for a destination, which leads elsewhere now; and one that came since."""
    machine.imported(machine.far())
    machine.write(ELSEWHERE)
    pipeline = machine.pipeline(carriers(plain=Plain))
    machine.orphan(pipeline)
    assert [to.name for to in pipeline.waiting] == ["far"]
    spool = machine.imported(pipeline)
    assert (spool.ledger()["far"].pending, dict(spool.ledger()["far"].dropped)) == (3, {})
    assert [route.name for route in pipeline.routes()] == ["history"]
    return pipeline


def test_a_slip_in_where_a_destination_leads_costs_nothing_when_it_is_put_right(machine: Machine) -> None:
    moved(machine)
    machine.write(FAR)
    pipeline = machine.pipeline(carriers(plain=Plain))
    spool = machine.open(pipeline)
    assert len(send(pipeline, spool, "far")) == 3
    assert dict(spool.ledger()["far"].dropped) == {}


def test_a_yes_to_another_place_is_none_to_what_waited_for_the_one_before(machine: Machine) -> None:
    moved(machine)
    machine.agree()
    ledger = machine.open(machine.pipeline(carriers(plain=Plain))).ledger()["far"]
    assert (ledger.removed, ledger.pending, dict(ledger.dropped)) == (False, 0, {"destination-changed": 3})


def test_a_no_to_another_place_drops_what_waited(machine: Machine) -> None:
    identity = moved(machine).waiting[0].identity
    save_decision(machine.home, {}, declined={"far": identity})
    ledger = machine.open(machine.pipeline(carriers(plain=Plain))).ledger()["far"]
    assert (ledger.removed, dict(ledger.dropped)) == (True, {"withdrawn-consent": 3})


def test_an_operator_needs_no_fields_to_be_shown(machine: Machine) -> None:
    machine.environ["CMDORC_TELEMETRY"] = "standard"
    machine.write(FAR)
    pipeline = machine.pipeline(carriers(plain=Plain))
    spool = machine.imported(pipeline)
    (body,) = send(pipeline, spool, "far")
    assert "chain_depth" in body


def test_switched_off_nothing_is_imported_and_what_waited_to_be_shared_is_taken_back(
    machine: Machine, ready: Ready
) -> None:  # fmt: skip
    pipeline, spool = ready
    machine.orphan(pipeline)
    pipeline.pump(spool)
    machine.orphan(pipeline)
    save_decision(machine.home, {"cmdorc.core": Grant()})
    before, files = spool.ledger(), segments(machine)
    assert not pipeline.pump(spool)
    off = machine.open(pipeline)
    assert off.ledger()["history"] == before["history"]  # nobody asked for its destinations to go
    assert (off.ledger()["far"].pending, off.drops("far")) == (0, {"withdrawn-consent": 1})
    assert stored(off).shared is None
    assert (len(files), segments(machine)) == (1, [])  # nobody will ever import it
    assert machine.home.waiting.exists()


def test_switched_off_by_a_file_what_is_journalled_stays_for_the_day_that_it_is_on_again(
    machine: Machine, ready: Ready
) -> None:  # fmt: skip
    pipeline, spool = ready
    machine.orphan(pipeline)
    files, said = segments(machine), machine.home.config.read_text()
    machine.write(said.replace("[telemetry]\n", "[telemetry]\nenabled = false\n"))
    assert not pipeline.pump(spool)
    assert (len(files), segments(machine)) == (1, files)


def test_a_mark_says_when_what_waits_is_overdue(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    pipeline.pump(spool)
    assert not machine.home.waiting.exists()
    machine.orphan(pipeline)
    pipeline.pump(spool)
    assert machine.home.waiting.stat().st_mtime == stored(spool).at + 3600
    assert machine.home.waiting.stat().st_mode & 0o777 == 0o600
    for name in ("history", "far"):
        assert machine.home.waiting.exists()
        acknowledge(spool, name)
        pipeline.pump(spool)
    assert not machine.home.waiting.exists()


def test_many_events_are_overdue_at_once_but_for_a_pause(machine: Machine, ready: Ready) -> None:
    pipeline, spool = ready
    for _ in range(99):
        machine.orphan(pipeline)
    pipeline.pump(spool)
    now = clock.wall()
    assert machine.home.waiting.stat().st_mtime > now
    machine.orphan(pipeline)
    pipeline.pump(spool)
    assert machine.home.waiting.stat().st_mtime <= now
    spool.postpone("far", now + 500, "no answer")
    pipeline.pump(spool)
    assert machine.home.waiting.stat().st_mtime <= now, "the history waits, too"
    while spool.oldest({"history"}):
        acknowledge(spool, "history")
    pipeline.pump(spool)
    assert abs(machine.home.waiting.stat().st_mtime - now - 500) < 1


def acknowledge(spool: Spool, name: str) -> None:
    lease = spool.lease(name, clock.wall())
    assert lease is not None
    spool.settle(lease, {item.seq: EventResult("", "accepted") for item in lease.items}, clock.wall())


def test_what_no_reporter_can_take_is_not_waited_for(machine: Machine) -> None:
    machine.write('[telemetry]\n[telemetry.to.sea]\nplugin = "bottle"\n')
    machine.agree()
    pipeline = machine.pipeline()
    spool = machine.imported(pipeline)
    acknowledge(spool, "history")
    pipeline.pump(spool)
    assert pending(spool, "sea") == 1
    assert not machine.home.waiting.exists()
    assert [route.name for route in pipeline.routes()] == ["history"]


def test_what_is_too_old_is_expired_at_most_once_an_hour(
    machine: Machine, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, spool = ready
    machine.orphan(pipeline)
    now = clock.wall()
    pipeline.pump(spool)
    monkeypatch.setattr(clock, "wall", lambda: now + 31 * 86_400)
    pipeline.pump(spool)
    assert spool.drops("history") == {"expired": 1}
    monkeypatch.setattr(clock, "wall", lambda: now)
    machine.orphan(pipeline)
    pipeline.pump(spool)
    monkeypatch.setattr(clock, "wall", lambda: now + 31 * 86_400 + 3000)
    pipeline.pump(spool)
    assert pending(spool) == 1
    monkeypatch.setattr(clock, "wall", lambda: now + 31 * 86_400 + 3700)
    pipeline.pump(spool)
    assert spool.drops("history") == {"expired": 2}


def test_a_spool_that_cannot_be_read_is_moved_aside(machine: Machine, warnings: Callable[[], list[str]]) -> None:
    machine.agree()
    machine.home.spool.write_bytes(b"no database, but long enough to look at" * 100)
    spool = machine.open(machine.pipeline())
    assert set(spool.ledger()) == {"history"}
    (warning,) = warnings()
    assert str(spool.moved_aside) in warning
    assert spool.moved_aside is not None
    assert spool.moved_aside.exists()


# -- destinations ------------------------------------------------------------------------------------------------------


def test_views_narrow_by_events_and_level(machine: Machine) -> None:
    machine.write(
        "[telemetry]\n"
        '[telemetry.to.all]\nplugin = "plain"\n'
        '[telemetry.to.some]\nplugin = "plain"\nevents = ["command_completed", "unknown"]\n'
        '[telemetry.to.low]\nplugin = "plain"\nlevel = "minimal"\n'
        '[telemetry.to.none]\nplugin = "plain"\nlevel = "off"\n'
        '[telemetry.to.both]\nplugin = "plain"\nlevel = "minimal"\nevents = ["anomaly_detected", "command_completed"]\n'
        '[telemetry.to.mine]\nplugin = "plain"\naudience = "private"\nlevel = "minimal"\n'
        '[telemetry.to.few]\nplugin = "plain"\naudience = "private"\nevents = ["anomaly_detected"]\n'
    )
    machine.agree()
    views = {view.name: view for view in machine.pipeline().views()}
    low = {event.name for event in SPEC.events if event.shared_at("minimal")}
    assert "anomaly_detected" not in low
    kinds = {name: view.kinds and {event for _, event in view.kinds} for name, view in views.items()}
    assert kinds == {
        "history": None, "all": None, "some": {"command_completed"}, "low": low, "none": set(),
        "both": {"command_completed"}, "mine": None, "few": {"anomaly_detected"},
    }  # fmt: skip
    assert {view.audience for view in views.values() if view.name in ("history", "mine", "few")} == {"private"}
    assert {view.audience for view in views.values() if view.name in ("all", "some", "low")} == {"shared"}
    assert views["all"].identity == "plain"


def test_bodies(machine: Machine) -> None:
    machine.write(
        "[telemetry]\n"
        '[telemetry.to.far]\nplugin = "plain"\n'
        '[telemetry.to.low]\nplugin = "plain"\nlevel = "minimal"\n'
        '[telemetry.to.other]\nplugin = "plain"\nrename = { duration_ms = "took", command_completed = "run" }\n'
        '[telemetry.to.mine]\nplugin = "plain"\naudience = "private"\nrename = { command_name = "what" }\n'
    )
    machine.agree()
    pipeline = machine.pipeline(carriers(plain=Plain))
    spool = machine.imported(pipeline)
    row = stored(spool)
    bodies = {to.name: json.loads(pipeline.body_for(to, row) or b"{}") for to in pipeline.allowed}
    assert bodies["far"]["level"] == "standard"
    assert "command_name" not in bodies["far"]
    assert (bodies["low"]["level"], "chain_depth" in bodies["low"]) == ("minimal", False)
    assert bodies["other"]["took"] == bodies["far"]["duration_ms"] == machine.serial
    assert (bodies["other"]["event"], "duration_ms" in bodies["other"]) == ("run", False)
    assert bodies["mine"]["what"] == "secret"
    assert {name: json.loads(route.body(Leased(1, row)) or b"{}") for name, route in routes(pipeline).items()} == {
        **bodies, "history": json.loads(row.private)
    }  # fmt: skip
    assert pipeline.shared_body(row, LEVEL.OFF) is None
    before = pipeline.allowed
    save_decision(machine.home, {"cmdorc.core": new_grant(SPEC, LEVEL.OFF, NOW)}, {})
    pipeline.refresh()
    gone = {to.name: pipeline.body_for(to, row) for to in before}
    assert [name for name, body in gone.items() if body is not None] == ["mine"]
    assert pipeline.shared_body(row) is None


def routes(pipeline: Pipeline) -> dict[str, Any]:
    return {route.name: route for route in pipeline.routes()}


def test_an_event_without_a_shared_body_has_none(machine: Machine) -> None:
    machine.agree()
    pipeline = machine.pipeline()
    row = Row(spec=REF, event="command_completed", version=1, at=0, generation=pipeline.policy.stamp, source="s",
              private=b"{}", shared=None)  # fmt: skip
    assert pipeline.shared_body(row) is None


def test_reporters_are_made_with_their_checked_settings(machine: Machine) -> None:
    class Broken(NoopReporter):
        def __init__(self, settings: object) -> None:
            raise ImportError("no such library")

    machine.write(
        '[telemetry]\n[telemetry.to.far]\nplugin = "needy"\naudience = "private"\nport_env = "PORT"\ntimeout = 3\n'
    )
    machine.agree()
    machine.environ["PORT"] = "7"
    pipeline = machine.pipeline(carriers(needy=Needy))
    route = routes(pipeline)["far"]
    assert route.timeout == 3
    with pytest.raises(ConfigError, match=r"telemetry\.to\.far\.port.*int"):
        route.make()
    (to,) = machine.destinations()
    made = make_reporter(Needy, DestinationConfig("far", "needy", settings={"port": 7}), {})
    assert made.settings == Needy.Settings(port=7)
    with pytest.raises(PluginError, match="Broken cannot be made: no such library"):
        make_reporter(Broken, DestinationConfig("far", "broken"), {})
    with pytest.raises(ConfigError, match="'PORT' is not set"):
        make_reporter(Needy, to, {})
    history = routes(pipeline)["history"].make()
    assert history.settings.path == str(machine.home.history)


def test_delivery_is_to_all_or_only_to_some(machine: Machine) -> None:
    pipeline = machine.far()
    assert [route.name for route in pipeline.delivery().destinations] == ["history", "far"]
    assert [route.name for route in pipeline.delivery(only=["far"]).destinations] == ["far"]
    machine.orphan(pipeline)
    delivery = pipeline.delivery()
    assert delivery.flush(30)
    assert delivery.stop(30)
    found = machine.open(pipeline).ledger()
    assert {name: (each.acknowledged, each.pending) for name, each in found.items()} == {
        "history": (1, 0), "far": (1, 0)
    }  # fmt: skip


@pytest.mark.parametrize("alive", [True, False])
def test_the_destination_of_a_reporter_whose_process_is_gone_is_dropped(machine: Machine, alive: bool) -> None:
    machine.agree()
    pipeline = machine.pipeline()
    spool = machine.open(pipeline)
    spool.adopt(View(name="code-x", identity="injected by code", source=None), "code-x")
    machine.orphan(pipeline)
    pipeline.pump(spool)
    assert pending(spool, "code-x") == 1
    machine.home.locks.mkdir(exist_ok=True)
    owner = FileLock(machine.home.locks / "code-x.owner")
    if alive:
        assert owner.acquire(wait=False)
    try:
        ledger = machine.open(machine.pipeline()).ledger()["code-x"]
    finally:
        owner.release()
    assert (ledger.removed, dict(ledger.dropped)) == ((False, {}) if alive else (True, {"reporter-gone": 1}))
    assert (machine.home.locks / "code-x.owner").exists() is alive


def test_where_no_lock_can_be_looked_at_an_owner_is_taken_to_live(machine: Machine) -> None:
    machine.agree()
    pipeline = machine.pipeline()
    spool = machine.open(pipeline)
    spool.adopt(View(name="code-x", identity="injected by code"), "code-x")
    assert not machine.home.locks.exists()
    machine.home.locks.write_text("a file where a directory should be")
    assert not machine.open(machine.pipeline()).ledger()["code-x"].removed
