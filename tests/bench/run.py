"""``make bench``: what telemetry costs a program and what it loses, for this project and for the SDKs people use.

All in one run, each measurement in a process of its own, subjects in turn. Prints three tables, ours against what is to
be reached, everybody's figures, and ``track()`` beside libraries that only check, and writes build/bench.json. A whole
run takes eight minutes, ``--quick`` one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import validation
from figures import FIGURES, MEASUREMENTS, Key, Measurement, Values
from report import as_json, busy, everybody, ours, validators, write_docs
from rig import Rig, WorkerFailed, rig
from subjects import CLIENTS, CONFIGS, NONE, PEERS

OUTPUT = Path("build/bench.json")
BUDGET, EACH = 480.0, 25.0
"""Seconds that a run may take, and those of one round of one measurement: nothing is repeated at the cost of others."""
STAGGER = 2.0
"""Seconds between the starts of processes that mostly wait: time enough for each to get to its waiting alone."""

Spent = dict[str, dict[Key, list[float]]]


class Run:
    """One run: visits subjects round by round, and keeps what each visit yields."""

    def __init__(self, on: Rig, *, quick: bool) -> None:
        self._rig, self._quick, self._start = on, quick, time.monotonic()
        self.found: Spent = defaultdict(lambda: defaultdict(list))
        self.failed: dict[str, str] = {}
        self.short: list[str] = []
        """Measurements that were repeated less often than meant."""

    def measure(self, measurement: Measurement, keys: list[Key], *, others: int) -> None:
        """All rounds of one measurement, while time is left for so many ``others``.

        Peers that only wait are visited once, at the same time.
        """
        waiting = [key for key in keys if measurement.waits and key.subject in PEERS]
        with ThreadPoolExecutor(max_workers=max(len(waiting), 1)) as pool:
            for key in waiting:
                pool.submit(self._visit, measurement, key)
                time.sleep(STAGGER)
        for number in range(measurement.rounds[self._quick]):
            if number and time.monotonic() - self._start > BUDGET - EACH * others:
                self.short.append(measurement.figures[0])
                break
            for key in keys:
                if key not in waiting:
                    self._visit(measurement, key)

    def _visit(self, measurement: Measurement, key: Key) -> None:
        try:
            yielded = measurement.visit(self._rig, key, self._quick)
        except WorkerFailed as fault:
            self.failed[f"{key.subject}, {key.config}"] = str(fault)
            return
        for figure, value in yielded.items():
            self.found[figure][key].append(value)

    def values(self, measurement: Measurement) -> dict[str, Values]:
        """The figures of one measurement: rounds combined, the empty subject's own share taken away."""
        done = {}
        for figure in measurement.figures:
            values = {key: measurement.combine(spent) for key, spent in self.found[figure].items()}
            if measurement.over_none:
                none = values.pop(Key(NONE, "default"), 0.0)
                values = {key: value - none for key, value in values.items()}
            done[figure] = values
        return done


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer rounds, peers at their best only")
    parser.add_argument("--only", metavar="FIGURE", action="append",
                        choices=[*FIGURES, *validation.FIGURES], help="repeat for more")  # fmt: skip
    parser.add_argument("--subject", metavar="NAME", action="append", choices=CLIENTS, help="repeat for more")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="instead of build/bench.json")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="also write the tables into this page")
    return parser.parse_args()


def _keys(arguments: argparse.Namespace) -> list[Key]:
    """Who is measured, in the order of visits. The empty subject always: others are compared with it."""
    names = [*(arguments.subject or CLIENTS)]
    names += [] if NONE in names else [NONE]
    return [
        Key(name, config) for name in names for config in CONFIGS[name]
        if not (arguments.quick and name in PEERS and config != "best")
    ]  # fmt: skip


def main() -> None:
    arguments = _arguments()
    wanted = set(arguments.only or [*FIGURES, *validation.FIGURES])
    values: dict[str, Values] = {}
    start = time.monotonic()
    with rig() as made:
        run = Run(made, quick=arguments.quick)
        chosen = [each for each in MEASUREMENTS if not wanted.isdisjoint(each.figures)]
        for others, measurement in zip(reversed(range(len(chosen))), chosen, strict=True):
            print(f"{time.monotonic() - start:6.0f} s  {', '.join(measurement.figures)}", file=sys.stderr, flush=True)
            run.measure(measurement, [key for key in _keys(arguments) if measurement.takes(key)], others=others)
            values |= {name: found for name, found in run.values(measurement).items() if found}
    values = {name: values[name] for name in FIGURES if name in values and name in wanted}
    checked = {}
    if not wanted.isdisjoint(validation.FIGURES):
        print(f"{time.monotonic() - start:6.0f} s  {', '.join(validation.FIGURES)}", file=sys.stderr, flush=True)
        checked = validation.visit(arguments.quick)
    for table in (ours(values), everybody(values)) if values else ():
        print(table)
    if checked:
        print(validators(checked))
    for who, why in run.failed.items():
        print(f"not measured: {who}: {why}")
    if run.short:
        print(f"the machine is slow or busy; repeated less often: {', '.join(run.short)}")
    if busy():
        print(busy())
    print(f"{time.monotonic() - start:.0f} seconds")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(
        json.dumps(as_json(values) + validation.as_json(checked), indent=1) + "\n", encoding="utf-8"
    )
    print(f"{arguments.output} written")
    if arguments.docs:
        write_docs(arguments.docs, values, checked)


if __name__ == "__main__":
    main()
