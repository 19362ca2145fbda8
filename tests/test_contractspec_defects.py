"""What ContractSpec's first registry promises holds here, and what it gets wrong does not; and its documents are specs.

The documents below are facts of an importer's: shapes that its users have.
"""

from __future__ import annotations

import copy
import itertools
import json
from datetime import date
from typing import Any

import jsonschema
import pytest

from cmdorc_telemetry.capture import Capture
from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.spec import (
    MASK,
    Shapes,
    TelemetryRegistry,
    TelemetrySpec,
    dump_json,
    dump_toml,
    parse_json,
    parse_toml,
)
from cmdorc_telemetry.spec.exports import EXPORTS
from cmdorc_telemetry.spec.lint import lint

INSTALL = "01234567-89ab-4def-8123-456789abcdef"


def document(key: str, version: Any, *events: tuple[str, Any], privacy: str = "internal") -> dict[str, Any]:
    """A document of the newer spelling."""
    return {
        "meta": {"key": key, "version": version, "description": "x", "owners": ["@x"], "tags": [], "stability": "beta"},
        "events": [
            {"key": name, "version": number, "semantics": {"what": "x"}, "privacy": privacy,
             "properties": {"amount": {"type": "number"}}}
            for name, number in events
        ],
    }  # fmt: skip


def spec(key: str, version: Any, *events: tuple[str, Any], privacy: str = "internal") -> TelemetrySpec:
    return parse_json(json.dumps(document(key, version, *events, privacy=privacy)), f"{key}.json")


def registry(*specs: TelemetrySpec) -> TelemetryRegistry:
    made = TelemetryRegistry()
    for number, each in enumerate(specs):
        made.register(each, f"source {number}")
    return made


# -- what it promises --------------------------------------------------------------------------------------------------


def test_t1_what_is_registered_is_there() -> None:
    one = spec("acme", "1.0.0")
    made = registry(one)
    assert made.get("acme", "1.0.0") is one
    assert list(made) == [one]


def test_t2_the_latest_version_is_found_without_one() -> None:
    for versions in itertools.permutations(("1.9.0", "1.10.0", "2.0.0", "2.0.0-rc.1")):
        made = registry(*(spec("acme", version) for version in versions))
        latest = made.get("acme")
        assert latest is not None
        assert latest.ref == "acme@2"
        assert latest.meta.version != "2.0.0-rc.1"
        assert made.get("acme", 2) is latest
        older = made.get("acme", "1.10.0")
        assert older is not None
        assert older.meta.version == "1.10.0"


def test_t3_an_event_is_found_without_a_version() -> None:
    one = spec("acme", "1.0.0", ("acme.paid", "1.0.0"), ("acme.paid", "2.0.0"))
    found = registry(one).find_event("acme.paid")
    assert found == (one, one.events[1])
    assert registry(one).find_event("acme.paid", "1.0.0") == (one, one.events[0])


def test_t4_a_second_registration_is_an_error_that_names_both() -> None:
    made = registry(spec("acme", "1.0.0"))
    with pytest.raises(SpecError, match=r"^second: meta.name: spec acme@1 is registered already, by source 0$"):
        made.register(spec("acme", 1), "second")


# -- what it gets wrong ------------------------------------------------------------------------------------------------


def test_d1_a_registry_can_be_filled_in_one_go() -> None:
    made = TelemetryRegistry()
    for each in (spec("acme", "1.0.0", ("acme.paid", "1.0.0")), spec("bank", "1.0.0", ("bank.synced", "1.0.0"))):
        made.register(each, each.meta.name)
    assert len(made) == 2
    assert made.find_event("bank.synced") is not None


def test_d2_a_name_is_no_prefix_of_another() -> None:
    acme, video = spec("acme", "1.0.0", ("paid", 1)), spec("acme.video", "9.0.0", ("paid.video", 9))
    made = registry(video, acme)
    assert made.get("acme") is acme
    assert made.get("acme.v") is None
    assert made.find_event("paid") == (acme, acme.events[0])


