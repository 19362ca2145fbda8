"""What is forgotten in a forked child, told apart from what is not, without forking."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from cmdorc_telemetry import Telemetry, forks, hookimpl, recorder
from cmdorc_telemetry.journal import Journal
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.reporter import NoopReporter
from cmdorc_telemetry.types import Anomaly


def begin(home: Path, **options: object) -> Telemetry:
    environ = {"CMDORC_HOME": str(home), "CMDORC_TELEMETRY": "minimal"}
    return Telemetry.start(environ=environ, **options)  # type: ignore[arg-type]


def track(telemetry: Telemetry) -> bool:
    return telemetry.track("command_completed", {"state": "success", "final": True, "manual": True, "duration_ms": 1})


def test_only_what_our_threads_were_importing_is_imported_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, gone = SimpleNamespace(owner=7), SimpleNamespace(owner=8), None
    locks = {"ours": lambda: ours, "theirs": lambda: theirs, "gone": lambda: gone}
    monkeypatch.setattr(importlib._bootstrap, "_module_locks", locks)  # type: ignore[attr-defined]
    monkeypatch.setattr(forks, "_threads", {7})
    monkeypatch.setattr(forks, "_all", [])
    monkeypatch.setattr(forks, "_tied", set())
    for name in locks:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert not forks.tied()
    forks._forget()
    assert set(locks) == {"theirs", "gone"}
    assert "ours" not in sys.modules
    assert {"theirs", "gone"} <= set(sys.modules)
    assert forks.tied()
    assert forks._threads == set()


def test_a_thread_of_ours_is_known_as_long_as_it_is_at_work() -> None:
    known: list[bool] = []

    def fail() -> None:
        with forks.own_thread():
            known.append(threading.get_ident() in forks._threads)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert known == [True]
    assert threading.get_ident() not in forks._threads


def test_a_thread_of_ours_takes_no_signals_and_leaves_faults() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        mine = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with forks.own_thread():
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD} <= blocked
            assert not {signal.SIGSEGV, signal.SIGABRT} & blocked
            with forks.signals(blocked=False):
                assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mine
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_a_plugin_starts_when_it_is_alarmed_takes_signals_as_any_process() -> None:
    masks = []

    class Bell:
        @hookimpl
        def telemetry_anomaly(self) -> None:
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    host = PluginHost(objects=[Bell()])
    with forks.own_thread():
        host.announce(cast(Anomaly, None))
    assert masks == [set()]


def test_a_system_without_fork_needs_no_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setattr(forks, "_hooked", set())
    book = Journal(tmp_path, "g")
    assert forks._hooked == set()
    assert book.append(b"1")
    book.close()


def test_a_child_whose_parent_closed_the_descriptor_itself(tmp_path: Path) -> None:
    book = Journal(tmp_path, "g")
    assert book.append(b"1")
    os.close(book._fd)
    book.forked()
    assert book.path is None
    assert book.append(b"2")
    book.close()


def test_a_child_that_must_not_deliver_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = begin(tmp_path)
    made = telemetry._recorder
    assert made is not None
    monkeypatch.setattr(recorder, "tied", lambda: True)
    assert track(telemetry)
    first = made.journal.path
    assert track(telemetry)
    assert made.journal.path == first
    monkeypatch.setattr(recorder, "HAND_OVER_SECONDS", 0.0)
    assert track(telemetry)
    assert made.journal.path != first
    second = made.journal.path
    assert not telemetry.flush(1)
    assert made.journal.path not in (first, second)
    assert made._delivering(1) is None
    telemetry.close()


def test_what_delivers_is_left_to_the_parent(tmp_path: Path) -> None:
    telemetry = begin(tmp_path, reporters=[NoopReporter()])
    made = telemetry._recorder
    assert made is not None
    assert telemetry.flush(20)
    delivery = made._delivery
    assert delivery is not None
    assert made._injected
    assert len(list((tmp_path / "telemetry" / "locks").glob("code-*.owner"))) == 1
    made.forked()
    assert (made._delivery, made._launch, bool(made._injected)) == (None, None, False)
    assert delivery in made._inherited
    assert track(telemetry)
    telemetry.close()
    assert delivery.stop(20)


# -- what goes wrong as delivery begins --------------------------------------------------------------------------------


def test_where_no_thread_can_be_had_events_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    telemetry = begin(tmp_path)
    assert track(telemetry)
    assert not telemetry.flush(0.05)
    assert track(telemetry)
    telemetry.close()


def test_a_pipeline_that_cannot_be_put_together_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cmdorc_telemetry.pipeline import Pipeline

    def broken(*args: object, **named: object) -> None:
        raise LookupError("a part is missing")

    monkeypatch.setattr(Pipeline, "delivery", broken)
    telemetry = begin(tmp_path)
    assert track(telemetry)
    assert not telemetry.flush(20)
    (said,) = caplog.messages
    assert said.startswith("telemetry cannot deliver: LookupError at test_forks.py:")
    telemetry.close()


def test_a_spool_that_does_not_take_its_destinations_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmdorc_telemetry.errors import StorageError
    from cmdorc_telemetry.spool import Spool

    closed: list[str] = []
    close = Spool.close
    monkeypatch.setattr(Spool, "close", lambda spool: (closed.append("closed"), close(spool))[1])
    for name in ("register", "adopt"):
        with monkeypatch.context() as patch:

            def refuse(*args: object, **named: object) -> None:
                raise StorageError("the disk is full")

            patch.setattr(Spool, name, refuse)
            telemetry = begin(tmp_path / name, reporters=[NoopReporter()])
            assert not telemetry.flush(20)
            assert closed
            closed.clear()
        assert telemetry.flush(20)  # as soon as it can
        telemetry.close()


def test_closed_while_it_begins_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmdorc_telemetry.pipeline import Pipeline

    go, come = threading.Event(), threading.Event()
    putting = Pipeline.delivery

    def slow(*args: object, **named: object) -> object:
        come.set()
        assert go.wait(20)
        return putting(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "delivery", slow)
    telemetry = begin(tmp_path)
    made = telemetry._recorder
    assert made is not None
    made._start()
    assert come.wait(20)
    telemetry.close()
    go.set()
    delivery = made._delivering(20)
    assert delivery is not None
    assert not delivery.running
