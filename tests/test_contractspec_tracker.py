"""What ContractSpec's first tracker and monitor promise holds here, and what they get wrong does not.

T5 to T8 are the behaviours that their own tests hold, the rest is what those leave open. Of their registry and their
documents: test_contractspec_defects.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry import (
    Result,
    TelemetryAnomalyMonitor,
    TelemetryReporter,
    TelemetryTracker,
    ThresholdAnomaly,
)
from cmdorc_telemetry.gate import Gate
from cmdorc_telemetry.spec import MASK, Shapes, TelemetrySpec, parse_json
from cmdorc_telemetry.types import Row

from .acme import Acme, Keeper
from .agreement import agree

STEP = "sigil.telemetry.workflow_step"


def document(*, version: Any = 1, **event: Any) -> dict[str, Any]:
    """The document of the seed, in the older spelling; ``event`` replaces what is said of its event."""
    return {
        "meta": {"name": "sigil.telemetry", "version": version, "title": "Sigil telemetry", "domain": "sigil",
                 "description": "Core product telemetry", "owners": ["@team.analytics"], "tags": ["telemetry"],
                 "stability": "experimental"},
        "config": {"defaultRetentionDays": 30, "defaultSamplingRate": 1,
                   "providers": [{"type": "posthog", "config": {"projectApiKey": "phc_secret"}}]},
        "events": [{
            "name": STEP, "version": version,
            "semantics": {"what": "Workflow step executed", "who": "Actor executing the workflow"},
            "privacy": "internal",
            "properties": {"workflow": {"type": "string", "required": True}, "step": {"type": "string"},
                           "durationMs": {"type": "number"}, "ok": {"type": "boolean"},
                           "userId": {"type": "string", "pii": True, "redact": True}},
            "anomalyDetection": {"enabled": True, "minimumSample": 1,
                                 "thresholds": [{"metric": "durationMs", "max": 1500}],
                                 "actions": ["alert", "trigger_regen"]},
            **event,
        }],
    }  # fmt: skip


GIVEN = {"workflow": "onboarding", "step": "verify_email", "durationMs": 2100, "userId": "user-123"}


class Sigil(Acme):
    """An installation of an application with that document."""

    def __init__(self, root: Path, told: dict[str, Any] | None = None) -> None:
        spec = parse_json(json.dumps(told or document()), "sigil.json")
        super().__init__(root, level=None)
        self.spec = spec
        self.application = self.application._replace(specs=(spec,))
        self.home = type(self.home).of(self.application, self.environ)
        agree(self.home, spec=spec)


def gated(spec: TelemetrySpec, count: int, **own: Any) -> tuple[Row, ...]:
    """What the gate makes of so many events."""
    install = "01234567-89ab-4def-8123-456789abcdef"
    bodies = [{"event": STEP, "anonymous_install_id": install, "timestamp": "2026-11-22T03:00:00Z", "spec": spec.ref,
               "event_id": f"01234567-89ab-7def-8123-{number:012x}", "workflow": "w", **own}
              for number in range(count)]  # fmt: skip
    frames = [json.dumps(["event", spec.ref, STEP, 1, 1000, body]).encode() for body in bodies]
    return Gate(Shapes([spec]), lambda generation, name: "debug").gate(frames, "g", "j").rows


# -- what it promises --------------------------------------------------------------------------------------------------


async def test_t5_an_event_reaches_its_provider_once_and_what_is_personal_masked(tmp_path: Path) -> None:
    keeper = Keeper()
    tracker = Sigil(tmp_path).tracker(keeper)
    assert await tracker.track(STEP, 1, GIVEN) is Result.CAPTURED
    assert tracker.flush(20)
    tracker.close()
    (got,) = keeper.got
    assert (got["event"], got["userId"], got["workflow"]) == (STEP, MASK, "onboarding")


def test_t6_of_a_rate_of_one_everything_is_shared_and_of_zero_nothing() -> None:
    for rate, count in ((1, 50), (0, 0)):
        spec = parse_json(json.dumps(document(sampling={"rate": rate})), "x.json")
        assert sum(row.shared is not None for row in gated(spec, 50)) == count


def test_a_rate_of_a_half_shares_about_half_and_always_the_same() -> None:
    spec = parse_json(json.dumps(document(sampling={"rate": 0.5})), "x.json")
    first, second = ([row.shared for row in gated(spec, 2000)] for _ in range(2))
    assert first == second
    assert abs(sum(body is not None for body in first) / 2000 - 0.5) < 0.05


def test_the_rate_of_the_spec_holds_where_the_event_has_none() -> None:
    told = document()
    told["config"]["defaultSamplingRate"] = 0.25
    shared = [row for row in gated(parse_json(json.dumps(told), "x.json"), 2000) if row.shared is not None]
    assert abs(len(shared) / 2000 - 0.25) < 0.05


def seen_by(tmp_path: Path, told: dict[str, Any], *values: Any, metric: str = "durationMs") -> list[ThresholdAnomaly]:
    seen: list[ThresholdAnomaly] = []
    tracker = Sigil(tmp_path, told).tracker(anomaly_monitor=TelemetryAnomalyMonitor(seen.append))
    for value in values:
        tracker.track_now(STEP, None, {**GIVEN, metric: value})
    tracker.close()
    return seen


def test_t7_a_value_beyond_its_maximum_is_told_once(tmp_path: Path) -> None:
    (anomaly,) = seen_by(tmp_path, document(), 3000)
    assert (anomaly.event, anomaly.metric, anomaly.value, anomaly.bound) == (STEP, "durationMs", 3000, "max")


def test_t8_of_two_values_exactly_the_one_beyond(tmp_path: Path) -> None:
    rules = {"enabled": True, "minimumSample": 1, "thresholds": [{"metric": "durationMs", "max": 1000}]}
    assert [each.value for each in seen_by(tmp_path, document(anomalyDetection=rules), 500, 2000)] == [2000]


def test_the_first_of_a_sample_are_not_judged_and_its_last_is(tmp_path: Path) -> None:
    rules = {"enabled": True, "minimumSample": 3, "thresholds": [{"metric": "durationMs", "max": 1000}]}
    told = document(anomalyDetection=rules)
    assert [each.value for each in seen_by(tmp_path, told, 2001, 2002, 2003, 2004)] == [2003, 2004]


def test_three_thresholds_are_told_three_times(tmp_path: Path) -> None:
    rules = {"enabled": True, "minimumSample": 1,
             "thresholds": [{"metric": "durationMs", "max": most} for most in (10, 100, 1000)]}  # fmt: skip
    assert [each.limit for each in seen_by(tmp_path, document(anomalyDetection=rules), 2000)] == [10, 100, 1000]


# -- what it gets wrong ------------------------------------------------------------------------------------------------


def test_4_a_lookup_without_a_version_works_whatever_the_spelling_of_versions(tmp_path: Path) -> None:
    for number, version in enumerate((1, "1.0.0", 7, "2.3.4")):
        acme = Sigil(tmp_path / str(number), document(version=version))
        tracker = acme.tracker()
        assert tracker.track_now(STEP, None, GIVEN) is Result.CAPTURED
        assert tracker.track_now(STEP, version, GIVEN) is Result.CAPTURED
        tracker.close()


@pytest.mark.parametrize("privacy", ["internal", "sensitive", "public", "pii"])
def test_5_what_is_undeclared_or_of_the_wrong_type_does_not_leave_and_what_is_required_is(
    tmp_path: Path, privacy: str
) -> None:
    acme, keeper = Sigil(tmp_path, document(privacy=privacy)), Keeper()
    tracker = acme.tracker(keeper)
    wrong = {**GIVEN, "ok": "yes", "password": "hunter2"}
    assert tracker.track_now(STEP, 1, wrong, {"userId": "user-123", "sessionId": "s-1"}) is Result.CAPTURED
    lacking = {"step": "verify_email"}
    assert tracker.track_now(STEP, 1, lacking) is Result.WITHHELD
    assert tracker.flush(20)
    tracker.close()
    (got,) = keeper.got
    assert not {"password", "userId.context", "context.userId", "sessionId"} & got.keys()
    assert not [secret for secret in ("hunter2", "user-123", "s-1") if secret in json.dumps(got)]
    masked = privacy == "sensitive"
    assert got["workflow"] == (MASK if masked else "onboarding")
    assert got.get("ok") == (MASK if masked else None)


def test_6_no_provider_is_told_the_keys_of_another(tmp_path: Path) -> None:
    acme, keeper = Sigil(tmp_path), Keeper()
    tracker = acme.tracker(keeper)
    tracker.track_now(STEP, 1, GIVEN)
    assert tracker.flush(20)
    tracker.close()
    assert "phc_secret" not in json.dumps(keeper.got)
    stored = b"".join(path.read_bytes() for path in acme.home.root.rglob("*") if path.is_file())
    assert b"phc_secret" not in stored


class Failing(TelemetryReporter):
    """Fails so often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times
        self.got: list[str] = []

    async def report(self, event: str, payload: dict[str, Any]) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("not now")
        self.got.append(payload["event_id"])


