"""Operations that stand in a spec file, through a real tracker: what others get wrong there, ours does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from cmdorc_telemetry.errors import OperationDenied, OperationError
from cmdorc_telemetry.operations import OperationRegistry
from cmdorc_telemetry.spec import Operation, Outcome, TelemetrySpec, parse_json, parse_toml
from cmdorc_telemetry.spec.lint import lint
from cmdorc_telemetry.testing import Sandbox

SPEC = """
[meta]
name = "bank.telemetry"
owners = ["@bank.sync"]

[[operations]]
name = "accounts.sync"
failure = { event = "accounts.sync_failed", properties = { "context.tenant" = "context.tenant", plan = "input.plan" } }

[operations.success]
event = "accounts.synced"
properties = { "context.tenant" = "context.tenant", plan = "input.plan", synced = "output.synced" }

[[events]]
name = "accounts.synced"
version = 1
semantics = { what = "Accounts were synchronised" }
properties = { old = { type = "bool" } }

[[events]]
name = "accounts.synced"
version = 2
semantics = { what = "Accounts were synchronised" }
[events.properties]
plan = { type = "enum", members = ["free", "team"], required = true }
synced = { type = "count" }
duration_ms = { type = "duration_ms" }
outcome = { type = "enum", members = ["success"] }

[[events]]
name = "accounts.sync_failed"
semantics = { what = "Accounts could not be synchronised" }
[events.properties]
plan = { type = "enum", members = ["free", "team"] }
error_class = { type = "enum", members = ["OperationError", "OperationDenied", "Broken"] }
outcome = { type = "enum", members = ["failure"] }

