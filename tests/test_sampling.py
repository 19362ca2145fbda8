"""Sampling by rate, conditions and subject: the rate that a body tells is right; that it is shared tells nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.spec import Level, Shapes, TelemetrySpec, parse_toml, project, read_wishes, sampled
from cmdorc_telemetry.types import Event, Row

COUNT = 3000
KEY = b"a key of this machine's own"


def spec_of(sampling: str, more: str = "") -> TelemetrySpec:
    """A spec whose event ``ran`` is sampled so."""
    return parse_toml(f"""
[meta]
name = "acme.app"
[[events]]
name = "ran"
semantics = {{ what = "A run" }}
sampling = {sampling}
[events.properties]
state = {{ type = "enum", members = ["ok", "failed"], level = "standard" }}
ms = {{ type = "duration_ms", level = "minimal" }}
host = {{ type = "string", pattern = "[a-z]+", max_length = 20, audience = "private" }}
run = {{ type = "string", pattern = "[a-z0-9]+", max_length = 20, audience = "private" }}
"context.team" = {{ type = "string", pattern = "[a-z0-9]+", max_length = 20, level = "minimal" }}
user = {{ type = "string", pattern = ".*", max_length = 20, pii = true, redact = true }}
{more}
""", "x")  # fmt: skip


def body(number: int, own: Mapping[str, Any]) -> bytes:
    base = {"event": "ran", "app_name": "acme", "anonymous_install_id": str(uuid.UUID(int=7)), "spec": "acme.app@1",
            "timestamp": "2026-11-22T03:00:00Z", "event_id": str(uuid.UUID(int=number))}  # fmt: skip
    return json.dumps({**base, **own}).encode()


def rows(
    spec: TelemetrySpec, events: Iterator[Mapping[str, Any]] | list[Mapping[str, Any]], *, level: Level = "standard",
    key: bytes = KEY, **how: Any,
) -> tuple[Row, ...]:  # fmt: skip
    frames = [b'["event","acme.app@1","ran",1,1000,%b]' % body(number, own) for number, own in enumerate(events)]
    gate = Gate(Shapes([spec]), lambda generation, name: level, key=lambda: key, **how)
    return gate.gate(frames, "g", "journal").rows


def shared(found: tuple[Row, ...]) -> list[dict[str, Any]]:
    return [json.loads(row.shared) for row in found if row.shared is not None]


def mixed() -> list[Mapping[str, Any]]:
    """A third of them failed; a quarter took long."""
    return [{"state": "failed" if number % 3 == 0 else "ok", "ms": number % 4 * 1000} for number in range(COUNT)]


def test_what_is_always_shared_has_a_weight_of_its_own() -> None:
    """Whoever counts each body as 1 / sampling_rate of them gets how many there were, of those that failed and not."""
    got = shared(rows(spec_of("""{ rate = 0.2, always = ['state == "failed"'] }"""), mixed()))
    failed, others = ([each for each in got if (each["state"] == "failed") is wanted] for wanted in (True, False))
    assert len(failed) == COUNT / 3
    assert not [each for each in failed if "sampling_rate" in each]
    assert {each["sampling_rate"] for each in others} == {0.2}
    assert abs(len(others) / 0.2 - COUNT * 2 / 3) < COUNT * 0.07


def test_of_those_that_meet_its_conditions_a_share_is_shared_and_of_the_others_none() -> None:
    got = shared(rows(spec_of("""{ rate = 0.5, conditions = ["ms > 1500", 'state == "ok"'] }"""), mixed()))
    assert {(each["ms"] > 1500, each["state"], each["sampling_rate"]) for each in got} == {(True, "ok", 0.5)}
    assert abs(len(got) / 0.5 - COUNT / 3) < COUNT * 0.05


def test_what_is_to_be_shared_always_is_whatever_the_conditions() -> None:
    got = shared(rows(spec_of("""{ rate = 0, conditions = ["ms > 1500"], always = ['state == "failed"'] }"""), mixed()))
    assert len(got) == COUNT / 3
    assert not [each for each in got if each["state"] == "ok" or "sampling_rate" in each]


def test_conditions_alone_leave_a_rate_of_one_unsaid() -> None:
    got = shared(rows(spec_of("""{ rate = 1, conditions = ["ms > 2500"] }"""), mixed()))
    assert len(got) == COUNT / 4
    assert not [each for each in got if "sampling_rate" in each]


@pytest.mark.parametrize(
    "sampling",
    [
        "{ rate = 1, conditions = ['host == \"x\"'] }",
        "{ rate = 0, always = ['host == \"x\"'] }",
        "{ rate = 1, conditions = ['not host == \"y\"'] }",
        "{ rate = 0, always = ['host != \"y\"'] }",
        "{ rate = 1, conditions = ['host'] }",
    ],
)
def test_that_an_event_is_shared_tells_nothing_of_what_is_private(sampling: str) -> None:
    """Its conditions see only what is shared: otherwise a body would tell a value that it does not hold."""
    assert shared(rows(spec_of(sampling), [{"host": "x", "ms": 1}])) == []


def test_nor_of_what_the_level_keeps_back() -> None:
    spec = spec_of("""{ rate = 0.2, always = ['state == "failed"'] }""")
    found = rows(spec, mixed(), level="minimal")
    assert {each["sampling_rate"] for each in shared(found)} == {0.2}
    assert abs(len(shared(found)) / COUNT - 0.2) < 0.03
    only = spec_of("""{ rate = 1, conditions = ['state == "failed"'] }""")
    assert shared(rows(only, mixed(), level="minimal")) == []


def test_nor_of_what_nobody_agreed_to() -> None:
    spec = spec_of("""{ rate = 0, always = ['state == "failed"'] }""")
    assert len(shared(rows(spec, mixed()))) == COUNT / 3
    assert shared(rows(spec, mixed(), hidden=lambda *of: frozenset({"state"}))) == []


def test_nor_of_what_an_anonymizer_takes_away_or_changes() -> None:
    spec = spec_of("""{ rate = 0, always = ['state == "failed"'] }""")

    def hides(event: Event) -> Mapping[str, Any]:
        return {"state": None}

    def says_ok(event: Event) -> Mapping[str, Any]:
        return {"state": "ok"}

    for each in (hides, says_ok):
        assert shared(rows(spec, mixed(), anonymizers={"a": each})) == []


def test_nor_at_a_destination_that_gets_less() -> None:
    """What was shared because it failed is sampled there like all others: its being there must not tell."""
    spec = spec_of("""{ rate = 0.2, always = ['state == "failed"'] }""")
    found = rows(spec, mixed())
    less = narrowed(spec, found)
    assert {each["sampling_rate"] for each in less} == {0.2}
    assert not [each for each in less if "state" in each]
    assert abs(len(less) / COUNT - 0.2) < 0.03
    assert {each["event_id"] for each in less} == {
        row["event_id"] for row in shared(rows(spec, mixed(), level="minimal"))
    }, "those that would be there without it"  # fmt: skip
    only = spec_of("""{ rate = 1, conditions = ['state == "failed"'] }""")
    assert narrowed(only, rows(only, mixed())) == []


def narrowed(
    spec: TelemetrySpec, found: tuple[Row, ...], wishes: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What a destination of level minimal gets, or one whose receiver has ``wishes``."""
    level: Level = "minimal" if wishes is None else "standard"
    wanted = read_wishes(wishes or {}).of("ran")
    bodies = [project(Shapes([spec]), row.spec, row.event, row.shared, level=level, wanted=wanted)
              for row in found if row.shared is not None]  # fmt: skip
    return [json.loads(each) for each in bodies if each is not None]


