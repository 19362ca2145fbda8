"""Each lint finds what it is there for, and says nothing where that is mended."""

from __future__ import annotations

from datetime import date

import pytest

from cmdorc_telemetry.spec import CORE, load_spec, parse_toml
from cmdorc_telemetry.spec.lint import LINTS, Finding, lint, lint_events

TODAY = date(2026, 7, 1)
GOOD = """
[meta]
name = "acme.shop"
owners = ["@acme.shop"]

[[events]]
name = "shop.cart_paid"
semantics = { what = "Somebody paid", who = "A customer", why = "Shows what sells" }
anomaly_detection = { thresholds = [{ metric = "duration_ms", max = 1500 }] }

[events.properties.duration_ms]
type = "duration_ms"
description = "From the click to the answer"

[events.properties.plan]
type = "enum"
members = ["free", "team"]
required = true
description = "Which plan was paid for"

[[operations]]
name = "pay"
success = { event = "shop.cart_paid", properties = { plan = "input.plan", duration_ms = "duration_ms" } }
"""
PAY = GOOD[GOOD.index("[[operations]]") :]
PLAN = 'description = "Which plan was paid for"'
EVENT = 'name = "shop.cart_paid"'
EVENT_AT = "events.shop.cart_paid"
PLAN_AT = f"{EVENT_AT}.properties.plan"


def prop(name: str, lines: str) -> str:
    """A property more."""
    return f'{PLAN}\n\n[events.properties."{name}"]\ndescription = "x"\n{lines}'


def at(name: str) -> str:
    return f"{EVENT_AT}.properties.{name}"


