"""The journal: what was appended can be read by anybody, whatever became of the disk, the threads and the process."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry import clock, files
from cmdorc_telemetry.bounds import Bounds
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.segment import HEADER, MAGIC, frame, orphans, parse, read_live, segments

forking = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()
    monkeypatch.setattr(clock, "monotonic", time)
    return time


def read_all(directory: Path) -> list[bytes]:
    """The records of every segment whose owner is gone, in no order."""
    return [record for orphan in orphans(directory) for record in orphan.read(0).records]


def drops(directory: Path) -> Counter[str]:
    return sum((Counter(orphan.read(0).drops) for orphan in orphans(directory)), Counter())


def data_of(*records: bytes, directory: Path) -> bytes:
    book = Journal(directory, "g1")
    for record in records:
        assert book.append(record)
    path = book.path
    assert path is not None
    book.close()
    return path.read_bytes()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -- one segment ----------------------------------------------------------------------------------------------------


def test_what_was_appended_can_be_read_back(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal", "g1/standard")
    assert book.path is None
    assert not (tmp_path / "journal").exists()  # nothing is made before there is something to write
    assert [book.append(record) for record in (b'{"n":1}', b'{"n":"\xc3\xa4"}', b"{}")] == [True] * 3
    path = book.path
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    live = read_live(path, 0)
    assert live.records == [b'{"n":1}', b'{"n":"\xc3\xa4"}', b"{}"]
    assert (live.generation, live.source, live.drops, live.damaged) == ("g1/standard", book.source, {}, 0)
    assert live.offset == path.stat().st_size
    assert book.append(b"more")
    assert read_live(path, live.offset).records == [b"more"]
    assert list(orphans(path.parent)) == []  # it is locked
    book.close()
    book.close()
    (orphan,) = orphans(path.parent)
    assert orphan.path == path
    assert segments(path.parent) == [path]


def test_an_append_outlives_a_kill(tmp_path: Path) -> None:
    owner = python(
        """
        import sys
        from pathlib import Path
        from cmdorc_telemetry.journal import Journal
        book = Journal(Path(sys.argv[1]), "g")
        for number in range(50):
            assert book.append(b"%d" % number)
        print("done", flush=True)
        sys.stdin.read()
        """,
        tmp_path,
    )
    assert line(owner) == "done"
    assert list(orphans(tmp_path)) == []
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert read_all(tmp_path) == [b"%d" % number for number in range(50)]


def test_a_tail_that_is_not_whole_is_no_loss_and_is_left_for_a_living_owner(tmp_path: Path) -> None:
    data = data_of(b"one", b"two", directory=tmp_path)
    whole = len(data)
    for cut in range(1, len(frame(b"two"))):
        torn = data[: whole - cut]
        dead = parse("x", torn)
        assert (dead.records, dead.damaged, dead.offset) == ([b"one"], 0, len(torn))
        living = parse("x", torn, live=True)
        assert (living.records, living.damaged) == ([b"one"], 0)
        assert parse("x", data, living.offset, live=True).records == [b"two"]


def test_damage_costs_only_the_records_that_it_hit(tmp_path: Path) -> None:
    chance = random.Random(7)
    records = [b'{"n":%d,"x":"%s"}' % (n, b"y" * chance.randrange(40)) for n in range(30)]
    data = data_of(*records, directory=tmp_path)
    for _ in range(200):
        at = chance.randrange(HEADER, len(data))
        hurt = data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]
        segment = parse("x", hurt)
        assert len(segment.records) in (28, 29, 30)  # a newline that is gone joins two; the last one ends nowhere
        assert set(segment.records) <= set(records)
        assert len(segment.records) + 2 * segment.damaged >= 29 - (at > len(data) - 70)


def test_what_lies_between_records_is_counted_once(tmp_path: Path) -> None:
    head = data_of(b"x", directory=tmp_path)[:HEADER]
    data = head + b"\n\n" + frame(b"a") + b"\ngarbage" + b"\n12345678 short" + frame(b"b")[:6] + frame(b"c")
    segment = parse("x", data)
    assert (segment.records, segment.damaged) == ([b"a", b"c"], 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"something else entirely",
        b" " * 600,
        MAGIC + b" " * 600,
        MAGIC + b"{}".ljust(600),
        MAGIC + b"[1]".ljust(600),
        MAGIC + b'{"generation":"g"}'.ljust(600),
        MAGIC + b'{"generation":"g","source":"s"}',
        MAGIC + b"\xff\xfe".ljust(600),
    ],
)
def test_a_file_that_is_no_segment_is_refused(data: bytes) -> None:
    with pytest.raises(StorageError, match=r"name\.seg is no journal segment"):
        parse("name.seg", data)


@pytest.mark.parametrize(
    "counts", [b"", b"garbage", b"[1]", b'{"a":1.5,"b":-1,"c":true,"d":null}', b'{"a":%d}' % 2**60, b"\xff"]
)
def test_drop_counts_that_cannot_be_read_do_not_hide_the_records(counts: bytes, tmp_path: Path) -> None:
    data = data_of(b"one", directory=tmp_path)
    segment = parse("x", data[:256] + counts.ljust(255) + b"\n" + data[HEADER:])
    assert (segment.records, segment.drops) == ([b"one"], {})


def test_a_foreign_file_can_be_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.seg").write_bytes(b"not ours" * 100)
    (orphan,) = orphans(tmp_path)
    for orphan in orphans(tmp_path):
        with pytest.raises(StorageError):
            orphan.read(0)
        orphan.set_aside()
    assert [path.name for path in tmp_path.iterdir()] == ["a.corrupt"]
    assert list(orphans(tmp_path)) == []


def test_an_orphan_is_locked_while_it_is_looked_at(tmp_path: Path) -> None:
    data_of(b"one", directory=tmp_path)
    first = orphans(tmp_path)
    orphan = next(first)
    assert list(orphans(tmp_path)) == []
    assert orphan.linked()
    orphan.discard()
    assert not orphan.linked()
    orphan.discard()
    first.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_unlinked_between_listing_and_locking_is_passed_over(tmp_path: Path) -> None:
    data_of(b"one", directory=tmp_path)
    (path,) = segments(tmp_path)
    fd = os.open(path, os.O_RDONLY)
    listing = os.listdir
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "listdir", lambda where: listing(where) or [path.name])
            opening = os.open

            def late(name: Path, flags: int, *mode: int) -> int:
                path.unlink(missing_ok=True)  # another process has just imported it
                return os.dup(fd) if name == path else opening(name, flags, *mode)

            patch.setattr(os, "open", late)
            assert list(orphans(tmp_path)) == []
    finally:
        os.close(fd)


def test_names_that_cannot_be_opened_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.seg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone.new").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other.txt").write_text("x")
    assert list(orphans(tmp_path)) == []
    assert list(orphans(tmp_path / "missing")) == []
    assert segments(tmp_path / "missing") == []
    assert Journal(tmp_path, "g").append(b"x")  # nor do they count as segments that wait


def test_files_of_owners_that_died_at_once_are_swept_but_not_young_ones(tmp_path: Path) -> None:
    old, young, held = tmp_path / "old.new", tmp_path / "young.new", tmp_path / "held.new"
    for path in (old, young, held):
        path.touch()
    for path in (old, held):
        os.utime(path, (clock.wall() - 61, clock.wall() - 61))
    fd = os.open(held, os.O_WRONLY)
    assert files.lock_fd(fd)
    assert list(orphans(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held.new", "young.new"]
    os.close(fd)


# -- a disk that does not take it -----------------------------------------------------------------------------------

LIMITED = """
import json, resource, signal, sys
from pathlib import Path
from cmdorc_telemetry.journal import Journal
directory, limit, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
heard = []
book = Journal(directory, "g", on_trouble=heard.append)
record = b'{"x":"' + b"y" * 100 + b'"}'
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
first = [book.append(b"%d" % n + record) for n in range(number)]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
second = [book.append(b"9%d" % n + record) for n in range(3)]
book.close()
print(json.dumps({"first": first, "second": second, "lost": book.lost, "heard": sorted(set(heard))}))
"""


def test_records_that_a_full_disk_cuts_short_are_counted_and_the_same_segment_goes_on(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, "1500", "30"], check=True, capture_output=True, text=True
    )
    told = eval(result.stdout, {"true": True, "false": False})
    assert 0 < sum(told["first"]) < 30
    assert told["first"] == sorted(told["first"], reverse=True)
    assert told["second"] == [True] * 3
    assert told["lost"] == {}
    assert any("File too large" in text or "short write" in text for text in told["heard"])
    (orphan,) = orphans(tmp_path)
    for orphan in orphans(tmp_path):
        segment = orphan.read(0)
        assert len(segment.records) == sum(told["first"]) + 3
        assert segment.drops == {"storage-failed": 30 - sum(told["first"])}
        assert segment.damaged == 1  # what the limit cut short, one of those counted


def test_a_segment_that_finds_no_room_for_its_header_leaves_nothing_behind(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "journal", "300", "2"], check=True, capture_output=True, text=True
    )
    told = eval(result.stdout, {"true": True, "false": False})
    assert told["first"] == [False] * 2
    assert told["second"] == [False] * 3  # left alone for a second
    assert told["lost"] == {"storage-failed": 5}
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_left_alone_for_a_second_and_no_longer(
    tmp_path: Path, monotonic: Clock
) -> None:
    heard: list[str] = []
    (tmp_path / "way").write_text("a file is in the way")
    book = Journal(tmp_path / "way" / "journal", "g", on_trouble=heard.append)
    assert not book.append(b"1")
    assert "way" in heard[0]
    (tmp_path / "way").unlink()
    for seconds in (0.3, 0.3, 0.3):  # appends in the meantime do not prolong the pause
        monotonic.now += seconds
        assert not book.append(b"2")
        assert not (tmp_path / "way").exists()
    monotonic.now += 0.2
    assert book.append(b"3")
    assert book.lost == {}
    book.close()
    assert read_all(tmp_path / "way" / "journal") == [b"3"]
    assert drops(tmp_path / "way" / "journal") == {"storage-failed": 4}  # told by the next header


def test_losses_are_counted_in_memory_while_the_header_cannot_be_reached(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal", "g")
    assert book.append(b"1")
    path = book.path
    assert path is not None
    assert book.append(b"2")
    writing = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        assert not book.append(b"3")
        path.rename(tmp_path / "elsewhere")
        assert not book.append(b"4")
    assert os.write is writing
    assert book.lost == {"storage-failed": 2}
    book.rotate("g2")
    assert book.lost == {}
    assert drops(tmp_path / "journal") == {}
    book.close()
    assert drops(tmp_path / "journal") == {"storage-failed": 2}


def test_a_slow_append_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.011, 1.0, 1.009])
    monkeypatch.setattr(clock, "perf", lambda: next(moments))
    with closing(Journal(tmp_path, "g")) as book:
        book.append(b"1")
        book.append(b"2")
        assert book.slow == 1


def test_the_directory_is_bounded_in_number_and_size(tmp_path: Path, monotonic: Clock) -> None:
    heard: list[str] = []
    few = Bounds(journal_segments=3, journal_mib=1)
    for _ in range(3):
        data_of(b"x", directory=tmp_path)
    (tmp_path / "young.new").touch()
    with closing(Journal(tmp_path, "g", bounds=few, on_trouble=heard.append)) as book:
        assert not book.append(b"y")
        assert heard == [f"{tmp_path} cannot be written: too many segments wait to be imported"]
        assert not book.append(b"y"), "left alone for a moment"
        assert book.lost == {"journal-full": 2}
        next(orphans(tmp_path)).discard()
        monotonic.now += 1
        assert book.append(b"y")
    many = few._replace(journal_segments=100)
    with closing(Journal(tmp_path, "g", bounds=many)) as book:
        assert book.append(b"z")
    os.truncate(segments(tmp_path)[0], 1 << 20)
    with closing(Journal(tmp_path, "g", bounds=many)) as book:
        assert not book.append(b"z")


def test_a_rotation_that_fails_is_no_loss(tmp_path: Path) -> None:
    heard: list[str] = []
    with closing(Journal(tmp_path, "g1", bounds=Bounds(journal_segments=1), on_trouble=heard.append)) as book:
        assert book.append(b"1")
        book.rotate("g2")
        assert len(heard) == 1
        assert book.append(b"2")
        assert book.lost == {}
    (orphan,) = orphans(tmp_path)
    for orphan in orphans(tmp_path):
        segment = orphan.read(0)
        assert (segment.records, segment.generation, segment.drops) == ([b"1", b"2"], "g1", {})


def test_trouble_without_a_listener_is_only_counted(tmp_path: Path) -> None:
    (tmp_path / "way").touch()
    book = Journal(tmp_path / "way" / "journal", "g")
    assert not book.append(b"1")
    book.rotate("g2")
    assert book.lost == {"storage-failed": 1}


def test_with_sync_a_segment_that_ends_is_on_the_disk_and_its_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        synced.append((status.st_ino, stat.S_ISDIR(status.st_mode)))

    monkeypatch.setattr(os, "fsync", fsync)
    book = Journal(tmp_path, "g", sync=True)
    book.append(b"1")
    first = os.stat(book.path or "").st_ino
    assert synced == []
    book.rotate("g2")
    second = os.stat(book.path or "").st_ino
    folder = (tmp_path.stat().st_ino, True)
    assert synced == [(first, False), folder]
    book.close()
    assert synced[2:] == [(second, False), folder]
    with closing(Journal(tmp_path, "g")) as careless:
        careless.append(b"1")
        careless.rotate("g2")
    assert len(synced) == 4


def test_a_forked_child_waits_for_no_disk(tmp_path: Path) -> None:
    book = Journal(tmp_path, "g", sync=True)
    book.append(b"1")
    reading, writing = os.pipe()
    syncing, synced = os.fsync, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced.append)
        if (child := os.fork()) == 0:
            os.write(writing, b"%d" % len(synced))
            os._exit(0)
    assert os.fsync is syncing
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"0"
    os.close(reading)
    os.close(writing)
    book.close()


# -- several segments, several threads ------------------------------------------------------------------------------


def test_a_segment_that_is_large_enough_is_followed_by_another(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, "g", bounds=Bounds(segment_kib=1))) as book:
        for number in range(100):
            assert book.append(b"%03d" % number + b"x" * 97)
        assert max(path.stat().st_size for path in segments(tmp_path)) <= 1024 + 2 * 110
        assert len(read_all(tmp_path)) > 80  # all but the one that is being written can be imported meanwhile
    assert sorted(int(record[:3]) for record in read_all(tmp_path)) == list(range(100))


def test_no_thread_loses_a_record_to_rotation_and_generations_are_kept_apart(
    tmp_path: Path,
) -> None:
    threads, each = 6, 250
    book = Journal(tmp_path, "0", bounds=Bounds(segment_kib=3))
    generation = 0
    known: dict[bytes, int] = {}
    """Record → the generation that was in force after its append."""

    def append(thread: int) -> None:
        number = 0
        while number < each or generation < 3:
            number += 1
            record = b"%d-%d-" % (thread, number) + b"x" * 30
            assert book.append(record)
            known[record] = generation

    workers = [threading.Thread(target=append, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    turns = 0
    while any(worker.is_alive() for worker in workers):
        turns += 1
        book.rotate(str(turns))  # first the segment, then the word: an append after it must be found behind it
        generation = turns
    for worker in workers:
        worker.join()
    book.close()
    found: Counter[bytes] = Counter()
    for orphan in orphans(tmp_path):
        segment = orphan.read(0)
        assert segment.damaged == 0
        for record in segment.records:
            found[record] += 1
            # What was recorded under one decision never counts as recorded under a later one.
            assert int(segment.generation) <= known[record] + 1
    assert set(found) == set(known)
    assert max(found.values()) == 1
    assert len(found) >= threads * each


def test_threads_that_begin_at_once_share_one_segment(tmp_path: Path) -> None:
    for turn in range(40):
        directory = tmp_path / str(turn)
        book = Journal(directory, "g")
        gate = threading.Barrier(6)

        def append(number: int, book: Journal = book, gate: threading.Barrier = gate) -> None:
            gate.wait()
            assert book.append(b"%d" % number)

        workers = [threading.Thread(target=append, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        book.close()
        assert [path.suffix for path in directory.iterdir()] == [".seg"]
        assert sorted(read_all(directory)) == [b"%d" % number for number in range(6)]


# -- forks, and hosts that close what they do not know --------------------------------------------------------------


@forking
def test_a_forked_child_has_a_segment_and_a_name_of_its_own(tmp_path: Path) -> None:
    book = Journal(tmp_path, "g")
    assert book.append(b"parent 1")
    book.lost["storage-failed"] = 3  # the parent's to tell, not the child's
    source, path = book.source, book.path
    assert path is not None
    size = path.stat().st_size
    child = os.fork()
    if not child:
        done = book.append(b"child") and book.source not in (source, "") and book.path != path
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.stat().st_size == size
    for orphan in orphans(tmp_path):
        segment = orphan.read(0)
        assert (segment.records, segment.drops) == ([b"child"], {})
        assert segment.source != source
    assert book.append(b"parent 2")
    book.close()
    assert sorted(read_all(tmp_path)) == [b"child", b"parent 1", b"parent 2"]


@forking
def test_a_child_that_is_forked_while_the_segment_is_opened_does_not_write_to_it(tmp_path: Path) -> None:
    book = Journal(tmp_path, "g")
    descriptor, path = book._create()
    book._held[None] = (descriptor, path)  # another thread is between holding the file and saying so
    child = os.fork()
    if not child:
        os._exit(0 if book.append(b"child") and book.path not in (path, None) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.stat().st_size == HEADER
    assert book.append(b"parent")
    assert book.path == path
    book.close()
    assert sorted(read_all(tmp_path)) == [b"child", b"parent"]


@forking
def test_a_silent_child_does_not_keep_its_parents_segment(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ready, tell = os.pipe()
    book = Journal(tmp_path, "g")
    assert book.append(b"1")
    child = os.fork()
    if not child:
        os.write(tell, b"x")  # fork returns here before the child has got round to closing anything
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    try:
        assert list(orphans(tmp_path)) == []  # nor does it free it
        book.close()
        assert read_all(tmp_path) == [b"1"]
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@forking
@pytest.mark.parametrize("options", [{}, {"preexec_fn": int, "close_fds": False}, {"close_fds": False}])
def test_a_command_does_not_keep_the_segment_of_its_caller(options: dict[str, object], tmp_path: Path) -> None:
    book = Journal(tmp_path, "g")
    assert book.append(b"1")
    command = subprocess.Popen(["cat"], stdin=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        assert list(orphans(tmp_path)) == []
        assert book.append(b"2")
        book.close()
        assert read_all(tmp_path) == [b"1", b"2"]
    finally:
        command.communicate()


def test_a_journal_that_is_gone_does_not_trouble_a_fork(tmp_path: Path) -> None:
    Journal(tmp_path, "g").append(b"1")
    subprocess.run(["true"], check=True, preexec_fn=int)
    assert len(segments(tmp_path)) == 1


def test_a_host_that_closes_descriptors_costs_no_record(tmp_path: Path) -> None:
    book = Journal(tmp_path, "g")
    assert book.append(b"1")
    first = book.path
    os.close(book._fd)
    assert book.append(b"2")
    assert book.path != first
    os.close(book._fd)
    book.close()
    assert sorted(read_all(tmp_path)) == [b"1", b"2"]


def test_a_process_that_may_open_few_files_records_too(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        from cmdorc_telemetry.journal import Journal
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        book = Journal(Path(sys.argv[1]), "g")
        print([book.append(b"x") for _ in range(100)].count(True), book._fd < 64)
        """
    process = python(code, tmp_path)
    assert line(process) == "100 True"
    process.communicate()
    assert read_all(tmp_path) == [b"x"] * 100


