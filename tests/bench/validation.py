"""What ``track()`` costs beside libraries that only check: the same events of the same spec, in turn in one process.

``validation.py ROUNDS CALLS`` measures, in a home that is gone afterwards, and prints one line of JSON. Of ours
everything on the caller's thread is in it: check, masks, id, time, frame, one write to the journal. Delivery is another
thread's, is not started here, and is in the figures of the CPU. The libraries check, and that is all they do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

from subjects import fields

HERE = Path(__file__)
EVENT = "bench.completed"
FIGURES = ("track_p50", "track_cpu")
TRACK = "track_now, lenient"
"""What the others are compared with."""
EVENTS = {
    "plain": "ten fields: counts, enums, yes or no",
    "texts": "the same, and two texts with a pattern each",
    "wrong": "the plain ones, of which one has a wrong type, and one is declared nowhere",
}
SUBJECTS = {
    TRACK: "checked, masked where declared so, stamped, written: a SIGKILL cannot take it back",
    "track_now, strict": "the same, checked beforehand: what is wrong is raised with its path",
    "await track": "the lenient one as a coroutine",
    "capture alone": "the lenient one without the write",
    "track_now, off": "nobody decided: nothing happens",
    "msgspec.convert": "checks types and bounds into a Struct; drops what is not declared",
    "pydantic": "model_validate, strict, extra fields forbidden: checks, and makes a model",
    "fastjsonschema": "a function compiled from the exported JSON Schema: checks, first error",
    "jsonschema": "Draft202012Validator.validate with the exported JSON Schema: checks, first error",
}
"""Who is measured → what it does."""

Call = Callable[[Mapping[str, Any]], object]


class Cost(NamedTuple):
    """Of one call, in microseconds."""

    p50: float
    """The median of calls timed one by one, the median of all rounds."""
    cpu: float
    """CPU of this process in a loop of calls, the least of all rounds."""


# -- what is measured --------------------------------------------------------------------------------------------------

_SPEC = f"""
[meta]
name = "bench"

[[events]]
name = "{EVENT}"
semantics = {{ what = "A run completed" }}

[events.properties]
duration_ms = {{ type = "duration_ms" }}
state = {{ type = "enum", members = ["success", "failed", "cancelled"] }}
final = {{ type = "bool" }}
manual = {{ type = "bool" }}
chain_depth = {{ type = "count", max = 1000 }}
concurrent_runs = {{ type = "count", max = 1000 }}
timed_out = {{ type = "bool" }}
command_arg_count = {{ type = "count", max = 1000 }}
executor_type = {{ type = "enum", members = ["local_subprocess", "mock", "custom"] }}
command_count = {{ type = "count", max = 1000 }}
tool_version = {{ type = "string", pattern = "[0-9]+[.][0-9]+[.][0-9]+", max_length = 20 }}
branch = {{ type = "string", pattern = "[a-z0-9/_-]+", max_length = 60 }}
"""


def events(kind: str) -> list[dict[str, Any]]:
    """Events of a kind, no two neighbours alike."""
    more: list[dict[str, Any]]
    if kind == "texts":
        more = [{"tool_version": f"1.{number}.0", "branch": f"feature/number-{number}"} for number in range(61)]
    elif kind == "wrong":
        more = [{"duration_ms": str(number), "colour": "red"} for number in range(61)]
    else:
        more = [{} for _ in range(61)]
    return [{**fields(number), **each} for number, each in enumerate(more)]


def _schema(spec: Any) -> dict[str, Any]:
    """The part of the exported JSON Schema that is about an event's own properties."""
    from cmdorc_telemetry.spec import BASE
    from cmdorc_telemetry.spec.jsonschema import DRAFT, json_schema

    event = json_schema(spec)["$defs"][f"{EVENT}@1"]
    own = {name: value for name, value in event["properties"].items() if name not in BASE}
    return {"$schema": DRAFT, "type": "object", "properties": own, "additionalProperties": False}


def _model(pydantic: Any, schema: Mapping[str, Any]) -> type[Any]:
    """A pydantic model that takes what the schema takes."""
    from typing import Annotated, Literal

    def type_of(value: Mapping[str, Any]) -> Any:
        if "enum" in value:
            return Literal[tuple(value["enum"])]
        if value["type"] == "integer":
            return Annotated[int, pydantic.Field(ge=value["minimum"], le=value["maximum"])]
        if value["type"] == "string":
            return Annotated[str, pydantic.Field(pattern=value["pattern"], max_length=value["maxLength"])]
        return bool

    own: dict[str, Any] = {name: (type_of(value) | None, None) for name, value in schema["properties"].items()}
    return pydantic.create_model("Completed", __config__=pydantic.ConfigDict(strict=True, extra="forbid"), **own)


def _validators(spec: Any) -> Iterator[tuple[str, Call]]:
    """The libraries that are there."""
    import msgspec

    from cmdorc_telemetry.spec import own_shape

    shape, schema = own_shape(spec.events[0]), _schema(spec)
    yield "msgspec.convert", lambda event: msgspec.convert(event, shape)
    makers: dict[str, Callable[[Any], Call]] = {
        "pydantic": lambda library: _model(library, schema).model_validate,  # type: ignore[attr-defined]
        "fastjsonschema": lambda library: library.compile(schema),
        "jsonschema": lambda library: library.Draft202012Validator(schema).validate,
    }
    for name, make in makers.items():
        try:
            yield name, make(import_module(name))
        except ImportError:
            print(f"not measured: {name} is not installed", file=sys.stderr)


