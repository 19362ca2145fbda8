"""The script's questions on a terminal: with defaults, checked at once, and a way back. Writes to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import questionary
from prompt_toolkit.output import create_output
from questionary import Choice

from .script import Question, script

BACK = "<"
_STYLE = questionary.Style([("qmark", "bold"), ("question", "bold"), ("instruction", ""), ("answer", "fg:ansiblue")])


_DONE = Question("", "Write it?", kind="choice", default="write", choices={"write": "as it is above"})


class _Back(Exception):
    """The person wants to answer the question before again."""


def converse(tell: Callable[[str], None], summary: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Every answer, asked for one by one; ``tell`` shows a line, ``summary`` what comes of all of them.

    Raises KeyboardInterrupt where the person ends it.
    """
    given: dict[str, Any] = {}
    asked: list[str] = []
    remembered: dict[str, Any] = {}
    tell(f"Enter takes what is offered, {BACK} goes back, Ctrl-C ends without writing anything.")
    while True:
        question = next((each for each in script(given) if each.path not in given), None)
        try:
            if question is None:
                summary(given)
                _ask(_DONE, _DONE.default, tell)
                return given
            answer = _ask(question, remembered.get(question.path, question.default), tell)
        except _Back:
            if asked:
                remembered[asked[-1]] = given.pop(asked.pop())
            continue
        given[question.path] = answer
        asked.append(question.path)


def _ask(question: Question, default: Any, tell: Callable[[str], None]) -> Any:
    if question.about:
        tell(f"  {question.about}")
    output = create_output(stdout=sys.stderr)
    if question.kind in ("choice", "yes"):
        return _choose(question, default, output)
    answer = questionary.text(
        question.text, default=_text(default), style=_STYLE, output=output,
        validate=lambda text: _is_back(text) or _fault(question, text) or True,
    ).unsafe_ask()  # fmt: skip
    if _is_back(answer):
        raise _Back
    return _value(question, answer)


def _is_back(text: str) -> bool:
    """Whether the way back was typed, perhaps behind what was offered."""
    return text.rstrip().endswith(BACK)


def _choose(question: Question, default: Any, output: Any) -> Any:
    if question.kind == "yes":
        choices = [Choice("yes", value=True), Choice("no", value=False)]
    else:
        width = max(map(len, question.choices))
        choices = [Choice(f"{name.ljust(width)}  {about}".rstrip(), value=name)
                   for name, about in question.choices.items()]  # fmt: skip
    first = next((each for each in choices if each.value == default), choices[0])
    answer = questionary.select(
        question.text, choices=[*choices, Choice(f"{BACK} back", value=BACK)], default=first, style=_STYLE,
        output=output, qmark="?", instruction=" ",
    ).unsafe_ask()  # fmt: skip
    if answer == BACK and BACK not in question.choices:
        raise _Back
    return answer


def _text(default: Any) -> str:
    if default is None:
        return ""
    return ", ".join(default) if isinstance(default, list) else f"{default}"


def _fault(question: Question, text: str) -> str:
    try:
        return question.fault(_value(question, text))
    except ValueError:
        return f"found {text!r}; expected a number"


def _value(question: Question, text: str) -> Any:
    """What a line of text is as an answer. Raises ValueError for what is no number."""
    text = text.strip()
    if question.kind == "names":
        return [part.strip() for part in text.split(",") if part.strip()]
    if question.kind == "number":
        number = float(text) if text else None
        return int(number) if number is not None and number == int(number) else number
    return text
