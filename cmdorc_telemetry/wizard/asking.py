"""The script's questions on a terminal: with defaults, checked at once, and a way back. Writes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from textwrap import wrap
from typing import Any

import questionary
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.output import Output, create_output
from questionary import Choice

from .interview import Interview
from .question import Question

BACK = "<"
_STYLE = questionary.Style([("qmark", "bold"), ("question", "bold"), ("instruction", ""), ("answer", "fg:ansicyan"),
                            ("validation-toolbar", "noreverse")])  # fmt: skip
_WRITE = Question("", "Write it?", kind="choice", default="write", choices={"write": "as it is above"})
_YES = {"yes": True, "no": False}


class _Back(Exception):
    """The person wants to answer the question before again."""


class Terminal:
    """How wide it is, and what shows a line on it."""

    def __init__(self, show: Callable[[str], None], width: int) -> None:
        self._show, self.width = show, max(width, 20)
        self.output: Output = create_output(stdout=sys.stderr)

    def tell(self, text: str) -> None:
        """Show ``text``, wrapped between words."""
        for line in wrap(text, self.width - 3):
            self._show(f"  {line}")

    def fitting(self, fault: str) -> str:
        """``fault``, which is shown in one line: where it is too long, what would be right."""
        short = fault.partition("; ")[2]
        return short if short and len(fault) >= self.width else fault

    def echo(self, question: Question, answer: str) -> None:
        """Show what was chosen where the choices were."""
        self._show(f"? {question.text} {answer}")


def converse(
    terminal: Terminal, summary: Callable[[dict[str, Any]], None], checks: Mapping[str, Callable[[Any], str]]
) -> dict[str, Any]:
    """Every answer, asked for one by one; ``summary`` shows what comes of all of them.

    Raises KeyboardInterrupt or EOFError where the person ends it.
    """
    interview = Interview(checks)
    terminal.tell(f"Enter takes what is offered; {BACK} goes back; Ctrl-C ends, and nothing is written.")
    while True:
        question = interview.question()
        try:
            if question is None:
                summary(interview.given)
                _ask(_WRITE, _WRITE.fault, terminal)
                return interview.given
            interview.answer(_ask(question, interview.fault, terminal))
        except _Back:
            interview.back()


def _ask(question: Question, fault: Callable[[Any], str], terminal: Terminal) -> Any:
    """One answer. Raises _Back."""
    if question.about:
        terminal.tell(question.about)
    if question.kind in ("choice", "yes"):
        return _chosen(question, terminal)

    offered = text_of(question.default)

    def judged(text: str) -> bool | str:
        if _is_back(text, offered):
            return True
        try:
            return terminal.fitting(fault(value_of(question, text))) or True
        except ValueError as error:
            return terminal.fitting(str(error))

    asked = questionary.text(question.text, default=offered, style=_STYLE, output=terminal.output,
                             validate=judged)  # fmt: skip
    text = _run(asked)
    if _is_back(text, offered):
        raise _Back
    return value_of(question, text)


def _run(asked: questionary.Question, *, leaves: str = "") -> Any:
    """The answer to what was asked; Ctrl-D ends it like Ctrl-C, and the key ``leaves`` is an answer of its own."""
    keys = KeyBindings()

    @keys.add("c-d", eager=True)
    def end(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError)

    if leaves:

        @keys.add(leaves, eager=True)
        def leave(event: KeyPressEvent) -> None:
            event.app.exit(result=leaves)

    had = asked.application.key_bindings
    asked.application.key_bindings = merge_key_bindings([keys, *([had] if had is not None else [])])
    return asked.unsafe_ask()


def _is_back(text: str, offered: str) -> bool:
    """Whether the way back was typed, perhaps behind what was offered: a pattern of one's own may end so, too."""
    return text.strip() in (BACK, f"{offered}{BACK}".strip())


def _chosen(question: Question, terminal: Terminal) -> Any:
    choices = dict(question.choices) if question.kind == "choice" else dict.fromkeys(_YES, "")
    offered = [name for name in choices if _YES.get(name, name) == question.default]
    shown = [Choice(title, value=name) for name, title in _titles({**choices, BACK: "back"}, terminal.width).items()]
    first = next((each for each in shown if each.value in offered), shown[0])
    answer = _run(
        questionary.select(question.text, choices=shown, default=first, style=_STYLE, output=terminal.output,
                           instruction=" ", erase_when_done=True),
        leaves=BACK,
    )  # fmt: skip
    if answer == BACK:
        raise _Back
    terminal.echo(question, answer)
    return _YES[answer] if question.kind == "yes" else answer


def _titles(choices: Mapping[str, str], width: int) -> dict[str, str]:
    """Each choice with what it means, aligned, and wrapped into ``width``."""
    longest = max(map(len, choices)) + 2
    room = max(width - longest - 5, 15)
    below = "\n" + " " * (longest + 3)
    return {name: f"{name.ljust(longest)}{below.join(wrap(about, room))}".rstrip() for name, about in choices.items()}


# -- what a line of text is as an answer -------------------------------------------------------------------------------


def text_of(answer: Any) -> str:
    """An answer as a person types it."""
    if answer is None:
        return ""
    if isinstance(answer, list):
        return ", ".join(map(text_of, answer))
    if isinstance(answer, dict):
        return json.dumps(answer, ensure_ascii=False)
    return f"{answer:.15g}" if isinstance(answer, float) else f"{answer}"


def value_of(question: Question, text: str) -> Any:
    """A line of text as an answer to ``question``. Raises ValueError with what was found and what would be right."""
    text = text.strip()
    match question.kind:
        case "names":
            return _parts(text)
        case "conditions":
            return [text] if text else []
        case "number":
            return _number(text) if text else None
        case "numbers":
            return [_number(part) for part in _parts(text)]
        case "version":
            return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text
        case "table":
            return _table(text)
        case _:
            return text


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str) -> float:
    try:
        number = float(text)
        return int(number) if number == int(number) else number
    except (ValueError, OverflowError):
        raise ValueError(f"found {text!r}; expected a number") from None


def _table(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise ValueError(f'found {text!r}; expected a JSON object, such as {{"region": "eu"}}') from None
