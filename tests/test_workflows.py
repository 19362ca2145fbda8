"""What a spec makes of runs and chains arrives as its events: real cmdorc runs, a real decision, what is on disk."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import cmdorc
import pytest

from cmdorc_telemetry import TelemetryOrchestrator
from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.consent import Grant, renew, save_decision
from cmdorc_telemetry.hookspecs import hookimpl
from cmdorc_telemetry.lifecycle import Chain, CompletedRun
from cmdorc_telemetry.spec import Operation, Workflow, load_spec, parse_toml
from cmdorc_telemetry.spec.lint import lint
from cmdorc_telemetry.spec.sources import RUN, WORKFLOW
from cmdorc_telemetry.testing import Sandbox
from cmdorc_telemetry.workflows import _Table

PAGE = (Path(__file__).parents[1] / "docs" / "workflows.md").read_text(encoding="utf-8")
CONFIG, PIPELINE, SPEC = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


class Machine:
    """A user who said yes to cmdorc's own spec and to one more, which is in a file."""

    def __init__(self, folder: Path, text: str) -> None:
        file = folder / "acme.telemetry.toml"
        file.write_text(text, encoding="utf-8")
        (spec,) = [load_spec(file)]
        self.sandbox = Sandbox(CMDORC._replace(specs=(*CMDORC.specs, spec)), strict=False)
        self.sandbox.start()
        self.sandbox.home.config.write_text(f'[telemetry]\nspecs = ["{file}"]\n', encoding="utf-8")

    def orchestrator(self, pipeline: str | list[cmdorc.CommandConfig], folder: Path, **options: Any) -> Any:
        if isinstance(pipeline, str):
            (folder / "cmdorc.toml").write_text(pipeline, encoding="utf-8")
            return TelemetryOrchestrator(cmdorc.load_config(folder / "cmdorc.toml"), **options)
        return TelemetryOrchestrator(cmdorc.RunnerConfig(commands=pipeline), **options)

    def told(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """The events of these names, with what they hold, durations and ids left out."""
        return [(name, {key: value for key, value in each.items() if key not in ("duration_ms", "workflow_id")})
                for name in names for each in self.sandbox.recorded(name)]  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, SPEC)
    yield machine
    machine.sandbox.stop()


async def quiet(orchestrator: Any) -> None:
    await until(lambda: not orchestrator._handles)
    await orchestrator.shutdown()


PLACES = ("workflow_id", "index", "duration_ms", "outcome", "error_class", "suite", "step", "command", "steps",
          "failed")  # fmt: skip


def words(event: dict[str, Any]) -> str:
    """An event as the page writes it."""
    return ", ".join(f"`{key}`" if key in ("duration_ms", "workflow_id") else f"`{key}` {event[key]}"
                     for key in sorted(event, key=PLACES.index))  # fmt: skip


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_spec_of_the_page_has_no_findings() -> None:
    assert lint(parse_toml(SPEC, "acme.telemetry.toml"), date(2026, 1, 1)) == []
    assert 'specs = ["acme.telemetry.toml"]' in CONFIG