def test_the_descriptor_is_where_hosts_seldom_look(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, "g")) as book:
        book.append(b"x")
        book.rotate("g2")
        assert book._fd >= 200
        assert not os.get_inheritable(book._fd)


def test_a_frame_is_a_newline_a_sum_and_the_record() -> None:
    assert frame(b"{}") == b"\n%08x {}" % zlib.crc32(b"{}")


def test_a_rotation_finds_its_descriptor_closed_by_the_host(tmp_path: Path) -> None:
    told: list[str] = []
    with closing(Journal(tmp_path, "g", on_trouble=told.append)) as book:
        assert book.append(b"1")
        os.close(book._fd)
        book.rotate("g2")  # the new file is given the very number that the old one had
        assert book.append(b"2")
        assert read_all(tmp_path) == [b"1"]
        assert book.path is not None
        assert read_live(book.path, 0).generation == "g2"
    assert sorted(read_all(tmp_path)) == [b"1", b"2"]
    assert told == []


def test_losses_from_before_are_in_the_header_of_the_next_segment_once(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, "g")) as book:
        book.lost["storage-failed"] = 2
        assert book.append(b"1")
        assert book.path is not None
        assert (read_live(book.path, 0).drops, book.lost) == ({"storage-failed": 2}, {})
        book.rotate("g2")
        assert read_live(book.path, 0).drops == {}


