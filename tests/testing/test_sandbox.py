"""The sandbox: what an application recorded in it, what was withheld, and that nothing else is touched by it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from cmdorc_telemetry import CompletedRun, Telemetry, TelemetryReporter, TelemetryTracker, Trigger
from cmdorc_telemetry.application import Application
from cmdorc_telemetry.errors import ConfigError, SpecError, TelemetryViolation
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.results import Result
from cmdorc_telemetry.spec import TelemetryRegistry, load_spec, parse_toml
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.testing import Sandbox

DOCS = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
SPEC = """
[meta]
name = "acme.shop"

[[events]]
name = "acme.signup"
semantics = { what = "Somebody signed up" }
sampling = { rate = 1.0, conditions = ["plan != 'free'"] }

[events.properties]
plan = { type = "enum", members = ["free", "team"], required = true, level = "minimal" }
seats = { type = "count", max = 100 }
email = { type = "string", pattern = ".*", max_length = 100, pii = true, redact = true }
note = { type = "string", pattern = "[a-z]*", max_length = 100, audience = "private" }

[[events]]
name = "acme.signup"
version = 2
semantics = { what = "Somebody signed up" }
properties = { plan = { type = "enum", members = ["free", "team", "huge"] } }

[[events]]
name = "acme.visit"
semantics = { what = "Somebody came" }
properties = { pages = { type = "count" } }

[[operations]]
name = "acme.visiting"
success = { event = "acme.visit", properties = { pages = "output" } }
"""
PROGRAM = """
import sys, time
from cmdorc_telemetry import TelemetryTracker
from cmdorc_telemetry.application import Application

tracker = TelemetryTracker.start(Application("shop", "1.0", specs=(sys.argv[1],)))
for number in range(3):
    tracker.track_now("acme.visit", 1, {"pages": number})
if sys.argv[2] == "long":
    assert tracker.flush(20)
    tracker.track_now("acme.visit", 1, {"pages": 3})