async def test_the_example_of_the_page_records_what_the_page_says(machine: Machine, tmp_path: Path) -> None:
    orchestrator = machine.orchestrator(PIPELINE, tmp_path)
    await orchestrator.trigger("release")
    await quiet(orchestrator)
    expected = re.findall(r"^\| `(acme\.\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    names = dict.fromkeys(event for event, _ in expected)
    assert sorted((name, words(each)) for name in names for each in machine.sandbox.recorded(name)) == sorted(expected)
    ids = {each["workflow_id"] for name in names for each in machine.sandbox.recorded(name) if "workflow_id" in each}
    assert len(ids) == 1
    shared = [each.shared for each in machine.sandbox.recorded("acme.release_step_ended")]
    assert all(each is not None and "command" not in each for each in shared)
    assert "secret place" not in str(shared)


def test_the_page_names_the_paths_that_there_are() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (`.*`) \|$", PAGE, re.MULTILINE)
    told = {row: re.findall(r"`(\w+)`", paths) for row, paths in rows}
    assert set(told.pop("operations with `commands`")) == set(RUN)
    assert {which: set(told[f"`{which}`"]) for which in WORKFLOW} == {
        which: set(paths) for which, paths in WORKFLOW.items()
    }


# -- operations --------------------------------------------------------------------------------------------------------


async def test_which_ends_are_a_success(machine: Machine, tmp_path: Path) -> None:
    commands = [
        cmdorc.CommandConfig(name="Tests unit", command="true", triggers=[]),
        cmdorc.CommandConfig(name="Tests browser", command="exec sleep 20", triggers=[], timeout_secs=1),
        cmdorc.CommandConfig(name="Tests of ours", command="exec sleep 20", triggers=[]),
        cmdorc.CommandConfig(name="My Tests", command="true", triggers=[]),
        cmdorc.CommandConfig(name="Tests left", command="exec sleep 1", triggers=[]),
    ]  # fmt: skip
    orchestrator = machine.orchestrator(commands, tmp_path)
    for name in ("Tests unit", "My Tests", "Tests browser", "Tests of ours"):
        await orchestrator.run_command(name)
    await until(lambda: orchestrator.get_status("Tests of ours").state == "running")
    await orchestrator.cancel_command("Tests of ours")
    await until(lambda: not orchestrator._handles)
    await orchestrator.run_command("Tests left")
    await orchestrator.shutdown(timeout=0.01, cancel_running=False)
    await orchestrator._executor.cleanup()
    assert machine.told("acme.tests_passed", "acme.tests_failed") == [
        ("acme.tests_passed", {}),
        ("acme.tests_failed", {"outcome": "cancelled", "error_class": "cancelled", "suite": "other"}),
        ("acme.tests_failed", {"outcome": "failure", "error_class": "timed_out", "suite": "Tests browser"}),
        ("acme.tests_failed", {"outcome": "cancelled", "error_class": "cancelled", "suite": "other"}),
    ]
    assert machine.sandbox.recorded("acme.tests_failed")[1]["duration_ms"] >= 1000
    assert len(machine.sandbox.recorded("command_completed")) == 5


async def test_a_name_goes_nowhere_that_does_not_bound_it(tmp_path: Path) -> None:
    loose = SPEC.replace('suite = { type = "enum", members = ["Tests unit", "Tests browser"],',
                         'suite = { type = "string", pattern = ".*", max_length = 50,')  # fmt: skip
    assert [finding.lint for finding in lint(parse_toml(loose, "x"), date(2026, 1, 1))] == ["private-source"]
    machine = Machine(tmp_path, loose)
    try:
        orchestrator = machine.orchestrator(PIPELINE, tmp_path)
        await orchestrator.run_command("Tests browser")
        await quiet(orchestrator)
        assert machine.told("acme.tests_failed") == [
            ("acme.tests_failed", {"outcome": "failure", "error_class": "failed"})
        ]
    finally:
        machine.sandbox.stop()


async def test_steps_tell_what_led_to_them_and_when_they_began_to_nobody_else(tmp_path: Path) -> None:
    private = """
causes = { type = "count", max_items = 9, audience = "private" }
began = { type = "count", audience = "private" }
shared = { type = "count" }

# The name as it is"""
    paths = '{ step = "step", causes = "causes", began = "started_ms", shared = "started_ms", command = "step" }'
    text = SPEC.replace("\n# The name as it is", private).replace('{ step = "step", command = "step" }', paths)
    assert [finding.lint for finding in lint(parse_toml(text, "x"), date(2026, 1, 1))].count("private-source") == 1
    machine = Machine(tmp_path, text)
    try:
        before = time.time() * 1000 - 1
        orchestrator = machine.orchestrator(PIPELINE, tmp_path)
        await orchestrator.trigger("release")
        await quiet(orchestrator)
        steps = {step["command"]: step for step in machine.sandbox.recorded("acme.release_step_ended")}
        index = {name: step["index"] for name, step in steps.items()}
        assert {name: step["causes"] for name, step in steps.items()} == {
            "Build": [], "Tests unit": [index["Build"]], "Tests browser": [index["Build"]],
            "Upload to the secret place": [index["Tests unit"]],
        }  # fmt: skip
        assert all(before <= step["began"] <= time.time() * 1000 for step in steps.values())
        assert not any("shared" in step for step in steps.values())
        nowhere = [cmdorc.CommandConfig(name="Build", command="true", triggers=["release"], cwd=tmp_path / "nowhere")]
        before = time.time() * 1000 - 1
        orchestrator = machine.orchestrator(nowhere, tmp_path)
        await orchestrator.trigger("release")
        await quiet(orchestrator)
        *_, unstarted = machine.sandbox.recorded("acme.release_step_ended")
        assert unstarted["outcome"] == "failure"
        assert before <= unstarted["began"] <= time.time() * 1000, "what never started began when it ended"
    finally:
        machine.sandbox.stop()


async def test_nothing_is_recorded_that_nobody_agreed_to(machine: Machine, tmp_path: Path) -> None:
    save_decision(machine.sandbox.home, {"acme.ci": Grant()})
    orchestrator = machine.orchestrator(PIPELINE, tmp_path)
    await orchestrator.trigger("release")
    await quiet(orchestrator)
    assert machine.told("acme.tests_passed", "acme.release_started", "acme.release_completed") == []
    assert len(machine.sandbox.recorded("command_completed")) == 4


VERSIONS = """
[meta]
name = "acme.ci"
version = "1.2.0"

[[operations]]
name = "all"
commands = ["*"]
success = { event = "acme.ended", version = 1, properties = { by = "name", chain = "chain_depth", hand = "manual" } }
failure = { event = "acme.ended", properties = { by = "name" } }

[[operations]]
name = "silent"
commands = ["*"]

[[operations]]
name = "not a command"
success = { event = "acme.ended" }

[[events]]
name = "acme.ended"
version = 1
semantics = { what = "x" }
[events.properties]
by = { type = "enum", members = ["all"] }
chain = { type = "count" }
hand = { type = "bool" }

[[events]]
name = "acme.ended"
version = 2
semantics = { what = "x" }
[events.properties]
by = { type = "enum", members = ["all"] }
steps = { type = "count" }
"""


async def test_an_event_has_the_version_that_its_outcome_names_or_the_latest(tmp_path: Path) -> None:
    machine = Machine(tmp_path, VERSIONS)
    try:
        orchestrator = machine.orchestrator(PIPELINE, tmp_path)
        assert not orchestrator.telemetry.hears("cmdorc_chain"), "there is no workflow"
        await orchestrator.run_command("Build")
        await quiet(orchestrator)
        told = machine.sandbox.recorded("acme.ended")
        first = told[0]
        assert (first.version, dict(first)) == (1, {"by": "all", "chain": 0, "hand": True})
        rest = sorted((each.version, each["by"], each.get("hand"), each.get("chain", 0) > 0) for each in told[1:])
        assert rest == [(1, "all", False, True)] * 2 + [(2, "all", None, False)]
    finally:
        machine.sandbox.stop()


async def test_any_number_of_commands_is_no_burden(machine: Machine, tmp_path: Path) -> None:
    telemetry = machine.orchestrator(PIPELINE, tmp_path).telemetry
    for number in range(1100):
        telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name=f"Tests {number}", state="success"))
        telemetry.fire("cmdorc_completed", CompletedRun(run_id="r", command_name=f"Lint {number}", state="success"))
    tables = [each for each in gc.get_objects() if type(each) is _Table]
    assert tables
    assert max(len(table._found) for table in tables) <= 1000
    assert len(machine.sandbox.recorded("acme.tests_passed")) == 1100


