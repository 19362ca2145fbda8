"""Locks that end with their holder, private files whatever the umask, and replacement that is whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmdorc_telemetry import files
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.files import FileLock, high_fd, lock_fd, open_private, private_dir, reading, replace


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


HOLD = """
import sys
from cmdorc_telemetry.files import FileLock
lock = FileLock(sys.argv[1])
assert lock.acquire(wait=False)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    assert private_dir(tmp_path / "home") == tmp_path / "home"
    assert mode(tmp_path / "home") == 0o700
    replace(tmp_path / "whole", b"x")
    assert mode(tmp_path / "whole") == 0o600
    os.close(open_private(tmp_path / "opened", os.O_WRONLY | os.O_CREAT))
    assert mode(tmp_path / "opened") == 0o600
    with FileLock(tmp_path / "lock"):
        assert mode(tmp_path / "lock") == 0o600


def test_a_file_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    os.close(open_private(path, os.O_RDONLY))
    assert mode(path) == 0o644  # a reader changes nothing
    os.close(open_private(path, os.O_WRONLY | os.O_CREAT))
    assert (mode(path), path.read_bytes()) == (0o600, b"old")
    path.chmod(0o644)
    replace(path, b"new")
    assert (mode(path), path.read_bytes()) == (0o600, b"new")


def test_a_directory_is_made_with_all_that_leads_to_it_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    private_dir(path)
    path.chmod(0o750)
    private_dir(path)
    assert mode(path) == 0o750  # its owner's decision


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/that"])
def test_a_file_in_the_way_of_a_directory_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=f"{tmp_path / name} cannot be created: .*[Nn]o(t a)? directory"):
        private_dir(tmp_path / name)


