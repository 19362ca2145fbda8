"""Operations tell what became of them, once, and are otherwise what they were."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import OperationDenied, OperationError
from cmdorc_telemetry.operations import OperationRegistry, Tracked, lead, spec_operation
from cmdorc_telemetry.spec import Operation, Outcome

OPERATION = Operation(
    name="acme.signup",
    success=Outcome(event="signed_up", version=2, properties={"plan": "input.plan", "id": "output.id"}),
    failure=Outcome(
        event="signup_failed", properties={"plan": "input.plan", "why": "error.class", "code": "error.code"}
    ),
)


class Emitted(list[tuple[str, Any, dict[str, Any]]]):
    """Everything that was tracked."""

    def emit(self, event: str, version: Any, properties: Mapping[str, Any]) -> None:
        self.append((event, version, {name: value for name, value in properties.items() if name != "duration_ms"}))
        assert isinstance(properties["duration_ms"], int)


@dataclass
class User:
    id: int
    _secret: str = "s"


class Full(Exception):
    code = 507


SUCCESS = ("signed_up", 2, {"outcome": "success", "plan": "team", "id": 7})


def failure(error: str, **more: Any) -> tuple[str, Any, dict[str, Any]]:
    return "signup_failed", None, {"outcome": "failure", "error_class": error, "why": error, **more}


def test_a_function_tells_its_success_and_its_failure() -> None:
    emitted = Emitted()

    @Tracked(emitted, OPERATION)
    def signup(name: str, plan: str = "team", *, full: bool = False) -> User:
        """Sign up."""
        if full:
            raise Full("no room")
        return User(7)

    assert signup("jane").id == 7
    with pytest.raises(Full, match="no room"):
        signup("jane", "free", full=True)
    assert emitted == [SUCCESS, failure("Full", plan="free", code=507)]
    assert (signup.__name__, signup.__doc__) == ("signup", "Sign up.")


def test_arguments_that_do_not_fit_are_a_failure_and_raise_what_they_always_did() -> None:
    emitted = Emitted()
    signup = Tracked(emitted, OPERATION)(lambda plan: None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'plam'"):
        signup(plam="team")
    assert emitted == [failure("TypeError")]


def test_a_coroutine_function_stays_one_and_tells_when_it_is_done() -> None:
    emitted = Emitted()
    going = asyncio.Event()

    @Tracked(emitted, OPERATION)
    async def signup(plan: str) -> dict[str, int]:
        if plan == "slow":
            going.set()
            await asyncio.Event().wait()
        return {"id": 7}

    async def main() -> None:
        assert inspect.iscoroutinefunction(signup)
        coroutine = signup("team")
        assert emitted == []
        await coroutine
        assert emitted == [SUCCESS]
        task = asyncio.create_task(signup("slow"))
        await going.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert emitted == [SUCCESS, failure("CancelledError", plan="slow")]


def test_many_calls_at_once_do_not_meet() -> None:
    emitted = Emitted()

    @Tracked(emitted, OPERATION)
    async def signup(plan: int) -> SimpleNamespace:
        await asyncio.sleep(0)
        return SimpleNamespace(id=plan * 10)

    async def main() -> None:
        await asyncio.gather(*(signup(number) for number in range(50)))

    asyncio.run(main())
    assert sorted((told["plan"], told["id"]) for _, _, told in emitted) == [(n, n * 10) for n in range(50)]


def test_a_context_manager_takes_what_it_is_told() -> None:
    emitted = Emitted()
    tracked = Tracked(emitted, OPERATION)
    with tracked as running:
        running.input = {"plan": "team"}
        running.output = User(7)
    with pytest.raises(Full), tracked as running:
        raise Full
    with tracked as running:
        running.fail({"class": "NoRoom", "code": 3})
    assert emitted == [SUCCESS, failure("Full", code=507), failure("NoRoom", code=3)]


def test_an_asynchronous_context_manager_does_too_and_nests() -> None:
    emitted = Emitted()
    tracked = Tracked(emitted, OPERATION)

    async def main() -> None:
        async with tracked as outer:
            outer.input = {"plan": "outer"}
            async with tracked as inner:
                inner.input = {"plan": "inner"}

    asyncio.run(main())
    assert [told["plan"] for _, _, told in emitted] == ["inner", "outer"]


def test_how_long_it_took_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((10.0, 12.5))
    monkeypatch.setattr(clock, "monotonic", lambda: next(moments))
    told: dict[str, Any] = {}
    emitter = SimpleNamespace(emit=lambda event, version, properties: told.update(properties))
    with Tracked(emitter, OPERATION):
        pass
    assert told["duration_ms"] == 2500


def test_an_outcome_that_nobody_declared_tells_nothing() -> None:
    emitted = Emitted()
    with Tracked(emitted, spec_operation("quiet", None, "failed")):
        pass
    assert emitted == []
    with pytest.raises(Full), Tracked(emitted, spec_operation("quiet", None, "failed")):
        raise Full
    assert emitted == [("failed", None, {"outcome": "failure", "error_class": "Full"})]


# -- paths -------------------------------------------------------------------------------------------------------------


class Hostile:
    @property
    def bad(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize(("path", "expected"), [
    ("input", {"plan": "team", "list": [{"n": 1}], 3: 4}), ("input.plan", "team"), ("input.list.0.n", 1),
    ("input.list.9.n", None), ("input.list.x", None), ("input.gone.further", None), ("output.id", 7),
    ("output._secret", None), ("output.__class__", None), ("hostile.bad", None), ("hostile.gone", None),
    ("error.class", "Full"), ("error.message", "no room"), ("error.code", 507), ("gone", None), ("", None),
    ("duration_ms", 5), ("output.id.real.real", 7),
])  # fmt: skip
def test_a_path_leads_by_keys_attributes_and_places(path: str, expected: object) -> None:
    sources = {"input": {"plan": "team", "list": [{"n": 1}], 3: 4}, "output": User(7), "hostile": Hostile(),
               "error": Full("no room"), "duration_ms": 5}  # fmt: skip
    assert lead(sources, path) == expected


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=20), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_no_path_raises(path: str, value: object) -> None:
    lead({"input": value, "error": Full(), "output": Hostile()}, path)


# -- by name -----------------------------------------------------------------------------------------------------------


class Signup(Struct):
    plan: str


class Made(Struct):
    id: int


class Calling(SimpleNamespace):
    """A caller's context."""


