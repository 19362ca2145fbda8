"""Any two plugins of this repository work together, and so do all of them."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from .conftest import PLUGINS, RUNS, TABLES


def test_each_plugin_is_known_here() -> None:
    assert set(TABLES) == set(PLUGINS), "say in TABLES what it needs to work"


@pytest.mark.parametrize(
    "names",
    [*combinations(PLUGINS, 1), *combinations(PLUGINS, 2), tuple(PLUGINS), tuple(reversed(PLUGINS))],
    ids="-".join,
)
def test_together(place: Any, names: tuple[str, ...]) -> None:
    place.enable(*names)
    failures, ledger = place.use()
    assert failures == {}
    destinations = {"history"} | {name for name in names if f"telemetry.to.{name}" in TABLES[name]}
    destinations |= {"detector-anomaly"} if "anomaly" in names else set()
    assert set(ledger) == destinations
    for name, each in ledger.items():
        assert each.recorded == each.acknowledged == RUNS + 1, (name, each)
        assert (each.pending, each.dropped) == (0, {}), name
    if "file" in names:
        events = [json.loads(line) for line in (place.folder / "events.jsonl").read_text().splitlines()]
        assert len(events) == RUNS + 1
        assert {"arch" in event for event in events} == {"anonymizer" not in names}, "it narrows for every other one"
