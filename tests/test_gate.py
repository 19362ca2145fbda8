"""What may be shared: nothing that is not declared, consented and valid; and triggers are added up exactly."""

from __future__ import annotations

import json
import uuid
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.capture import Capture, Hasher
from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.gate import Gate, sampled
from cmdorc_telemetry.lifecycle import Trigger
from cmdorc_telemetry.spec import CORE, LEVELS, Level, Shapes, TelemetrySpec, load_spec, wire_shape
from cmdorc_telemetry.types import Captured, Event, Gated

SPEC = load_spec(CORE)
REF = SPEC.ref
SHAPES = Shapes([SPEC])
INSTALL = str(uuid.UUID(int=7))
OTHER_ID = str(uuid.UUID(int=99))
BASE = {"cmdorc_version": "0.12.0", "python_version": "3.11", "os": "linux", "arch": "x86_64",
        "anonymous_install_id": INSTALL}  # fmt: skip
COMPLETED = {"duration_ms": 1200, "state": "success", "final": True, "manual": True, "chain_depth": 2,
             "command_arg_count": 3, "command_name": "Tests"}  # fmt: skip

Anonymize = Callable[[Event], Mapping[str, Any]]


def body(event: str = "command_completed", properties: Mapping[str, Any] = COMPLETED, **base: Any) -> dict[str, Any]:
    every = {
        "event": event,
        **BASE,
        "spec": REF,
        "timestamp": "2026-11-22T03:00:00Z",
        "event_id": str(uuid.UUID(int=1)),
    }
    return {**every, **properties, **base}


def record(
    fields: Any, *, event: str = "command_completed", spec: str = REF, at: Any = 1000, version: Any = 1
) -> bytes:
    return json.dumps(["event", spec, event, version, at, fields]).encode()


def trigger(
    name: str = "saved", *, at: int = 1000, session: str = "s", number: int = 1, **changes: Any
) -> bytes:  # fmt: skip
    own = {"session_id": session, "name": name, "outcome": "ran", "chain_depth": 0, "runs_started": 1, **changes}
    fields = {**body("trigger_fired", {}, event_id=str(uuid.UUID(int=number))), "trigger": own}
    return json.dumps(["trigger", REF, "trigger_fired", 1, at, fields]).encode()


def gate(
    *records: bytes, level: Level | None = "debug", shapes: Shapes = SHAPES, anonymizers: Sequence[Anonymize] = (),
    **how: Any,
) -> Gated:  # fmt: skip
    """The anonymizers are called a, b, c."""
    named = dict(zip("abc", anonymizers, strict=False))
    return Gate(shapes, lambda generation, spec: level, anonymizers=named, **how).gate(records, "g", "journal")


def shared(gated: Gated) -> dict[str, Any] | None:
    (row,) = gated.rows
    return None if row.shared is None else json.loads(row.shared)


def spec_of(sampling: float = 1.0) -> TelemetrySpec:
    """A spec whose only event is sampled."""
    table = {
        "meta": {"name": "app", "version": 2},
        "config": {"default_sampling_rate": sampling},
        "events": [{"name": "clicked", "semantics": {"what": "A click"},
                    "properties": {"count": {"type": "count", "required": True, "level": "minimal"}}}],
    }  # fmt: skip
    return decode(table, TelemetrySpec, "app.toml")


def clicked(number: int, *, count: Any = 1) -> bytes:
    fields = body("clicked", {"count": count}, spec="app@2", event_id=str(uuid.UUID(int=number)))
    return record(fields, event="clicked", spec="app@2")


# What is shared, and what is kept


@pytest.mark.parametrize(
    ("level", "own"),
    [
        ("minimal", {"duration_ms", "state", "final", "manual"}),
        ("standard", {"duration_ms", "state", "final", "manual", "chain_depth"}),
        ("debug", {"duration_ms", "state", "final", "manual", "chain_depth", "command_arg_count"}),
    ],
)
def test_a_level_shares_what_it_covers_and_nothing_that_is_private(level: Level, own: set[str]) -> None:
    fields = body()
    expected = {name: value for name, value in fields.items() if name in own or name not in COMPLETED}
    gated = gate(record(fields), level=level)
    assert shared(gated) == {**expected, "level": level}
    assert gated.withheld == {}
    assert gated.unreadable == 0


def test_what_nobody_declared_is_not_shared() -> None:
    found = shared(gate(record(body(secret="s3cret", password={"a": 1}))))
    assert found is not None
    assert not {"secret", "password"} & found.keys()


