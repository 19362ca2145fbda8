"""Specs survive their files: TOML → model → TOML, and ContractSpec's JSON in both spellings, unknown keys and all."""

from __future__ import annotations

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.spec import (
    CORE,
    Outcome,
    Property,
    TelemetrySpec,
    dump_json,
    dump_toml,
    load_spec,
    parse_json,
    parse_toml,
)

many = settings(max_examples=60, deadline=None, derandomize=True, database=None)

SIGIL: dict[str, Any] = {
    "meta": {"name": "sigil.telemetry", "version": 1, "title": "Sigil telemetry",
             "description": "Core Sigil product telemetry", "domain": "sigil", "owners": ["@team.analytics"],
             "tags": ["telemetry"], "stability": "experimental"},
    "config": {"defaultRetentionDays": 30, "defaultSamplingRate": 1,
               "providers": [{"type": "posthog", "config": {}}]},
    "events": [{
        "name": "sigil.telemetry.workflow_step", "version": 1,
        "semantics": {"what": "Workflow step executed", "who": "Actor executing the workflow"},
        "privacy": "internal",
        "properties": {"workflow": {"type": "string", "required": True}, "step": {"type": "string", "required": True},
                       "durationMs": {"type": "number"}, "userId": {"type": "string", "pii": True, "redact": True}},
        "anomalyDetection": {"enabled": True, "minimumSample": 10,
                             "thresholds": [{"metric": "durationMs", "max": 1500}],
                             "actions": ["alert", "trigger_regen"]},
    }],
}  # fmt: skip
"""The older spelling: names and whole numbers."""
BANK: dict[str, Any] = {
    "meta": {"key": "bank.telemetry", "version": "1.0.0", "description": "Bank syncs", "owners": ["platform.finance"],
             "tags": [], "stability": "experimental", "docId": ["bank.md"]},
    "events": [
        {"key": "bank.synced", "version": "1.0.0", "semantics": {"what": "Accounts synchronised", "why": "Freshness"},
         "privacy": "internal", "tags": ["a"],
         "properties": {"$rows": {"type": "number", "required": False}, "refreshedAt": {"type": "timestamp"},
                        "ok": {"type": "boolean"}, "raw": {"type": "json", "unit": "rows"}}},
        {"key": "bank.synced", "version": "2.1.0", "semantics": {"what": "Accounts synchronised"},
         "privacy": "sensitive", "properties": {}, "sampling": {"rate": 0.5, "conditions": ["$rows > 1"]},
         "retention": {"days": 3, "policy": "archive", "region": "eu"}},
    ],
    "x-else": {"kept": [1, 2.5, None]},
}  # fmt: skip
"""The newer spelling: keys and three numbers; and keys that nobody here knows."""


@pytest.mark.parametrize("document", [SIGIL, BANK])
def test_a_document_is_written_as_it_was_read(document: dict[str, Any]) -> None:
    spec = parse_json(json.dumps(document), "x.json")
    assert json.dumps(json.loads(dump_json(spec))) == json.dumps(document)  # in the same order, too


def test_a_document_of_contractspecs_is_a_spec() -> None:
    sigil = parse_json(json.dumps(SIGIL), "sigil.json")
    event = sigil.event("sigil.telemetry.workflow_step", 1)
    assert event is not None
    assert (sigil.ref, sigil.meta.owners, sigil.retention_days(event)) == (
        "sigil.telemetry@1",
        ("@team.analytics",),
        30,
    )
    assert (event.properties["workflow"].required, event.masks("userId"), event.masks("step")) == (True, True, False)
    assert event.anomaly_detection is not None
    assert event.anomaly_detection.thresholds[0].max == 1500
    bank = parse_json(json.dumps(BANK), "bank.json")
    assert [event.version for event in bank.events] == [1, "2.1.0"]
    assert bank.event("bank.synced") is bank.event("bank.synced", "2.1.0")
    assert bank.event("bank.synced", "1.0.0") is bank.event("bank.synced", 1) is bank.events[0]
    types = {name: prop.type for name, prop in bank.events[0].properties.items()}
    assert types == {"$rows": "number", "refreshedAt": "timestamp", "ok": "bool", "raw": "json"}


