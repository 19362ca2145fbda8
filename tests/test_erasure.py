"""The note of what is still to be erased elsewhere: whole, private, and gone when nobody owes an answer any more."""

from __future__ import annotations

import errno
import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cmdorc_telemetry import files
from cmdorc_telemetry.erasure import Owed, forget, load_owed, note, strike
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.home import Home

FIRST = Owed("id-1", "g1", "2020-01-02T03:04:05Z", {"http": "http endpoint=https://x.example/v1", "s1": 'odd "\\'})
SECOND = Owed("id-2", "", "", {"http": "http"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def names(home: Home) -> set[str]:
    return {path.name for path in home.telemetry.iterdir()}


def test_what_is_noted_is_read_and_nobody_else_can(home: Home) -> None:
    assert load_owed(home) == ()
    assert not home.root.exists()
    note(home, FIRST)
    note(home, SECOND)
    assert load_owed(home) == (FIRST, SECOND)
    assert stat.S_IMODE(home.erasure.stat().st_mode) == 0o600
    assert "erase --forget" in home.erasure.read_text()
    again = FIRST._replace(generation="g2")
    note(home, again)  # of one id there is one note
    assert load_owed(home) == (SECOND, again)


def test_who_has_confirmed_is_struck_out_and_at_last_the_file_goes(home: Home) -> None:
    note(home, FIRST)
    note(home, SECOND)
    strike(home, "id-1", "http")
    assert load_owed(home) == (FIRST._replace(destinations={"s1": 'odd "\\'}), SECOND)
    strike(home, "id-1", "http")
    strike(home, "id-3", "http")
    strike(home, "id-2", "http")
    assert [each.install_id for each in load_owed(home)] == ["id-1"]
    strike(home, "id-1", "s1")
    assert names(home) == set()
    strike(home, "id-1", "s1")
    assert names(home) == set()


def test_it_is_given_up(home: Home) -> None:
    assert not forget(home)
    assert not home.root.exists()
    note(home, FIRST)
    assert forget(home)
    assert names(home) == set()
    home.erasure.write_text("???")
    assert forget(home)
    assert not forget(home)


BROKEN = (
    "???", "", "install = 1", "[[install]]", "[[install]]\nid = 'x'", "install = ['x']",
    "install = [{id = 'x', generation = '', since = ''}]",
    "install = [{id = 1, generation = '', since = '', destinations = {}}]",
    "install = [{id = 'x', generation = '', since = '', destinations = {http = 1}}]",
    "install = [{id = 'x', generation = '', since = '', destinations = 'http'}]",
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_cannot_be_read_is_an_error_and_makes_way_for_what_is_noted(
    home: Home, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    home.telemetry.mkdir(parents=True)
    home.erasure.write_text(text)
    with pytest.raises(StorageError, match=r"erasure.toml cannot be used \(.*erase --forget` drops it$"):
        load_owed(home)
    assert home.erasure.read_text() == text
    with caplog.at_level(logging.WARNING):
        note(home, FIRST)
    assert load_owed(home) == (FIRST,)
    (kept,) = home.telemetry.glob("erasure.toml.corrupt-*")
    assert kept.read_text() == text
    assert caplog.messages[0].startswith(f"{home.erasure} was moved to {kept}: ")


def test_a_home_without_locks_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(fd: int, *, wait: bool = True) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "lock_fd", no_locks)
    with pytest.raises(StorageError, match=r"erasure.toml cannot be written: No locks available$"):
        note(home, FIRST)
    assert load_owed(home) == ()


def test_processes_lose_nothing_of_each_other(home: Home) -> None:
    """Four note ten ids each and strike out nine of them: the others' are there all the while, and at the end."""
    code = """
import sys
from pathlib import Path
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.erasure import Owed, load_owed, note, strike
home, name = Home(Path(sys.argv[1])), sys.argv[2]
sys.stdin.readline()
for number in range(10):
    note(home, Owed(f"{name}-{number}", destinations={"http": "http"}))
    assert f"{name}-{number}" in [each.install_id for each in load_owed(home)]
for number in range(9):
    strike(home, f"{name}-{number}", "http")
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(home.root), name], stdin=subprocess.PIPE) for name in "abcd"
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert {process.wait(30) for process in processes} == {0}
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert {each.install_id for each in load_owed(home)} == {f"{name}-9" for name in "abcd"}
