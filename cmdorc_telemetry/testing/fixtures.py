"""Fixtures for pytest: a plugin of pytest's, there wherever this is installed. None does anything unless asked for.

``telemetry_sandbox``: telemetry for one test, of the application or the specs that ``telemetry_sources`` says. In the
``conftest.py`` of an application's tests:

    @pytest.fixture
    def telemetry_sources():
        return [APPLICATION]

For authors of plugins there are also ``telemetry_reporter``, ``telemetry_clock``, ``telemetry_run`` and
``telemetry_server``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

# All else is imported by the fixtures: every run of pytest imports this file, whatever it tests.
if TYPE_CHECKING:
    from ..telemetry import Telemetry
    from .fakeclock import FakeClock
    from .recordingreporter import RecordingReporter
    from .sandbox import Sandbox
    from .server import FaultServer
    from .sources import Source


@pytest.fixture
def telemetry_sources() -> Sequence[Source]:
    """What says which events there are: to be overridden with an application, or with spec files."""
    return ()


@pytest.fixture
def telemetry_sandbox(telemetry_sources: Sequence[Source]) -> Iterator[Sandbox]:
    """Telemetry for one test, as if its user had said yes, in a home that is gone afterwards."""
    from .sandbox import Sandbox

    with Sandbox(*telemetry_sources) as sandbox:
        yield sandbox


@pytest.fixture
def telemetry_reporter() -> RecordingReporter:
    """A reporter that keeps what it is given, and fails as it is told."""
    from .recordingreporter import RecordingReporter

    return RecordingReporter()


@pytest.fixture
def telemetry_clock() -> Iterator[FakeClock]:
    """A clock that stands still until the test moves it."""
    from .fakeclock import FakeClock

    with FakeClock() as clock:
        yield clock


@pytest.fixture
def telemetry_run(telemetry_sandbox: Sandbox) -> Callable[..., Awaitable[Telemetry]]:
    """``await telemetry_run({"Tests": ("pytest", ["changed"])}, "changed")``: a real orchestrator, in the sandbox."""
    from .orchestrators import run

    return run


@pytest.fixture
def telemetry_server() -> Iterator[FaultServer]:
    """A server on loopback that fails as it is told."""
    from .server import FaultServer

    with FaultServer() as server:
        yield server
