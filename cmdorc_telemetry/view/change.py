"""What can be changed, as lines to copy: the page itself changes nothing."""

from __future__ import annotations

from ..markup import Markup, html
from .facts import Facts
from .parts import Part, part

_ON = (
    ("opt-out", "Stop, ask servers to erase this install, delete what is recorded here."),
    ("opt-in --level minimal", "Share less, or see everything again before you decide."),
    ("opt-in --local", "Record for your own statistics alone; nothing is sent."),
    ("review", "Decide on what is new since you said yes."),
    ("audit --verify", "Check what left against the ledger."),
    ("reset-id", "Go on under a new random id."),
    ("show-payload", "The newest event, byte for byte."),
    ("stats", "Your statistics, in the terminal."),
)
_OFF = (
    ("opt-in", "See every field with a value of this machine, then decide. The default is no."),
    ("opt-in --local", "Record for your own statistics alone; nothing is sent."),
    ("show-payload", "A sample of what one event would look like."),
)


def change(facts: Facts) -> Part:
    """One line for each thing to do."""
    lines = _ON if facts.recording_elsewhere else _OFF
    return part(
        "change",
        html.p("This page cannot change anything by itself. Copy a line and run it in a terminal."),
        html.ul([html.li(_line(facts, number, *line)) for number, line in enumerate(lines)], class_="lines"),
    )


def _line(facts: Facts, number: int, words: str, about: str) -> list[Markup]:
    """A field that the keyboard reaches and selects whole: copied without a script."""
    line = f"{facts.command} {words}"
    return [
        html.input(type="text", readonly=True, value=line, id=f"line-{number}", size=len(line), spellcheck="false",
                   autocomplete="off", aria_labelledby=f"about-{number}"),
        html.p(about, id=f"about-{number}"),
    ]  # fmt: skip
