"""Forks, at any instant: a child writes a segment of its own and never touches what is its parent's."""

from __future__ import annotations

import pytest

WAYS = {
    "_exit": "os._exit(0)",
    "exit": "sys.exit(0)",
    "error": "raise ValueError('a child that fails')",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "grandchild": """
    child = os.fork()
    if child:
        os._exit(wait(child))
    track(telemetry, 900 + number)
    sys.exit(0)
""",
}
PARENT = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: what this is about
telemetry = start()
assert track(telemetry, 1)
assert telemetry.flush(DEADLINE)
own = telemetry._recorder.journal.path
busy = True

def capture(begin):
    number = begin
    while busy:
        number += 1
        assert track(telemetry, number)
        time.sleep(0.0005)
    say("captured", begin, number)

threads = [threading.Thread(target=capture, args=(begin,)) for begin in (1_000_000, 2_000_000)]
for thread in threads:
    thread.start()
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_child_captures_and_ends_in_its_way(way: str, programs) -> None:
    lines = programs(
        PARENT
        + f"""
children = []
for number in range(12):
    child = os.fork()
    if child:
        children.append(child)
        continue
    sys.stderr = open(os.devnull, "w")
    assert telemetry._recorder.journal.path is None
    assert track(telemetry, 100 + number) and track(telemetry, 200 + number)
    assert telemetry._recorder.journal.path not in (own, None)
    {WAYS[way].strip()}
say("children", *[wait(child) for child in children])
busy = False
for thread in threads:
    thread.join()
assert track(telemetry, 2)
assert telemetry.flush(DEADLINE)
telemetry.close()
"""
    )
    told = {line.split()[0]: line.split()[1:] for line in lines if not line.startswith("captured")}
    assert set(told["children"]) == {{"error": "1", "killed": "-9"}.get(way, "0")}
    expected = {1, 2, *range(100, 112), *range(200, 212)} | set(range(900, 912) if way == "grandchild" else ())
    for line in lines:
        if line.startswith("captured"):
            _, begin, last = map(int, line.replace("captured", "0").split())
            expected |= set(range(begin + 1, last + 1))
    found = programs.arrived()
    assert set(found) == expected
    assert max(found.values()) == 1


def test_a_storm_of_forks_while_everything_is_at_work_leaves_nothing_broken(programs) -> None:
    """Import, gate, transactions and batches are under way in the telemetry thread at every one of them."""
    lines = programs(
        PARENT
        + """
def flush():
    while busy:
        telemetry.flush(0.2)

sender = threading.Thread(target=flush)
sender.start()
for number in range(60):
    child = os.fork()
    if not child:
        assert track(telemetry, 100 + number)
        if number % 2:
            os._exit(0)
        break
    assert wait(child) == 0, number
else:
    busy = False
    for thread in [*threads, sender]:
        thread.join()
    telemetry.close()
""",
        covered=False,  # what coverage writes at the end of a child hangs, now and then, in locks that threads held
    )
    expected = {1, *range(100, 160)}
    for line in lines:
        _, begin, last = line.split()
        expected |= set(range(int(begin) + 1, int(last) + 1))
    found = programs.arrived()
    assert set(found) == expected
    assert max(found.values()) == 1
    assert not list(programs.home.telemetry.glob("*corrupt*"))
    assert not list(programs.home.telemetry.glob("*suspect*"))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str, programs) -> None:
    lines = programs(
        f"""
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)

        def work(number):
            telemetry = globals().get("telemetry") or start()
            return track(telemetry, 100 + number)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            telemetry = start()
            assert track(telemetry, 1)
            assert telemetry.flush(DEADLINE)
            with context.Pool(2) as pool:
                done = pool.map(work, range(10))
                pool.close()
                pool.join()
            say(all(done))
            telemetry.close()
        """
    )
    assert lines == ["True"]
    assert programs.arrived() == dict.fromkeys([1, *range(100, 110)], 1)


def test_commands_that_are_started_beside_it_keep_nothing_of_it(programs) -> None:
    programs(
        """
        import subprocess
        telemetry = start()
        assert track(telemetry, 1)
        before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
        ways = [dict(), dict(preexec_fn=os.setsid), dict(preexec_fn=int, close_fds=False), dict(close_fds=False)]
        commands = [subprocess.Popen(["sleep", "60"], **way) for way in ways]
        commands.append(os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ))
        try:
            assert track(telemetry, 2)
            telemetry.close()
            again = start()  # what is still locked by a command could not be imported now
            assert again.flush(DEADLINE)
            assert not list((Path(os.environ["CMDORC_HOME"]) / "telemetry" / "journal").glob("*.seg"))
            again.close()
        finally:
            for command in commands[:-1]:
                command.kill()
                command.wait()
            os.kill(commands[-1], signal.SIGKILL)
            os.waitpid(commands[-1], 0)
        """
    )
    assert programs.arrived() == {1: 1, 2: 1}


LIVING = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import asyncio, sqlite3
from contextlib import closing, suppress
from cmdorc_telemetry import recorder
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.delivery import thread
from cmdorc_telemetry.spool import Spool

recorder.HAND_OVER_SECONDS = thread.LOOK_SECONDS = 0.1

def acknowledged():
    home = Home(Path(os.environ["CMDORC_HOME"]))
    with suppress(StorageError, KeyError), closing(Spool(home.spool, reading=True)) as spool:
        return spool.ledger()["history"].acknowledged
    return 0

telemetry = start()

async def begin():  # asks its loop to start delivery, and is gone before that
    assert track(telemetry, 1)

