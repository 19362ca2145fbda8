"""What a reporter, and a detector, need not write themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from msgspec import Struct

from cmdorc_telemetry import NoopReporter, TelemetryReporter
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.types import Anomaly, Batch, BatchEvent, BatchResult

BATCH = Batch(
    destination="team",
    events=(BatchEvent("1", "first", b'{"event":"first","n":1}'), BatchEvent("2", "second", b'{"event":"second"}')),
)


class Kept(TelemetryReporter):
    """The least that a reporter has."""

    class Settings(Struct):
        limit: int = 10

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.got: list[tuple[str, dict[str, Any]]] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        if len(self.got) >= self.settings.limit:
            raise ConnectionError("full")
        self.got.append((event, payload))


async def test_a_batch_is_one_report_an_event_in_order() -> None:
    reporter = Kept()
    assert await reporter.report_batch(BATCH) is None
    assert reporter.got == [("first", {"event": "first", "n": 1}), ("second", {"event": "second"})]


async def test_what_report_raises_goes_up() -> None:
    reporter = Kept(Kept.Settings(limit=1))
    with pytest.raises(ConnectionError, match="full"):
        await reporter.report_batch(BATCH)
    assert [event for event, _ in reporter.got] == ["first"]


async def test_the_rest_is_there_and_does_nothing() -> None:
    reporter = Kept()
    assert reporter.name is None
    assert reporter.settings == Kept.Settings(limit=10)
    assert reporter.encode(BATCH) == b'{"event":"first","n":1}\n{"event":"second"}\n'
    assert reporter.encode(Batch(destination="team", events=())) == b""
    assert await reporter.erase(["id"]) is False
    assert await reporter.fetch_policy(None) is None
    await reporter.close()
    assert reporter.got == []


async def test_the_noop_reporter_takes_everything() -> None:
    reporter = NoopReporter()
    assert await reporter.report_batch(BATCH) is None
    await reporter.close()


def test_a_reporter_must_report_and_a_detector_detect() -> None:
    with pytest.raises(TypeError, match="report"):
        TelemetryReporter()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="learn_one"):
        Detector()  # type: ignore[abstract]


def test_settings_without_keys_refuse_all_keys() -> None:
    for class_ in (TelemetryReporter, Detector):
        assert class_.Settings() == class_.Settings()
        assert class_.Settings.__struct_config__.forbid_unknown_fields


def test_a_detector_has_the_settings_it_is_given() -> None:
    class Counting(Detector):
        class Settings(Struct):
            most: int = 3

        def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
            return ()

        def learn_one(self, event: str, payload: Mapping[str, Any]) -> None: ...

    assert Counting().settings.most == 3
    assert Counting(Counting.Settings(most=5)).settings.most == 5


def test_a_payload_is_the_readers_own() -> None:
    event = BATCH.events[0]
    event.payload["n"] = 2
    assert event.payload == {"event": "first", "n": 1}
    assert BatchResult().results is None
