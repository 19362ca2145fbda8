"""The contracts for plugin authors: a sound plugin passes; for each promise there is one that breaks it, and fails."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec import Struct
from msgspec.structs import replace

from cmdorc_telemetry import CompletedRun, TelemetryReporter, hookimpl
from cmdorc_telemetry.decoding import Secret
from cmdorc_telemetry.detector import STATE_BYTES, Detector
from cmdorc_telemetry.errors import Rejected, RetryLater
from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.plugins import PluginHost
from cmdorc_telemetry.spec import TelemetrySpec
from cmdorc_telemetry.testing import (
    AnonymizerContract,
    DetectorContract,
    HttpReporterContract,
    LifecycleContract,
    ReporterContract,
)
from cmdorc_telemetry.testing.contracts.plugin import PluginContract
from cmdorc_telemetry.types import Anomaly, Batch, BatchResult, Event, EventResult, Gated, Setup

Contract = type[PluginContract]
_plugin: Any = None
"""What is tried at the moment; its contracts load it without an entry point."""


class Loaded:
    """Gives a contract the plugin object under trial."""

    plugin = "tried"

    def load(self) -> PluginHost:
        host = PluginHost()
        host.add(_plugin() if isinstance(_plugin, type) else _plugin, "tried")
        return host

    def entry_point(self) -> Any:
        return type("Point", (), {"api": "v1", "value": "tried", "distribution": "tried"})


def tried(contract: Any, test: str, plugin: Any, folder: Path, **arguments: Any) -> None:
    """Run one test of a contract."""
    global _plugin  # noqa: PLW0603 - who makes plugins is asked by contracts that know no more than a name
    _plugin = plugin
    it = contract()
    with it.prepared(folder):
        getattr(it, test)(**arguments)


def named(value: object) -> str | None:
    return getattr(value, "__name__", None)


def promises(contract: Any) -> set[str]:
    return {name for name in dir(contract) if name.startswith("test_")}


GENERAL = {"test_it_is_installed_and_loads", "test_it_says_which_api_it_was_written_for",
           "test_loading_it_imports_nothing_heavy"}  # fmt: skip
"""About the distribution: tried with installed ones, at the end of this file."""


# -- reporters -------------------------------------------------------------------------------------------------------


class Shelf(TelemetryReporter):
    """A sound one: keeps events in an SQLite file."""

    name = "tried"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        path: str
        token: str = ""

        def __repr__(self) -> str:
            return f"Settings(path={self.path!r})"

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.keep([(payload["event_id"], json.dumps(payload))])

    async def report_batch(self, batch: Batch) -> BatchResult | None:
        self.keep([(event.event_id, event.body.decode()) for event in batch.events])
        return None

    async def erase(self, install_ids: Sequence[str]) -> bool:
        with suppress(FileNotFoundError):
            os.unlink(self.settings.path)
        return True

    def keep(self, rows: Iterable[tuple[str, str]]) -> None:
        try:
            with closing(sqlite3.connect(self.settings.path)) as db, db:
                db.execute("CREATE TABLE IF NOT EXISTS event(id PRIMARY KEY, body)")
                db.executemany("INSERT OR IGNORE INTO event VALUES(?,?)", rows)
        except sqlite3.Error as fault:
            raise RetryLater(str(fault)) from None


class ShelfContract(Loaded, ReporterContract):
    def settings(self) -> dict[str, Any]:
        return {"path": str(self.folder / "shelf.db"), "token": "s3cr3t-s3cr3t"}

    def received(self) -> list[str]:
        path = self.folder / "shelf.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as db:
            return [row[0] for row in db.execute("SELECT id FROM event")]

    @contextmanager
    def broken(self) -> Iterator[None]:
        path = self.folder / "shelf.db"
        path.mkdir()
        yield
        path.rmdir()


def offering(class_: type) -> type:
    """A plugin with that reporter."""

    class Plugin:
        @hookimpl
        def telemetry_reporters(self) -> list[type]:
            return [class_]

    return Plugin


class Lenient(Shelf):
    class Settings(Struct, frozen=True):
        path: str
        token: str = ""


class Greedy(Shelf):
    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        path: str
        token: str = ""
        level: str = ""


class Talkative(Shelf):
    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        path: str
        token: str = ""
        api_key: str | None = None


class Repeating(Shelf):
    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        path: str
        token: Secret[str] = ""

        def __post_init__(self) -> None:
            if not self.token.isprintable():
                raise ValueError(f"token: found {self.token!r}")

        def __repr__(self) -> str:
            return f"Settings(path={self.path!r})"


class Forgetful(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        self.keep([(event.event_id, "") for event in batch.events[1:]])


class HalfSaid(Shelf):
    async def report_batch(self, batch: Batch) -> BatchResult:
        await super().report_batch(batch)
        return BatchResult(results=(EventResult(batch.events[0].event_id, "accepted"),))


class NoSingle(Shelf):
    async def report(self, event: str, payload: dict[str, Any]) -> None:
        pass


class NoEmpty(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        batch.events[0]
        await super().report_batch(batch)


class Doubling(Shelf):
    def keep(self, rows: Iterable[tuple[str, str]]) -> None:
        with closing(sqlite3.connect(self.settings.path)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS event(id, body)")
            db.executemany("INSERT INTO event VALUES(?,?)", rows)


class Hopeful(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        with suppress(RetryLater):
            await super().report_batch(batch)


class Giving(Shelf):
    """Says of each event that it is not wanted, when it is only in its way."""

    async def report_batch(self, batch: Batch) -> BatchResult:
        try:
            await super().report_batch(batch)
        except RetryLater:
            return BatchResult(results=tuple(EventResult(each.event_id, "rejected") for each in batch.events))
        return BatchResult()


class Quoting(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except RetryLater:
            raise RetryLater(f"cannot write {batch.events[0].body!r}") from None


class Confiding(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        try:
            await super().report_batch(batch)
        except RetryLater:
            raise RetryLater(f"{self.settings.token!r} was not taken") from None


class Listing(Shelf):
    async def fetch_policy(self, etag: str | None) -> Any:
        return ["minimal"]


class Odd(Shelf):
    async def fetch_policy(self, etag: str | None) -> Mapping[str, Any]:
        return {"events": {object()}}


class Again(Shelf):
    async def fetch_policy(self, etag: str | None) -> Mapping[str, Any]:
        return {"level": "minimal", "etag": "1"}


class Stubborn(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3)
                return


class Waiting(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        raise RetryLater("never")


class Eager(Shelf):
    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        with socket.socket() as probe:
            probe.settimeout(1)
            probe.connect_ex(("127.0.0.1", 9))


class Counting(Shelf):
    count = 0

    def encode(self, batch: Batch) -> bytes:
        type(self).count += 1
        return str(self.count).encode()


class Writing(Shelf):
    def encode(self, batch: Batch) -> bytes:
        Path(self.settings.path).with_name("draft").write_bytes(b"")
        return b""


class Telling(Shelf):
    def keep(self, rows: Iterable[tuple[str, str]]) -> None:
        super().keep([(key, body + os.environ.get("USER", "")) for key, body in rows])


class Printing(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        print("sent")
        await super().report_batch(batch)


class LeavesThread(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        threading.Thread(target=time.sleep, args=(4,)).start()
        await super().report_batch(batch)


class LeavesDaemon(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        threading.Thread(target=time.sleep, args=(4,), daemon=True).start()
        await super().report_batch(batch)


class LeavesTask(Shelf):
    async def report_batch(self, batch: Batch) -> None:
        self.task = asyncio.ensure_future(asyncio.sleep(60))
        await super().report_batch(batch)


class Boasting(Shelf):
    async def erase(self, install_ids: Sequence[str]) -> bool:
        return True


BROKEN_REPORTERS: list[tuple[str, type]] = [
    ("test_a_setting_that_is_misspelt_is_refused", Lenient),
    ("test_settings_leave_alone_what_every_destination_has", Greedy),
    ("test_secrets_do_not_show", Talkative),
    ("test_secrets_do_not_show", Repeating),
    ("test_what_is_answered_for_has_arrived", Forgetful),
    ("test_what_is_answered_for_has_arrived", HalfSaid),
    ("test_one_event_alone_arrives", NoSingle),
    ("test_nothing_is_made_of_an_empty_batch", NoEmpty),
    ("test_what_comes_again_is_there_once", Doubling),
    ("test_while_it_is_broken_nothing_counts_as_delivered", Hopeful),
    ("test_while_it_is_broken_nothing_counts_as_delivered", Giving),
    ("test_what_it_says_of_a_failure_names_no_values", Quoting),
    ("test_what_it_says_of_a_failure_names_no_values", Confiding),
    ("test_a_call_that_is_given_up_leaves_it_usable", Stubborn),
    ("test_events_of_a_machine_arrive_and_its_books_are_right", Waiting),
    ("test_until_there_is_something_to_send_it_sends_nothing", Eager),
    ("test_encoding_is_pure", Counting),
    ("test_encoding_is_pure", Writing),
    ("test_nothing_of_this_machine_is_added", Telling),
    ("test_it_prints_nothing", Printing),
    ("test_what_its_receiver_wants_less_of_can_be_kept", Listing),
    ("test_what_its_receiver_wants_less_of_can_be_kept", Odd),
    ("test_what_its_receiver_wants_less_of_can_be_kept", Again),
    ("test_when_it_is_closed_nothing_goes_on", LeavesThread),
    ("test_when_it_is_closed_nothing_goes_on", LeavesDaemon),
    ("test_when_it_is_closed_nothing_goes_on", LeavesTask),
    ("test_what_it_says_it_erased_is_gone", Boasting),
]


@pytest.mark.parametrize("test", sorted(promises(ReporterContract) - GENERAL))
def test_a_sound_reporter_keeps_every_promise(test: str, tmp_path: Path) -> None:
    tried(ShelfContract, test, offering(Shelf), tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("test", "broken"), BROKEN_REPORTERS, ids=named)
def test_a_reporter_that_breaks_a_promise_fails(test: str, broken: type, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, IndexError, TypeError)):
        tried(ShelfContract, test, offering(broken), tmp_path)


def test_there_is_a_reporter_that_breaks_each_promise() -> None:
    assert {test for test, _ in BROKEN_REPORTERS} == promises(ReporterContract) - GENERAL


def test_a_reporter_whose_receiver_wants_less_says_what_and_once(tmp_path: Path) -> None:
    class Modest(Shelf):
        async def fetch_policy(self, etag: str | None) -> Mapping[str, Any] | None:
            return None if etag == "1" else {"level": "minimal", "etag": "1"}

    tried(ShelfContract, "test_what_its_receiver_wants_less_of_can_be_kept", offering(Modest), tmp_path)


def test_a_receiver_that_cannot_tell_is_no_fault_of_the_reporter(tmp_path: Path) -> None:
    class Lenient(ShelfContract):
        idempotent = False

    tried(Lenient, "test_what_comes_again_is_there_once", offering(Doubling), tmp_path)


def test_a_reporter_that_cannot_erase_says_so(tmp_path: Path) -> None:
    class Refusing(Shelf):
        async def erase(self, install_ids: Sequence[str]) -> bool:
            raise Rejected("there is no way")

    tried(ShelfContract, "test_what_it_says_it_erased_is_gone", offering(Refusing), tmp_path)


def test_a_contract_that_lacks_what_it_cannot_know_says_what(tmp_path: Path) -> None:
    class Bare(Loaded, ReporterContract):
        def settings(self) -> dict[str, Any]:
            return {"path": str(self.folder / "shelf.db")}

    for test in ("test_nothing_is_made_of_an_empty_batch", "test_while_it_is_broken_nothing_counts_as_delivered"):
        (tmp_path / test).mkdir()
        with pytest.raises(NotImplementedError, match="say how to"):
            tried(Bare, test, offering(Shelf), tmp_path / test)
    with pytest.raises(NotImplementedError, match="say what is usual"):
        DetectorContract().sample(0, unusual=True)


# -- reporters over HTTP ---------------------------------------------------------------------------------------------


class PostingContract(Loaded, HttpReporterContract):
    """Of the http plugin's reporter under another name."""