def test_d3_an_event_of_two_specs_is_an_error_that_names_both() -> None:
    made = registry(spec("acme", "1.0.0", ("paid", "1.0.0")))
    with pytest.raises(SpecError, match=r"^second: events: event 'paid' is declared already, by source 0$"):
        made.register(spec("bank", "1.0.0", ("paid", "1.0.0"), privacy="public"), "second")
    assert made.find_event("paid", "1.0.0") == (made.get("acme"), made.get("acme").events[0])  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="event 'paid' version 1 is declared twice"):
        parse_toml(dump_toml(spec("a", 1, ("paid", 1))) + "\n[[events]]\nname = 'paid'\nsemantics = {what = 'x'}\n"
                   "properties = {}\n", "twice")  # fmt: skip


def test_d3_of_two_versions_that_share_a_ref_the_later_has_the_say_whoever_came_last() -> None:
    first = spec("acme", "1.0.0", ("paid", "1.0.0"), ("left", "1.0.0"))
    second = spec("acme", "1.1.0", ("paid", "1.0.0"), privacy="sensitive")
    third = spec("acme", "1.10.0", ("paid", "1.0.0"))
    for order in itertools.permutations((first, second, third)):
        made = registry(*order)
        assert list(made) == [first, second, third]
        assert made.find_event("paid") == (third, third.events[0])
        assert made.find_event("left") == (first, first.events[1])
        shapes = Shapes(list(made))
        assert shapes.event("acme@1", "paid") == (third, third.events[0])
        assert shapes.event("acme@1", "left") == (first, first.events[1])
    sensitive = registry(second, first)
    body = Capture(list(sensitive), {"anonymous_install_id": INSTALL}).record("paid", {"amount": 3})
    assert f'"amount":"{MASK}"'.encode() in body  # what the later one masks no order of registration unmasks


def test_d3_versions_of_two_major_numbers_stand_side_by_side() -> None:
    one, two = spec("acme", 1, ("paid", 1)), spec("acme", "2.0.0", ("paid", 1), privacy="sensitive")
    shapes = Shapes(list(registry(two, one)))
    assert shapes.event("acme@1", "paid") == (one, one.events[0])
    assert shapes.event("acme@2", "paid") == (two, two.events[0])


def test_d4_whole_numbers_are_versions_with_and_without_asking_for_one() -> None:
    old = {"meta": {"name": "acme", "version": 3}, "events": [{**document("a", 1, ("paid", 2))["events"][0]}]}
    old["events"][0]["name"] = old["events"][0].pop("key")
    three = parse_json(json.dumps(old), "old.json")
    made = registry(three, spec("acme", "2.5.0", ("paid", "1.0.0")))
    assert made.get("acme") is made.get("acme", 3) is made.get("acme", "3.0.0") is three
    assert made.find_event("paid") == made.find_event("paid", "2.0.0") == (three, three.events[0])


# -- its documents -----------------------------------------------------------------------------------------------------

F1 = json.loads("""
{"meta":{"name":"sigil.telemetry","version":1,"title":"Sigil telemetry","description":"Core Sigil product telemetry",
  "domain":"sigil","owners":["@team.analytics"],"tags":["telemetry"],"stability":"experimental"},
 "config":{"defaultRetentionDays":30,"defaultSamplingRate":1,"providers":[{"type":"posthog","config":{}}]},
 "events":[{"name":"sigil.telemetry.workflow_step","version":1,
  "semantics":{"what":"Workflow step executed","who":"Actor executing the workflow"},"privacy":"internal",
  "properties":{"workflow":{"type":"string","required":true},"step":{"type":"string","required":true},
   "durationMs":{"type":"number"},"userId":{"type":"string","pii":true,"redact":true}},
  "anomalyDetection":{"enabled":true,"minimumSample":10,"thresholds":[{"metric":"durationMs","max":1500}],
   "actions":["alert","trigger_regen"]}}]}
""")
F2 = json.loads("""
{"meta":{"key":"pfo.telemetry","version":"1.0.0","title":"Pocket Family Office Telemetry",
  "description":"Workflow telemetry with bank syncs","domain":"finance","owners":["platform.finance"],
  "tags":["open-banking","automation"],"stability":"experimental"},
 "config":{"defaultRetentionDays":180,"defaultSamplingRate":1},
 "events":[{"key":"openbanking.accounts.synced","version":"1.0.0",
   "semantics":{"what":"Accounts synchronised","why":"Fresh account metadata"},"privacy":"internal",
   "properties":{"tenantId":{"type":"string","required":true},"configVersion":{"type":"number","required":true},
    "connectionId":{"type":"string","required":true},"syncedCount":{"type":"number"},
    "failedCount":{"type":"number"},"durationMs":{"type":"number"}}},
  {"key":"openbanking.balances.refreshed","version":"1.0.0","semantics":{"what":"Balances refreshed"},
   "privacy":"internal",
   "properties":{"accountId":{"type":"string","pii":false},"balanceTypes":{"type":"json"},
    "refreshedAt":{"type":"timestamp"}},"tags":["analytics"]}]}
""")
F3 = json.loads("""
{"meta":{"key":"analytics.posthog.llm","version":"1.0.0","description":"LLM generation telemetry",
  "domain":"analytics","owners":["@platform.integrations"],"tags":["llm"],"stability":"beta"},
 "events":[{"key":"posthog.llm.generation","version":"1.0.0",
  "semantics":{"who":"LLM consumer","what":"One generation call","why":"Cost and latency"},"privacy":"internal",
  "properties":{"$ai_model":{"type":"string","required":true},"$ai_latency":{"type":"number","required":false},
   "$ai_is_error":{"type":"boolean"},"$ai_input":{"type":"json","pii":true,"redact":true}},"tags":["llm"]}],
 "config":{"defaultRetentionDays":90,"defaultSamplingRate":1.0,
  "providers":[{"type":"posthog","config":{"eventName":"$ai_generation","enableEvaluations":true,
   "evaluationTemplates":["relevance","toxicity"]}}]}}
""")


