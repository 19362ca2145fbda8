"""Takes events out of the spool to where they go: one worker a destination, retries, acknowledgements."""

from .thread import Delivery
from .worker import EXIT_SECONDS, Destination, Worker, pause

__all__ = ["EXIT_SECONDS", "Delivery", "Destination", "Worker", "pause"]
