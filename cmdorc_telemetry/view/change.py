"""What can be changed, as lines to copy: the page itself changes nothing."""

from __future__ import annotations

from ..markup import Markup, html
from .facts import Facts
from .parts import Part, part

_ON = (
    ("opt-out", "Stop, ask servers to erase this install, delete what is recorded here."),
    ("opt-in --level minimal", "Share the least, after seeing every field again."),
    ("opt-in --local", "Record for your own statistics alone; nothing is sent."),
    ("review", "Decide on what is new since you said yes."),
    ("audit --verify", "Check what left against the ledger."),
    ("reset-id", "Go on under a new random id."),
    ("stats", "Your statistics, in the terminal."),
)
_SHARED = ("show-payload", "The newest event, byte for byte.")
_LOCAL = ("show-payload --to history", "The newest event, byte for byte.")
_OFF = (
    ("opt-in", "See every field with a value of this machine, then decide. The default is no."),
    ("opt-in --local", "Record for your own statistics alone; nothing is sent."),
    ("show-payload", "A sample of what one event would look like."),
)


def change(facts: Facts) -> Part:
    """One line for each thing to do."""
    local = facts.recording and facts.level == "off"
    lines = (*_ON, _LOCAL if local else _SHARED) if facts.recording_elsewhere else _OFF
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
