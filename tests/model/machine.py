"""Everything that can happen to a home directory, in any order; after each step the reference says whether it may."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cmdorc_telemetry.application import CORE_SPEC
from cmdorc_telemetry.audit import verify
from cmdorc_telemetry.config import TelemetryLevel, load_layer
from cmdorc_telemetry.consent import Grant, save_decision
from cmdorc_telemetry.declarations import identities, new_grant
from cmdorc_telemetry.errors import StorageError
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.spool import Spool

from .kernel import Body, Kernel, Plan
from .process import FAULTS, PRIVATE, SPEC, Process, Receiver, record
from .reference import DAY, Decision, Event, Reference, Step
from .world import Observer, World

MEMORY = Path("/dev/shm")
MOST = 3
"""Processes at once."""
DESTINATIONS = {
    "team": 'plugin = "sender"\nhost = "team"\n',
    "mine": 'plugin = "sender"\nhost = "mine"\naudience = "private"\n',
    "runs": 'plugin = "sender"\nhost = "runs"\nevents = ["command_completed"]\n',
}
ANSWERS = ("accepted", "duplicate", "rejected", "retry", "missing")
KINDS = ("command_completed", "command_completed", "anomaly_detected")
TIMES = (1.0, 5.0, 20.0, 90.0, 4000.0, -10.0, -5000.0) * 2 + (2 * DAY, 31 * DAY, -40 * DAY)
LEVELS = (None, "off", "minimal", "standard", "standard")

which = st.integers(0, MOST - 1)
kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)
names = st.sampled_from(("history", "team", "mine", "runs", "own"))
answers = st.lists(st.sampled_from(ANSWERS), max_size=5)
faults = st.sampled_from(("", "", "", *FAULTS))
CALLS = ("BEGIN", "COMMIT", "lock", "unlink", "rename", "dup2", "report")
moments = st.one_of(st.integers(1, 4), st.integers(1, 12), st.integers(1, 45), st.sampled_from(CALLS))
meanwhile = st.tuples(
    st.sampled_from(("capture", "pump", "send", "take over") * 3 + ("open", "end", "kill", "jump", "start", "decide")),
    which, names, st.sampled_from(LEVELS), st.one_of(st.none(), moments),
)  # fmt: skip
plans = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(("die", "die", "die", "torn", "fail", "full", "yield", "yield", "yield")),
        moments,
        meanwhile,
    ),
)


class Machine(RuleBasedStateMachine):
    """A home directory and up to three processes at work in it."""

    steps = 0
    """Of all machines together."""
    written: ClassVar[dict[str, bytes]] = {}

    @initialize(level=st.sampled_from(LEVELS[1:]))
    def begin(self, level: str) -> None:
        self.exit = ExitStack()
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.home = Home(Path(tempfile.mkdtemp(prefix="model-", dir=memory)))
        self.exit.callback(shutil.rmtree, self.home.root)
        self.kernel, self.reference, self.observer = Kernel(), Reference(), Observer(self.home)
        self.exit.enter_context(self.kernel.installed())
        self.exit.callback(self.observer.close)
        self.loops: dict[int, asyncio.AbstractEventLoop] = {}
        self.receivers: dict[str, Receiver] = {}
        self.processes: list[Process] = []
        self.started, self.numbers = 0, count()
        self.in_force: list[int] = []
        self.vanished = self.unsure = 0
        """Losses that processes which are gone had told nobody of; and those of which that is not sure yet."""
        self.settling = False
        self.seen = World()
        self.configure(["team", "mine"])
        self.agreed(level)
        self.kernel.chance.seed(1)  # the same names again, whether or not the decision was written just now
        self.healthy = True

    def teardown(self) -> None:
        try:
            if getattr(self, "healthy", False):
                self.settle()
        finally:
            for process in self.processes:
                process.bury()
            for loop in self.loops.values():
                loop.close()
            self.exit.close()

    # -- a step ---------------------------------------------------------------------------------------------------

    def perform(self, body: Body, work: Callable[[], Any], plan: Plan | None = None) -> Any:
        """Let a process do something, and look at what came of it."""
        self.healthy = False
        result = self.kernel.run(body, lambda: self._refused(work), plan)
        if body.dead and body in self.processes:
            self.processes.remove(body)  # type: ignore[arg-type]
            self.unsure += sum(body.journal.lost.values())  # type: ignore[attr-defined]
        self.check(body)
        if not self.kernel.depth:
            self.account()
        self.healthy = True
        return result

    def account(self) -> None:
        """Every loss was told of on disk, or a process is about to, or is gone."""
        missing = self.reference.failed - sum(self.reference.told.values())
        missing -= sum(sum(each.journal.lost.values()) for each in self.processes)
        assert self.vanished <= missing <= self.vanished + self.unsure, "a loss was told of twice, or never"
        self.vanished, self.unsure = missing, 0

    def _refused(self, work: Callable[[], Any]) -> Any:
        with suppress(StorageError, OSError):  # as those that call it do
            return work()

    def check(self, body: Body) -> None:
        type(self).steps += not self.settling
        step = Step(owners=[each.own for each in self.processes if each.lock is not None])
        if isinstance(body, Process):
            step.registers, step.abandons = body.registers, body.abandons
            known = [i for i, each in enumerate(self.reference.decisions) if each.generation == body.generation]
            step.decision = known[0] if known else None
        for name, receiver in self.receivers.items():
            if (target := self.reference.targets.get(name)) is not None:
                target.accepted, target.refused = receiver.accepted, receiver.refused
            if receiver.faults:
                raise receiver.faults[0]
        self.seen = self.observer.look()
        self.reference.explain(self.seen, step, self.kernel.now)

    def plan(self, drawn: Any, body: Body) -> Plan | None:
        """What was drawn, as a plan for what ``body`` does next."""
        if drawn is None:
            return None
        trouble, at, (what, number, name, level, dies) = drawn
        death = Plan("die", dies) if dies else None
        stopped = self.stopped(body, at, lambda: self.meanwhile(body, what, number, name, level, death))
        return stopped if trouble == "yield" else Plan(trouble, at)

    def stopped(self, body: Body, at: int | str, meanwhile: Callable[[], None]) -> Plan:
        """The plan to be interrupted."""

        def then() -> None:
            running, self.kernel.running = self.kernel.running, None
            self.check(body)
            meanwhile()
            self.kernel.running = running

        return Plan("yield", at, then)

    def meanwhile(self, waiting: Body, what: str, number: int, name: str, level: str | None, plan: Plan | None) -> None:
        """What others do while one process is stopped between two calls; they may die of it."""
        if what == "jump":
            self.jump((90.0, 4000.0, -5000.0)[number])
        elif what == "start":
            self.start(False)
        elif what == "decide":
            if isinstance(waiting, Process):
                self.decide(level, None)
        elif what == "capture" and isinstance(waiting, Process) and number == 0:
            self.capture_by(waiting, ["command_completed"], None)  # in another thread of its
        elif others := [each for each in self.processes if each is not waiting]:
            other = others[number % len(others)]
            match what:
                case "capture":
                    self.capture_by(other, ["anomaly_detected"], plan)
                case "pump":
                    self.pump_by(other, plan)
                case "send":
                    self.send_by(other, name, (), "", plan)
                case "take over":  # from a process that is stopped in the middle of sending
                    self.send_by(other, name, (), "", None)
                    self.jump(90.0)
                    self.send_by(other, name, (), "", plan)
                case "open":
                    self.open_by(other, plan)
                case "end" | "kill":
                    self.gone(other, what == "kill", None)

    def process(self, number: int) -> Process:
        """One of those there are; there is always one."""
        if not self.processes:
            self.another()
        return self.processes[number % len(self.processes)]

    # -- what processes do ----------------------------------------------------------------------------------------

    @rule(injected=st.sampled_from((False, False, True)))
    def start(self, injected: bool) -> None:
        if len(self.processes) < MOST:
            self.another(injected)

    def another(self, injected: bool = False) -> Process:
        self.started += 1
        process = Process(self.started, self.home, self.receivers, injected)
        self.processes.append(process)
        if injected:
            self.receiver(process.own)
        return process

    def receiver(self, name: str) -> Receiver:
        return self.receivers.setdefault(name, Receiver(name, self.arrived, self.kernel))

    def arrived(self, name: str, event: str, level: str) -> None:
        self.reference.receive(name, event, level, self.in_force)

    @rule(number=which, of=kinds, drawn=plans)
    def capture(self, number: int, of: Sequence[str], drawn: Any) -> None:
        process = self.process(number)
        self.capture_by(process, of, self.plan(drawn, process))

    def capture_by(self, process: Process, of: Sequence[str], plan: Plan | None) -> None:
        self.perform(process, lambda: [self.capture_one(process, kind) for kind in of], plan)

    def capture_one(self, process: Process, kind: str) -> None:
        if not process.pipeline.policy.record:
            return
        event, data = self.expected(process, kind)
        done = None
        try:
            done = process.journal.append(data)
        finally:
            if done:
                event.sure = True
            elif done is False:
                self.reference.failed += 1
            else:
                self.reference.failed += 1  # it may have been told of, and it may not
                self.unsure += 1

    def expected(self, process: Process, kind: str) -> tuple[Event, bytes]:
        """An event that may be captured now, and its record."""
        event_id, data = record(kind, next(self.numbers), self.kernel.now)
        event = Event(kind, self.kernel.now, len(self.reference.decisions) - 1, process.source)
        self.reference.events[event_id] = event
        return event, data

    @rule(number=which, threads=st.integers(2, 4))
    def capture_in_threads(self, number: int, threads: int) -> None:
        process = self.process(number)

        def work() -> None:
            made = [threading.Thread(target=self.capture_one, args=(process, KINDS[each % 3]))
                    for each in range(threads)]  # fmt: skip
            for thread in made:
                thread.start()
            for thread in made:
                thread.join()

        self.perform(process, work)

    def open_by(self, process: Process, plan: Plan | None) -> None:
        if process.spool is None and not process.over:
            self.perform(process, process.open, plan)
            process.over = process.spool is None  # its telemetry thread ended: once is all

    def capture_in_a_child(self, process: Process) -> None:
        """A real fork: the child goes on with what it has inherited, and ends without a word."""

        def work() -> None:
            kept = [self.expected(process, kind) for kind in KINDS]
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                try:
                    self.kernel.running = None
                    self.kernel.chance.seed(next(self.numbers))  # names of its own
                    done = [process.pipeline.policy.record and process.journal.append(data) for _, data in kept]
                    os.write(writing, bytes(done))
                finally:
                    os._exit(0)
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                done = list(pipe.read())
            os.waitpid(child, 0)
            for (event, _), sure in zip(kept, done, strict=True):
                event.sure, event.source = bool(sure), "a child"
                if not sure and process.pipeline.policy.record:  # the disk had failed a moment before
                    self.reference.failed += 1
                    self.unsure += 1

        self.perform(process, work)

    @rule(number=which, drawn=plans)
    def pump(self, number: int, drawn: Any) -> None:
        process = self.process(number)
        self.pump_by(process, self.plan(drawn, process))

    def pump_by(self, process: Process, plan: Plan | None) -> None:
        self.open_by(process, None)
        if process.spool is not None and not process.dead and not process.over:
            process.pumped = False
            self.perform(process, process.pump, plan)
            if process.pumped:
                generations = [each.generation for each in self.reference.decisions]
                self.reference.covered(self.seen, generations.index(process.generation))
            latest = self.reference.decisions[-1].generation
            assert plan or process.dead or process.generation == latest, "it imports under a decision of yesterday"

    @rule(number=which, fresh=st.booleans(), name=names, answers=answers, fault=faults, drawn=plans)
    def send(self, number: int, fresh: bool, name: str, answers: Sequence[str], fault: str, drawn: Any) -> None:
        process = self.process(number)
        if fresh:  # there is something to send
            self.capture_by(process, KINDS, None)
            self.pump_by(process, None)
        self.send_by(process, name, answers, fault, self.plan(drawn, process))

    def send_by(
        self, process: Process, name: str, answers: Sequence[str], fault: str, plan: Plan | None, *, hurry: bool = True
    ) -> None:
        self.open_by(process, None)
        name = process.own if name == "own" else name
        if process.dead or process.over or name not in process.workers:
            return
        receiver = self.receiver(name)
        receiver.answers, receiver.batch_fault = answers, fault
        outer, self.in_force = self.in_force, [len(self.reference.decisions) - 1]
        self.perform(process, lambda: process.send(name, self.loop(), hurry=hurry), plan)
        self.in_force = outer

    def loop(self) -> asyncio.AbstractEventLoop:
        if self.kernel.depth not in self.loops:
            self.loops[self.kernel.depth] = asyncio.new_event_loop()
        return self.loops[self.kernel.depth]

    @rule(number=which, hurry=st.booleans())
    def work(self, number: int, hurry: bool) -> None:
        """Import and send everything."""
        process = self.process(number)
        self.pump_by(process, None)
        for name in list(process.workers):
            self.send_by(process, name, (), "", None, hurry=hurry)

    @rule(number=which, kill=st.booleans(), drawn=plans)
    def leave(self, number: int, kill: bool, drawn: Any) -> None:
        process = self.process(number)
        self.gone(process, kill, self.plan(drawn, process))

    def gone(self, process: Process, kill: bool, plan: Plan | None) -> None:
        def work() -> None:
            if not kill:
                process.end()
            process.dead = True

        self.perform(process, work, plan)
        if not process.dead:  # the disk did not let it
            self.perform(process, lambda: setattr(process, "dead", True))

    # -- what people do, and time ------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(("configure", "hurry", "open") * 2 + ("fork", "decide", "decide", "resend", "discard")),
        number=which,
        level=st.sampled_from(LEVELS), there=st.lists(st.sampled_from(sorted(DESTINATIONS)), unique=True), drawn=plans,
    )  # fmt: skip
    def seldom(self, what: str, number: int, level: str | None, there: Sequence[str], drawn: Any) -> None:
        """One of what happens seldom, or costs much."""
        self.reference.discards |= what == "discard"
        process = self.process(number)
        if what == "decide":
            self.decide(level, drawn)
        elif what == "configure":
            self.configure(there)
        elif what == "open":
            self.open_by(process, self.plan(drawn, process))
        elif what == "fork":
            self.capture_in_a_child(process)
        elif process.spool is not None:
            spool = process.spool
            works = {"hurry": spool.hurry, "discard": spool.discard, "resend": lambda: self.resend(spool)}
            self.perform(process, works[what], self.plan(drawn, process))

    def resend(self, spool: Spool) -> None:
        """Dead letters, now that their receivers would take them."""
        for receiver in self.receivers.values():
            receiver.poison.clear()
        spool.resend(self.kernel.now)

    @rule(number=which, level=st.sampled_from((None, "off", "minimal")), name=st.sampled_from(("team", "runs", "own")))
    def withdraw(self, number: int, level: str | None, name: str) -> None:
        """What was imported under a yes is sent after a no, or a lesser yes."""
        process = self.process(number)
        self.capture_by(process, KINDS, None)
        self.pump_by(process, None)
        self.decide(level, None)
        self.send_by(process, name, (), "", None)

    @rule(level=st.sampled_from(LEVELS[1:]), at=st.sampled_from(CALLS), dies=st.sampled_from(CALLS), late=st.booleans())
    def race(self, level: str, at: str, dies: str, late: bool) -> None:
        """Two import what one of them recorded under a decision that is no longer the latest.

        It gives the segment up, is stopped, and the other one takes it, dies of it, or forgets it a day later.
        """
        process = self.another()
        self.pump_by(process, None)
        self.capture_by(process, KINDS, None)
        self.decide(level, None)
        if at == "lock":  # and what one of them has opened when the other one deletes it
            gone = self.another()
            self.capture_by(gone, KINDS, None)
            self.gone(gone, True, None)

        def meanwhile() -> None:
            if not late:
                self.pump_by(self.another(), Plan("die", dies))
                return
            for days in (2.0, 0.0):  # what was finished a day ago is forgotten as the next one is
                other = self.another()
                self.pump_by(other, None)
                self.jump(days * DAY)
                self.capture_by(other, ["anomaly_detected"], None)
                self.gone(other, True, None)

        self.pump_by(process, self.stopped(process, at, meanwhile))

    @rule(number=which, name=names, said=answers, at=st.sampled_from(CALLS), wait=st.booleans())
    def overtake(self, number: int, name: str, said: Sequence[str], at: str, wait: bool) -> None:
        """A sender is stopped in the middle of a batch, and another one sends; it goes on when that has answered."""
        process = self.process(number)
        self.capture_by(process, KINDS, None)
        self.pump_by(process, None)

        def meanwhile() -> None:
            other = self.another()
            self.send_by(other, name, (), "", None)
            if wait:
                self.jump(90.0)
                self.send_by(other, name, said, "", None)

        self.send_by(process, name, (), "", self.stopped(process, at, meanwhile))

    @rule(number=which, first=moments, second=moments)
    def run_out(self, number: int, first: int | str, second: int | str) -> None:
        """The disk fails, is well for a moment, and is full."""
        process = self.process(number)
        self.capture_by(process, KINDS, Plan("fail", first))
        self.jump(5.0)
        self.capture_by(process, KINDS, None)
        self.capture_by(process, KINDS, Plan("full", second))

    def decide(self, level: str | None, drawn: Any) -> None:
        """A yes to some level, to recording alone, or a no."""
        destinations = identities(load_layer(self.home.config).destinations) if level not in (None, "off") else {}
        moment = datetime.fromtimestamp(self.kernel.now, timezone.utc)
        grant = Grant() if level is None else new_grant(SPEC, TelemetryLevel(level), moment)
        before, person = self.generation(), Body()
        decided = {CORE_SPEC: grant}
        self.perform(person, lambda: save_decision(self.home, decided, destinations), self.plan(drawn, person))
        if (generation := self.generation()) != before:
            self.decided = self.kernel.now
            self.reference.decisions.append(Decision(generation, level, tuple(destinations)))
            self.in_force.append(len(self.reference.decisions) - 1)

    def agreed(self, level: str) -> None:
        """The first decision. It costs much to write down, so that it is written once for all."""
        self.decided = self.kernel.now
        if level in self.written:
            self.home.telemetry.mkdir()
            self.home.consent.write_bytes(self.written[level])
            destinations = () if level == "off" else ("team",)
            self.reference.decisions.append(Decision(self.generation(), level, destinations))
        else:
            self.decide(level, None)
            self.written[level] = self.home.consent.read_bytes()

    def generation(self) -> str:
        try:
            return self.home.consent.read_text().partition('generation = "')[2].partition('"')[0]
        except FileNotFoundError:
            return ""

    def configure(self, there: Sequence[str]) -> None:
        """Destinations for processes that start from now on; shared ones wait for the next yes."""
        self.home.config.write_text("".join(f"[telemetry.to.{name}]\n{DESTINATIONS[name]}" for name in there))

    @rule(seconds=st.sampled_from(TIMES))
    def jump(self, seconds: float) -> None:
        """Time passes, or somebody sets the clock."""
        self.kernel.now += seconds
        self.kernel.ticks += max(seconds, 1.0)

    # -- the end ---------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everybody goes, one comes back, every receiver is well: nothing may be left, and everything has arrived."""
        self.settling = True
        for process in list(self.processes):
            self.gone(process, process.number % 2 == 0, None)
        self.jump(-40 * DAY if self.started % 2 else 90.0)
        latest = self.reference.decisions[-1].level
        if not latest or self.kernel.now < self.decided:  # a decision of tomorrow is none
            self.decide(latest or "standard", None)
        self.start(False)
        for _ in range(60):
            self.work(0, hurry=False)
            if not self.left():
                break
            self.jump(4000.0)  # longer than any pause
        self.gone(self.processes[0], False, None)
        assert not self.seen.waiting, "something is left in a journal"
        assert not self.left(), f"something is left: {self.left()}"
        for name, target in self.reference.targets.items():
            assert not target.present or target.view.source is None, f"{name} is there although its reporter is gone"
        for event in self.reference.events.values():
            assert event.imported or not event.sure, f"{event} is gone"
        shared = {name: each for name, each in self.seen.ledgers.items() if name != "history"}
        wrong = verify(self.home, lambda: (self.observer.epoch, shared))
        assert not wrong, f"the audit does not add up: {wrong}"

    def left(self) -> dict[str, str]:
        """What waits for somebody who would take it."""
        ledgers = {name: self.seen.ledgers[name] for name in self.granted()}
        return {name: str(ledger) for name, ledger in ledgers.items() if ledger.pending > ledger.set_aside}

    def granted(self) -> list[str]:
        there = [to.name for to in load_layer(self.home.config).destinations]
        shown = self.reference.decisions[-1].destinations
        return ["history", *(name for name in there if name in PRIVATE or name in shown)]