@pytest.mark.parametrize(("pattern", "name", "alike"), [
    ("Tests", "Tests", True), ("Tests", "Tests unit", False), ("Tests*", "Tests", True), ("Tests *", "Tests a", True),
    ("*unit", "Tests unit", True), ("*unit", "Tests units", False), ("T*s*t", "Tests unit", True),
    ("T*s*t", "Ts", False), ("*", "two\nlines", True), ("[ab]", "[ab]", True), ("[ab]", "a", False),
    ("[ab]*", "[ab]c", True), ("?", "a", False),
])  # fmt: skip
def test_a_star_is_anything_and_every_other_sign_itself(pattern: str, name: str, alike: bool) -> None:
    assert Operation(name="x", commands=("y", pattern)).covers(name) is alike
    assert Workflow(name="x", triggers=("y", pattern)).begins(name) is alike


async def test_operations_of_functions_alone_listen_to_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, VERSIONS.replace('commands = ["*"]', ""))
    try:
        recorder = machine.orchestrator(PIPELINE, tmp_path).telemetry._recorder
        assert [name for name, _ in recorder.listeners()] == ["telemetry"]
    finally:
        machine.sandbox.stop()


# -- workflows ---------------------------------------------------------------------------------------------------------


async def test_workflows_at_once_have_ids_of_their_own(machine: Machine, tmp_path: Path) -> None:
    commands = [cmdorc.CommandConfig(name="Build", command="true", triggers=["release"], max_concurrent=0),
                cmdorc.CommandConfig(name="Tests unit", command="true", triggers=["command_success:Build"],
                                     max_concurrent=0)]  # fmt: skip
    orchestrator = machine.orchestrator(commands, tmp_path)
    await asyncio.gather(*(orchestrator.trigger("release") for _ in range(5)), orchestrator.trigger("nobody"))
    await quiet(orchestrator)
    begun, steps, over = (machine.sandbox.recorded(f"acme.release_{what}")
                          for what in ("started", "step_ended", "completed"))  # fmt: skip
    ids = [each["workflow_id"] for each in begun]
    assert len(set(ids)) == len(over) == 5
    assert {(each["workflow_id"], each["outcome"], each["steps"]) for each in over} == {
        (each, "success", 2) for each in ids
    }
    assert Counter((each["workflow_id"], each["index"], each["step"]) for each in steps) == Counter(
        (each, *step) for each in ids for step in ((0, "Build"), (1, "Tests unit"))
    )