"""


@pytest.fixture
def shop(spec: Path, tmp_path: Path) -> Application:
    return Application("shop", "1.0", specs=(spec,), home=tmp_path / "home")


class Service:
    """An application that makes its own telemetry, lenient as a program should be."""

    def __init__(self, application: Application) -> None:
        self.tracker = TelemetryTracker.start(application)

    def sign_up(self, **properties: Any) -> Result:
        return self.tracker.track_now("acme.signup", 1, properties)


def test_what_an_application_recorded_by_itself(shop: Application) -> None:
    with Sandbox(shop) as sandbox:
        service = Service(shop)
        assert service.sign_up(plan="team", seats=3, email="me@acme.test", note="hello")
        assert service.sign_up(plan="free")
        assert sandbox.recorded("acme.signup") == [
            {"plan": "team", "seats": 3, "email": "[redacted]", "note": "hello"}, {"plan": "free"},
        ]  # fmt: skip
        first, second = sandbox.recorded("acme.signup", 1)
        assert first.shared == {"plan": "team", "seats": 3, "email": "[redacted]"}
        assert (first.withheld, first.version, first.base["app_name"]) == ("", 1, "shop")
        assert (second.shared, second.withheld) == (None, "sampling")
        assert first.shared.base["level"] == "standard"
        assert sandbox.recorded("acme.signup", 2) == sandbox.recorded("acme.visit") == []
        assert sandbox.violations() == []


def test_one_that_is_handed_a_tracker_and_has_specs_alone(spec: Path) -> None:
    for source in (spec, str(spec), load_spec(spec)):
        with Sandbox(source) as sandbox:
            assert sandbox.tracker.track_now("acme.signup", 2, {"plan": "huge"})
            assert sandbox.telemetry.track("acme.visit", {"pages": 3})
            assert [each.version for each in sandbox.recorded("acme.signup")] == [2]
            assert sandbox.recorded("acme.visit") == [{"pages": 3}]


def test_a_tracker_that_is_made_of_a_registry(spec: Path) -> None:
    registry = TelemetryRegistry()
    registry.register(load_spec(spec), "here")
    for source in (registry, spec):
        with Sandbox(source) as sandbox:
            assert TelemetryTracker.start(registry).track_now("acme.visit", 1, {"pages": 3})
            assert sandbox.recorded("acme.visit") == [{"pages": 3}]


def test_cmdorc_s_own_events_are_there_without_a_source() -> None:
    with Sandbox() as sandbox:
        run = CompletedRun(run_id="r", command_name="Tests", state="success", duration=3.5)
        sandbox.telemetry.fire("cmdorc_completed", run)
        for _ in range(2):
            sandbox.telemetry.fire("cmdorc_trigger", Trigger(name="go", outcome="ran", runs_started=1))
        (completed,) = sandbox.recorded("command_completed")
        assert (completed["command_name"], completed["duration_ms"]) == ("Tests", 3500)
        assert completed.shared is not None
        assert "command_name" not in completed.shared
        (fired,) = sandbox.recorded("trigger_fired")
        assert fired["trigger_count"] == 2


def test_what_is_wrong_is_raised_by_whoever_s_tracker_it_is(shop: Application) -> None:
    with Sandbox(shop) as sandbox:
        service = Service(shop)
        with pytest.raises(TelemetryViolation, match=r"seat: .*such as 'seats'"):
            service.sign_up(plan="team", seat=3)
        with pytest.raises(TelemetryViolation, match="plan"):
            service.sign_up(seats=3)
        with pytest.raises(TelemetryViolation, match=r"acme\.signup"):
            service.tracker.track_now("acme.sinup", None, {})
        assert sandbox.recorded("acme.signup") == []


def test_what_is_withheld_where_nothing_is_raised_is_counted(shop: Application) -> None:
    with Sandbox(shop, strict=False) as sandbox:
        service = Service(shop)
        for _ in range(2):
            assert service.sign_up(plan="team", seat=3, seats=101)
        assert service.sign_up() is Result.WITHHELD
        assert service.tracker.track_now("acme.sinup", None, {}) is Result.UNKNOWN
        assert sandbox.telemetry.track("acme.signup", {"plan": "team", "colour": "red"}, version=1)
        assert sandbox.violations() == [
            ("acme.signup", "seat", "undeclared", 2), ("acme.signup", "seats", "invalid", 2),
            ("acme.signup", "plan", "missing", 1), ("acme.sinup", "", "unknown", 1),
            ("acme.signup", "colour", "undeclared", 1),
        ]  # fmt: skip
        assert sandbox.recorded("acme.signup") == [{"plan": "team"}] * 3


def visit(shop: Application, pages: Any) -> None:
    operation = TelemetryTracker.start(shop).operation("acme.visiting")
    assert operation(lambda: pages)() == pages


def test_what_an_operation_sends_is_raised_at_the_end_unless_somebody_asked(shop: Application) -> None:
    def visited(*, strict: bool = True, fails: bool = False) -> None:
        with Sandbox(shop, strict=strict):
            visit(shop, -1)
            if fails:
                raise KeyError("the test's own")

    with Sandbox(shop) as sandbox:
        visit(shop, 7)
        assert sandbox.recorded("acme.visit") == [{"pages": 7}]
    with pytest.raises(AssertionError, match=r"^something was withheld:\nacme\.visit: pages: "):
        visited()
    with Sandbox(shop) as sandbox:
        visit(shop, -1)
        assert sandbox.violations() == [("acme.visit", "pages", "invalid", 1)]
    visited(strict=False)
    with pytest.raises(KeyError, match="the test's own"):
        visited(fails=True)


@pytest.mark.parametrize(("event", "properties"), [("acme.visit", {"pages": "many"}), ("acme.visits", {})])
def test_what_is_recorded_without_a_tracker_is_raised_at_the_end(
    shop: Application, event: str, properties: dict[str, Any]
) -> None:
    def tracked() -> None:
        with Sandbox(shop) as sandbox:
            sandbox.telemetry.track(event, properties)

    with pytest.raises(AssertionError, match="withheld"):
        tracked()


def test_levels_and_no_decision(shop: Application) -> None:
    def shared(share: str | None) -> tuple[int, Any]:
        with Sandbox(shop, share=share) as sandbox:
            Service(shop).sign_up(plan="team", seats=3)
            found = sandbox.recorded("acme.signup")
            return len(found), (found[0].shared, found[0].withheld) if found else None

    assert shared("minimal") == (1, ({"plan": "team"}, ""))
    assert shared("standard") == (1, ({"plan": "team", "seats": 3}, ""))
    assert shared("off") == (1, (None, "consent"))
    assert shared(None) == (0, None)


def test_the_user_decides_otherwise_while_it_runs(shop: Application) -> None:
    with Sandbox(shop) as sandbox:
        service = Service(shop)
        assert service.sign_up(plan="team", seats=3)
        sandbox.decide("minimal")
        assert service.sign_up(plan="team", seats=4)
        shares = [each.shared for each in sandbox.recorded("acme.signup")]
        assert shares == [{"plan": "team"}, {"plan": "team"}]
        assert [each["seats"] for each in sandbox.recorded("acme.signup")] == [3, 4]
        sandbox.decide(None)
        assert service.sign_up(plan="team") is Result.WITHHELD
        assert [each.shared for each in sandbox.recorded("acme.signup")] == [None, None]


def test_nothing_of_the_user_is_read_and_all_is_put_back(
    shop: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    (mine / "config.toml").write_text("broken")
    for name, value in {
        "DO_NOT_TRACK": "1", "SHOP_TELEMETRY": "off", "SHOP_TELEMETRY_CONFIG": str(mine / "none.toml"),
        "SHOP_TELEMETRY_HOME": str(mine), "CMDORC_TELEMETRY": "off", "CMDORC_HOME": str(mine),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with Sandbox(shop) as sandbox:
        assert Service(shop).sign_up(plan="team")
        assert len(sandbox.recorded("acme.signup")) == 1
        assert not Telemetry.start().recording
        home, cmdorc = sandbox.home.root, Home(Path(os.environ["CMDORC_HOME"]))
        assert home != mine != cmdorc.root
        assert home.exists()
    assert dict(os.environ) == before
    assert not home.exists()
    assert [path.name for path in mine.iterdir()] == ["config.toml"]
    assert not (tmp_path / "home").exists()


class Sent(TelemetryReporter):
    reported: ClassVar[list[str]] = []

    async def report(self, event: str, payload: Any) -> None:
        self.reported.append(event)


def test_nothing_is_delivered_and_no_thread_is_started(shop: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmdorc_telemetry.recorder.START_SECONDS", 0.0)
    before = threading.active_count()
    with Sandbox(shop) as sandbox:
        tracker = TelemetryTracker.start(shop, providers=[Sent()])
        for _ in range(3):
            assert tracker.track_now("acme.visit", 1, {"pages": 1})
        assert tracker.flush()
        assert len(sandbox.recorded("acme.visit")) == 3
        assert threading.active_count() == before
        assert spool_of(sandbox) == 0
    assert Sent.reported == []
    assert tracker.track_now("acme.visit", 1, {"pages": 1}) is Result.WITHHELD, "it was closed"


def spool_of(sandbox: Sandbox) -> int:
    with closing(Spool(sandbox.home.spool, reading=True)) as spool:
        return spool.size()[0]


def test_the_application_s_own_commands_do_there_what_they_do_elsewhere(shop: Application) -> None:
    def run(command: str) -> str:
        done = CliRunner().invoke(shop.commands(), [command])
        assert done.exit_code == 0, done.output
        return done.stdout

    with Sandbox(shop) as sandbox:
        Service(shop).tracker.track_now("acme.visit", 1, {"pages": 1})
        assert "Telemetry is on." in run("status")
        sandbox.decide("minimal")
        assert "history: recorded 1 = acknowledged 1 + pending 0 + dropped 0" in run("flush")
        assert sandbox.recorded("acme.visit") == [{"pages": 1}]
        assert "Telemetry is off." in run("opt-out")
        assert sandbox.recorded("acme.visit") == []
    with Sandbox(shop, share=None) as sandbox:
        assert "Telemetry is off." in run("status")
        assert not sandbox.home.root.exists()
        sandbox.decide("standard")
        Service(shop).tracker.track_now("acme.visit", 1, {"pages": 1})
        run("flush")
        assert sandbox.recorded("acme.visit") == [{"pages": 1}]


@pytest.mark.parametrize("life", ["short", "long"])
def test_processes_that_the_application_starts(shop: Application, spec: Path, life: str) -> None:
    with Sandbox(shop) as sandbox:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", PROGRAM, str(spec), life], check=True)
        expected = [{"pages": number} for number in range(4 if life == "long" else 3)]
        assert sandbox.recorded("acme.visit") == expected * 2
        assert [each.shared for each in sandbox.recorded("acme.visit")] == expected * 2
        assert (spool_of(sandbox) > 0) is (life == "long")


async def test_within_an_event_loop(shop: Application) -> None:
    with Sandbox(shop) as sandbox:
        tracker = TelemetryTracker.start(shop)
        await asyncio.gather(*(tracker.track("acme.visit", 1, {"pages": number}) for number in range(5)))
        assert sandbox.recorded("acme.visit") == [{"pages": number} for number in range(5)]
        await tracker.aclose()


def test_two_of_them_at_once(shop: Application) -> None:
    with Sandbox(shop) as outer, Sandbox() as inner:
        Service(shop).sign_up(plan="team")
        inner.telemetry.fire("cmdorc_trigger", Trigger(name="go", outcome="ran"))
        assert len(outer.recorded("acme.signup")) == len(inner.recorded("trigger_fired")) == 1


def test_wrong_questions_and_wrong_sources(shop: Application, spec: Path) -> None:
    with Sandbox(shop) as sandbox:
        with pytest.raises(ValueError, match=r"^no spec declares 'acme\.sinup'\. Did you mean 'acme\.signup'\?$"):
            sandbox.recorded("acme.sinup")
        with pytest.raises(ValueError, match=r"^no spec declares version 3 of 'acme\.signup'; expected 1 or 2$"):
            sandbox.recorded("acme.signup", 3)
        with pytest.raises(ValueError, match=r"^no spec declares 'x'$"):
            sandbox.recorded("x")
        with pytest.raises(ConfigError, match=r"^decide: share: found 'all'"):
            sandbox.decide("all")
    for ask in (lambda: sandbox.recorded("acme.signup"), lambda: Sandbox(shop).recorded("acme.signup")):
        with pytest.raises(RuntimeError, match="ask within the `with` block"):
            ask()
    with pytest.raises(ConfigError, match=r"^Sandbox: share: found 'al'; expected one of off, minimal"):
        Sandbox(shop, share="al")
    with pytest.raises(SpecError, match=r"nowhere\.toml: cannot be read: No such file or directory"):
        Sandbox(spec.with_name("nowhere.toml"))
    with pytest.raises(TypeError, match="found an Application among other sources"):
        Sandbox(shop, spec)
    with pytest.raises(TypeError, match="found 7; expected a spec, its file, a registry or an application"):
        Sandbox(7)  # type: ignore[arg-type]
    spec.write_text(SPEC.replace('"count"', '"coutn"'), encoding="utf-8")
    before = dict(os.environ)
    with pytest.raises(SpecError, match=r"events\[0\]\.properties\.seats\.type: found 'coutn'.*Did you mean 'count'"):
        Sandbox(spec)
    assert dict(os.environ) == before


def test_what_fails_at_the_start_leaves_nothing(shop: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)

    def full(*_: Any) -> None:
        raise OSError("full")

    monkeypatch.setattr("cmdorc_telemetry.testing.sandbox.save_decision", full)
    with pytest.raises(OSError, match="full"):
        Sandbox(shop).start()
    assert dict(os.environ) == before


def test_it_is_fast(shop: Application) -> None:
    def one() -> float:
        start = time.process_time()  # other tests may run at the same time
        with Sandbox(shop) as sandbox:
            Service(shop).sign_up(plan="team")
            assert len(sandbox.recorded("acme.signup")) == 1
        return time.process_time() - start

    assert min(one() for _ in range(10)) < 0.1


FIXTURES = """
import pytest
from cmdorc_telemetry import TelemetryTracker
from cmdorc_telemetry.application import Application
from cmdorc_telemetry.testing.fixtures import telemetry_sandbox, telemetry_sources

