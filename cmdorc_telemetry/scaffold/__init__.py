"""What a new plugin begins with: a complete distribution of each kind, made of the templates beside this file.

Pure: it knows files by their names, and writes none. ``new-plugin`` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from .. import __version__
from ..errors import ConfigError

Kind = Literal["reporter", "anonymizer", "detector", "lifecycle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WHAT: Mapping[Kind, str] = {
    "reporter": "sends events somewhere",
    "anonymizer": "makes what is shared coarser",
    "detector": "watches events, and tells of what is unusual",
    "lifecycle": "listens to what an orchestrator does",
}
"""What a plugin of each kind does."""

_TEMPLATES = Path(__file__).with_name("templates")
_SUFFIX = ".template"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 30
_PREFIX = "cmdorc-telemetry-"
_MARK = re.compile(r"@(\w+)@")


def folder(name: str) -> str:
    """The name of the distribution, and of its folder. Raises ConfigError for a name that none can have."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        expected = f"at most {_LONGEST} small letters, digits and single hyphens, beginning with a letter"
        raise ConfigError("new-plugin", "NAME", f"found {name!r}", expected)
    if name.startswith(_PREFIX):
        raise ConfigError("new-plugin", "NAME", f"found {name!r}", f"{name.removeprefix(_PREFIX)}: the rest is added")
    return f"{_PREFIX}{name}"


def files(name: str, kind: Kind) -> dict[str, str]:
    """Path within the folder → contents, of a new plugin. Raises ConfigError for a name that none can have."""
    from ..hookspecs import API_VERSION  # with pluggy: help comes without it

    words = {
        "name": name,
        "distribution": folder(name),
        "package": folder(name).replace("-", "_"),
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "kind": kind,
        "what": WHAT[kind],
        "api": f"v{API_VERSION}",
        "version": __version__,
        "next": _next_minor(__version__),
    }
    made: dict[str, str] = {}
    for part in ("every", kind):
        root = _TEMPLATES / part
        for path in sorted(root.rglob(f"*{_SUFFIX}")):
            where = _filled(path.relative_to(root).as_posix().removesuffix(_SUFFIX), words)
            text = _filled(path.read_text(encoding="utf-8"), words)
            made[where] = made.get(where, "") + text  # a file of which every kind adds a part
    return made


def _filled(text: str, words: Mapping[str, str]) -> str:
    return _MARK.sub(lambda found: words[found[1]], text)


def _next_minor(version: str) -> str:
    major, minor, *_ = version.split(".")
    return f"{major}.{int(minor) + 1}"