def test_7_a_provider_that_fails_is_asked_again_and_the_others_are_not_sent_to_twice(tmp_path: Path) -> None:
    keeper, failing, seen = Keeper(), Failing(1), list[ThresholdAnomaly]()
    tracker = Sigil(tmp_path).tracker(failing, keeper, anomaly_monitor=TelemetryAnomalyMonitor(seen.append))
    assert tracker.track_now(STEP, 1, GIVEN) is Result.CAPTURED
    assert len(seen) == 1, "the monitor does not wait for providers"
    deadline = time.monotonic() + 30
    while not failing.got and time.monotonic() < deadline:
        tracker.flush(5)
    tracker.close()
    assert failing.got == [each["event_id"] for each in keeper.got]
    assert len(keeper.got) == 1


def test_8_what_on_anomaly_raises_is_no_matter_of_the_callers(tmp_path: Path) -> None:
    def broken(anomaly: ThresholdAnomaly) -> None:
        raise RuntimeError("broken")

    acme, keeper = Sigil(tmp_path), Keeper()
    tracker = acme.tracker(keeper, anomaly_monitor=TelemetryAnomalyMonitor(broken))
    assert tracker.track_now(STEP, 1, GIVEN) is Result.CAPTURED
    assert tracker.flush(20)
    tracker.close()
    assert len(keeper.got) == 1