def test_a_row_has_the_rank_that_the_spec_gives_its_event() -> None:
    rows = gate(record(body()), trigger(), record({}, event="unknown"), record(body(), spec="gone@1")).rows
    assert {each.event: each.rank for each in rows} == {"command_completed": 0, "trigger_fired": 3}
    ranks = {event.name: event.rank for event in SPEC.events}
    aggregated = [event.name for event in SPEC.events if "aggregated" in event.tags]
    assert max(ranks, key=lambda name: ranks[name]) in aggregated


def test_the_private_body_is_kept_byte_for_byte() -> None:
    raw = b'{ "timestamp":"t" ,  "event_id":"x", "secret" : 1.50e0, "\\u00e9":"\xc3\xa9" }'
    (row,) = gate(b'["event","cmdorc.core@1","command_completed",3,77,' + raw + b"]").rows
    assert row.private == raw
    assert (row.spec, row.event, row.version, row.at) == (REF, "command_completed", 3, 77)
    assert (row.generation, row.source) == ("g", "journal")


def test_the_body_says_the_level_it_was_shared_at_whatever_it_said_before() -> None:
    found = shared(gate(record(body(level="debug")), level="minimal"))
    assert found is not None
    assert found["level"] == "minimal"


# Why something is withheld


def test_an_unknown_generation_is_never_shared() -> None:
    asked = []

    def level_of(generation: str, spec: str) -> Level | None:
        asked.append((generation, spec))
        return "debug" if generation == "known" else None

    judge = Gate(SHAPES, level_of)
    assert shared(judge.gate([record(body())], "known", "journal")) is not None
    unknown = judge.gate([record(body()), record(body())], "unknown", "journal")
    assert [row.shared for row in unknown.rows] == [None, None]
    assert unknown.withheld == {"consent": 2}
    assert asked[0] == ("known", "cmdorc.core")


@pytest.mark.parametrize(
    ("event", "spec"), [("command_completed", "foreign@1"), ("command_completed", "cmdorc.core@2"), ("invented", REF)]
)
def test_what_no_spec_declares_is_not_shared(event: str, spec: str) -> None:
    gated = gate(record(body(event, spec=spec), event=event, spec=spec))
    assert shared(gated) is None
    assert gated.withheld == {"undeclared": 1}


def test_an_event_without_a_field_of_its_own_at_the_level_is_not_shared() -> None:
    gated = gate(trigger(), level="minimal")
    assert shared(gated) is None
    assert gated.withheld == {"level": 1}
    assert shared(gate(trigger(), level="standard")) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"duration_ms": "long"},
        {"duration_ms": -1},
        {"duration_ms": 2**53 + 1},
        {"state": "exploded"},
        {"os": "/home/me"},
        {"timestamp": "yesterday"},
        {"timestamp": "2026-11-22T03:00:00.123Z"},
        {"event_id": "x"},
        {"anonymous_install_id": "me@example.org"},
        {"duration_ms": None},
        {"sampling_rate": 7},
    ],
)
def test_an_invalid_value_holds_the_shared_body_back(change: dict[str, Any]) -> None:
    gated = gate(record(body(**change)))
    assert shared(gated) is None
    assert gated.withheld == {"invalid": 1}


@pytest.mark.parametrize("name", ["event", "spec", "anonymous_install_id", "duration_ms", "state", "final", "manual"])
def test_a_required_field_that_is_missing_holds_the_shared_body_back(name: str) -> None:
    fields = body()
    del fields[name]
    gated = gate(record(fields))
    assert shared(gated) is None
    assert gated.withheld == {"invalid": 1}


def test_an_optional_field_may_be_missing() -> None:
    fields = body()
    del fields["chain_depth"]
    assert shared(gate(record(fields))) is not None


def test_each_reason_is_counted() -> None:
    gated = gate(record(body()), record(body(state="no")), record(body(state="no")), record(body("a"), event="a"))
    assert gated.withheld == {"invalid": 2, "undeclared": 1}
    assert [row.shared is not None for row in gated.rows] == [True, False, False, False]


# Sampling


def test_sampling_is_a_function_of_the_event_id_alone() -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(2000)]
    first = [sampled(each, 0.3) for each in ids]
    assert first == [sampled(each, 0.3) for each in ids]
    assert 0.27 < sum(first) / len(ids) < 0.33
    assert not any(sampled(each, 0.0) for each in ids)
    assert all(sampled(each, 0.5) for each, kept in zip(ids, first, strict=True) if kept), "a lower rate keeps a subset"


