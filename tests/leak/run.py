"""The leak fuzz as long as one likes: `make leak-test`, or with ARGS="--runs 100000 --seed 7".

Rounds of random plans, each a machine and a program of its own, until so many runs of commands have arrived at the
server. Prints what ran, what was searched and what was found: nothing, or exit code 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.leak.canaries import Canaries
from tests.leak.plan import Plan, draw
from tests.leak.rig import Rig, Round
from tests.leak.search import Searcher

MOCKED, REAL = (40, 400), (20, 160)
"""Runs of a round, at least and at most."""
AT_ONCE = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="that have to arrive")
    parser.add_argument("--seconds", type=float, default=900.0, help="until it is given up")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    print(f"seed        {given.seed}", flush=True)
    chance = random.Random(given.seed)
    canaries = Canaries(given.seed)
    began, total, told, plans = time.monotonic(), Round(), Counter[str](), list[Plan]()

    def round_of(plan: Plan, rig: Rig) -> Round:
        came = rig.run(plan)
        came.faults = [f"{fault} (level {plan.level})" for fault in came.faults]
        return came

    def plan_next() -> Plan:
        mocked, real = chance.randint(*MOCKED), chance.randint(*REAL)
        plan = draw(random.Random(chance.random()), mocked=mocked, real=real, canaries=canaries)
        told.update(mocked=mocked, real=real, rounds=1, **{plan.level: 1})
        plans.append(plan)
        return plan

    with Rig() as rig, ThreadPoolExecutor(AT_ONCE) as pool:
        late = False
        busy: set[Future[Round]] = set()
        while busy or total.arrived["command_completed"] < given.runs:
            late = time.monotonic() - began > given.seconds
            while len(busy) < AT_ONCE and not late and total.arrived["command_completed"] < given.runs:
                busy.add(pool.submit(round_of, plan_next(), rig))
            if not busy:
                break
            done, busy = wait(busy, return_when=FIRST_COMPLETED)
            for each in done:
                _add(total, each.result())
            if len(plans) % 10 == 0:
                print(f"… {total.arrived['command_completed']:,} of {given.runs:,}", flush=True)
        names = {name for plan in plans for name in plan.names}
        rig.search(total, Searcher(canaries.marks, names=names), rig.at_the_server())
        stored = rig.stored()
    return _report(total, told, stored, given.runs, time.monotonic() - began)


def _add(total: Round, came: Round) -> None:
    total.finds += came.finds
    total.faults += came.faults
    total.searched += came.searched
    total.arrived += came.arrived


def _report(total: Round, told: Counter[str], stored: Counter[str], wanted: int, seconds: float) -> int:
    arrived = stored["command_completed"]
    if arrived < wanted:
        total.faults.append(f"{arrived:,} of {wanted:,} runs arrived in {seconds:.0f} s")
    levels = ", ".join(f"{told[level]} {level}" for level in ("minimal", "standard", "debug"))
    print(f"rounds      {told['rounds']}: {levels}")
    print(f"asked for   {told['mocked']:,} runs of cmdorc's executor for tests, {told['real']:,} that are processes")
    print(f"arrived     {arrived:,} runs, {stored.total():,} events at the server")
    print(f"            {total.arrived['command_completed']:,} runs, {total.arrived.total():,} events in shared files")
    print(f"searched    {', '.join(f'{place} {size:,}' for place, size in sorted(total.searched.items()))} bytes")
    print(f"seconds     {seconds:.0f}")
    kinds = Counter((find.place, find.form) for find in total.finds)
    for find in {(find.place, find.form): find for find in total.finds}.values():
        print(f"LEAK        {kinds[find.place, find.form]:,} × {find.place}, {find.form}: {find.context}")
    for fault in total.faults[:20]:
        print(f"WRONG       {fault}")
    print(f"found       {len(total.finds)}")
    return bool(total.finds or total.faults)


if __name__ == "__main__":
    sys.exit(main())
