"""What a reporter promises."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import msgspec

from ...config import RESERVED, DestinationConfig
from ...decoding import secrets
from ...delivery.results import checked
from ...destinations import make_reporter
from ...errors import DeliveryError
from ...plugins import PluginHost
from ...reporter import TelemetryReporter
from ...spec import CORE, keep_policy, load_spec
from ...types import Batch, BatchResult
from ..attempts import attempts, logged, printed
from ..machine import DESTINATION
from ..samples import INSTALL_ID, Samples
from .plugin import PluginContract, repeated_secrets, shown_secrets, strangers

T = TypeVar("T")
Script = Callable[[TelemetryReporter], Awaitable[T]]

_DEADLINE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_CANARY = "c4n4ry"
_TAKEN = ("accepted", "duplicate")


class ReporterContract(PluginContract):
    """Subclass it, name the plugin, and say what it cannot know: ``settings``, ``received`` and ``broken``.

    A reporter that sends over HTTP has :class:`HttpReporterContract`, which knows two of them, and more promises.
    """

    hooks = ("telemetry_reporters",)
    idempotent = True
    """Whether an event that comes twice is there once. Where the receiver has no way to tell: False, and say so in your
    README; after a lost answer such an event is there twice."""

    # -- what a subclass says -----------------------------------------------------------------------------------------

    def received(self) -> Sequence[str]:
        """The ids of the events that the destination holds, each as often as it holds it."""
        raise NotImplementedError("say how to see what the destination holds")

    def broken(self) -> AbstractContextManager[None]:
        """While it lasts, the destination cannot be reached, or not be written to."""
        raise NotImplementedError("say how to break the destination")

    def visible(self) -> bytes:
        """All that whoever has the destination can see of us. Every file of ``folder`` where you say nothing else."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())

    # -- what the contract does ---------------------------------------------------------------------------------------

    def table(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A destination of that plugin."""
        return {"plugins": [self.plugin], "to": {DESTINATION: {"plugin": self.plugin, **settings}}}

    def reporter_class(self) -> type[TelemetryReporter]:
        """The class, as the stages get it: its plugin knows its folder and the specs."""
        host: PluginHost = self.load()
        classes = host.reporters()
        host.configure(self.machine.situation().user, self.machine.home, self.specs())
        assert self.plugin in classes, f"telemetry_reporters offers {sorted(classes)}: none is called {self.plugin!r}"
        return classes[self.plugin]

    def make(self) -> TelemetryReporter:
        """A reporter with the settings, made as delivery makes it."""
        to = DestinationConfig(DESTINATION, self.plugin, settings=self.settings(), where="the contract")
        return make_reporter(self.reporter_class(), to, os.environ)

    def use(self, script: Script[T], seconds: float = _DEADLINE_SECONDS) -> T:
        """Run ``script`` with a new reporter where one lives, in a thread and a loop of its own; it is closed then."""

        async def life() -> T:
            reporter = self.make()
            try:
                return await asyncio.wait_for(script(reporter), seconds)
            finally:
                await asyncio.wait_for(reporter.close(), _CLOSE_SECONDS)

        with ThreadPoolExecutor(1) as cell:
            return cell.submit(asyncio.run, life()).result()

    def send(self, *batches: Batch) -> list[BatchResult]:
        """What a new reporter answers to some batches."""

        async def sending(reporter: TelemetryReporter) -> list[BatchResult]:
            return [checked(await reporter.report_batch(batch)) for batch in batches]

        return self.use(sending)

    def batch(self, count: int = 1) -> Batch:
        """Events of all kinds that are shared: ``count`` of each."""
        return Samples([load_spec(CORE)]).batch(count)

    def holds(self, batch: Batch) -> bool:
        """Whether the destination holds each event of a batch once, and nothing else of it."""
        return Counter(self.received()) == Counter(event.event_id for event in batch.events)

    # -- the promises: settings ---------------------------------------------------------------------------------------

    def test_a_setting_that_is_misspelt_is_refused(self) -> None:
        """``Settings`` has ``forbid_unknown_fields=True``."""
        assert not strangers(self.reporter_class(), self.settings())

    def test_settings_leave_alone_what_every_destination_has(self) -> None:
        """No setting is called like a key that the core reads itself."""
        names = {each.encode_name for each in msgspec.structs.fields(self.reporter_class().Settings)}
        assert not names & set(RESERVED)

    def test_secrets_do_not_show(self) -> None:
        """``repr`` of the settings has none in it, and what is said of one that cannot be right does not repeat it."""
        class_ = self.reporter_class()
        assert shown_secrets(msgspec.convert(self.settings(), class_.Settings)) == []
        assert repeated_secrets(class_, self.settings()) == []

    # -- the promises: delivery ---------------------------------------------------------------------------------------

    def test_what_is_answered_for_has_arrived(self) -> None:
        """Returning means that the receiver has it; a result names every event that it is about."""
        batch = self.batch(3)
        (result,) = self.send(batch)
        assert self.holds(batch), f"of {len(batch.events)} events, {len(self.received())} arrived"
        if result.results is not None:
            assert {each.event_id for each in result.results} == {event.event_id for event in batch.events}
            assert {each.status for each in result.results} <= set(_TAKEN)

    def test_one_event_alone_arrives(self) -> None:
        """``report`` is for those who give a reporter one event by code."""
        (event, *_) = self.batch().events
        self.use(lambda reporter: reporter.report(event.event, event.payload))
        assert list(self.received()) == [event.event_id]

    def test_nothing_is_made_of_an_empty_batch(self) -> None:
        """It is no error, and leaves nothing behind."""
        self.send(Batch(destination=DESTINATION, events=()))
        assert list(self.received()) == []

    def test_what_comes_again_is_there_once(self) -> None:
        """After a lost answer, and in another process, the same events come again."""
        batch = self.batch()
        self.send(batch, batch)
        self.send(batch)
        assert set(self.received()) == {event.event_id for event in batch.events}
        assert self.holds(batch) or not self.idempotent, "some events are there more than once"

    def test_while_it_is_broken_nothing_counts_as_delivered(self) -> None:
        """Whatever is in the way, it raises, or asks for the events again: then nothing is lost."""
        batch = self.batch()
        with self.broken():
            try:
                (result,) = self.send(batch)
            except Exception:
                result = BatchResult(results=())
            assert result.results is not None, "it says that all was accepted"
            assert not [each for each in result.results if each.status != "retry"]
        self.send(batch)
        assert self.holds(batch), "when it was whole again, not every event arrived once"

    def test_what_it_says_of_a_failure_names_no_values(self) -> None:
        """Errors are stored and shown, and logs are read by others: nothing of an event is in them, and no secret."""
        batch = self.batch()
        values = {
            str(value) for event in batch.events for value in (event.event_id, event.payload["anonymous_install_id"])
        }
        hidden = secrets(self.reporter_class().Settings)
        values |= {str(value) for name, value in self.settings().items() if name in hidden}
        said = []
        with self.broken(), logged() as lines:
            try:
                self.send(batch)
            except Exception as fault:
                said.append(str(fault))
        text = "\n".join([*said, *lines])
        assert not [value for value in values if value in text]

    def test_a_call_that_is_given_up_leaves_it_usable(self) -> None:
        """At a deadline the call is cancelled; the events come again, to the same reporter."""
        batch = self.batch()

        async def impatient(reporter: TelemetryReporter) -> None:
            call = asyncio.ensure_future(reporter.report_batch(batch))
            await asyncio.sleep(0)
            call.cancel()
            done, _ = await asyncio.wait([call], timeout=_CLOSE_SECONDS)
            assert done, "it goes on though it was cancelled"
            await reporter.report_batch(batch)

        self.use(impatient)
        assert set(self.received()) == {event.event_id for event in batch.events}

    def test_events_of_a_machine_arrive_and_its_books_are_right(self) -> None:
        """From the journal to the destination: recorded = acknowledged, with nothing pending and nothing dropped."""
        samples = Samples([load_spec(CORE)], install_id=self.machine.install_id)
        self.machine.journal(samples.records(2))
        ledger = self.machine.deliver()[DESTINATION]
        assert self.machine.host.failures == {}
        assert ledger.recorded > 0
        assert (ledger.acknowledged, ledger.pending) == (ledger.recorded, 0), str(ledger)
        assert len(set(self.received())) == ledger.recorded

    # -- the promises: privacy ----------------------------------------------------------------------------------------

    def test_until_there_is_something_to_send_it_sends_nothing(self) -> None:
        """Making and closing it connects to nobody, and leaves nothing at the destination."""

        async def idle(reporter: TelemetryReporter) -> None:
            await asyncio.sleep(0)

        with attempts() as tried:
            self.use(idle)
        assert tried.outside == []
        assert list(self.received()) == []

    def test_encoding_is_pure(self) -> None:
        """``encode`` gives the same bytes each time, touches nothing, and is what show-payload prints."""
        batch = self.batch(2)
        reporter = self.make()
        first = reporter.encode(batch)  # may import
        with attempts() as tried:
            again = reporter.encode(batch)
        assert isinstance(first, bytes)
        assert first == again == self.make().encode(batch)
        assert (tried.outside, tried.written) == ([], [])
        assert list(self.received()) == []

    def test_nothing_of_this_machine_is_added(self) -> None:
        """What leaves is what the spec declares: no user, no host, no paths, no versions beside those in the events."""
        names = dict.fromkeys(("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME"), _CANARY)
        with mock.patch.dict(os.environ, names):
            batch = self.batch()
            self.send(batch)
            shown = self.visible() + self.make().encode(batch)
        for what, value in _machine().items():
            assert value.encode() not in shown, f"it tells {what}: {value}"

    def test_it_prints_nothing(self) -> None:
        """The terminal is the program's."""
        with printed() as words:
            self.send(self.batch())
        assert words.getvalue() == ""

    # -- the promises: what comes back -------------------------------------------------------------------------------

    def test_what_its_receiver_wants_less_of_can_be_kept(self) -> None:
        """``fetch_policy`` gives a mapping that can be written as JSON; or None, also where nothing is new since."""

        def asking(etag: str | None) -> Mapping[str, Any] | None:
            return self.use(lambda reporter: reporter.fetch_policy(etag))

        policy = asking(None)
        assert policy is None or isinstance(policy, Mapping), f"it gives a {type(policy).__name__}"
        if policy is not None:
            assert msgspec.json.decode(keep_policy(policy)), "nothing of it can be kept"
            assert not policy.get("etag") or asking(policy["etag"]) is None, "the same comes again"
        with self.broken(), suppress(Exception):
            policy = asking(None)
            assert policy is None or isinstance(policy, Mapping)
        assert list(self.received()) == []

    # -- the promises: its end ----------------------------------------------------------------------------------------

    def test_when_it_is_closed_nothing_goes_on(self) -> None:
        """No task and no thread, not even one that would hold up no program: nothing is sent after that."""

        async def life() -> set[str]:
            reporter = self.make()
            await reporter.report_batch(self.batch())
            await asyncio.wait_for(reporter.close(), _CLOSE_SECONDS)
            await asyncio.sleep(0)
            return {str(task.get_coro()) for task in asyncio.all_tasks()} - {str(asyncio.current_task().get_coro())}  # type: ignore[union-attr]

        before = set(threading.enumerate())
        assert asyncio.run(life()) == set(), "tasks go on"
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(_CLOSE_SECONDS)
        assert [thread.name for thread in left if thread.is_alive()] == [], "threads go on"

    def test_what_it_says_it_erased_is_gone(self) -> None:
        """``erase`` gives True for that, and False or an error for anything else."""
        self.send(self.batch())

        async def erasing(reporter: TelemetryReporter) -> object:
            try:
                return await reporter.erase([INSTALL_ID])
            except DeliveryError:
                return False

        erased = self.use(erasing)
        assert erased in (True, False)
        assert not erased or list(self.received()) == [], "it says that nothing is left, and something is"


def _machine() -> dict[str, str]:
    """What says whose machine this is, as far as it is no common word."""
    found = {
        "the user, by a variable": _CANARY,
        "the host": socket.gethostname(),
        "the system's version": platform.release(),
        "Python's full version": platform.python_version(),
        "the interpreter": sys.executable,
        "the home": str(Path.home()),
        "the directory": os.getcwd(),
    }
    return {what: value for what, value in found.items() if len(value) > 5}
