"""Records cannot be changed, and the small decisions and texts that they carry are right."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec import Struct

from cmdorc_telemetry import types
from cmdorc_telemetry.lifecycle import CompletedRun
from cmdorc_telemetry.types import DROP_REASONS, DropReason, Ledger, View

ROOT = Path(__file__).parents[1]


def records() -> list[type[Struct]]:
    return [
        value
        for value in vars(types).values()
        if inspect.isclass(value) and issubclass(value, Struct) and value.__module__ == types.__name__
    ]


@pytest.mark.parametrize("record", records(), ids=lambda record: record.__name__)
def test_a_record_is_frozen_and_documented(record: type[Struct]) -> None:
    assert record.__struct_config__.frozen
    assert record.__doc__


def test_a_plugin_cannot_change_what_another_plugin_sees() -> None:
    run = CompletedRun(run_id="r", command_name="Tests", state="success")
    with pytest.raises(AttributeError, match="immutable"):
        run.state = "failed"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("view", "has_shared", "wants"),
    [
        (View(name="a"), True, True),
        (View(name="a"), False, False),
        (View(name="a", audience="private"), False, True),
        (View(name="a", kinds=frozenset({("s@1", "e")})), True, True),
        (View(name="a", kinds=frozenset({("s@1", "x"), ("t@1", "e")})), True, False),
        (View(name="a", kinds=frozenset()), True, False),
        (View(name="a", source="here"), True, True),
        (View(name="a", source="there"), True, False),
    ],
)
def test_a_destination_wants_what_there_is_a_body_for(view: View, has_shared: bool, wants: bool) -> None:
    assert view.wants("s@1", "e", has_shared, "here") is wants


def test_every_reason_for_a_drop_is_used_and_documented() -> None:
    assert tuple(DROP_REASONS) == get_args(DropReason)
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = re.findall(
        r"^\| `([a-z-]+)` \| (.*) \|$", page.partition("### Drop reasons")[2].partition("###")[0], re.MULTILINE
    )
    assert dict(told) == DROP_REASONS
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cmdorc_telemetry").rglob("*.py")
                   if path.name != "types.py")  # fmt: skip
    assert [reason for reason in DROP_REASONS if f'"{reason}"' not in code] == []


def test_a_ledger_is_told_in_one_line() -> None:
    assert str(Ledger(name="http")) == "recorded 0 = acknowledged 0 + pending 0 + dropped 0"
    ledger = Ledger(name="http", recorded=10, acknowledged=4, pending=1, dropped={"expired": 3, "age": 2, "none": 0})
    assert str(ledger) == "recorded 10 = acknowledged 4 + pending 1 + dropped 5 (age 2, expired 3)"
