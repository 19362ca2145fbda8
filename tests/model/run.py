"""The model test as long as one likes: `make model-test`, or with ARGS="--steps 1000000 --seed 7".

Rounds of examples, each with a seed that is printed, until so many steps are done or so much time is over. A failure
is made small and printed as a program; its round comes again with its seed.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine

ROUND = settings(max_examples=60, stateful_step_count=200, deadline=None, database=None,
                 suppress_health_check=list(HealthCheck))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Let the model test run for long.")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1800.0, help="when to stop at the latest")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first round")
    asked = parser.parse_args()
    logging.getLogger("cmdorc_telemetry").setLevel(logging.CRITICAL)  # which tells of every refusal
    start, round_seed = time.monotonic(), asked.seed
    while Machine.steps < asked.steps and time.monotonic() - start < asked.seconds:
        before, began = Machine.steps, time.monotonic()
        print(f"seed {round_seed:>10}", end="  ", flush=True)
        run_state_machine_as_test(seed(round_seed)(Machine), settings=ROUND)
        rate = (Machine.steps - before) / (time.monotonic() - began)
        print(f"{Machine.steps:>8,} steps  {rate:>6,.0f} a second", flush=True)
        round_seed += 1
    seconds = time.monotonic() - start
    print(f"{Machine.steps:,} steps in {seconds:,.0f} s, {Machine.steps / seconds:,.0f} a second; "
          f"first seed {asked.seed}: the model agrees")  # fmt: skip
    if Machine.steps < asked.steps:
        sys.exit(f"error: only {Machine.steps:,} of {asked.steps:,} steps in {asked.seconds:,.0f} s")


if __name__ == "__main__":
    main()
