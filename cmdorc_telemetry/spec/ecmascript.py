r"""Patterns as other languages read them: Python's regular expressions in the words of ECMA-262, with its ``u`` flag.

What both have is left alone, and what is said otherwise is said so that both understand it: ``(?s:.)``, named groups,
``\A``, ``\Z``, the line ends that a dot leaves out, brackets and braces that need a backslash there, and backslashes
that must not be. What only Python has, such as ``(?i:…)``, has no translation. ``\d`` and ``\w`` stay: there they hold
ASCII alone, and whoever means that writes ``[0-9]``.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.))"
    r"|(?P<open>\((?:\?(?:P<\w+>|P=\w+\)|<[=!]|[:=!]|s:)?)?)|(?P<close>\))|(?P<dot>\.)"
    r"|(?P<many>[*+?][+?]?|\{(?:\d+(?:,\d*)?|,\d+)\}[+?]?)|(?P<other>.)",
    re.DOTALL,
)
_SYNTAX = r"^$\.*+?()[]{}|/"
_NAMED = {"a": r"\x07", "A": "^", "Z": "$"}
_SAME = "dDwWsSbBnrtfv"


def ecmascript(pattern: str) -> str | None:
    """``pattern``, which compiles here, for ECMA-262; None where there is no translation."""
    said: list[str] = []
    groups = _Groups()
    for found in _TOKEN.finditer(pattern):
        text = found[0]
        match found.lastgroup:
            case "class":
                piece = _class(text)
            case "escape":
                piece = _escape(text, "")
            case "open":
                piece = groups.open(text)
            case "close":
                groups.dotall.pop()
                piece = text
            case "dot":
                piece = r"[\s\S]" if groups.dotall[-1] else r"[^\n]"
            case "many":
                piece = _many(text)
            case _:
                piece = f"\\{text}" if text in "{}]" else text
        if piece is None:
            return None
        said.append(piece)
    return "".join(said)


class _Groups:
    def __init__(self) -> None:
        self.dotall = [False]
        """Of each group that is open, whether a dot is any character in it."""
        self._count = 0
        self._numbers: dict[str, int] = {}

    def open(self, text: str) -> str | None:
        if text == "(?":  # flags, comments, conditions, atomic groups
            return None
        if text.startswith("(?P="):  # the digits behind it must not be read as a part of it
            return rf"(?:\{self._numbers[text[4:-1]]})"
        self.dotall.append(self.dotall[-1] or text == "(?s:")
        if text == "(" or text.startswith("(?P<"):
            self._count += 1
            self._numbers[text[4:-1]] = self._count
            return "("
        return "(?:" if text == "(?s:" else text


def _many(text: str) -> str | None:
    if len(text) > 1 and text[-1] == "+":  # possessive
        return None
    return text.replace("{,", "{0,")


def _escape(text: str, more: str) -> str | None:
    """One backslash and what is behind it; ``more``: what else has a meaning here."""
    sign = text[1]
    if len(text) > 2:
        return chr(int(f"0x{text[2:]}", 0)) if sign == "U" else text
    if sign in ("N", "0") or (sign.isdigit() and more):  # a character by its name, or in octal
        return None
    if sign in _SAME or sign.isdigit():
        return text
    if sign in _NAMED and not more:
        return _NAMED[sign]
    if sign in _SYNTAX or sign in more:
        return text
    return r"\x07" if sign == "a" else sign


def _class(text: str) -> str | None:
    head = "[^" if text.startswith("[^") else "["
    said = []
    for found in re.finditer(r"\\(?:x..|u.{4}|U.{8}|.)|.", text[len(head) : -1], re.DOTALL):
        piece = _escape(found[0], "-") if found[0][0] == "\\" else found[0]
        if piece is None:
            return None
        said.append(f"\\{piece}" if piece in "[]" else piece)
    return f"{head}{''.join(said)}]"
