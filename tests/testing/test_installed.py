"""The extra as authors have it: plain `pip install`, plain pytest, nothing of this repository around."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = """
import asyncio
import cmdorc_telemetry.testing as testing
from cmdorc_telemetry.testing import HttpReporterContract


class TestHttp(HttpReporterContract):
    plugin = "http"
    faults = ("500",)


def test_every_name_is_there():
    assert all(getattr(testing, name) for name in testing.__all__)


def test_fixtures(telemetry_sandbox, telemetry_run, telemetry_reporter, telemetry_clock, telemetry_server):
    asyncio.run(telemetry_run({"Tests": ("true", ["changed"])}, "changed"))
    assert len(telemetry_sandbox.recorded("command_completed")) == 1
    assert telemetry_server.endpoint
    assert not telemetry_reporter.batches
"""
DETACHED = ("CMDORC", "DO_NOT", "PYTHON", "COVERAGE", "COV_", "PYTEST")


@pytest.fixture(scope="module")
def environment(fresh: Callable[..., Path]) -> Path:
    return fresh("cmdorc-telemetry[testing]", "cmdorc-telemetry-http")


@pytest.fixture
def check(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """What pytest says of a directory with these tests."""
    (tmp_path / "test_mine.py").write_text(TESTS)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(DETACHED)}

    command = [environment / "bin" / "python", "-m", "pytest", "-W", "error"]

    def run(*words: str) -> str:
        done = subprocess.run([*command, *words], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=120,
                              check=False)  # fmt: skip
        return done.stdout + done.stderr

    return run


def test_contracts_and_fixtures_work(check: Callable[..., str]) -> None:
    said = check("-q", "-k", "not whatever_goes_wrong or 500")
    assert re.search(r"\n\d\d passed, \d+ deselected in ", said), said


def test_who_does_not_want_the_fixtures_has_none(check: Callable[..., str]) -> None:
    ours = re.findall(r"^(\w+).* -- .*testing/fixtures\.py:\d+$", check("--fixtures"), re.MULTILINE)
    assert "telemetry_sandbox" in ours
    assert [name for name in ours if not name.startswith("telemetry_")] == [], "names that others may have"
    assert "telemetry_" not in check("--fixtures", "-p", "no:cmdorc_telemetry.testing.fixtures")
