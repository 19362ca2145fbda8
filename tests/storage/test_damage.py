"""Every file of a home × every damage: the program goes on, loses only what was hit, warns once at most, and the next
program finds nothing that somebody would have to delete by hand."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cmdorc_telemetry import files
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.home import Home

Damage = Callable[[Path], object]


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def _directory(path: Path) -> None:
    _gone(path)
    path.mkdir()
    (path / "somebody's").touch()


def _pipe(path: Path) -> None:
    _gone(path)
    os.mkfifo(path)


def _socket(path: Path) -> None:
    _gone(path)
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may not be as long as a path
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(before)


def _link_to_nowhere(path: Path) -> None:
    _gone(path)
    path.symlink_to(path.parent / "no-such-folder" / "file")


def _link_to_itself(path: Path) -> None:
    _gone(path)
    path.symlink_to(path)


def _link(path: Path) -> None:
    elsewhere = path.rename(path.with_name("elsewhere"))
    path.symlink_to(elsewhere)


MADE: dict[str, Damage] = {
    "garbage": lambda path: path.write_bytes(b"\0garbage\xff\n" * 200),
    "empty": lambda path: path.write_bytes(b""),
    "directory": _directory,
    "pipe": _pipe,
    "socket": _socket,
    "link to nowhere": _link_to_nowhere,
    "link to itself": _link_to_itself,
}
"""What may stand where a file is looked for."""
FOUND: dict[str, Damage] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "gone": _gone,
    "link": _link,
    "hard link": lambda path: os.link(path, path.with_name("hard")),
}
"""What may become of one that is there."""
DAMAGE = {**MADE, **FOUND}

OURS = {
    "segment": lambda home: max(home.journal.glob("*.seg"), key=os.path.getmtime),
    "new segment": lambda home: home.journal / f"{'0' * 24}.new",
    "spool": lambda home: home.spool,
    "spool's log": lambda home: home.spool.with_name("spool.db-wal"),
    "spool's index": lambda home: home.spool.with_name("spool.db-shm"),
    "spool's lock": lambda home: home.spool.with_name("spool.db.lock"),
    "spool's reserve": lambda home: home.spool.with_name("spool.db.reserve"),
    "spool's suspicion": lambda home: home.spool.with_name("spool.db.suspect"),
    "history": lambda home: home.history,
    "history's log": lambda home: home.history.with_name("history.db-wal"),
    "history's index": lambda home: home.history.with_name("history.db-shm"),
    "history's lock": lambda home: home.history.with_name("history.db.lock"),
    "sender's lock": lambda home: home.locks / "history.lock",
    "identity's lock": lambda home: home.telemetry / "identity.lock",
    "mark of what waits": lambda home: home.waiting,
    "install id": lambda home: home.install_id,
    "salt": lambda home: home.salt,
    "what is installed": lambda home: home.discovered,
}
"""Files that this project alone has to do with: whatever became of them, it helps itself."""


def command(home: Home, *args: str) -> tuple[int, BaseException | None]:
    """A command's exit code, and what it raised."""
    result = CliRunner().invoke(group, args, env={"CMDORC_HOME": str(home.root)})
    return result.exit_code, result.exception


def cases() -> list[tuple[str, str]]:
    lasting = ("segment", "spool", "history", "install id", "salt")
    return [(name, damage) for name in OURS for damage in DAMAGE if damage in MADE or name in lasting]


@pytest.mark.parametrize(("name", "damage"), cases())
def test_a_program_helps_itself(name: str, damage: str, home: Home, program) -> None:
    path: Path = OURS[name](home)
    path.parent.mkdir(exist_ok=True)
    DAMAGE[damage](path)
    if name == "new segment":  # whoever makes one does not leave it for long
        os.utime(path, (0, 0), follow_symlinks=False)
    assert command(home, "status") == (0, None)
    first = program()
    assert first[:3] == (True, 1, True)
    assert len(first.warnings) <= 1
    second = program()
    assert second == (True, 1, True, [])
    assert not [each for each in home.journal.glob("*.seg") if files.is_foreign(each)]
    ledger = program.ledger()
    assert ledger.recorded == ledger.acknowledged + sum(ledger.dropped.values())
    # Of three events before the damage and two behind it, only what was hit may be missing.
    untouched = name not in ("segment", "spool") or damage in ("link", "hard link")
    assert ledger.recorded - sum(ledger.dropped.values()) >= (5 if untouched else 2)
    assert command(home, "status") == (0, None)


FOLDERS = {"journal": lambda home: home.journal, "locks": lambda home: home.locks}


@pytest.mark.parametrize("damage", ["garbage", "pipe", "link to nowhere", "link to itself"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_none_is_moved_aside(name: str, damage: str, home: Home, program) -> None:
    path: Path = FOLDERS[name](home)
    for each in path.iterdir():
        each.unlink()
    path.rmdir()
    DAMAGE[damage](path)
    first = program()
    assert first[:3] == (True, 1, True)
    assert len(first.warnings) == 1
    assert f"{path} was no directory and was moved to {path}.corrupt-" in first.warnings[0]
    assert program() == (True, 1, True, [])


# -- a person's files: nobody else writes them, or guesses what was in them --------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_decision_that_cannot_be_read_is_none_until_a_person_decides(damage: str, home: Home, program) -> None:
    DAMAGE[damage](home.consent)
    if damage in ("link", "hard link"):
        assert program() == (True, 1, True, [])
        return
    for _ in range(2):
        told = program()
        assert not told.recording
        if damage == "gone":
            assert told.warnings == []  # as if there had never been one
        else:
            assert len(told.warnings) == 1
            assert str(home.consent) in told.warnings[0]
            assert "`cmdorc telemetry opt-out` or `opt-in` writes a new decision" in told.warnings[0]
    assert command(home, "status") == (0, None)
    assert command(home, "opt-in", "--yes") == (0, None)
    assert program() == (True, 1, True, [])


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each not in ("cut short", "empty")])
def test_a_configuration_that_cannot_be_read_is_named_and_left_alone(damage: str, home: Home, program) -> None:
    DAMAGE[damage](home.config)
    told = program()
    if damage in ("gone", "link", "link to nowhere", "hard link"):
        assert told == (True, 1, True, [])
        return
    assert not told.recording
    assert len(told.warnings) == 1
    assert told.warnings[0].startswith(f"telemetry is off: {home.config}: cannot be read: ")
    assert os.path.lexists(home.config)
