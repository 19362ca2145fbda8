"""What is sent, byte for byte; what cannot be; which settings are taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cmdorc_telemetry.decoding import decode
from cmdorc_telemetry.errors import ConfigError, Rejected, RetryLater, TooLarge
from cmdorc_telemetry.types import BatchEvent
from cmdorc_telemetry_segment import SegmentReporter
from cmdorc_telemetry_segment.batches import MOST_OF_A_BATCH, MOST_OF_AN_EVENT, encoded

if TYPE_CHECKING:
    from .conftest import MakeBatch, MakeEvent


def test_one_event_byte_for_byte(batch: MakeBatch) -> None:
    assert encoded(batch(1)) == (
        b'{"batch":[{"type":"track","messageId":"0198c0de-0000-7000-8000-000000000000","event":"command_completed",'
        b'"anonymousId":"6f1e1d3a-5b1c-4b6f-9d5e-000000000001","timestamp":"2026-01-02T03:04:05Z","properties":'
        b'{"cmdorc_version":"0.12.0","os":"linux","spec":"cmdorc.core@1","duration_ms":0,"state":"success"}}]}'
    )


def test_a_body_has_what_the_spec_declares_and_nothing_else(batch: MakeBatch) -> None:
    events = batch(3)
    sent = json.loads(encoded(events))
    assert set(sent) == {"batch"}
    for event, had in zip(sent["batch"], events.events, strict=True):
        assert set(event) == {"type", "messageId", "event", "anonymousId", "timestamp", "properties"}
        named = {"event_id": event["messageId"], "event": event["event"], "timestamp": event["timestamp"],
                 "anonymous_install_id": event["anonymousId"]}  # fmt: skip
        assert {**named, **event["properties"]} == had.payload


def test_the_same_batch_is_the_same_bytes(batch: MakeBatch) -> None:
    one, other = (SegmentReporter(SegmentReporter.Settings(endpoint="https://a.example", write_key="k")) for _ in "ab")
    assert one.encode(batch(3)) == other.encode(batch(3, epoch="another", drops={"expired": 3}))


def test_values_are_passed_on_as_the_gate_let_them_out(batch: MakeBatch) -> None:
    ids = '"event_id":"0198c0de-0000-7000-8000-000000000000","anonymous_install_id":"i","timestamp":"t"'
    body = f'{{"event":"e",{ids},"a":1.0,"b":1e3,"c":"\\u00fc ü","d":[ 1, 2],"e":12345678901234567890}}'.encode()
    event = BatchEvent("0198c0de-0000-7000-8000-000000000000", "e", body)
    sent = encoded(batch(event))
    assert '"a":1.0,"b":1e3,"c":"\\u00fc ü","d":[ 1, 2],"e":12345678901234567890}'.encode() in sent


@pytest.mark.parametrize("ours", ["event_id", "anonymous_install_id", "timestamp"])
def test_an_event_waits_for_what_rename_took_away(batch: MakeBatch, made: MakeEvent, ours: str) -> None:
    with pytest.raises(RetryLater, match=f"it needs {ours}: check the destination's 'rename'"):
        encoded(batch(made(0), BatchEvent("7", "e", made(1, **{ours: None}).body)))


def test_what_segment_would_not_keep(batch: MakeBatch, made: MakeEvent) -> None:
    encoded(batch(made(1), made(2, event_id="i" * 99)))
    with pytest.raises(Rejected, match="100 characters"):
        encoded(batch(made(1), made(2, event_id="i" * 100)))
    with pytest.raises(TooLarge, match="2500 events at once; found 2501"):
        encoded(batch(2_501))


def test_an_event_below_the_limit_and_one_at_it(batch: MakeBatch, made: MakeEvent) -> None:
    room = MOST_OF_AN_EVENT - len(encoded(batch(made(1, text="")))) + len('{"batch":[]}')
    encoded(batch(made(1, text="x" * (room - 1))))
    with pytest.raises(TooLarge, match="no event of 32000 bytes or more; found 32000"):
        encoded(batch(made(1, text="x" * room)))


def test_a_batch_below_the_limit_and_one_at_it(batch: MakeBatch, made: MakeEvent) -> None:
    near = [made(number, text="x" * 30_000) for number in range(16)]
    room = MOST_OF_A_BATCH - len(encoded(batch(*near, made(99, text=""))))
    encoded(batch(*near, made(99, text="x" * (room - 1))))
    with pytest.raises(TooLarge, match="no batch of 500000 bytes or more; found 500000"):
        encoded(batch(*near, made(99, text="x" * room)))


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