asyncio.run(begin())
"""


def quick(programs) -> None:
    programs.home.root.mkdir()
    programs.home.config.write_text("[telemetry.bounds]\nbatch_seconds = 1\n")


def test_a_child_that_lives_on_delivers_by_itself(programs) -> None:
    """Its events need not wait for its end: whoever forks workers and lets them live for days would never see them."""
    quick(programs)
    programs(
        LIVING
        + """
child = os.fork()
if not child:
    def delivered():
        track(telemetry, 3)  # a record that finds the process old enough
        return acknowledged() > 2
    until(delivered, "its own delivery")
    assert telemetry._recorder._delivery is not None
    os._exit(0)
assert wait(child) == 0
assert telemetry._recorder._delivery is None
telemetry.close()
"""
    )
    found = programs.arrived()
    assert found[1] == 1
    assert found[3] > 1


def test_a_child_of_a_parent_that_delivers_opens_no_database_and_its_parent_delivers_for_it(programs) -> None:
    """What SQLite knew of locks in the parent, it believes in the child: that has broken databases."""
    quick(programs)
    programs(
        LIVING
        + """
assert telemetry.flush(DEADLINE)
done, told = os.pipe()
child = os.fork()
if not child:
    def opens(name, args):
        if name == "sqlite3.connect" and os.environ["CMDORC_HOME"] in os.fspath(args[0]):
            os._exit(9)
    sys.addaudithook(opens)
    os.set_blocking(done, False)
    again = start()
    assert not again.flush(DEADLINE)
    end = time.monotonic() + 2 * DEADLINE
    number = 1000
    while time.monotonic() < end:
        number += 1
        assert track(telemetry, number) and track(again, 1_000_000 + number)
        assert threading.active_count() == 1
        try:
            os.read(done, 1)
            os._exit(0)
        except BlockingIOError:
            time.sleep(0.03)  # too few to begin another segment for their size
    os._exit(1)
def delivered():
    with closing(sqlite3.connect(Path(os.environ["CMDORC_HOME"]) / "telemetry" / "history.db")) as db:
        numbers = [number for (number,) in db.execute("SELECT duration_ms FROM event")]
    return any(1000 < number < 1_000_000 for number in numbers) and max(numbers) > 1_000_000  # of both
until(delivered, "its parent's delivery")
os.write(told, b"x")
assert wait(child) == 0
telemetry.close()
"""
    )
    assert max(programs.arrived().values()) == 1


def test_a_reporter_of_the_parents_is_not_the_childs(programs) -> None:
    lines = programs(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from cmdorc_telemetry import TelemetryReporter

        class Keeper(TelemetryReporter):
            kept = []
            async def report(self, event, payload):
                say("reported", os.getpid() == parent, payload["duration_ms"])

        parent = os.getpid()
        telemetry = start(reporters=[Keeper()])
        assert track(telemetry, 1)
        assert telemetry.flush(DEADLINE)
        child = os.fork()
        if not child:
            assert track(telemetry, 2)
            assert not telemetry.flush(DEADLINE)
            telemetry.close()
            os._exit(0)
        assert wait(child) == 0
        owners = list((Path(os.environ["CMDORC_HOME"]) / "telemetry" / "locks").glob("*.owner"))
        assert len(owners) == 1, owners
        assert track(telemetry, 3)
        assert telemetry.flush(DEADLINE)
        telemetry.close()
        """
    )
    assert lines == ["reported True 1", "reported True 3"]
    assert set(programs.arrived()) == {1, 2, 3}


def test_a_child_imports_what_a_thread_of_ours_was_importing(programs) -> None:
    """Python leaves such a module locked for ever in the child."""
    quick(programs)
    (programs.folder / "slow_to_import.py").write_text(
        "import os, time\n"
        "if os.getpid() == int(os.environ['PARENT']):\n"
        "    os.environ['IMPORTING'] = '1'\n"
        "    time.sleep(60)\n"
    )
    programs(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from cmdorc_telemetry import TelemetryReporter
        os.environ["PARENT"] = str(os.getpid())

        class Lazy(TelemetryReporter):
            async def report(self, event, payload):
                import slow_to_import

        telemetry = start(reporters=[Lazy()])
        assert track(telemetry, 1)
        telemetry.flush(0.05)
        until(lambda: "IMPORTING" in os.environ, "the import")
        child = os.fork()
        if not child:
            import slow_to_import
            os._exit(0)
        assert wait(child) == 0
        os._exit(0)
        """,
        covered=False,
    )


def test_hooks_take_the_same_time_whatever_a_program_made(programs) -> None:
    """What is dropped is forgotten: one hook stands for all of it."""
    lines = programs(
        """
        from cmdorc_telemetry import forks
        registered = []
        os.register_at_fork = lambda **hooks: registered.append(hooks)
        for number in range(50):
            telemetry = start()
            assert track(telemetry, number)
            telemetry.close()
        import gc
        del telemetry
        gc.collect()
        say(len(registered), len(forks._all))
        """
    )
    assert lines == ["1 0"]
    assert len(programs.arrived()) == 50


def test_a_program_that_ends_soon_has_no_thread_that_a_fork_would_be_warned_of(programs) -> None:
    lines = programs(
        """
        import warnings
        warnings.simplefilter("error")
        telemetry = start()
        assert track(telemetry, 1)
        say(threading.active_count())
        child = os.fork()
        if not child:
            os._exit(0)
        assert wait(child) == 0
        telemetry.close()
        """
    )
    assert lines == ["1"]
    assert programs.arrived() == {1: 1}
