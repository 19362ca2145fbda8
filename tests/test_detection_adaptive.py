"""A detector that learns what is usual by itself, at each hour of the day: the interface is enough for it, as it is."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from math import log
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct, field

from cmdorc_telemetry import hookimpl
from cmdorc_telemetry.detection import DetectorReporter
from cmdorc_telemetry.detector import Detector
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.testing import DetectorContract
from cmdorc_telemetry.types import Anomaly, Batch, BatchEvent

START = datetime(2026, 3, 2, tzinfo=timezone.utc).timestamp()
HOUR = 3600
_DAYS = 3
"""An hour has a usual of its own from the day on that is the third on which something ran in it."""
NIGHT = 2
"""The hour at which everything takes ten times as long, as ever."""


class Usual(Struct, array_like=True):
    """What is usual: a mean and a spread, of which the past counts less and less."""

    seen: int = 0
    mean: float = 0.0
    spread: float = 0.0

    def learn(self, value: float, share: float) -> None:
        self.seen += 1
        share = max(share, 1 / self.seen)
        away = abs(value - self.mean) if self.seen > 1 else 0.0
        self.spread += share * (away - self.spread)
        self.mean += share * (value - self.mean)


class Hour(Struct, array_like=True):
    """What is usual at one hour of the day."""

    usual: Usual = field(default_factory=Usual)
    days: int = 0
    last: int = 0
    """The number of the last of these days."""


class Command(Struct, array_like=True):
    """What is known of one command."""

    all_day: Usual = field(default_factory=Usual)
    hours: dict[int, Hour] = field(default_factory=dict)
    odd: int = 0
    """How many of the last runs in a row were unusual, or, in an episode, usual again."""
    episode: bool = False


class Seasonal(Detector):
    """Durations, against what is usual at that hour; one alert when three runs in a row are far above."""

    name = "seasonal"

    class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        far: float = 6.0
        share: float = 0.05
        in_a_row: int = 3
        commands: int = 100

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.known: dict[str, Command] = {}

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        if (read := _read(event, payload)) is None:
            return
        name, at, value = read
        command = self.known.get(name, Command())
        usual = self._usual(command, at)
        if command.episode or not self._is_far(usual, value) or command.odd + 1 < self.settings.in_a_row:
            return
        yield Anomaly(detector="seasonal", event=event, spec=str(payload.get("spec")), metric="duration_ms",
                      kind="above", value=value, threshold=usual.mean, sample_count=usual.seen, group=name,
                      group_by="command_name")  # fmt: skip

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        if (read := _read(event, payload)) is None:
            return
        name, at, value = read
        command = self.known[name] = self.known.pop(name, None) or Command()
        if len(self.known) > self.settings.commands:
            del self.known[next(iter(self.known))]
        hour = command.hours.setdefault(at.hour, Hour())
        if hour.last != (day := at.toordinal()):
            hour.last, hour.days = day, hour.days + 1
        far = self._is_far(self._usual(command, at), value)
        command.odd = command.odd + 1 if far != command.episode else 0
        if command.odd >= self.settings.in_a_row:
            command.episode, command.odd = far, 0
        if not far:  # what is unusual is nothing to get used to
            command.all_day.learn(value, self.settings.share)
        if not far or hour.days < _DAYS:
            hour.usual.learn(value, self.settings.share)

    def _usual(self, command: Command, at: datetime) -> Usual:
        hour = command.hours.get(at.hour)
        return hour.usual if hour is not None and hour.days >= _DAYS else command.all_day

    def _is_far(self, usual: Usual, value: float) -> bool:
        return usual.seen >= 10 and value - usual.mean > self.settings.far * max(usual.spread, 0.05)

    def save(self) -> bytes:
        return msgspec.msgpack.encode(self.known)

    def restore(self, state: bytes) -> None:
        self.known = msgspec.msgpack.decode(state, type=dict[str, Command])


def _read(event: str, payload: Mapping[str, Any]) -> tuple[str, datetime, float] | None:
    """The command, when it was, and how long it took, as its logarithm."""
    try:
        at = datetime.fromisoformat(payload["timestamp"].replace("Z", "+00:00"))
        return str(payload["command_name"])[:200], at, log(1 + payload["duration_ms"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


class Plugin:
    @hookimpl
    def telemetry_detectors(self) -> list[type[Detector]]:
        return [Seasonal]


class TestContract(DetectorContract):
    """It keeps every promise of a detector: alerts by episode, restarts anywhere, events of another shape."""

    plugin = "seasonal"
    test_it_is_installed_and_loads = None
    test_it_says_which_api_it_was_written_for = None
    test_loading_it_imports_nothing_heavy = None

    def load(self) -> PluginHost:
        host = PluginHost()
        host.add(Plugin(), "seasonal")
        return host

    def sample(self, number: int, *, unusual: bool) -> Mapping[str, Any]:
        duration = 60_000 if unusual else 900 + number % 200
        return {"duration_ms": duration, "state": "success", "final": True, "manual": True, "command_name": "Build"}


# -- a season ----------------------------------------------------------------------------------------------------------


def weeks(days: int, *, odd: Mapping[int, float] = {}, seed: int = 1) -> Iterator[BatchEvent]:
    """Runs every ten minutes, slow at night. ``odd``: hour since the start → how many times as slow as usual."""
    chance = random.Random(seed)
    for number in range(days * 144):
        at = START + number * 600
        hour = number // 6
        usual = 20_000 if hour % 24 == NIGHT else 2000
        duration = int(usual * odd.get(hour, 1.0) * chance.lognormvariate(0, 0.15))
        stamp = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"spec": "cmdorc.core@1", "timestamp": stamp, "command_name": "Build", "duration_ms": duration}
        yield BatchEvent(str(number), "command_completed", json.dumps(body).encode(), number + 1)


class Watching:
    """The detector as a private destination; ``moments`` are those of its alerts, in hours since the start."""

    def __init__(self, path: Path) -> None:
        self.path, self.moments, self.faults = path, list[float](), list[BaseException]()

    def reporter(self) -> DetectorReporter:
        return DetectorReporter(Seasonal, self.path, self._alert, self.faults.append)

    def _alert(self, found: Anomaly, payload: Mapping[str, Any]) -> None:
        self.moments.append((datetime.fromisoformat(payload["timestamp"][:-1] + "+00:00").timestamp() - START) / HOUR)

    async def feed(self, events: Iterable[BatchEvent], most: int, seed: int | None = None) -> None:
        """In batches; with a ``seed``, processes end between them, and a batch may come again."""
        pending, chance, reporter = list(events), random.Random(seed), self.reporter()
        while pending:
            batch, pending = pending[:most], pending[most:]
            again = chance.random() < 0.2 if seed is not None else False
            await reporter.report_batch(Batch(destination="detector-seasonal", events=tuple(batch), epoch="one"))
            if seed is not None and chance.random() < 0.5:
                reporter = self.reporter()
            if again:
                pending = [*batch, *pending]


DAY_LIKE_NIGHT = 24 * 20 + 13
NIGHT_SLOW = 24 * 22 + NIGHT


async def test_what_is_usual_at_night_is_unusual_at_noon(tmp_path: Path) -> None:
    """No threshold could tell: the noon that takes as long as a night is found, and the nights are not."""
    watching = Watching(tmp_path / "plugins" / "seasonal" / "learnt")
    await watching.feed(weeks(25, odd={DAY_LIKE_NIGHT: 10, NIGHT_SLOW: 10}), 1)
    assert watching.faults == []
    assert [int(hour) for hour in watching.moments if hour > 24 * 12] == [DAY_LIKE_NIGHT, NIGHT_SLOW]


@pytest.mark.parametrize("seed", range(3))
async def test_the_same_is_found_however_often_processes_end(tmp_path: Path, seed: int) -> None:
    events = list(weeks(25, odd={DAY_LIKE_NIGHT: 10, NIGHT_SLOW: 10}))
    whole, parts = (Watching(tmp_path / name / "plugins" / "seasonal" / "learnt") for name in ("whole", "parts"))
    await whole.feed(events, 7)
    await parts.feed(events, 7, seed)
    assert whole.moments == parts.moments
    assert len(whole.moments) >= 2
    assert whole.path.read_bytes() == parts.path.read_bytes()
