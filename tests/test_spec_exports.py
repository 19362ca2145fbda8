"""What is made of a spec is right for whom it is: a JSON Schema judges as the shapes do, stores take statements."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec import BASE, CORE, Property, TelemetrySpec, load_spec, parse_json, parse_toml, wire_shape
from cmdorc_telemetry.spec.columns import columns
from cmdorc_telemetry.spec.ecmascript import ecmascript
from cmdorc_telemetry.spec.exports import EXPORTS
from cmdorc_telemetry.spec.jsonschema import json_schema
from cmdorc_telemetry.spec.model import Event, Meta, Semantics
from cmdorc_telemetry.spec.property import LEVELS, MASK, bucket_labels
from cmdorc_telemetry.spec.shapes import shared_shape

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# -- JSON Schema -------------------------------------------------------------------------------------------------------

PATTERNS = ["(?s:.*)", "[a-z]*", r"a.b", r"(?P<x>a)(?P=x)", r"[]^\-a]+", r"a{,3}b?", r"\d+\.\w*", "(?i:abc)", r"x|y\Z"]
names = st.from_regex(r"[a-z$][a-zA-Z0-9_.$]{0,8}", fullmatch=True).filter(lambda name: name not in BASE)
common = st.fixed_dictionaries(
    {"level": st.sampled_from(LEVELS)},
    optional={"pii": st.booleans(), "redact": st.booleans(), "audience": st.sampled_from(["shared", "private"]),
              "max_items": st.integers(1, 3), "description": st.text(max_size=5), "required": st.booleans()},
)  # fmt: skip
kinds: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(["bool", "hash", "version", "uuid", "timestamp", "json"]).map(lambda type_: {"type": type_}),
    st.fixed_dictionaries({"type": st.sampled_from(["count", "duration_ms"])},
                          optional={"min": st.integers(-2, 3), "max": st.floats(3, 1e6)}),
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(
        lambda both: {"type": "number", "min": min(both), "max": max(both)}),
    st.lists(st.text(max_size=4), min_size=1, max_size=3).map(lambda members: {"type": "enum", "members": members}),
    st.sampled_from([[1.0], [1.0, 2.5, 10.0]]).map(lambda edges: {"type": "bucket", "edges": edges}),
    st.tuples(st.sampled_from(PATTERNS), st.integers(1, 5)).map(
        lambda both: {"type": "string", "pattern": both[0], "max_length": both[1]}),
)  # fmt: skip
properties = st.tuples(kinds, common).map(lambda both: msgspec.convert({**both[0], **both[1]}, Property))
events = st.dictionaries(names, properties, max_size=4).map(
    lambda props: Event(name="paid", semantics=Semantics(what="x"), properties=props)
)
sensitive = events.map(lambda event: msgspec.structs.replace(event, privacy="sensitive"))
scalars = (
    st.none() | st.booleans() | st.integers(-5, 2**53 + 1) | st.floats() | st.text("ab.x-\n\rÄ^]", max_size=6)
    | st.sampled_from([MASK, "other", "<1", "1-2.5", ">=10", "0123456789ab", "1.2.3", "2026-11-22T03:00:00Z",
                       "01234567-89ab-4def-8123-456789abcdef", "aa", "a\rb", "٣.é"])
)  # fmt: skip
values = scalars | st.lists(scalars, max_size=4)
BODY = {"event": "paid", "anonymous_install_id": "01234567-89ab-4def-8123-456789abcdef",
        "timestamp": "2026-11-22T03:00:00Z"}  # fmt: skip


def fitting(prop: Property) -> st.SearchStrategy[Any]:
    """Values of which many fit, and some do not."""
    one: st.SearchStrategy[Any] = scalars
    if prop.type == "enum":
        one = st.sampled_from([*prop.members, "other"])
    elif prop.type == "bucket":
        one = st.sampled_from(bucket_labels(prop.edges))
    elif prop.type == "number":
        one = st.floats(prop.min, prop.max)
    elif prop.type == "string":
        one = st.from_regex(rf"\A(?:{prop.pattern})\Z")
    return values | st.just(MASK) | one | st.lists(one, max_size=3)


def judged(schema: dict[str, Any], body: Any) -> bool:
    validator = jsonschema.Draft202012Validator(schema)
    return bool(validator.is_valid(body))


@many
@given(events | sensitive, st.sampled_from([*LEVELS, None]), st.data())
def test_what_a_shape_accepts_is_valid_and_nothing_undeclared_is(event: Event, level: Any, data: st.DataObject) -> None:
    spec = TelemetrySpec(meta=Meta(name="acme"), events=(event,))
    private = level is None
    schema = json.loads(json.dumps(json_schema(spec, private=private)))
    jsonschema.Draft202012Validator.check_schema(schema)
    shape = wire_shape(event, level)
    body: dict[str, Any] = dict(BODY)
    assert judged(schema, body)
    for name, prop in event.properties.items():
        value = data.draw(fitting(prop))
        try:
            text = msgspec.json.encode({**BODY, name: value})
            msgspec.json.decode(text, type=shape)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue
        body[name] = json.loads(text)[name]
        assert judged(schema, {**BODY, name: body[name]}), (prop, value)
    assert judged(schema, body)
    if level is not None:
        let_out = msgspec.json.decode(msgspec.json.encode({**body, "x!": 1}), type=shared_shape(event, level))
        assert judged(schema, json.loads(msgspec.json.encode(let_out)))
    allowed = {*BASE, *(name for name, prop in event.properties.items()
                        if prop.type != "json" and (private or prop.audience == "shared"))}  # fmt: skip
    undeclared = data.draw(st.sampled_from(["x!", "extra", *event.properties]))
    if undeclared not in allowed:
        assert not judged(schema, {**body, undeclared: MASK})
    for name in BODY:
        assert not judged(schema, {key: value for key, value in body.items() if key != name})


def test_a_schema_refuses_what_a_shape_refuses() -> None:
    spec = load_spec(CORE)
    schema = json_schema(spec)
    good = {**BODY, "event": "orchestrator_started", "has_triggers": True, "command_count": 3}
    assert judged(schema, good)
    for wrong in ({"command_count": -1}, {"command_count": 1.5}, {"has_triggers": 1}, {"executor_type": "else"},
                  {"event": "unknown"}, {"event_id": "x"}, {"os": "beos"}, {"extra": 1}):  # fmt: skip
        assert not judged(schema, {**good, **wrong}), wrong


def test_a_spec_without_events_allows_none() -> None:
    assert not judged(json_schema(TelemetrySpec(meta=Meta(name="acme"))), BODY)


def test_a_schema_says_what_things_are() -> None:
    told = """
    [meta]
    name = "acme"
    description = "All of it"
    [[events]]
    name = "paid"
    semantics = { what = "Somebody paid" }
    deprecated = "no"
    properties.a = { type = "bool", description = "Whether", deprecated = "no" }
    properties.b = { type = "string", pattern = "(?i:x)", max_length = 3 }
    properties.c = { type = "count", max_items = 2 }
    """
    schema = json_schema(parse_toml(told, "x"))
    paid = schema["$defs"]["paid@1"]
    assert (schema["title"], schema["description"], paid["description"], paid["deprecated"]) == (
        "acme@1", "All of it", "Somebody paid", True
    )  # fmt: skip
    assert paid["properties"]["a"] == {"description": "Whether", "deprecated": True, "type": "boolean"}
    assert paid["properties"]["b"] == {
        "type": "string", "maxLength": 3, "$comment": "Its pattern has no equivalent in ECMA-262: (?i:x)"
    }  # fmt: skip
    assert paid["properties"]["c"] == {
        "type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**53}, "maxItems": 2
    }  # fmt: skip


@pytest.mark.parametrize(("pattern", "said"), [
    ("[a-z0-9_-]*", "[a-z0-9_-]*"),
    ("(?s:.*)", r"(?:[\s\S]*)"),
    ("(?s:a(.))b.", r"(?:a([\s\S]))b[^\n]"),
    (r"\A(?P<x>a)(b)(?P=x)0\Z", r"^(a)(b)(?:\1)0$"),
    (r"a{,3}b{2}c{x}]", r"a{0,3}b{2}c\{x\}\]"),
    (r"[]a][^]b][[c]", r"[\]a][^\]b][\[c]"),
    (r"\-\ \#\.\/[\-\#\]]\U0001F600\a", "- #\\.\\/[\\-#\\]]\U0001f600\\x07"),
    (r"\d\w\s\b\x41\u00e9\n", r"\d\w\s\b\x41\u00e9\n"),
    (r"(?:a|b)(?=c)(?!d)(?<=e)(?<!f)\1", r"(?:a|b)(?=c)(?!d)(?<=e)(?<!f)\1"),
    (r"a*?b+?c??d{1,2}?", r"a*?b+?c??d{1,2}?"),
    ("(?i:a)", None), ("a++", None), ("(?>a)", None), ("(?#x)a", None), (r"\0", None), (r"[\N{DIGIT ONE}]", None),
    (r"\N{DIGIT ONE}", None),
])  # fmt: skip
def test_a_pattern_is_said_so_that_others_understand_it(pattern: str, said: str | None) -> None:
    assert ecmascript(pattern) == said


@pytest.mark.parametrize("pattern", [
    *(each for each in PATTERNS if ecmascript(each)), *(prop.pattern for prop in BASE.values() if prop.pattern)
])  # fmt: skip
@given(st.data())
@settings(many, max_examples=50)
def test_and_means_the_same(pattern: str, data: st.DataObject) -> None:
    said = re.compile(str(ecmascript(pattern)))
    for text in (data.draw(st.from_regex(rf"\A(?:{pattern})\Z")), data.draw(st.text("ab.x-\n\rÄ^]{}", max_size=6))):
        assert bool(said.fullmatch(text)) == bool(re.fullmatch(pattern, text))


# -- stores ------------------------------------------------------------------------------------------------------------

ODD = """
[meta]
name = "acme"
[[events]]
name = "Paid"
semantics = { what = "Somebody\\n paid" }
properties.userId = { type = "count" }
properties.userid = { type = "bool", description = "two\\nlines" }
properties."Event_ID" = { type = "bool" }
properties.xmin = { type = "uuid" }
properties."a.b" = { type = "enum", members = ["x"], max_items = 2 }
properties.a_b = { type = "timestamp" }
properties.secret = { type = "number", min = 0, max = 1, pii = true }
properties.raw = { type = "json" }
properties.mine = { type = "bool", audience = "private" }
[[events]]
name = "paid"
semantics = { what = "x" }
properties = {}
[[events]]
name = "paid"
version = 2
semantics = { what = "x" }
properties = {}
[[events]]
name = "sqlite_done"
semantics = { what = "x" }
properties = {}
"""


def test_sqlite_takes_its_statements_and_rows_in_them() -> None:
    for spec in (load_spec(CORE), parse_toml(ODD, "x")):
        with sqlite3.connect(":memory:") as store:
            store.executescript(columns(spec, "sqlite"))
            tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert len(tables) == len(spec.events)
        store.close()
    assert tables == [("Paid",), ("paid_2",), ("paid@2",), ("_sqlite_done",)]


def test_sqlite_wants_an_id_once() -> None:
    store = sqlite3.connect(":memory:")
    store.executescript(columns(parse_toml(ODD, "x"), "sqlite"))
    row = "INSERT INTO paid_2 (event_id, anonymous_install_id, timestamp) VALUES (?, 'i', 't')"
    store.execute(row, ("1",))
    for wrong in ("1", None):
        with pytest.raises(sqlite3.IntegrityError):
            store.execute(row, (wrong,))
    store.close()


names_of_any_kind = st.from_regex(r"[A-Za-z$_][A-Za-z0-9$_.\-]{0,99}", fullmatch=True) | st.sampled_from(
    ["a.b", "a_b", "A_B", "x" * 100, "x" * 99 + "y", "sqlite_x", "_sqlite_x", "OS", "ctid", "ctid_2"]
)


@many
@given(st.lists(names_of_any_kind, max_size=5, unique=True), st.lists(names_of_any_kind, max_size=4, unique=True))
def test_no_two_names_are_the_same_to_a_store(event_names: list[str], property_names: list[str]) -> None:
    props = {name: Property(type="bool") for name in property_names if name not in BASE}
    made = tuple(Event(name=name, semantics=Semantics(what="x"), properties=props) for name in event_names)
    spec = TelemetrySpec(meta=Meta(name="acme"), events=made)
    store = sqlite3.connect(":memory:")
    store.executescript(columns(spec, "sqlite"))
    assert store.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0] == len(made)
    store.close()
    for name, longest in (("postgresql", 63), ("clickhouse", 1000)):
        statements = columns(spec, name)
        for statement in statements.split("CREATE TABLE")[1:]:
            called = re.findall(r'^  ["`]([^"`]+)["`]', statement, re.MULTILINE)
            assert len(set(called)) == len(called) == len(BASE) - 1 + len(props)
            assert max(map(len, called)) <= longest
        tables = re.findall(r'^CREATE TABLE ["`]([^"`]+)', statements, re.MULTILINE)
        assert len(set(tables)) == len(made)


def test_each_store_has_its_own_words() -> None:
    spec = parse_toml(ODD, "x")
    postgresql, clickhouse = columns(spec, "postgresql"), columns(spec, "clickhouse")
    for line in (
        '-- Paid: Somebody paid',
        '  "event_id" uuid NOT NULL PRIMARY KEY, -- Random; lets a server count an event once',
        '  "timestamp" timestamptz NOT NULL, -- UTC, whole seconds', '  "xmin_2" uuid,', '  "a.b" text[],',
        '  "secret" text', '  "userid" boolean, -- two lines', 'CREATE TABLE "paid@2" (', ");",
    ):  # fmt: skip
        assert line in postgresql.splitlines(), line
    for line in (
        "  `event_id` UUID, -- Random; lets a server count an event once", "  `userId` Nullable(Int64),",
        "  `a_b` Array(LowCardinality(String)),", "  `a_b_2` Nullable(DateTime('UTC')),",
        "  `os` LowCardinality(Nullable(String)), -- Operating system",
        ") ENGINE = ReplacingMergeTree ORDER BY (timestamp, event_id);",
    ):  # fmt: skip
        assert line in clickhouse.splitlines(), line
    assert "mine" not in postgresql
    assert "raw" not in clickhouse


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_form_is_made_of_the_core_spec_and_says_what_it_is_for() -> None:
    core = load_spec(CORE)
    for name, export in EXPORTS.items():
        text = export.make(core)
        assert text.endswith("\n"), name
        assert export.make(core) == text, name
        assert export.about.endswith("."), name
    assert parse_toml(EXPORTS["toml"].make(core), "x") == core
    assert msgspec.structs.replace(parse_json(EXPORTS["contractspec"].make(core), "x"), origin=None) == core
    assert json.loads(EXPORTS["json-schema"].make(core)) == json_schema(core)
    assert EXPORTS["sqlite"].make(core) == columns(core, "sqlite")
    hook = EXPORTS["pre-commit"].make(core)
    assert "        entry: cmdorc-telemetry spec lint\n" in hook
    assert re.search(r"files: (.*)\n", hook)[1] == r"\.telemetry\.(toml|json)$"  # type: ignore[index]
