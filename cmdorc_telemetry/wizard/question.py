"""A question, and whether an answer is one at all: its type first, then what its own check says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "choice", "yes", "number", "numbers", "names", "conditions", "table", "version"]


class Question(NamedTuple):
    """One question."""

    path: str
    text: str
    about: str = ""
    """What hangs on the answer, in a sentence or two."""
    kind: Kind = "text"
    default: Any = ""
    choices: Mapping[str, str] = {}
    """Answer → what it means."""
    check: Callable[[Any], str] = lambda answer: ""
    """What is wrong with an answer of the right type, and what would be right; empty for nothing."""

    def fault(self, answer: Any) -> str:
        """What is wrong with ``answer``, its type included; empty for nothing."""
        if self.kind == "choice":
            found = answer if isinstance(answer, str) else repr(answer)
            return "" if answer in list(self.choices) else f"found {found}; expected one of {', '.join(self.choices)}"
        expected, is_one = _KINDS[self.kind]
        return self.check(answer) if is_one(answer) else f"found {answer!r}; expected {expected}"

    def asks_the_same_as(self, other: Question | None) -> bool:
        """Whether an answer to ``other`` would have been given to this one, too."""
        return other is not None and self._replace(check=other.check) == other


def is_text(value: object) -> bool:
    """Whether it is a text, and all of it can be written."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half of a character, from a terminal that speaks another language
        return False


def is_number(value: object) -> bool:
    """Whether it is a number that others can read."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isfinite(value) if isinstance(value, float) else abs(value) <= 2**63


def _is_version(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_list(is_one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(is_one, value))


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text", is_text),
    "yes": ("true or false", lambda value: isinstance(value, bool)),
    "number": ("a number", lambda value: value is None or is_number(value)),
    "numbers": ("a list of numbers", _is_list(is_number)),
    "names": ("a list of texts", _is_list(is_text)),
    "conditions": ("a list of conditions", _is_list(is_text)),
    "table": ("a table", lambda value: isinstance(value, dict)),
    "version": ("a whole number, or three such as '1.0.0'", _is_version),
}
"""Kind → what an answer must be: in words, and the test."""
