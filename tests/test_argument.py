"""A ``config=`` argument lowers by what it says, and by nothing that it does not say."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from cmdorc_telemetry import TelemetryConfig, TelemetryLevel, load_telemetry_config
from cmdorc_telemetry.config import Layer
from cmdorc_telemetry.consent import Consent, Grant
from cmdorc_telemetry.policy import decide

STANDARD = Consent("g", {"cmdorc.core": Grant(True, TelemetryLevel.STANDARD)}, {})


def share(config: TelemetryConfig | None) -> tuple[bool, TelemetryLevel]:
    argument = Layer.of(config) if config is not None else None
    policy = decide(STANDARD, user=Layer(), argument=argument, environ={}, now=datetime.now(timezone.utc))
    return policy.record, policy.share


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", (True, TelemetryLevel.STANDARD)),
        ("enabled = true", (True, TelemetryLevel.STANDARD)),
        ('level = "minimal"', (True, TelemetryLevel.MINIMAL)),
        ('enabled = true\nlevel = "minimal"', (True, TelemetryLevel.MINIMAL)),
        ("enabled = false", (False, TelemetryLevel.OFF)),
        ('level = "off"', (False, TelemetryLevel.OFF)),
    ],
)
def test_a_projects_table(tmp_path: Path, table: str, expected: tuple[bool, TelemetryLevel]) -> None:
    path = tmp_path / "cmdorc.toml"
    path.write_text(f"[telemetry]\n{table}\n")
    assert share(load_telemetry_config(path)) == expected


def test_one_made_by_code_says_everything() -> None:
    assert share(None) == (True, TelemetryLevel.STANDARD)
    assert share(TelemetryConfig()) == (False, TelemetryLevel.OFF)
    assert share(TelemetryConfig(enabled=True)) == (True, TelemetryLevel.MINIMAL)
