"""Every promise of a reporter that sends over HTTP, with a receiver as Segment documents it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from cmdorc_telemetry.testing import FAULTS, Answer, HttpReporterContract, Request


class TestSegment(HttpReporterContract):
    plugin = "segment"
    faults = tuple(name for name, fault in FAULTS.items() if not fault.tls and name != "some-rejected")

    @pytest.fixture(autouse=True)
    def _source(self, make_source: Callable[[], Any]) -> None:
        self.taken = make_source()

    def settings(self) -> Mapping[str, Any]:
        return {"endpoint": self.endpoint, "write_key": "ofThisSource"}

    def answer(self, request: Request) -> Answer:
        return self.taken(request)  # type: ignore[no-any-return]

    def received(self) -> Sequence[str]:
        return sorted(self.taken.ids())
