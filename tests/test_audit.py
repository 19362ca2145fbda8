"""The audit of what leaves: written before it is sent, each line whole, bounded, and without a value of any field."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import clock
from cmdorc_telemetry.audit import AuditLog, Entered, Entry, check, entries, log, tidy, verify
from cmdorc_telemetry.audit.lines import Answer, Begin, Left, digest, pages
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.delivery import Destination, Worker
from cmdorc_telemetry.errors import Rejected, RetryLater, StorageError, TooLarge
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.reporter import TelemetryReporter
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult, EventResult, Gated, Ledger, Row, View

NAME = "far"
SECRET = "mostprivate"
BOUNDS = Bounds(batch_seconds=0, batch_events=3)


class Far(TelemetryReporter):
    """Does what it is told with each batch; remembers the ids of each."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[Batch], Any] = lambda batch: None
        self.arrived: list[list[str]] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        raise AssertionError("batches are handed over")

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.arrived.append([each.event_id for each in batch.events])
        answer = self.then(batch)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


class Place:
    """A home with one destination."""

    def __init__(self, folder: Path) -> None:
        self.home, self.far = Home(folder), Far()
        self.home.locks.mkdir(parents=True)
        self.spool = Spool(self.home.spool)
        self.spool.register([View(name=NAME, identity="i")])
        self.log = AuditLog(self.home.audit, NAME)
        self._segments = 0
        self.workers: list[Worker] = []

    def worker(self, **options: Any) -> Worker:
        reporter = options.pop("reporter", self.far)
        take_over = options.pop("take_over", 60.0)
        to = Destination(NAME, lambda: reporter, lambda item: item.row.shared,
                         **{"trusted": True, "audit": self.log, **options})  # fmt: skip
        self.workers.append(Worker(to, self.spool, self.home.locks, BOUNDS, take_over=take_over))
        return self.workers[-1]

    def put(self, *ids: str, event: str = "e") -> None:
        self._segments += 1
        rows = tuple(
            Row(spec="s@1", event=event, version=1, at=int(clock.wall()), generation="g", source="", private=body,
                shared=body)
            for body in (json.dumps({"event_id": each, "name": SECRET}).encode() for each in ids)
        )  # fmt: skip
        self.spool.take_in(f"s{self._segments}", Gated(rows=rows), before=0, after=1, drops={})

    def send(self, *ids: str, **options: Any) -> None:
        """Record events, and send one batch."""
        self.put(*ids)
        self.spool.hurry()
        asyncio.run(self.worker(**options).step(hurry=True))

    @property
    def told(self) -> list[Entry]:
        return list(entries(self.home))

    @property
    def wrong(self) -> list[str]:
        return [each.what for each in verify(self.home, lambda: (self.spool.epoch, self.spool.ledger()))]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with closing(made.spool):
        yield made
        for worker in made.workers:
            asyncio.run(worker.close())


# -- what is in it ----------------------------------------------------------------------------------------------------


def test_each_batch_is_there_with_everything_but_values(place: Place) -> None:
    place.put("c", event="f")
    place.send("a", "b")
    (entry,) = place.told
    assert (entry.destination, entry.batch) == (NAME, 1)
    assert abs(entry.at - clock.wall()) < 60
    assert (entry.events, sorted(entry.event_ids)) == ({"e": 2, "f": 1}, ["a", "b", "c"])
    assert entry.fields == {"e": ("event_id", "name"), "f": ("event_id", "name")}
    bodies = b"".join(b'{"event_id": "%s", "name": "mostprivate"}\n' % each for each in (b"c", b"a", b"b"))
    assert (entry.bytes, entry.digest) == (len(bodies), f"sha256:{digest(bodies)}")
    assert (entry.answer, entry.error) == ({"accepted": 3}, "")
    assert SECRET not in place.log.path.read_text()
    assert place.wrong == []


