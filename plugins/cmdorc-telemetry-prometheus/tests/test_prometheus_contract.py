"""Every promise of a reporter."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from cmdorc_telemetry.testing import ReporterContract


class TestPrometheus(ReporterContract):
    plugin = "prometheus"

    def settings(self) -> dict[str, Any]:
        return {"path": str(self.folder / "cmdorc.prom")}

    def received(self) -> list[str]:
        """The ids that are remembered with the counts."""
        ids = []
        for path in self.machine.home.plugins.glob("prometheus/*.db"):
            with closing(sqlite3.connect(path)) as db:
                ids += [row[0] for row in db.execute("SELECT id FROM counted")]
        return [str(uuid.UUID(bytes=each)) for each in ids]

    @contextmanager
    def broken(self) -> Iterator[None]:
        """The directory of the textfile is gone."""
        away = self.folder.rename(self.folder.with_name("away"))
        yield
        away.rename(self.folder)