@pytest.mark.parametrize("fixture", [F1, F2, F3], ids=["F1", "F2", "F3"])
def test_they_survive_this_model_and_toml(fixture: dict[str, Any]) -> None:
    read = parse_json(json.dumps(fixture), "x.json")
    assert json.dumps(json.loads(dump_json(read))) == json.dumps(fixture)
    toml = parse_toml(dump_toml(read), "x.toml")
    assert dump_toml(toml) == dump_toml(read)
    assert parse_json(dump_json(toml), "x.json").events == read.events


def test_what_is_unknown_stays_where_it_was_even_where_the_rest_is_changed() -> None:
    odd = copy.deepcopy(F3)
    odd["x"] = {"y": [None, 1.5]}
    odd["events"][0]["properties"]["$ai_model"]["format"] = "slug"
    read = parse_json(json.dumps(odd), "x.json")
    written = json.loads(dump_json(read))
    assert written == odd
    assert read.events[0].properties["$ai_latency"].required is False
    assert read.config.providers[0].config["evaluationTemplates"] == ["relevance", "toxicity"]


def test_the_seeds_example_is_loaded_linted_exported_and_ready_to_be_tracked() -> None:
    sigil = parse_json(json.dumps(F1), "sigil.json")
    (event,) = sigil.events
    assert (sigil.ref, sigil.meta.domain, sigil.meta.owners) == ("sigil.telemetry@1", "sigil", ("@team.analytics",))
    assert (sigil.retention_days(event), sigil.sampling_rate(event)) == (30, 1)
    assert event.anomaly_detection is not None
    assert event.anomaly_detection.actions == ("alert", "trigger_regen")
    findings = lint(sigil, date(2026, 7, 1))
    assert not any(finding.fails for finding in findings)
    assert {"no-why", "no-description", "free-text", "unit-mismatch"} <= {finding.lint for finding in findings}
    for name, export in EXPORTS.items():
        assert export.make(sigil), name
    assert json.loads(EXPORTS["contractspec"].make(sigil)) == F1
    told = {"workflow": "onboarding", "step": "verify_email", "durationMs": 2100, "userId": "user-123", "more": 1}
    record = Capture([sigil], {"anonymous_install_id": INSTALL}).record(event.name, told, version=1)
    assert record is not None
    (row,) = Gate(Shapes([sigil]), lambda generation, name: "standard").gate([record], "g", "test").rows
    assert row.shared is not None
    body = json.loads(row.shared)
    assert {name: body[name] for name in event.properties} == {
        "workflow": "onboarding", "step": "verify_email", "durationMs": 2100, "userId": MASK
    }  # fmt: skip
    assert "more" not in body
    assert jsonschema.Draft202012Validator(json.loads(EXPORTS["json-schema"].make(sigil))).is_valid(body)