def test_a_sampled_event_says_the_rate_and_the_rest_is_counted() -> None:
    shapes = Shapes([spec_of(0.25)])
    gated = gate(*map(clicked, range(2000)), shapes=shapes)
    kept = [json.loads(row.shared) for row in gated.rows if row.shared is not None]
    assert 430 < len(kept) < 570
    assert {each["sampling_rate"] for each in kept} == {0.25}
    assert gated.withheld == {"sampling": 2000 - len(kept)}
    assert gate(*map(clicked, range(2000)), shapes=shapes) == gated
    assert [json.loads(row.private) for row in gated.rows] == [json.loads(clicked(each))[5] for each in range(2000)]


def test_what_an_event_says_does_not_decide_whether_it_is_sampled() -> None:
    shapes = Shapes([spec_of(0.5)])
    one, other = (gate(*(clicked(number, count=count) for number in range(100)), shapes=shapes) for count in (1, 2))
    assert [row.shared is None for row in one.rows] == [row.shared is None for row in other.rows]


def test_an_event_that_is_not_sampled_says_no_rate() -> None:
    found = shared(gate(clicked(1), shapes=Shapes([spec_of()])))
    assert found is not None
    assert "sampling_rate" not in found


# Fields without consent


def hiding(*names: str) -> Callable[[str, str, str], frozenset[str]]:
    return lambda spec, event, generation: frozenset(names)


def test_a_field_without_consent_is_withheld() -> None:
    asked = []

    def hidden(spec: str, event: str, generation: str) -> frozenset[str]:
        asked.append((spec, event, generation))
        return frozenset({"chain_depth", "unknown"})

    found = shared(gate(record(body()), hidden=hidden))
    assert found is not None
    assert "chain_depth" not in found
    assert "final" in found
    assert asked == [(REF, "command_completed", "g")]


def test_a_base_field_without_consent_is_withheld_from_every_event() -> None:
    judge = Gate(SHAPES, lambda generation, spec: "debug", hidden=hiding("os"))
    gated = judge.gate([record(body()), record(body()), trigger()], "g", "journal")
    assert [b'"os"' in (row.shared or b'"os"') for row in gated.rows] == [False] * 3


def test_a_required_field_without_consent_is_missed_by_nobody() -> None:
    found = shared(gate(record(body()), hidden=hiding("duration_ms")))
    assert found is not None
    assert "duration_ms" not in found


@pytest.mark.parametrize(
    "name", ["event", "event_id", "spec", "level", "anonymous_install_id", "timestamp", "sampling_rate"]
)
def test_without_consent_to_what_every_event_needs_nothing_is_shared(name: str) -> None:
    gated = gate(record(body()), hidden=hiding(name))
    assert shared(gated) is None
    assert gated.withheld == {"consent": 1}


# Anonymizers


def answering(**answer: Any) -> Anonymize:
    return lambda event: answer


def test_an_anonymizer_replaces_and_removes() -> None:
    found = shared(gate(record(body()), anonymizers=[answering(duration_ms=1000, os=None, arch="other")]))
    plain = shared(gate(record(body())))
    assert found is not None
    assert plain is not None
    del plain["os"]
    assert found == {**plain, "duration_ms": 1000, "arch": "other"}


def test_an_anonymizer_that_says_nothing_changes_nothing() -> None:
    assert shared(gate(record(body()), anonymizers=[answering()])) == shared(gate(record(body())))


def test_an_anonymizer_sees_what_would_be_shared_and_cannot_write_it() -> None:
    seen: list[Event] = []

    def look(event: Event) -> dict[str, Any]:
        seen.append(event)
        with pytest.raises(TypeError):
            event.fields["os"] = "x"  # type: ignore[index]
        return {}

    found = shared(gate(record(body()), anonymizers=[look]))
    (event,) = seen
    assert (event.spec, event.name) == (REF, "command_completed")
    assert event.fields == found
    assert "command_name" not in event.fields