def test_a_receiver_that_samples_again_tells_the_right_rate() -> None:
    spec = spec_of("""{ rate = 0.4, always = ['state == "failed"'] }""")
    for wanted in (0.1, 0.4, 0.8):
        got = narrowed(spec, rows(spec, mixed()), {"sampling": wanted})
        failed, others = ([each for each in got if (each["state"] == "failed") is which] for which in (True, False))
        assert {each["sampling_rate"] for each in failed} == {wanted}
        assert {each["sampling_rate"] for each in others} == {min(wanted, 0.4)}
        assert abs(len(failed) / wanted - COUNT / 3) < COUNT * 0.08
        assert abs(len(others) / min(wanted, 0.4) - COUNT * 2 / 3) < COUNT * 0.12


# -- by a subject ------------------------------------------------------------------------------------------------------


def steps(name: str = "run", runs: int = 400, each: int = 5) -> list[Mapping[str, Any]]:
    return [{name: f"r{number}", "ms": step} for number in range(runs) for step in range(each)]


def kept_by_run(found: tuple[Row, ...], name: str = "run") -> dict[str, set[bool]]:
    kept: dict[str, set[bool]] = {}
    for row in found:
        kept.setdefault(json.loads(row.private)[name], set()).add(row.shared is not None)
    return kept


@pytest.mark.parametrize("name", ["run", "context.team"])
def test_of_one_subject_all_events_are_shared_or_none(name: str) -> None:
    spec = spec_of(f'{{ rate = 0.3, by = "{name}" }}')
    kept = kept_by_run(rows(spec, steps(name)), name)
    assert {len(each) for each in kept.values()} == {1}
    assert abs(sum(each == {True} for each in kept.values()) / len(kept) - 0.3) < 0.08
    assert kept == kept_by_run(rows(spec, steps(name)), name), "and always the same"
    assert {each["sampling_rate"] for each in shared(rows(spec, steps(name)))} == {0.3}


def test_of_events_with_the_same_subject_a_lower_share_is_a_part_of_a_higher_one() -> None:
    few, many = (kept_by_run(rows(spec_of(f'{{ rate = {rate}, by = "run" }}'), steps())) for rate in (0.2, 0.6))
    assert {run for run, kept in few.items() if kept == {True}} < {run for run, kept in many.items() if kept == {True}}