@pytest.mark.parametrize("document", [SIGIL, BANK])
def test_what_is_changed_is_written_and_the_rest_is_as_it_was(document: dict[str, Any]) -> None:
    spec = parse_json(json.dumps(document), "x.json")
    first = spec.events[0]
    changed = replace(
        spec, meta=replace(spec.meta, title="New"), config=replace(spec.config, default_retention_days=5),
        events=(replace(first, tags=("new",), properties={**first.properties, "n": Property(type="count", max=3)}),
                *spec.events[1:]),
    )  # fmt: skip
    expected = copy.deepcopy(document)
    expected["meta"]["title"] = "New"
    expected.setdefault("config", {})["defaultRetentionDays"] = 5
    expected["events"][0]["tags"] = ["new"]
    added = {"type": "number", "x-cmdorc-telemetry": {"type": "count", "max": 3.0}}
    expected["events"][0]["properties"]["n"] = added
    assert json.loads(dump_json(changed)) == expected
    assert parse_json(dump_json(changed), "x.json").events == changed.events


def test_an_event_that_is_gone_or_new_is_gone_or_new_in_the_document() -> None:
    spec = parse_json(json.dumps(BANK), "x.json")
    new = replace(spec.events[1], name="bank.new", version=1)
    written = json.loads(dump_json(replace(spec, events=(spec.events[1], new))))
    assert written["events"][0] == BANK["events"][1]
    assert [(event["key"], event["version"]) for event in written["events"]] == [
        ("bank.synced", "2.1.0"), ("bank.new", "1.0.0")
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["meta.key", "events[0].key"])
def test_what_has_no_name_is_told_where(path: str) -> None:
    document = copy.deepcopy(BANK)
    del (document["meta"] if path == "meta.key" else document["events"][0])["key"]
    at = path.rpartition(".")[0]
    with pytest.raises(SpecError, match="has neither 'key' nor 'name'; expected one of them") as caught:
        parse_json(json.dumps(document), "bank.json")
    assert str(caught.value).startswith(f"bank.json: {at}: ")


@pytest.mark.parametrize(("text", "message"), [
    ("{", "f.json: is not valid JSON: Input data was truncated"),
    ("[]", "f.json: found []; expected table"),
    ('{"meta": {"key": "a"}}', "f.json: has no 'events'; expected that key, which is required"),
    ('{"meta": {"key": "a b"}, "events": []}',
     "f.json: meta: 'a b' is no name; expected at most 100 letters, digits and . _ + -"),
    ('{"meta": {"key": "a", "version": "1"}, "events": []}',
     "f.json: meta: found version '1'; expected a whole number, or three such as '1.0.0'"),
    ('{"meta": {"key": "a"}, "events": [], "config": {"defaultSamplingRate": 2}}',
     "f.json: config: found a sampling rate of 2; expected 0 to 1"),
])  # fmt: skip
def test_a_broken_document_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_json(text, "f.json")
    assert str(caught.value) == message


# -- TOML --------------------------------------------------------------------------------------------------------------

EVERYTHING = """
[meta]
name = "acme.app"
version = "2.1.0"
owners = ["@acme.app"]

[groups.money]
amount = { type = "number", min = 0, max = 10, description = "How much" }

[context]
channel = { type = "enum", members = ["web", "ci"] }
userId = { type = "string", pattern = ".*", max_length = 50, pii = true, redact = true }

[[events]]
name = "paid"
semantics = { what = "Somebody paid", why = "Income" }
groups = ["money"]
sampling = { rate = 0.1, conditions = ["amount > 5"], always = ["context.channel == 'ci'"], by = "context.userId" }
anomaly_detection = { thresholds = [{ metric = "amount", max = 9 }] }
properties.old = { type = "bool", expires = 2027-01-01, deprecated = "nobody reads it", replaced_by = "new" }
properties.new = { type = "bool" }

[[events]]
name = "failed"
semantics = { what = "Somebody could not pay" }
expires = 2026-06-01
properties = {}

[[operations]]
name = "pay"
commands = ["Pay*"]
success = { event = "paid", properties = { amount = "output.amount" } }
failure = { event = "failed" }

[[workflows]]
name = "checkout"
triggers = ["checkout_*"]
completed = { event = "paid" }

[[waivers]]
lint = "short-name"
at = "events.paid"
reason = "everybody calls it so"

[config]
default_retention_days = 7
providers = [{ type = "posthog", config = { key = "k" } }]
"""


