"""What more than one section is made of."""

from __future__ import annotations

from ..markup import Child, Markup, html
from ..wording import plural

Part = tuple[str, str, Child]
"""The key of a section, its title, and what is in it."""

SECTIONS = {
    "places": "Where every event is",
    "collected": "What is collected, and why",
    "queues": "What waits to be sent",
    "sent": "What left this machine",
    "withheld": "What was withheld, and by whom",
    "past": "Your history",
    "change": "Change something",
}


def part(key: str, *content: Child, title: str = "") -> Part:
    """A section, under its usual title or another one."""
    return key, title or SECTIONS[key], content


def card(*content: Child, class_: str = "card") -> Markup:
    """A box."""
    return html.div(content, class_=class_)


def tag(text: str, kind: str = "") -> Markup:
    """A state, in a word or two."""
    return html.span(text, class_=f"tag {kind}".strip())


def name(text: str) -> Markup:
    """A name that somebody else chose: whatever it is written in, it does not turn the text around it."""
    return html.bdi(text)


def code(text: Child) -> Markup:
    """Something that a machine reads."""
    return html.code(text)


def failure(sentence: str) -> Markup:
    """Said in place of what could not be found out."""
    return card(html.p(tag("not known", "warn"), " ", sentence), class_="card failure")


def size(count: int) -> str:
    """``312 bytes``, ``12.1 kB``."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return plural(count, "byte")
