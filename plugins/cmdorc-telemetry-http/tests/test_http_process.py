"""What only shows in a process of its own: imports."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

import cmdorc_telemetry_http
from cmdorc_telemetry_http import HttpReporter

if TYPE_CHECKING:
    from .conftest import Server


def run(script: str, *args: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(script), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    out = run("""
        import sys
        before = set(sys.modules)  # a measuring tool may have loaded some already
        import cmdorc_telemetry_http, cmdorc_telemetry_http.plugin as plugin
        assert "msgspec" not in sys.modules and "cmdorc_telemetry_http.reporter" not in sys.modules
        (kind,) = plugin.telemetry_reporters()
        assert kind is cmdorc_telemetry_http.HttpReporter
        from cmdorc_telemetry.types import Batch, BatchEvent
        reporter = kind(kind.Settings(endpoint="https://t.example/v1"))
        reporter.encode(Batch(destination="http", events=(BatchEvent("e", "x", b"{}"),)))
        print([name for name in ("h11", "asyncio", "socket", "ssl", "gzip", "zstandard")
               if name in set(sys.modules) - before])
    """)
    assert out == "[]"


def test_the_package_offers_its_reporter() -> None:
    (point,) = (each for each in metadata.entry_points(group="cmdorc_telemetry") if each.name == "http")
    assert point.load().telemetry_reporters() == [HttpReporter]
    assert metadata.version("cmdorc-telemetry-http") == cmdorc_telemetry_http.__version__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmdorc_telemetry_http.nothing


def test_one_event_over_plain_http_needs_little(server: Server) -> None:
    out = run(
        """
        import sys
        import asyncio, cmdorc_telemetry.types  # what the core has, too
        before = set(sys.modules)
        from cmdorc_telemetry.types import Batch, BatchEvent
        from cmdorc_telemetry_http import HttpReporter
        reporter = HttpReporter(HttpReporter.Settings(endpoint=sys.argv[1]))
        body = b'{"event":"command_completed","event_id":"e"}'
        batch = Batch(destination="http", events=(BatchEvent("e", "command_completed", body),))
        asyncio.run(reporter.report_batch(batch))
        new = set(sys.modules) - before
        print(sorted(new & {"email", "gzip", "http.client", "urllib.request", "zstandard"}), len(new) < 40)
        """,
        server.endpoint,
    )
    assert out == "[] True"
