"""The sandbox as a fixture for pytest.

In the ``conftest.py`` of an application's tests:

    from cmdorc_telemetry.testing.fixtures import telemetry_sandbox, telemetry_sources  # noqa: F401

    @pytest.fixture
    def telemetry_sources():
        return [APPLICATION]

or, in the outermost one, ``pytest_plugins = ["cmdorc_telemetry.testing.fixtures"]`` instead of the import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from .sandbox import Sandbox
from .sources import Source


@pytest.fixture
def telemetry_sources() -> Sequence[Source]:
    """What says which events there are: to be overridden with an application, or with spec files."""
    return ()


@pytest.fixture
def telemetry_sandbox(telemetry_sources: Sequence[Source]) -> Iterator[Sandbox]:
    """Telemetry for one test, as if its user had said yes."""
    with Sandbox(*telemetry_sources) as sandbox:
        yield sandbox
