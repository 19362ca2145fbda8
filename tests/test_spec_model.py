"""The shipped spec is the design's table, and a broken spec is told what is wrong, where, and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry.errors import ConfigError, SpecError
from cmdorc_telemetry.spec import BASE, CORE, LEVELS, Level, Property, TelemetrySpec, bucket_labels, load_spec

CORE_EVENTS: dict[str, dict[str, dict[str, str]]] = {
    "orchestrator_started": {
        "minimal": {"executor_type": "enum local_subprocess mock custom", "command_count": "count",
                    "has_triggers": "bool"},
        "standard": {"trigger_count": "count", "has_wildcard_triggers": "bool",
                     "most_common_on_retrigger_policy": "enum cancel_and_restart ignore"},
        "debug": {"hashed_trigger_patterns": "hash[50]"},
        "private": {"config_name": "string"},
    },
    "command_completed": {
        "minimal": {"duration_ms": "duration_ms", "state": "enum success failed cancelled", "final": "bool",
                    "manual": "bool"},
        "standard": {"chain_depth": "count", "concurrent_runs": "count", "timed_out": "bool"},
        "debug": {"hashed_command_name": "hash", "command_arg_count": "count", "hashed_cwd_prefix": "hash"},
        "private": {"command_name": "string", "trigger_event": "string", "run_id": "string"},
    },
    "trigger_fired": {
        "minimal": {},
        "standard": {"trigger_count": "count", "distinct_triggers": "count", "runs_started": "count",
                     "cycles": "count", "max_chain_depth": "count", "window_s": "count"},
        "debug": {"hashed_trigger_patterns": "hash[50]"},
        "private": {"trigger_names": "string[50]"},
    },
    "orchestrator_stopped": {
        "minimal": {"uptime_s": "bucket <1 1-10 10-60 60-600 600-3600 3600-28800 >=28800", "run_count": "count",
                    "failed_count": "count", "cancelled_count": "count"},
        "standard": {"avg_concurrent_runs": "number 0 10000", "max_concurrent_runs": "count",
                     "trigger_count": "count"},
        "debug": {},
        "private": {},
    },
    "anomaly_detected": {
        "minimal": {},
        "standard": {"metric": "enum duration_ms failure_share count mean p95", "kind": "enum above below changed",
                     "ratio": "bucket <0.25 0.25-0.5 0.5-0.8 0.8-1.25 1.25-2 2-4 4-10 >=10",
                     "sample_count": "count"},
        "debug": {"hashed_command_name": "hash"},
        "private": {"command_name": "string", "message": "string"},
    },
}  # fmt: skip
"""The five events, never more: the least level that may share a field → field → its values."""

BASE_FIELDS = {
    "event": "string", "cmdorc_version": "version", "app_name": "string", "app_version": "version",
    "python_version": "version", "os": "enum linux darwin windows freebsd",
    "arch": "enum x86_64 arm64 i686 armv7l ppc64le riscv64 s390x", "anonymous_install_id": "uuid",
    "timestamp": "timestamp", "event_id": "uuid", "spec": "string", "level": "enum minimal standard debug",
    "sampling_rate": "number 0 1",
}  # fmt: skip


def values(prop: Property) -> str:
    labels = bucket_labels(prop.edges) if prop.edges else ()
    bounds = [f"{bound:g}" for bound in (prop.min, prop.max) if bound is not None]
    text = " ".join([prop.type, *prop.members, *labels, *bounds])
    return text + (f"[{prop.max_items}]" if prop.max_items else "")


def test_the_shipped_spec_is_the_table_of_the_design() -> None:
    spec = load_spec(CORE)
    found: dict[str, dict[str, dict[str, str]]] = {}
    for event in spec.events:
        columns = found[event.name] = {column: {} for column in (*LEVELS, "private")}
        for name, prop in event.properties.items():
            columns["private" if prop.audience == "private" else prop.level][name] = values(prop)
    assert found == CORE_EVENTS
    assert spec.ref == "cmdorc.core@1"
    assert {event.version for event in spec.events} == {1}


def test_the_base_fields_are_those_of_the_design_and_may_always_be_shared() -> None:
    assert {name: values(prop) for name, prop in BASE.items()} == BASE_FIELDS
    assert all(prop.shared_at("minimal") for prop in BASE.values())


def test_all_that_is_shipped_is_described() -> None:
    spec = load_spec(CORE)
    for event in spec.events:
        assert event.semantics.what
        assert event.semantics.who
        assert event.semantics.why
        for name, prop in (*event.properties.items(), *BASE.items()):
            assert prop.description, f"{event.name}.{name}"


@pytest.mark.parametrize("level", LEVELS)
def test_an_event_is_shared_at_a_level_that_shares_a_field_of_its_own(level: Level) -> None:
    shared = {event.name for event in load_spec(CORE).events if event.shared_at(level)}
    nothing = {"trigger_fired", "anomaly_detected"} if level == "minimal" else set()
    assert shared == set(CORE_EVENTS) - nothing
    assert not any(event.shared_at(None) for event in load_spec(CORE).events)


def test_what_is_private_or_of_no_known_shape_is_never_shared() -> None:
    assert Property(type="bool").shared_at("debug")
    assert not Property(type="json").shared_at("debug")
    assert not Property(type="bool", audience="private", level="minimal").shared_at("debug")
    assert not Property(type="bool", level="minimal").shared_at(None)


# -- broken specs ------------------------------------------------------------------------------------------------------

TYPES = "bool, bucket, count, duration_ms, enum, hash, json, number, string, timestamp, uuid, version"
KEYS = "type, description, required, pii, redact, level, audience, min, max, members, edges, pattern"


def with_property(lines: str, name: str = "amount") -> str:
    return with_event(f"[events.properties.{name}]\n{lines}")


def with_event(lines: str = "properties = {}", head: str = "name = 'paid'\nsemantics = {what = 'x'}") -> str:
    return f"meta = {{name = 'acme.app'}}\n[[events]]\n{head}\n{lines}"


def with_meta(lines: str) -> str:
    return f"[meta]\n{lines}"


AMOUNT = "events[0].properties.amount"
BROKEN: list[tuple[str, str]] = [
    ("", "has no 'meta'; expected that key, which is required"),
    ("meta = 'acme.app'", "meta: found 'acme.app'; expected table"),
    ("meta = {name = 'a'}\nevent = []",
     "event: unknown key; expected one of meta, groups, context, events, operations, workflows, config, waivers, "
     "origin. Did you mean 'events'?"),
    (with_meta("title = 'x'"), "meta: has no 'name'; expected that key, which is required"),
    (with_meta("name = 1"), "meta.name: found 1; expected str"),
    (with_meta("name = 'a b'"), "meta: 'a b' is no name; expected at most 100 letters, digits and . _ + -"),
    (with_meta("name = 'a@1'"), "meta: 'a@1' is no name; expected at most 100 letters, digits and . _ + -"),
    (with_meta(f"name = '{'a' * 101}'"),
     f"meta: '{'a' * 101}' is no name; expected at most 100 letters, digits and . _ + -"),
    (with_meta("name = 'a'\nversion = '1'"),
     "meta: found version '1'; expected a whole number, or three such as '1.0.0'"),
    (with_meta("name = 'a'\nversion = 0"), "meta: found version 0; expected 1 to 999999"),
    (with_meta("name = 'a'\nversion = 1000000"), "meta: found version 1000000; expected 1 to 999999"),
    (with_meta("name = 'a'\nowners = 'me'"), "meta.owners: found 'me'; expected list"),
    (with_meta("name = 'a'\nstability = 'alpha'"), "meta.stability: found 'alpha'; expected one of "
     "beta, deprecated, experimental, idea, in_creation, stable"),
    (with_meta("name = 'a'\nnmae = 'b'"), "meta.nmae: unknown key; expected one of "
     "name, version, title, description, domain, owners, tags, stability. Did you mean 'name'?"),
    ("meta = {name = 'a'}\nevents = {}", "events: found {}; expected list"),
    (with_event("", "name = 'paid'"), "events[0]: has no 'semantics'; expected that key, which is required"),
    (with_event(""), "events[0]: has no 'properties'; expected that key, which is required"),
    (with_event(head="name = 'paid'\nsemantics = {why = 'x'}"),
     "events[0].semantics: has no 'what'; expected that key, which is required"),
    (with_event(head="name = 'pa id'\nsemantics = {what = 'x'}"),
     "events[0]: 'pa id' is no name; expected letters, digits and $ _ . - only"),
    (with_event("version = 0\nproperties = {}"), "events[0]: found version 0; expected 1 to 999999"),
    (with_event("rank = 10\nproperties = {}"), "events[0]: found rank 10; expected 0 to 9"),
    (with_event("rank = -1\nproperties = {}"), "events[0]: found rank -1; expected 0 to 9"),
    (with_event("privacy = 'secret'\nproperties = {}"),
     "events[0].privacy: found 'secret'; expected one of internal, pii, public, sensitive"),
    (with_event("retention = {days = 0}\nproperties = {}"), "events[0].retention: found 0 days; expected 1 or more"),
    (with_event("retention = {days = 9, policy = 'delte'}\nproperties = {}"),
     "events[0].retention.policy: found 'delte'; expected one of archive, delete. Did you mean 'delete'?"),
    (with_event("sampling = {rate = 1.5}\nproperties = {}"),
     "events[0].sampling: found a sampling rate of 1.5; expected 0 to 1"),
    (with_event("sampling = {rate = nan}\nproperties = {}"),
     "events[0].sampling: found a sampling rate of nan; expected 0 to 1"),
    (with_event("properties = {}\nanomaly_detection = {thresholds = [{metric = 'm'}]}"),
     "events[0].anomaly_detection.thresholds[0]: threshold of 'm' needs 'min', 'max' or both"),
    (with_event("properties = {}\nanomaly_detection = {thresholds = [{metric = 'm', min = 2, max = 1}]}"),
     "events[0].anomaly_detection.thresholds[0]: min 2 is greater than max 1"),
    (with_event("properties = {}\nanomaly_detection = {actions = ['log', 'alrt']}"),
     "events[0].anomaly_detection.actions[1]: found 'alrt'; expected one of alert, log, trigger_regen. "
     "Did you mean 'alert'?"),
    (with_event() + "\n" + with_event().partition("\n")[2], "event 'paid' version 1 is declared twice"),
    (with_property("level = 'debug'"), f"{AMOUNT}: has no 'type'; expected that key, which is required"),
    (with_property("type = 'float'"), f"{AMOUNT}.type: found 'float'; expected one of {TYPES}"),
    (with_property("type = 'boolean'"),
     f"{AMOUNT}.type: found 'boolean'; expected one of {TYPES}. Did you mean 'bool'?"),
    (with_property("type = 'bool'\nlevel = 'off'"),
     f"{AMOUNT}.level: found 'off'; expected one of debug, minimal, standard"),
    (with_property("type = 'bool'\naudience = 'public'"),
     f"{AMOUNT}.audience: found 'public'; expected one of private, shared"),
    (with_property("type = 'bool'\nrequired = 'yes'"), f"{AMOUNT}.required: found 'yes'; expected bool"),
    (with_property("type = 'bool'\nrequird = true"),
     f"{AMOUNT}.requird: unknown key; expected one of {KEYS}, max_length, "
     "max_items, expires, deprecated, replaced_by. Did you mean 'required'?"),
    (with_property("type = 'bool'\nmax = 1"), f"{AMOUNT}: type 'bool' takes no 'max'"),
    (with_property("type = 'bool'\nreplaced_by = 'cents'"),
     f"{AMOUNT}: found 'replaced_by' 'cents'; expected 'deprecated' or 'expires' beside it"),
    (with_property("type = 'bool'\nexpires = 'soon'"),
     f"{AMOUNT}.expires: found 'soon'; expected a date, such as 2030-12-31"),
    (with_property("type = 'hash'\npattern = '.*'"), f"{AMOUNT}: type 'hash' takes no 'pattern'"),
    (with_property("type = 'count'\nmembers = ['a']"), f"{AMOUNT}: type 'count' takes no 'members'"),
    (with_property("type = 'enum'\nmembers = ['a']\nedges = [1]"), f"{AMOUNT}: type 'enum' takes no 'edges'"),
    (with_property("type = 'enum'"), f"{AMOUNT}: type 'enum' needs 'members'"),
    (with_property("type = 'enum'\nmembers = ['a', 1]"), f"{AMOUNT}.members[1]: found 1; expected str"),
    (with_property("type = 'bucket'"), f"{AMOUNT}: found edges []; type 'bucket' needs 'edges' that rise"),
    (with_property("type = 'bucket'\nedges = [1, 3, 2]"),
     f"{AMOUNT}: found edges [1.0, 3.0, 2.0]; type 'bucket' needs 'edges' that rise"),
    (with_property("type = 'bucket'\nedges = [1, 1]"),
     f"{AMOUNT}: found edges [1.0, 1.0]; type 'bucket' needs 'edges' that rise"),
    (with_property("type = 'bucket'\nedges = [1, inf]"), f"{AMOUNT}: found the bound inf; expected a finite number"),
    (with_property("type = 'bucket'\nedges = ['1']"), f"{AMOUNT}.edges[0]: found '1'; expected float"),
    (with_property("type = 'number'"), f"{AMOUNT}: type 'number' needs 'min' and 'max'"),
    (with_property("type = 'number'\nmin = 0"), f"{AMOUNT}: type 'number' needs 'min' and 'max'"),
    (with_property("type = 'number'\nmin = 2\nmax = 1.5"), f"{AMOUNT}: min 2 is greater than max 1.5"),
    (with_property("type = 'number'\nmin = 0\nmax = inf"), f"{AMOUNT}: found the bound inf; expected a finite number"),
    (with_property("type = 'count'\nmin = nan"), f"{AMOUNT}: found the bound nan; expected a finite number"),
    (with_property("type = 'count'\nmax = '9'"), f"{AMOUNT}.max: found '9'; expected float"),
    (with_property("type = 'string'"),
     f"{AMOUNT}: type 'string' needs 'pattern' and 'max_length': free text can hold anything"),
    (with_property("type = 'string'\npattern = 'a+'"),
     f"{AMOUNT}: type 'string' needs 'pattern' and 'max_length': free text can hold anything"),
    (with_property("type = 'string'\nmax_length = 5"),
     f"{AMOUNT}: type 'string' needs 'pattern' and 'max_length': free text can hold anything"),
    (with_property("type = 'string'\npattern = 'a'\nmax_length = 0"),
     f"{AMOUNT}: found max_length 0; expected 1 or more"),
    (with_property("type = 'string'\npattern = 'a'\nmax_length = 10000000000000000000"),
     f"{AMOUNT}: found max_length 10000000000000000000; expected 1048576 at most"),
    (with_property("type = 'hash'\nmax_items = -1"), f"{AMOUNT}: found max_items -1; expected 1 or more"),
    (with_property("type = 'string'\npattern = '('\nmax_length = 5"),
     f"{AMOUNT}: pattern '(' is no regular expression: missing ), unterminated subpattern at position 0"),
    (with_property("type = 'string'\npattern = 'a)|(b'\nmax_length = 5"),
     f"{AMOUNT}: pattern 'a)|(b' is no regular expression: unbalanced parenthesis at position 1"),
    (with_property("type = 'bool'", "os"), "events[0]: property 'os' is a base field that every event has"),
    (with_property("type = 'bool'", "'a b'"), "events[0]: 'a b' is no name; expected letters, digits and $ _ . - only"),
    (with_property("type = 'bool'", "1st"), "events[0]: '1st' is no name; expected letters, digits and $ _ . - only"),
    ("meta = {name = 'a'}\nconfig = {default_sampling_rate = -1}",
     "config: found a sampling rate of -1; expected 0 to 1"),
    ("meta = {name = 'a'}\nconfig = {default_retention_days = 0}", "config: found 0 days; expected 1 or more"),
    ("meta = {name = 'a'}\nconfig = {providers = [{type = 'mixpanel'}]}",
     "config.providers[0].type: found 'mixpanel'; expected one of internal, opentelemetry, posthog, segment"),
    ("meta = {name = 'a'}\noperations = [{name = 'pay', success = {event = 'paid'}}]",
     "operation 'pay' emits 'paid', which is not declared"),
    (with_event() + "\n[[operations]]\nname = 'pay'\nfailure = {event = 'paid', version = 2}",
     "operation 'pay' emits 'paid', which is not declared"),
    (with_event() + "\n[[operations]]\nname = 'pay'\nsuccess = {event = 'paid', properties = {a = 'x', b = 1}}",
     "operations[0].success.properties.b: found 1; expected str"),
    ("meta = {}\nmeta = {}\n", "is not valid TOML: Cannot overwrite a value (at line 2, column 10)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_spec_is_told_what_is_wrong_and_where(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "acme.telemetry.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value) == f"{path}: {message}"
    assert isinstance(caught.value, ConfigError)


def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"^{tmp_path}/no.toml: cannot be read: .*No such file"):
        load_spec(tmp_path / "no.toml")
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(SpecError, match="cannot be read: 'utf-8' codec"):
        load_spec(str(tmp_path / "latin"))


# -- what a spec answers -----------------------------------------------------------------------------------------------

WHOLE = """
[meta]
name = "acme.app"
version = 3
owners = ["@pay"]