def posting(**methods: Any) -> type:
    from cmdorc_telemetry_http import HttpReporter

    return offering(type("Posting", (HttpReporter,), {"name": "tried", **methods}))


async def _trusting(self: Any, batch: Batch) -> None:
    """Whatever comes, it was taken."""
    with suppress(Exception):
        await super(type(self), self).report_batch(batch)


async def _despairing(self: Any, batch: Batch) -> Any:
    """Whatever goes wrong, it was refused for good."""
    try:
        return await super(type(self), self).report_batch(batch)
    except RetryLater as fault:
        raise Rejected(str(fault)) from None


async def _sulking(self: Any, batch: Batch) -> Any:
    """After one failure it never tries again."""
    if getattr(self, "failed", False):
        raise RetryLater("once was enough")
    self.failed = True
    return await super(type(self), self).report_batch(batch)


async def _impatient(self: Any, batch: Batch) -> Any:
    try:
        return await super(type(self), self).report_batch(batch)
    except RetryLater as fault:
        raise RetryLater(str(fault)) from None


async def _following(self: Any, batch: Batch) -> Any:
    import urllib.request

    def get(request: Any) -> None:
        with urllib.request.urlopen(request, timeout=2):
            pass

    request = urllib.request.Request(f"{self.settings.endpoint}/report", data=batch.events[0].body)
    with suppress(OSError):  # a 307 to who asks is not followed by it, a 302 is
        await asyncio.to_thread(get, request)
    raise RetryLater("")