def test_nobody_without_the_key_can_tell_who_is_among_those_drawn() -> None:
    spec = spec_of('{ rate = 0.5, by = "run" }')
    one, other = (kept_by_run(rows(spec, steps(), key=key)) for key in (KEY, b"another"))
    same = sum(one[run] == other[run] for run in one) / len(one)
    assert abs(same - 0.5) < 0.1, "another machine's draw is no help"
    guessed = sum((True in one[run]) is sampled(run, 0.5) for run in one) / len(one)
    assert abs(guessed - 0.5) < 0.1, "nor is the value itself"


@pytest.mark.parametrize(
    ("by", "own", "key"),
    [
        ("run", {}, KEY),
        ("user", {"user": "[redacted]"}, KEY),
        ("unknown", {"run": "r1"}, KEY),
        ("run", {"run": "r1"}, b""),
    ],
)
def test_without_a_subject_each_event_is_drawn_by_itself(by: str, own: dict[str, Any], key: bytes) -> None:
    """Where it has none, where its value is never recorded, and where there is no key to draw with."""
    found = rows(spec_of(f'{{ rate = 0.3, by = "{by}" }}'), [{**own, "ms": 1} for _ in range(COUNT)], key=key)
    assert abs(len(shared(found)) / COUNT - 0.3) < 0.04


def test_what_is_always_shared_is_of_no_subject() -> None:
    spec = spec_of("""{ rate = 0.3, by = "run", always = ["ms == 4"] }""")
    kept = kept_by_run(rows(spec, [each for each in steps() if each["ms"] == 4]))
    assert set(map(frozenset, kept.values())) == {frozenset({True})}
    some = kept_by_run(rows(spec, [each for each in steps() if each["ms"] != 4]))
    assert {len(each) for each in some.values()} == {1}


# -- what expires ------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_not_shared() -> None:
    spec = spec_of("{ rate = 1 }", 'old = { type = "count", expires = 2026-06-02 }')
    shapes = Shapes([spec])
    gate = Gate(shapes, lambda generation, name: "standard")
    frame = b'["event","acme.app@1","ran",1,1000,%b]' % body(1, {"ms": 1, "old": 2})
    told = []
    for today in (date(2026, 6, 1), date(2026, 6, 2), date(2026, 6, 2)):
        shapes.expire(today)
        (row,) = gate.gate([frame], "g", "journal").rows
        told.append("old" in json.loads(row.shared or b"{}"))
    assert told == [True, False, False]
    for level in ("standard", "debug"):  # what was gated before that day
        stored = msgspec.json.encode({**json.loads(body(1, {"ms": 1, "old": 2})), "level": level})
        left = project(shapes, "acme.app@1", "ran", stored, level="standard", version=1)
        assert left is not None
        assert "old" not in json.loads(left)


def test_an_event_that_has_expired_is_not_shared() -> None:
    spec = parse_toml("""
[meta]
name = "acme.app"
[[events]]
name = "ran"
expires = 2026-06-02
semantics = { what = "A run" }
properties.ms = { type = "count", level = "minimal" }
""", "x")  # fmt: skip
    shapes = Shapes([spec])
    gate = Gate(shapes, lambda generation, name: "standard")
    frame = b'["event","acme.app@1","ran",1,1000,%b]' % body(1, {"ms": 1})
    shapes.expire(date(2026, 6, 1))
    assert gate.gate([frame], "g", "j").withheld == {}
    shapes.expire(date(2026, 6, 2))
    assert gate.gate([frame], "g", "j").withheld == {"undeclared": 1}


# -- versions side by side ---------------------------------------------------------------------------------------------


def test_each_version_is_shared_as_it_is_declared() -> None:
    spec = parse_toml("""
[meta]
name = "acme.app"
[[events]]
name = "ran"
version = 1
semantics = { what = "A run" }
sampling = { rate = 0 }
properties.ms = { type = "count", level = "minimal" }
[[events]]
name = "ran"
version = 2
semantics = { what = "A run" }
properties.seconds = { type = "number", min = 0, max = 9, level = "minimal" }
""", "x")  # fmt: skip
    every = spec.events[0]
    open_ = Shapes([spec, parse_toml("[meta]\nname = 'other'", "x")])
    gate = Gate(open_, lambda generation, name: "standard")
    frames = [b'["event","acme.app@1","ran",%d,1000,%b]' % (version, body(version, {"ms": 1, "seconds": 0.5}))
              for version in (1, 2, 3)]  # fmt: skip
    gated = gate.gate(frames, "g", "j")
    assert [row.version for row in gated.rows] == [1, 2, 3]
    assert [None if row.shared is None else json.loads(row.shared).get("seconds") for row in gated.rows] == [
        None,
        0.5,
        None,
    ]
    assert gated.withheld == {"sampling": 1, "undeclared": 1}
    assert open_.event("acme.app@1", "ran", 1) == (spec, every)
    assert [open_.label("acme.app@1", "ran", version) for version in (1, 2, 3)] == ["ran@1", "ran", "ran@3"]
    assert open_.label("acme.app@1", "unknown", 1) == "unknown"