SHOP = Application("shop", "1.0", specs=({spec!r},))

@pytest.fixture
def telemetry_sources():
    return [SHOP]

def test_one(telemetry_sandbox):
    TelemetryTracker.start(SHOP).track_now("acme.visit", 1, {{"pages": 1}})
    assert telemetry_sandbox.recorded("acme.visit") == [{{"pages": 1}}]

def test_each_has_its_own(telemetry_sandbox):
    assert telemetry_sandbox.recorded("acme.visit") == []

def test_what_is_withheld_fails(telemetry_sandbox):
    telemetry_sandbox.tracker.emit("acme.visit", 1, {{"pages": -1}})
"""


OWN = """
from cmdorc_telemetry import Trigger
from cmdorc_telemetry.testing.fixtures import telemetry_sandbox, telemetry_sources

def test_cmdorc_s_own_events_without_a_source(telemetry_sandbox):
    telemetry_sandbox.telemetry.fire("cmdorc_trigger", Trigger(name="go", outcome="ran"))
    assert len(telemetry_sandbox.recorded("trigger_fired")) == 1
"""


def pytest_in(folder: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_as_a_fixture_that_is_imported_and_as_the_docs_have_it(tmp_path: Path, spec: Path) -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## An application\n")[2].partition("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    files = {"shop": FIXTURES.format(spec=str(spec)), "own": OWN, "example": "".join(examples)}
    for name, code in files.items():
        (tmp_path / f"test_{name}.py").write_text(code, encoding="utf-8")
    told = pytest_in(tmp_path)
    assert "5 passed, 1 error" in told
    assert "AssertionError: something was withheld:" in told


def test_as_a_fixture_of_a_plugin(tmp_path: Path, spec: Path) -> None:
    code = FIXTURES.format(spec=str(spec))
    code = code.replace("from cmdorc_telemetry.testing.fixtures import telemetry_sandbox, telemetry_sources\n", "")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["cmdorc_telemetry.testing.fixtures"]\n')
    (tmp_path / "test_shop.py").write_text(code, encoding="utf-8")
    assert "3 passed, 1 error" in pytest_in(tmp_path)


def test_versions_of_a_spec_may_stand_side_by_side() -> None:
    first = SPEC.replace('name = "acme.shop"', 'name = "acme.shop"\nversion = "1.0.0"')
    second = '[meta]\nname = "acme.shop"\nversion = "1.1.0"\n' + SPEC[SPEC.index('[[events]]\nname = "acme.visit"') :]
    second = second[: second.index("[[operations]]")].replace("acme.visit", "acme.left")
    application = Application("acme", "1", (parse_toml(first, "first"), parse_toml(second, "second")))
    with Sandbox(application) as sandbox:
        assert sandbox.tracker.track_now("acme.visit", None, {"pages": 1})
        assert sandbox.tracker.track_now("acme.left", None, {"pages": 2})
        assert [sandbox.recorded(name) for name in ("acme.visit", "acme.left")] == [[{"pages": 1}], [{"pages": 2}]]