BAD: list[tuple[str, str, str, str]] = [
    # lint, what of GOOD, becomes what, where it is found
    ("required-deprecated", PLAN, f"{PLAN}\nexpires = 2030-01-01", PLAN_AT),
    ("required-deprecated", PLAN, f"{PLAN}\ndeprecated = 'x'", PLAN_AT),
    ("required-json", PLAN, prop("raw", "type = 'json'\nrequired = true"), at("raw")),
    ("undeclared-outcome", 'plan = "input.plan"', 'plan = "input.plan", plam = "input.plan"',
     "operations.pay.success.plam"),
    ("incomplete-outcome", 'plan = "input.plan", ', "", "operations.pay.success"),
    ("unknown-source", "input.plan", "args.plan", "operations.pay.success.plan"),
    ("unknown-source", 'name = "pay"', 'name = "pay"\ncommands = ["Pay"]', "operations.pay.success.plan"),
    ("unknown-source", PAY, '[[workflows]]\nname = "pay"\ntriggers = ["go"]\n'
     'started = { event = "shop.cart_paid", properties = { plan = "step" } }', "workflows.pay.started.plan"),
    ("incomplete-outcome", PAY, '[[workflows]]\nname = "pay"\ntriggers = ["go"]\nstep = { event = "shop.cart_paid" }',
     "workflows.pay.step"),
    ("private-source", PAY, PAY.replace('plan = "input.plan", duration_ms = "duration_ms"', 'duration_ms = "command"')
     .replace("success", 'commands = ["Pay"]\nsuccess'), "operations.pay.success.duration_ms"),
    ("unknown-metric", 'metric = "duration_ms"', 'metric = "duration"',
     f"{EVENT_AT}.anomaly_detection.thresholds[0]"),
    ("unknown-metric", 'metric = "duration_ms"', 'metric = "failure_share"',
     f"{EVENT_AT}.anomaly_detection.thresholds[0]"),
    ("unknown-metric", 'metric = "duration_ms"', 'metric = "plan"', f"{EVENT_AT}.anomaly_detection.thresholds[0]"),
    ("idle-threshold", "max = 1500", "min = 0", f"{EVENT_AT}.anomaly_detection.thresholds[0]"),
    ("idle-threshold", 'type = "duration_ms"', 'type = "duration_ms"\nmax = 1000',
     f"{EVENT_AT}.anomaly_detection.thresholds[0]"),
    ("unknown-condition", EVENT, f"{EVENT}\nsampling = {{ rate = 1, conditions = ['plam == 1'] }}",
     f"{EVENT_AT}.sampling"),
    ("unknown-condition", EVENT, f"{EVENT}\nsampling = {{ rate = 1, by = 'user' }}", f"{EVENT_AT}.sampling.by"),
    ("masked-condition", EVENT + "\n",
     f"{EVENT}\nprivacy = 'sensitive'\nsampling = {{ rate = 1, always = ['plan'] }}\n", f"{EVENT_AT}.sampling"),
    ("repeated-operation", PAY, f"{PAY}\n[[operations]]\nname = 'pay'", "operations.pay"),
    ("unknown-replacement", EVENT, f"{EVENT}\nexpires = 2030-01-01\nreplaced_by = 'shop.gone'", EVENT_AT),
    ("unknown-replacement", EVENT, f"{EVENT}\nexpires = 2030-01-01\nreplaced_by = 'shop.cart_paid'", EVENT_AT),
    ("unknown-replacement", PLAN, f"{PLAN}\nexpires = 2030-01-01\nreplaced_by = 'gone'", PLAN_AT),
    ("unknown-waiver", "[[operations]]", "[[waivers]]\nlint = 'no'\nat = 'x'\nreason = 'y'\n[[operations]]",
     "waivers[0]"),
    ("unknown-waiver", "[[operations]]",
     "[[waivers]]\nlint = 'unknown-waiver'\nat = 'waivers[0]'\nreason = 'y'\n[[operations]]", "waivers[0]"),
    ("unused-waiver", "[[operations]]",
     "[[waivers]]\nlint = 'no-why'\nat = 'events.shop.cart_paid'\nreason = 'y'\n[[operations]]", "waivers[0]"),
    ("unused-waiver", PLAN + "\n\n[[operations]]",
     "\n[[waivers]]\nlint = 'no-description'\nat = 'events.shop'\nreason = 'y'\n[[operations]]", "waivers[0]"),
    ("personal-name", PLAN, prop("userEmail", "type = 'string'\npattern = '.*'\nmax_length = 9"), at("userEmail")),
    ("personal-name", PLAN, prop("context.ip", "type = 'string'\npattern = '.*'\nmax_length = 9"), at("context.ip")),
    ("unmasked-pii", PLAN, prop("who", "type = 'count'\npii = true\naudience = 'private'"), at("who")),
    ("provider-secret", "[[operations]]",
     "[[config.providers]]\ntype = 'posthog'\nconfig = {projectApiKey = 'phc_1'}\n[[operations]]",
     "config.providers[0].projectApiKey"),
    ("no-owner", 'owners = ["@acme.shop"]', "", "meta"),
    ("slow-pattern", PLAN, prop("t", "type = 'string'\nmax_length = 30\npattern = '(?:[a-z]+)*!'"), at("t")),
    ("slow-pattern", PLAN, prop("t", "type = 'string'\nmax_length = 30\npattern = '(a{1,9}){2,}'"), at("t")),
    ("no-owner", "@acme.shop", "somebody else", "meta"),
    ("expired", EVENT, f"{EVENT}\nexpires = 2026-07-01", EVENT_AT),
    ("expired", PLAN, prop("n", "type = 'count'\nexpires = 2020-01-01"), at("n")),
    ("privacy-class", EVENT, f"{EVENT}\nprivacy = 'pii'", EVENT_AT),
    ("redact-without-pii", PLAN, prop("n", "type = 'count'\nredact = true"), at("n")),
    ("low-sampling", EVENT, f"{EVENT}\nsampling = {{ rate = 0.04 }}", EVENT_AT),
    ("no-anomaly-detection", "anomaly_detection = {", "retention = { days = 3 } #", EVENT_AT),
    ("no-description", PLAN, "", PLAN_AT),
    ("no-why", ', why = "Shows what sells"', "", EVENT_AT),
    ("no-who", ', who = "A customer"', "", EVENT_AT),
    ("vague-name", PLAN, prop("Data", "type = 'bool'"), at("Data")),
    ("unit-mismatch", PLAN, prop("waitMs", "type = 'number'\nmin = 0\nmax = 9"), at("waitMs")),
    ("unit-mismatch", PLAN, prop("wait_seconds", "type = 'duration_ms'"), at("wait_seconds")),
    ("near-names", PLAN, prop("Plan", "type = 'bool'"), at("Plan")),
    ("mixed-style", PLAN, prop("isNew", "type = 'bool'"), EVENT_AT),
    ("not-past", "cart_paid", "cart_payment", "events.shop.cart_payment"),
    ("free-text", PLAN, prop("note", "type = 'string'\npattern = '(?s:.*)'\nmax_length = 101"), at("note")),
    ("long-retention", EVENT, f"{EVENT}\nretention = {{ days = 401 }}", EVENT_AT),
    ("enum-members", '"team"', '"team", "free"', PLAN_AT),
    ("enum-members", '"team"', '"team", "other"', PLAN_AT),
    ("enum-members", '"free", "team"', ", ".join(f'"m{number}"' for number in range(101)), PLAN_AT),
    ("json-withheld", PLAN, prop("raw", "type = 'json'"), at("raw")),
    ("low-hash", PLAN, prop("h", "type = 'hash'"), at("h")),
    ("no-properties", "[[operations]]",
     "[[events]]\nname = 'shop.opened'\nsemantics = {what = 'x', who = 'x', why = 'x'}\nproperties = {}\n"
     "[[operations]]", "events.shop.opened"),
    ("undone", "Shows what sells", "TODO", EVENT_AT),
    ("undone", PLAN, 'description = "FIXME: which"', PLAN_AT),
    ("undone", "[meta]", "[meta]\ntitle = 'TBD'", "meta"),
    ("endless-deprecation", EVENT, f"{EVENT}\ndeprecated = 'old'", EVENT_AT),
    ("endless-deprecation", PLAN, prop("n", "type = 'count'\ndeprecated = 'old'"), at("n")),
    ("required-withheld", 'members = ["free", "team"]', 'members = ["free", "team"]\nlevel = "debug"', PLAN_AT),
]  # fmt: skip