def test_toml_is_written_as_it_means() -> None:
    spec = parse_toml(EVERYTHING, "acme.toml")
    assert parse_toml(dump_toml(spec), "again") == spec
    assert dump_toml(parse_toml(dump_toml(spec), "again")) == dump_toml(spec)
    core = load_spec(CORE)
    assert parse_toml(dump_toml(core), "again") == core


def test_what_contractspec_has_no_words_for_is_kept_in_its_json() -> None:
    spec = parse_toml(EVERYTHING, "acme.toml")
    assert replace(parse_json(dump_json(spec), "x.json"), origin=None) == spec
    core = load_spec(CORE)
    assert replace(parse_json(dump_json(core), "x.json"), origin=None) == core


def test_a_group_and_the_context_are_properties_of_their_events() -> None:
    paid, failed = parse_toml(EVERYTHING, "acme.toml").events
    assert list(paid.properties) == ["old", "new", "context.channel", "context.userId", "amount"]
    assert list(failed.properties) == ["context.channel", "context.userId"]
    assert failed.masks("context.userId")


@pytest.mark.parametrize(("old", "new", "message"), [
    ('groups = ["money"]', 'groups = ["mony"]', "event 'paid' has the group 'mony'; expected one of: money"),
    ("properties.new = {", "properties.amount = {",
     "event 'paid' declares 'amount' otherwise than its group or the context does"),
    ("[groups.money]\namount", "[groups.money]\nos", "property 'os' is a base field that every event has"),
    ("[context]\nchannel", "[context]\n'a b'", "'a b' is no name; expected letters, digits and $ _ . - only"),
    ('event = "failed"', 'event = "fialed"', "operation 'pay' emits 'fialed', which is not declared"),
    ('completed = { event = "paid"', 'completed = { event = "paid", version = 2',
     "workflow 'checkout' emits 'paid', which is not declared"),
    ('reason = "everybody calls it so"', 'reason = " "',
     "waivers[0]: the waiver of 'short-name' has no 'reason'; expected why the finding is as it should be"),
    ('deprecated = "nobody reads it", ', "expires = 2027-01-01, ", "is not valid TOML"),
    ("amount > 5", "amount >", "events[0].sampling: condition 'amount >': found its end at character 9"),
    ("expires = 2026-06-01", "replaced_by = 'paid'",
     "events[1]: found 'replaced_by' 'paid'; expected 'deprecated' or 'expires' beside it"),
    ("[config]", "[config]\ncheck_interval_ms = 0", "config: found check_interval_ms 0; expected 1 or more"),
    ("thresholds = ", "minimum_sample = 0, thresholds = ",
     "events[0].anomaly_detection: found minimum_sample 0; expected 1 or more"),
    ("[meta]", "origin = {}\n[meta]", "origin: unknown key; expected no such key in TOML"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(old: str, new: str, message: str) -> None:
    assert old in EVERYTHING
    with pytest.raises(SpecError) as caught:
        parse_toml(EVERYTHING.replace(old, new, 1), "acme.toml")
    assert str(caught.value).removeprefix("acme.toml: ").startswith(message)


def test_what_has_expired_is_no_longer_in_force() -> None:
    spec = parse_toml(EVERYTHING, "acme.toml")
    assert spec.in_force(date(2026, 5, 31)) is spec
    summer = spec.in_force(date(2026, 6, 1))
    assert [event.name for event in summer.events] == ["paid"]
    assert summer.operations[0].failure is None
    assert summer.operations[0].success == spec.operations[0].success
    assert "old" in summer.events[0].properties
    assert "old" not in spec.in_force(date(2027, 1, 1)).events[0].properties


def test_an_outcome_goes_with_the_version_of_its_event_that_expires() -> None:
    event = '[[events]]\nname = "paid"\nversion = {}\nproperties = {{}}\nsemantics = {{ what = "x" }}\n'
    operation = (
        '[[operations]]\nname = "pay"\nsuccess = { event = "paid", version = 1 }\nfailure = { event = "paid" }\n'
    )
    text = '[meta]\nname = "a"\n' + event.format("1\nexpires = 2026-06-01") + event.format(2) + operation
    (pay,) = parse_toml(text, "acme.toml").in_force(date(2026, 6, 1)).operations
    assert (pay.success, pay.failure) == (None, Outcome(event="paid"))


names = st.from_regex(r"[a-z$][a-z0-9_.$]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("event", "os", "arch")
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
unknown = st.dictionaries(texts.map(lambda text: f"x-{text}"), st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
), max_size=2)  # fmt: skip


def with_unknown(known: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(known, unknown).map(lambda both: {**both[1], **both[0]})


def event_of(spelling: str) -> st.SearchStrategy[dict[str, Any]]:
    version = st.integers(1, 9) if spelling == "name" else st.integers(1, 9).map(lambda major: f"{major}.0.0")
    prop = st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "boolean", "timestamp", "json"])},
        optional={"required": st.booleans(), "pii": st.booleans(), "redact": st.booleans(), "description": texts},
    )
    return st.fixed_dictionaries(
        {spelling: names, "version": version, "semantics": with_unknown(st.fixed_dictionaries({"what": texts})),
         "privacy": st.sampled_from(["public", "internal", "pii", "sensitive"]),
         "properties": st.dictionaries(names, with_unknown(prop), max_size=3)},
        optional={"retention": with_unknown(st.fixed_dictionaries({"days": st.integers(1, 99)})),
                  "sampling": st.fixed_dictionaries({"rate": st.floats(0, 1)}),
                  "anomalyDetection": st.fixed_dictionaries(
                      {"enabled": st.booleans()}, optional={"actions": st.lists(st.sampled_from(["log", "alert"]))}),
                  "tags": st.lists(texts, max_size=2)},
    )  # fmt: skip