def test_anonymizers_run_one_after_the_other() -> None:
    def double(event: Event) -> dict[str, Any]:
        return {"duration_ms": event.fields["duration_ms"] * 2}

    def plus_one(event: Event) -> dict[str, Any]:
        return {"duration_ms": event.fields["duration_ms"] + 1}

    one = shared(gate(record(body()), anonymizers=[double, plus_one]))
    other = shared(gate(record(body()), anonymizers=[plus_one, double]))
    assert one is not None
    assert other is not None
    assert (one["duration_ms"], other["duration_ms"]) == (2401, 2402)


def test_what_one_anonymizer_removed_no_other_brings_back() -> None:
    told: list[tuple[str, str]] = []
    anonymizers = [answering(os=None), answering(os="linux")]
    gated = gate(record(body()), anonymizers=anonymizers, complain=lambda *what: told.append(what))
    found = shared(gated)
    assert found is not None
    assert "os" not in found
    assert gated.rows[0].withheld == {"os": "a"}
    assert told == [("b", "returned 'os', which is not its to set: that is ignored")]


def test_the_id_may_be_generalised_with_the_time_in_it() -> None:
    change = {"timestamp": "2026-11-22T00:00:00Z", "event_id": OTHER_ID}
    found = shared(gate(record(body()), anonymizers=[answering(**change)]))
    assert found is not None
    assert (found["timestamp"], found["event_id"]) == tuple(change.values())


def test_what_is_sampled_is_decided_before_an_id_is_replaced() -> None:
    shapes = Shapes([spec_of(0.25)])
    plain = gate(*map(clicked, range(100)), shapes=shapes)
    changed = gate(*map(clicked, range(100)), shapes=shapes, anonymizers=[answering(event_id=OTHER_ID)])
    assert [row.shared is None for row in plain.rows] == [row.shared is None for row in changed.rows]


def raising(event: Event) -> Mapping[str, Any]:
    raise RuntimeError("broken")


class Treacherous(UserDict[str, Any]):
    """A mapping that breaks when it is read."""

    def __iter__(self) -> Any:
        raise RuntimeError("broken")


def lost(answer: Any) -> tuple[dict[str, Any] | None, Mapping[str, str], list[tuple[str, str]]]:
    """What becomes of an event with one anonymizer: what is shared, what it took, what it is told of."""
    told: list[tuple[str, str]] = []
    anonymize = answer if callable(answer) else answering(**answer)
    gated = gate(record(body()), anonymizers=[anonymize], complain=lambda *what: told.append(what))
    found = shared(gated)
    assert gated.withheld == ({} if found else {"anonymizer:a": 1})
    assert json.loads(gated.rows[0].private) == body()
    return found, gated.rows[0].withheld, told


@pytest.mark.parametrize(
    "anonymize",
    [
        raising,
        lambda event: None,
        lambda event: 5,
        lambda event: Treacherous(a=1),
        answering(event_id="not an id"),
        answering(event_id=None),
        answering(timestamp=None),
        answering(timestamp="yesterday"),
        answering(anonymous_install_id=None),
        answering(anonymous_install_id="me"),
        lambda event: dict.fromkeys(event.fields),
        lambda event: dict.fromkeys(event.fields.keys() & COMPLETED.keys()),
    ],
    ids=range(12),
)
def test_an_anonymizer_that_fails_or_leaves_nothing_of_use_holds_the_shared_body_back(anonymize: Any) -> None:
    found, withheld, _ = lost(anonymize)
    assert found is None
    assert withheld == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duration_ms", "short"), ("duration_ms", -1), ("duration_ms", float("nan")), ("state", object()),
        ("state", "exploded"), ("arch", "\ud800"), ("cmdorc_version", "\ud800"), ("final", [{}]), ("os", "/home/me"),
        ("manual", 1),
    ],
)  # fmt: skip
def test_a_value_that_the_spec_does_not_allow_withholds_its_field(name: str, value: object) -> None:
    found, withheld, told = lost({name: value})
    plain = shared(gate(record(body())))
    assert plain is not None
    del plain[name]
    assert found == plain
    assert withheld == {name: "a"}
    assert told == [("a", f"gave {name!r} a value that its spec does not allow: the field is withheld")]


def test_a_removed_field_is_withheld_by_its_anonymizer() -> None:
    gated = gate(record(body()), anonymizers=[answering(), answering(os=None), answering(final=None, os=None)])
    assert gated.rows[0].withheld == {"os": "b", "final": "c"}
    found, withheld, told = lost({"os": None, "never_there": None})
    assert found is not None
    assert withheld == {"os": "a"}
    assert told == []


