"""What an operator decides about a server: values only, no effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from cmdorc_telemetry.spec import TelemetryRegistry

MIB = 2**20


class Settings(Struct, frozen=True, kw_only=True):
    """One server's rules. The defaults are those of the command line."""

    k: int = 10
    """The smallest number of installs that a percentile is computed over."""
    accept_private: bool = False
    """Whether private properties are accepted: for a server of the user's own alone."""
    rate_limit: int = 6_000
    """Events a minute and install; 0 for no limit."""
    registry: TelemetryRegistry = field(default_factory=TelemetryRegistry.with_core)
    """The specs that events are checked against."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """What this server wants less of: what ``GET /v1/policy`` answers, and what is not stored."""
    body_limit: int = 2 * MIB
    """Bytes of a request's body as it is sent."""
    expanded_limit: int = 16 * MIB
    """Bytes of a request's body after decompression."""
    batch_limit: int = 5_000
    """Events of one batch."""
    body_timeout: float = 30.0
    """Seconds that a client may take to send a body."""
