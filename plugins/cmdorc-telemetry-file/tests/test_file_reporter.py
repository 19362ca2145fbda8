"""One process: lines, rotation, modes, and what was there before."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import cmdorc_telemetry_file
import cmdorc_telemetry_file.reporter as reporter_module
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, RetryLater
from cmdorc_telemetry.files import FileLock
from cmdorc_telemetry.types import Batch, BatchEvent, BatchResult
from cmdorc_telemetry_file import LocalFileReporter


def batch(start: int, count: int, *, filler: str = "") -> Batch:
    def event(number: int) -> BatchEvent:
        event_id = f"id-{number:06}"
        body = json.dumps({"event": "x", "event_id": event_id, "filler": filler}).encode()
        return BatchEvent(event_id, "x", body)

    return Batch(destination="file", events=tuple(event(number) for number in range(start, start + count)))


def reporter(path: Path, **settings: int) -> LocalFileReporter:
    return LocalFileReporter(LocalFileReporter.Settings(path=str(path), **settings))


def send(to: LocalFileReporter, what: Batch) -> BatchResult:
    return asyncio.run(to.report_batch(what))


def statuses(result: BatchResult) -> list[str]:
    return [each.status for each in result.results or ()]


def ids(*paths: Path) -> list[str]:
    return [json.loads(line)["event_id"] for path in paths for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.jsonl"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o777)
    yield
    os.umask(before)


def test_lines_are_the_encoded_batch(path: Path) -> None:
    to = reporter(path)
    assert statuses(send(to, batch(0, 2))) == ["accepted", "accepted"]
    send(to, batch(2, 3))
    assert path.read_bytes() == to.encode(batch(0, 5)) == b"".join(each.body + b"\n" for each in batch(0, 5).events)
    asyncio.run(to.close())


def test_an_empty_batch_touches_nothing(path: Path) -> None:
    assert send(reporter(path), batch(0, 0)) == BatchResult()
    assert not path.parent.joinpath("telemetry.jsonl").exists()


def test_report(path: Path) -> None:
    to = reporter(path)
    for _ in range(2):  # without an id nobody can know them for the same
        asyncio.run(to.report("x", {"state": "success"}))
    assert path.read_text() == '{"event":"x","state":"success"}\n' * 2


@pytest.mark.usefixtures("umask")
def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "made" / "telemetry.jsonl"
    tmp_path.joinpath("made").mkdir(mode=0o777)
    tmp_path.joinpath("made").chmod(0o700)
    to = reporter(path, max_bytes=1000)
    send(to, batch(0, 15))
    send(to, batch(15, 15))
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"telemetry.jsonl": 0o600, "telemetry.jsonl.1": 0o600, "telemetry.jsonl.lock": 0o600}


def test_a_missing_directory_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "telemetry.jsonl"
    send(reporter(path), batch(0, 1))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    path.write_text("")
    path.chmod(0o644)
    send(reporter(path), batch(0, 1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation(path: Path) -> None:
    to = reporter(path, max_bytes=1000, files=3)
    size = len(to.encode(batch(0, 1)))
    each = 1000 // size  # fills a file but for less than one line
    for number in range(6):
        send(to, batch(number * each, each))
    rotated = [path.with_name(f"{path.name}.{number}") for number in (3, 2, 1)]
    assert ids(*rotated, path) == [f"id-{number:06}" for number in range(2 * each, 6 * each)]
    assert all(file.stat().st_size <= 1000 for file in [*rotated, path])
    assert len(list(path.parent.iterdir())) == 5  # these and the lock


def test_files_grow_to_their_bound_and_not_beyond(path: Path) -> None:
    to = reporter(path, max_bytes=1000)
    line = len(to.encode(batch(0, 1)))
    exact = 1000 - line * 2  # the second batch fits exactly
    send(to, batch(0, 1, filler="x" * (exact - line)))
    assert path.stat().st_size == exact
    send(to, batch(1, 2))
    assert path.stat().st_size == 1000
    assert not path.with_name(f"{path.name}.1").exists()
    send(to, batch(3, 1))
    assert ids(path) == ["id-000003"]


def test_a_batch_larger_than_a_file_stays_together(path: Path) -> None:
    to = reporter(path, max_bytes=1000)
    for expected in ("accepted", "duplicate"):
        assert statuses(send(to, batch(0, 100))) == [expected] * 100
    assert len(ids(path)) == 100
    assert not path.with_name(f"{path.name}.1").exists()
    send(to, batch(100, 1))
    assert ids(path) == ["id-000100"]


def test_fewer_files_than_before(path: Path) -> None:
    for number in range(10):
        send(reporter(path, max_bytes=1000, files=6), batch(number * 15, 15))
    path.with_name(f"{path.name}.old").write_text("not ours")
    send(reporter(path, max_bytes=1000, files=2), batch(150, 15))
    names = {each.name.removeprefix(path.name) for each in path.parent.iterdir()}
    assert names == {"", ".1", ".2", ".lock", ".old"}


def test_a_batch_that_comes_again_is_written_once(path: Path) -> None:
    send(reporter(path), batch(0, 10))
    before = path.read_bytes()
    assert statuses(send(reporter(path), batch(0, 10))) == ["duplicate"] * 10
    assert path.read_bytes() == before
    assert statuses(send(reporter(path), batch(8, 4))) == ["duplicate", "duplicate", "accepted", "accepted"]
    assert ids(path) == [f"id-{number:06}" for number in range(12)]


def test_a_batch_that_comes_again_at_the_bound_does_not_rotate(path: Path) -> None:
    to = reporter(path, max_bytes=1000)
    send(to, batch(0, 15))
    assert statuses(send(to, batch(0, 15))) == ["duplicate"] * 15
    assert not path.with_name(f"{path.name}.1").exists()


def test_equal_bodies_without_their_id_are_all_written(path: Path) -> None:
    body = b'{"event":"x"}'
    same = Batch(destination="file", events=tuple(BatchEvent(f"id-{n}", "x", body) for n in range(2)))
    for _ in range(2):
        assert statuses(send(reporter(path), same)) == ["accepted", "accepted"]
    assert path.read_bytes() == (body + b"\n") * 4


@pytest.mark.parametrize("torn", [b'{"event": "x", "ev', b'{"a": "\xff", "b', b'{"a": 1\0\0\0', b"\0\0\0\0", b"{"])
@pytest.mark.parametrize("before", [b"", b'{"event_id": "id-000000"}\n'])
def test_a_torn_line_is_cut_off(path: Path, before: bytes, torn: bytes) -> None:
    path.write_bytes(before + torn)
    send(reporter(path), batch(1, 1))
    assert path.read_bytes() == before + reporter(path).encode(batch(1, 1))


@pytest.mark.parametrize("rest", [b'{"event_id": "id-000000"}', b"a note", b"\x89PNG\r"])
def test_a_last_line_that_is_whole_or_foreign_is_kept(path: Path, rest: bytes) -> None:
    path.write_bytes(rest)
    send(reporter(path), batch(1, 1))
    assert path.read_bytes() == rest + b"\n" + reporter(path).encode(batch(1, 1))


def test_an_event_without_its_newline_is_known_again(path: Path) -> None:
    path.write_bytes(batch(0, 1).events[0].body)
    assert statuses(send(reporter(path), batch(0, 1))) == ["duplicate"]
    assert path.read_bytes() == reporter(path).encode(batch(0, 1))


def test_a_huge_foreign_file_is_not_cut(path: Path) -> None:
    foreign = b"{" + b"\0" * (2 << 20)
    path.write_bytes(foreign)
    send(reporter(path, max_bytes=10_000_000), batch(0, 1))
    assert path.read_bytes() == foreign + b"\n" + reporter(path).encode(batch(0, 1))


def test_what_is_not_on_the_disk_is_not_delivered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        assert path.stat().st_size > 0
        raise OSError(errno.EIO, "Input/output error")

    to = reporter(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RetryLater, match=rf"^{path}: Input/output error$"):
        send(to, batch(0, 1))
    assert path.read_bytes() == b""


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "data" / "real.jsonl", tmp_path / "link.jsonl"
    target.parent.mkdir()
    link.symlink_to(target)
    for number in range(3):
        send(reporter(link, max_bytes=1000), batch(number * 15, 15))
    assert link.is_symlink()
    assert {each.name for each in target.parent.iterdir()} == {
        "real.jsonl", "real.jsonl.1", "real.jsonl.2", "real.jsonl.lock",
    }  # fmt: skip


def test_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    to = LocalFileReporter(LocalFileReporter.Settings(path="~/t.jsonl"))
    send(to, batch(0, 1))
    assert ids(tmp_path / "t.jsonl") == ["id-000000"]


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(RetryLater, match=rf"^{path}: is not a regular file$"):
        send(reporter(path), batch(0, 1))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(RetryLater, match="is not a regular file"):
        send(reporter(path), batch(0, 1))
    assert list(path.parent.iterdir()) == [path]  # no lock beside a device either


def test_a_directory_that_is_a_file(path: Path) -> None:
    path.write_text("note\n")
    with pytest.raises(RetryLater, match=r"Not a directory|cannot be created"):
        send(reporter(path / "telemetry.jsonl"), batch(0, 1))
    with pytest.raises(RetryLater, match=r"Not a directory|cannot be created"):
        send(reporter(path / "deeper" / "telemetry.jsonl"), batch(0, 1))


def test_a_link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(RetryLater, match="symbolic links"):
        send(reporter(path), batch(0, 1))


def test_a_lock_that_is_never_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter_module, "_LOCK_SECONDS", 0.05)
    lock = FileLock(f"{path}.lock")
    lock.acquire()
    with pytest.raises(RetryLater, match="another process holds its lock"):
        send(reporter(path), batch(0, 1))
    lock.release()
    assert statuses(send(reporter(path), batch(0, 1))) == ["accepted"]


async def test_waiting_for_the_lock_does_not_hold_up_the_loop(path: Path) -> None:
    lock = FileLock(f"{path}.lock")
    lock.acquire()
    waiting = asyncio.ensure_future(reporter(path).report_batch(batch(0, 1)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    lock.release()
    assert statuses(await waiting) == ["accepted"]


def test_erase(path: Path) -> None:
    to = reporter(path, max_bytes=1000, files=3)
    for number in range(4):
        send(to, batch(number * 15, 15))
    path.with_name("other.txt").write_text("not ours")
    assert asyncio.run(to.erase(["install"])) is True
    assert [each.name for each in path.parent.iterdir()] == ["other.txt"]
    assert asyncio.run(to.erase(["install"])) is True


def test_erase_where_nothing_is(tmp_path: Path) -> None:
    assert asyncio.run(reporter(tmp_path / "none" / "t.jsonl").erase(["install"])) is True
    assert list(tmp_path.iterdir()) == []


def test_erase_that_fails(path: Path) -> None:
    path.mkdir()
    assert asyncio.run(reporter(path).erase(["install"])) is False


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"path": "telemetry.jsonl"}, r"path: found 'telemetry\.jsonl'; expected an absolute path"),
        ({"path": ""}, "path: found ''; expected"),
        ({"path": "/tmp/a\0b"}, "path: found"),
        ({"path": "/t", "max_bytes": 999}, "max_bytes: found 999; expected 1000 or more"),
        ({"path": "/t", "files": 0}, "files: found 0; expected 1 to 1000"),
        ({"path": "/t", "files": 1001}, "files: found 1001; expected 1 to 1000"),
        ({"path": 7}, "path: found 7; expected str"),
        ({"pth": "/t"}, "Did you mean 'path'"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as failure:
        decode(settings, LocalFileReporter.Settings, "config.toml", key="telemetry.to.file")
    assert str(failure.value).startswith("config.toml: telemetry.to.file")


def test_the_package_offers_its_reporter() -> None:
    (point,) = (each for each in metadata.entry_points(group="cmdorc_telemetry") if each.name == "file")
    assert point.load().telemetry_reporters() == [LocalFileReporter]
    assert metadata.version("cmdorc-telemetry-file") == cmdorc_telemetry_file.__version__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_file.nothing
