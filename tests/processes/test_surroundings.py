"""Loops, threads, interpreters and clocks that a program may have: events arrive once, with names of their own."""

from __future__ import annotations

import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cmdorc_telemetry.delivery import Delivery
from cmdorc_telemetry.spool import Spool

THREADS, EACH = 8, 500


def test_loops_one_after_the_other_and_beside_each_other(programs) -> None:
    programs(
        """
        import asyncio
        from cmdorc_telemetry import recorder
        recorder.START_SECONDS = 0.05
        telemetry = start()

        async def work(number):
            assert track(telemetry, number)
            await asyncio.sleep(0)

        async def last(number):
            await work(number)
            await telemetry.aclose()

        asyncio.run(work(1))  # asks its loop to start delivery, and is gone before that
        assert telemetry._recorder._delivery is None
        asyncio.run(work(2))
        threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in (3, 4, 5)]

        async def outer():
            await work(6)
            for thread in threads:  # loops within a loop, each on a thread of its own
                thread.start()
            for thread in threads:
                thread.join()
            await work(7)

        asyncio.run(outer())
        assert track(telemetry, 8)  # no loop at all
        def delivering():
            track(telemetry, 9)
            return telemetry._recorder._delivery is not None
        until(delivering, "delivery")
        asyncio.run(last(10))
        assert not track(telemetry, 11)
        """
    )
    found = programs.arrived()
    assert set(found) == set(range(1, 11))
    assert all(found[number] == 1 for number in (*range(1, 9), 10))


def test_a_loop_of_another_make(programs) -> None:
    """A host may run on any loop: ours is our own, and only its ``call_later`` is used of the host's."""
    programs(
        """
        import asyncio
        from cmdorc_telemetry import recorder
        recorder.START_SECONDS = 0.05

        class Loop(asyncio.SelectorEventLoop):
            asked = []
            def call_later(self, delay, callback, *args, **named):
                self.asked.append(callback)
                return super().call_later(delay, callback, *args, **named)

        async def main():
            telemetry = start()
            assert track(telemetry, 1)
            assert telemetry._recorder._start in Loop.asked
            while telemetry._recorder._delivery is None:
                await asyncio.sleep(0.005)
            await telemetry.aclose()

        loop = Loop()
        loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))
        loop.close()
        assert "uvloop" not in sys.modules
        """
    )
    assert programs.arrived() == {1: 1}


@pytest.mark.parametrize("delivering", [False, True])
def test_threads_at_once(delivering: bool, programs) -> None:
    programs(
        f"""
        sys.setswitchinterval(1e-5)
        telemetry = start()
        if {delivering}:
            telemetry.flush(DEADLINE)
        gate = threading.Barrier({THREADS})
        def capture(thread):
            gate.wait()
            for number in range({EACH}):
                assert track(telemetry, thread * {EACH} + number)
        threads = [threading.Thread(target=capture, args=(n,)) for n in range({THREADS})]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        telemetry.close()
        """
    )
    assert programs.arrived() == dict.fromkeys(range(THREADS * EACH), 1)


def test_another_interpreter_in_the_same_process(programs) -> None:
    """It records, or, where something that is needed cannot be had there, says so and goes on without."""
    module = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
    lines = programs(
        f"""
        import {module} as interpreters
        telemetry = start()
        assert track(telemetry, 1)
        code = '''
        import os
        from cmdorc_telemetry import Telemetry
        from cmdorc_telemetry.application import CMDORC
        telemetry = Telemetry.start(CMDORC._replace(version="0.12.0"))
        properties = {{"state": "success", "final": True, "manual": True, "duration_ms": 2}}
        os.write(1, (str(bool(telemetry.track("command_completed", properties))) + "\\\\n").encode())
        telemetry.close()
        '''.replace("        ", "")
        interpreter = interpreters.create()
        failure = interpreters.run_string(interpreter, code)
        assert failure is None, failure
        interpreters.destroy(interpreter)
        assert track(telemetry, 3)
        telemetry.close()
        """,
        quiet=False,
    )
    expected = {1: 1, 3: 1, **({2: 1} if lines == ["True"] else {})}
    assert programs.arrived() == expected
    assert lines in (["True"], ["False"])


DAY = 86_400


@pytest.mark.parametrize("jump", [-20 * DAY, -3600, 3600, 20 * DAY])
def test_a_clock_that_jumps(jump: int, programs) -> None:
    """While events wait in the journal, and while they wait for a pause after failures to be over."""
    programs(
        f"""
        from cmdorc_telemetry import TelemetryReporter, clock
        from cmdorc_telemetry.errors import RetryLater
        wall, offset = clock.wall, 0
        clock.wall = lambda: wall() + offset

        class Down(TelemetryReporter):
            down, arrived = True, []
            async def report(self, event, payload):
                if self.down:
                    raise RetryLater("down", after=30.0)
                self.arrived.append(payload["duration_ms"])

        reporter = Down()
        telemetry = start(reporters=[reporter])
        assert track(telemetry, 1)
        assert not telemetry.flush(DEADLINE)
        offset = {jump}
        assert track(telemetry, 2)
        reporter.down = False
        assert telemetry.flush(DEADLINE)
        assert reporter.arrived == [1, 2]
        assert track(telemetry, 3)
        offset = 0
        assert track(telemetry, 4)
        assert telemetry.flush(DEADLINE)
        assert reporter.arrived == [1, 2, 3, 4]
        telemetry.close()
        """
    )
    assert programs.arrived() == {1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("jump", [-365 * DAY, 40 * DAY])
def test_what_expires_by_a_clock_that_jumps_is_counted(jump: int, programs) -> None:
    programs(
        f"""
        from cmdorc_telemetry import clock
        wall = clock.wall
        telemetry = start()
        assert track(telemetry, 1)
        telemetry.close()
        clock.wall = lambda: wall() + {jump}
        telemetry = start()
        assert track(telemetry, 2)
        telemetry.flush(DEADLINE)
        assert track(telemetry, 3)
        telemetry.close()
        """
    )
    ledger = programs.deliver()
    assert ledger.recorded == 3 == ledger.acknowledged + sum(ledger.dropped.values())
    assert ledger.pending == 0
    with closing(sqlite3.connect(programs.home.history)) as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (ledger.acknowledged,)


def test_whoever_starts_delivery_at_once_starts_it_once(tmp_path: Path) -> None:
    """A flush need not wait for whoever is about to start it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(30):
            opened: list[Spool] = []

            def spool(path: Path = tmp_path / f"{turn}" / "spool.db", opened: list[Spool] = opened) -> Spool:
                opened.append(Spool(path))
                return opened[-1]

            delivery = Delivery(spool, [], lambda spool: True, tmp_path / "locks")
            gate = threading.Barrier(4)
            starters = [threading.Thread(target=lambda d=delivery, g=gate: (g.wait(), d.start())) for _ in range(4)]
            for starter in starters:
                starter.start()
            for starter in starters:
                starter.join()
            assert delivery.flush(20)
            assert delivery.stop(20)
            assert len(opened) == 1
    finally:
        sys.setswitchinterval(before)
