"""Versions of an event side by side: each is agreed to, narrowed and shared as it declares its own fields."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Result, TelemetryLevel, clock
from cmdorc_telemetry.consent import save_decision
from cmdorc_telemetry.declarations import declarations, new_grant, waiting_fields
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spec import Rule, TelemetrySpec, parse_toml
from cmdorc_telemetry.types import Row

from .acme import Acme

ONE = """
[[events]]
name = "paid"
version = 1
semantics = { what = "A payment" }
[events.properties]
amount = { type = "count", max = 1000 }
plan = { type = "enum", members = ["free", "pro"] }
email = { type = "hash" }
"""
TWO = """
[[events]]
name = "paid"
version = 2
semantics = { what = "A payment" }
[events.properties]
amount = { type = "count", max = 500 }
plan = { type = "enum", members = ["free", "pro"] }
"""
THREE = TWO.replace("version = 2", "version = 3").replace("500", "900")


def text(*events: str) -> str:
    return '[meta]\nname = "acme.app"\n' + "".join(events)


def spec(*events: str) -> TelemetrySpec:
    return parse_toml(text(*events), "x")


def own(spec: TelemetrySpec) -> set[str]:
    return {name for name in declarations(spec) if not name.startswith("*/")}


def test_what_an_earlier_version_declares_otherwise_is_asked_for_by_itself() -> None:
    assert own(spec(TWO)) == {"paid/amount", "paid/plan"}
    assert own(spec(ONE, TWO)) == own(spec(TWO, ONE)) == {"paid/amount", "paid/plan", "paid@1/amount", "paid@1/email"}
    told = declarations(spec(ONE, TWO))
    assert (json.loads(told["paid@1/amount"])["max"], json.loads(told["paid/amount"])["max"]) == (1000, 500)


def test_a_yes_to_the_latest_version_is_none_to_an_earlier_one_that_says_more() -> None:
    grant = new_grant(spec(TWO), TelemetryLevel.STANDARD, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert waiting_fields(spec(TWO, ONE), grant) == {"paid@1/amount", "paid@1/email"}


def test_a_yes_to_a_version_that_was_the_latest_then_stays_one() -> None:
    grant = new_grant(spec(TWO), TelemetryLevel.STANDARD, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert waiting_fields(spec(TWO, THREE), grant) == {"paid/amount"}, "which is wider now; paid@2/amount was shown"


def test_a_version_is_found_by_what_decisions_call_it() -> None:
    both = spec(ONE, TWO)
    one, two = both.events
    assert [both.asked_for(label) for label in ("paid@1", "paid", "paid@2", "left")] == [one, two, two, None]


class World(Acme):
    """An installation that tracked events of both versions, under a yes to ``agreed``."""

    def pipeline(self) -> Pipeline:
        return Pipeline(Situation.read(self.environ, application=self.application), PluginHost())

    def agree(self, agreed: TelemetrySpec, *but: str) -> None:
        """Say yes to all that a spec declares, but for some fields."""
        grant = new_grant(agreed, TelemetryLevel.STANDARD, clock.utcnow())
        fields = {name: declared for name, declared in grant.fields.items() if name not in but}
        save_decision(self.home, {"acme.app": grant._replace(fields=fields)})

    def rows(self, pipeline: Pipeline) -> list[Row]:
        with closing(pipeline.open_spool()) as spool:
            pipeline.pump(spool)
            found: list[Row] = []
            while (row := spool.row(len(found) + 1)) is not None:
                found.append(row)
            return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, text(ONE, TWO), level=None)


def shared(row: Row) -> dict[str, Any] | None:
    told = None if row.shared is None else json.loads(row.shared)
    return told and {name: told[name] for name in ("amount", "plan", "email") if name in told}


def record(world: World) -> None:
    tracker = world.tracker()
    values = {"amount": 7, "plan": "pro"}
    assert tracker.track_now("paid", 1, {**values, "email": "0123456789ab"}) is Result.CAPTURED
    assert tracker.track_now("paid", 2, {**values, "amount": 300}) is Result.CAPTURED
    tracker.close()


def test_each_version_is_shared_as_far_as_it_was_agreed_to(world: World) -> None:
    world.agree(spec(TWO))
    record(world)
    one, two = world.rows(world.pipeline())
    assert (one.version, shared(one)) == (1, {"plan": "pro"}), "of which both say the same"
    assert (two.version, shared(two)) == (2, {"amount": 300, "plan": "pro"})


def test_each_version_is_shared_whole_where_all_was_agreed_to(world: World) -> None:
    world.agree(world.spec)
    record(world)
    one, two = world.rows(world.pipeline())
    assert shared(one) == {"amount": 7, "plan": "pro", "email": "0123456789ab"}
    assert shared(two) == {"amount": 300, "plan": "pro"}


def test_what_is_stored_of_an_earlier_version_is_narrowed_as_it_was_declared(world: World) -> None:
    """A lesser yes later on: to the latest version alone."""
    world.agree(world.spec)
    record(world)
    assert len(world.rows(world.pipeline())) == 2
    world.agree(spec(TWO))
    one, two = world.rows(world.pipeline())
    assert shared(one) == {"plan": "pro"}
    assert shared(two) == {"amount": 300, "plan": "pro"}


def test_what_is_stored_of_an_earlier_version_keeps_what_only_that_declares(world: World) -> None:
    world.agree(world.spec)
    record(world)
    assert len(world.rows(world.pipeline())) == 2
    world.agree(world.spec, "paid@1/plan", "paid/plan")
    one, two = world.rows(world.pipeline())
    assert shared(one) == {"amount": 7, "email": "0123456789ab"}
    assert shared(two) == {"amount": 300}


def test_a_version_that_was_agreed_to_is_shared_while_a_later_one_waits(tmp_path: Path) -> None:
    world = World(tmp_path, text(TWO, THREE), level=None)
    world.agree(spec(TWO))
    tracker = world.tracker()
    for version in (2, 3):
        assert tracker.track_now("paid", version, {"amount": 7, "plan": "pro"})
    tracker.close()
    two, three = world.rows(world.pipeline())
    assert (shared(two), shared(three)) == ({"amount": 7, "plan": "pro"}, {"plan": "pro"})


def test_what_nobody_agreed_to_of_the_latest_is_kept_from_the_earlier_one_that_says_the_same(world: World) -> None:
    narrow = TWO.replace("plan = ", "# plan = ")
    world.agree(spec(narrow))
    record(world)
    one, two = world.rows(world.pipeline())
    assert (shared(one), one.shared) == (None, None)
    assert shared(two) == {"amount": 300}


# -- the rest of the way of an event of one's own: through the pipeline ------------------------------------------------

SAMPLED = """
[[events]]
name = "step"
semantics = { what = "A step of a run" }
sampling = { rate = 0.6, by = "run" }
[events.properties]
run = { type = "string", pattern = "[a-z0-9]+", max_length = 10, audience = "private" }
step = { type = "count" }
"""


def kept(rows: list[Row], pipeline: Pipeline, **how: Any) -> dict[str, set[bool]]:
    found: dict[str, set[bool]] = {}
    for row in rows:
        found.setdefault(json.loads(row.private)["run"], set()).add(pipeline.shared_body(row, **how) is not None)
    return found


def test_a_run_is_shared_all_or_none_also_where_its_receiver_asks_for_less(tmp_path: Path) -> None:
    world = World(tmp_path, text(SAMPLED))
    tracker = world.tracker()
    for run in range(60):
        for step in range(4):
            assert tracker.track_now("step", None, {"run": f"r{run}", "step": step})
    tracker.close()
    pipeline = world.pipeline()
    rows = world.rows(pipeline)
    assert len(rows) == 240
    first, second = kept(rows, pipeline), kept(rows, pipeline, wanted=Rule(sampling=0.3))
    assert {len(each) for each in (*first.values(), *second.values())} == {1}
    some, fewer = ({run for run, each in every.items() if True in each} for every in (first, second))
    assert fewer < some
    assert 20 < len(some) < 52
    assert 6 < len(fewer) < 32
    assert pipeline._salt, "it is drawn with what this machine alone knows"
    rates = {json.loads(body)["sampling_rate"] for row in rows
             if (body := pipeline.shared_body(row, wanted=Rule(sampling=0.3))) is not None}  # fmt: skip
    assert rates == {0.3}


def test_a_pipeline_that_runs_at_midnight_shares_no_more_of_what_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    midnight = datetime(2026, 6, 2, tzinfo=timezone.utc).timestamp()
    monkeypatch.setattr(clock, "wall", lambda: midnight - 1)
    world = World(tmp_path, text(ONE.replace('type = "hash"', 'type = "hash", expires = 2026-06-02')))
    tracker = world.tracker()
    for _ in range(2):
        tracker.track_now("paid", 1, {"plan": "pro", "email": "0123456789ab"})
    tracker.close()
    pipeline = world.pipeline()
    rows = world.rows(pipeline)
    assert [shared(row) for row in rows] == [{"plan": "pro", "email": "0123456789ab"}] * 2
    monkeypatch.setattr(clock, "wall", lambda: midnight)
    pipeline.refresh()
    body = pipeline.shared_body(rows[0], TelemetryLevel.STANDARD)
    assert body is not None
    assert "email" not in json.loads(body)