MENDED: list[tuple[str, str, str]] = [
    # lint, what of GOOD, becomes what is near the mark and yet right
    ("unused-waiver", PLAN + "\n\n[[operations]]",
     f"\n[[waivers]]\nlint = 'no-description'\nat = '{PLAN_AT}'\nreason = 'y'\n[[operations]]"),
    ("unused-waiver", "[[operations]]",
     "[[waivers]]\nlint = 'no-event-contract'\nat = 'events.shop.cart_paid'\nreason = 'y'\n[[operations]]"),
    ("required-deprecated", PLAN, prop("n", "type = 'count'\nexpires = 2030-01-01\nrequired = false")),
    ("required-json", PLAN, prop("raw", "type = 'json'") + "\n[events.properties.'raw.n']\ntype = 'count'"),
    ("undeclared-outcome", 'plan = "input.plan"', 'plan = "input.plam"'),
    ("incomplete-outcome", ', duration_ms = "duration_ms" }', " }"),
    ("masked-condition", EVENT + "\n",
     f"{EVENT}\nprivacy = 'sensitive'\nsampling = {{ rate = 1, always = ['mine'] }}\nproperties.mine.type = 'bool'\n"
     "properties.mine.audience = 'private'\n"),
    ("unknown-waiver", PLAN + "\n\n[[operations]]",
     f"\n[[waivers]]\nlint = 'no-description'\nat = '{PLAN_AT}'\nreason = 'y'\n[[operations]]"),
    ("unmasked-pii", PLAN, prop("who", "type = 'count'\npii = true")),
    ("unmasked-pii", PLAN, prop("who", "type = 'count'\npii = true\nredact = true\naudience = 'private'")),
    ("privacy-class", PLAN, prop("who", "type = 'count'\npii = true\nredact = true")),
    ("redact-without-pii", PLAN, prop("n", "type = 'count'\npii = true")),
    ("long-retention", EVENT, f"{EVENT}\nretention = {{ days = 400 }}"),
    ("no-description", PLAN, 'description = "x"'),
    ("no-why", "Shows what sells", "x"), ("no-who", "A customer", "x"),
    ("no-anomaly-detection", "anomaly_detection = {", "anomaly_detection = { enabled = false, "),
    ("no-properties", "[[operations]]",
     "[[events]]\nname = 'shop.opened'\nsemantics = {what = 'x'}\nproperties.a.type = 'bool'\n[[operations]]"),
    ("undone", "Shows what sells", "What there is to do, and is left to be done"),
    ("vague-name", PLAN, prop("data_size", "type = 'count'")),
    ("unit-mismatch", PLAN, prop("wait_ms", "type = 'duration_ms'")),
    ("unit-mismatch", PLAN, prop("terms", "type = 'count'")),
    ("common-prefix", PLAN, prop("duration_max", "type = 'count'")),
    ("near-names", PLAN, prop("plan_b", "type = 'bool'")),
    ("not-past", "cart_paid", "cartPaid"), ("not-past", "cart_paid", "step_taken"),
    ("enum-members", '"free", "team"', ", ".join(f'"m{number}"' for number in range(100))),
    ("personal-name", PLAN, prop("has_email", "type = 'bool'")),
    ("personal-name", PLAN, prop("email", "type = 'count'\npii = true\nredact = true")),
    ("personal-name", PLAN, prop("shipping", "type = 'count'")),
    ("low-sampling", EVENT, f"{EVENT}\ntags = ['high-volume']\nsampling = {{ rate = 0.01 }}"),
    ("low-sampling", EVENT, f"{EVENT}\nsampling = {{ rate = 0.05 }}"),
    ("json-withheld", PLAN, prop("raw", "type = 'json'") + "\n[events.properties.'raw.size']\ntype = 'count'"),
    ("free-text", PLAN, prop("note", "type = 'string'\npattern = '[a-z ]*'\nmax_length = 500")),
    ("free-text", PLAN, prop("note", "type = 'string'\npattern = '.*'\nmax_length = 500\naudience = 'private'")),
    ("unknown-metric", 'metric = "duration_ms"', 'metric = "p95(duration_ms)"'),
    ("idle-threshold", 'type = "duration_ms"', 'type = "duration_ms"\nmax = 2000'),
    ("unknown-condition", EVENT, f"{EVENT}\nsampling = {{ rate = 1, always = ['duration_ms > 9'], by = 'plan' }}"),
    ("repeated-operation", PAY, f"{PAY}\n[[operations]]\nname = 'pay'\ncommands = ['pay *']"),
    ("unknown-replacement", PLAN, prop("n", "type = 'count'\nexpires = 2030-01-01\nreplaced_by = 'plan'")),
    ("endless-deprecation", PLAN, prop("n", "type = 'count'\ndeprecated = 'old'\nexpires = 2030-01-01")),
    ("expired", EVENT, f"{EVENT}\nexpires = 2026-07-02"),
    ("provider-secret", "[[operations]]",
     "[[config.providers]]\ntype = 'posthog'\nconfig = {projectApiKey = '', host = 'x'}\n[[operations]]"),
    ("low-hash", PLAN, prop("h", "type = 'hash'\nlevel = 'debug'")),
    ("required-withheld", PLAN, f"{PLAN}\nlevel = 'minimal'"),
    ("no-owner", "@acme.shop", "platform.core"),
    ("slow-pattern", PLAN, prop("t", "type = 'string'\nmax_length = 30\npattern = '([a-z]+)(-[a-z]{2}){3}\\(a+\\)+'")),
    ("unknown-source", "input.plan", "output.data.plan"),
    ("mixed-style", PLAN, prop("$isNew", "type = 'bool'")),
    ("private-source", PAY, PAY.replace("input.plan", "command").replace("success", 'commands = ["Pay"]\nsuccess')),
    ("private-source", PAY, PAY.replace("input.plan", "input.command")),
]  # fmt: skip


