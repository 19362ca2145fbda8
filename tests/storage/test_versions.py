"""Files of a later version are left as they are for the program that wrote them; those of an earlier one go on."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cmdorc_telemetry.cli import machine
from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.history import SCHEMA_VERSION as HISTORY_VERSION
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.segment import HEADER, MAGIC, segments
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.spool.schema import SCHEMA_VERSION as SPOOL_VERSION

LATER = 1000


def change(path: Path, statement: str) -> bytes:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    return path.read_bytes()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def command(home: Home, *args: str) -> Result:
    result = CliRunner().invoke(group, args, env={"CMDORC_HOME": str(home.root)})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_a_later_spool_is_refused_and_events_wait_for_it(home: Home, program) -> None:
    before = change(home.spool, f"PRAGMA user_version={LATER}")
    waiting = set(segments(home.journal))
    for number in (1, 2):
        told = program()
        assert told[:3] == (True, 1, False)
        assert len(told.warnings) == 1
        assert (
            f"{home.spool} was made by a newer version of cmdorc-telemetry (schema {LATER}; known here: "
            in told.warnings[0]
        )
        assert len(set(segments(home.journal)) - waiting) == number
    assert waiting <= set(segments(home.journal))
    assert home.spool.read_bytes() == before
    assert "newer version" in command(home, "flush").stderr
    assert command(home, "status").exit_code == 0
    change(home.spool, f"PRAGMA user_version={SPOOL_VERSION}")  # that program has come
    assert program() == (True, 1, True, [])
    assert (program.ledger().recorded, program.ledger().acknowledged) == (6, 6)


def test_a_later_history_is_refused_and_events_wait_for_it(
    home: Home, program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "HISTORY_SECONDS", 0.2)
    before = change(home.history, f"PRAGMA user_version={LATER}")
    assert program(seconds=0.5)[:3] == (True, 1, False)
    assert home.history.read_bytes() == before
    ledger = program.ledger()
    assert (ledger.recorded, ledger.acknowledged, ledger.pending) == (4, 1, 3)
    assert (
        f"{home.history} was made by a newer version of cmdorc-telemetry (schema {LATER}; known here: "
        in ledger.last_error
    )
    stats = command(home, "stats")
    assert stats.exit_code == 1
    assert "made by a newer version" in stats.stderr
    change(home.history, f"PRAGMA user_version={HISTORY_VERSION}")
    assert program()[:3] == (True, 1, True)
    assert program.ledger().pending == 0


def test_an_earlier_history_goes_on(home: Home, program) -> None:
    with closing(sqlite3.connect(home.history)) as db, db:  # as it was before it had a number
        db.executescript("""
            ALTER TABLE event RENAME TO later;
            CREATE TABLE event(id TEXT PRIMARY KEY, at INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
                command TEXT, state TEXT, duration_ms INTEGER) WITHOUT ROWID;
            INSERT INTO event SELECT json_extract(CAST(body AS TEXT), '$.event_id'), id >> 29, name, body, command,
                state, duration_ms FROM later;
            DROP TABLE later;
            PRAGMA user_version=0;
        """)
    before = command(home, "stats", "--json").stdout
    assert program(flush=False)[:2] == (True, 1)
    assert '"c"' in before
    assert program() == (True, 1, True, [])
    assert version(home.history) == HISTORY_VERSION
    with closing(sqlite3.connect(home.history)) as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (5,)


@pytest.mark.parametrize("name", ["spool", "history"])
def test_another_programs_database_is_moved_aside_untouched(name: str, home: Home, program) -> None:
    path: Path = getattr(home, name)
    path.unlink()
    before = change(path, "CREATE TABLE recipes(title TEXT)")
    told = program()
    assert told[:3] == (True, 1, True)
    assert len(told.warnings) == 1
    (kept,) = path.parent.glob(f"{path.name}.corrupt-*")
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    assert len(kept.read_bytes()) == len(before)
    assert program() == (True, 1, True, [])


def test_segments_of_a_later_version_are_left_and_told_of_once(home: Home, program) -> None:
    path = max(segments(home.journal), key=os.path.getmtime)
    data = path.read_bytes()
    for number in (2, 17):
        later = data.replace(MAGIC, MAGIC.replace(b" 1 ", b" %d " % number), 1)
        path.with_name(f"{number:024x}.seg").write_bytes(later)
    told = program()
    assert told[:3] == (True, 1, True)
    (warning,) = told.warnings
    assert warning.endswith("was written by a newer version: upgrade this one")
    assert {f"{2:024x}.seg", f"{17:024x}.seg"} <= {each.name for each in segments(home.journal)}
    assert not list(home.journal.glob("*.corrupt"))
    assert program.ledger().recorded == 4
    status = command(home, "status")
    assert status.exit_code == 0
    assert re.search("[45] records of programs that ended, not yet imported", status.stdout)


def test_a_header_that_is_damaged_costs_its_records_their_way_to_others_alone(home: Home, program) -> None:
    path = max(segments(home.journal), key=os.path.getmtime)
    data = path.read_bytes()
    path.write_bytes(b"\0" * HEADER + data[HEADER:])
    assert program() == (True, 1, True, [])
    assert program.ledger().recorded == 4
    with closing(Spool(home.spool, reading=True)) as spool:
        assert spool.withheld() == {"consent": 2}