def test_fields_are_those_of_all_bodies_of_a_name(place: Place) -> None:
    for number, names in enumerate((("event_id", "x"), ("event_id", "y"), ("event_id",))):
        body = json.dumps(dict.fromkeys(names, str(number))).encode()
        row = Row(spec="s@1", event="e", version=1, at=1, generation="g", source="", private=body, shared=body)
        place.spool.take_in(f"x{number}", Gated(rows=(row,)), before=0, after=1, drops={})
    asyncio.run(place.worker().step(hurry=True))
    assert set(place.told[0].fields["e"]) == {"event_id", "x", "y"}


def test_only_its_owner_may_read_it(place: Place) -> None:
    before = os.umask(0)
    try:
        place.send("a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.home.audit.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.log.path.stat().st_mode) == 0o600


def test_it_is_written_before_the_reporter_has_it(place: Place) -> None:
    seen: list[Entry] = []
    place.far.then = lambda batch: seen.extend(place.told)
    place.send("a", "b")
    assert [(entry.event_ids, entry.answer) for entry in seen] == [(("a", "b"), {"unknown": 2})]


@pytest.mark.parametrize(
    ("answer", "told", "error"),
    [
        (None, {"accepted": 2}, ""),
        (RetryLater(SECRET), {"retry": 2}, "not now"),
        (ConnectionError(SECRET), {"unknown": 2}, "the reporter failed: ConnectionError"),
        (asyncio.TimeoutError(), {"unknown": 2}, "no answer in time"),
        (TooLarge(SECRET), {"retry": 2}, "too large"),
        (Rejected(SECRET), {"retry": 2}, "rejected as a whole"),
        (BatchResult(results=()), {"retry": 2}, ""),
        (BatchResult(results=(EventResult("a", "duplicate"), EventResult("b", "rejected", SECRET))),
         {"duplicate": 1, "rejected": 1}, ""),
        (BatchResult(results=(EventResult("b", "rejected", f"set-aside: {SECRET}"), EventResult("a", "retry"))),
         {"retry": 1, "set-aside": 1}, ""),
    ],
)  # fmt: skip
def test_what_became_of_a_batch(place: Place, answer: object, told: dict[str, int], error: str) -> None:
    place.far.then = lambda batch: answer
    place.send("a", "b")
    (entry,) = place.told
    assert (entry.answer, entry.error) == (told, error)
    assert SECRET not in place.log.path.read_text()
    assert place.wrong == []


@pytest.mark.parametrize(("fault", "status"), [(TooLarge("x"), "rejected"), (Rejected("x"), "set-aside")])
def test_what_became_of_an_event_that_was_alone(place: Place, fault: Exception, status: str) -> None:
    place.far.then = lambda batch: fault
    place.send("a")
    assert place.told[0].answer == {status: 1}
    assert place.wrong == []


def test_a_reporter_that_hangs_or_blocks_is_told_apart(place: Place) -> None:
    place.far.then = lambda batch: asyncio.sleep(60)
    place.send("a", timeout=0.05, trusted=False)
    assert (place.told[0].answer, place.told[0].error) == ({"unknown": 1}, "no answer in time")


def test_what_stays_on_this_machine_is_no_part_of_it(place: Place) -> None:
    place.send("a", audit=None)
    assert place.far.arrived == [["a"]]
    assert place.told == []
    assert not place.home.audit.exists()


# -- nothing leaves that is not in it ---------------------------------------------------------------------------------


def test_where_it_cannot_be_written_nothing_is_sent_and_the_reason_is_told(place: Place) -> None:
    place.home.audit.mkdir(mode=0o700)
    os.mkfifo(place.log.path)
    place.send("a")
    ledger = place.spool.ledger()[NAME]
    assert (place.far.arrived, ledger.pending) == ([], 1)
    assert ledger.last_error == f"nothing is sent: the audit {place.log.path} cannot be written: it is no file"
    place.log.path.unlink()
    place.send()
    assert place.far.arrived == [["a"]]
    assert place.wrong == []


def test_what_is_in_the_place_of_its_directory_is_moved_aside(place: Place) -> None:
    place.home.audit.write_text("mine")
    place.send("a")
    assert place.far.arrived == [["a"]]
    assert place.wrong == []
    (kept,) = place.home.telemetry.glob("audit.corrupt-*")
    assert kept.read_text() == "mine"


def test_what_cannot_be_encoded_does_not_leave(place: Place) -> None:
    place.far.encode = lambda batch: "text"  # type: ignore[method-assign,assignment,return-value]
    place.send("a")
    assert place.far.arrived == []
    assert place.spool.ledger()[NAME].last_error == "encode returned str instead of bytes"
    assert place.told == []


def test_an_answer_that_cannot_be_written_changes_nothing_else(place: Place) -> None:
    def lose(batch: Batch) -> None:
        place.log.path.rename(place.home.root / "kept")
        os.mkfifo(place.log.path)

    place.far.then = lose
    place.send("a")
    assert place.spool.ledger()[NAME].acknowledged == 1
    (place.home.root / "kept").rename(place.log.path)
    assert place.told[0].answer == {"unknown": 1}
    assert place.wrong == []


def test_with_sync_it_is_on_the_disk_before_it_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    place.send("a")
    assert not synced
    place.log = AuditLog(place.home.audit, NAME, sync=True)
    place.far.then = lambda batch: synced.append(-1)
    place.send("b")
    assert synced.index(-1) == 1
    assert len(synced) == 3


# -- ends that were torn off, other writers ---------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b'{"what":"left","bat', b"\0\0\0\0"])
def test_a_line_that_was_never_finished_is_cut_off_and_no_mismatch(place: Place, end: bytes) -> None:
    place.send("a")
    whole = place.log.path.read_bytes()
    place.log.path.write_bytes(whole + end)
    assert place.wrong == []
    assert len(place.told) == 1
    AuditLog(place.home.audit, NAME)
    place.log = AuditLog(place.home.audit, NAME)
    place.send("b")
    assert place.log.path.read_bytes().startswith(whole + b'{"what":"left","batch":2,')
    assert place.wrong == []


def test_a_file_of_which_not_even_the_first_line_was_written_is_begun_again(place: Place) -> None:
    place.home.audit.mkdir()
    place.log.path.write_bytes(b'{"what":"beg')
    place.send("a")
    assert place.wrong == []
    assert isinstance(pages(place.home.audit, NAME)[0].records[0], Begin)


def test_a_write_that_fails_half_way_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.send("a")
    before, write = place.log.path.read_bytes(), os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 60:
            raise OSError(28, "No space left on device")
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(log.os, "write", half)
    with pytest.raises(StorageError, match="No space left on device"):
        place.log.answered(1, {"accepted": ["a"]})
    assert place.log.path.read_bytes() == before


def test_a_process_that_comes_back_too_late_writes_behind_what_others_wrote(place: Place) -> None:
    """It was stopped while it sent; somebody took over."""

    async def scene() -> None:
        back = asyncio.Event()

        async def held(batch: Batch) -> None:
            await back.wait()

        place.far.then = held
        slow = asyncio.create_task(place.worker().step(hurry=True))
        while not place.far.arrived:
            await asyncio.sleep(0)
        second = Far()
        heir = place.worker(reporter=second, take_over=-0.06, timeout=0.05, audit=AuditLog(place.home.audit, NAME))
        while not second.arrived:
            await heir.step(hurry=True)
        place.far.then = lambda batch: None
        back.set()
        await slow
        await heir.step(hurry=True)

    place.put("a", "b", "c", "d")
    asyncio.run(scene())
    assert [(entry.batch, entry.event_ids) for entry in place.told] == [
        (1, ("a", "b", "c")), (2, ("a", "b", "c")), (3, ("d",)),
    ]  # fmt: skip
    records = pages(place.home.audit, NAME)[0].records
    assert [each.latest for each in records if isinstance(each, Answer) and each.batch == 1] == [2]
    assert place.wrong == []


def test_two_cannot_write_at_once(place: Place) -> None:
    place.send("a")
    with FileLock(place.log.path):
        place.send("b")
    assert "another process writes to it" in place.spool.ledger()[NAME].last_error
    assert place.far.arrived == [["a"]]


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_another_file_is_begun_and_the_one_before_it_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FILE_BYTES", 2000)
    for number in range(40):
        place.send(f"a{number}")
        assert place.wrong == []
    found = pages(place.home.audit, NAME)
    assert [page.path.name for page in found] == ["far.1.jsonl", "far.jsonl"]
    assert all(page.path.stat().st_size < 3000 for page in found)
    begin = found[1].records[0]
    assert isinstance(begin, Begin)
    left = [each for each in found[0].records if isinstance(each, Left)]
    assert (begin.batches, begin.events) == (left[-1].batch, left[-1].batch)
    assert begin.bytes == begin.events * left[-1].bytes - 10  # the first ten ids are shorter
    assert [entry.batch for entry in place.told] == list(range(left[0].batch, 41))
    found[0].path.unlink()
    assert place.wrong == [f"line 1 of far.jsonl follows batch {begin.batches}, and the file before it is gone"]


def test_a_process_that_is_killed_between_two_files_loses_none(place: Place) -> None:
    place.send("a")
    place.log.path.rename(place.log.path.with_name("far.1.jsonl"))
    assert place.wrong == []
    place.send("b")
    assert [entry.batch for entry in place.told] == [1, 2]
    assert place.wrong == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_file_that_another_process_turned_is_not_written_to(
    place: Place, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    place.send("a")
    turned, lock_fd = [], log.files.lock_fd

    def turn(fd: int, *, wait: bool = True) -> bool:
        if not turned and os.path.samestat(os.fstat(fd), os.stat(place.log.path)):
            turned.append(place.log.path.rename(place.log.path.with_name("far.1.jsonl")))
            if begun:
                place.log.path.touch()
        return lock_fd(fd, wait=wait)

    monkeypatch.setattr(log.files, "lock_fd", turn)
    place.send("b")
    assert turned
    before, now = pages(place.home.audit, NAME)
    assert [len(before.lines), len(now.lines)] == [3, 3]
    assert isinstance(now.records[1], Left)
    assert place.wrong == []


def test_of_reporters_that_code_injected_so_many_are_kept(tmp_path: Path) -> None:
    for number in range(log.MOST_OF_CODE + 3):
        path = tmp_path / f"code-{number}.jsonl"
        path.touch()
        os.utime(path, (number, number))
    (tmp_path / "far.jsonl").touch()
    tidy(tmp_path, lambda name: name == "code-1")
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == log.MOST_OF_CODE + 2
    assert left >= {"far.jsonl", "code-1.jsonl", "code-3.jsonl"}
    assert not left & {"code-0.jsonl", "code-2.jsonl"}


def test_a_batch_that_fills_more_than_is_read_of_an_end_at_once(place: Place) -> None:
    long = [f"{'x' * 300}{number}" for number in range(400)]
    batch = Batch(destination=NAME, events=tuple(BatchEvent(each, "e", b"{}") for each in long))
    entered = Entered("e", 0, {})
    assert place.log.left(batch, {}, digest="", size=0, entered=entered) == 1
    assert AuditLog(place.home.audit, NAME).left(batch, {}, digest="", size=0, entered=entered) == 2
    assert check.check(NAME, pages(place.home.audit, NAME)) == []


# -- what is wrong with it --------------------------------------------------------------------------------------------


def test_what_is_wrong_is_told_with_the_batch_behind_which_it_is(place: Place) -> None:
    place.send("a")
    place.send("b")
    begin, left, answer, *rest = place.log.path.read_bytes().splitlines(keepends=True)

    def told(*lines: bytes) -> list[str]:
        place.log.path.write_bytes(b"".join(lines))
        return [str(each) for each in verify(place.home, lambda: (place.spool.epoch, place.spool.ledger()))]

    follows = "does not follow the one before it: something was changed, moved or removed"
    assert told(begin, left, answer, *rest) == []
    assert told(begin, left, *rest) == [f"far, batch 1: line 3 of far.jsonl {follows}"]
    assert told(begin, left, b"rubbish\n", *rest) == [
        "far, batch 1: line 3 of far.jsonl cannot be read", f"far, batch 1: line 4 of far.jsonl {follows}",
    ]  # fmt: skip
    assert (
        told(begin, begin, left, answer, *rest)[0] == "far, before its first batch: line 2 of far.jsonl begins a file"
    )
    assert told(left, answer, *rest)[0] == "far, before its first batch: line 1 of far.jsonl is not how a file begins"
    assert told(begin.replace(b'"far"', b'"near"'), left, answer, *rest)[0] == (
        "far, before its first batch: line 1 of far.jsonl is of near"
    )
    assert told()[0] == "far, before its first batch: 2 events more were acknowledged than were answered so"
    place.log.path.unlink()
    assert len(place.wrong) == 1


def test_a_file_that_goes_on_with_other_totals_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.send("a")
    monkeypatch.setattr(log, "FILE_BYTES", 1)
    place.send("b")
    lines = place.log.path.read_bytes().splitlines()
    lines[0] = lines[0].replace(b'"events":1', b'"events":7')
    lines[1] = lines[1].replace(json.loads(lines[1])["prev"].encode(), digest(lines[0]).encode())
    lines[2] = lines[2].replace(json.loads(lines[2])["prev"].encode(), digest(lines[1]).encode())
    place.log.path.write_bytes(b"".join(line + b"\n" for line in lines))
    assert place.wrong == ["line 1 of far.jsonl tells other totals than the file before it"]


def test_after_a_line_that_says_nothing_numbers_go_on(place: Place) -> None:
    place.send("a")
    with place.log.path.open("ab") as file:
        file.write(b"rubbish\n")
    place.send("b")
    assert [entry.batch for entry in place.told] == [1, 2]
    assert place.wrong == ["line 4 of far.jsonl cannot be read"]
    place.log.path.write_bytes(b"rubbish\n")
    place.send("c")
    assert place.told[-1].batch == 1


def test_without_a_ledger_it_is_only_compared_with_itself(place: Place) -> None:
    place.send("a")
    assert verify(place.home, lambda: ("", {})) == []
    assert verify(place.home, lambda: ("another", {NAME: Ledger(name=NAME)})) == []
    (wrong,) = verify(place.home, lambda: ("another", {NAME: Ledger(name=NAME, acknowledged=1)}))
    assert wrong.what == "1 event more was acknowledged than was answered so"


def test_whoever_sends_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.send("a")
    sender, order = FileLock(place.home.locks / f"{NAME}.lock"), []
    assert sender.acquire(wait=False)

    def rest(seconds: float) -> None:
        order.append("waits")
        if len(order) > 2:
            sender.release()

    def look() -> tuple[str, dict[str, Ledger]]:
        order.append("looks")
        return place.spool.epoch, place.spool.ledger()

    monkeypatch.setattr(check.time, "sleep", rest)
    assert verify(place.home, look) == []
    assert order == ["looks", "waits", "waits", "looks"]


def test_whoever_sends_is_waited_for_a_while(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.send("a")
    monkeypatch.setattr(check, "_PATIENCE_SECONDS", 0.05)
    with FileLock(place.home.locks / f"{NAME}.lock"):
        assert place.wrong == []


def test_nothing_ever_left(tmp_path: Path) -> None:
    home = Home(tmp_path / "none")
    assert list(entries(home)) == []
    assert verify(home, lambda: ("", {"far": Ledger(name="far", acknowledged=1)}))[0].batch == 0
    assert not home.root.exists()
