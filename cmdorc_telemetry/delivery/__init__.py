"""Takes events out of the spool to where they go: one worker a destination, retries, acknowledgements."""

from .outlet import Destination
from .pace import pause
from .thread import Delivery
from .worker import Worker

__all__ = ["Delivery", "Destination", "Worker", "pause"]
