"""Every promise of a reporter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cmdorc_telemetry.testing import ReporterContract


class TestFile(ReporterContract):
    plugin = "file"

    def settings(self) -> dict[str, Any]:
        return {"path": str(self.folder / "reports.jsonl")}

    def received(self) -> list[str]:
        path = self.folder / "reports.jsonl"
        return [json.loads(line)["event_id"] for line in path.read_bytes().splitlines()] if path.exists() else []

    @contextmanager
    def broken(self) -> Iterator[None]:
        """A directory in the place of the file."""
        path = self.folder / "reports.jsonl"
        path.mkdir()
        yield
        path.rmdir()
