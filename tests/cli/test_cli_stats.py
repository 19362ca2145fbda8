"""``stats``: what the history says, per command, and how it compares."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from msgspec import structs

from cmdorc_telemetry import CompletedRun, clock
from cmdorc_telemetry.cli.stats import stats
from cmdorc_telemetry.spool import Spool
from cmdorc_telemetry.types import EventResult

HTTP = '[telemetry]\nplugins = ["http"]\nendpoint = "http://127.0.0.1:9/v1"\n'


def runs(name: str, *durations: float, state: str = "success") -> list[CompletedRun]:
    return [CompletedRun(run_id="r", command_name=name, state=state, duration=each) for each in durations]


def test_off_it_says_so_and_writes_nothing(machine) -> None:
    result = machine("stats")
    assert result.stdout == "Telemetry is off. Nothing is recorded.\n  telemetry opt-in\n"
    assert machine.json("stats") == {
        "recording": False, "days": 30, "runs": 0, "commands": [], "percentile_duration": {}
    }  # fmt: skip
    assert not machine.home.root.exists()


def test_new_it_says_what_will_come(machine) -> None:
    machine.opt_in("--local")
    assert machine("stats").stdout == (
        "No runs yet. Charts appear after 20 runs.\n\nNo comparison yet: needs an answer from the server.\n"
    )


def test_each_command_has_a_line(machine) -> None:
    machine.opt_in("--local")
    failed, cancelled = runs("Tests", 3.9, state="failed"), runs("Tests", 99, state="cancelled")
    machine.record(*runs("Tests", 3.5, 3.4, 6.9), *failed, *cancelled, *runs("Lint", 0.0871))
    abandoned = structs.replace(machine.run, command_name="Docs", final=False, state="running")
    machine.record(abandoned)
    lines = machine("stats").stdout.splitlines()
    assert lines == [
        "Last 30 days  7 runs of 3 commands, from this machine only",
        "",
        "Command  Runs     OK    p50    p95",
        "Tests       5   75 %  3.5 s  6.9 s",
        "Docs        1      –      –      –",
        "Lint        1  100 %  87 ms  87 ms",
        "",
        "Charts appear after 20 runs.",
        "",
        "No comparison yet: needs an answer from the server.",
    ]


def test_enough_runs_have_a_chart_over_the_days(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.wall()
    decided = datetime.fromtimestamp(now - 30 * 86_400, timezone.utc)
    monkeypatch.setattr(clock, "utcnow", lambda: decided)
    machine.opt_in("--local")
    for days_ago, seconds in ((29.5, 1.0), (14.5, 4.0), (0.1, 8.0)):
        monkeypatch.setattr(clock, "wall", lambda at=now - days_ago * 86_400: at)
        machine.record(*runs("Tests", *[seconds] * 7))
    monkeypatch.setattr(clock, "wall", lambda: now)
    lines = machine("stats").stdout.splitlines()
    assert lines[2] == "Command  Runs     OK    p50    p95  30 days, p50"
    assert lines[3] == "Tests      21  100 %  4.0 s  8.0 s  ▂" + " " * 14 + "▅" + " " * 13 + "█"
    assert machine("stats", "--days", "1").stdout.splitlines()[0] == (
        "Last day  7 runs of 1 command, from this machine only"
    )
    assert machine("stats", "--days", "400").stdout.splitlines()[2].endswith("400 days, p50")


def test_json_has_the_figures(machine) -> None:
    machine.opt_in("--local")
    machine.record(*runs("Tests", 3.5))
    told = machine.json("stats", "--days", "2")
    assert told["recording"] is True
    assert told["commands"] == [
        {"name": "Tests", "succeeded": 1, "failed": 0, "cancelled": 0, "p50_ms": 3500, "p95_ms": 3500,
         "total_ms": 3500, "changes": 0, "medians_ms": [None, 3500], "p95s_ms": [None, 3500], "counts": [0, 1],
         "runs": 1}
    ]  # fmt: skip


@pytest.fixture
def answered(machine):
    """An opted-in home, and a function that enters what a server answered."""
    machine.config(HTTP)
    machine.opt_in()

    def answer(value: object) -> None:
        machine.record()
        machine("show-payload")
        spool = Spool(machine.home.spool)
        lease = spool.lease("http", clock.wall())
        assert lease is not None
        outcomes = {item.seq: EventResult("", "accepted") for item in lease.items}
        spool.settle(lease, outcomes, clock.wall(), answer=json.loads(json.dumps(value)))
        spool.close()

    return answer


def test_the_last_answer_of_a_server_is_shown(machine, answered) -> None:
    answered({"stats": {"percentile_duration": 12}})
    answered({"stats": {"percentile_duration": 87}})
    last = machine("stats").stdout.splitlines()[-1]
    assert last.startswith("Compared  your median run is slower than 87 % of installs (http, ")
    assert last.endswith(" UTC)")
    assert machine.json("stats")["percentile_duration"] == {"http": 87}


@pytest.mark.parametrize(
    "value",
    [{"message": "Thanks!"}, {"stats": 87}, {"stats": {"percentile_duration": "87"}},
     {"stats": {"percentile_duration": True}}, {"stats": {"percentile_duration": 101}},
     {"stats": {"percentile_duration": -1}}],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_none(machine, answered, value: object) -> None:
    answered(value)
    assert machine("stats").stdout.splitlines()[-1] == "No comparison yet: needs an answer from the server."


def test_what_was_recorded_before_can_be_read_while_it_is_off(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.opt_in("--local")
    machine.record()
    machine("stats")
    machine.record()
    before = machine.files()
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    lines = machine("stats").stdout.splitlines()
    assert lines[:4] == [
        "Telemetry is off. Nothing is recorded.", "  telemetry opt-in", "",
        "Last 30 days  1 run of 1 command, from this machine only",
    ]  # fmt: skip
    assert "comparison" not in lines[-1]
    assert machine.files() == before


def test_running_programs_are_reported_apart(machine) -> None:
    machine.opt_in("--local")
    program = machine.program()
    program.fire("cmdorc_completed", machine.run)
    result = machine("stats")
    assert result.stderr == "1 running process has events that are not imported yet.\n"
    assert result.stdout.startswith("No runs yet.")
    program.close()


def test_names_of_commands_cannot_talk_to_the_terminal(machine) -> None:
    machine.opt_in("--local")
    machine.record(*runs("a\x1b[31mb", 1.0))
    assert "a�[31mb" in machine("stats").stdout


def test_a_history_that_cannot_be_read(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.opt_in("--local")
    machine.home.history.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    result = machine("stats", code=1)
    assert result.stderr.startswith(f"error: {machine.home.history} cannot be read: ")


def test_the_help_says_what_is_counted() -> None:
    assert stats.help is not None
    assert "cancelled" in stats.help
