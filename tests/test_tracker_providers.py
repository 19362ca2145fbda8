"""Providers are destinations: what one does is nobody else's matter, and each may have other names and events."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import Result, TelemetryAnomalyMonitor, TelemetryLevel, TelemetryReporter, hookimpl
from cmdorc_telemetry.delivery import cell
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.telemetry import Telemetry
from cmdorc_telemetry.tracker import TelemetryTracker

from .acme import Acme, Keeper
from .agreement import agree
from .waiting import LONG, until


@pytest.fixture(autouse=True)
def quickly_taken_for_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "GRACE_SECONDS", 0.05)


LET_GO = threading.Event()


@pytest.fixture(autouse=True)
def nobody_hangs_for_ever() -> Iterator[None]:
    LET_GO.clear()
    yield
    LET_GO.set()


class Raising(TelemetryReporter):
    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise RuntimeError("the provider is broken")


class Ending(TelemetryReporter):
    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise SystemExit(3)


class Blocking(TelemetryReporter):
    """Holds its thread."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        LET_GO.wait(LONG)


class Waiting(TelemetryReporter):
    """Never comes back from what it awaits."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        await asyncio.Event().wait()


class Meddling(TelemetryReporter):
    """Changes what it was given."""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        payload.clear()
        payload["plan"] = "stolen"


@pytest.mark.parametrize("bad", [Raising, Ending, Blocking, Waiting, Meddling])
def test_a_bad_provider_affects_neither_the_caller_nor_the_others(tmp_path: Path, bad: type[TelemetryReporter]) -> None:
    acme, before, after = Acme(tmp_path), Keeper(), Keeper()
    seen: list[object] = []
    monitor = TelemetryAnomalyMonitor(seen.append)
    tracker = acme.tracker(before, bad(), after, anomaly_monitor=monitor)
    begin = time.monotonic()
    for number in range(20):
        assert tracker.track_now("acme.signup", 1, {"plan": "pro", "seconds": number}) is Result.CAPTURED
    assert time.monotonic() - begin < LONG / 10
    threading.Thread(target=tracker.flush, args=(1.0,), daemon=True).start()
    for keeper in (before, after):
        until(lambda keeper=keeper: len(keeper.got) >= 20, "the others get everything")
        assert sorted(each["seconds"] for each in keeper.got) == list(range(20))
        assert {each["plan"] for each in keeper.got} == {"pro"}
    begin = time.monotonic()
    tracker.close()
    assert time.monotonic() - begin < LONG / 10
    with closing(Spool(acme.home.spool, reading=True)) as spool:
        ledgers = spool.ledger()
    for each in ledgers.values():
        assert each.recorded == each.acknowledged + each.pending + sum(each.dropped.values()) == 20, each


def test_a_provider_gets_the_body_alone_and_nothing_of_the_spec(tmp_path: Path) -> None:
    """Neither the whole spec nor what it says of other providers."""
    acme, keeper = Acme(tmp_path, PROVIDERS), Keeper()
    tracker = acme.tracker(keeper)
    tracker.track_now("paid", 1, {"amount": 5})
    assert tracker.flush(20)
    tracker.close()
    (got,) = keeper.got
    assert "sk-secret" not in json.dumps(got)
    assert got.keys() == {"event", "app_name", "app_version", "python_version", "os", "arch", "anonymous_install_id",
                          "timestamp", "event_id", "spec", "level", "amount"}  # fmt: skip


PROVIDERS = """
[meta]
name = "acme.app"
[[config.providers]]
type = "posthog"
config = { projectApiKey = "sk-secret" }
[[events]]
name = "paid"
semantics = { what = "A payment" }
properties.amount = { type = "count" }
"""


def test_without_any_provider_an_event_is_captured(tmp_path: Path) -> None:
    tracker = Acme(tmp_path).tracker()
    assert tracker.track_now("acme.signup", 1, {"plan": "pro"}) is Result.CAPTURED
    tracker.close()


def test_a_program_that_ends_at_once_waits_for_no_provider(tmp_path: Path) -> None:
    acme = Acme(tmp_path)
    program = textwrap.dedent(f"""
        import pathlib, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from tests.acme import Acme
        from tests.test_tracker_providers import Blocking
        tracker = Acme(pathlib.Path({str(tmp_path)!r}), level=None).tracker(Blocking())
        print(tracker.track_now("acme.signup", 1, {{"plan": "pro"}}).name)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20,
                          env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("CAPTURED\n", "", 0)
    with closing(Spool(acme.home.spool)) as spool:
        (ledger,) = [each for name, each in spool.ledger().items() if name.startswith("code-")] or [None]
    assert ledger is None or ledger.recorded == ledger.pending + sum(ledger.dropped.values())


