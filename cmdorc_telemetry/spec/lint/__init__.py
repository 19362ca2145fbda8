"""What is unwise in a spec, or contradicts itself: a table, name → check and severity.

What cannot be a spec at all is refused when it is loaded. A finding names the path of what it is about, such as
``events.paid.properties.amount``; the spec may waive it there, with a reason, unless it is a contradiction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

from ..model import TelemetrySpec
from ..versions import Version, same
from . import care, contradictions, naming, privacy
from .rows import Found, Lint, Severity

NO_CONTRACT = "no-event-contract"
"""What :func:`lint_events` finds, which takes more than the spec."""


def _unknown_waiver(spec: TelemetrySpec, today: date) -> Found:
    for number, waiver in enumerate(spec.waivers):
        if waiver.lint not in (*LINTS, NO_CONTRACT):
            yield f"waivers[{number}]", f"waives {waiver.lint!r}, and there is no such lint"
        elif waiver.lint in LINTS and LINTS[waiver.lint].severity == "contradiction":
            yield f"waivers[{number}]", f"waives {waiver.lint!r}, a contradiction, which cannot be waived"


def _unused_waiver(spec: TelemetrySpec, today: date) -> Found:
    if not spec.waivers:
        return
    found = {(name, at) for name, row in LINTS.items() if row.check is not _unused_waiver
             for at, _ in row.check(spec, today)}  # fmt: skip
    for number, waiver in enumerate(spec.waivers):
        if waiver.lint in LINTS and (waiver.lint, waiver.at) not in found:
            yield (
                f"waivers[{number}]",
                f"waives {waiver.lint!r} at {waiver.at}, where it finds nothing; expected it gone",
            )


LINTS: Mapping[str, Lint] = {
    **contradictions.LINTS,
    "unknown-waiver": Lint(_unknown_waiver, "contradiction", "A waiver of no lint, or of one that cannot be waived."),
    "unused-waiver": Lint(_unused_waiver, "warning", "A waiver of what is not found."),
    **privacy.LINTS, **care.LINTS, **naming.LINTS,
}  # fmt: skip
"""Every lint there is."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    lint: str
    severity: Severity
    at: str
    message: str
    waived: str = ""
    """Why it is as it should be; empty where nobody says so."""

    @property
    def fails(self) -> bool:
        """Whether a check of the spec should fail."""
        return self.severity != "warning" and not self.waived


def lint(spec: TelemetrySpec, today: date) -> list[Finding]:
    """All findings in ``spec``, waived ones included, in the order of the table."""
    return [
        Finding(name, row.severity, at, message, "" if row.severity == "contradiction" else _waived(spec, name, at))
        for name, row in LINTS.items()
        for at, message in row.check(spec, today)
    ]


def _waived(spec: TelemetrySpec, lint: str, at: str) -> str:
    """Why a finding is as it should be; empty where nobody says so."""
    return next((waiver.reason for waiver in spec.waivers if (waiver.lint, waiver.at) == (lint, at)), "")


def lint_events(spec: TelemetrySpec, known: Sequence[tuple[str, Version]]) -> list[Finding]:
    """Whether the events of ``spec`` are those of a list of event contracts: (name, version)."""
    findings = []
    for event in spec.events:
        versions = [version for name, version in known if name == event.name]
        if not versions:
            message = "is in no event contract of the list; expected the name of one"
        elif not any(same(version, event.version) for version in versions):
            message = f"has version {event.version}; expected one of {', '.join(map(str, versions))}"
        else:
            continue
        at = f"events.{event.name}"
        findings.append(Finding(NO_CONTRACT, "error", at, message, _waived(spec, NO_CONTRACT, at)))
    return findings