def found(text: str) -> list[Finding]:
    return lint(parse_toml(text, "acme.telemetry.toml"), TODAY)


def test_a_good_spec_has_no_findings_and_neither_has_our_own() -> None:
    assert found(GOOD) == []
    assert lint(load_spec(CORE), TODAY) == []


def test_every_lint_is_shown_to_find_something_and_there_are_many() -> None:
    assert {"common-prefix", *(name for name, *_ in BAD)} == set(LINTS)
    assert len(LINTS) >= 25
    assert all(row.about.endswith(".") for row in LINTS.values())


@pytest.mark.parametrize(("name", "old", "new", "where"), BAD, ids=[f"{row[0]}-{n}" for n, row in enumerate(BAD)])
def test_it_finds_what_it_is_there_for(name: str, old: str, new: str, where: str) -> None:
    assert old in GOOD
    hits = [finding for finding in found(GOOD.replace(old, new)) if finding.lint == name]
    assert [finding.at for finding in hits] == [where]
    assert hits[0].severity == LINTS[name].severity
    assert hits[0].fails == (LINTS[name].severity != "warning")


@pytest.mark.parametrize(("name", "old", "new"), MENDED, ids=[f"{row[0]}-{n}" for n, row in enumerate(MENDED)])
def test_it_says_nothing_where_that_is_mended(name: str, old: str, new: str) -> None:
    assert old in GOOD
    assert name not in [finding.lint for finding in found(GOOD.replace(old, new))]


