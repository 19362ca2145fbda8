"""Every promise of an anonymizer, with every kind of rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmdorc_telemetry.testing import AnonymizerContract


class TestAnonymizer(AnonymizerContract):
    plugin = "anonymizer"


class TestEveryRule(AnonymizerContract):
    plugin = "anonymizer"

    def settings(self) -> Mapping[str, Any]:
        return {
            "fields": {"timestamp": {"generalise": "day"}, "os": {"remove": True}},
            "events": {
                "command_completed": {
                    "duration_ms": {"buckets": [1000, 60000]}, "state": {"keep": ["failed"]},
                    "hashed_command_name": {"hash": True, "rare": 3},
                },
            },
        }  # fmt: skip
