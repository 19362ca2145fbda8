"""What a comparison calls compatible takes every stored event, and what it says asks for consent is asked for."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timezone
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.config import TelemetryLevel
from cmdorc_telemetry.declarations import new_grant, unanswered
from cmdorc_telemetry.spec import LEVELS, MASK, Event, Level, TelemetrySpec, parse_toml, wire_shape
from cmdorc_telemetry.spec.changes import changes, step
from cmdorc_telemetry.spec.jsonschema import json_schema
from cmdorc_telemetry.spec.versions import order, raised, reaches

from .strategies import INSTALL, Table, events, fitting, names, properties, spec_of, tables, texts, versions

many = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                       HealthCheck.filter_too_much])  # fmt: skip
BODY = {"anonymous_install_id": INSTALL, "timestamp": "2026-11-22T03:00:00Z"}
NOW = datetime(2026, 7, 1, tzinfo=timezone.utc)


# -- a change by hand --------------------------------------------------------------------------------------------------

SHOP = """
[meta]
name = "acme.shop"

[groups.money]
amount = { type = "count", max = 10 }
note = { type = "string", pattern = "[a-z]*", max_length = 9 }

[groups.idle]
x = { type = "bool" }

[context]
channel = { type = "enum", members = ["web", "ci"] }

[[events]]
name = "paid"
semantics = { what = "Somebody paid", why = "Income" }
groups = ["money"]
sampling = { rate = 0.5, conditions = ["amount > 1"], by = "plan" }
anomaly_detection = { thresholds = [{ metric = "amount", max = 9 }] }
properties.plan = { type = "enum", members = ["free", "team"], description = "Which" }
properties.own = { type = "count", audience = "private" }
properties.blob = { type = "json" }

[[events]]
name = "left"
semantics = { what = "Somebody left" }
groups = ["money"]
retention = { days = 30 }
properties = {}

[[operations]]
name = "pay"
success = { event = "paid" }

