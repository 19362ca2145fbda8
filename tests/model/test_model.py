"""Whatever happens to a home directory, in whatever order: the reference model says the same of it. A short run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from .machine import Machine

Machine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False
)
TestModel = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")(
    pytest.mark.timeout(600)(Machine.TestCase)  # only a failure takes long: it is made small
)