def test_9_a_mask_is_no_data_and_no_anomaly(tmp_path: Path) -> None:
    properties = {"workflow": {"type": "string"}, "durationMs": {"type": "number", "pii": True, "redact": True},
                  "ok": {"type": "boolean", "redact": True}}  # fmt: skip
    rules = {"enabled": True, "minimumSample": 1, "thresholds": [{"metric": "durationMs", "min": 1}]}
    told = document(properties=properties, anomalyDetection=rules)
    assert seen_by(tmp_path, told, 500, 0) == []
    acme = Sigil(tmp_path, told)
    tracker = acme.tracker()
    tracker.track_now(STEP, 1, {"ok": False})
    tracker.close()
    assert {"ok": MASK} in [frame.own for frame in acme.frames()]


def test_10_a_mask_keeps_neither_keys_nor_lengths(tmp_path: Path) -> None:
    acme = Sigil(tmp_path)
    tracker = acme.tracker()
    for value in ("user-123", ["a", "b", "c"], {"jane@example.org": {"deep": 1}}, 7):
        tracker.track_now(STEP, 1, {"workflow": "w", "userId": value})
    tracker.close()
    assert [frame.own["userId"] for frame in acme.frames()] == [MASK] * 4


def test_unknown_withheld_and_captured_are_three_things(tmp_path: Path) -> None:
    tracker = Sigil(tmp_path).tracker()
    found = [
        tracker.track_now("unheard.of", 1, GIVEN),
        tracker.track_now(STEP, 1, {}),
        tracker.track_now(STEP, 1, GIVEN),
    ]
    tracker.close()
    assert found == [Result.UNKNOWN, Result.WITHHELD, Result.CAPTURED]


def test_conditions_of_sampling_have_an_effect() -> None:
    spec = parse_json(json.dumps(document(sampling={"rate": 1, "conditions": ["durationMs > 1000"]})), "x.json")
    assert [row.shared is not None for row in (*gated(spec, 1, durationMs=2000), *gated(spec, 1, durationMs=500))] == [
        True, False,
    ]  # fmt: skip


def test_a_tracker_can_be_flushed_and_closed_and_delivers_in_batches(tmp_path: Path) -> None:
    acme, keeper = Sigil(tmp_path), Keeper()
    tracker: TelemetryTracker = acme.tracker(keeper)
    for number in range(100):
        tracker.track_now(STEP, 1, {**GIVEN, "durationMs": number})
    assert tracker.flush(20)
    tracker.close()
    assert [each["durationMs"] for each in keeper.got] == list(range(100))
    assert len({each["event_id"] for each in keeper.got}) == 100
