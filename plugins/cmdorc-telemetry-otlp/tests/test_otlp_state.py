"""What was counted, over processes, restarts and damage: sums that only rise, and begin where they say."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cmdorc_telemetry.tally.counts as counts_module
import cmdorc_telemetry_otlp.reporter as reporter_module
from cmdorc_telemetry.errors import RetryLater
from cmdorc_telemetry.types import Batch, BatchEvent, Setup
from cmdorc_telemetry_otlp.plugin import Otlp

Make = Callable[..., Any]
RUNS = "cmdorc.command_completed.count"
NAME = "cicd__pipeline__task__name"


def test_sums_go_on_where_they_were(server: Any, another: Make, send: Make, run: Make) -> None:
    begun = set()
    for number in range(1, 4):
        send(another(), run(timestamp=f"2026-01-02T03:04:0{number}Z"))
        point = server.got.point(RUNS)
        begun.add(point.start_time_unix_nano)
        assert point.as_int == number
        assert point.start_time_unix_nano < point.time_unix_nano
    assert len(begun) == 1
    assert server.got.faults == []


def test_only_what_changed_is_told(server: Any, another: Make, send: Make, run: Make) -> None:
    send(another(), run("Build"), run("Test"))
    server.got.series.clear()
    send(another(), run("Test"))
    assert {dict(labels)["cicd.pipeline.task.name"] for _, _, labels in server.got.series} == {"Test"}
    assert server.got.total(RUNS) == 2


def test_what_was_not_told_is_told_when_it_comes_again(server: Any, another: Make, send: Make, run: Make) -> None:
    build = run("Build")
    server.will(None, "503-seconds")
    with pytest.raises(RetryLater):
        send(another(), build)
    send(another(), run("Test"), build)
    assert server.got.total(RUNS, **{NAME: "Build"}) == 1


def test_what_may_no_longer_be_sent_when_it_comes_again_is_not(
    server: Any, another: Make, send: Make, made: Make
) -> None:
    """It was counted while nobody listened; then its level was lowered, or its consent taken back."""
    stopped = made("orchestrator_stopped", avg_concurrent_runs=2.5, run_count=7)
    body = {name: value for name, value in stopped.payload.items() if name not in ("avg_concurrent_runs", "run_count")}
    server.will(None, "503-seconds")
    with pytest.raises(RetryLater):
        send(another(), stopped, made("orchestrator_started"))
    send(another(), BatchEvent(stopped.event_id, stopped.event, msgspec.json.encode(body)))
    told = {name for _, name, _ in server.got.series}
    assert "cmdorc.orchestrator_stopped.count" in told
    assert told.isdisjoint({"cmdorc.orchestrator_stopped.avg_concurrent_runs", "cmdorc.orchestrator_started.count"})


def test_what_does_not_come_again_is_in_no_sum(server: Any, another: Make, send: Make, run: Make) -> None:
    """Consent to it was withdrawn, or it was too old, and what follows adds to the same series."""
    told, lost, again = run(ms=1000), run(ms=5000), run(ms=3000)
    send(another(), told)
    server.will("503-seconds")
    with pytest.raises(RetryLater):
        send(another(), lost)
    server.will(None, None, "503-seconds")  # spans, records and sums: the last do not arrive
    with pytest.raises(RetryLater):
        send(another(), again, run("Manual", manual=True))
    before = server.got.point(RUNS, **{NAME: "Build"})
    records = len(server.got.records)
    send(another(), again)
    point = server.got.point(RUNS, **{NAME: "Build"})
    assert (before.as_int, point.as_int) == (1, 1)
    assert server.got.point("cmdorc.command_completed.duration", **{NAME: "Build"}).sum == 3
    assert before.time_unix_nano <= point.start_time_unix_nano < point.time_unix_nano, "it says that it began anew"
    assert len(server.got.records) == records, "what had arrived of it is not sent again"
    send(another(), run(ms=1000), lost)  # it comes after all
    assert server.got.point("cmdorc.command_completed.duration", **{NAME: "Build"}).sum == 3 + 1 + 5
    assert server.got.faults == []


def test_events_that_become_no_series_make_none_begin_anew(
    server: Any, another: Make, send: Make, run: Make, made: Make
) -> None:
    for _ in range(3):
        send(another(), run())
        send(another(), made("unheard_of"))
        server.will_answer(400)
        send(another(signals=["metrics"]), run())
    assert server.got.point(RUNS).as_int == 5


def test_events_that_come_late_make_no_point_go_back(server: Any, another: Make, send: Make, run: Make) -> None:
    for timestamp in ("2026-01-02T03:04:05Z", "2026-01-01T00:00:00Z", "2026-01-02T03:04:05Z", "2026-01-03T00:00:00Z"):
        send(another(), run(timestamp=timestamp))
    assert server.got.faults == []
    assert server.got.point(RUNS).as_int == 4


def test_a_gauge_is_what_is_latest_whenever_that_came(server: Any, another: Make, send: Make, made: Make) -> None:
    for second, value in ((5, 1.0), (3, 2.0), (7, 3.0), (6, 4.0)):
        send(another(), made("orchestrator_stopped", timestamp=f"2026-01-02T03:04:0{second}Z",
                             avg_concurrent_runs=value))  # fmt: skip
        latest = server.got.point("cmdorc.orchestrator_stopped.avg_concurrent_runs").as_double
        assert latest == {5: 1.0, 3: 1.0, 7: 3.0, 6: 3.0}[second]
    assert server.got.faults == []


def test_a_clock_that_was_wrong_leaves_no_series_in_the_future(
    server: Any, another: Make, send: Make, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(reporter_module.clock, "wall", lambda: now[0])

    def told(timestamp: str, value: float) -> tuple[str, float, bool]:
        send(another(), made("orchestrator_stopped", timestamp=timestamp, avg_concurrent_runs=value))
        point = server.got.point("cmdorc.orchestrator_stopped.count")
        moment = datetime.fromtimestamp(point.time_unix_nano / 1e9, timezone.utc)
        load = server.got.point("cmdorc.orchestrator_stopped.avg_concurrent_runs").as_double
        return moment.strftime("%Y-%m-%d"), load, point.start_time_unix_nano < point.time_unix_nano

    now[0] = datetime(2026, 1, 2, 3, tzinfo=timezone.utc).timestamp()
    assert told("2099-01-02T03:04:05Z", 1.0) == ("2026-01-02", 1.0, True)  # recorded while it was wrong
    now[0] += 86400
    assert told("2026-01-03T02:59:00Z", 2.0) == ("2026-01-03", 2.0, True)
    now[0] += 73 * 366 * 86400
    assert told("2099-01-02T03:04:05Z", 3.0) == ("2099-01-02", 3.0, True)  # and sent
    now[0] -= 73 * 366 * 86400
    server.got.series.clear()
    assert told("2026-01-03T02:59:30Z", 4.0) == ("2026-01-03", 4.0, True)


def test_nothing_is_nothing(another: Make) -> None:
    assert another().encode(Batch(destination="otlp", events=())) == b""


def test_more_names_than_there_is_room_for(
    server: Any, another: Make, send: Make, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000 * 86400.0]
    monkeypatch.setattr(reporter_module.clock, "wall", lambda: now[0])

    def count(*names: str) -> dict[str, float]:
        send(another(most_values=2), *map(run, names))
        return {name: server.got.total(RUNS, **{NAME: name}) for name in ("A", "B", "C", "D", "other")}

    assert count("A", "B", "C", "C") == {"A": 1, "B": 1, "C": 0, "D": 0, "other": 2}
    assert count("C", "A", "D") == {"A": 2, "B": 1, "C": 0, "D": 0, "other": 4}
    now[0] += 29 * 86400
    assert count("A", "D")["other"] == 5
    now[0] += 2 * 86400  # B was not seen for 31 days
    assert count("D") == {"A": 3, "B": 1, "C": 0, "D": 1, "other": 5}
    assert count("B") == {"A": 3, "B": 1, "C": 0, "D": 1, "other": 6}
    assert count("other")["other"] == 7


def test_there_is_room_for_so_many_names_over_all_processes(
    server: Any, another: Make, send: Make, run: Make
) -> None:  # fmt: skip
    for name in ("A", "B", "C", "D", "A"):
        send(another(most_values=2), run(name))
    assert {name: server.got.total(RUNS, **{NAME: name}) for name in ("A", "B", "C", "other")} == {
        "A": 2, "B": 1, "C": 0, "other": 2,
    }  # fmt: skip


def test_another_address_counts_for_itself(server: Any, another: Make, send: Make, run: Make) -> None:
    send(another(), run())
    send(another(endpoint=f"{server.url}/elsewhere"), run())
    assert server.got.point(RUNS).as_int == 1


def test_two_destinations_at_one_receiver(server: Any, another: Make, run: Make) -> None:
    event = run(manual=True)

    async def life() -> None:
        for name in ("mine", "theirs"):
            reporter = another(signals=["logs"])
            await reporter.report_batch(Batch(destination=name, events=(event,)))
            await reporter.close()

    asyncio.run(life())
    assert server.paths() == ["/v1/logs", "/v1/logs"]


def test_another_installation_is_another_series(server: Any, another: Make, send: Make, run: Make) -> None:
    other = "6f1e1d3a-5b1c-4b6f-9d5e-000000000002"
    send(another(), run(), run(anonymous_install_id=other), run(anonymous_install_id=other))
    found = {dict(who)["service.instance.id"]: point.as_int for (who, name, _), point in server.got.series.items()
             if name == RUNS}  # fmt: skip
    assert sorted(found.values()) == [1, 2]


def test_no_time_links_another_installation_to_the_one_before(
    server: Any, another: Make, send: Make, run: Make
) -> None:
    """As after ``reset-id``: with times to the hour, even a millisecond more would tell that it is the same machine."""
    hour = "2026-01-02T03:00:00Z"
    for _ in range(3):
        send(another(), run(timestamp="2026-01-01T01:00:00Z"), run(timestamp=hour))
    send(another(), run(timestamp=hour, anonymous_install_id="6f1e1d3a-5b1c-4b6f-9d5e-000000000002"))
    second = 10**9
    moment = int(datetime.fromisoformat(hour.replace("Z", "+00:00")).timestamp()) * second
    (new,) = [point for (who, name, _), point in server.got.series.items()
              if name == RUNS and dict(who)["service.instance.id"].endswith("2")]  # fmt: skip
    assert (new.start_time_unix_nano, new.time_unix_nano) == (moment - second, moment)


def test_buckets_that_changed_begin_anew(server: Any, another: Make, send: Make, run: Make) -> None:
    duration = "cmdorc.command_completed.duration"
    send(another(), run(ms=900), run(ms=900))
    server.got.series.clear()
    for count in (1, 2):
        send(another(buckets=[1, 2]), run(ms=900))
        point = server.got.point(duration)
        assert (point.count, point.sum) == (count, pytest.approx(0.9 * count))
        assert server.got.total(RUNS) == 2 + count


def test_more_series_than_one_request_has(
    server: Any, another: Make, send: Make, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cmdorc_telemetry_otlp.messages as messages_module

    monkeypatch.setattr(messages_module, "MOST_POINTS", 7)
    send(another(), *(run(f"C{number}", manual=False) for number in range(5)))
    assert server.paths().count("/v1/metrics") > 2
    assert server.got.total(RUNS) == 5


def test_ids_are_remembered_for_long_and_not_for_ever(
    server: Any, another: Make, send: Make, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "KEPT_IDS", 40)
    monkeypatch.setattr(counts_module, "_TIDY_EVERY", 10)
    events = [run() for _ in range(100)]
    for start in range(0, 100, 7):
        send(another(), *events[start : start + 7])
        before = len(server.seen)
        send(another(), *events[max(0, start - 33) : start + 7])
        assert len(server.seen) == before
    with sqlite3.connect(another().state_of("otlp").path) as db:
        assert 40 <= db.execute("SELECT count(*) FROM counted").fetchone()[0] <= 60
    db.close()
    assert server.got.total(RUNS) == 100


def test_a_file_that_cannot_be_read_begins_anew(
    server: Any, another: Make, send: Make, run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    send(another(), run())
    path = another().state_of("otlp").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"no database" * 1000)
    assert send(another(), run(timestamp="2026-01-02T03:05:05Z")) == ["accepted"]
    assert server.got.point(RUNS).as_int == 1
    assert "counters begin anew" in caplog.text
    assert server.got.faults == []  # it says that it began later


def test_a_file_of_a_later_version_stays(another: Make, send: Make, run: Make) -> None:
    send(another(), run())
    with sqlite3.connect(another().state_of("otlp").path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(RetryLater, match="newer version"):
        send(another(), run())


def test_where_nothing_can_be_written(
    server: Any, another: Make, send: Make, run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMDORC_HOME", "/proc/nowhere")
    with pytest.raises(RetryLater):
        send(another(), run())
    assert server.seen == []


def test_the_plugin_gives_its_reporters_a_place(tmp_path: Path) -> None:
    plugin, folder = Otlp(), tmp_path / "plugins" / "otlp"
    plugin.telemetry_configure(Setup(name="otlp", folder=folder))
    (class_,) = plugin.telemetry_reporters()
    plugin.telemetry_configure(Setup(name="otlp", folder=folder / "again"))
    assert plugin.telemetry_reporters() == [class_]
    made = class_(class_.Settings(endpoint="https://o.example"))  # type: ignore[call-arg]
    assert made.state_of("x").path.parent == folder / "again"  # type: ignore[attr-defined]


def test_all_that_the_plugins_spec_holds_is_private() -> None:
    from cmdorc_telemetry.spec.lint import lint

    (spec,) = Otlp().telemetry_specs()
    assert {prop.audience for event in spec.events for prop in event.properties.values()} == {"private"}
    assert list(lint(spec, date(2026, 1, 2))) == []
