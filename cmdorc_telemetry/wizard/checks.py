"""What is wrong with an answer of the right type: each says what was found and what would be right, or nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..spec.conditions import parse
from ..spec.lint.care import OWNER
from ..spec.lint.privacy import looks_secret
from ..spec.property import BASE, NAME, WORD, Property
from ..spec.versions import Version
from ..spec.versions import check as check_version
from .question import is_number, is_text

MOST = 1_000_000_000
"""More days, milliseconds, characters or events than that are a slip of the hand."""


def is_there(answer: str) -> str:
    """Any text but an empty one."""
    return "" if answer.strip() else "found nothing; expected a text"


def is_word(answer: str) -> str:
    """The name of a spec."""
    fits = len(answer) <= 100 and re.fullmatch(WORD, answer)
    return "" if fits else f"{answer!r} is no name; expected at most 100 letters, digits and . _ + -"


def is_name(answer: str, taken: Collection[Any]) -> str:
    """The name of an event or a property that is not ``taken``."""
    if not NAME.fullmatch(answer):
        return f"{answer!r} is no name; expected letters, digits and $ _ . - only"
    return f"{answer!r} is there already; expected another name" if answer in taken else ""


def is_own(answer: str) -> str:
    """No field that every event has."""
    return f"{answer!r} is a field that every event has; expected another name" if answer in BASE else ""


def is_version(answer: Version) -> str:
    """A version, in either spelling."""
    try:
        check_version(answer)
    except ValueError as fault:
        return str(fault)
    return ""


def are_owners(answer: list[str]) -> str:
    """At least one, each with an @."""
    wrong = [each for each in answer if not (each.startswith("@") and OWNER.fullmatch(each))]
    if wrong or not answer:
        return f"found {', '.join(wrong) or 'nobody'}; expected names such as @team.analytics"
    return ""


def are_members(answer: list[str]) -> str:
    """The words of an enum."""
    if not answer or not all(each.strip() for each in answer):
        return "found no word; expected at least one"
    if "other" in answer:
        return "found 'other', which every enum has; expected it left out"
    twice = next((each for each in answer if answer.count(each) > 1), None)
    return "" if twice is None else f"found {twice!r} twice; expected each once"


def are_edges(answer: list[float]) -> str:
    """Where the ranges of a bucket end."""
    shown = ", ".join(f"{each:g}" for each in answer) or "nothing"
    rising = answer and sorted({float(each) for each in answer}) == answer
    return "" if rising else f"found {shown}; expected numbers that rise"


def are_of(answer: list[str], known: Collection[str]) -> str:
    """Some of ``known``, each once."""
    wrong = [each for each in answer if each not in known]
    if wrong or not answer or len(set(answer)) < len(answer):
        return f"found {', '.join(wrong or answer) or 'nothing'}; expected one or more of {', '.join(known)}, each once"
    return ""


def is_given(answer: float | None) -> str:
    """Any number."""
    return "found nothing; expected a number" if answer is None else ""


def is_whole(answer: float | None, *, optional: bool = False) -> str:
    """A whole number of at least 1."""
    if answer is None and optional:
        return ""
    good = answer is not None and 1 <= answer <= MOST and answer == int(answer)
    shown = "nothing" if answer is None else f"{answer:g}"
    return "" if good else f"found {shown}; expected a whole number, 1 to {MOST:,}"


def is_share(answer: float | None, *, optional: bool = False) -> str:
    """A number from 0 to 1."""
    if answer is None:
        return "" if optional else "found nothing; expected a number from 0 to 1"
    return "" if 0 <= answer <= 1 else f"found {answer:g}; expected a number from 0 to 1"


def is_at_least(answer: float | None, low: float | None) -> str:
    """A number that is not below ``low``."""
    if answer is None:
        return "found nothing; expected a number"
    return f"found {answer:g}; expected {low:g} or more" if low is not None and answer < low else ""


def is_low(answer: float | None, least: float) -> str:
    """A threshold that values, which are never below ``least``, can be below."""
    if answer is None or answer > least:
        return ""
    return f"found {answer:g}; expected more than {least:g}, which it is never below"


def is_high(answer: float | None, low: float | None, most: float | None) -> str:
    """A threshold above ``low``, that values, which are never above ``most``, can be above."""
    if answer is None:
        return "found nothing here and nothing before; expected one of the two" if low is None else ""
    if low is not None and answer < low:
        return f"found {answer:g}; expected {low:g} or more"
    if most is not None and answer >= most:
        return f"found {answer:g}; expected less than {most:g}, which it is never above"
    return ""


def is_pattern(answer: str) -> str:
    """A regular expression."""
    try:
        Property(type="string", pattern=answer, max_length=1)
    except ValueError as fault:
        return str(fault)
    return is_there(answer)


def is_public(answer: Mapping[str, Any]) -> str:
    """Settings that a spec can hold: nothing secret, and nothing that TOML has no word for."""
    secret = [key for key, value in answer.items() if looks_secret(key, value)]
    if secret:
        return f"{secret[0]!r} looks like a secret; expected none: a spec is public, use the environment"
    wrong = _unspeakable(answer)
    return f"found {wrong}; expected what TOML has words for" if wrong else ""


def _unspeakable(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        inner = value
    else:
        known = isinstance(value, bool) or is_text(value) or is_number(value)
        return "" if known else "null" if value is None else f"{value!a:.40}"
    return next(filter(None, map(_unspeakable, inner)), "")


def are_conditions(answer: list[str], known: Collection[str]) -> str:
    """Conditions on the values of ``known`` properties."""
    for each in answer:
        try:
            unknown = parse(each).names - set(known)
        except ValueError as fault:
            return str(fault)
        if unknown:
            names = ", ".join(known) or "of which it has none"
            return f"asks for {', '.join(sorted(unknown))}; expected properties whose values are recorded: {names}"
    return ""
