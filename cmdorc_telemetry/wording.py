"""How values read, on a terminal as on a page: moments, durations, counts, shares, text of others. Pure."""

from __future__ import annotations

import time
from datetime import datetime


def clean(text: str) -> str:
    """``text`` in one line, without anything that a terminal, or a browser's idea of direction, would obey."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def moment(seconds: float) -> str:
    """Seconds since the epoch, as a person reads them: ``12 Oct 2026 03:00 UTC``."""
    when = time.gmtime(seconds)
    return f"{when.tm_mday} {time.strftime('%b %Y %H:%M UTC', when)}"


def moment_of(text: str) -> str:
    """An RFC 3339 moment, likewise; what is none stays as it is."""
    try:
        return moment(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())
    except ValueError:
        return text


def plural(count: int, noun: str, many: str = "") -> str:
    """``1 field``, ``1,284 fields``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def duration(milliseconds: float | None) -> str:
    """``870 ms``, ``3.5 s``, ``4 min 12 s``, ``1 h 31 min``; a dash for None."""
    if milliseconds is None:
        return "–"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(part: int, whole: int) -> str:
    """``91 %``; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "–"
