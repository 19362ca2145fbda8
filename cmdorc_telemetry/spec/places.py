"""Where in a file the paths of a spec stand: the line of ``events.paid.properties.amount``, in TOML and in JSON.

Knows as much of both formats as that takes; a file that is none of them is refused elsewhere, before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from .documents import toml_document

Step = str | int
Path = tuple[Step, ...]


def line_of(text: str, at: str, *, form: str) -> int:
    """The line (1 is the first) of ``at`` in a document, or of as much of it as is there; ``form``: toml or json.

    Raises ValueError or RecursionError for what is no such document.
    """
    if not at:
        return 1
    document, lines = _parsed(text, form)
    path = _resolved(document, at)
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 1)


@lru_cache(maxsize=4)
def _parsed(text: str, form: str) -> tuple[Any, dict[Path, int]]:
    """A document, and the line of each of its parts: a file with many findings is read once."""
    return _json(text) if form == "json" else _toml(text)


# -- which place a path means ------------------------------------------------------------------------------------------


def _resolved(document: Any, at: str) -> Path:
    """The steps of ``at`` through a document. What an event has of a group, or of the context, is found there."""
    path, left = _steps(document, at)
    if left and path[:1] == ("events",) and path[2:] == ("properties",):
        event = _value(document, path[:2])
        elsewhere = (
            [f"groups.{group}.{left}" for group in event.get("groups", ())] if isinstance(event, Mapping) else []
        )
        for other in [*elsewhere, left]:
            found, rest = _steps(document, other)
            if found and not rest:
                return found
    return path


def _steps(value: Any, at: str) -> tuple[Path, str]:
    """As many steps as there are, and what is left of ``at``. A name may hold dots: the way that leads on is taken."""
    best: tuple[Path, str] = ((), at)
    for step, name, inner in _inner(value):
        if at == name:
            return (step,), ""
        if at.startswith((f"{name}.", f"{name}[")):
            rest = at[len(name) :].removeprefix(".")
            path, left = _steps(inner, rest)
            if len(left) < len(best[1]):
                best = ((step, *path), left)
    return best


def _inner(value: Any) -> Iterator[tuple[Step, str, Any]]:
    """The parts of a value: step, as a path names it, and the part."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key, key, each
            if not key.islower():
                yield key, re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", key), each
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield number, f"[{number}]", each
            name = each.get("key", each.get("name")) if isinstance(each, Mapping) else None
            if isinstance(name, str):
                yield number, name, each


def _value(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


# -- TOML --------------------------------------------------------------------------------------------------------------

_KEY = r"(?:[A-Za-z0-9_\-]+|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')"
_KEYS = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_HEADER = re.compile(rf"[ \t]*(?P<open>\[\[?)[ \t]*(?P<keys>{_KEYS})[ \t]*\]\]?")
_ENTRY = re.compile(rf"[ \t]*(?P<keys>{_KEYS})[ \t]*=")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|(?P<open>[\[{])|(?P<close>[\]}])'
    r"|(?P<end>\n)|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def _toml(text: str) -> tuple[Any, dict[Path, int]]:
    """A document, and the line of each of its tables and keys; what is in an inline table stands where that does."""
    document = toml_document(text)
    lines: dict[Path, int] = {}
    last: dict[Path, int] = {}
    table: Path = ()
    at, line = 0, 1
    while at < len(text):
        begin = at
        if header := _HEADER.match(text, at):
            keys = _keys(header["keys"])
            if header["open"] == "[[":
                array = (*_through(last, (), keys[:-1]), keys[-1])
                last[array] = last.get(array, -1) + 1
            table = _through(last, (), keys)
            _stands(lines, table, line)
            at = header.end()
        elif entry := _ENTRY.match(text, at):
            _stands(lines, _through(last, table, _keys(entry["keys"])), line)
            at = entry.end()
        at = _end_of_value(text, at)
        line += text.count("\n", begin, at)
    return document, lines


def _keys(dotted: str) -> list[str]:
    found = re.findall(_KEY, dotted)
    return [each[1:-1] if each[0] == "'" else json.loads(each) if each[0] == '"' else each for each in found]


def _through(last: Mapping[Path, int], path: Path, keys: list[str]) -> Path:
    """``path`` and ``keys`` below it; of an array of tables the last entry is meant."""
    for key in keys:
        path = (*path, key)
        if path in last:
            path = (*path, last[path])
    return path


def _stands(lines: dict[Path, int], path: Path, line: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], line)


def _end_of_value(text: str, at: int) -> int:
    """Behind the end of the line, or of the value that goes on over several."""
    depth = 0
    while found := _TOKEN.match(text, at):
        at = found.end()
        depth += (found["open"] is not None) - (found["close"] is not None)
        if found["end"] and depth <= 0:
            return at
    return len(text)


# -- JSON --------------------------------------------------------------------------------------------------------------

_PIECE = re.compile(r'"(?:\\.|[^"\\])*"|[\[\]{}:,\n]|[^\s\[\]{}:,"]+')


def _json(text: str) -> tuple[Any, dict[Path, int]]:
    """A document, and the line of each of its values and keys."""
    document = json.loads(text)
    lines: dict[Path, int] = {}
    path: list[Step] = []
    objects: list[bool] = []
    line = 1
    name = ""
    for found in _PIECE.finditer(text):
        piece = found[0]
        if objects and not objects[-1] and piece not in (",", "\n", "]"):
            lines.setdefault(tuple(path), line)
        match piece:
            case "\n":
                line += 1
            case "{" | "[":
                objects.append(piece == "{")
                path.append(0 if piece == "[" else "")
            case "}" | "]":
                objects.pop()
                path.pop()
            case ":":
                path[-1] = json.loads(name)
                lines.setdefault(tuple(path), line)
            case ",":
                step = path[-1]
                path[-1] = step + 1 if isinstance(step, int) else ""
            case _:
                name = piece
    return document, lines