# -- other names, and other events -------------------------------------------------------------------------------------

TWO = """
[meta]
name = "acme.app"
[[events]]
name = "paid"
semantics = { what = "A payment" }
properties.amount = { type = "count" }
properties.plan = { type = "enum", members = ["free", "pro"] }
[[events]]
name = "left"
semantics = { what = "A farewell" }
properties.plan = { type = "enum", members = ["free", "pro"] }
"""


class Analytics(TelemetryReporter):
    """Two of them, each with a list of its own."""

    got: dict[str, list[dict[str, Any]]]

    class Settings(TelemetryReporter.Settings):
        called: str = ""

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        type(self).got.setdefault(self.settings.called, []).append({"_event": event, **payload})


@pytest.fixture
def delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, list[dict[str, Any]]]]:
    """What each destination of a configuration got of two events."""

    class Plugin:
        @hookimpl
        def telemetry_reporters(self) -> list[type[TelemetryReporter]]:
            return [Analytics]

    Analytics.got = {}
    Analytics.name = "analytics"

    def run(destinations: str) -> dict[str, list[dict[str, Any]]]:
        acme = Acme(tmp_path, TWO, level=None)
        acme.home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        acme.home.config.write_text(destinations)
        acme.home.config.chmod(0o600)
        agree(acme.home, TelemetryLevel.STANDARD, spec=acme.spec)
        telemetry = Telemetry.start(acme.application, plugins=[Plugin()], environ=acme.environ)
        tracker = TelemetryTracker(telemetry)
        assert tracker.track_now("paid", 1, {"amount": 5, "plan": "pro"})
        assert tracker.track_now("left", 1, {"plan": "free"})
        assert tracker.flush(20)
        tracker.close()
        return Analytics.got

    return run


def own(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("_event", "event", "amount", "plan", "revenue", "tier") if name in body}


def test_each_destination_has_its_own_names_and_events(
    delivered: Callable[[str], dict[str, list[dict[str, Any]]]],
) -> None:
    got = delivered("""
[telemetry.to.plain]
plugin = "analytics"
called = "plain"
[telemetry.to.renamed]
plugin = "analytics"
called = "renamed"
rename = { amount = "revenue", paid = "Order Completed", plan = "tier" }
[telemetry.to.farewells]
plugin = "analytics"
called = "farewells"
events = ["left"]
rename = { left = "churned" }
""")
    assert [own(each) for each in got["plain"]] == [
        {"_event": "paid", "event": "paid", "amount": 5, "plan": "pro"},
        {"_event": "left", "event": "left", "plan": "free"},
    ]  # fmt: skip
    assert [own(each) for each in got["renamed"]] == [
        {"_event": "paid", "event": "Order Completed", "revenue": 5, "tier": "pro"},
        {"_event": "left", "event": "left", "tier": "free"},
    ]  # fmt: skip
    assert [own(each) for each in got["farewells"]] == [{"_event": "left", "event": "churned", "plan": "free"}]


def test_no_value_is_lost_where_a_name_is_taken(delivered: Callable[[str], dict[str, list[dict[str, Any]]]]) -> None:
    got = delivered("""
[telemetry.to.clash]
plugin = "analytics"
called = "clash"
rename = { amount = "plan" }
[telemetry.to.swap]
plugin = "analytics"
called = "swap"
rename = { amount = "plan", plan = "amount" }
[telemetry.to.same]
plugin = "analytics"
called = "same"
rename = { amount = "tier", plan = "tier" }
[telemetry.to.event]
plugin = "analytics"
called = "event"
rename = { plan = "event", event = "plan" }
""")
    both = {"_event": "paid", "event": "paid", "amount": 5, "plan": "pro"}
    assert own(got["clash"][0]) == both
    assert own(got["swap"][0]) == {**both, "amount": "pro", "plan": 5}
    assert own(got["same"][0]) == {"_event": "paid", "event": "paid", "tier": 5, "plan": "pro"}
    assert own(got["event"][0]) == both
