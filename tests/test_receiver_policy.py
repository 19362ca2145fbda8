"""A receiver asks for less: when it is asked, what is kept of its answer, and that delivery and show-payload agree."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.errors import Rejected, RetryLater
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.pipeline import Pipeline
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.situation import Situation
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchResult, EventResult, Gated, Row, View

from .agreement import agree

NAME, DAY = "far", 86400.0


# -- when it is asked -------------------------------------------------------------------------------------------------


class Receiver(TelemetryReporter):
    """Takes everything; answers a question for its policy with the next of ``answers``."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)
        self.seen: list[str] = []
        self.fault: Exception | None = None
        self.results: tuple[EventResult, ...] | None = None

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise NotImplementedError

    async def report_batch(self, batch: Batch) -> BatchResult:
        self.seen.append(f"{len(batch.events)} events")
        if self.fault is not None:
            raise self.fault
        return BatchResult(results=self.results)

    async def fetch_policy(self, etag: str | None) -> Mapping[str, Any] | None:
        self.seen.append(f"policy? {etag}")
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer == "hang":
            await asyncio.sleep(60)
        return answer  # type: ignore[no-any-return]


class Far:
    """A spool with one destination, and a worker that sends to it."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.receiver, self.heard = receiver, [""]
        self.wait: float | None = 0.0
        self.spool = Spool(folder / "spool.db")
        self.spool.register([View(name=NAME, identity="i")])
        self.body: Callable[[Any], Any] = lambda item: item.row.shared
        to = Destination(NAME, lambda: receiver, self._body, timeout=0.5, heed=self.heard.append)
        self.worker = Worker(to, self.spool, folder, Bounds(batch_seconds=0))

    def _body(self, item: Any) -> Any:
        return self.body(item)

    async def send(self, *ids: str) -> list[str]:
        """Let the worker send events; what the receiver saw of it."""
        self.receiver.seen.clear()
        bodies = [json.dumps({"event_id": each}).encode() for each in ids]
        rows = (Row(spec="s@1", event="e", version=1, at=int(time.time()), generation="g", source="s", private=body,
                    shared=body) for body in bodies)  # fmt: skip
        self.spool.take_in(os.urandom(4).hex(), Gated(rows=tuple(rows)), before=0, after=1, drops={})
        while (wait := await self.worker.step()) == 0:
            pass
        self.wait = wait
        return self.receiver.seen

    @property
    def policy(self) -> Any:
        return json.loads(self.spool.policy(NAME)[0])


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Callable[..., Far]]:
    made: list[Far] = []

    def make(*answers: Any) -> Far:
        made.append(Far(tmp_path, Receiver(*answers)))
        return made[-1]

    yield make
    for each in made:
        asyncio.run(each.worker.close())
        each.spool.close()


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(clock, "wall", lambda: time.time() + self.ahead)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


LESS = {"level": "minimal", "etag": '"1"'}


async def test_it_is_asked_right_behind_a_batch_that_was_taken_and_once_a_day(far: Any, later: Clock) -> None:
    it = far(LESS, None, {"etag": '"2"'})
    assert await it.send() == [], "nothing to send, nothing to ask"
    assert await it.send("a", "b") == ["2 events", "policy? None"]
    assert it.policy == {"etag": '"1"', "document": {"level": "minimal"}}
    assert await it.send("c") == ["1 events"]
    assert json.loads(it.heard[-1]) == it.policy, "told before the next batch"
    later.ahead = DAY - 60
    assert await it.send("d") == ["1 events"]
    later.ahead = DAY + 60
    assert await it.send("e") == ["1 events", 'policy? "1"']
    assert (it.policy["document"], it.wait) == ({"level": "minimal"}, None), "nothing new: it stays"
    later.ahead += DAY + 60
    assert await it.send("f") == ["1 events", 'policy? "1"']
    assert it.policy == {"etag": '"2"', "document": {}}
    later.ahead = 0
    assert await it.send("g") == ["1 events", 'policy? "2"'], "asked in what is now the future"


async def test_it_is_not_asked_behind_what_failed(far: Any) -> None:
    it = far(LESS)
    it.receiver.fault = RetryLater("busy", after=0)
    assert await it.send("a") == ["1 events"]
    it.receiver.fault = Rejected("never")
    it.spool.hurry()
    assert await it.send() == ["1 events"]
    it.receiver.fault, it.receiver.results = None, (EventResult("b", "rejected", "invalid"),)
    it.spool.hurry()
    assert await it.send("b") == ["1 events"]
    it.body = lambda item: None  # consent is gone
    assert await it.send("c") == []
    assert it.policy == {}


@pytest.mark.parametrize(
    "answer", [RuntimeError("x"), RetryLater("x"), "hang", 5, [], "text", {"a": object()}, {"a": "\ud800"}],
    ids=["fails", "waits", "hangs", "number", "list", "text", "object", "surrogate"],
)  # fmt: skip
async def test_what_goes_wrong_with_it_is_silent_and_keeps_what_was_known(far: Any, later: Clock, answer: Any) -> None:
    it = far(LESS, answer)
    await it.send("a")
    later.ahead = DAY + 60
    assert await it.send("b") == ["1 events", 'policy? "1"']
    assert it.policy == {"etag": '"1"', "document": {"level": "minimal"}}
    found = it.spool.ledger()[NAME]
    assert (found.acknowledged, found.pending, found.failures, found.last_error) == (2, 0, 0, "")
    assert await it.send("c") == ["1 events"], "and it is not asked again today"


async def test_what_it_does_not_want_is_dropped_for_that_reason(far: Any) -> None:
    it = far(LESS)
    it.body = lambda item: "unwanted" if item.seq == 1 else item.row.shared
    assert await it.send("a", "b") == ["1 events", "policy? None"]
    found = it.spool.ledger()[NAME]
    assert (found.recorded, found.acknowledged, dict(found.dropped)) == (2, 1, {"unwanted": 1})


async def test_who_wants_nothing_at_all_is_asked_in_the_place_of_a_batch(far: Any, later: Clock) -> None:
    it = far({"level": "off"}, {})
    it.body = lambda item: "unwanted"
    assert await it.send("a") == ["policy? None"]
    assert await it.send("b") == []
    later.ahead = DAY + 60
    assert await it.send("c") == ["policy? None"], "or it would never hear that it is wanted again"
    assert it.policy["document"] == {}


async def test_what_the_receiver_itself_says_it_does_not_want_is_counted_so(far: Any) -> None:
    it = far(LESS)
    it.receiver.results = (EventResult("a", "rejected", "unwanted"),)
    assert await it.send("a") == ["1 events", "policy? None"]
    assert dict(it.spool.ledger()[NAME].dropped) == {"unwanted": 1}


async def test_who_is_never_to_be_asked_is_not(tmp_path: Path, far: Any) -> None:
    it = far(LESS)
    it.worker = Worker(Destination(NAME, lambda: it.receiver, lambda item: item.row.shared), it.spool, tmp_path,
                       Bounds(batch_seconds=0))  # fmt: skip
    assert await it.send("a") == ["1 events"]


async def test_another_receiver_under_the_same_name_is_asked_anew(far: Any) -> None:
    it = far(LESS)
    await it.send("a")
    it.spool.register([View(name=NAME, identity="another")])
    assert it.spool.policy(NAME) == ("{}", 0.0)
    it.spool.keep_policy(NAME, "{1}")
    it.spool.register([])
    assert it.spool.policies() == {}
    it.spool.register([View(name=NAME, identity="another")])
    assert it.spool.policies() == {NAME: "{}"}
    assert it.spool.policy("nobody") == ("{}", 0.0)


# -- whom it holds for ------------------------------------------------------------------------------------------------


THREE = """
[telemetry]
plugins = ["http"]
[telemetry.to.one]
plugin = "http"
endpoint = "http://127.0.0.1:9/one"
[telemetry.to.two]
plugin = "http"
endpoint = "http://127.0.0.1:9/two"
rename = {state = "outcome"}
[telemetry.to.own]
plugin = "http"
endpoint = "http://127.0.0.1:9/own"
audience = "private"
"""


def stored(pipeline: Pipeline) -> Row:
    common = {
        "event": "command_completed", "cmdorc_version": "0.12.0", "python_version": "3.12", "os": "linux",
        "arch": "x86_64", "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
        "timestamp": "2026-11-22T03:00:00Z", "event_id": "01234567-89ab-7def-8123-456789abcdef",
        "spec": "cmdorc.core@1", "duration_ms": 5, "state": "success", "concurrent_runs": 2,
    }  # fmt: skip
    return Row(spec="cmdorc.core@1", event="command_completed", version=1, at=0,
               generation=pipeline.situation.policy().stamp, source="s",
               private=json.dumps({**common, "command_name": "Tests"}).encode(),
               shared=json.dumps({**common, "level": "standard"}).encode())  # fmt: skip


def test_it_holds_for_its_own_destination_alone(home: Home) -> None:
    home.config.write_text(THREE)
    agree(home)
    pipeline = Pipeline(Situation.read(), PluginHost(["http"]))
    row = stored(pipeline)
    to = {each.name: each for each in pipeline.allowed}
    before = {name: pipeline.body_for(each, row) for name, each in to.items()}
    with closing(pipeline.open_spool()) as spool:
        spool.keep_policy("two", '{"document": {"level": "minimal"}}')
        spool.keep_policy("own", '{"document": {"fields": {"command_name": false}}}')
    again = Pipeline(Situation.read(), PluginHost(["http"]))
    again.open_spool().close()
    assert again.body_for(to["one"], row) == before["one"]
    two, own = (json.loads(again.body_for(to[name], row) or b"") for name in ("two", "own"))
    assert (two["level"], two["outcome"], "concurrent_runs" in two) == ("minimal", "success", False)
    assert own == {name: value for name, value in json.loads(before["own"] or b"").items() if name != "command_name"}
    assert again.shared_body(row) == row.shared, "what is shared at most is what the user agreed to"


def test_what_only_the_receiver_keeps_away_is_told_from_what_consent_does(home: Home) -> None:
    home.config.write_text(THREE)
    agree(home)
    pipeline = Pipeline(Situation.read(), PluginHost(["http"]))
    row, one = stored(pipeline), pipeline.allowed[0]
    route = next(each for each in pipeline.routes() if each.name == "one")
    item: Any = type("Item", (), {"row": row})
    assert route.body(item) == row.shared
    pipeline.heed({"one": '{"document": {"sampling": 0}}'})
    assert route.body(item) == "unwanted"
    assert pipeline.body_for(one, row) == "unwanted"
    withdrawn = Row(**{name: getattr(row, name) for name in row.__struct_fields__} | {"generation": "other/standard"})
    item.row = withdrawn
    assert route.body(item) is None
    assert pipeline.body_for(one, withdrawn) is None
    assert route.heed is not None
    route.heed("{}")
    item.row = row
    assert route.body(item) == row.shared
