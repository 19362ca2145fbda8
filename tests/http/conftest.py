"""Servers on loopback that fail as they are told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from cmdorc_telemetry.testing import FaultServer


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def tls_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """One with TLS. Who wants to trust it sets ``SSL_CERT_FILE`` to its ``authority``."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with FaultServer(tls=True) as server:
        yield server


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Whatever goes wrong is raised, never logged."""
    with caplog.at_level(logging.DEBUG, logger="cmdorc_telemetry"):
        yield
    assert [record for record in caplog.records if record.name.startswith("cmdorc")] == []
