"""Nothing that a person would not share gets to anybody else: canaries in everything, and a search in all that leaves.

A short run of what `make leak-test` does ten thousand times; here hypothesis draws the rounds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .plan import draw
from .rig import Rig

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as made:
        yield made


@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False), mocked=st.integers(12, 60), real=st.integers(2, 8))
def test_no_canary_leaves(rig: Rig, chance: random.Random, mocked: int, real: int) -> None:
    plan = draw(chance, mocked=mocked, real=real)
    came = rig.run(plan)
    assert came.finds == []
    assert came.faults == []
    assert came.arrived["command_completed"] > 0


def test_a_leak_is_found_wherever_it_is(rig: Rig) -> None:
    """The search sees what it is for: this program leaks on purpose, in many forms and by every way out."""
    plan = draw(random.Random(3), mocked=60, real=0)
    plan.sabotage, plan.moods = True, ["fine"] * 16
    found: dict[str, set[str]] = {}
    came = rig.run(plan)
    print(came.faults)
    for find in came.finds:
        found.setdefault(find.place, set()).add(find.form)
    ways = {"plain", "hex", "url", "reversed", "base64+0", "base64+1", "base64-url+2"}
    for place in ("spool", "http body", "shared file"):
        assert ways <= _kinds(found[place]), place
    assert "hex" in found["http headers"]
    assert "plain" in found["log"]
    assert any(form.startswith("base64") for form in found["audit"])


def _kinds(forms: set[str]) -> set[str]:
    """What was found, whichever place in its group a mark had."""
    return {form.split("+")[0] for form in forms} | forms | (
        {"base64+0", "base64+1"} if any(form.startswith("base64+") for form in forms) else set()
    )  # fmt: skip
