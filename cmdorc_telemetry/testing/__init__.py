"""For authors of plugins and applications: telemetry for one test, and servers to send to.

Part of the extra ``testing``. Nothing of the core imports it, and nothing of it belongs into a running program.

    with Sandbox("shop.telemetry.toml") as sandbox:
        ...  # run the application: in a home of its own, as if its user had said yes
        assert sandbox.recorded("acme.signup") == [{"plan": "team"}]

    with Collector("shop.telemetry.toml") as collector:
        ...  # send something to collector.endpoint
        assert collector.bad() == []

    with FaultServer(faults=["503-seconds", "answer-lost"]) as server:
        ...  # send something to server.endpoint: refused, then taken but not answered, then all is well

    class TestMine(ReporterContract):
        plugin = "mine"  # every promise of a reporter, tested: see docs/writing-a-plugin.md

Names are loaded when first used: what pytest imports at each start is no more than the fixtures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "FAULTS": "faults",
    "Answer": "messages",
    "AnonymizerContract": "contracts.anonymizer",
    "Bad": "verdicts",
    "Collector": "collector",
    "DetectorContract": "contracts.detector",
    "FakeClock": "fakeclock",
    "Fault": "faults",
    "FaultServer": "server",
    "Forward": "messages",
    "HostedContract": "contracts.hosted",
    "HttpReporterContract": "contracts.httpreporter",
    "LifecycleContract": "contracts.lifecycle",
    "Properties": "verdicts",
    "Reason": "verdicts",
    "Receiver": "messages",
    "Recorded": "recorded",
    "RecordingReporter": "recordingreporter",
    "ReporterContract": "contracts.reporter",
    "Request": "messages",
    "Samples": "samples",
    "Sandbox": "sandbox",
    "Withheld": "observed",
    "names": "nameservice",
    "orchestrator_of": "orchestrators",
    "randomly": "faults",
    "run": "orchestrators",
    "slow": "faults",
    "status": "faults",
    "too_large": "faults",
}
__all__ = [
    "FAULTS",
    "AnonymizerContract",
    "Answer",
    "Bad",
    "Collector",
    "DetectorContract",
    "FakeClock",
    "Fault",
    "FaultServer",
    "Forward",
    "HostedContract",
    "HttpReporterContract",
    "LifecycleContract",
    "Properties",
    "Reason",
    "Receiver",
    "Recorded",
    "RecordingReporter",
    "ReporterContract",
    "Request",
    "Samples",
    "Sandbox",
    "Withheld",
    "names",
    "orchestrator_of",
    "randomly",
    "run",
    "slow",
    "status",
    "too_large",
]

if TYPE_CHECKING:
    from .collector import Collector
    from .contracts.anonymizer import AnonymizerContract
    from .contracts.detector import DetectorContract
    from .contracts.hosted import HostedContract
    from .contracts.httpreporter import HttpReporterContract
    from .contracts.lifecycle import LifecycleContract
    from .contracts.reporter import ReporterContract
    from .fakeclock import FakeClock
    from .faults import FAULTS, Fault, randomly, slow, status, too_large
    from .messages import Answer, Forward, Receiver, Request
    from .nameservice import names
    from .observed import Withheld
    from .orchestrators import orchestrator_of, run
    from .recorded import Recorded
    from .recordingreporter import RecordingReporter
    from .samples import Samples
    from .sandbox import Sandbox
    from .server import FaultServer
    from .verdicts import Bad, Properties, Reason


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
