"""What one completed run costs its caller: this project, and the SDKs that people use, in turn in one run.

Bounded in time. Prints a table and writes build/bench.json. Ratios are what counts: machines are noisy.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from subjects import SUBJECTS, Subject

ROUNDS = 5
BURST = 4000
OUTPUT = Path("build/bench.json")


def burst(subject: Subject, port: int, enabled: bool) -> list[float]:
    """Microseconds of each of ``BURST`` calls in a row, after a warm-up of a tenth as many."""
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        call, close = subject.make(port, Path(home) / "home", enabled)
        for _ in range(BURST // 10):
            call()
        gc.collect()
        clock, spent = time.perf_counter, []
        for _ in range(BURST):
            start = clock()
            call()
            spent.append((clock() - start) * 1e6)
        close()
        return spent


def main() -> None:
    sink = subprocess.Popen([sys.executable, str(Path(__file__).with_name("sink.py"))], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert sink.stdout is not None
    port = int(sink.stdout.readline())
    spent: dict[tuple[str, bool], list[list[float]]] = {}
    try:
        for _ in range(ROUNDS):
            for subject in SUBJECTS:
                for enabled in (True, False):
                    spent.setdefault((subject.name, enabled), []).append(burst(subject, port, enabled))
    finally:
        sink.communicate()
    rows = []
    print(f"One completed run, microseconds for the caller: median of {ROUNDS} rounds of {BURST}, in turn\n")
    print(f"{'subject':<18}{'p50':>9}{'p99':>9}{'disabled p50':>15}{'ratio to ours':>15}")
    ours = statistics.median(statistics.median(one) for one in spent["cmdorc-telemetry", True])
    for subject in SUBJECTS:
        enabled, disabled = spent[subject.name, True], spent[subject.name, False]
        figures = {
            "caller_burst_p50": statistics.median(statistics.median(one) for one in enabled),
            "caller_burst_p99": statistics.median(statistics.quantiles(one, n=100)[98] for one in enabled),
            "disabled": statistics.median(statistics.median(one) for one in disabled),
        }
        p50, p99, off = figures.values()
        print(f"{subject.name:<18}{p50:>9.2f}{p99:>9.2f}{off:>15.2f}{p50 / ours:>15.2f}")
        rows += [{"figure": figure, "subject": subject.name, "config": subject.config, "value": round(value, 3),
                  "unit": "us"} for figure, value in figures.items()]  # fmt: skip
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"\n{OUTPUT} written")


if __name__ == "__main__":
    main()
