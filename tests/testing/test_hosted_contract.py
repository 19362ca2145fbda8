"""The contract for reporters to hosted services: a sound one passes; for each promise there is one that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from cmdorc_telemetry import clock, hookimpl
from cmdorc_telemetry.errors import Rejected, RetryLater, TooLarge
from cmdorc_telemetry.http.answers import refusal
from cmdorc_telemetry.http.bodies import split
from cmdorc_telemetry.http.reporter import PostingReporter
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.testing import Answer, HostedContract, HttpReporterContract, Request
from cmdorc_telemetry.types import Batch, BatchEvent

NAMES = {"id": "event_id", "who": "anonymous_install_id", "at": "timestamp"}
SECRET = "s3cr3t-of-theirs"


class Hosted(PostingReporter):
    """Of a service with names of its own."""

    name = "hosted"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        endpoint: str
        api_key: str

        def __repr__(self) -> str:
            return "Settings"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.endpoint)

    def encode(self, batch: Batch) -> bytes:
        return b"[%b]" % b",".join(map(self.one, batch.events))

    def one(self, event: BatchEvent) -> bytes:
        base, others = split(event.body, NAMES)
        return msgspec.json.encode({**base, **others})

    async def report_batch(self, batch: Batch) -> None:
        if not batch.events:
            return
        answer = await self.request("POST", "/take", {}, self.encode(batch))
        if answer.status != 200 or answer.body != b"taken":
            hints = dict.fromkeys((0, 401, 403, 404, 405), "is not there: check 'endpoint'")
            raise refusal(answer, count=len(batch.events), host=self.host, now=clock.wall(), hints=hints)


class HostedTrial(HostedContract):
    plugin = "hosted"
    reporter: type = Hosted

    def load(self) -> PluginHost:
        kind = self.reporter

        class Plugin:
            @hookimpl
            def telemetry_reporters(self) -> list[type]:
                return [kind]

        host = PluginHost()
        host.add(Plugin(), "hosted")
        return host

    def settings(self) -> Mapping[str, Any]:
        return {"endpoint": self.endpoint, "api_key": SECRET}

    def answer(self, request: Request) -> Answer:
        kept = self.__dict__.setdefault("kept", {})
        kept.update({event.get("id"): event for event in json.loads(request.plain)})
        return Answer(200, b"taken")

    def received(self) -> Sequence[str]:
        return list(self.__dict__.get("kept", {}))

    def documented(self, payloads: Sequence[dict[str, Any]]) -> Any:
        return [{**{theirs: payload.pop(ours) for theirs, ours in NAMES.items()}, **payload} for payload in payloads]


def tried(test: str, folder: Path, reporter: type = Hosted, **arguments: Any) -> None:
    contract = type("Trial", (HostedTrial,), {"reporter": reporter})()
    with contract.prepared(folder):
        getattr(contract, test)(**arguments)


def promises(contract: type) -> set[str]:
    return {name for name in dir(contract) if name.startswith("test_")}


# -- those that break a promise ---------------------------------------------------------------------------------------


class Adding(Hosted):
    def one(self, event: BatchEvent) -> bytes:
        return super().one(event).removesuffix(b"}") + b',"$lib":"hosted"}'


class Reading(Hosted):
    def one(self, event: BatchEvent) -> bytes:
        return json.dumps(json.loads(super().one(event))).encode()


class Careless(Hosted):
    def one(self, event: BatchEvent) -> bytes:
        payload = event.payload
        named = {theirs: payload.pop(ours) for theirs, ours in NAMES.items() if ours in payload}
        return json.dumps({**named, **payload}).encode()


class Silent(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except RetryLater:
            raise RetryLater("it failed (401)(403)(404)(405)(402)(302)(204)") from None


class Talkative(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except RetryLater as fault:
            raise RetryLater(f"{fault}, with {self.settings.api_key}") from None


class Hasty(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except RetryLater as fault:
            raise Rejected(str(fault)) from None


class Wasteful(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except (TooLarge, Rejected):
            return


class Puzzled(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except Rejected as fault:
            raise TooLarge(str(fault)) from None


BROKEN: list[tuple[str, type, dict[str, Any]]] = [
    ("test_a_request_is_as_documented_and_nothing_is_added", Adding, {}),
    ("test_values_leave_as_the_gate_let_them_out", Reading, {}),
    *(("test_what_rename_took_away_is_waited_for", Careless, {"name": name}) for name in NAMES.values()),
    ("test_a_wrong_setting_loses_nothing_and_is_named", Silent, {"code": 401}),
    ("test_a_wrong_setting_loses_nothing_and_is_named", Talkative, {"code": 403}),
    ("test_a_wrong_setting_loses_nothing_and_is_named", Hasty, {"code": 404}),
    ("test_an_event_that_is_refused_costs_no_other", Wasteful, {}),
    ("test_an_event_that_is_refused_costs_no_other", Puzzled, {}),
]


@pytest.mark.parametrize(("test", "reporter", "arguments"), BROKEN)
def test_a_reporter_that_breaks_a_promise_fails(
    test: str, reporter: type, arguments: dict[str, Any], tmp_path: Path
) -> None:  # fmt: skip
    for folder in ("sound", "broken"):
        (tmp_path / folder).mkdir()
    tried(test, tmp_path / "sound", **arguments)
    with pytest.raises((AssertionError, TooLarge, Rejected, pytest.fail.Exception)):
        tried(test, tmp_path / "broken", reporter, **arguments)


class Strict(Hosted):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except TooLarge as fault:
            raise Rejected(str(fault)) from None


def test_a_batch_may_be_rejected_as_well(tmp_path: Path) -> None:
    tried("test_an_event_that_is_refused_costs_no_other", tmp_path, Strict)


def test_there_is_a_reporter_that_breaks_each_promise() -> None:
    assert {test for test, _, _ in BROKEN} == promises(HostedContract) - promises(HttpReporterContract)


def test_a_contract_that_lacks_what_it_cannot_know_says_what(tmp_path: Path) -> None:
    ask: Callable[[Any, Sequence[Any]], Any] = HostedContract.documented
    with pytest.raises(NotImplementedError, match="say what a request for some events looks like"):
        ask(HostedTrial(), [])
