"""Lists of names as they are written in TOML: one more, or one less, with every comment and line where it is.

tomlkit, which reads them, forgets a comma where a comment is the last thing in a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from .. import toml

_TOKEN = re.compile(r"""(?P<name>"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<comment>\#[^\n]*)|(?P<comma>,)""")


def with_one_more(names: Sequence[str], name: str) -> Sequence[str]:
    """``names`` with ``name`` at the end."""
    return _written(names, _added, name) if hasattr(names, "as_string") else [*names, name]


def taken_out(names: Sequence[str], name: str) -> Sequence[str]:
    """``names`` without ``name``, however often it is there."""
    return _written(names, _removed, name) if hasattr(names, "as_string") else [each for each in names if each != name]


def _written(names: Any, change: Callable[[str, str], str], name: str) -> Any:
    """Likewise for a list of tomlkit's."""
    import tomlkit

    return tomlkit.value(change(names.as_string(), name))


def _names(text: str) -> list[tuple[int, int, int]]:
    """Of each name: where it begins and ends, and where its comma ends; that is 0 where it has none."""
    found: list[tuple[int, int, int]] = []
    for token in _TOKEN.finditer(text):
        if token["name"]:
            found.append((*token.span(), 0))
        elif token["comma"]:
            found[-1] = (*found[-1][:2], token.end())
    return found


def _added(text: str, name: str) -> str:
    places = _names(text)
    if not places:
        return f'{text[:-1].rstrip()}\n    "{name}",\n]' if "#" in text else f'["{name}"]'
    start, end, comma = places[-1]
    before = text[text.rfind("\n", 0, start) + 1 : start]
    if "\n" not in text[:start] or before.strip():  # on one line, or on the same line as others
        return f'{text[:end]}, "{name}"{text[end:]}'
    line = text.find("\n", max(end, comma))
    line = len(text) - 1 if line < 0 else line  # the bracket
    head = text[:line] if comma else f"{text[:end]},{text[end:line]}"
    return f'{head.rstrip()}\n{before}"{name}"{"," if comma else ""}{text[line:]}'


def _removed(text: str, name: str) -> str:
    for start, end, comma in _names(text):
        if toml.loads(f"x = {text[start:end]}")["x"] == name:
            return _removed(_without(text, start, end, comma), name)
    return text


def _without(text: str, start: int, end: int, comma: int) -> str:
    """Without what is there, and with its line only where something else is on it."""
    head, tail = text[:start], text[end : comma - 1] + text[comma:] if comma else text[end:]
    after = re.match(r"[ \t]*", tail).end()  # type: ignore[union-attr]
    alone = "\n" in head and not head.rpartition("\n")[2].strip()
    if alone and tail[after : after + 1] == "\n":
        return head[: head.rfind("\n")] + tail[after:]
    if alone or comma:
        return head + tail[after:]
    return re.sub(r"[ \t]*,?[ \t]*$", "", head) + tail  # the last of a line