async def _blocking(self: Any, batch: Batch) -> Any:
    import urllib.request

    with suppress(OSError):
        urllib.request.urlopen(  # noqa: ASYNC210 - that is what is wrong with it
            f"{self.settings.endpoint}/report", data=batch.events[0].body, timeout=2
        )


async def _blind(self: Any, batch: Batch) -> Any:
    import ssl
    import urllib.request

    def post() -> None:
        trust = ssl._create_unverified_context()
        for event in batch.events:
            with urllib.request.urlopen(f"{self.settings.endpoint}/report", event.body, context=trust, timeout=2):
                pass

    await asyncio.to_thread(post)


async def _shortened(self: Any, batch: Batch) -> Any:
    return await super(type(self), self).report_batch(Batch(destination="d", events=batch.events[:1]))


async def _repeating(self: Any, batch: Batch) -> Any:
    await super(type(self), self).report_batch(batch)
    return await super(type(self), self).report_batch(batch)


BROKEN_POSTING: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("test_whatever_goes_wrong_each_event_arrives_and_none_counts_before", {"fault": "500"}, _trusting),
    ("test_whatever_goes_wrong_each_event_arrives_and_none_counts_before", {"fault": "500"}, _despairing),
    ("test_whatever_goes_wrong_each_event_arrives_and_none_counts_before", {"fault": "502"}, _sulking),
    ("test_a_receiver_that_asks_for_a_pause_gets_it", {"fault": "429-seconds"}, _impatient),
    ("test_it_goes_nowhere_else", {}, _following),
    ("test_while_it_waits_for_an_answer_its_loop_goes_on", {}, _blocking),
    ("test_it_sends_what_it_said_it_would", {}, _shortened),
    ("test_it_sends_what_it_said_it_would", {}, _repeating),
    ("test_who_cannot_prove_who_it_is_gets_nothing", {"fault": "self-signed", "tmp_path": Path()}, _blind),
]


