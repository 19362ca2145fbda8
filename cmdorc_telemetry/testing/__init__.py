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
"""

from .collector import Collector
from .faults import FAULTS, Fault, randomly, slow, status, too_large
from .messages import Answer, Forward, Receiver, Request
from .names import names
from .observed import Withheld
from .recorded import Recorded
from .sandbox import Sandbox
from .server import FaultServer
from .verdicts import Bad, Properties, Reason

__all__ = [
    "FAULTS",
    "Answer",
    "Bad",
    "Collector",
    "Fault",
    "FaultServer",
    "Forward",
    "Properties",
    "Reason",
    "Receiver",
    "Recorded",
    "Request",
    "Sandbox",
    "Withheld",
    "names",
    "randomly",
    "slow",
    "status",
    "too_large",
]
