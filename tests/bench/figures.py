"""What is measured, how often, and what is to be reached."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crowd import COUNTS, Crowd
from rig import Ended, Rig, Sink, unused_port
from subjects import NONE, OURS, PEERS

EVENTS = 1000
"""Events of a process whose losses are counted."""
LONGEST_EXIT = {False: 20.0, True: 5.0}
"""Quick run or not → seconds after which the exit of a process whose server is down has lasted long enough."""


class Key(NamedTuple):
    """Whose value."""

    subject: str
    config: str


Values = Mapping[Key, float]


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    unit: str
    what: str
    most: float | None = None
    """What ours may be at most."""
    of_best: float | None = None
    """What ours may be at most, as a share of the best peer's."""
    of_opentelemetry: float | None = None
    """The same, of OpenTelemetry's."""
    digits: int = 1

    def limits(self, values: Values) -> list[tuple[str, float]]:
        """What ours has to be at most: in words, and as a number."""
        peers = {key: value for key, value in values.items() if key.subject in PEERS}
        otel = [value for key, value in peers.items() if key.subject == "opentelemetry-sdk"]
        found = [] if self.most is None else [(f"{self.most:g}", self.most)]
        if self.of_best is not None and peers:
            share = "" if self.of_best == 1 else f"{self.of_best:g} × "
            found.append((f"{share}best peer", self.of_best * min(peers.values())))
        if self.of_opentelemetry is not None and otel:
            found.append((f"{self.of_opentelemetry:g} × OpenTelemetry", self.of_opentelemetry * min(otel)))
        return found


