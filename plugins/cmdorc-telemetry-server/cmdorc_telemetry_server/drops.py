"""The header in which a client tells what it lost: ``Telemetry-Drops: epoch=…; expired=3; full=1``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

HEADER = "Telemetry-Drops"
_EPOCH = re.compile(r"epoch=([A-Za-z0-9._:\-]{1,64})")
_COUNT = re.compile(r"([A-Za-z][A-Za-z0-9_\-]{0,39})=([0-9]{1,15})")
_MOST_REASONS = 20


class Drops(Struct, frozen=True, kw_only=True):
    """What one install lost, cumulative since its ``epoch`` began."""

    install: str
    epoch: str
    """Identifies the client's spool: counts start again with a new one."""
    counts: Mapping[str, int]
    """Events by reason."""


def parse(header: str) -> tuple[str, dict[str, int]] | None:
    """Epoch and counts by reason; None where the header is malformed."""
    first, *rest = (part.strip() for part in header.strip().rstrip(";").split(";"))
    epoch = _EPOCH.fullmatch(first)
    counts = [_COUNT.fullmatch(part) for part in rest]
    if epoch is None or len(counts) > _MOST_REASONS:
        return None
    found: dict[str, int] = {}
    for count in counts:
        if count is None or count[1] in found:
            return None
        found[count[1]] = int(count[2])
    return epoch[1], found