[config]
default_retention_days = 60
default_sampling_rate = 0.5
"""


def became(*pairs: tuple[str, str], text: str = SHOP) -> list[tuple[str, str, str, bool, str]]:
    """What a comparison says of ``text`` with some of it replaced."""
    after = text
    for old, new in pairs:
        assert old in after, old
        after = after.replace(old, new)
    found = changes(parse_toml(text, "old"), parse_toml(after, "new"))
    return [tuple(each) for each in found]  # type: ignore[misc]


PLAN, BROKEN = "events.paid.properties.plan", "stored values may not fit"


@pytest.mark.parametrize(("old", "new", "entry"), [
    ('"free", "team"', '"free", "team", "pro"', ("widened", PLAN, "members +pro", True, "")),
    ('"free", "team"', '"free"', ("narrowed", PLAN, "members −team", False, BROKEN)),
    ('type = "enum", members = ["free", "team"]', 'type = "bool"',
     ("widened", PLAN, "type enum → bool; members −free −team", True, BROKEN)),
    ('description = "Which"', 'description = "Which one"', ("reworded", PLAN, "description", False, "")),
    ('members = ["free", "team"]', "members = ['free', 'team'], level = 'minimal'",
     ("widened", PLAN, "level standard → minimal", True, "")),
    ('members = ["free", "team"]', "members = ['free', 'team'], level = 'debug'",
     ("narrowed", PLAN, "level standard → debug", False, "stored events have it where it may no longer be")),
    ('members = ["free", "team"]', "members = ['free', 'team'], audience = 'private'",
     ("narrowed", PLAN, "audience shared → private", False, "stored events have it where it may no longer be")),
    ('members = ["free", "team"]', "members = ['free', 'team'], pii = true",
     ("narrowed", PLAN, "pii false → true", False, "stored values are no masks")),
    ('members = ["free", "team"]', "members = ['free', 'team'], required = true",
     ("narrowed", PLAN, "required false → true", False, "stored events may lack it")),
    ('members = ["free", "team"]', "members = ['free', 'team'], max_items = 2",
     ("widened", PLAN, "max_items none → 2", True, BROKEN)),
    ('description = "Which"', "description = 'Which', expires = 2030-01-01",
     ("narrowed", f"{PLAN}.expires", "expires none → 2030-01-01", False, "")),
    ('type = "count", max = 10', 'type = "duration_ms", max = 10',
     ("widened", "groups.money.amount", "type count → duration_ms", True, "")),
    ('type = "count", max = 10', 'type = "number", min = 0, max = 10',
     ("widened", "groups.money.amount", "type count → number", True,
      "its column is of another type in sqlite, postgresql, clickhouse")),
    ('max_length = 9', 'max_length = 10', ("widened", "groups.money.note", "max_length 9 → 10", True, "")),
    ('"[a-z]*"', '"(?s:.*)"', ("widened", "groups.money.note", "pattern [a-z]* → (?s:.*)", True, "")),
    ('"[a-z]*"', '"[a-y]*"', ("widened", "groups.money.note", "pattern [a-z]* → [a-y]*", True, BROKEN)),
    ("max = 10 }\n", "max = 10 }\nnew = { type = 'bool' }\n", ("added", "groups.money.new", "bool", True, "")),
    ("[context]", "[context]\nx = { type = 'bool', required = true }",
     ("added", "context.x", "bool", True, "stored events lack it")),
    ('channel = { type = "enum", members = ["web", "ci"] }', "",
     ("removed", "context.channel", "enum", False, "stored events have it")),
    ("[groups.idle]\nx = { type = \"bool\" }", "", ("removed", "groups.idle", "", False, "")),
    ('x = { type = "bool" }', 'x = { type = "hash" }', ("re-meant", "groups.idle", "", False, "")),
    ('properties.own = { type = "count", audience = "private" }', "",
     ("removed", "events.paid.properties.own", "count", False, "stored events have it")),
    (', audience = "private"', "", ("widened", "events.paid.properties.own", "audience private → shared", True, "")),
    ('properties.blob = { type = "json" }', "", ("removed", "events.paid.properties.blob", "json", False, "")),
    ('blob = { type = "json"', 'blob = { type = "count"',
     ("widened", "events.paid.properties.blob", "type json → count", True, "")),
    ('blob = { type = "json"', 'blob = { type = "count", required = true',
     ("widened", "events.paid.properties.blob", "type json → count; required false → true", True,
      "stored events lack it")),
    ('why = "Income"', 'why = "Fun"', ("re-meant", "events.paid.semantics.why", "why Income → Fun", True, "")),
    ("Somebody paid", "Somebody payed",
     ("re-meant", "events.paid.semantics.what", "what Somebody paid → Somebody payed", False, "")),
    ("days = 30", "days = 20", ("narrowed", "events.left.retention", "days 30 → 20", False, "")),
    ("days = 30", "days = 40", ("widened", "events.left.retention", "days 30 → 40", True, "")),
    ("days = 30", "days = 30, policy = 'archive'",
     ("widened", "events.left.retention", "policy delete → archive", False, "")),
    ("default_retention_days = 60", "default_retention_days = 61",
     ("widened", "config.default_retention_days", "days 60 → 61", True, "")),
    ("default_sampling_rate = 0.5", "default_sampling_rate = 0.6",
     ("widened", "config.default_sampling_rate", "rate 0.5 → 0.6", False, "")),
    ("rate = 0.5, c", "rate = 0.4, c", ("narrowed", "events.paid.sampling", "rate 0.5 → 0.4", False, "")),
    ('"amount > 1"', "", ("widened", "events.paid.sampling.conditions", "conditions −amount > 1", False, "")),
    ('"amount > 1"', "'amount > 1', 'plan'",
     ("narrowed", "events.paid.sampling.conditions", "conditions +plan", False, "")),
    ('"amount > 1"', "'amount > 2'",
     ("re-meant", "events.paid.sampling.conditions", "conditions +amount > 2 −amount > 1", False, "")),
    ('by = "plan"', "always = ['plan'], by = \"plan\"",
     ("widened", "events.paid.sampling.always", "always +plan", False, "")),
    (', by = "plan"', "", ("removed", "events.paid.sampling.by", "by plan → none", False, "")),
    ("max = 9 }", "max = 8 }", ("re-meant", "events.paid.anomaly_detection", "", False, "")),
    ('name = "left"', 'name = "left"\nrank = 2', ("re-meant", "events.left.rank", "rank 0 → 2", False, "")),
    ('name = "left"', 'name = "left"\ntags = ["a"]', ("reworded", "events.left", "tags", False, "")),
    ('name = "left"', 'name = "left"\nversion = "1.1.0"',
     ("re-meant", "events.left.version", "version 1 → 1.1.0", False, "")),
    ('success = { event = "paid" }', 'success = { event = "left" }', ("re-meant", "operations.pay", "", False, "")),
    ('name = "acme.shop"', 'name = "acme.shop"\ntitle = "Shop"', ("reworded", "meta", "title", False, "")),
    ("default_sampling_rate = 0.5", "default_sampling_rate = 0.5\nanomaly_detection = false",
     ("re-meant", "config.anomaly_detection", "anomaly_detection true → false", False, "")),
    ("[config]", "[[waivers]]\nlint = 'a'\nat = 'b'\nreason = 'c'\n[config]",
     ("reworded", "waivers", "waivers", False, "")),
    ("[config]", "[[workflows]]\nname = 'w'\ntriggers = []\n[config]", ("added", "workflows.w", "", False, "")),
])  # fmt: skip
def test_a_change_is_said_with_what_hangs_on_it(old: str, new: str, entry: tuple[Any, ...]) -> None:
    assert became((old, new)) == [entry]


def test_no_change_is_none() -> None:
    assert became(('version = "1.0.0"', "version = 1"), text=SHOP.replace('"left"', '"left"\nversion = "1.0.0"')) == []
    moved = 'plan = { type = "enum", members = ["team", "free"], description = "Which" }\n'
    assert became(
        ('properties.plan = { type = "enum", members = ["free", "team"], description = "Which" }\n', ""),
        ("[groups.idle]\n", f"[groups.idle]\n{moved}"),
        ('groups = ["money"]\nsampling', 'groups = ["money", "idle"]\nsampling'),
    ) == [("reworded", "events.paid", "groups", False, ""), ("added", "events.paid.properties.x", "bool", True, "")]


def test_an_event_comes_and_goes() -> None:
    left = SHOP[SHOP.index('[[events]]\nname = "left"') : SHOP.index("[[operations]]")]
    assert became((left, "")) == [("removed", "events.left", "version 1", False, "stored events are of it")]
    alone = SHOP.replace(left, "")
    assert became(("[[operations]]", f"{left}[[operations]]"), text=alone) == [
        ("added", "events.left", "version 1", True, "")
    ]
    quiet = "[[events]]\nname = 'quiet'\nsemantics = {what = 'x'}\nproperties = {}\n"
    empty = "[meta]\nname = 'a'\n"
    assert became((empty, empty + quiet), text=empty) == [("added", "events.quiet", "version 1", False, "")]
    assert became((empty, empty + "[context]\nx = {type = 'bool'}\n"), text=empty) == [
        ("added", "context.x", "", False, "")
    ]


TWO = """
[meta]
name = "a"
[[events]]
name = "paid"
semantics = { what = "x" }
properties.a = { type = "count", max = 5 }
"""
SECOND = TWO.partition("[[events]]")[1] + TWO.partition("[[events]]")[2].replace('"paid"', '"paid"\nversion = 2')


def test_the_latest_version_of_an_event_has_the_say() -> None:
    assert became((TWO, TWO + SECOND), text=TWO) == [
        ("re-meant", "events[1].version", "version 1 → 2", False, ""),
        ("added", "events[1]", "version 2", False, ""),
    ]
    less = SECOND.replace("max = 5", "max = 4")
    assert became((TWO, TWO + less), text=TWO)[1] == ("narrowed", "events[1].properties.a", "max 5 → 4", False, BROKEN)
    both = TWO + SECOND
    # What an earlier version declares just as the latest does is asked for once.
    assert became(("max = 5", "max = 6"), text=both) == [
        ("widened", "events[1].properties.a", "max 5 → 6", True, ""),
        ("widened", "events[0].properties.a", "max 5 → 6", False, ""),
    ]
    # But where it declares something else than the latest, a yes is to that, too.
    assert became(("max = 5", "max = 6"), text=TWO + less) == [
        ("widened", "events[0].properties.a", "max 5 → 6", True, "")
    ]
    assert became((TWO, TWO[: TWO.index("[[events]]")]), text=both) == [
        ("removed", "events.paid", "version 1", False, "stored events are of it")
    ]


def test_who_takes_an_event_out_of_privacy_asks_anew() -> None:
    text = SHOP.replace('name = "paid"', 'name = "paid"\nprivacy = "sensitive"')
    found = became(('privacy = "sensitive"', 'privacy = "internal"'), text=text)
    assert found[0] == ("re-meant", "events.paid.privacy", "privacy sensitive → internal", False, "")
    assert ("widened", PLAN, "redact true → false", True, "stored values are masks") in found
    assert len([entry for entry in found if entry[3]]) == 4  # plan, channel, amount, note


ANY = 'type = "string", pattern = "(?s:.*)", max_length = 20'
COLUMN = "its column is of another type in "


@pytest.mark.parametrize(("old", "new", "breaks"), [
    ('type = "count"', 'type = "bool"', BROKEN), ('type = "bool"', 'type = "count"', BROKEN),
    ('type = "number", min = 0, max = 9', 'type = "count"', BROKEN),
    ('type = "count", max = 9', 'type = "number", min = 0, max = 9', f"{COLUMN}sqlite, postgresql, clickhouse"),
    ('type = "count", max = 9', 'type = "number", min = 1, max = 9', BROKEN),
    ('type = "number", min = 0, max = 9', 'type = "number", min = -1, max = 9.5', ""),
    ('type = "count", max_items = 3', 'type = "count", max_items = 4', ""),
    ('type = "count", max_items = 3', 'type = "count", max_items = 2', BROKEN),
    ('type = "enum", members = ["a"]', 'type = "enum", members = ["b", "a"]', ""),
    ('type = "enum", members = ["a"]', ANY, f"{COLUMN}clickhouse"),
    ('type = "enum", members = ["a"]', 'type = "string", pattern = "[a-z]*", max_length = 4', BROKEN),
    ('type = "enum", members = ["a b"]', 'type = "string", pattern = "[a-z]*", max_length = 9', BROKEN),
    ('type = "bucket", edges = [1, 2]', 'type = "bucket", edges = [2]', BROKEN),
    ('type = "bucket", edges = [1]', 'type = "enum", members = ["<1", ">=1"]', ""),
    ('type = "timestamp"', ANY, f"{COLUMN}postgresql, clickhouse"), ('type = "timestamp"', 'type = "uuid"', BROKEN),
    ('type = "hash"', ANY, ""), ('type = "uuid"', ANY, BROKEN),
    ('type = "hash"', 'type = "hash", level = "minimal"', ""),
    ('type = "bool"', 'type = "json"', "stored events have it"), ('type = "json"', 'type = "bool"', ""),
    ('type = "bool", audience = "private"', 'type = "bool", audience = "private", level = "debug"', ""),
    ('type = "count", max = 9, audience = "private"', 'type = "number", min = 0, max = 9, audience = "private"', ""),
    ('type = "count", max = 9, audience = "private"', 'type = "count", max = 8, audience = "private"', BROKEN),
    (f"{ANY}, redact = true", f"{ANY}, pii = true", ""), (f"{ANY}, redact = true", ANY, "stored values are masks"),
    (ANY, ANY.replace("20", "21"), ""), (ANY, ANY.replace("20", "19"), BROKEN),
    (ANY, ANY.replace("(?s:.*)", "[a-z]*"), BROKEN), (ANY.replace("(?s:.*)", "[a-z]*"), ANY, ""),
    ('type = "bool"', 'type = "bool", required = true', "stored events may lack it"),
    ('type = "bool", required = true', 'type = "bool"', ""),
])  # fmt: skip
def test_what_is_stored_fits_or_does_not(old: str, new: str, breaks: str) -> None:
    text = f"[meta]\nname = 'a'\n[[events]]\nname = 'paid'\nsemantics = {{ what = 'x' }}\nproperties.x = {{ {old} }}\n"
    assert [each for *_, each in became((old, new), text=text)] == [breaks]


def test_what_a_group_says_breaks_where_one_of_its_events_breaks() -> None:
    text = SHOP.replace('name = "paid"', 'name = "paid"\nprivacy = "sensitive"')
    assert became(("max = 10 }", "max = 8 }"), text=text) == [
        ("narrowed", "groups.money.amount", "max 10 → 8", False, BROKEN)
    ]


# -- any change --------------------------------------------------------------------------------------------------------


@st.composite
def pairs(draw: st.DrawFn) -> tuple[TelemetrySpec, TelemetrySpec]:
    """A spec, and what somebody made of it."""
    table = draw(tables())
    after = copy.deepcopy(table)
    for _ in range(draw(st.integers(0, 3))):
        _changed(draw, after)
    try:
        return spec_of(table), spec_of(after)
    except msgspec.ValidationError:
        assume(False)
        raise


def _changed(draw: st.DrawFn, table: Table) -> None:
    """One change to a table."""
    declared = table["events"]
    places = [event["properties"] for event in declared] + list(table.get("groups", {}).values())
    places += [table["context"]] if "context" in table else []
    what = draw(
        st.sampled_from(["bound", "bound", "key", "add", "remove", "event", "gone", "told", "config", "privacy"])
    )
    if what == "event":
        declared.append(draw(events(table.get("groups", {}))))
    elif what == "gone" and declared:
        declared.pop(draw(st.integers(0, len(declared) - 1)))
    elif what == "told" and declared:
        event = draw(st.sampled_from(declared))
        event.update(draw(st.sampled_from([{"retention": {"days": 9}}, {"rank": 3}, {"tags": ["t"]}, {"version": 3}])))
    elif what == "privacy" and declared:
        draw(st.sampled_from(declared))["privacy"] = draw(st.sampled_from(["sensitive", "internal"]))
    elif what == "config":
        table["config"] = {**table.get("config", {}), "default_retention_days": draw(st.integers(1, 999))}
    elif places:
        place = draw(st.sampled_from(places))
        if what == "add" or not place:
            place[draw(names)] = draw(properties)
            return
        name = draw(st.sampled_from(sorted(place)))
        if what == "remove":
            del place[name]
        elif what == "bound":
            _rebound(draw, place[name])
        else:
            place[name].update(draw(st.sampled_from([
                {"level": "debug"}, {"level": "minimal"}, {"audience": "private"}, {"audience": "shared"},
                {"pii": True}, {"pii": False}, {"required": True}, {"required": False}, {"max_items": 2},
                {"type": "count"},
                {"description": "x"},
            ])))  # fmt: skip


def _rebound(draw: st.DrawFn, prop: Table) -> None:
    """Other bounds of the same type, or a type that is near it."""
    match prop["type"]:
        case "count" | "duration_ms":
            prop["type"] = draw(st.sampled_from(["count", "duration_ms"]))
            prop["max"] = draw(st.integers(int(prop.get("min", 0)), 2**55))
        case "number":
            prop["min"] = prop["min"] + draw(st.sampled_from([-1, 0, 0.5]))
            prop["max"] = max(prop["max"] + draw(st.sampled_from([-1, 0, 0.5])), prop["min"])
        case "enum":
            prop["members"] = [*prop["members"], draw(texts)][draw(st.integers(0, 1)) :]
        case "bucket":
            prop["edges"] = sorted({*prop["edges"], draw(st.integers(0, 3))})[draw(st.integers(0, 1)) :] or [1.0]
        case "string":
            prop["max_length"] = max(prop["max_length"] + draw(st.integers(-2, 2)), 1)
            prop["pattern"] = draw(st.sampled_from([prop["pattern"], "(?s:.*)"]))
        case "hash" | "version" | "uuid" | "timestamp":
            prop.update(type="string", pattern="(?s:.*)", max_length=draw(st.integers(10, 50)))
        case _:
            prop.update(type="bool")


def stored(draw: st.DrawFn, event: Event, level: Level | None) -> Table:
    """A body that stands stored at a level (None: with what is private) of the user's own destinations."""
    body: Table = {**BODY, "event": event.name, **({} if level is None else {"level": level})}
    for name, prop in event.properties.items():
        seen = prop.type != "json" and (level is None or prop.shared_at(level))
        if seen and (prop.required or draw(st.booleans())):
            value = draw(st.just(MASK) if event.masks(name) else fitting(prop))
            body[name] = value
    return body