@pytest.mark.parametrize(("test", "arguments", "method"), BROKEN_POSTING, ids=named)
def test_a_reporter_over_http_that_breaks_a_promise_fails(
    test: str, arguments: dict[str, Any], method: Any, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        tried(PostingContract, test, posting(report_batch=method), tmp_path, **arguments)


def test_there_is_a_reporter_over_http_that_breaks_each_promise() -> None:
    assert {test for test, _, _ in BROKEN_POSTING} == promises(HttpReporterContract) - promises(ReporterContract)


def test_faults_that_a_receiver_cannot_have_are_left_out(tmp_path: Path) -> None:
    class Few(PostingContract):
        faults = ("500",)

    for number, fault in enumerate(("500", "html")):
        (tmp_path / str(number)).mkdir()
        tried(Few, "test_whatever_goes_wrong_each_event_arrives_and_none_counts_before", posting(),
              tmp_path / str(number), fault=fault)  # fmt: skip


# -- anonymizers -----------------------------------------------------------------------------------------------------


class Coarse:
    """A sound one: no version of Python, and durations in whole seconds."""

    class Settings(Struct, forbid_unknown_fields=True):
        step: int = 1000

    @hookimpl
    def telemetry_configure(self, setup: Setup) -> None:
        self.step = setup.read(self.Settings).step

    @hookimpl
    def telemetry_anonymize(self, event: Event) -> dict[str, Any]:
        changed: dict[str, Any] = {"python_version": None}
        if "duration_ms" in event.fields:
            changed["duration_ms"] = event.fields["duration_ms"] // self.step * self.step
        return changed


class CoarseContract(Loaded, AnonymizerContract):
    pass


def anonymizing(function: Callable[[Event], Any], **more: Any) -> type:
    class Plugin:
        @hookimpl
        def telemetry_anonymize(self, event: Event) -> Any:
            return function(event)

    for name, value in more.items():
        setattr(Plugin, name, value)
    return Plugin


def _configured(self: Any, setup: Setup) -> None:
    self.settings = dict(setup.settings)


def _raises(event: Event) -> dict[str, Any]:
    raise ValueError(event.name)


def _random(event: Event) -> dict[str, Any]:
    return {"anonymous_install_id": f"{os.urandom(4).hex()}-7a54-4d0e-8b6f-0c1d2e3f4a5b"}


def _dozes(event: Event) -> dict[str, Any]:
    time.sleep(0.02)
    return {"os": None}


def _phones(event: Event) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.connect_ex(("127.0.0.1", 9))
    return {"os": None}


def _merges(event: Event) -> dict[str, Any]:
    """Events of one second are one."""
    told = datetime.fromisoformat(event.fields["timestamp"].replace("Z", "+00:00")).timestamp()
    return {"event_id": str(uuid.UUID(int=int(told) * 1000 << 80 | 0x774B_BCCE_B302_099A_8057))}


BROKEN_ANONYMIZERS: list[tuple[str, Any]] = [
    ("test_a_setting_that_is_misspelt_is_refused",
     anonymizing(lambda event: {"os": None}, telemetry_configure=hookimpl(_configured))),
    ("test_at_every_level_it_gives_what_the_spec_allows", anonymizing(_raises)),
    ("test_at_every_level_it_gives_what_the_spec_allows", anonymizing(lambda event: {"python_version": "three"})),
    ("test_it_adds_nothing", anonymizing(lambda event: {"host": "mine"})),
    ("test_it_does_something", anonymizing(lambda event: {})),
    ("test_what_stays_on_this_machine_stays_as_it_is", None),
    ("test_the_same_event_becomes_the_same_again", anonymizing(_random)),
    ("test_different_events_remain_different", anonymizing(_merges)),
    ("test_the_time_in_an_id_tells_no_more_than_the_timestamp",
     anonymizing(lambda event: {"timestamp": event.fields["timestamp"][:17] + "00Z"})),
    ("test_it_is_quick", anonymizing(_dozes)),
    ("test_it_tells_nobody", anonymizing(_phones)),
    ("test_on_a_machine_events_are_shared_through_it", anonymizing(_raises)),
]  # fmt: skip


@pytest.mark.parametrize("test", sorted(promises(AnonymizerContract) - GENERAL))
@pytest.mark.parametrize("plugin", [Coarse, anonymizing(lambda event: {"os": None})], ids=["settings", "none"])
def test_a_sound_anonymizer_keeps_every_promise(test: str, plugin: type, tmp_path: Path) -> None:
    tried(CoarseContract, test, plugin, tmp_path)


@pytest.mark.parametrize(
    ("test", "broken"), [pytest.param(*each, id=f"{number}-{each[0]}") for number, each in enumerate(BROKEN_ANONYMIZERS)
                         if each[1]],
)  # fmt: skip
def test_an_anonymizer_that_breaks_a_promise_fails(test: str, broken: type, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        tried(CoarseContract, test, broken, tmp_path)


def test_a_gate_that_lets_private_bodies_be_changed_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No anonymizer gets at them; so it is the gate that is broken here."""
    real = Gate.gate

    def gate(self: Gate, records: Any, generation: str, source: str) -> Gated:
        gated = real(self, records, generation, source)
        if not self._anonymizers:
            return gated
        return replace(gated, rows=tuple(replace(row, private=b"{}") for row in gated.rows))

    monkeypatch.setattr(Gate, "gate", gate)
    with pytest.raises(AssertionError):
        tried(CoarseContract, "test_what_stays_on_this_machine_stays_as_it_is", Coarse, tmp_path)


def test_there_is_an_anonymizer_that_breaks_each_promise() -> None:
    assert {test for test, _ in BROKEN_ANONYMIZERS} == promises(AnonymizerContract) - GENERAL


# -- detectors -------------------------------------------------------------------------------------------------------


class Failing(Detector):
    """A sound one: ten failures in a row are an anomaly, until there is a success."""

    name = "tried"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.row = 0

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        if event == "command_completed" and payload.get("state") == "failed" and self.row == 9:
            yield self.anomaly()

    def anomaly(self) -> Anomaly:
        return Anomaly(detector="tried", spec="cmdorc.core@1", event="command_completed", metric="count", kind="above",
                       value=10, threshold=9, sample_count=10)  # fmt: skip

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        if event == "command_completed":
            self.row = self.row + 1 if payload.get("state") == "failed" else 0

    def save(self) -> bytes:
        return b"%d" % self.row

    def restore(self, state: bytes) -> None:
        self.row = int(state)


class FailingContract(Loaded, DetectorContract):
    usual = unusual = 20

    def sample(self, number: int, *, unusual: bool) -> dict[str, Any]:
        return {"duration_ms": 10, "state": "failed" if unusual else "success", "final": True, "manual": True,
                "command_name": "Tests"}  # fmt: skip


def watching(class_: type) -> type:
    class Plugin:
        @hookimpl
        def telemetry_detectors(self) -> list[type]:
            return [class_]

    return Plugin


class LenientSettings(Failing):
    class Settings(Struct):
        pass


class Alarmist(Failing):
    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        yield self.anomaly()


class Repeating(Failing):
    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        if self.row > 9:
            yield self.anomaly()


class Nameless(Failing):
    def anomaly(self) -> Anomaly:
        return Anomaly(detector="?", event="x", metric="", kind="above", value=1, threshold=1, sample_count=1)


class Amnesiac(Failing):
    def save(self) -> bytes:
        return b"0"


class Disturbed(Failing):
    def save(self) -> bytes:
        kept, self.row = super().save(), 0
        return kept


class Stuck(Failing):
    """Takes any state, and cannot work with it."""

    def restore(self, state: bytes) -> None:
        self.row = state  # type: ignore[assignment]

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        if isinstance(self.row, bytes):
            raise SystemExit("no use")
        super().learn_one(event, payload)


class Hoarding(Failing):
    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.seen: list[str] = []

    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        self.seen.append("x" * 400)
        super().learn_one(event, payload)

    def save(self) -> bytes:
        return "".join(self.seen).encode()


class Fragile(Failing):
    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        self.at = payload["timestamp"]
        super().learn_one(event, payload)


class Demanding(Failing):
    def watch(self, specs: Sequence[TelemetrySpec]) -> None:
        self.first = specs[0]


class Impatient(Failing):
    """Goes by the clock on the wall."""

    def score_one(self, event: str, payload: Mapping[str, Any]) -> Iterable[Anomaly]:
        from cmdorc_telemetry import clock

        for each in super().score_one(event, payload):
            yield Anomaly(detector="tried", event=each.event, metric="count", kind="above", value=clock.wall(),
                          threshold=9, sample_count=1)  # fmt: skip


class Chatting(Failing):
    def learn_one(self, event: str, payload: Mapping[str, Any]) -> None:
        print(event)
        super().learn_one(event, payload)


class Unheard(Failing):
    def save(self) -> bytes:
        return b"0" * (STATE_BYTES + 1)


BROKEN_DETECTORS: list[tuple[str, type]] = [
    ("test_a_setting_that_is_misspelt_is_refused", LenientSettings),
    ("test_what_is_usual_raises_no_alert", Alarmist),
    ("test_what_is_unusual_raises_one_alert_an_episode", Repeating),
    ("test_an_alert_says_what_it_is_about", Nameless),
    ("test_it_goes_on_where_another_process_left_off", Amnesiac),
    ("test_keeping_changes_nothing", Disturbed),
    ("test_what_it_cannot_read_it_begins_anew_from", Stuck),
    ("test_what_it_keeps_is_bounded", Hoarding),
    ("test_events_of_another_shape_do_no_harm", Fragile),
    ("test_without_a_spec_it_finds_nothing_and_does_no_harm", Demanding),
    ("test_the_same_events_give_the_same_alerts", Impatient),
    ("test_it_tells_nobody", Chatting),
    ("test_on_a_machine_an_alert_is_heard_and_its_books_are_right", Unheard),
]


@pytest.mark.parametrize("test", sorted(promises(DetectorContract) - GENERAL))
def test_a_sound_detector_keeps_every_promise(test: str, tmp_path: Path) -> None:
    tried(FailingContract, test, watching(Failing), tmp_path)


@pytest.mark.parametrize(("test", "broken"), BROKEN_DETECTORS, ids=named)
def test_a_detector_that_breaks_a_promise_fails(test: str, broken: type, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, KeyError, IndexError, SystemExit)):
        tried(FailingContract, test, watching(broken), tmp_path)


def test_there_is_a_detector_that_breaks_each_promise() -> None:
    assert {test for test, _ in BROKEN_DETECTORS} == promises(DetectorContract) - GENERAL


# -- those that listen -----------------------------------------------------------------------------------------------


class Bell:
    """A sound one."""

    rung: ClassVar[list[str]] = []

    @hookimpl
    def cmdorc_completed(self, run: CompletedRun) -> None:
        self.rung.append(run.command_name)


class BellContract(Loaded, LifecycleContract):
    def enable(self) -> None:
        """There is nothing installed to be enabled."""

    def heard(self) -> int | None:
        return len(Bell.rung)

    def program(self) -> Any:
        """The plugin has no entry point: code gives it."""
        import asyncio

        from cmdorc_telemetry.testing import run
        from cmdorc_telemetry.testing.contracts.lifecycle import COMMANDS

        return asyncio.run(run(COMMANDS, "changed", plugins=[_plugin()]))


def listening(function: Callable[[CompletedRun], None], hook: str = "cmdorc_completed") -> type:
    class Plugin:
        pass

    def cmdorc_completed(self: Any, run: CompletedRun) -> None:
        function(run)

    def telemetry_specs(self: Any) -> list[Any]:
        return []

    setattr(Plugin, hook, hookimpl({"cmdorc_completed": cmdorc_completed, "telemetry_specs": telemetry_specs}[hook]))
    return Plugin


def _fails(run: CompletedRun) -> None:
    raise ValueError


class Deaf:
    """Fails at the first alert without words."""

    @hookimpl
    def telemetry_anomaly(self, anomaly: Anomaly) -> None:
        assert anomaly.message


def _stumbles(run: CompletedRun) -> None:
    run.command_name[0]


BROKEN_LISTENERS: list[tuple[str, type]] = [
    ("test_it_listens", listening(lambda run: None, "telemetry_specs")),
    ("test_in_a_program_it_does_no_harm", listening(_fails)),
    ("test_it_hears_of_every_run", listening(lambda run: None)),
    ("test_it_takes_whatever_a_program_may_do", listening(_stumbles)),
    ("test_it_takes_whatever_a_program_may_do", Deaf),
    ("test_it_holds_nobody_up", listening(lambda run: time.sleep(0.01))),
    ("test_standard_output_stays_the_programs", listening(lambda run: print(run.command_name))),
]


@pytest.mark.parametrize("test", sorted(promises(LifecycleContract) - GENERAL))
def test_a_sound_listener_keeps_every_promise(test: str, tmp_path: Path) -> None:
    tried(BellContract, test, Bell, tmp_path)


@pytest.mark.parametrize(("test", "broken"), BROKEN_LISTENERS)
def test_a_listener_that_breaks_a_promise_fails(test: str, broken: type, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        tried(BellContract, test, broken, tmp_path)


def test_there_is_a_listener_that_breaks_each_promise() -> None:
    assert {test for test, _ in BROKEN_LISTENERS} == promises(LifecycleContract) - GENERAL


def test_a_bell_may_ring(tmp_path: Path) -> None:
    ringing = listening(lambda run: print(end="\a", file=sys.stderr))
    tried(BellContract, "test_standard_output_stays_the_programs", ringing, tmp_path)


def test_who_cannot_count_need_not(tmp_path: Path) -> None:
    class Silent(BellContract):
        def heard(self) -> None:
            return LifecycleContract.heard(self)  # type: ignore[return-value]

    tried(Silent, "test_it_hears_of_every_run", listening(lambda run: None), tmp_path)


# -- distributions ---------------------------------------------------------------------------------------------------

HEAVY = """
import hypothesis
from cmdorc_telemetry import hookimpl

@hookimpl
def cmdorc_completed(run):
    pass
"""


def installed_as(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *, api: str = "", again: str = "") -> None:
    """Distributions with one module, `tried`."""
    site = folder / "site"
    for name in filter(None, ("tried", again)):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        declared = f"[cmdorc_telemetry.api]\ntried = {api}\n" if api else ""
        (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\ntried = tried\n{declared}")
    (site / "tried.py").write_text(code)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "tried", raising=False)


class Installed(LifecycleContract):
    plugin = "tried"


@pytest.mark.parametrize(
    ("test", "code", "more"),
    [
        ("test_it_is_installed_and_loads", HEAVY.replace("(run)", "(rum)"), {}),
        ("test_it_is_installed_and_loads", HEAVY, {"again": "other"}),
        ("test_it_says_which_api_it_was_written_for", HEAVY, {}),
        ("test_loading_it_imports_nothing_heavy", HEAVY, {}),
    ],
)
def test_a_distribution_that_breaks_a_promise_fails(
    test: str, code: str, more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_as(tmp_path, monkeypatch, code, **more)
    with pytest.raises(AssertionError):
        tried(Installed, test, None, tmp_path)


@pytest.mark.parametrize("test", sorted(GENERAL))
def test_a_sound_distribution_keeps_every_promise(test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_as(tmp_path, monkeypatch, HEAVY.replace("import hypothesis\n", ""), api="v1")
    tried(Installed, test, None, tmp_path)


@pytest.mark.parametrize("test", sorted(promises(LifecycleContract)))
def test_one_that_is_installed_is_tried_as_users_have_it(
    test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_as(tmp_path, monkeypatch, HEAVY.replace("import hypothesis\n", ""), api="v1")
    tried(Installed, test, None, tmp_path)


def test_what_is_not_installed_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no installed distribution has an entry point 'tried'"):
        tried(Installed, "test_it_is_installed_and_loads", None, tmp_path)


def test_a_plugin_without_the_hook_of_its_kind_is_none(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="it has no hookimpl of telemetry_reporters"):
        tried(ShelfContract, "test_it_is_installed_and_loads", Bell, tmp_path)
