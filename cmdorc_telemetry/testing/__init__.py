"""For authors of plugins and applications: a server that fails in every way a server, or the way to it, can.

Part of the extra ``testing``. Nothing of the core imports it, and nothing of it belongs into a running program.

    with FaultServer(faults=["503-seconds", "answer-lost"]) as server:
        ...  # send something to server.endpoint: refused, then taken but not answered, then all is well
"""

from .faults import FAULTS, Fault, randomly, slow, status, too_large
from .messages import Answer, Forward, Receiver, Request
from .names import names
from .server import FaultServer

__all__ = [
    "FAULTS",
    "Answer",
    "Fault",
    "FaultServer",
    "Forward",
    "Receiver",
    "Request",
    "names",
    "randomly",
    "slow",
    "status",
    "too_large",
]