TWICE = (
    SPEC[SPEC.index("[[workflows]]") :]
    + """
[[workflows]]
name = "any"
triggers = ["rel*"]
completed = { event = "acme.release_completed" }
"""
)


async def test_an_id_links_one_workflow_under_one_decision_and_nothing_else(tmp_path: Path) -> None:
    machine = Machine(tmp_path, '[meta]\nname = "acme.ci"\n' + TWICE)
    seen: list[Chain] = []

    class Seeing:
        @hookimpl
        def cmdorc_chain(self, chain: Chain) -> None:
            seen.append(chain)

    try:
        commands = [cmdorc.CommandConfig(name="Build", command="exec sleep 20", triggers=["release"])]
        orchestrator = machine.orchestrator(commands, tmp_path, plugins=[Seeing()])
        await orchestrator.trigger("release")
        renew(machine.sandbox.home)
        for recorder in [orchestrator.telemetry._recorder]:
            recorder._hand_over()
        await orchestrator.shutdown()
        (begun,) = machine.sandbox.recorded("acme.release_started")
        (step,) = machine.sandbox.recorded("acme.release_step_ended")
        first, second = machine.sandbox.recorded("acme.release_completed")
        assert [each["outcome"] for each in (step, first, second)] == ["cancelled"] * 3
        assert step["workflow_id"] in (first["workflow_id"], second["workflow_id"])
        assert len({each["workflow_id"] for each in (begun, first, second)} | {seen[0].id}) == 4
        assert [chain.outcome for chain in seen] == [None, "cancelled"]
    finally:
        machine.sandbox.stop()


async def test_a_plugin_may_listen_to_chains_whether_or_not_telemetry_is_on(tmp_path: Path) -> None:
    seen: list[Chain] = []

    class Seeing:
        @hookimpl
        def cmdorc_chain(self, chain: Chain) -> None:
            seen.append(chain)

    with Sandbox(share=None):
        commands = [cmdorc.CommandConfig(name="A", command="true", triggers=["go"])]
        orchestrator = TelemetryOrchestrator(cmdorc.RunnerConfig(commands=commands), plugins=[Seeing()])
        assert not orchestrator.telemetry.recording
        await orchestrator.trigger("go")
        await quiet(orchestrator)
    assert [(chain.trigger, chain.outcome, chain.runs) for chain in seen] == [("go", None, 1), ("go", "success", 1)]
