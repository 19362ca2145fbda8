"""What is sent, byte for byte; what cannot be; which settings are taken."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, Rejected, TooLarge
from cmdorc_telemetry.types import Batch, BatchEvent
from cmdorc_telemetry_segment import SegmentReporter
from cmdorc_telemetry_segment.batches import MOST_OF_A_BATCH, MOST_OF_AN_EVENT, encoded


def event(text: str = "", event_id: str = "id") -> BatchEvent:
    body = f'{{"event":"ran","text":"{text}","anonymous_install_id":"i","timestamp":"t","event_id":"{event_id}"}}'
    return BatchEvent(event_id, "ran", body.encode())


def sent(*events: BatchEvent) -> bytes:
    return encoded(Batch(destination="d", events=events))


def test_one_event_byte_for_byte() -> None:
    assert sent(event("a")) == (
        b'{"batch":[{"type":"track","messageId":"id","event":"ran","anonymousId":"i","timestamp":"t",'
        b'"properties":{"text":"a"}}]}'
    )


def test_what_segment_would_not_keep() -> None:
    sent(event(), event(event_id="i" * 99))
    with pytest.raises(Rejected, match="100 characters"):
        sent(event(), event(event_id="i" * 100))
    sent(*[event()] * 2_500)
    with pytest.raises(TooLarge, match="2500 events at once; found 2501"):
        sent(*[event()] * 2_501)


def test_an_event_below_the_limit_and_one_at_it() -> None:
    room = MOST_OF_AN_EVENT - len(sent(event())) + len('{"batch":[]}')
    sent(event("x" * (room - 1)))
    with pytest.raises(TooLarge, match="no event of 32000 bytes or more; found 32000"):
        sent(event("x" * room))


def test_a_batch_below_the_limit_and_one_at_it() -> None:
    near = [event("x" * 30_000)] * 16
    room = MOST_OF_A_BATCH - len(sent(*near, event()))
    sent(*near, event("x" * (room - 1)))
    with pytest.raises(TooLarge, match="no batch of 500000 bytes or more; found 500000"):
        sent(*near, event("x" * room))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "http://api.segment.io/v1", "write_key": "wk"}, "expected https://"),
        ({"endpoint": "https://wk@api.segment.io/v1", "write_key": "wk"}, "use the key 'write_key'"),
        ({"endpoint": "https://api.segment.io/v1", "write_key": ""}, "expected the bare write_key"),
        ({"endpoint": "https://api.segment.io/v1", "write_key": "w k"}, "expected the bare write_key"),
        ({"endpoint": "https://api.segment.io/v1", "write_key": "hidden:pass"}, "found a colon"),
        ({"endpoint": "https://api.segment.io/v1"}, "write_key"),
        ({"write_key": "wk"}, "endpoint"),
        ({"endpoint": "https://api.segment.io/v1", "api_kye": "k"}, "write_key"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^config\.toml: telemetry\.to\.segment") as failure:
        decode(settings, SegmentReporter.Settings, "config.toml", key="telemetry.to.segment")
    assert said in str(failure.value)
    assert "hidden" not in str(failure.value)


def test_the_key_is_not_repeated() -> None:
    settings = SegmentReporter.Settings(endpoint="https://api.segment.io/v1", write_key="w_secret")
    assert "secret" not in f"{settings!r} {settings}"
    assert msgspec.structs.replace(settings, endpoint="https://events.eu1.segmentapis.com/v1").write_key == "w_secret"