@pytest.mark.parametrize(
    "answer",
    [{"command_name": "Tests"}, {"new": 1}, {"sampling_rate": 0.5}, {"event": "other"}, {"spec": "other@1"},
     {"level": "minimal"}, {"level": None}],
)  # fmt: skip
def test_what_is_not_an_anonymizers_to_set_is_ignored_and_told(answer: dict[str, Any]) -> None:
    (name,) = answer
    found, withheld, told = lost(answer)
    assert found == shared(gate(record(body())))
    assert withheld == {}
    assert told == [("a", f"returned {name!r}, which is not its to set: that is ignored")]


def test_a_key_that_is_no_name_is_ignored_too() -> None:
    assert lost(lambda event: {5: 1})[0] == shared(gate(record(body())))


def test_text_that_no_json_can_hold_is_not_allowed_either() -> None:
    table = {
        "meta": {"name": "app", "version": 2},
        "events": [{"name": "clicked", "semantics": {"what": "A click"},
                    "properties": {"count": {"type": "string", "pattern": "(?s:.*)", "max_length": 9},
                                   "open": {"type": "bool"}}}],
    }  # fmt: skip
    shapes = Shapes([decode(table, TelemetrySpec, "app.toml")])
    fields = body("clicked", {"count": "x", "open": True}, spec="app@2")
    click = record(fields, event="clicked", spec="app@2")
    assert b'"count":"y"' in (gate(click, shapes=shapes, anonymizers=[answering(count="y")]).rows[0].shared or b"")
    gated = gate(click, shapes=shapes, anonymizers=[answering(count="\ud800")])
    assert gated.rows[0].withheld == {"count": "a"}


def test_an_anonymizer_that_fails_for_one_event_lets_the_others_through() -> None:
    def picky(event: Event) -> dict[str, Any]:
        return {"duration_ms": 1 // event.fields["duration_ms"]}

    gated = gate(record(body(duration_ms=0)), record(body(duration_ms=1)), anonymizers=[picky])
    assert [row.shared is not None for row in gated.rows] == [False, True]
    assert gated.withheld == {"anonymizer:a": 1}


def test_a_missing_anonymizer_blocks_everything() -> None:
    called = []
    gated = gate(record(body()), trigger(), anonymizers=[called.append], blocked="anonymizer 'x' is missing")
    assert [row.shared for row in gated.rows] == [None, None]
    assert gated.withheld == {"plugin-not-loaded": 2}
    assert called == []


# Records that are no events


SHORT = '"event_id":"x","timestamp":"t"'
TRIGGER = '{"session_id":"s","name":"n","outcome":"ran","chain_depth":1,"runs_started":1}'


def foreign(kind: str, fields: str, *, at: str = "1", version: str = "1") -> bytes:
    return f'["{kind}","cmdorc.core@1","trigger_fired",{version},{at},{fields}]'.encode()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'["event","cmdorc.core@1","x",1,1,{"event_id":"x","timestamp":"t","a":"\xff"}]',
        foreign("gauge", f"{{{SHORT}}}"),
        foreign("event", "5"),
        foreign("event", "[]"),
        foreign("event", "{}"),
        foreign("event", '{"event_id":5,"timestamp":"t"}'),
        foreign("event", '{"event_id":"x","timestamp":null}'),
        foreign("event", f"{{{SHORT},}}"),
        foreign("event", f'{{{SHORT},"deep":{"[" * 50_000}{"]" * 50_000}}}'),
        foreign("event", f"{{{SHORT}}}", at="-1"),
        foreign("event", f"{{{SHORT}}}", at="1.5"),
        foreign("event", f"{{{SHORT}}}", at="1e400"),
        foreign("event", f"{{{SHORT}}}", at=str(2**53)),
        foreign("event", f"{{{SHORT}}}", at=str(10**40)),
        foreign("event", f"{{{SHORT}}}", version="-1"),
        foreign("event", f"{{{SHORT}}}", version=str(2**53)),
        foreign("trigger", f"{{{SHORT}}}"),
        foreign("trigger", f'{{{SHORT},"trigger":5}}'),
        foreign("trigger", f'{{"trigger":{TRIGGER}}}'),
        foreign("trigger", f'{{{SHORT},"trigger":{TRIGGER.replace("1", "1.5")}}}'),
        foreign("trigger", f'{{{SHORT},"trigger":{TRIGGER.replace("}", ",")}"hash":[]}}}}'),
        foreign("trigger", f'{{{SHORT},"trigger":{TRIGGER.replace("}", ",")}"hash":5}}}}'),
        foreign("trigger", f'{{{SHORT},"trigger":{TRIGGER},"trigger":5}}'),
    ],
    ids=range(30),
)
def test_what_is_no_event_is_counted_and_the_others_go_on(bad: bytes) -> None:
    gated = gate(record(body()), bad, trigger())
    assert gated.unreadable == 1
    assert [row.event for row in gated.rows] == ["command_completed", "trigger_fired"]
    assert all(row.shared is not None for row in gated.rows)


