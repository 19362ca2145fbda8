"""Every promise of a reporter that sends over HTTP."""

from __future__ import annotations

from cmdorc_telemetry.testing import HttpReporterContract


class TestHttp(HttpReporterContract):
    plugin = "http"
