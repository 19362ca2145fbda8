"""Where the properties of an outcome may come from: the paths that there are, and which of them name something private.

What is at the end of a path is found by whoever knows it: ``operations`` for calls of functions, ``workflows`` for runs
and chains of cmdorc's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from .property import Property

FILLED = ("workflow_id", "index", "steps", "duration_ms", "outcome", "error_class")
"""What fills itself wherever the event declares a property of that name, and no path is given for it."""

CALL = ("input", "output", "error", "context", "name", "duration_ms", "outcome", "error_class")
"""The first words of the paths of an operation."""
_ENDED = ("duration_ms", "outcome", "error_class", "state", "timed_out", "concurrent_runs", "run_id")
RUN = ("name", "command", "trigger", "manual", "chain_depth", *_ENDED)
"""The paths of an operation whose calls are runs of commands."""
_CHAIN = ("workflow_id", "name", "trigger")
WORKFLOW: Mapping[str, Collection[str]] = {
    "started": _CHAIN,
    "step": (*_CHAIN, "step", "index", "causes", "started_ms", *_ENDED),
    "completed": (*_CHAIN, "started_ms", "outcome", "duration_ms", "steps", "failed", "cancelled"),
}
"""Those of a workflow, by which of its outcomes it is."""

ALWAYS_FILLED: Mapping[str, Collection[str]] = {
    "success": ("duration_ms", "outcome"),
    "failure": ("duration_ms", "outcome", "error_class"),
    "started": ("workflow_id",),
    "step": ("workflow_id", "index", "duration_ms", "outcome"),
    "completed": ("workflow_id", "steps", "duration_ms", "outcome"),
}
"""Of these, what each outcome always has. A step has an ``error_class`` only where it did not succeed."""

PRIVATE = ("command", "step", "trigger", "started_ms")
"""Paths that lead to names of the user's own, what a command is called, or an event; and to a time that is finer than
what is ever shared."""


def bounded(prop: Property, *, masked: bool) -> bool:
    """Whether a property may take what a private path leads to: it is not shared, or holds only names of the spec."""
    return prop.audience == "private" or prop.type == "enum" or masked


@lru_cache(1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` stands for ``name``, as cmdorc sees it: ``*`` is anything, every other sign itself."""
    return pattern == name or ("*" in pattern and _compiled(pattern).fullmatch(name) is not None)
