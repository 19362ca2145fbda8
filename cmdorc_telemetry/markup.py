"""HTML as values: ``html.p("1 < 2", class_="note")`` is ``<p class="note">1 &lt; 2</p>``, and is ``Markup``.

Text becomes part of an element in one place, and is escaped there; only what this module made is taken as it is. Names
of elements and attributes are the program's own and never data. Knows nothing of pages or charts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
_EMPTY = frozenset({"br", "input", "link", "meta"})
_CLOSED = frozenset({"circle", "line", "path", "rect"})


class Markup(str):
    """Text that is HTML already. Made by this module; ``Markup(text)`` is for texts that a program brings itself."""

    __slots__ = ()


Child: TypeAlias = "str | float | Iterable[Child] | None"
Attribute: TypeAlias = "str | float | None"


def escaped(text: str) -> Markup:
    """``text`` as HTML, in an element as in a quoted attribute.

    What has no form of its own there (control characters, marks that turn the direction of writing, halves of
    characters) is shown as �, so that a name reads as it is and a page can always be encoded.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)
    return Markup(text.translate(_ESCAPES))


def joined(*children: Child) -> Markup:
    """``children`` one after the other, without an element around them; None is nothing."""
    return Markup("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escaped(child)
    if isinstance(child, float | int):
        return _number(child)
    return joined(*child)


def _number(value: int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Elements:
    """``elements.NAME(*children, **attributes)`` for any name of an element.

    An underscore at the end of an attribute's name goes, others become hyphens. True is an attribute without a value,
    None and False are none at all.
    """

    def __getattr__(self, name: str) -> Callable[..., Markup]:
        def make(*children: Child, **attributes: Attribute) -> Markup:
            start = "".join((name, *(_attribute(key, value) for key, value in attributes.items())))
            if name in _EMPTY:
                return Markup(f"<{start}>")
            if name in _CLOSED and not children:
                return Markup(f"<{start}/>")
            return Markup(f"<{start}>{joined(*children)}</{name}>")

        return make


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    key = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    return f' {key}="{_number(value) if isinstance(value, int | float) else escaped(value)}"'


html = Elements()
"""Elements of HTML, and of the SVG in it."""
