"""Operations tell what became of them, once, and are otherwise what they were."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import OperationDenied, OperationError
from cmdorc_telemetry.operations import OperationRegistry, Tracked, _entered, lead, spec_operation
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
    signup: Any = Tracked(emitted, OPERATION)(lambda plan: None)
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

    @property
    def end(self) -> int:
        raise SystemExit


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Unreadable(dict[str, Any]):
    def get(self, *args: Any) -> Any:
        raise SystemExit


@pytest.mark.parametrize(("path", "expected"), [
    ("input", {"plan": "team", "list": [{"n": 1}], 3: 4}), ("input.plan", "team"), ("input.list.0.n", 1),
    ("input.list.9.n", None), ("input.list.x", None), ("input.gone.further", None), ("output.id", 7),
    ("output._secret", None), ("output.__class__", None), ("hostile.bad", None), ("hostile.gone", None),
    ("hostile.end", None), ("error.class", "Full"), ("error.message", "no room"), ("error.code", 507), ("gone", None),
    ("", None), ("duration_ms", 5), ("output.id.real.real", 7),
])  # fmt: skip
def test_a_path_leads_by_keys_attributes_and_places(path: str, expected: object) -> None:
    sources = {"input": {"plan": "team", "list": [{"n": 1}], 3: 4}, "output": User(7), "hostile": Hostile(),
               "error": Full("no room"), "duration_ms": 5}  # fmt: skip
    assert lead(sources, path) == expected


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=20), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_no_path_raises(path: str, value: object) -> None:
    lead({"input": value, "error": Full(), "output": Hostile()}, path)


@pytest.mark.parametrize(("error", "told"), [(Unspeakable(), "Unspeakable"), (Unreadable(), "error")])
def test_a_failure_is_told_though_nothing_can_be_asked_of_the_error(error: Any, told: str) -> None:
    emitted = Emitted()
    outcome = Outcome(event="signup_failed", properties={"why": "error.message", "code": "error.code"})
    with Tracked(emitted, spec_operation("acme.signup", None, outcome)) as running:
        running.fail(error)
    assert emitted == [("signup_failed", None, {"outcome": "failure", "error_class": told})]


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


def test_what_has_no_types_is_taken_and_given_as_it_is() -> None:
    operations = OperationRegistry()
    operations.register(OPERATION, lambda given, ctx: (given, ctx.name))
    assert asyncio.run(operations.execute("acme.signup", [3], Calling(name="x"))) == ([3], "x")


def test_a_name_is_registered_once_and_nothing_else_is_executed() -> None:
    operations = registry()
    with pytest.raises(OperationError, match=r"'acme\.signup' is registered already"):
        operations.register(OPERATION, later)
    with pytest.raises(OperationError, match=r"'acme\.sign' is not registered"):
        asyncio.run(operations.execute("acme.sign", {}, Calling()))


# -- every kind of function --------------------------------------------------------------------------------------------


def test_a_generator_is_an_operation_until_it_is_exhausted() -> None:
    emitted = Emitted()

    @Tracked(emitted, OPERATION)
    def rows(plan: str) -> Generator[int, int, User]:
        got = yield 1
        if got == 5:
            raise Full
        yield got
        return User(7)

    assert inspect.isgeneratorfunction(rows)
    assert list(rows("unused")) == [1, None]
    assert emitted.pop()[2]["id"] == 7
    talking = rows("team")
    assert next(talking) == 1
    assert emitted == [], "its outcome is not known yet"
    assert talking.send(4) == 4
    with pytest.raises(StopIteration) as stopped:
        next(talking)
    assert stopped.value.value == User(7)
    assert emitted == [SUCCESS]
    failing = rows("team")
    next(failing)
    with pytest.raises(Full):
        failing.send(5)
    assert emitted[1:] == [failure("Full", plan="team", code=507)]


def test_whoever_takes_only_the_first_of_a_generator_makes_no_failure() -> None:
    emitted = Emitted()

    @Tracked(emitted, OPERATION)
    def rows(plan: str) -> Generator[int, None, None]:
        yield 1
        yield 2

    rows("never begun").close()
    assert emitted == []
    taken = rows("team")
    next(taken)
    taken.close()
    assert [event for event, *_ in emitted] == ["signed_up"]


def test_an_asynchronous_generator_stays_one() -> None:
    emitted, seen = Emitted(), list[str]()

    @Tracked(emitted, OPERATION)
    async def rows(plan: str) -> AsyncGenerator[str, str]:
        try:
            got = yield "first"
            while got != "end":
                try:
                    got = yield got
                except Full:
                    got = "caught"
            if plan == "fails":
                raise Full
        finally:
            seen.append(plan)

    async def main() -> None:
        assert inspect.isasyncgenfunction(rows)
        talking = rows("team")
        assert [await anext(talking), await talking.asend("x")] == ["first", "x"]
        assert await talking.athrow(Full()) == "caught"
        assert emitted == []
        with pytest.raises(StopAsyncIteration):
            await talking.asend("end")
        failing = rows("fails")
        await anext(failing)
        with pytest.raises(Full):
            await failing.asend("end")
        closed = rows("closed")
        await anext(closed)
        await closed.aclose()
        assert seen[-1] == "closed"
        with pytest.raises(TypeError):
            await anext(rows())  # type: ignore[call-arg]

    asyncio.run(main())
    assert seen == ["team", "fails", "closed"]
    assert [(event, told.get("error_class")) for event, _, told in emitted] == [
        ("signed_up", None), ("signup_failed", "Full"), ("signed_up", None), ("signup_failed", "TypeError")
    ]  # fmt: skip


def test_methods_of_every_kind() -> None:
    emitted = Emitted()
    tracked = Tracked(emitted, OPERATION)

    class Shop:
        @tracked
        def method(self, plan: str) -> User:
            assert isinstance(self, Shop)
            return User(7)

        @tracked
        @classmethod
        def of_class(cls, plan: str) -> User:
            assert cls is Shop
            return User(7)

        @classmethod
        @tracked
        def of_class_too(cls, plan: str) -> User:
            assert cls is Shop
            return User(7)

        @tracked
        @staticmethod
        def static(plan: str) -> User:
            return User(7)

    for call in (Shop().method, Shop.of_class, Shop.of_class_too, Shop.static, Shop().static):
        assert call("team") == User(7)
    assert emitted == [SUCCESS] * 5


def test_a_function_without_a_signature() -> None:
    emitted = Emitted()
    assert Tracked(emitted, OPERATION)(max)(3, 2) == 3
    assert emitted == [("signed_up", 2, {"outcome": "success"})]


async def test_an_object_whose_call_is_a_coroutine_tells_when_that_is_done() -> None:
    emitted = Emitted()

    class Signup:
        async def __call__(self, plan: str) -> User:
            await asyncio.sleep(0)
            if plan == "full":
                raise Full
            return User(7)

    signup = Tracked(emitted, OPERATION)(Signup())
    assert inspect.iscoroutinefunction(signup)
    assert await signup("team") == User(7)
    with pytest.raises(Full):
        await signup("full")
    assert emitted == [SUCCESS, failure("Full", plan="full", code=507)]


def test_one_object_serves_blocks_that_overlap() -> None:
    emitted = Emitted()
    tracked = Tracked(emitted, OPERATION)
    going = asyncio.Event()

    async def one(plan: str, wait: bool) -> None:
        async with tracked as running:
            running.input = {"plan": plan}
            if wait:
                await going.wait()
            running.output = User(1)

    async def main() -> None:
        slow = asyncio.create_task(one("slow", True))
        await asyncio.sleep(0)
        failing = asyncio.create_task(fails())
        await asyncio.sleep(0)
        await one("fast", False)
        going.set()
        await slow
        with pytest.raises(Full):
            await failing

    async def fails() -> None:
        async with tracked as running:
            running.input = {"plan": "failing"}
            await going.wait()
            raise Full

    asyncio.run(main())
    assert [(event, told["plan"]) for event, _, told in emitted] == [
        ("signed_up", "fast"), ("signed_up", "slow"), ("signup_failed", "failing")
    ]  # fmt: skip


def test_a_block_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    emitted = Emitted()
    tracked = Tracked(emitted, OPERATION)

    def both() -> None:
        for plan in ("team", "free"):
            copy_context().run(tracked.__enter__).input = {"plan": plan}
            copy_context().run(tracked.__exit__, None, None, None)

    copy_context().run(both)
    assert [told["plan"] for _, _, told in emitted] == ["team", "free"]

    def left_elsewhere() -> int:
        for _ in range(10):
            tracked.__enter__()
            copy_context().run(tracked.__exit__, None, None, None)
        return len(_entered.get())

    assert copy_context().run(left_elsewhere) == 1, "what is over is not remembered"


@pytest.mark.parametrize("fault", [RuntimeError("secret text"), SystemExit("secret text")])
def test_what_goes_wrong_with_telling_is_nobodys_exception(
    caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    class Broken:
        def emit(self, event: str, version: Any, properties: Mapping[str, Any]) -> None:
            raise fault

    with Tracked(Broken(), OPERATION):
        pass
    (record,) = caplog.records
    assert record.getMessage().startswith(f"what became of an operation could not be told: {type(fault).__name__} at")
    assert "secret" not in record.getMessage()