def takes(event: Event | None, body: Table, level: Level | None) -> bool:
    """Whether a body is one of ``event``: valid, and with all that is required."""
    if event is None:
        return False
    try:
        msgspec.json.decode(msgspec.json.encode(body), type=wire_shape(event, level))
    except msgspec.ValidationError:
        return False
    return all(name in body for name, prop in event.properties.items()
               if prop.required and prop.type != "json" and (level is None or prop.shared_at(level)))  # fmt: skip


@many
@given(pairs(), st.data())
def test_what_is_called_compatible_takes_every_stored_event(
    pair: tuple[TelemetrySpec, TelemetrySpec], data: st.DataObject
) -> None:
    old, new = pair
    assume(old.events)
    event = old.event(data.draw(st.sampled_from([each.name for each in old.events])))
    assert event is not None
    level: Level | None = data.draw(st.sampled_from([*LEVELS, None]))
    body = stored(data.draw, event, level)
    assert takes(event, body, level)
    found = changes(old, new)
    if step(found) != "major":
        assert takes(new.event(event.name), body, level), found
        schema = json_schema(new, private=level is None)
        assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(msgspec.json.encode(body)))


@many
@given(pairs())
def test_what_asks_is_what_consent_asks_for(pair: tuple[TelemetrySpec, TelemetrySpec]) -> None:
    old, new = pair
    assume(old.events)
    waits = unanswered(new, new_grant(old, TelemetryLevel.DEBUG, NOW), TelemetryLevel.DEBUG)
    own = {name for name in waits if not name.startswith("*/")}
    assert bool(own) == any(entry.asks for entry in changes(old, new)), own


