"""However a process ends, or is interrupted: what was captured is there, and nothing new is begun on the way out."""

from __future__ import annotations

import os
import signal

import pytest


@pytest.mark.parametrize("old", [False, True])
def test_what_is_captured_on_the_way_out_is_recorded_and_starts_nothing(old: bool, programs) -> None:
    """In exit handlers from before and after ours, and in threads that Python waits for."""
    lines = programs(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        from cmdorc_telemetry import recorder
        old = {old}
        if not old:
            recorder.START_SECONDS = 3600
        begun = []
        leaving = False
        class Thread(threading.Thread):
            def start(self):
                if leaving:
                    begun.append(self.name)
                super().start()
        threading.Thread = Thread
        numbers = []

        def late(number):
            if not old:
                recorder.START_SECONDS = 0  # from now on anything would start delivery
            assert track(telemetry, number), number

        @atexit.register  # the last of all
        def end():
            late(5)
            say(begun, threading.active_count())

        telemetry = start()
        assert track(telemetry, 1)
        if old:
            assert telemetry.flush(DEADLINE)
        atexit.register(late, 2)  # runs before ours

        def leave():
            global leaving
            leaving = True
            late(3)
        threading._register_atexit(leave)
        go = threading.Event()
        pool = ThreadPoolExecutor(1)
        pool.submit(lambda: (go.wait(DEADLINE), late(4)))
        threading._register_atexit(go.set)
        """
    )
    assert len(lines) == 1
    assert lines[0].startswith("[] ")
    assert programs.arrived() == dict.fromkeys(range(1, 6), 1)


@pytest.mark.parametrize("place", ["__main__", "string"])
def test_a_finalizer_records_as_long_as_there_is_a_python_and_raises_nothing_afterwards(place: str, programs) -> None:
    programs(
        f"""
        import string
        from cmdorc_telemetry.lifecycle import CompletedRun

        class Last:
            def __init__(self, telemetry):
                self.telemetry = telemetry
                self.run = CompletedRun(run_id="r", command_name="c", state="success", duration=0.002)
            def __del__(self):
                self.telemetry.fire("cmdorc_completed", self.run)
                properties = {{"state": "success", "final": True, "manual": True, "duration_ms": 3}}
                self.telemetry.track("command_completed", properties)

        telemetry = start()
        assert track(telemetry, 1)
        sys.modules[{place!r}].last = Last(telemetry)
        """
    )
    found = programs.arrived()
    assert found[1] == 1
    if place == "__main__":  # what others hold on to goes when our own modules are emptied already
        assert set(found) == {1, 2, 3}


def test_a_daemon_thread_that_is_cut_off_at_the_end_loses_nothing_it_was_told_is_there(programs) -> None:
    lines = programs(
        """
        telemetry = start()
        number = 0
        def capture():
            global number
            while True:
                if track(telemetry, number + 1):
                    number += 1
                    say(number)
        threading.Thread(target=capture, daemon=True).start()
        until(lambda: number > 300)
        """
    )
    said = {int(line) for line in lines}
    found = programs.arrived()
    assert len(said) > 10
    assert set(found) - said <= {max(said) + 1}
    assert said <= set(found)
    assert max(found.values()) == 1


ENDS = {
    "os._exit": ("os._exit(7)", 7),
    "sys.exit": ("sys.exit(7)", 7),
    "error": ("raise RuntimeError", 1),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
    "SIGHUP": ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(30)", -signal.SIGHUP),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "abort": ("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()", -signal.SIGABRT),
    "SIGTERM handled": (
        "signal.signal(signal.SIGTERM, lambda *_: (track(telemetry, 3), sys.exit(8)));"
        " os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
        8,
    ),
    "SIGHUP handled": (
        "signal.signal(signal.SIGHUP, lambda *_: (track(telemetry, 3), os._exit(9)));"
        " os.kill(os.getpid(), signal.SIGHUP); time.sleep(30)",
        9,
    ),
}


@pytest.mark.parametrize("delivering", [False, True])
@pytest.mark.parametrize("way", ENDS)
def test_what_was_captured_is_there_however_it_ends(way: str, delivering: bool, programs) -> None:
    code, status = ENDS[way]
    programs(
        f"""
        telemetry = start()
        assert track(telemetry, 1)
        if {delivering}:
            assert telemetry.flush(DEADLINE)
        assert track(telemetry, 2)
        {code}
        """,
        exit_code=status,
        quiet=False,
    )
    assert programs.arrived() == dict.fromkeys([1, 2, 3] if "handled" in way else [1, 2], 1)


def test_ctrl_c_at_any_instant_breaks_nothing(programs) -> None:
    """The caller's thread is interrupted wherever it happens to be: opening, writing, beginning another segment."""
    programs.home.root.mkdir()
    programs.home.config.write_text("[telemetry.bounds]\nsegment_kib = 16\n")
    lines = programs(
        """
        telemetry = start()
        assert telemetry.flush(DEADLINE)
        journal = telemetry._recorder.journal
        interrupts = 0
        def storm():
            for _ in range(400):
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.001)
        main = threading.get_ident()
        inside = False
        def interrupt(number, frame):
            global inside
            if inside:  # once a time, and not where this program could not bear it
                inside = False
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, interrupt)
        thread = threading.Thread(target=storm)
        thread.start()
        number, captured = 0, []
        while thread.is_alive():
            number += 1
            try:
                inside = True
                assert track(telemetry, number)
                inside = False
                captured.append(number)
            except KeyboardInterrupt:
                interrupts += 1
        thread.join()
        number += 1
        assert track(telemetry, number)
        captured.append(number)
        telemetry.close()
        assert journal.lost == {}
        Path(os.environ["CMDORC_HOME"]).with_name("captured.txt").write_text(" ".join(map(str, captured)))
        say(interrupts, number)
        """,
        covered=False,
    )
    interrupts, number = map(int, lines[0].split())
    captured = {int(each) for each in (programs.folder / "captured.txt").read_text().split()}
    assert interrupts > 50
    found = programs.arrived()
    assert captured <= set(found) <= set(range(1, number + 1))
    assert max(found.values()) == 1
    left = list(programs.home.journal.glob("*.new"))
    assert len(left) < interrupts / 10
    for path in left:  # somebody sweeps it, as soon as nobody can be about to use it
        os.utime(path, (0, 0))
    programs.deliver()
    assert not list(programs.home.journal.glob("*.new"))


def test_a_process_that_is_stopped_goes_on_where_it_was(programs) -> None:
    stopped = programs.begin(
        """
        telemetry = start()
        assert track(telemetry, 1)
        say("ready")
        sys.stdin.readline()
        assert track(telemetry, 2)
        telemetry.close()
        """
    )
    assert stopped.stdout.readline() == "ready\n"
    stopped.send_signal(signal.SIGSTOP)
    programs("telemetry = start(); assert track(telemetry, 3); assert telemetry.flush(DEADLINE); telemetry.close()")
    assert programs.arrived() == {3: 1}  # a process that is stopped lives: its segment is its own
    stopped.send_signal(signal.SIGCONT)
    stopped.communicate("go\n", timeout=20)
    assert stopped.returncode == 0
    assert programs.arrived() == {1: 1, 2: 1, 3: 1}