@contextmanager
def subjects() -> Iterator[tuple[dict[str, Call], Callable[[], None]]]:
    """Everybody, ready to be called; and what lets go of all that was written."""
    from cmdorc_telemetry import Application, TelemetryLevel, TelemetryTracker, clock
    from cmdorc_telemetry.consent import save_decision
    from cmdorc_telemetry.declarations import new_grant
    from cmdorc_telemetry.home import Home
    from cmdorc_telemetry.segment import segments
    from cmdorc_telemetry.spec import parse_toml

    spec = parse_toml(_SPEC, "bench")
    application = Application("bench", "1.0", specs=(spec,))
    with tempfile.TemporaryDirectory(prefix="cmdorc-bench-") as folder:
        on, off = ({"BENCH_TELEMETRY_HOME": f"{folder}/{name}"} for name in ("on", "off"))
        grant = new_grant(spec, TelemetryLevel.STANDARD, clock.utcnow())
        save_decision(Home.of(application, on), {spec.meta.name: grant})
        lenient, strict = (TelemetryTracker.start(application, strict=each, environ=on) for each in (False, True))
        nobody = TelemetryTracker.start(application, environ=off)
        recorders = [tracker.telemetry._recorder for tracker in (lenient, strict)]
        assert all(recorders)
        assert not nobody.telemetry.recording
        for recorder in recorders:
            recorder._started = True  # as in any program that lives for half a second, but for the thread itself
        capture = recorders[0]._recordings.now.capture

        def drained() -> None:
            """What is written goes nowhere; or there would soon be as much of it as may be."""
            for path in segments(recorders[0].journal.directory):
                path.unlink()

        def awaited(event: Mapping[str, Any]) -> object:
            try:
                lenient.track(EVENT, 1, event).send(None)
            except StopIteration as done:
                return done.value

        yield {
            TRACK: lambda event: lenient.track_now(EVENT, 1, event),
            "track_now, strict": lambda event: strict.track_now(EVENT, 1, event),
            "await track": awaited,
            "capture alone": lambda event: capture.record(EVENT, event, None, 1, witness=lenient),
            "track_now, off": lambda event: nobody.track_now(EVENT, 1, event),
            **dict(_validators(spec)),
        }, drained  # fmt: skip
        losses = [{**recorder.journal.lost, **recorder.journal._drops} for recorder in recorders]
        assert not any(losses), losses
        for tracker in (lenient, strict):
            tracker.close()


# -- measuring ---------------------------------------------------------------------------------------------------------


def _guarded(call: Call) -> Call:
    """For events that are wrong: who raises has said so."""

    def guarded(event: Mapping[str, Any]) -> None:
        with suppress(Exception):
            call(event)

    return guarded


def _timed(call: Call, sent: list[dict[str, Any]], calls: int) -> float:
    spent, each = [], cycle(sent)
    for _ in range(calls):
        event = next(each)
        start = perf_counter()
        call(event)
        spent.append(perf_counter() - start)
    return statistics.median(spent) * 1e6


def _cpu(call: Call, sent: list[dict[str, Any]], calls: int) -> float:
    turns = max(calls // len(sent), 1)
    start = process_time()
    for _ in range(turns):
        for event in sent:
            call(event)
    return (process_time() - start) * 1e6 / (turns * len(sent))


def measured(rounds: int, calls: int) -> dict[str, dict[str, Cost]]:
    """Kind of event → who → the cost of a call."""
    found: dict[str, dict[str, Cost]] = {}
    with subjects() as (everybody, drained):
        for kind in EVENTS:
            sent = events(kind)
            turns = {name: _guarded(call) if kind == "wrong" else call for name, call in everybody.items()}
            spent: dict[str, list[Cost]] = {name: [] for name in turns}
            for number in range(rounds + 1):
                drained()
                for name, call in turns.items():
                    cost = Cost(_timed(call, sent, calls), _cpu(call, sent, calls))
                    if number:  # the first round warms up
                        spent[name].append(cost)
            found[kind] = {
                name: Cost(statistics.median(each.p50 for each in costs), min(each.cpu for each in costs))
                for name, costs in spent.items()
            }
    return found


# -- for the run as a whole --------------------------------------------------------------------------------------------

Costs = Mapping[str, Mapping[str, Cost]]
HEAD = ["a call", "event", "p50 [us]", "of track()", "CPU [us]", "of track()"]


def visit(quick: bool) -> Costs:
    """Measure in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "DO_NOT_TRACK"))}
    command = [sys.executable, str(HERE), *(("2", "300") if quick else ("7", "2000"))]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return {
        kind: {name: Cost(*cost) for name, cost in costs.items()} for kind, costs in json.loads(done.stdout).items()
    }


def rows(found: Costs) -> list[list[str]]:
    """What people read: each by itself, and as a share of what ``track()`` costs."""
    return [
        [name, kind, f"{cost.p50:.2f}", f"{cost.p50 / costs[TRACK].p50:.2f}", f"{cost.cpu:.2f}",
         f"{cost.cpu / costs[TRACK].cpu:.2f}"]
        for kind, costs in found.items() for name, cost in costs.items()
    ]  # fmt: skip


def as_json(found: Costs) -> list[dict[str, Any]]:
    """A list of records, one a value, as for all other figures."""
    return [
        {"figure": figure, "subject": name, "config": kind, "value": round(value, 4), "unit": "us"}
        for kind, costs in found.items() for name, cost in costs.items()
        for figure, value in zip(FIGURES, cost, strict=True)
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), int(sys.argv[2]))))