[context.tenant]
type = "enum"
members = ["acme"]
"""


class Given(Struct):
    plan: str


class Made(Struct):
    synced: int


class Broken(Exception):
    pass


def handler(given: Given, ctx: Any) -> Any:
    if given.plan == "broken":
        raise Broken("IBAN DE00 1234")
    return {"synced": "many"} if given.plan == "wrong" else {"synced": 3}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    file = tmp_path / "bank.telemetry.toml"
    file.write_text(SPEC, encoding="utf-8")
    with Sandbox(file, strict=False) as sandbox:
        yield sandbox


@pytest.fixture
def operations(sandbox: Sandbox) -> OperationRegistry:
    made = OperationRegistry()
    (operation,) = parse_toml(SPEC, "bank").operations
    made.register(operation, handler, input=Given, output=Made, allow=lambda given, ctx: given.plan != "free")
    return made


def execute(operations: OperationRegistry, sandbox: Sandbox, args: object) -> Any:
    ctx = SimpleNamespace(telemetry=sandbox.tracker, tenant="acme", organization="somebody else")
    try:
        return asyncio.run(operations.execute("accounts.sync", args, ctx))
    except (OperationError, Broken) as fault:
        return type(fault)


def told(sandbox: Sandbox, event: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "duration_ms"} for each in sandbox.recorded(event)]


def test_an_operation_that_names_no_version_sends_the_latest(sandbox: Sandbox, operations: OperationRegistry) -> None:
    assert execute(operations, sandbox, {"plan": "team"}) == Made(3)
    (event,) = sandbox.recorded("accounts.synced")
    assert event.version == 2
    assert event["duration_ms"] >= 0, "it knows how long it took, and what became of it, without being told to"
    assert told(sandbox, "accounts.synced") == [
        {"plan": "team", "synced": 3, "outcome": "success", "context.tenant": "acme"}
    ]


@pytest.mark.parametrize(("args", "raised", "plan"), [
    ({"plan": 3}, OperationError, None), ({"plan": "free"}, OperationDenied, "free"),
    ({"plan": "broken"}, Broken, "other"), ({"plan": "wrong"}, OperationError, "other"),
])  # fmt: skip
def test_every_way_to_fail_is_a_failure_and_none_a_success(
    sandbox: Sandbox, operations: OperationRegistry, args: object, raised: type, plan: str | None
) -> None:
    assert execute(operations, sandbox, args) is raised
    assert sandbox.recorded("accounts.synced") == []
    known = {} if plan is None else {"plan": plan}
    assert told(sandbox, "accounts.sync_failed") == [
        {"outcome": "failure", "error_class": raised.__name__, "context.tenant": "acme", **known}
    ]
    assert "IBAN" not in str(sandbox.recorded("accounts.sync_failed"))


def test_a_decorated_function_finds_its_operation_by_name(sandbox: Sandbox) -> None:
    @sandbox.tracker.operation("accounts.sync")
    def sync(plan: str) -> Made:
        return Made(5)

    assert sync("team") == Made(5)
    with sandbox.tracker.operation("accounts.sync") as running:
        running.input, running.output, running.context = {"plan": "free"}, {"synced": 1}, {"tenant": "acme"}
    assert told(sandbox, "accounts.synced") == [
        {"plan": "team", "synced": 5, "outcome": "success"},
        {"plan": "free", "synced": 1, "outcome": "success", "context.tenant": "acme"},
    ]


def test_the_latest_spec_says_what_an_operation_sends(tmp_path: Path) -> None:
    files = tmp_path / "first.toml", tmp_path / "second.toml"
    files[0].write_text(SPEC, encoding="utf-8")
    later = SPEC.replace('"bank.telemetry"', '"bank.telemetry"\nversion = 2').replace("input.plan", "input.tariff")
    files[1].write_text(later, encoding="utf-8")
    with Sandbox(*files) as sandbox:
        with sandbox.tracker.operation("accounts.sync") as running:
            running.input, running.output = {"tariff": "team"}, {"synced": 1}
        assert told(sandbox, "accounts.synced") == [{"plan": "team", "synced": 1, "outcome": "success"}]


# -- an operation whose declaration is wrong ---------------------------------------------------------------------------

ACCOUNTS = """{"meta": {"key": "pfo.telemetry", "version": "1.0.0", "owners": ["platform.finance"], "tags": [],
  "description": "Workflow telemetry with bank syncs", "stability": "experimental"},
 "events": [{"key": "openbanking.accounts.synced", "version": "1.0.0", "semantics": {"what": "Accounts synchronised"},
  "privacy": "internal", "properties": {"tenantId": {"type": "string", "required": true},
   "configVersion": {"type": "number", "required": true}, "connectionId": {"type": "string", "required": true},
   "syncedCount": {"type": "number"}, "failedCount": {"type": "number"}, "durationMs": {"type": "number"}}}]}"""
SENT = {"tenantId": "input.tenantId", "connectionId": "input.connectionId", "synced": "output.synced",
        "failed": "output.failed"}  # fmt: skip


def with_operation(**outcomes: Any) -> TelemetrySpec:
    spec = parse_json(ACCOUNTS, "pfo.telemetry.json")
    return replace(spec, operations=(Operation(name="openbanking.accounts.sync", **outcomes),))


def test_an_event_that_is_declared_nowhere_makes_no_spec() -> None:
    with pytest.raises(ValueError, match=r"emits 'openbanking\.accounts\.sync_failed', which is not declared"):
        with_operation(failure=Outcome(event="openbanking.accounts.sync_failed", properties=SENT))


def test_what_an_operation_sends_wrongly_or_not_at_all_is_found() -> None:
    spec = with_operation(success=Outcome(event="openbanking.accounts.synced", properties=SENT))
    at = "operations.openbanking.accounts.sync.success"
    found = [(each.lint, each.at, each.message) for each in lint(spec, date(2026, 1, 1)) if each.at.startswith(at)]
    declares = "is sent with openbanking.accounts.synced, which declares no such property"
    assert found == [
        ("undeclared-outcome", f"{at}.synced", declares), ("undeclared-outcome", f"{at}.failed", declares),
        ("incomplete-outcome", at, "leaves out 'configVersion', which openbanking.accounts.synced requires"),
    ]  # fmt: skip
    mended = {"tenantId": "input.tenantId", "connectionId": "input.connectionId", "configVersion": "input.version",
              "syncedCount": "output.synced", "failedCount": "output.failed", "durationMs": "duration_ms"}  # fmt: skip
    spec = with_operation(success=Outcome(event="openbanking.accounts.synced", properties=mended))
    assert [each for each in lint(spec, date(2026, 1, 1)) if each.at.startswith(at)] == []
