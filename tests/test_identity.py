"""The install id and the salt: made once, whole, private, and the same for every process."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from cmdorc_telemetry import files
from cmdorc_telemetry.erasure import Owed, forget, note
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import (
    another_identity,
    drop_identity,
    ensure_identity,
    load_identity,
    stored_identity,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_an_identity_is_made_once(home: Home) -> None:
    assert load_identity(home) is None
    assert not home.root.exists()
    made = ensure_identity(home)
    assert uuid.UUID(made.install_id).version == 4
    assert len(made.salt) == 32
    assert load_identity(home) == ensure_identity(home) == made
    for path in (home.install_id, home.salt):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_two_homes_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = ensure_identity(Home(tmp_path / "a")), ensure_identity(Home(tmp_path / "b"))
    assert first.install_id != second.install_id
    assert first.salt != second.salt


@pytest.mark.parametrize("lost", ["install_id", "salt"])
def test_half_an_identity_is_none_and_is_made_anew(lost: str, home: Home) -> None:
    old = ensure_identity(home)
    getattr(home, lost).unlink()
    assert load_identity(home) is None
    new = ensure_identity(home)
    assert new.install_id != old.install_id
    assert new.salt != old.salt
    assert load_identity(home) == new


def test_a_salt_that_is_too_short_is_none(home: Home) -> None:
    ensure_identity(home)
    home.salt.write_text("00" * 15)
    assert load_identity(home) is None
    assert len(ensure_identity(home).salt) == 32
    home.salt.write_text("00" * 16)
    assert load_identity(home) == ensure_identity(home)


def test_an_identity_that_is_there_is_read_without_a_lock(home: Home) -> None:
    made = ensure_identity(home)
    (home.telemetry / "identity.lock").unlink()
    assert ensure_identity(home) == made
    assert not (home.telemetry / "identity.lock").exists()


@pytest.mark.parametrize(
    ("name", "data"), [("install_id", b"me"), ("install_id", b"\xff"), ("salt", b"pepper"), ("salt", b"\xff")]
)
def test_what_is_no_identity_is_moved_aside_and_made_anew(
    name: str, data: bytes, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    old = ensure_identity(home)
    path: Path = getattr(home, name)
    path.write_bytes(data)
    with pytest.raises(StorageError, match=f"{home.install_id} or {home.salt} cannot be read: "):
        load_identity(home)  # who only reads leaves it
    assert path.read_bytes() == data
    new = ensure_identity(home)
    (kept,) = home.root.glob(f"{path.name}.corrupt-*")
    assert kept.read_bytes() == data
    assert new == load_identity(home) == ensure_identity(home)
    assert old.install_id != new.install_id
    assert old.salt != new.salt
    assert caplog.messages == [
        f"this install's identity could not be read and is made anew; moved were {path} to {kept}"
    ]


@pytest.mark.parametrize("way", ["", "telemetry"])
def test_a_home_that_cannot_be_written_is_an_error(way: str, home: Home) -> None:
    path = home.root / way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(StorageError, match="cannot be"):
        ensure_identity(home)


def test_processes_agree_on_one_identity(home: Home) -> None:
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import ensure_identity
sys.stdin.readline()
print(ensure_identity(Home(Path(sys.argv[1]))))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert {process.communicate(timeout=30)[0] for process in processes} == {f"{load_identity(home)}\n"}


def test_whoever_comes_second_takes_what_the_first_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.telemetry.mkdir(parents=True)
    waiting = threading.Event()

    class Watched(files.FileLock):
        def __enter__(self) -> files.FileLock:
            waiting.set()
            return super().__enter__()

    first = files.FileLock(home.telemetry / "identity.lock")
    first.acquire()
    monkeypatch.setattr(files, "FileLock", Watched)
    found: list[object] = []
    second = threading.Thread(target=lambda: found.append(ensure_identity(home)))
    second.start()
    assert waiting.wait(10)
    home.salt.write_text("ab" * 32)
    home.install_id.write_text(str(uuid.UUID(int=7)))
    first.release()
    second.join(10)
    assert found == [load_identity(home)]
    assert home.salt.read_text() == "ab" * 32


def test_a_home_without_locks_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, *, wait: bool = True) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "lock_fd", no_locks)
    with pytest.raises(StorageError, match=r"telemetry cannot be written: No locks available$"):
        ensure_identity(home)
    assert not home.salt.exists()


def test_an_id_that_was_given_up_is_nobodys(home: Home) -> None:
    """With the note alone: whoever comes next makes another one, whatever the files hold."""
    old = ensure_identity(home)
    note(home, Owed(old.install_id, destinations={"http": "http"}))
    assert load_identity(home) is None
    assert stored_identity(home) == old
    new = ensure_identity(home)
    assert new.install_id != old.install_id
    assert new.salt != old.salt
    assert new == load_identity(home) == stored_identity(home)
    forget(home)
    assert load_identity(home) == new


def test_where_nobody_knows_what_was_given_up_there_is_no_identity(home: Home) -> None:
    made = ensure_identity(home)
    home.erasure.write_text("???")
    with pytest.raises(StorageError, match=r"erasure.toml cannot be used"):
        load_identity(home)
    with pytest.raises(StorageError, match=r"erasure.toml cannot be used"):
        ensure_identity(home)
    assert stored_identity(home) == made


def test_another_identity_takes_the_place_of_the_one_before(home: Home) -> None:
    old = ensure_identity(home)
    new = another_identity(home)
    assert new.install_id != old.install_id
    assert new.salt != old.salt
    assert load_identity(home) == new


def test_only_an_identity_that_was_given_up_is_dropped(home: Home) -> None:
    drop_identity(home, {"x"})
    assert not home.root.exists()
    made = ensure_identity(home)
    (home.telemetry / "identity.lock").unlink()
    drop_identity(home, {"x"})
    assert load_identity(home) == made
    assert not (home.telemetry / "identity.lock").exists()
    drop_identity(home, {"x", made.install_id})
    assert not home.install_id.exists()
    assert not home.salt.exists()
    home.install_id.write_text("???")
    home.salt.write_text("???")
    drop_identity(home, {"???"})
    assert home.install_id.read_text() == "???"


def test_an_identity_that_is_made_while_the_old_one_is_to_be_dropped_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    old = ensure_identity(home)
    made = []

    class Late(files.FileLock):
        def __enter__(self) -> files.FileLock:
            monkeypatch.setattr(files, "FileLock", Late.__bases__[0])
            made.append(another_identity(home))
            return super().__enter__()

    monkeypatch.setattr(files, "FileLock", Late)
    drop_identity(home, {old.install_id})
    assert made == [load_identity(home)]