[config]
default_retention_days = 7
default_sampling_rate = 0.5
providers = [{ type = "posthog", config = { key = "k" } }]

[[events]]
name = "paid"
version = 2
semantics = { what = "Somebody paid", why = "Income" }
retention = { days = 30, policy = "archive" }
sampling = { rate = 0.1, conditions = ["amount > 5"] }
properties.amount = { type = "number", min = 0, max = 10, description = "How much" }
properties."$ai_model" = { type = "string", pattern = "[a-z]+", max_length = 20 }

[[events]]
name = "paid"
semantics.what = "Somebody paid, as it was"
properties = {}

[[operations]]
name = "pay"
success = { event = "paid", version = 2, properties = { amount = "output.amount" } }
failure = { event = "paid" }
"""


@pytest.fixture
def whole(tmp_path: Path) -> TelemetrySpec:
    path = tmp_path / "acme.telemetry.toml"
    path.write_text(WHOLE)
    return load_spec(path)


def test_a_spec_finds_its_events_and_falls_back_to_its_defaults(whole: TelemetrySpec) -> None:
    old, new = whole.event("paid", 1), whole.event("paid", 2)
    assert old is not None
    assert new is not None
    assert whole.event("paid") is new
    assert whole.event("paid", 3) is None
    assert whole.event("pai") is None
    assert (whole.sampling_rate(new), whole.sampling_rate(old)) == (0.1, 0.5)
    assert (whole.retention_days(new), whole.retention_days(old)) == (30, 7)
    assert whole.ref == "acme.app@3"


def test_a_spec_that_says_little_keeps_everything_for_ninety_days() -> None:
    table = {"meta": {"name": "a"}, "events": [{"name": "e", "semantics": {"what": "x"}, "properties": {}}]}
    spec = msgspec.convert(table, TelemetrySpec)
    (event,) = spec.events
    assert (spec.ref, event.version) == ("a@1", 1)
    assert (spec.retention_days(event), spec.sampling_rate(event)) == (90, 1.0)


def test_a_declaration_is_all_that_one_agrees_to_and_nothing_else(whole: TelemetrySpec) -> None:
    event = whole.event("paid")
    assert event is not None
    assert json.loads(whole.declaration(event, "amount")) == {
        "type": "number", "min": 0, "max": 10, "why": "Income", "retention_days": 30,
    }  # fmt: skip
    base: dict[str, Any] = json.loads(whole.declaration(event, "sampling_rate"))
    assert base == {"type": "number", "min": 0, "max": 1, "level": "minimal"}


def test_a_spec_cannot_be_changed(whole: TelemetrySpec) -> None:
    with pytest.raises(AttributeError):
        whole.events[0].properties["amount"].level = "minimal"  # type: ignore[misc]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "enum"}, Property)


@pytest.mark.parametrize(
    ("edges", "labels"),
    [
        ((1.0,), ("<1", ">=1")),
        ((0.5, 10.0), ("<0.5", "0.5-10", ">=10")),
        ((-5.0, 0.0, 5.0), ("<-5", "-5-0", "0-5", ">=5")),
        ((1e6, 1e6 + 1, 1e6 + 2), ("<1000000", "1000000-1000001", "1000001-1000002", ">=1000002")),
    ],
)
def test_ranges_have_names_of_their_own(edges: tuple[float, ...], labels: tuple[str, ...]) -> None:
    assert bucket_labels(edges) == labels