def test_a_prefix_of_all_properties_is_found() -> None:
    text = GOOD.replace(PLAN, prop("duration_max", "type = 'count'"))
    assert "common-prefix" not in [finding.lint for finding in found(text)]
    assert [finding.lint for finding in found(text.replace("plan", "duration_plan"))] == ["common-prefix"]


def test_a_public_event_has_nothing_personal() -> None:
    text = GOOD.replace(PLAN, prop("who", "type = 'count'\npii = true\nredact = true"))
    assert found(text) == []
    assert [finding.lint for finding in found(text.replace(EVENT, f"{EVENT}\nprivacy = 'public'"))] == ["privacy-class"]


def test_a_finding_can_be_waived_where_it_is_and_nowhere_else() -> None:
    waiver = "[[waivers]]\nlint = 'no-why'\nat = 'events.shop.cart_paid'\nreason = 'everybody knows'\n"
    text = GOOD.replace(', why = "Shows what sells"', "") + waiver
    (finding,) = found(text)
    assert finding.waived == "everybody knows"
    unused, other = found(text.replace("at = 'events.shop.cart_paid'", "at = 'events.shop'"))
    assert (unused.lint, unused.at, other.lint, other.waived) == ("unused-waiver", "waivers[0]", "no-why", "")


def test_an_error_that_is_waived_fails_nothing() -> None:
    text = GOOD.replace('owners = ["@acme.shop"]', "")
    assert [finding.fails for finding in found(text)] == [True]
    waiver = "[[waivers]]\nlint = 'no-owner'\nat = 'meta'\nreason = 'an example'\n"
    assert [finding.fails for finding in found(text + waiver)] == [False]


def test_a_contradiction_cannot_be_waived() -> None:
    waiver = "[[waivers]]\nlint = 'incomplete-outcome'\nat = 'operations.pay.success'\nreason = 'so what'\n"
    findings = found(GOOD.replace('plan = "input.plan", ', "") + waiver)
    assert {(finding.lint, finding.fails) for finding in findings} == {
        ("incomplete-outcome", True), ("unknown-waiver", True)
    }  # fmt: skip


def test_events_are_held_against_the_event_contracts_that_there_are() -> None:
    spec = parse_toml(GOOD, "acme.telemetry.toml")
    assert lint_events(spec, [("shop.cart_paid", "1.0.0"), ("other", 2)]) == []
    (version,) = lint_events(spec, [("shop.cart_paid", 2), ("shop.cart_paid", "3.0.0")])
    assert version.message == "has version 1; expected one of 2, 3.0.0"
    (gone,) = lint_events(spec, [("other", 1)])
    assert (gone.at, gone.fails) == ("events.shop.cart_paid", True)


def test_an_event_without_a_contract_can_be_waived() -> None:
    waiver = "[[waivers]]\nlint = 'no-event-contract'\nat = 'events.shop.cart_paid'\nreason = 'it comes later'\n"
    spec = parse_toml(GOOD + waiver, "acme.telemetry.toml")
    (finding,) = lint_events(spec, [])
    assert (finding.waived, finding.fails) == ("it comes later", False)


def test_every_lint_is_shown_to_say_nothing_near_the_mark() -> None:
    assert {name for name, *_ in MENDED} == set(LINTS)
