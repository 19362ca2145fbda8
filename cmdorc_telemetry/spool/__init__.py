"""The durable queue that all processes of one user share: SQLite, touched only by telemetry threads and commands."""

from .queue import Spool

__all__ = ["Spool"]