@many
@given(tables())
def test_a_spec_did_not_change_from_itself(table: Table) -> None:
    assert changes(spec_of(table), spec_of(table)) == []


@many
@given(pairs())
def test_what_is_not_mentioned_is_the_same(pair: tuple[TelemetrySpec, TelemetrySpec]) -> None:
    old, new = pair
    assume(not changes(old, new))
    assert {event.name for event in old.events} == {event.name for event in new.events}
    for event in new.events:
        before = old.event(event.name, event.version)
        assert before is not None
        assert before.properties.keys() == event.properties.keys()
        assert {name: event.masks(name) for name in event.properties} == {
            name: before.masks(name) for name in event.properties
        }
        for level in LEVELS:
            assert before.shared_at(level) == event.shared_at(level)


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "steps"), [
    (1, (2, 1, 1)), ("1.2.3", ("2.0.0", "1.3.0", "1.2.4")), ("0.4.1", ("1.0.0", "0.5.0", "0.4.2")),
    ("2.0.0-rc.1", ("3.0.0", "2.0.0", "2.0.0")), ("1.2.1-a+b", ("2.0.0", "1.3.0", "1.2.1")),
    ("1.0.0+b", ("2.0.0", "1.1.0", "1.0.1")),
])  # fmt: skip
def test_the_next_version_is_proposed(version: Any, steps: tuple[Any, ...]) -> None:
    assert (raised(version, "major"), raised(version, "minor"), raised(version, "patch")) == steps


