"""Which rule is for which property, and which are refused: with file, key, found and expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry.errors import ConfigError
from cmdorc_telemetry.spec import CORE, TelemetrySpec, load_spec
from cmdorc_telemetry.spec.model import Event, Meta, Property, Semantics
from cmdorc_telemetry.types import Setup
from cmdorc_telemetry_anonymizer.rules import Table, compiled
from cmdorc_telemetry_anonymizer.settings import Settings

CORE_SPEC = load_spec(CORE)
PROPERTIES = {
    "amount": Property(type="number", min=1, max=1000),
    "plan": Property(type="enum", members=("free", "pro")),
    "flag": Property(type="bool"),
    "range": Property(type="bucket", edges=(1, 10)),
    "note": Property(type="string", pattern="[a-z ]+", max_length=30),
    "code": Property(type="string", pattern="[0-9a-f]+", max_length=12),
    "short": Property(type="string", pattern="[0-9a-f]+", max_length=11),
    "mail": Property(type="string", pattern="(?s:.*)", max_length=100, pii=True),
    "tags": Property(type="hash", max_items=3),
    "whole": Property(type="json"),
    "mine": Property(type="string", pattern="(?s:.*)", max_length=100, audience="private"),
}
SHOP = TelemetrySpec(
    meta=Meta(name="shop.web"),
    events=(Event(name="paid", semantics=Semantics(what="w"), properties=PROPERTIES),),
)


def table(specs: tuple[TelemetrySpec, ...] = (CORE_SPEC, SHOP), **written: Any) -> Table:
    setup = Setup(name="anonymizer", settings=written, where="config.toml", folder=Path("unused"), specs=specs)
    return compiled(setup.read(Settings), setup.specs, setup.where, setup.key)


def refusal(**written: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        table(**written)
    text = str(caught.value)
    assert text.startswith("config.toml: telemetry.settings.anonymizer.")
    return text.removeprefix("config.toml: telemetry.settings.anonymizer.")


def secret(text: bytes) -> bytes:
    return text.ljust(32, b"\0")[:32]


def test_without_settings_versions_and_times_are_coarser() -> None:
    for spec in (CORE_SPEC, SHOP):
        for event in spec.events:
            found = table()[spec.ref][event.name]
            assert set(found) == {"cmdorc_version", "app_version", "python_version", "timestamp"}
            assert found["timestamp"].change("2026-11-22T03:14:15Z", secret) == "2026-11-22T03:00:00Z"
            assert found["python_version"].change("3.12.4", secret) == "3.12"


def test_a_rule_for_an_event_stands_in_place_of_the_one_for_all() -> None:
    found = table(
        fields={"timestamp": {"generalise": "day"}, "python_version": {}, "os": {"rare": 3}},
        events={"paid": {"timestamp": {"generalise": "year"}, "tags": {"hash": True}},
                "cmdorc.core/trigger_fired": {"timestamp": {}}},
    )  # fmt: skip
    stamp = "2026-11-22T03:14:15Z"
    assert found["shop.web@1"]["paid"]["timestamp"].change(stamp, secret) == "2026-01-01T00:00:00Z"
    assert found["cmdorc.core@1"]["trigger_fired"]["timestamp"].change(stamp, secret) == stamp
    started = found["cmdorc.core@1"]["orchestrator_started"]
    assert started["timestamp"].change(stamp, secret) == "2026-11-22T00:00:00Z"
    assert started["python_version"].change("3.12.4", secret) == "3.12.4"
    assert (started["os"].rare, started["os"].instead, started["os"].many) == (3, "other", False)
    assert found["shop.web@1"]["paid"]["tags"].many
    assert "tags" not in started


def test_base_fields_are_counted_over_all_events() -> None:
    found = table(fields={"os": {"rare": 3}, "duration_ms": {"rare": 3}})["cmdorc.core@1"]
    assert found["command_completed"]["os"].place == found["trigger_fired"]["os"].place == "os"
    assert found["command_completed"]["duration_ms"].place == "cmdorc.core/command_completed duration_ms"


def test_what_is_private_in_an_event_is_no_business_of_a_rule_for_all() -> None:
    sold = Event(name="sold", semantics=Semantics(what="w"), properties={"mine": Property(type="count")})
    shop = TelemetrySpec(meta=SHOP.meta, events=(*SHOP.events, sold))
    found = table((shop,), fields={"mine": {"buckets": [10]}})["shop.web@1"]
    assert "mine" in found["sold"]
    assert "mine" not in found["paid"]


def test_of_a_spec_that_has_shrunk_a_rule_is_refused_until_it_is_taken_out() -> None:
    """A value, a property, an event that is no longer there: what the rule was for may have another name now."""
    members = msgspec.structs.replace(PROPERTIES["plan"], members=("free",))
    for written, properties in (
        ({"plan": {"keep": ["free", "pro"]}}, {**PROPERTIES, "plan": members}),
        ({"plan": {"rare": 3}}, {name: prop for name, prop in PROPERTIES.items() if name != "plan"}),
    ):
        table((SHOP,), events={"paid": written})
        less = msgspec.structs.replace(SHOP.events[0], properties=properties)
        with pytest.raises(ConfigError, match="plan"):
            table((TelemetrySpec(meta=SHOP.meta, events=(less,)),), events={"paid": written})
    with pytest.raises(ConfigError, match="no spec that is in force here declares such an event"):
        table((CORE_SPEC,), events={"paid": {"plan": {"rare": 3}}})


def test_a_spec_that_is_not_there_may_have_rules() -> None:
    assert "shop.web@1" not in table(specs=(CORE_SPEC,), events={"shop.web/paid": {"plan": {"rare": 3}}})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"feilds": {}}, "feilds: unknown key; expected one of fields, events. Did you mean 'fields'?"),
        ({"fields": {"os": {"rare": "3"}}}, "fields.os.rare: found '3'; expected int"),
        ({"fields": {"os": {"hsah": True}}}, "fields.os.hsah: unknown key; expected one of remove, hash, keep, "
         "buckets, generalise, rare. Did you mean 'hash'?"),
        ({"fields": {"os": {"rare": 1}}}, "fields.os: found rare 1; expected 2 to 1000"),
        ({"fields": {"os": {"remove": True, "hash": True}}}, "fields.os: found remove and hash; expected one of them"),
        ({"fields": {"os": {"remove": True, "rare": 3}}}, "fields.os: found remove and rare; expected one of them"),
        ({"fields": {"timestamp": {"generalise": "week"}}}, "fields.timestamp.generalise: found 'week'; expected one "
         "of day, hour, major, minor, minute, month, year"),
        ({"events": {"paid": {"amount": {"buckets": [10, 5]}}}},
         "events.paid.amount: found buckets [10.0, 5.0]; expected numbers that rise"),
        # names
        ({"events": {"payed": {"plan": {"rare": 3}}}}, "events.payed: no spec that is in force here declares such an "
         "event; expected the name of one; or 'SPEC/EVENT' for a spec that is not always there. Did you mean 'paid'?"),
        ({"events": {"shop.web/payed": {}}}, "events.shop.web/payed: no spec that is in force here declares such an "
         "event; expected the name of one; or 'SPEC/EVENT' for a spec that is not always there. Did you mean 'paid'?"),
        ({"events": {"cmdorc.core/paid": {}}}, "events.cmdorc.core/paid: no spec that is in force here declares such "),
        ({"events": {"paid": {"plans": {"rare": 3}}}},
         "events.paid.plans: is no property of paid; expected one that a spec declares. Did you mean 'plan'?"),
        ({"fields": {"duration": {"rare": 3}}}, "fields.duration: is no property of any event; expected one that a "
         "spec declares. Did you mean 'duration_ms'?"),
        ({"fields": {"event_id": {"remove": True}}}, "fields.event_id: cannot be changed: the time in it follows "
         "'timestamp'"),
        ({"fields": {"anonymous_install_id": {"hash": True}}}, "fields.anonymous_install_id: cannot be changed: a "
         "server could not find it any more when it is asked to erase this install"),
        ({"events": {"paid": {"level": {"remove": True}}}}, "events.paid.level: cannot be changed: it says what kind "
         "of event it is, and how it was shared"),
        ({"events": {"paid": {"mine": {"hash": True}}}},
         "events.paid.mine: is never shared with anybody; expected no rule for it"),
        ({"events": {"paid": {"whole": {"remove": True}}}},
         "events.paid.whole: is never shared with anybody; expected no rule for it"),
        # what could never be valid
        ({"fields": {"os": {"hash": True}}},
         "fields.os.hash: is nothing for a property of type 'enum' (orchestrator_started); expected keep or remove or "
         "rare"),
        ({"fields": {"python_version": {"generalise": "hour"}}}, "fields.python_version.generalise: found 'hour' "
         "(orchestrator_started); expected major or minor for a property of type 'version'"),
        ({"fields": {"timestamp": {"rare": 3}}},
         "fields.timestamp: takes 'timestamp' out; expected generalise: without it nothing is shared"),
        ({"fields": {"timestamp": {"remove": True}}},
         "fields.timestamp: takes 'timestamp' out; expected generalise: without it nothing is shared"),
        ({"events": {"paid": {"flag": {"hash": True}}}},
         "events.paid.flag.hash: is nothing for a property of type 'bool' (paid); expected remove or rare"),
        ({"events": {"paid": {"range": {"buckets": [1]}}}},
         "events.paid.range.buckets: is nothing for a property of type 'bucket' (paid); expected remove or rare"),
        ({"events": {"paid": {"plan": {"keep": ["fee"]}}}},
         "events.paid.plan.keep: has 'fee', which the property never is (paid); expected some of free, pro"),
        ({"events": {"paid": {"amount": {"buckets": [0.5, 10]}}}}, "events.paid.amount.buckets: has 0.5, which the "
         "property never is (paid); expected edges that are values of the property"),
        ({"events": {"paid": {"amount": {"buckets": [10, 5000]}}}}, "events.paid.amount.buckets: has 5000, which the "
         "property never is (paid); expected edges that are values of the property"),
        ({"events": {"command_completed": {"chain_depth": {"buckets": [1.5]}}}},
         "events.command_completed.chain_depth.buckets: has 1.5, which the property never is (command_completed); "
         "expected edges that are values of the property"),
        ({"events": {"paid": {"short": {"hash": True}}}}, "events.paid.short.hash: gives "),
        ({"events": {"paid": {"note": {"hash": True}}}}, "events.paid.note.hash: gives "),
        ({"events": {"paid": {"mail": {"hash": True}}}},
         "events.paid.mail.hash: is nothing for a property that is masked (paid); expected remove"),
        ({"events": {"paid": {"mail": {"rare": 3}}}},
         "events.paid.mail.rare: is nothing for a property that is masked (paid); expected remove"),
        ({"events": {"shop.web/paid": {"note": {"buckets": [1]}}}}, "events.\"shop.web/paid\".note.buckets: is nothing "
         "for a property of type 'string' (paid); expected hash or keep or remove or rare"),
    ],
)  # fmt: skip
def test_refused(written: dict[str, Any], expected: str) -> None:
    assert refusal(**written).startswith(expected)


def test_accepted() -> None:
    paid = {
        "amount": {"buckets": [1, 10, 1000]}, "plan": {"keep": ["pro"], "rare": 2}, "flag": {"rare": 2},
        "range": {"remove": True}, "note": {"keep": ["hello you"]}, "code": {"hash": True, "rare": 1000},
        "mail": {"remove": True}, "tags": {"hash": True},
    }  # fmt: skip
    assert table(events={"paid": paid})["shop.web@1"]["paid"].keys() > paid.keys()
