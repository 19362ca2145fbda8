"""What is sent, byte for byte; what cannot be; which settings are taken."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, Rejected, TooLarge
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_posthog import PosthogReporter
from cmdorc_telemetry_posthog.batches import MOST_OF_A_BATCH, MOST_OF_AN_EVENT, encoded

ID = "0198c0de-0000-7000-8000-000000000001"


def event(event_id: str = ID, **more: Any) -> BatchEvent:
    body = {"event": "ran", "os": "linux", "anonymous_install_id": "i", "timestamp": "t", "event_id": event_id, **more}
    return BatchEvent(event_id, "ran", json.dumps(body, separators=(",", ":")).encode())


def sent(*events: BatchEvent, historical: bool = False) -> bytes:
    return encoded(Batch(destination="d", events=events), "phc_a", historical=historical)


def test_one_event_byte_for_byte() -> None:
    body = (
        b'"batch":[{"uuid":"0198c0de-0000-7000-8000-000000000001","event":"ran","distinct_id":"i","timestamp":"t",'
        b'"properties":{"os":"linux","$geoip_disable":true,"$ip":"0.0.0.0","$process_person_profile":false}}]}'
    )
    assert sent(event()) == b'{"api_key":"phc_a",' + body
    assert sent(event(), historical=True) == b'{"api_key":"phc_a","historical_migration":true,' + body


def test_no_property_undoes_an_order() -> None:
    stubborn = event(**{"$ip": "203.0.113.9", "$geoip_disable": False, "$process_person_profile": True})
    (found,) = json.loads(sent(stubborn))["batch"]
    assert found["properties"] == {"os": "linux", "$geoip_disable": True, "$ip": "0.0.0.0",
                                   "$process_person_profile": False}  # fmt: skip


def test_what_posthog_would_discard_in_silence_is_not_sent() -> None:
    with pytest.raises(Rejected, match="no UUID"):
        sent(event(), event("no-uuid"))
    room = MOST_OF_AN_EVENT - len(sent(event(text=""))) + len('{"api_key":"phc_a","batch":[]}')
    sent(event(text="x" * (room - 1)))
    with pytest.raises(TooLarge, match=f"no event of {MOST_OF_AN_EVENT} bytes or more; found {MOST_OF_AN_EVENT}"):
        sent(event(), event(text="x" * room))


def test_a_batch_below_the_limit_and_one_at_it() -> None:
    near = [event(text="x" * 900_000)] * 22
    room = MOST_OF_A_BATCH - len(sent(*near, event(text="")))
    sent(*near, event(text="x" * (room - 1)))
    with pytest.raises(TooLarge, match="no batch of 20000000 bytes or more; found 20000000"):
        sent(*near, event(text="x" * room))


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