@pytest.mark.parametrize("old", [b"old", None])
def test_a_replacement_that_fails_leaves_what_was_there(old: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    code = """
import resource, signal, sys
from pathlib import Path
from cmdorc_telemetry.files import replace
from cmdorc_telemetry.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))  # a disk that is full after 5000 bytes
try:
    replace(Path(sys.argv[1]), b"x" * 10000)
except StorageError as fault:
    print(fault)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # coverage writes a file
"""
    output, _ = python(code, path).communicate(timeout=30)
    assert output == f"{path} cannot be written: {os.strerror(errno.EFBIG)}\n"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == ([("file", old)] if old else [])


def test_a_replacement_of_what_is_no_file_fails_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder cannot be written"):
        replace(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(StorageError, match="cannot be written: No such file or directory"):
        replace(tmp_path / "missing" / "file", b"x")


def test_an_interrupted_replacement_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_the_old_or_the_new_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace(path, b"a" * 100_000)
    ended = threading.Event()

    def write() -> None:
        for number in range(50):
            replace(path, b"ab"[number % 2 :][:1] * 100_000)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        data = path.read_bytes()
        assert len(data) == 100_000
        assert len(set(data)) == 1
    writer.join()


def test_a_lock_keeps_others_of_the_same_process_out(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(str(tmp_path / "lock"))
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    order: list[str] = []

    def wait_for_it() -> None:
        with second:
            order.append("second")

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    order.append("first")
    first.release()
    first.release()  # harmless
    thread.join(10)
    assert order == ["first", "second"]
    assert first.acquire(wait=False)
    first.release()


def test_a_lock_keeps_other_processes_out_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        lock = FileLock(path)
        assert not lock.acquire(wait=False)
        holder.send_signal(signal.SIGKILL)
        assert lock.acquire()
        lock.release()


def test_a_child_does_not_inherit_a_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    with subprocess.Popen(["sleep", "30"], close_fds=False) as child:
        lock.release()
        assert FileLock(tmp_path / "lock").acquire(wait=False)
        child.kill()


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.files import FileLock
counter = Path(sys.argv[2])
for _ in range(100):
    with FileLock(sys.argv[1]):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    processes = [python(code, tmp_path / "lock", counter) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert counter.read_text() == "300"


def test_a_file_system_without_locks_is_an_error_and_costs_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(write)
    os.close(read)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        lock_fd(read)

    taken: list[int] = []

    def no_locks(fd: int, *, wait: bool) -> bool:
        taken.append(fd)
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files, "lock_fd", no_locks)
    with pytest.raises(OSError, match="no locks"):
        FileLock(tmp_path / "lock").acquire()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(taken[0])


def test_a_file_system_that_always_says_taken_grants_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(fd: int, operation: int) -> None:
        raise OSError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

    monkeypatch.setattr(fcntl, "flock", taken)
    lock = FileLock(tmp_path / "lock")
    assert not lock.acquire(wait=False)
    with pytest.raises(BlockingIOError), lock:  # who waits for one has been told that there are none
        pytest.fail("it went on without a lock")


def next_descriptor() -> int:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    return fd


def test_a_lock_that_is_taken_or_given_back_costs_no_descriptor(tmp_path: Path) -> None:
    before = next_descriptor()
    with FileLock(tmp_path / "lock") as lock:
        assert isinstance(lock, FileLock)
        during = next_descriptor()
        assert not FileLock(tmp_path / "lock").acquire(wait=False)
        assert next_descriptor() == during != before
    assert next_descriptor() == before


def test_a_descriptor_is_moved_out_of_the_way(tmp_path: Path) -> None:
    low = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    high = high_fd(low)
    assert high >= 200
    assert not os.get_inheritable(high)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(low)
    os.write(high, b"x")
    os.close(high)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_descriptor_stays_where_so_many_may_not_be_open(tmp_path: Path) -> None:
    code = """
import os, resource, sys
from cmdorc_telemetry.files import high_fd
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
low = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print(high_fd(low) == low, os.write(low, b"x"))
resource.setrlimit(resource.RLIMIT_NOFILE, before)
"""
    output, _ = python(code, tmp_path / "file").communicate(timeout=30)
    assert output == "True 1\n"


def test_a_forked_child_neither_ends_nor_prolongs_its_parents_lock(tmp_path: Path) -> None:
    code = """
import os, sys
from cmdorc_telemetry.files import FileLock
lock, other = FileLock(sys.argv[1]), FileLock(sys.argv[1])
lock.acquire()
end, closed = os.pipe()
if (pid := os.fork()) == 0:
    lock.release(unlink=True)
    os._exit(0)
os.waitpid(pid, 0)
print("child released:", other.acquire(wait=False))
if (pid := os.fork()) == 0:
    os.read(end, 1)
    os._exit(0)
lock.release()
print("parent released:", other.acquire(wait=False))
os.write(closed, b"x")
os.waitpid(pid, 0)
"""
    output, _ = python(code, tmp_path / "lock").communicate(timeout=30)
    assert output == "child released: False\nparent released: True\n"
    assert (tmp_path / "lock").exists()


def test_a_lock_whose_name_comes_only_once_takes_its_file_along(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    lock.release(unlink=True)
    assert list(tmp_path.iterdir()) == []
    lock.acquire()
    (tmp_path / "lock").unlink()
    lock.release(unlink=True)  # somebody else was tidy
    lock.release()


def test_a_database_is_read_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "a b.db"
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        reading(path)
    assert list(tmp_path.iterdir()) == []

    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    for number in (2, 3):  # while somebody writes, what was written last is seen
        reader = reading(path)
        assert reader.execute("SELECT max(number) FROM numbers").fetchone() == (number - 1,)
        writer.execute("INSERT INTO numbers VALUES (?)", (number,))
        reader.close()
    writer.close()

    before = sorted(tmp_path.iterdir())
    reader = reading(path)
    assert reader.execute("SELECT max(number) FROM numbers").fetchone() == (3,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM numbers")
    reader.close()
    assert sorted(tmp_path.iterdir()) == before == [path]


def test_a_folder_that_somebody_else_made_just_now_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, renaming = tmp_path / "folder", os.rename
    path.write_text("something else has its name")

    def late(source: Path, target: Path) -> None:
        path.unlink()  # another process has done all of it
        path.mkdir()
        renaming(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert files.own_dir(path) == path
    assert path.is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_of_what_was_set_aside_before_only_directories_stay(tmp_path: Path) -> None:
    (tmp_path / "f.corrupt-folder").mkdir()
    for text in ("first", "second"):
        (tmp_path / "f").write_text(text)
        kept = files.set_aside(tmp_path / "f")
        assert kept.read_text() == text
    assert sorted(tmp_path.iterdir()) == sorted([kept, tmp_path / "f.corrupt-folder"])


def test_a_directory_that_cannot_be_had_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "way").write_text("a file")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StorageError, match=r"is no directory$"):
        files.own_dir(tmp_path / "way")
    assert [path.name for path in tmp_path.iterdir()] == ["way"]


@pytest.mark.skipif(os.name == "nt", reason="modes say little on Windows")
@pytest.mark.parametrize("mode", [0o777, 0o755, 0o700])
def test_others_are_shut_out_of_a_directory_of_our_own(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    path.chmod(mode)
    assert stat.S_IMODE(files.own_dir(path).stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_shut_is_used_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    path.chmod(0o777)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    assert files.own_dir(path) == path
