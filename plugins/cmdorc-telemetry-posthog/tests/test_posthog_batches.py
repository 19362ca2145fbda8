"""What is sent, byte for byte; what cannot be; which settings are taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, Rejected, RetryLater, TooLarge
from cmdorc_telemetry.types import BatchEvent
from cmdorc_telemetry_posthog import PosthogReporter
from cmdorc_telemetry_posthog.batches import MOST_OF_A_BATCH, MOST_OF_AN_EVENT, encoded

if TYPE_CHECKING:
    from .conftest import MakeBatch, MakeEvent

ORDERS = {"$geoip_disable": True, "$ip": "0.0.0.0", "$process_person_profile": False}


def test_one_event_byte_for_byte(batch: MakeBatch) -> None:
    assert encoded(batch(1), "phc_a", historical=False) == (
        b'{"api_key":"phc_a","batch":[{"uuid":"0198c0de-0000-7000-8000-000000000000","event":"command_completed",'
        b'"distinct_id":"6f1e1d3a-5b1c-4b6f-9d5e-000000000001","timestamp":"2026-01-02T03:04:05Z","properties":'
        b'{"cmdorc_version":"0.12.0","os":"linux","spec":"cmdorc.core@1","duration_ms":0,"state":"success",'
        b'"$geoip_disable":true,"$ip":"0.0.0.0","$process_person_profile":false}}]}'
    )


def test_a_body_has_what_the_spec_declares_and_three_orders(batch: MakeBatch) -> None:
    events = batch(3)
    sent = json.loads(encoded(events, "phc_a", historical=False))
    assert set(sent) == {"api_key", "batch"}
    for event, had in zip(sent["batch"], events.events, strict=True):
        assert set(event) == {"uuid", "event", "distinct_id", "timestamp", "properties"}
        named = {"event_id": event["uuid"], "event": event["event"], "timestamp": event["timestamp"],
                 "anonymous_install_id": event["distinct_id"]}  # fmt: skip
        assert {**named, **event["properties"]} == {**had.payload, **ORDERS}


def test_the_same_batch_is_the_same_bytes(batch: MakeBatch) -> None:
    one, other = (PosthogReporter(PosthogReporter.Settings(endpoint="https://a.example", api_key="k")) for _ in "ab")
    assert one.encode(batch(3)) == other.encode(batch(3, epoch="another", drops={"expired": 3}))


def test_values_are_passed_on_as_the_gate_let_them_out(batch: MakeBatch) -> None:
    ids = '"event_id":"0198c0de-0000-7000-8000-000000000000","anonymous_install_id":"i","timestamp":"t"'
    body = f'{{"event":"e",{ids},"a":1.0,"b":1e3,"c":"\\u00fc ü","d":[ 1, 2],"e":12345678901234567890}}'.encode()
    event = BatchEvent("0198c0de-0000-7000-8000-000000000000", "e", body)
    sent = encoded(batch(event), "k", historical=False)
    assert '"a":1.0,"b":1e3,"c":"\\u00fc ü","d":[ 1, 2],"e":12345678901234567890,"$geoip'.encode() in sent


def test_no_property_undoes_an_order(batch: MakeBatch, made: MakeEvent) -> None:
    stubborn = made(1, **{"$ip": "203.0.113.9", "$geoip_disable": False, "$process_person_profile": True})
    (event,) = json.loads(encoded(batch(stubborn), "k", historical=False))["batch"]
    assert {name: event["properties"][name] for name in ORDERS} == ORDERS


def test_what_is_from_the_past(batch: MakeBatch) -> None:
    assert json.loads(encoded(batch(1), "k", historical=True))["historical_migration"] is True


@pytest.mark.parametrize("ours", ["event_id", "anonymous_install_id", "timestamp"])
def test_an_event_waits_for_what_rename_took_away(batch: MakeBatch, made: MakeEvent, ours: str) -> None:
    with pytest.raises(RetryLater, match=f"it needs {ours}: check the destination's 'rename'"):
        encoded(batch(made(0), BatchEvent("7", "e", made(1, **{ours: None}).body)), "k", historical=False)


def test_what_posthog_would_discard_in_silence_is_set_aside(batch: MakeBatch, made: MakeEvent) -> None:
    with pytest.raises(Rejected, match="no UUID"):
        encoded(batch(made(1), made(2, event_id="no-uuid")), "k", historical=False)
    big = made(1, event_id="0198c0de-0000-7000-8000-000000000009", text="x" * MOST_OF_AN_EVENT)
    with pytest.raises(TooLarge, match=f"no event of {MOST_OF_AN_EVENT} bytes or more"):
        encoded(batch(made(1), big), "k", historical=False)


def test_a_batch_below_the_limit_and_one_at_it(batch: MakeBatch, made: MakeEvent) -> None:
    near = [made(number, text="x" * 900_000) for number in range(22)]
    room = MOST_OF_A_BATCH - len(encoded(batch(*near), "k", historical=False))
    last = made(99, text="")
    fits = room - 1 - (len(encoded(batch(*near, last), "k", historical=False)) - MOST_OF_A_BATCH + room)
    encoded(batch(*near, made(99, text="x" * fits)), "k", historical=False)
    with pytest.raises(TooLarge, match="no batch of 20000000 bytes or more; found 20000000"):
        encoded(batch(*near, made(99, text="x" * (fits + 1))), "k", historical=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "http://us.i.posthog.com", "api_key": "phc_a"}, "expected https://"),
        ({"endpoint": "https://phc_a@us.i.posthog.com", "api_key": "phc_a"}, "use the key 'api_key'"),
        ({"endpoint": "https://us.i.posthog.com", "api_key": ""}, "expected the bare api_key"),
        ({"endpoint": "https://us.i.posthog.com", "api_key": "phc a"}, "expected the bare api_key"),
        ({"endpoint": "https://us.i.posthog.com", "api_key": "phx_hidden"}, "expected the key of the project, phc_"),
        ({"endpoint": "https://us.i.posthog.com"}, "api_key"),
        ({"api_key": "phc_a"}, "endpoint"),
        ({"endpoint": "https://us.i.posthog.com", "api_key": "k", "historical_migration": 1}, "historical_migration"),
        ({"endpoint": "https://us.i.posthog.com", "api_kye": "k"}, "api_key"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.toml: telemetry\.to\.posthog") as failure:
        decode(settings, PosthogReporter.Settings, "config.toml", key="telemetry.to.posthog")
    assert said in str(failure.value)
    assert "hidden" not in str(failure.value)


def test_the_key_is_not_repeated() -> None:
    settings = PosthogReporter.Settings(endpoint="https://us.i.posthog.com", api_key="phc_secret")
    assert "secret" not in f"{settings!r} {settings}"
    assert msgspec.structs.replace(settings, endpoint="https://eu.i.posthog.com").api_key == "phc_secret"