def test_the_last_moment_and_version_are_readable() -> None:
    gated = gate(record(body(), at=2**53 - 1, version=2**53 - 1), record(body(), at=0, version=0))
    assert gated.unreadable == 0
    assert [row.at for row in gated.rows] == [2**53 - 1, 0]


def test_a_sum_too_large_for_the_spec_is_kept_and_not_shared() -> None:
    gated = gate(trigger(runs_started=10**30), trigger(runs_started=10**30))
    assert json.loads(gated.rows[0].private)["runs_started"] == 2 * 10**30
    assert gated.withheld == {"invalid": 1}


# Triggers


def folded(*records: bytes) -> list[dict[str, Any]]:
    return [json.loads(row.private) for row in gate(*records).rows]


def test_triggers_of_a_minute_become_one_event() -> None:
    gated = gate(
        trigger("saved", at=960, number=1, runs_started=2, chain_depth=1, hash="0123456789ab"),
        trigger("saved", at=970, number=2, outcome="cycle", runs_started=0, chain_depth=7, hash="0123456789ab"),
        trigger("built", at=1019, number=3, outcome="nothing", runs_started=0, hash="ba9876543210"),
    )
    own = {"trigger_count": 3, "distinct_triggers": 2, "runs_started": 2, "cycles": 1, "max_chain_depth": 7,
           "window_s": 60, "hashed_trigger_patterns": ["0123456789ab", "ba9876543210"]}  # fmt: skip
    assert shared(gated) == {**body("trigger_fired", own), "level": "debug"}
    (row,) = gated.rows
    assert row.at == 960
    assert json.loads(row.private) == {**body("trigger_fired", own), "trigger_names": ["saved", "built"]}


def test_another_session_or_minute_is_another_event() -> None:
    events = folded(
        trigger(at=959, number=1),
        trigger(at=960, number=2),
        trigger(at=1019, number=3),
        trigger(at=1020, number=4),
        trigger(at=1019, number=5, session="t"),
        trigger(at=1019, number=6),
    )
    assert [(each["event_id"][-1], each["trigger_count"]) for each in events] == [
        ("1", 1), ("2", 3), ("4", 1), ("5", 1),
    ]  # fmt: skip


def test_events_stay_in_their_order_before_the_folded_triggers() -> None:
    gated = gate(trigger(), record(body(duration_ms=1)), trigger(), record(body(duration_ms=2)))
    assert [json.loads(row.private).get("duration_ms") for row in gated.rows] == [1, 2, None]


def test_lists_are_cut_and_counts_are_not() -> None:
    capture = Capture([SPEC], BASE)
    hasher = Hasher(b"salt")
    names = [f"{number}".ljust(300, "x") for number in range(60)]
    records = [
        capture.trigger_record(
            Trigger(name=name, outcome="ran", chain_depth=1, runs_started=1, session_id="s"), hasher
        )
        for name in names
    ]  # fmt: skip
    found = gate(*records).rows
    bodies = [json.loads(row.private) for row in found]  # two where a minute ends meanwhile
    assert sum(each["trigger_count"] for each in bodies) == 60
    assert sum(each["distinct_triggers"] for each in bodies) == 60
    assert all(len(each["trigger_names"]) <= 50 for each in bodies)
    assert all(len(each["hashed_trigger_patterns"]) <= 50 for each in bodies)
    assert all(len(name) == 200 for each in bodies for name in each["trigger_names"])
    assert all(row.shared is not None for row in found)


