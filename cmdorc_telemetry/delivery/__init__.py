"""Takes events out of the spool to where they go: one worker a destination, retries, acknowledgements."""

from .pace import pause
from .thread import Delivery
from .worker import Destination, Worker

__all__ = ["Delivery", "Destination", "Worker", "pause"]
