"""The suite that every store must pass. Subclass :class:`StoreContract`, give it a store, run pytest."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from .drops import Drops
from .ranks import WINDOW_DAYS, Rank
from .store import Record, Store, Stored

DAY = 86_400
TODAY = 20_000
NOW = TODAY * DAY + 3_600
_SPEC, _EVENT = "cmdorc.core@1", "command_completed"
_ids = itertools.count(1)


def new_id() -> str:
    """An id that no other call gave, greater than those before."""
    return str(uuid.UUID(int=next(_ids) << 64 | random.getrandbits(62)))


def record(install: str, duration_ms: int | None = None, **changes: Any) -> Record:
    """A record received today, with ``changes``."""
    values: dict[str, Any] = {
        "event_id": new_id(), "install": install, "spec": _SPEC, "event": _EVENT, "received": NOW, "body": b'{"a":1}',
        "day": TODAY, "duration_ms": duration_ms, **changes,
    }  # fmt: skip
    return Record(**values)


class StoreContract:
    """What any store must do. ``make`` gives one that is not open; the same file, server or name each time."""

    def make(self, folder: Path) -> Store:
        """A store that keeps its data in ``folder``, or in what belongs to it."""
        raise NotImplementedError

    def run(self, folder: Path, scenario: Callable[[Store], Awaitable[None]]) -> None:
        """Run ``scenario`` on an open store."""

        async def run() -> None:
            store = self.make(folder)
            await store.open()
            try:
                await scenario(store)
            finally:
                await store.close()

        asyncio.run(run())

    def test_it_gives_back_what_was_appended_also_when_opened_again(self, tmp_path: Path) -> None:
        records = [record(new_id(), body=f'{{"n":{number}}}'.encode()) for number in range(1_200)]

        async def fill(store: Store) -> None:
            assert await store.append(records) == [True] * 1_200

        async def look(store: Store) -> None:
            stored = [msgspec.convert(msgspec.structs.asdict(each), Stored) for each in records]
            assert [each async for each in store.export()] == stored
            assert [each async for each in store.export(newest=3)] == stored[-3:]
            assert await store.aggregate() == {(_SPEC, _EVENT): 1_200}

        self.run(tmp_path, fill)
        self.run(tmp_path, look)

    def test_an_event_id_is_stored_once(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            first, second = record(new_id(), 10), record(new_id(), 20)
            assert await store.append([first, second, first]) == [True, True, False]
            assert await store.append([second]) == [False]
            twin = msgspec.structs.replace(first, body=b"{}", duration_ms=99, install=second.install)
            assert await store.append([twin]) == [False]
            assert sum((await store.aggregate()).values()) == 2
            assert await store.rank(second.install) == Rank(1, 1, 2)

        self.run(tmp_path, scenario)

    def test_requests_at_the_same_time_store_each_event_once(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            records = [record(new_id(), 5) for _ in range(50)]
            mixed = [random.sample(records, 20) for _ in range(40)]
            flags = await asyncio.gather(*(store.append(batch) for batch in mixed))
            sent = {each.event_id for batch in mixed for each in batch}
            assert sum(map(sum, flags)) == len(sent) == sum((await store.aggregate()).values())

        self.run(tmp_path, scenario)

    def test_nothing_to_append(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            assert await store.append([]) == []
            assert await store.aggregate() == {}
            assert [each async for each in store.export()] == []

        self.run(tmp_path, scenario)

    def test_ranks_are_those_of_the_medians(self, tmp_path: Path) -> None:
        durations: dict[str, list[int]] = {}

        def expected(install: str) -> Rank | None:
            if install not in durations:
                return None
            medians = [statistics.median(values) for values in durations.values()]
            own = statistics.median(durations[install])
            return Rank(sum(value < own for value in medians), medians.count(own), len(medians))

        async def scenario(store: Store) -> None:
            chance = random.Random(7)
            installs = [new_id() for _ in range(12)]
            assert await store.rank(installs[0]) is None
            for _ in range(60):
                sender = chance.choice(installs)
                values = [chance.choice((0, 7, 7, 20, 400, 90_000)) for _ in range(chance.randint(1, 5))]
                days = [TODAY - chance.randrange(WINDOW_DAYS) for _ in values]
                await store.append([record(sender, ms, day=day) for ms, day in zip(values, days, strict=True)])
                await store.append([record(sender)])  # an event without a duration changes nothing
                durations.setdefault(sender, []).extend(values)
                assert await store.rank(sender) == expected(sender)
            for install in installs:
                assert await store.rank(install) == expected(install)

        async def again(store: Store) -> None:
            for install in durations:
                assert await store.rank(install) == expected(install)

        self.run(tmp_path, scenario)
        self.run(tmp_path, again)

    def test_what_is_older_than_the_window_has_no_rank(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            inside, outside = new_id(), new_id()
            await store.append([record(inside, 5, day=TODAY - WINDOW_DAYS + 1)])
            await store.append([record(outside, 5, day=TODAY - WINDOW_DAYS)])
            assert await store.rank(inside) == Rank(0, 1, 1)
            assert await store.rank(outside) is None

        self.run(tmp_path, scenario)

    def test_a_purge_rolls_the_window_on(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            both, old = new_id(), new_id()
            await store.append([record(both, 100, day=TODAY - 9), record(both, 10), record(old, 70, day=TODAY - 9)])
            assert await store.rank(both) == Rank(0, 1, 2)
            assert await store.purge(NOW + 20 * DAY, {}, 90) == 0
            assert await store.rank(both) == Rank(0, 1, 2)
            assert await store.purge(NOW + 21 * DAY, {}, 90) == 0
            assert await store.rank(old) is None
            assert await store.rank(both) == Rank(0, 1, 1)
            await store.append([record(old, 10)])  # only equal where what was purged no longer counts
            assert await store.rank(both) == Rank(0, 2, 2)

        self.run(tmp_path, scenario)

    def test_an_erased_install_leaves_nothing(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            gone, other, stays = new_id(), new_id(), new_id()
            for number in range(3):
                sent = [record(each, 10 + number) for each in (gone, other, stays) for _ in range(4)]
                await store.append(sent, Drops(install=(gone, other, stays)[number], epoch="e", counts={"full": 1}))
            assert await store.delete_installs([new_id()]) == 0
            assert await store.delete_installs([gone, other, new_id()]) == 24
            assert await store.delete_installs([gone, other]) == 0
            assert {each.install async for each in store.export()} == {stays}
            assert await store.rank(gone) is None
            assert await store.rank(stays) == Rank(0, 1, 1)
            assert {drops.install for drops in await store.drops()} == {stays}
            assert await store.append([record(gone, 1)]) == [True]
            assert await store.rank(gone) == Rank(0, 1, 2)

        self.run(tmp_path, scenario)

    def test_retention_goes_by_spec_and_event(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            who = new_id()
            kinds = [("a@1", "short"), ("a@1", "long"), ("b@1", "short")]
            await store.append([record(who, spec=spec, event=event) for spec, event in kinds for _ in range(2)])
            retention = {("a@1", "short"): 10, ("a@1", "long"): 50}
            assert await store.purge(NOW + 10 * DAY, retention, 20) == 0
            assert await store.purge(NOW + 11 * DAY, retention, 20) == 2
            assert set(await store.aggregate()) == {("a@1", "long"), ("b@1", "short")}
            assert await store.purge(NOW + 21 * DAY, retention, 20) == 2
            assert set(await store.aggregate()) == {("a@1", "long")}
            assert await store.purge(NOW + 51 * DAY, retention, 20) == 2

        self.run(tmp_path, scenario)

    def test_drops_are_the_latest_of_each_epoch(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            who = new_id()
            for epoch, counts in (("a", {"full": 2}), ("a", {"full": 3, "expired": 1}), ("a", {"full": 1}), ("b", {})):
                await store.append([record(who)], Drops(install=who, epoch=epoch, counts=counts))
            found = {drops.epoch: drops.counts for drops in await store.drops()}
            assert found == {"a": {"full": 3, "expired": 1}, "b": {}}
            assert await store.purge(NOW + 91 * DAY, {}, 90) == 4
            assert await store.drops() == []

        self.run(tmp_path, scenario)

    def test_many_events_are_deleted(self, tmp_path: Path) -> None:
        async def scenario(store: Store) -> None:
            gone, stays = new_id(), new_id()
            for _ in range(6):
                await store.append([record(each, 3) for _ in range(1_000) for each in (gone, stays)])
            deleting = asyncio.create_task(store.delete_installs([gone]))
            assert await store.append([record(stays)]) == [True]  # requests are served meanwhile
            assert await deleting == 6_000
            assert await store.aggregate() == {(_SPEC, _EVENT): 6_001}

        self.run(tmp_path, scenario)
