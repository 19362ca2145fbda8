"""What a detector promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from ... import clock
from ...decoding import decode
from ...detector import STATE_BYTES, Detector
from ...hookspecs import hookimpl
from ...spec import TelemetrySpec
from ...types import Anomaly, Captured
from ..attempts import attempts, logged, printed
from ..fakeclock import FakeClock
from ..samples import Samples
from .plugin import PluginContract, strangers

Payload = dict[str, Any]
Moment = tuple[str, Payload]
_DAYS = 86400.0
_AGO = 3 * _DAYS
"""Streams begin so long ago: what is not yet over is no business of a test."""
_GROUPS = 5000
_WRONG: Sequence[Payload] = ({}, {"timestamp": "yesterday"}, {"timestamp": None, "spec": 7}, {"timestamp": 12.5})


class DetectorContract(PluginContract):
    """Subclass it, name the plugin, and say what is usual and what is not: ``sample``.

    ``event`` is the event it watches; ``specs`` may be specs of your own. ``usual`` and ``unusual`` are how many events
    of either kind it takes until it can tell, ``seconds`` is the time between two events.
    """

    hooks = ("telemetry_detectors",)
    event: ClassVar[str] = "command_completed"
    usual: ClassVar[int] = 100
    unusual: ClassVar[int] = 100
    seconds: ClassVar[float] = 60.0

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def sample(self, number: int, *, unusual: bool) -> Mapping[str, Any]:
        """Properties of the ``number``-th event of the stream."""
        raise NotImplementedError("say what is usual, and what is not")

    # -- what the contract does ---------------------------------------------------------------------------------------

    def made(self, specs: Iterable[TelemetrySpec] | None = None) -> Detector:
        """A new detector, made as the stages make it."""
        class_ = self.load().detectors()[self.plugin]
        detector: Detector = class_(decode(dict(self.settings()), class_.Settings, "the contract"))
        detector.watch(tuple(self.specs() if specs is None else specs))
        return detector

    def stream(self, *phases: Literal["usual", "unusual"]) -> list[Moment]:
        """Events, one after the other; the time of the first is three days ago."""
        kinds = [kind for kind in phases for _ in range(self.usual if kind == "usual" else self.unusual)]
        return [(self.event, _body(record)) for record in self._records(kinds)]

    def _records(self, kinds: Sequence[str]) -> list[bytes]:
        records = []
        with FakeClock(int(clock.wall() - _AGO)) as time:
            samples = Samples(self.specs(), install_id=self.machine.install_id)
            for number, kind in enumerate(kinds):
                records.append(samples.record(self.event, self.sample(number, unusual=kind == "unusual")))
                time.advance(self.seconds)
        return records

    def alerts(self, detector: Detector, stream: Iterable[Moment]) -> list[Anomaly]:
        """What it finds, event by event, as the stages ask it."""
        found: list[Anomaly] = []
        moment = 0.0
        for event, payload in stream:
            found += detector.score_one(event, payload)
            detector.learn_one(event, payload)
            moment += 1
            if moment % 50 == 0:
                found += detector.check(_time(payload))
        return found

    # -- the promises -------------------------------------------------------------------------------------------------

    def test_a_setting_that_is_misspelt_is_refused(self) -> None:
        """``Settings`` has ``forbid_unknown_fields=True``."""
        assert not strangers(self.load().detectors()[self.plugin], self.settings())

    def test_what_is_usual_raises_no_alert(self) -> None:
        """Nobody is told of what is as ever."""
        assert self.alerts(self.made(), self.stream("usual", "usual")) == []

    def test_what_is_unusual_raises_one_alert_an_episode(self) -> None:
        """As long as it stays so there is no other; when it was over, there is one again."""
        detector = self.made()
        stream = self.stream("usual", "unusual", "unusual", "usual", "usual", "unusual")
        edge = self.usual + 2 * self.unusual
        first = self.alerts(detector, stream[:edge])
        assert first, "it finds nothing"
        assert len({_what(each) for each in first}) == len(first), "more than one alert in an episode"
        later = self.alerts(detector, stream[edge:])
        assert {_what(each) for each in first} <= {_what(each) for each in later}, "it finds nothing the second time"

    def test_an_alert_says_what_it_is_about(self) -> None:
        """Its fields have values that can be recorded and shown."""
        found = self.alerts(self.made(), self.stream("usual", "unusual"))
        assert found, "it finds nothing"
        for each in found:
            assert isinstance(each, Anomaly)
            msgspec.json.decode(msgspec.json.encode(each), type=Anomaly)
            assert each.detector == self.plugin
            assert each.event == self.event
            assert each.metric
            assert math.isfinite(each.value)
            assert math.isfinite(each.threshold)
            assert each.sample_count >= 0
            assert set(each.actions) <= {"log", "alert"}
            assert (each.group is None) == (each.group_by == ""), "a group is a value of a property, which it names"

    def test_it_goes_on_where_another_process_left_off(self) -> None:
        """What it keeps is all that it has learnt: alerts are the same wherever a program ended in between."""
        stream = self.stream("usual", "unusual")
        whole = self.alerts(self.made(), stream)
        for cut in (1, self.usual // 2, self.usual, self.usual + self.unusual // 2):
            first, second = self.made(), self.made()
            found = self._quietly(first, stream[:cut])
            second.restore(first.save())
            assert [*found, *self._quietly(second, stream[cut:])] == self._quietly(self.made(), stream), f"after {cut}"
        assert whole, "it finds nothing"

    def _quietly(self, detector: Detector, stream: Iterable[Moment]) -> list[Anomaly]:
        """What it finds where nobody asks between events."""
        found: list[Anomaly] = []
        for event, payload in stream:
            found += detector.score_one(event, payload)
            detector.learn_one(event, payload)
        return found

    def test_keeping_changes_nothing(self) -> None:
        """It is asked for what it has learnt after each batch, however small that is."""
        stream = self.stream("usual", "unusual")
        asked = self.made()
        found = []
        for moment in stream:
            found += self._quietly(asked, [moment])
            assert isinstance(asked.save(), bytes)
        assert found == self._quietly(self.made(), stream)

    def test_what_it_cannot_read_it_begins_anew_from(self) -> None:
        """What another version kept, or was damaged: it raises, and a new one is made; or it begins anew by itself."""
        for state in (b"\0", b"no state at all", b"{}", b"\x91\xcf" + b"\xff" * 8):
            detector = self.made()
            with suppress(Exception):
                detector.restore(state)
                self.alerts(detector, self.stream("usual"))

    def test_what_it_keeps_is_bounded(self) -> None:
        """However many different values there are, it keeps no more than a detector may."""
        detector = self.made()
        names = [name for spec in self.specs() for event in spec.events if event.name == self.event
                 for name, prop in event.properties.items() if prop.type in ("string", "hash")]  # fmt: skip
        (first, *_) = self.stream("usual")
        for number in range(_GROUPS):
            payload = {**first[1], **dict.fromkeys(names, f"{number:012x}")}
            self._quietly(detector, [(self.event, payload)])
        assert len(detector.save()) <= min(STATE_BYTES, 1 << 20)

    def test_events_of_another_shape_do_no_harm(self) -> None:
        """Events of another version of a spec, of other specs, of a clock that was wrong: it never raises."""
        (usual, *_) = self.stream("usual")
        detector = self.made()
        odd: tuple[Any, ...] = (None, [], -1, "?")
        for payload in (*_WRONG, *({**usual[1], name: value} for name in usual[1] for value in odd)):
            for event in (self.event, "no_such_event"):
                self._quietly(detector, [(event, dict(payload))])
        self._quietly(detector, reversed(self.stream("usual")))

    def test_without_a_spec_it_finds_nothing_and_does_no_harm(self) -> None:
        """Which specs are in force is up to the user."""
        self._quietly(self.made(specs=()), self.stream("usual", "unusual"))

    def test_the_same_events_give_the_same_alerts(self) -> None:
        """It goes by the time of the events, not by the time at which it happens to get them."""
        stream = self.stream("usual", "unusual")
        with FakeClock(clock.wall() + _DAYS):
            later = self.alerts(self.made(), stream)
        assert later == self.alerts(self.made(), stream)

    def test_it_tells_nobody(self) -> None:
        """It connects to nothing, starts nothing and prints nothing."""
        detector, stream = self.made(), self.stream("usual", "unusual")
        with attempts() as tried, printed() as words:
            self.alerts(detector, stream)
        assert (tried.outside, words.getvalue()) == ([], "")

    def test_on_a_machine_an_alert_is_heard_and_its_books_are_right(self) -> None:
        """From the journal to ``telemetry_anomaly``: each event is learnt from once."""
        heard: list[Anomaly] = []

        class Ear:
            @hookimpl
            def telemetry_anomaly(self, anomaly: Anomaly) -> None:
                heard.append(anomaly)

        kinds = ["usual"] * self.usual + ["unusual"] * self.unusual
        expected = self._quietly(self.made(), self.stream("usual", "unusual"))
        self.machine.journal(self._records(kinds))
        self.machine.ears.append(Ear())
        with logged() as lines:
            ledger = self.machine.deliver()[f"detector-{self.plugin}"]
        assert self.machine.host.failures == {}
        assert ledger.acknowledged >= len(kinds)
        assert (ledger.acknowledged, ledger.pending) == (ledger.recorded, 0), str(ledger)
        assert heard or not [each for each in expected if "alert" in each.actions], "nobody hears of it"
        assert {each.message for each in expected if "log" in each.actions} <= set(lines)


def _body(record: bytes) -> Payload:
    body: Payload = msgspec.json.decode(msgspec.json.decode(record, type=Captured).body)
    return body


def _time(payload: Payload) -> float:
    return datetime.fromisoformat(payload["timestamp"].replace("Z", "+00:00")).timestamp()


def _what(anomaly: Anomaly) -> tuple[str, str, str, str | None]:
    return anomaly.event, anomaly.metric, anomaly.kind, anomaly.group