documents = st.sampled_from(["name", "key"]).flatmap(lambda spelling: with_unknown(st.fixed_dictionaries(
    {"meta": with_unknown(st.fixed_dictionaries({spelling: st.just("acme.app"), "owners": st.lists(texts)})),
     "events": st.lists(with_unknown(event_of(spelling)), max_size=3,
                        unique_by=lambda event: (event[spelling], event["version"]))},
    optional={"config": with_unknown(st.fixed_dictionaries({}, optional={
        "defaultRetentionDays": st.integers(1, 99), "defaultSamplingRate": st.floats(0, 1)}))},
)))  # fmt: skip


@many
@given(documents)
def test_any_document_is_written_as_it_was_read(document: dict[str, Any]) -> None:
    spec = parse_json(json.dumps(document), "x.json")
    assert json.dumps(json.loads(dump_json(spec))) == json.dumps(document)
    fresh = replace(spec, origin=None)
    assert replace(parse_json(dump_json(fresh), "x.json"), origin=None) == fresh
    assert parse_toml(dump_toml(spec), "x.toml") == fresh


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SIGIL))
    (tmp_path / "a.telemetry.toml").write_text(EVERYTHING)
    assert load_spec(tmp_path / "a.json").ref == "sigil.telemetry@1"
    assert load_spec(tmp_path / "a.telemetry.toml").ref == "acme.app@2"
    assert isinstance(msgspec.json.encode(load_spec(tmp_path / "a.json")), bytes)
    with pytest.raises(SpecError, match=r"a\.toml: cannot be read"):
        load_spec(tmp_path / "a.toml")


def test_specs_are_equal_by_what_they_say() -> None:
    assert parse_toml(EVERYTHING, "a") == parse_toml(EVERYTHING, "b")
    assert isinstance(parse_toml(EVERYTHING, "a"), TelemetrySpec)
