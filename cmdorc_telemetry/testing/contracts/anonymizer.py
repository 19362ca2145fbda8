"""What an anonymizer promises."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from ... import clock
from ...anonymizers import Anonymizer
from ...plugins import PluginHost
from ...spec import LEVELS
from ...types import Event, Row
from ..attempts import attempts, printed
from ..samples import Samples
from .plugin import PluginContract, strangers_in_table

_FIXED = {"event", "spec", "level", "sampling_rate"}
_EACH = 20
"""How many of each event it is tried with."""
_MEAN_SECONDS = 0.01


class AnonymizerContract(PluginContract):
    """Subclass it and name the plugin; ``settings`` are the keys of ``[telemetry.settings.NAME]``.

    ``specs`` may add specs of your own, with whatever your anonymizer is made for.
    """

    hooks = ("telemetry_anonymize",)

    # -- what the contract does ---------------------------------------------------------------------------------------

    def records(self) -> list[bytes]:
        """Events of all kinds, as journals hold them."""
        return list(Samples(self.specs(), install_id=self.machine.install_id).records(_EACH))

    def configured(self) -> PluginHost:
        """The plugin, told of its settings."""
        host = self.load()
        host.configure(self.machine.situation().user, self.machine.home, self.specs())
        return host

    def anonymized(self, records: Sequence[bytes], level: Any = "standard") -> tuple[tuple[Row, ...], list[str]]:
        """What the gate makes of events with the anonymizer, and what there is to complain of."""
        host = self.configured()
        complaints: list[str] = []
        found: Mapping[str, Callable[..., Any]] = {each.name: each for each in host.anonymizers()}
        rows = self.samples.rows(records, level, found, lambda name, what: complaints.append(what))
        return rows, complaints + list(host.failures.values())

    @property
    def samples(self) -> Samples:
        """What makes events of the specs."""
        return Samples(self.specs(), install_id=self.machine.install_id)

    def events(self, level: Any = "standard") -> list[Event]:
        """Events as an anonymizer gets them."""
        rows = self.samples.rows(self.records(), level)
        return [Event(spec=row.spec, name=row.event, fields=MappingProxyType(msgspec.json.decode(row.shared)))
                for row in rows if row.shared is not None]  # fmt: skip

    def anonymizer(self) -> Anonymizer:
        """It alone, as the gate calls it."""
        (found,) = (each for each in self.configured().anonymizers() if each.name == self.plugin)
        return found

    # -- the promises -------------------------------------------------------------------------------------------------

    def test_a_setting_that_is_misspelt_is_refused(self) -> None:
        """A rule that silently means nothing would be a leak. Where it has no settings, nothing is to be refused."""
        if "telemetry_configure" in self.load().hooks_of(self.plugin):
            self.machine.configure(strangers_in_table(self.table(self.settings()), self.plugin))
            host = self.configured()
            assert "no_such_setting" in host.failures.get(self.plugin, ""), "it takes any setting"

    def test_at_every_level_it_gives_what_the_spec_allows(self) -> None:
        """It neither raises nor hangs, and gives no field that is not there, not its to change, or not valid."""
        for level in LEVELS:
            assert self.anonymized(self.records(), level)[1] == [], level

    def test_it_adds_nothing(self) -> None:
        """What it returns are fields that the event has, and that are not fixed."""
        anonymize = self.anonymizer()
        for event in self.events("debug"):
            assert anonymize(event).keys() <= event.fields.keys() - _FIXED

    def test_it_does_something(self) -> None:
        """At least one event is shared otherwise than without it."""
        records = self.records()
        without = [row.shared for row in self.samples.rows(records, "debug")]
        assert [row.shared for row in self.anonymized(records, "debug")[0]] != without

    def test_what_stays_on_this_machine_stays_as_it_is(self) -> None:
        """Local statistics are exact: only what would be shared is changed."""
        records = self.records()
        without = [row.private for row in self.samples.rows(records)]
        assert [row.private for row in self.anonymized(records)[0]] == without

    def test_the_same_event_becomes_the_same_again(self) -> None:
        """An import that fails is done again, maybe by another process: the same events come to the same."""
        first, again = self.anonymizer(), self.anonymizer()
        for event in self.events():
            assert first(event) == first(event) == again(event)

    def test_different_events_remain_different(self) -> None:
        """Events with the same id count as one."""
        ids = [_id(row.shared) for row in self.anonymized(self.records())[0] if row.shared is not None]
        assert len(set(ids)) == len(ids)

    def test_the_time_in_an_id_tells_no_more_than_the_timestamp(self) -> None:
        """Whoever makes the timestamp coarser has to take the time out of ``event_id`` as well."""
        rows = self.anonymized(self.records(), "debug")[0]
        for body in [msgspec.json.decode(row.shared) for row in rows if row.shared is not None]:
            told = datetime.fromisoformat(body["timestamp"].replace("Z", "+00:00")).timestamp()
            assert uuid.UUID(body["event_id"]).int >> 80 == int(told) * 1000

    def test_it_is_quick(self) -> None:
        """Every event of every program comes through it; one call that takes a second is the last."""
        anonymize, events = self.anonymizer(), self.events()
        anonymize(events[0])  # may import
        before = clock.perf()
        for event in events:
            anonymize(event)
        assert (clock.perf() - before) / len(events) < _MEAN_SECONDS

    def test_it_tells_nobody(self) -> None:
        """It connects to nothing, starts nothing and prints nothing."""
        anonymize, events = self.anonymizer(), self.events()
        with attempts() as tried, printed() as words:
            for event in events:
                anonymize(event)
        assert (tried.outside, words.getvalue()) == ([], "")

    def test_on_a_machine_events_are_shared_through_it(self) -> None:
        """From the journal through the gate: the plugin is there, and nothing is held back because of it."""
        self.machine.journal(self.records())
        shared = [row.shared for row in self.machine.rows() if row.shared is not None]
        assert self.machine.host.failures == {}
        assert shared


def _id(body: bytes) -> str:
    return str(msgspec.json.decode(body)["event_id"])