def test_a_system_without_fork_has_a_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    with closing(Journal(tmp_path, "g")) as book:
        assert book.append(b"1")
    assert read_all(tmp_path) == [b"1"]


@pytest.mark.parametrize("live", [True, False])
def test_wherever_a_segment_is_cut_its_whole_records_are_read(live: bool, tmp_path: Path) -> None:
    wrote = [b'{"a":1}', b"xy", b'{"b":"' + b"z" * 40 + b'"}']
    with closing(Journal(tmp_path, "g")) as book:
        for record in wrote:
            assert book.append(record)
        assert book.path is not None
        data = book.path.read_bytes()
    ends = [HEADER + len(b"".join(frame(record) for record in wrote[: number + 1])) for number in range(3)]
    for cut in range(HEADER, len(data) + 1):
        whole = sum(end <= cut for end in ends)
        segment = parse("x.seg", data[:cut], live=live)
        assert (segment.records, segment.damaged) == (wrote[:whole], 0)
        if live:
            assert parse("x.seg", data, segment.offset).records == wrote[whole:]
        else:
            assert segment.offset == cut


def test_a_count_is_either_on_disk_or_in_memory_and_goes_on_from_there(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, "g")) as book:
        assert book.append(b"1")
        path = book.path
        assert path is not None
        book._count("storage-failed")
        path.rename(tmp_path / "away")
        book._count("storage-failed")
        (tmp_path / "away").rename(path)
        book._count("storage-failed")
        assert (read_live(path, 0).drops, book.lost) == ({"storage-failed": 3}, {})
        book.rotate("g2")
        book._count("storage-failed")
        assert book.path is not None
        assert read_live(book.path, 0).drops == {"storage-failed": 1}


def test_a_segment_that_is_not_needed_or_cannot_be_made_costs_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monotonic: Clock
) -> None:
    opened: list[int] = []
    high = files.high_fd

    def seen(fd: int) -> int:
        opened.append(high(fd))
        return opened[-1]

    monkeypatch.setattr(files, "high_fd", seen)
    with closing(Journal(tmp_path, "g")) as book, closing(Journal(tmp_path, "g")) as other:
        assert other.append(b"1")
        assert other.path is not None
        book._held[None] = (os.dup(opened[0]), other.path)  # another thread was first
        assert book.append(b"2")
        assert book.path == other.path
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(opened[1])
    with closing(Journal(tmp_path, "g")) as book, monkeypatch.context() as patch:
        locked: list[int] = []
        patch.setattr(files, "lock_fd", lambda fd, *, wait: bool(locked.append(fd)))
        assert not book.append(b"3")
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(locked[0])
