"""What authors of plugins test with: a clock, a reporter, a server, an orchestrator, samples; as fixtures, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry import Telemetry, clock
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.spec import CORE, load_spec, parse_toml
from cmdorc_telemetry.testing import (
    FakeClock,
    FaultServer,
    RecordingReporter,
    Samples,
    Sandbox,
    orchestrator_of,
    run,
)
from cmdorc_telemetry.testing.attempts import attempts
from cmdorc_telemetry.types import Batch, BatchEvent

ALL_TYPES = """
[meta]
name = "probe"
[[events]]
name = "probed"
semantics = { what = "A probe" }
[events.properties]
flag = { type = "bool", required = true }
size = { type = "count", max = 10 }
took = { type = "duration_ms" }
share = { type = "number", min = -5.5, max = 5.5 }
plan = { type = "enum", members = ["free", "team"] }
age = { type = "bucket", edges = [1, 10] }
who = { type = "hash" }
tool = { type = "version" }
run = { type = "uuid" }
built = { type = "timestamp" }
word = { type = "string", pattern = "[a-z]+", max_length = 20 }
odd = { type = "string", pattern = "never[0-9]{7}", max_length = 20 }
many = { type = "enum", members = ["a", "b"], max_items = 3 }
raw = { type = "json" }
"""


# -- the clock --------------------------------------------------------------------------------------------------------


def test_the_clock_stands_still_until_it_is_moved(telemetry_clock: FakeClock) -> None:
    wall, monotonic, perf = clock.wall(), clock.monotonic(), clock.perf()
    assert (clock.wall(), clock.monotonic(), clock.perf()) == (wall, monotonic, perf)
    telemetry_clock.advance(90.5)
    assert (clock.wall(), clock.monotonic(), clock.perf()) == (wall + 90.5, monotonic + 90.5, perf + 90.5)
    assert clock.utcnow() == datetime.fromtimestamp(int(wall + 90.5), timezone.utc)


def test_the_clock_is_as_it_was_afterwards() -> None:
    real = clock.wall
    with FakeClock(1000.0) as time:
        assert clock.wall() == time.now == 1000.0
    assert clock.wall is real
    assert clock.wall() > 1000.0


# -- the reporter -----------------------------------------------------------------------------------------------------


def test_a_reporter_remembers_what_it_took_and_fails_as_it_is_told(telemetry_reporter: RecordingReporter) -> None:
    one, two = (Batch(destination="d", events=(BatchEvent(name, name, b'{"a": 1}'),)) for name in ("one", "two"))
    asyncio.run(telemetry_reporter.report_batch(one))
    telemetry_reporter.fail = RetryLater("not now")
    with pytest.raises(RetryLater, match="not now"):
        asyncio.run(telemetry_reporter.report_batch(two))
    assert telemetry_reporter.batches == [one]
    assert telemetry_reporter.payloads() == telemetry_reporter.payloads("one") == [{"a": 1}]
    assert telemetry_reporter.payloads("two") == []
    with pytest.raises(NotImplementedError):
        asyncio.run(telemetry_reporter.report("one", {}))
    asyncio.run(telemetry_reporter.close())
    assert telemetry_reporter.closed


# -- orchestrators ----------------------------------------------------------------------------------------------------


async def test_a_real_orchestrator_reports_in_the_sandbox(
    telemetry_sandbox: Sandbox, telemetry_run: Callable[..., Awaitable[Telemetry]]
) -> None:
    await telemetry_run({"Tests": ("true", ["changed"]), "Other": "true"}, "changed")
    assert [each["command_name"] for each in telemetry_sandbox.recorded("command_completed")] == ["Tests"]
    assert len(telemetry_sandbox.recorded("orchestrator_stopped")) == 1


async def test_what_never_ends_is_told(telemetry_sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError, match=r"after 0\.05 s something still runs"):
        await run({"Long": ("exec sleep 30", ["go"])}, "go", seconds=0.05)


def test_an_orchestrator_by_itself_is_observed_by_nobody() -> None:
    assert not [name for name in vars(orchestrator_of({"Tests": "true"})) if "telemetry" in name]


# -- the server -------------------------------------------------------------------------------------------------------


def test_a_server_listens(telemetry_server: FaultServer) -> None:
    assert telemetry_server.endpoint.startswith("http://127.0.0.1:")


# -- samples ----------------------------------------------------------------------------------------------------------


def test_samples_have_valid_values_of_every_type_and_are_the_same_for_a_seed() -> None:
    spec = parse_toml(ALL_TYPES, "probe.toml")
    seen: set[str] = set()
    for row in Samples([spec]).rows(list(Samples([spec]).records(30)), "debug"):
        assert row.shared is not None
        seen |= msgspec.json.decode(row.shared).keys() & spec.events[0].properties.keys()
    assert seen == spec.events[0].properties.keys() - {"odd", "raw"}, "of these no valid value is known"
    (event,) = spec.events
    assert Samples([spec]).properties(event) == Samples([spec]).properties(event)
    assert Samples([spec], seed=2).properties(event) != Samples([spec]).properties(event)


def test_a_batch_is_what_a_shared_destination_would_get() -> None:
    batch = Samples([load_spec(CORE)]).batch(2, "minimal")
    assert {event.payload["level"] for event in batch.events} == {"minimal"}
    assert not [event for event in batch.events if "command_name" in event.payload]
    assert [event.event_id for event in batch.events] == [event.payload["event_id"] for event in batch.events]


def test_an_event_that_lacks_what_it_requires_is_no_sample() -> None:
    with pytest.raises(ValueError, match=r"probed lacks a property that it requires: .*size"):
        Samples([parse_toml(ALL_TYPES, "probe.toml")]).record("probed", {"size": 1})


# -- attempts ---------------------------------------------------------------------------------------------------------


def test_what_is_tried_is_noted(tmp_path: Path) -> None:
    with attempts() as outer, attempts() as tried:
        (tmp_path / "text").write_text("x")
        (tmp_path / "text").read_text()
        subprocess.run(["true"], check=True)
    assert [Path(path).name for path in tried.written] == ["text"]
    assert [what.split()[0] for what in tried.outside] == ["subprocess.Popen"]
    assert outer.outside == tried.outside
    (tmp_path / "later").write_text("x")
    assert len(tried.written) == 1


# -- pytest -----------------------------------------------------------------------------------------------------------


def test_what_pytest_imports_at_its_start_is_little() -> None:
    code = "import sys, pytest; before = set(sys.modules); import cmdorc_telemetry.testing.fixtures; "
    code += "print(*sorted(name for name in set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {
        "cmdorc_telemetry", "cmdorc_telemetry.testing", "cmdorc_telemetry.testing.fixtures"
    }  # fmt: skip


def test_every_name_of_the_package_is_there_and_no_other() -> None:
    from cmdorc_telemetry import testing

    named: list[Any] = [getattr(testing, name) for name in testing.__all__]
    assert len(named) == len(testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        testing.nothing  # noqa: B018 - it is asked for
