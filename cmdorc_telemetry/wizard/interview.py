"""Where somebody is in the script: what they answered, and what they had answered before they went back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .question import Question
from .script import script


class Interview:
    """Answers one by one, with a way back. Pure: whoever asks the questions calls ``answer`` and ``back``.

    After a way back, what was answered then is offered again, but for what hung on an answer that is another now.
    """

    def __init__(self, checks: Mapping[str, Callable[[Any], str]] | None = None) -> None:
        """``checks``: path → what else may be wrong with an answer there."""
        self.given: dict[str, Any] = {}
        """The answers, and nothing that is not asked for."""
        self._ahead: dict[str, Any] = {}
        """Those that somebody went back over."""
        self._checks = checks or {}

    def question(self) -> Question | None:
        """The next one; None where all are answered."""
        found = next((each for each in script(self.given) if each.path not in self.given), None)
        if found is None:
            return None
        return found._replace(default=self._ahead.get(found.path, found.default))

    def fault(self, answer: Any) -> str:
        """What is wrong with ``answer`` to the question; empty for nothing."""
        question = self.question()
        assert question is not None
        more = self._checks.get(question.path, lambda answer: "")
        return question.fault(answer) or more(answer)

    def answer(self, answer: Any) -> None:
        """Answer the question. Raises ValueError with what is wrong, and what would be right."""
        question = self.question()
        assert question is not None
        if fault := self.fault(answer):
            raise ValueError(fault)
        before = self._asked() if self._ahead else {}
        self.given[question.path] = answer
        self._ahead.pop(question.path, None)
        after = self._asked() if self._ahead else {}
        self._ahead = {
            path: value for path, value in self._ahead.items()
            if path in after and after[path].asks_the_same_as(before.get(path)) and not after[path].fault(value)
        }  # fmt: skip

    def _asked(self) -> dict[str, Question]:
        """The questions that the answers lead to, those included that somebody went back over."""
        return {each.path: each for each in script({**self.given, **self._ahead})}

    def back(self) -> bool:
        """Take the last answer back; False where there is none."""
        if not self.given:
            return False
        path, answer = self.given.popitem()
        self._ahead[path] = answer
        return True