FIGURES = {
    each.name: each
    for each in (
        Figure("caller_burst_p50", "us", "a call in a row of a thousand, median", 4, 0.35, digits=2),
        Figure("caller_burst_p99", "us", "the same, 99th percentile"),
        Figure("caller_paced_p50", "us", "a call at a thousand a second, median"),
        Figure("caller_paced_p99", "us", "the same, 99th percentile", of_best=1),
        Figure("captures_over_1ms", "%", "calls over 1 ms beside a thread that keeps the interpreter busy", 0),
        Figure("disabled", "us", "a hook while telemetry is off", 0, digits=3),
        Figure("disabled_track", "us", "track() while telemetry is off", 0.1, digits=3),
        Figure("cpu_per_100k", "s", "CPU of the process for 100,000 events, delivered", 1.2, None, 0.2, digits=2),
        Figure("cpu_undelivered", "events", "of those events, how many did not arrive", 0, digits=0),
        Figure("wire_bytes", "bytes", "an event on the wire, headers included", digits=0),
        Figure("oneshot", "ms", "a process with one event, over one without", 30),
        Figure("oneshot_flushed", "ms", "the same, and the event is delivered before it ends"),
        Figure("exit_down", "ms", "end of a short process, server down", 8),
        Figure("exit_down_sending", "ms", "end of a process that tried to send, server down", 40),
        Figure("import_off", "ms", "import and start while off, over import cmdorc", 3),
        Figure("import_on", "ms", "import and start while on, over import cmdorc", 15),
        Figure("start_0_plugins", "ms", "a process until its first run ended, no plugin enabled, over one without us"),
        Figure("start_1_plugin", "ms", "the same, with one plugin that does nothing"),
        Figure("start_10_plugins", "ms", "the same, with ten of them"),
        Figure("start_0_cpu", "ms", "CPU of start_0_plugins"),
        Figure("start_1_cpu", "ms", "CPU of start_1_plugin"),
        Figure("start_10_cpu", "ms", "CPU of start_10_plugins"),
        Figure("start_1_ratio", "x", "CPU of the whole process with one plugin, over that with none, median", digits=3),
        Figure("start_10_ratio", "x", "the same, with ten of them", digits=3),
        Figure("exec_undecided", "ms", "CPU of `exec` before it is an empty program, nobody ever decided"),
        Figure("exec_off", "ms", "the same, telemetry off in a home that a variable names"),
        Figure("exec_on", "ms", "CPU until a program's first run ended, by `exec`, over the program alone"),
        Figure("run_ratio", "x", "a cmdorc run of `true`, over an uninstrumented one, median", 1.05, digits=3),
        Figure("loop_lag", "ms", "lateness of an event loop with a thousand events a second, p99", digits=2),
        Figure("lost_at_exit", "events", "of 1,000 events lost when the process ends", 0, digits=0),
        Figure("lost_on_kill", "events", "of 1,000 events lost by SIGKILL after the last", 0, digits=0),
        Figure("lost_sink_down", "events", "of 1,000 events lost, server down until the process ended", 0, digits=0),
        Figure("lost_fork", "events", "of 1,000 events lost, half of them a forked child's", 0, digits=0),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """What one visit to one subject yields: some figures."""

    figures: tuple[str, ...]
    visit: Callable[[Rig, Key, bool], dict[str, float]]
    rounds: tuple[int, int] = (3, 1)
    """Of a whole run and of a quick one; values are medians of them."""
    combine: Callable[[Sequence[float]], float] = statistics.median
    over_none: bool = False
    """Whether what the empty subject takes is subtracted."""
    codings: bool = False
    """Whether it makes a difference how our batches are compressed."""
    waits: bool = False
    """Whether peers mostly wait, once each and for seconds: then they do so at the same time."""
    none: bool = True
    """Whether the empty subject is measured."""
    skip: tuple[str, ...] = ()
    """Subjects that have no such thing."""

    def takes(self, key: Key) -> bool:
        """Whether a subject in a configuration is measured."""
        if key.subject in self.skip or (key.subject == NONE and not self.none):
            return False
        return key.subject != OURS or key.config == "default" or self.codings


# -- visits ------------------------------------------------------------------------------------------------------------


def _burst(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    said = rig.work("burst", *key, 300 if quick else 1000).said
    return {"caller_burst_p50": said["p50"], "caller_burst_p99": said["p99"]}


def _paced(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    said = rig.work("paced", *key, 500 if quick else 1500).said
    return {"caller_paced_p50": said["p50"], "caller_paced_p99": said["p99"]}


def _beside(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    return {"captures_over_1ms": rig.work("beside", *key, 60 if quick else 200).said["share"]}


def _disabled(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    said = rig.work("disabled", *key, 1000 if quick else 5000, enabled=False).said
    return {"disabled": said["hook"]} | ({"disabled_track": said["track"]} if "track" in said else {})


def _cpu(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    n = 5000 if quick else 30_000
    rig.sink.reset()
    said = rig.work("cpu", *key, n).said
    if key.subject == NONE:
        return {"cpu_per_100k": said["seconds"]}
    came = rig.sink.count()
    missing = n + 1 - came["unique"]
    found = {"cpu_undelivered": float(missing), "wire_bytes": came["bytes"] / max(came["unique"], 1)}
    return found if missing else {"cpu_per_100k": said["seconds"], **found}


def _oneshot(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    return {"oneshot": rig.work("oneshot", *key, 1).seconds * 1e3}


def _flushed(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    return {"oneshot_flushed": rig.work("flushed", *key, 1).seconds * 1e3}


def _import(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    on = rig.work("import_on", *key, 1).seconds * 1e3
    return {"import_on": on, "import_off": rig.work("import_off", *key, 1, enabled=False).seconds * 1e3}


@functools.cache
def _crowd(rig: Rig) -> Crowd:
    return Crowd(rig)


def _start(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    counts = [None] * len(COUNTS) if key.subject == NONE else COUNTS
    spent = [_crowd(rig).start(count) for count in counts]
    return dict(zip((*_STARTS, *_START_CPUS), (*(each.wall for each in spent), *(each.cpu for each in spent)),
                    strict=True))  # fmt: skip


def _start_ratios(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    none, one, ten = (_crowd(rig).start(count).cpu for count in COUNTS)
    return {"start_1_ratio": one / none, "start_10_ratio": ten / none}


def _exec(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    own = key.subject == OURS
    spent = {
        figure: _crowd(rig).executed(program, by if own else "itself")
        for figure, program, by in zip(_EXECS, ("nothing", "nothing", "first"), ("undecided", "off", "on"), strict=True)
    }
    return {figure: each.cpu for figure, each in spent.items()}


def _runs(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    return {"run_ratio": rig.work("runs", *key, 40 if quick else 120).said["ratio"]}


def _lag(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    return {"loop_lag": rig.work("lag", *key, 500 if quick else 1500).said["p99"]}


def _exit_ms(ended: Ended, quick: bool) -> float:
    if ended.late:
        return LONGEST_EXIT[quick] * 1e3
    assert ended.exit_ms is not None
    return ended.exit_ms


def _exit_down(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    ended = rig.work("ends", *key, 10, port=rig.dead_port, longest=LONGEST_EXIT[quick])
    return {"exit_down": _exit_ms(ended, quick)}


def _exit_down_sending(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
    """The server is back when the process has ended; what the next process brings it is not lost."""
    port = unused_port()
    home = rig.home(port, enabled=key.subject == OURS)
    ended = rig.work("ends_later", *key, EVENTS, port=port, home=home, longest=LONGEST_EXIT[quick])
    exit_ms = _exit_ms(ended, quick)
    if key.subject == NONE:
        return {"exit_down_sending": exit_ms}
    sink = Sink(port)
    try:
        rig.work("deliver", *key, 1, port=port, home=home)
        lost = EVENTS - sink.count()["unique"]
    finally:
        sink.close()
    return {"exit_down_sending": exit_ms, "lost_sink_down": float(lost)}


def _lost(figure: str, probe: str) -> Callable[[Rig, Key, bool], dict[str, float]]:
    def visit(rig: Rig, key: Key, quick: bool) -> dict[str, float]:
        home = rig.home(rig.sink.port, enabled=key.subject == OURS)
        rig.sink.reset()
        rig.work(probe, *key, EVENTS, home=home)
        rig.work("deliver", *key, 1, home=home)
        return {figure: float(EVENTS - rig.sink.count()["unique"])}

    return visit


_STARTS = ("start_0_plugins", "start_1_plugin", "start_10_plugins")
_START_CPUS = ("start_0_cpu", "start_1_cpu", "start_10_cpu")
_EXECS = ("exec_undecided", "exec_off", "exec_on")
MEASUREMENTS = (
    Measurement(("caller_burst_p50", "caller_burst_p99"), _burst, (4, 1)),
    Measurement(("caller_paced_p50", "caller_paced_p99"), _paced, (2, 1)),
    Measurement(("captures_over_1ms",), _beside, (1, 1)),
    Measurement(("disabled", "disabled_track"), _disabled, (2, 1), skip=("snowplow-tracker",)),
    Measurement(("cpu_per_100k", "cpu_undelivered", "wire_bytes"), _cpu, (2, 1), codings=True),
    Measurement(("oneshot",), _oneshot, (11, 3), over_none=True),
    Measurement(("import_on", "import_off"), _import, (6, 2), min, over_none=True),
    Measurement((*_STARTS, *_START_CPUS), _start, (6, 2), min, over_none=True, skip=PEERS),
    Measurement(("start_1_ratio", "start_10_ratio"), _start_ratios, (7, 2), none=False, skip=PEERS),
    Measurement(_EXECS, _exec, (6, 2), min, over_none=True, skip=PEERS),
    Measurement(("exit_down",), _exit_down, (7, 2), waits=True),
    Measurement(("exit_down_sending", "lost_sink_down"), _exit_down_sending, (5, 1), waits=True),
    Measurement(("lost_at_exit",), _lost("lost_at_exit", "ends_later"), (1, 1), max, none=False),
    Measurement(("lost_on_kill",), _lost("lost_on_kill", "killed"), (1, 1), max, none=False),
    Measurement(("lost_fork",), _lost("lost_fork", "forks"), (1, 1), max, none=False),
    Measurement(("run_ratio",), _runs, (2, 1)),
    Measurement(("loop_lag",), _lag, (2, 1)),
    Measurement(("oneshot_flushed",), _flushed, (5, 1), over_none=True),
)
