"""What receivers are told of losses does not link one install id to another."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import Gated, View

OLD, NEW = "01234567-89ab-4def-8123-456789abcdef", "fedcba98-7654-4321-8fed-cba987654321"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db")) as opened:
        opened.register([View(name="team")])
        opened.open_account(OLD)
        yield opened


def lose(spool: Spool, upto: int) -> None:
    """A segment whose owner lost ``upto`` events by now."""
    before = spool.offset("s") or 0
    assert spool.take_in("s", Gated(), before=before, after=before + 1, drops={"storage-failed": upto})


def test_an_account_counts_what_was_lost_and_says_nothing_of_the_spool(spool: Spool) -> None:
    lose(spool, 3)
    called, lost = spool.account("team")
    assert lost == {"storage-failed": 3} == spool.drops("team")
    assert len(called) == 16
    assert called != spool.epoch


def test_the_account_of_another_id_is_called_otherwise_and_begins_with_nothing(spool: Spool) -> None:
    lose(spool, 3)
    before, _ = spool.account("team")
    spool.open_account(NEW)
    after, lost = spool.account("team")
    assert after != before
    assert lost == {}
    lose(spool, 5)
    assert spool.account("team") == (after, {"storage-failed": 2})
    assert spool.drops("team") == {"storage-failed": 5}, "the ledger goes on"


def test_it_is_the_same_for_all_processes_and_opening_it_again_changes_nothing(spool: Spool) -> None:
    lose(spool, 3)
    with closing(Spool(spool.path)) as other:
        other.open_account(OLD)
        assert other.account("team") == spool.account("team")
        other.open_account(NEW)
        assert other.account("team") == spool.account("team")
        assert spool.account("team")[1] == {}


def test_nothing_of_the_old_account_is_left_on_disk(spool: Spool) -> None:
    called, _ = spool.account("team")
    spool.open_account(NEW)
    with closing(sqlite3.connect(spool.path)) as db:
        values = [value for (value,) in db.execute("SELECT value FROM meta")]
    assert not [value for value in values if called in value or OLD in value or NEW in value]


def test_a_policy_goes_with_the_id_its_mark_and_what_it_asks_for(spool: Spool) -> None:
    spool.keep_policy("team", json.dumps({"etag": '"unique-to-this-install"', "document": {"sampling": 0.99991234}}))
    spool.ask_policy("team", 1000.0)
    spool.open_account(OLD)
    assert "unique" in spool.policy("team")[0]
    spool.open_account(NEW)
    assert spool.policy("team") == ("{}", 0.0), "a share that nobody else was asked for would be in each event"


def test_before_anybody_has_an_id_there_is_no_account(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool.db")) as spool:
        spool.register([View(name="team")])
        lose(spool, 1)
        assert spool.account("team") == ("", {"storage-failed": 1})


def test_where_two_processes_open_it_at_once_the_first_one_has_the_say(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Spool(spool.path)) as other:
        first: list[str] = []
        write = spool._write

        def after_another() -> object:
            other.open_account(NEW)
            first.append(other.account("team")[0])
            return write()

        monkeypatch.setattr(spool, "_write", after_another)
        spool.open_account(NEW)
        assert [spool.account("team")[0]] == first
