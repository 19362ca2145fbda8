"""Every promise of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmdorc_telemetry.testing import DetectorContract


class TestThresholds(DetectorContract):
    plugin = "anomaly"

    def sample(self, number: int, *, unusual: bool) -> Mapping[str, Any]:
        state = "failed" if unusual else "success"
        return {"duration_ms": 900_000 if unusual else 10, "state": state, "final": True, "manual": True,
                "command_name": "Tests"}  # fmt: skip
