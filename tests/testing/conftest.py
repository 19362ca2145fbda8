"""What the tests of the testing package have in common."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The spec of a module's tests, in a file."""
    file = tmp_path / "shop.telemetry.toml"
    file.write_text(request.module.SPEC, encoding="utf-8")
    return file