def registry(handler: Any = lambda given, ctx: {"id": 7}) -> OperationRegistry:
    made = OperationRegistry()
    made.register(OPERATION, handler, input=Signup, output=Made, allow=lambda given, ctx: given.plan != "admin")
    return made


def run(operations: OperationRegistry, args: object, **more: Any) -> tuple[Any, Emitted]:
    emitted = Emitted()
    context = Calling(telemetry=emitted, **more)
    try:
        return asyncio.run(operations.execute("acme.signup", args, context)), emitted
    except Exception as fault:
        return fault, emitted


async def later(given: Signup, ctx: Any) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"id": 7}


@pytest.mark.parametrize("handler", [lambda given, ctx: {"id": 7}, later])
def test_what_is_executed_tells_its_success(handler: Any) -> None:
    assert run(registry(handler), {"plan": "team"}) == (Made(7), [SUCCESS])


def test_bad_input_denial_and_bad_output_are_failures() -> None:
    fault, emitted = run(registry(), {"plan": 3})
    assert isinstance(fault, OperationError)
    assert str(fault) == "acme.signup: what it was given is wrong: Expected `str`, got `int` - at `$.plan`"
    assert emitted == [failure("OperationError", plan=3)]
    fault, emitted = run(registry(), {"plan": "admin"})
    assert isinstance(fault, OperationDenied)
    assert emitted == [failure("OperationDenied", plan="admin")]
    fault, emitted = run(registry(lambda given, ctx: {"id": "x"}), {"plan": "team"})
    assert str(fault) == "acme.signup: what came of it is wrong: Expected `int`, got `str` - at `$.id`"
    assert emitted == [failure("OperationError", plan="team")]


def test_without_telemetry_in_its_context_it_runs_all_the_same() -> None:
    for context in (Calling(), Calling(telemetry=None)):
        assert asyncio.run(registry().execute("acme.signup", {"plan": "team"}, context)) == Made(7)


def test_a_name_is_registered_once_and_nothing_else_is_executed() -> None:
    operations = registry()
    with pytest.raises(OperationError, match=r"'acme\.signup' is registered already"):
        operations.register(OPERATION, later)
    with pytest.raises(OperationError, match=r"'acme\.sign' is not registered"):
        asyncio.run(operations.execute("acme.sign", {}, Calling()))