@pytest.mark.parametrize(("old", "new", "reached"), [
    (1, 1, ("minor", "patch", None)), (1, 2, ("major", "minor", "patch", None)), (2, 1, ()), (1, "1.0.0", (None,)),
    (1, "1.1.0", ("minor", "patch", None)), ("1.2.0", "1.2.0", (None,)), ("1.2.0", "1.2.1", ("patch", None)),
    ("1.2.0", "1.3.0-a", ("minor", "patch", None)), ("1.2.0", "2.0.0-a", ("major", "minor", "patch", None)),
    ("2.0.0-a", "2.0.0-b", ("minor", "patch", None)), ("2.0.0-b", "2.0.0-a", ()), ("1.9.0", "1.10.0", ("minor", "patch",
                                                                                                     None)),
    ("2.1.0", "1.9.0", ()), ("1.2.1-a", "1.2.1", ("patch", None)), ("0.1.0", "0.2.0", ("minor", "patch", None)),
])  # fmt: skip
def test_a_version_is_enough_or_not(old: Any, new: Any, reached: tuple[Any, ...]) -> None:
    assert tuple(each for each in ("major", "minor", "patch", None) if reaches(old, new, each)) == reached


@many
@given(versions, st.sampled_from(["major", "minor", "patch"]))
def test_what_is_proposed_is_enough(version: Any, taken: Any) -> None:
    assert reaches(version, raised(version, taken), taken)
    assert order(raised(version, taken)) >= order(version)