triggers = st.builds(
    trigger,
    st.sampled_from(["a", "b", "c"]),
    at=st.integers(0, 300),
    session=st.sampled_from(["s", "t"]),
    number=st.integers(1, 9),
    outcome=st.sampled_from(["ran", "cycle", "nothing"]),
    chain_depth=st.integers(0, 5),
    runs_started=st.integers(0, 5),
)
few = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@few
@given(st.lists(st.lists(triggers, max_size=12), max_size=4))
def test_sums_stay_exact_however_the_triggers_are_imported(imports: list[list[bytes]]) -> None:
    judge = Gate(SHAPES, lambda generation, spec: "standard")
    rows = [row for records in imports for row in judge.gate(records, "g", "journal").rows]
    found = [json.loads(row.shared or b"{}") for row in rows]
    fired = [json.loads(each)[5]["trigger"] for records in imports for each in records]
    assert sum(each["trigger_count"] for each in found) == len(fired)
    assert sum(each["runs_started"] for each in found) == sum(each["runs_started"] for each in fired)
    assert sum(each["cycles"] for each in found) == sum(each["outcome"] == "cycle" for each in fired)
    assert max((each["max_chain_depth"] for each in found), default=0) == max(
        (each["chain_depth"] for each in fired), default=0
    )


# Whatever comes


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
events = st.sampled_from(SPEC.events)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A body that is mostly right, with anything here and there."""
    event = draw(events)
    right = {"duration_ms": 5, "state": "failed", "final": False, "manual": True, "executor_type": "mock",
             "command_count": 1, "has_triggers": True, "trigger_count": 2, "uptime_s": "<1", "run_count": 1,
             "failed_count": 0, "cancelled_count": 0, "metric": "count", "kind": "above"}  # fmt: skip
    fields = body(event.name, {name: value for name, value in right.items() if name in event.properties})
    names = st.sampled_from([*fields, *event.properties]) | st.text(max_size=5)
    changes = draw(st.dictionaries(names, values, max_size=2))
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=1)):
        del fields[name]
    return event.name, {**fields, **changes}


@settings(few, max_examples=400)
@given(
    bodies(),
    st.sampled_from(LEVELS),
    st.none() | st.dictionaries(st.sampled_from(["duration_ms", "os", "event_id", "final", "x"]), values, max_size=2),
    st.sets(st.sampled_from(["os", "event_id", "final", "trigger_count"])),
)
def test_what_is_shared_is_what_a_server_accepts(
    sample: tuple[str, dict[str, Any]], level: Level, answer: dict[str, Any] | None, names: set[str]
) -> None:
    event, fields = sample
    anonymizers = [] if answer is None else [lambda each: answer]
    gated = gate(record(fields, event=event), level=level, anonymizers=anonymizers, hidden=hiding(*names))
    assert gated.unreadable + len(gated.rows) == 1
    for row in gated.rows:
        assert (row.shared is None) == (sum(gated.withheld.values()) == 1)
        if row.shared is not None:
            declared = SPEC.event(event)
            assert declared is not None
            msgspec.json.decode(row.shared, type=wire_shape(declared, level))
            found = json.loads(row.shared)
            assert found["level"] == level
            assert not found.keys() & names


def test_most_of_those_bodies_are_shared() -> None:
    """So that the test above does test something."""
    kept = []

    @settings(few, max_examples=100)
    @given(bodies())
    def count(sample: tuple[str, dict[str, Any]]) -> None:
        kept.extend(row.shared is not None for row in gate(record(sample[1], event=sample[0])).rows)

    count()
    assert sum(kept) > 20
    assert kept.count(False) > 20


@few
@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_the_gate_never_raises(data: bytes) -> None:
    assert gate(data).unreadable == 1


def test_a_field_with_a_dot_in_its_name_is_withheld_like_any_other() -> None:
    prop = {"type": "bool", "level": "minimal"}
    event = {"name": "billing.paid", "semantics": {"what": "x"}, "properties": {"a.b": prop, "open": prop}}
    spec = msgspec.convert({"meta": {"name": "shop"}, "events": [event]}, TelemetrySpec)
    base = {
        **BASE,
        "event": "billing.paid",
        "spec": "shop@1",
        "event_id": OTHER_ID,
        "timestamp": "2026-11-22T03:00:00Z",
    }
    captured = Captured(
        "event", "shop@1", "billing.paid", 1, 1, msgspec.Raw(json.dumps({**base, "a.b": True, "open": True}).encode())
    )
    judge = Gate(Shapes([spec]), lambda generation, name: "debug", hidden=hiding("a.b"))
    (row,) = judge.gate([msgspec.json.encode(captured)], "g", "s").rows
    assert row.shared is not None
    assert "open" in json.loads(row.shared)
    assert "a.b" not in json.loads(row.shared)
